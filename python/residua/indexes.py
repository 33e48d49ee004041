# SPDX-License-Identifier: Apache-2.0
"""Indexes: collections of vectors that are searched."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from threading import Lock
from typing import Any, Literal

from residua import _core
from residua._code_rows import CodeRows
from residua._collect import Found, add_details, collect_hits, collect_ranges
from residua._filters import refuse_columns
from residua._funnel import as_funnel
from residua._progress import reporter
from residua._search_options import as_rerank, as_scoring, as_threshold
from residua._staged_add import add_and_fit, unless_it_fails
from residua._typing import AnyArray, ArrayLike, FloatArray, Ids, Metric, Progress, Scoring, Vectors
from residua._validate import (
    METRICS,
    as_choice,
    as_codes,
    as_dim,
    as_flag,
    as_ids,
    as_k,
    as_path,
    as_threads,
    as_vectors,
    check_sample,
    refuse_huge_result,
    refuse_zero_rows,
)
from residua.codecs import Codec, check_codec, from_recipe, wrap
from residua.errors import InvalidValueError, NotTrainedError, UnknownIdError, UnsupportedError
from residua.results import Hits, RangeHits

__all__ = ["FlatIndex"]

_VECTORS = ("auto", "float32", "float16", "int8", "disk", "none")
_FIT_AT = 256  # rows at which an untrained codec is fitted


class FlatIndex(CodeRows):
    """Search by scanning every vector, on codes or on floats, and settle the best exactly.

    Parameters
    ----------
    dim
        Dims of the vectors, 1 … 65,536.
    metric
        ``"cosine"``, ``"ip"`` (inner product) or ``"l2"`` (squared distance).
    codec
        None scans float32 vectors exactly. A codec scans its codes; an untrained one is fitted by
        :meth:`train`, or by itself at the first 256 rows; until then rows are scored as exact float32.
    vectors
        What is kept for exact re-ranking: ``"auto"`` (float16 while it holds every row to 1e-3 of its
        norm, else float32; float32 without a codec), ``"float32"``, ``"float16"``, ``"int8"``,
        ``"disk"`` (float32 in a temporary file) or ``"none"``.
    columns
        Typed attributes; not in this version, must be None.

    Notes
    -----
    O(n) time per pass, ``code_bytes`` per row plus the kept vectors. Changes wait for running searches.

    Examples
    --------
    >>> import residua as rz
    >>> sample = rz.datasets.load_sample()
    >>> index = rz.FlatIndex(384, codec=rz.RecurrentBinaryCodec(384, bits=1))
    >>> ids = index.add(sample.documents[:2000])
    >>> hits = index.search(sample.queries, k=10)
    >>> hits.ids.shape
    (500, 10)
    """

    def __init__(
        self,
        dim: int,
        *,
        metric: Metric = "cosine",
        codec: Codec | None = None,
        vectors: Vectors = "auto",
        columns: None = None,
    ) -> None:
        dim = as_dim(dim)
        as_choice(metric, "metric", METRICS)
        as_choice(vectors, "vectors", _VECTORS)
        refuse_columns(columns)
        check_codec(codec, dim)
        recipe = "" if codec is None else codec._recipe()
        self._native = _core.FlatIndex(dim, metric, vectors, codec is not None, recipe)
        self._codec = codec
        self._fitting = Lock()
        if codec is not None:
            codec._join(metric)
            if codec.is_trained:
                self._native.set_codec(codec._trained(), 1)

    @classmethod
    def _from_native(cls, native: _core.FlatIndex) -> FlatIndex:
        index = cls.__new__(cls)
        index._native = native
        index._fitting = Lock()
        if native.awaits_codec:
            index._codec = from_recipe(native.dim, native.codec_recipe)
        else:
            index._codec = None if native.codec is None else wrap(native.codec)
        return index

    @property
    def dim(self) -> int:
        """Dims of the vectors."""
        return self._native.dim

    @property
    def metric(self) -> Metric:
        """``"cosine"``, ``"ip"`` or ``"l2"``."""
        return self._native.metric

    @property
    def codec(self) -> Codec | None:
        """The codec, or None when float vectors are scanned."""
        return self._codec

    @property
    def plan(self) -> str:
        """How a search runs with default settings, in words."""
        if self._native.codec is None:
            waiting = f" (until {self._codec!r} is fitted)" if self._codec is not None else ""
            return f"exact scan of kept vectors{waiting}"
        rerank = "" if self._native.vectors == "none" else ", then exact re-ranking from the kept vectors"
        return f"scan of {self._native.codec.code_bytes}-byte codes{rerank}"

    def train(
        self,
        x: ArrayLike,
        *,
        queries: ArrayLike | None = None,
        num_threads: int | None = None,
        progress: Progress = False,
    ) -> FlatIndex:
        """Fit the codec on a sample; an index that has nothing to fit only checks the sample.

        Parameters
        ----------
        x
            ``(n, dim)`` sample of the vectors to come.
        queries
            ``(nq, dim)`` sample of queries, or None.
        num_threads
            At least 1; None uses the CPUs that the process may use.
        progress
            True draws a progress bar; a callable gets ``(done, total)``.

        Returns
        -------
        The index itself.
        """
        as_threads(num_threads)
        if self._codec is None or not self._codec._recipe():  # nothing to fit
            check_sample(x, queries, self.dim, reporter(progress, "train"))
            return self
        with self._fitting:
            if not self._native.awaits_codec:
                raise InvalidValueError(f"the codec of this index is trained already: {self._codec!r}")
            self._take_codec(self._codec, x, queries, num_threads, progress)
        return self

    def _take_codec(
        self, codec: Codec, x: ArrayLike, queries: ArrayLike | None, threads: int | None, progress: Progress
    ) -> None:
        """Encode all rows with the codec, which is fitted to ``x`` unless somebody has fitted it."""
        if not codec.is_trained:
            codec.fit(x, queries=queries, metric=self.metric, num_threads=threads, progress=progress)
        self._native.set_codec(codec._trained(), as_threads(threads))

    def add(
        self,
        x: ArrayLike,
        ids: Ids | None = None,
        columns: None = None,
        *,
        upsert: bool = False,
        num_threads: int | None = None,
        progress: Progress = False,
    ) -> AnyArray:
        """Add vectors; all of them or, on an error, none.

        Parameters
        ----------
        x
            ``(n, dim)`` float32, float16, bfloat16 or float64; finite, and not zero under cosine.
        ids
            ``(n,)`` integers 0 … 2**63 - 1 or str; None continues from the largest id + 1.
        columns
            Not in this version, must be None.
        upsert
            Replace the vectors of ids that exist instead of raising DuplicateIdError.
        num_threads
            At least 1; None uses the CPUs that the process may use.
        progress
            True draws a progress bar; a callable gets ``(done, total)``: ``(0, 1)``, where its error keeps
            all rows out, and at the end ``(1, 1)``, where all are in.

        Returns
        -------
        ``(n,)`` ids: int64, or object (str).

        Raises
        ------
        ShapeError, DtypeError, NonFiniteError, DuplicateIdError, InvalidValueError
        """
        refuse_columns(columns)
        as_flag(upsert, "upsert")
        threads = as_threads(num_threads)
        report = reporter(progress, "add")
        v, _ = as_vectors(x, self.dim, "x")
        if self.metric == "cosine":
            refuse_zero_rows(v, "x")
        given = None if ids is None else as_ids(ids, len(v))
        if self._codec is not None and self._native.awaits_codec:
            self._codec._join(self.metric)  # fitted by now, perhaps
        if upsert and given is None:
            raise InvalidValueError("upsert=True needs ids")
        report(0, 1)
        fit = partial(self._fit_on_rows, num_threads) if self._native.awaits_codec else None
        added = add_and_fit(self._native, v, given, upsert, threads, fit)
        report(1, 1)
        return added

    def _fit_on_rows(self, num_threads: int | None) -> None:
        """Fit the codec when there are rows enough."""
        codec = self._codec
        if codec is None or len(self) < _FIT_AT:
            return
        with self._fitting, unless_it_fails(codec, self._native):
            if self._native.awaits_codec:  # no other thread was first
                self._take_codec(codec, self._native.staged_vectors(), None, num_threads, False)

    def search(
        self,
        q: ArrayLike,
        k: int = 10,
        *,
        filter: Any = None,
        scoring: Scoring | None = None,
        rerank: int | bool | None = None,
        funnel: Sequence[tuple[int, int]] | None = None,
        plan: Literal["auto", "scan"] = "auto",
        num_threads: int | None = None,
        explain: bool = False,
    ) -> Hits:
        """Find the k best vectors of every query.

        Parameters
        ----------
        q
            ``(nq, dim)`` queries, or ``(dim,)`` for one, which gives one-dimensional results.
        k
            How many, 1 … 2**31 - 1.
        filter
            None, a boolean mask over the live rows in insertion order (``len(index)`` values), an array
            of allowed ids, or a list with one of these per query.
        scoring
            None or ``"asymmetric"`` (float query against codes), or ``"symmetric"`` (the query is encoded
            too, as ``codec.encode(q, refine="scale")`` does).
        rerank
            None chooses how many candidates are settled exactly from the kept vectors; False or 0 gives
            code scores only; an integer says how many, True as None. Without a codec all scores are exact.
        funnel
            Stages ``(dims, keep)``: the first ``dims`` dims choose ``keep`` rows for the next stage, all dims
            the k best of the last ones; dims ascend, keep does not and is at least k (docs/funnel.md).
        plan
            ``"auto"`` or ``"scan"``: this index has one plan.
        num_threads
            At least 1; None uses the CPUs that the process may use. Results do not depend on it.
        explain
            Add details to ``hits.stats``.

        Returns
        -------
        Hits, best first, ties by smaller id.

        Raises
        ------
        ShapeError, DtypeError, NonFiniteError, InvalidValueError, InvalidTypeError
        """
        k = as_k(k)
        threads = as_threads(num_threads)
        as_choice(plan, "plan", ("auto", "scan"))
        name = as_scoring(scoring, has_codec=self._codec is not None)
        candidates = as_rerank(rerank, vectors=self._native.vectors, has_codec=self._codec is not None)
        details = as_flag(explain, "explain")
        stages = as_funnel(funnel, self._codec)
        v, single = as_vectors(q, self.dim, "q", one=True)
        if self.metric == "cosine":
            refuse_zero_rows(v, "q")
        refuse_huge_result(len(v), k, len(self))
        hits = collect_hits(
            lambda rows, allowed: self._native.search(v[rows], k, name, candidates, allowed, threads, stages),
            (len(v), k, single),
            filter,
            self._score_metric(name, candidates),
        )
        return add_details(hits, self._native) if details else hits

    def _score_metric(self, scoring: str, candidates: int) -> str:
        """Return the metric that orders the scores: larger is better where bits are counted."""
        counted = self._native.codec is not None and self._native.codec.counts_bits
        settled = candidates != 0 and self._native.vectors != "none"
        return "ip" if counted and scoring == "symmetric" and not settled else self.metric

    def search_codes(
        self,
        codes: ArrayLike,
        k: int = 10,
        *,
        filter: Any = None,
        scoring: Scoring | None = None,
        rerank: int | bool | None = None,
        plan: Literal["auto", "scan"] = "auto",
        num_threads: int | None = None,
        explain: bool = False,
    ) -> Hits:
        """Find the k best vectors of every code, by code scores alone (SDC) unless told otherwise.

        Parameters
        ----------
        codes
            ``(nq, code_bytes)`` uint8 as ``index.codec.encode`` returns them, or one code.
        k
            How many, 1 … 2**31 - 1.
        filter
            As for :meth:`search`.
        scoring
            None or ``"symmetric"`` (code against code), or ``"asymmetric"``: the codes are decoded and
            searched as float queries.
        rerank
            None, False or 0: code scores only. An integer settles that many candidates by the decoded code
            against the kept vectors; True chooses how many.
        plan, num_threads, explain
            As for :meth:`search`.

        Returns
        -------
        Hits, best first, ties by smaller id.
        """
        k = as_k(k)
        threads = as_threads(num_threads)
        as_choice(plan, "plan", ("auto", "scan"))
        if self._codec is None:
            raise UnsupportedError("search_codes needs an index with a codec; this one scans float vectors")
        if self._native.codec is None:
            raise NotTrainedError("the codec of this index is not fitted yet; call train(x) or add more rows")
        scoring_name = as_scoring("symmetric" if scoring is None else scoring, has_codec=True)
        candidates = 0 if rerank is None else as_rerank(rerank, vectors=self._native.vectors, has_codec=True)
        details = as_flag(explain, "explain")
        c, single = as_codes(codes, self._native.codec.code_bytes, "codes")
        refuse_huge_result(len(c), k, len(self))
        decoded = self._codec.decode(c, num_threads=num_threads) if scoring_name == "asymmetric" else None

        def search(rows: slice, allowed: Any) -> Found:
            if decoded is not None:
                return self._native.search(decoded[rows], k, scoring_name, candidates, allowed, threads, [])
            return self._native.search_codes(c[rows], k, candidates, allowed, threads)

        metric = self._score_metric(scoring_name, candidates)
        hits = collect_hits(search, (len(c), k, single), filter, metric)
        return add_details(hits, self._native) if details else hits

    def range_search(
        self, q: ArrayLike, threshold: float, *, filter: Any = None, num_threads: int | None = None
    ) -> RangeHits:
        """Find every vector whose score reaches a threshold.

        Scores are exact where vectors are kept; with ``vectors="none"`` they are code scores.

        Parameters
        ----------
        q
            ``(nq, dim)`` queries, or ``(dim,)`` for one.
        threshold
            Smallest similarity (cosine, ip) or largest squared distance (l2) that counts.
        filter
            As for :meth:`search`.
        num_threads
            At least 1; None uses the CPUs that the process may use.

        Returns
        -------
        RangeHits: per query best first, ties by smaller id.
        """
        threads = as_threads(num_threads)
        limit = as_threshold(threshold)
        v, single = as_vectors(q, self.dim, "q", one=True)
        if self.metric == "cosine":
            refuse_zero_rows(v, "q")
        return collect_ranges(
            lambda rows, allowed: self._native.range_search(v[rows], limit, allowed, threads),
            len(v),
            single,
            filter,
        )

    def remove(self, ids: Ids, *, missing: Literal["raise", "ignore"] = "raise") -> int:
        """Remove vectors by id; their memory is given back by :meth:`compact`.

        Parameters
        ----------
        ids
            Ids to remove; one given twice counts once.
        missing
            ``"raise"`` UnknownIdError (a KeyError) for an id that is not there, before anything is
            removed; ``"ignore"`` skips it.

        Returns
        -------
        How many were removed.
        """
        as_choice(missing, "missing", ("raise", "ignore"))
        return self._native.remove(as_ids(ids, None), missing == "ignore")

    def get(self, ids: Ids) -> FloatArray:
        """Return vectors by id, as kept (decoded from the codes with ``vectors="none"``).

        Parameters
        ----------
        ids
            ``(n,)`` ids.

        Returns
        -------
        ``(n, dim)`` float32, in the order of ``ids``.

        Raises
        ------
        UnknownIdError, which names the first id that is not there.
        """
        return self._native.get(as_ids(ids, None))

    def columns(self, ids: Ids) -> dict[str, AnyArray]:
        """Return the columns of some rows: this version has none, so the dict is empty.

        Parameters
        ----------
        ids
            ``(n,)`` ids, which must exist.

        Returns an empty dict.
        """
        given = as_ids(ids, None)
        if not self._native.contains(given):
            raise UnknownIdError("columns: an id is not in the index")
        return {}

    def compact(self) -> None:
        """Give back the memory of removed vectors; ids stay as they are."""
        self._native.compact()

    def memory(self) -> dict[str, int]:
        """Return the bytes of every part; their sum is the index."""
        return self._native.memory()

    def save(self, path: Any) -> None:
        """Write the index to ``path``, atomically; read it back with :func:`residua.load`.

        Parameters
        ----------
        path
            str or os.PathLike; folders are not created.

        Raises
        ------
        FileError: the folder is missing, the path is a directory, …
        """
        self._native.save(as_path(path))

    def __len__(self) -> int:
        return len(self._native)

    def __contains__(self, id: object) -> bool:
        try:
            return self._native.contains(as_ids([id], 1))
        except (TypeError, ValueError):
            return False

    def __repr__(self) -> str:
        size = sum(self.memory().values())
        text = f"{size / 2**20:.1f} MiB" if size >= 2**20 else f"{size / 2**10:.1f} KiB"
        return (
            f"FlatIndex(n={len(self):_}, dim={self.dim}, metric={self.metric!r}, codec={self._codec!r}, "
            f"vectors={self._native.vectors!r}, {text})"
        )
