# SPDX-License-Identifier: Apache-2.0
"""What all indexes share: rows, ids, training, and the way of a search into native code and back."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from threading import Lock
from typing import Any, Literal, TypeVar

from residua import _core
from residua._code_rows import CodeRows
from residua._collect import Found, Rows, add_details, collect_hits, collect_ranges, takes_texts
from residua._columns import as_cells, as_dict
from residua._placement import Placed
from residua._progress import reporter
from residua._saved import Saved
from residua._search_options import as_rerank, as_scoring, as_threshold
from residua._settings import Settings
from residua._size_text import size_text
from residua._staged_add import add_and_fit, unless_it_fails
from residua._typing import AnyArray, ArrayLike, FloatArray, Ids, Metric, Progress
from residua._validate import (
    as_choice,
    as_codes,
    as_flag,
    as_ids,
    as_k,
    as_threads,
    as_vectors,
    check_sample,
    refuse_huge_result,
    refuse_zero_rows,
)
from residua.codecs import Codec, from_recipe, wrap
from residua.errors import InvalidTypeError, InvalidValueError, NotTrainedError, UnsupportedError
from residua.results import Hits, RangeHits

_VECTORS = ("auto", "float32", "float16", "int8", "disk", "none")
_FIT_AT = 256  # rows at which an untrained codec is fitted

_Self = TypeVar("_Self", bound="Index")
Steps = Callable[[int, int], None] | None


class Index(CodeRows, Placed, Settings, Saved):
    """A collection of vectors that is searched; its classes differ in how."""

    _native: _core.Index
    _codecs: list[Codec | None]

    @property
    def _codec(self) -> Codec | None:
        """The codec; one for all objects that :meth:`to` made of this index."""
        return self._codecs[0]

    @_codec.setter
    def _codec(self, codec: Codec | None) -> None:
        self._codecs[0] = codec

    def _start(self, native: _core.Index, codec: Codec | None) -> None:
        """Take the native index, and the codec that it has or will have."""
        self._native = native
        self._codecs = [codec]
        self._fitting = Lock()

    @classmethod
    def _from_native(cls: type[_Self], native: _core.Index) -> _Self:
        index = cls.__new__(cls)
        if native.awaits_codec:
            index._start(native, cls._waiting_codec(native))
        else:
            index._start(native, None if native.codec is None else wrap(native.codec))
        return index

    @classmethod
    def _waiting_codec(cls, native: _core.Index) -> Codec:
        return from_recipe(native.dim, native.codec_recipe)

    # What the classes of indexes say about their training, and whether adding tells how many rows are done.

    _counts_rows = False

    @property
    def _awaits_training(self) -> bool:
        """Whether something is to be fitted before the index searches as it is meant to."""
        return self._native.awaits_codec

    def _fit_at(self) -> int:
        """Rows at which the index fits itself."""
        return _FIT_AT

    def _train(
        self, x: ArrayLike, queries: ArrayLike | None, threads: int | None, progress: Progress
    ) -> None:
        """Fit what is to be fitted to ``x``, and put the rows that are here into its form."""
        raise NotImplementedError

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

    def train(
        self: _Self,
        x: ArrayLike,
        *,
        queries: ArrayLike | None = None,
        num_threads: int | None = None,
        progress: Progress = False,
    ) -> _Self:
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
        if not self._can_train:
            check_sample(x, queries, self.dim, reporter(progress, "train"))
            return self
        with self._fitting:
            if not self._awaits_training:
                raise InvalidValueError(f"the codec of this index is trained already: {self._codec!r}")
            self._train(x, queries, num_threads, progress)
        return self

    @property
    def _can_train(self) -> bool:
        """Whether this index has, or had, anything to fit."""
        return self._codec is not None and bool(self._codec._recipe())

    def add(
        self,
        x: ArrayLike,
        ids: Ids | None = None,
        columns: Any = None,
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
            Values of the columns, one per vector: a dict of arrays, a pandas, polars or Arrow table, or a
            list of dicts; None, NaN and NaT are null, as is a column that is not named. None: all null.
        upsert
            Replace the vectors of ids that exist instead of raising DuplicateIdError; they keep the values
            of columns that are not named.
        num_threads
            At least 1; None uses the CPUs that the process may use.
        progress
            True draws a progress bar; a callable gets ``(done, total)``: ``(0, 1)``, where its error keeps
            all rows out, and at the end ``(1, 1)``, where all are in; of a graph ``(0, n)``, rows that have
            their neighbours, and ``(n, n)``.

        Returns
        -------
        ``(n,)`` ids: int64, or object (str).

        Raises
        ------
        ShapeError, DtypeError, NonFiniteError, DuplicateIdError, InvalidValueError
        """
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
        cells = as_cells(columns, self._native.fields, len(v))
        total = max(1, len(v)) if self._counts_rows else 1
        report(0, total)
        steps: Steps = None
        if self._counts_rows and progress:
            steps = lambda done, of: report(done * total // of, total)  # noqa: E731
        fit = partial(self._fit_on_rows, num_threads, steps) if self._awaits_training else None
        added = add_and_fit(self._native, v, given, upsert, threads, fit, cells, steps)
        report(total, total)
        return added

    def _fit_on_rows(self, num_threads: int | None, steps: Steps = None) -> None:
        """Fit what is to be fitted when there are rows enough."""
        if len(self) < self._fit_at():
            return
        with self._fitting, unless_it_fails(self._codec, self._native):
            if self._awaits_training:  # no other thread was first
                self._train(self._native.staged_vectors(), None, num_threads, steps or False)

    def _search(
        self,
        q: ArrayLike,
        k: int,
        filter: Any,
        scoring: Any,
        rerank: Any,
        num_threads: int | None,
        explain: bool,
        out: Any = "numpy",
        **options: Any,
    ) -> Hits:
        """Search; ``options`` go to native code as they are."""
        k = as_k(k)
        to_place = self._as_out(out)
        threads = as_threads(num_threads)
        rerank = self._default("rerank", rerank, k)
        name = as_scoring(scoring, has_codec=self._codec is not None)
        candidates = as_rerank(rerank, vectors=self._native.vectors, has_codec=self._codec is not None)
        details = as_flag(explain, "explain")
        options |= self._scan_options()
        v, single = as_vectors(self._on_host(q, "q"), self.dim, "q", one=True)
        if self.metric == "cosine":
            refuse_zero_rows(v, "q")
        refuse_huge_result(len(v), k, len(self))
        hits = collect_hits(
            lambda rows, allowed: self._native.search(
                v if isinstance(rows, slice) else v[rows], k, name, candidates, allowed, threads, **options
            ),
            (len(v), k, single),
            filter,
            self._score_metric(name, candidates),
            texts=takes_texts(self._native, filter),
            together=self._takes_filters(),
        )
        hits = add_details(hits, self._native, details, self._place)
        return hits if to_place is None else to_place.take(hits)

    def _search_codes(
        self,
        codes: ArrayLike,
        k: int,
        filter: Any,
        scoring: Any,
        rerank: Any,
        num_threads: int | None,
        explain: bool,
        **options: Any,
    ) -> Hits:
        """Search by codes; ``options`` go to native code as they are."""
        k = as_k(k)
        threads = as_threads(num_threads)
        if self._codec is None:
            raise UnsupportedError("search_codes needs an index with a codec; this one scans float vectors")
        if self._native.codec is None:
            raise NotTrainedError("the codec of this index is not fitted yet; call train(x) or add more rows")
        scoring_name = as_scoring("symmetric" if scoring is None else scoring, has_codec=True)
        candidates = 0 if rerank is None else as_rerank(rerank, vectors=self._native.vectors, has_codec=True)
        details = as_flag(explain, "explain")
        options |= self._scan_options()
        c, single = as_codes(self._on_host(codes, "codes"), self._native.codec.code_bytes, "codes")
        refuse_huge_result(len(c), k, len(self))
        decoded = self._codec.decode(c, num_threads=num_threads) if scoring_name == "asymmetric" else None

        def search(rows: Rows, allowed: Any) -> Found:
            if decoded is not None:
                return self._native.search(
                    decoded[rows], k, scoring_name, candidates, allowed, threads, **options
                )
            return self._native.search_codes(c[rows], k, candidates, allowed, threads, **options)

        metric = self._score_metric(scoring_name, candidates)
        texts = takes_texts(self._native, filter)
        together = self._takes_filters()
        hits = collect_hits(search, (len(c), k, single), filter, metric, texts=texts, together=together)
        return add_details(hits, self._native, details, self._place)

    def _takes_filters(self) -> bool:
        """Whether native code takes a filter per query."""
        return False

    def _score_metric(self, scoring: str, candidates: int) -> str:
        """Return the metric that orders the scores: larger is better where bits are counted."""
        if scoring != "symmetric":
            return self.metric
        counted = self._native.codec is not None and self._native.codec.counts_bits
        settled = candidates != 0 and self._native.vectors != "none"
        return "ip" if counted and not settled else self.metric

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
            texts=takes_texts(self._native, filter),
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
        """Return the values of all columns for some rows.

        Parameters
        ----------
        ids
            ``(n,)`` ids, which must exist.

        Returns
        -------
        Name to ``(n,)`` array in the order of ``ids``: int64, float64, bool, datetime64[us] (in UTC where the
        times have a zone), or objects: str, and lists of str for tags. Null is NaN, NaT, or None, with which
        integers and booleans become objects.

        Raises
        ------
        UnknownIdError, which names the first id that is not there.
        """
        return as_dict(self._native.columns(as_ids(ids, None)), self._native.fields)

    def set_columns(self, ids: Ids, columns: Any) -> None:
        """Replace values of columns in place, all of them or, on an error, none; vectors stay as they are.

        Parameters
        ----------
        ids
            ``(n,)`` ids, which must exist; of one given twice the last value stays.
        columns
            As for :meth:`add`, n values per column; columns that are not named keep theirs.

        Raises
        ------
        UnknownIdError, ShapeError, DtypeError, InvalidValueError
        """
        given = as_ids(ids, None)
        cells = as_cells(columns, self._native.fields, len(given), "ids")
        if cells is None:
            raise InvalidTypeError("set_columns needs a dict of arrays, a table or a list of dicts, got None")
        self._native.set_columns(given, cells)

    def compact(self) -> None:
        """Give back the memory of removed vectors; ids stay as they are."""
        self._native.compact()

    def memory(self) -> dict[str, int]:
        """Return the bytes of every part, "device" those on a CUDA device; their sum is the index."""
        parts = self._native.memory()
        return parts if self._place is None else {**parts, "device": self._place.native.memory_bytes}

    def __len__(self) -> int:
        return len(self._native)

    def __contains__(self, id: object) -> bool:
        try:
            return self._native.contains(as_ids([id], 1))
        except (TypeError, ValueError):
            return False

    def __repr__(self) -> str:
        size = size_text(sum(self.memory().values()))
        device = "" if self._place is None else f"device={self.device!r}, "
        return (
            f"{type(self).__name__}(n={len(self):_}, dim={self.dim}, metric={self.metric!r}, "
            f"codec={self._codec!r}, vectors={self._native.vectors!r}, {device}{size})"
        )
