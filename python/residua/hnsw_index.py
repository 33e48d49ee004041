# SPDX-License-Identifier: Apache-2.0
"""An index that walks a graph of near vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from residua import _core
from residua._codec_versions import CodecVersions
from residua._columns import as_fields
from residua._index import _FIT_AT, _VECTORS, Index
from residua._progress import reporter
from residua._settings import ladder
from residua._typing import ArrayLike, Metric, Progress, Scoring, Vectors
from residua._validate import METRICS, as_choice, as_dim, as_int, as_threads, as_vectors
from residua.codecs import Codec, RecurrentBinaryCodec, check_codec, from_recipe
from residua.errors import InvalidTypeError, UnsupportedError
from residua.results import Hits

__all__ = ["HNSWIndex"]

_AUTO = "auto "  # recipe of a codec that nobody asked for
_AUTO_BITS = 5 / 3  # per dim of what kept vectors settle
_LAST_BITS = 2.0  # … of codes that are all there is
_TURBO_BITS = 256  # of a code, where half a bit per dim is not more
_CODEC_ROWS = 50_000
_PLANS = ("auto", "scan", "graph", "filtered_graph")

Plan = Literal["auto", "scan", "graph", "filtered_graph"]


class HNSWIndex(CodecVersions, Index):
    """Search by walking a graph whose edges lead to near vectors (HNSW), and settle the best exactly.

    Parameters
    ----------
    dim
        Dims of the vectors, 1 … 65,536.
    metric
        ``"cosine"``, ``"ip"`` (inner product) or ``"l2"`` (squared distance).
    codec
        What the walk scores: ``"auto"`` takes recurrent codes, of 5/3 bits per dim in the compact layout (2
        without kept vectors) and of 256 bits or half a bit per dim in the turbo layout; None the float32
        vectors; a codec its codes, an untrained one is fitted.
    vectors
        What is kept for exact re-ranking, as for :class:`FlatIndex`.
    M
        A vector has at most ``2 * M`` neighbours, 2 … 128.
    ef_construction
        How widely neighbours are looked for when a vector is added, 1 … 65,536.
    layout
        ``"compact"`` keeps one code per vector beside flat lists of neighbours. ``"turbo"`` keeps the codes
        of its neighbours beside every vector's list as well, so that a step of a walk is one read; it takes
        a codec. ``"auto"`` is turbo with ``codec="auto"`` and kept vectors, else compact.
    columns
        Typed attributes for filters, as for :class:`FlatIndex`.
    seed
        Makes the graph reproducible, for any number of threads.

    Notes
    -----
    The codec is fitted by :meth:`train`, or by itself once the index holds ``max(10 * dim, 5000)`` rows
    (at most 50,000), or 256 where an untrained codec was given; until then rows are scored as exact
    float32. Searches run while one thread adds and removes. ``8 * M`` bytes per vector beside its code
    and what is kept of it; ``docs/hnsw.md`` says how to choose.

    Examples
    --------
    >>> import residua as rz
    >>> sample = rz.datasets.load_sample()
    >>> index = rz.HNSWIndex(384, codec=None)
    >>> ids = index.add(sample.documents)
    >>> hits = index.search(sample.queries, k=10, ef=64)
    >>> hits.ids.shape, hits.stats["plan"]
    ((500, 10), 'graph')
    """

    _native: _core.HNSWIndex
    _automatic = False
    _counts_rows = True

    def __init__(
        self,
        dim: int,
        *,
        metric: Metric = "cosine",
        codec: Codec | Literal["auto"] | None = "auto",
        vectors: Vectors = "auto",
        M: int = 16,
        ef_construction: int = 200,
        layout: Literal["auto", "compact", "turbo"] = "auto",
        columns: Mapping[str, str] | None = None,
        seed: int = 0,
    ) -> None:
        dim = as_dim(dim)
        as_choice(metric, "metric", METRICS)
        as_choice(vectors, "vectors", _VECTORS)
        fields = as_fields(columns)
        links = as_int(M, "M", 2, 128)
        width = as_int(ef_construction, "ef_construction", 1, 65_536)
        seed = as_int(seed, "seed", 0, 2**63 - 1)
        turbo = as_choice(layout, "layout", ("auto", "compact", "turbo")) == "turbo"
        if turbo and codec is None:
            raise UnsupportedError("layout='turbo' walks on codes; give a codec, or layout='compact'")
        if layout == "auto":
            turbo = codec == "auto" and vectors != "none"
        if isinstance(codec, str) and codec == "auto":
            compact_bits = _LAST_BITS if vectors == "none" else _AUTO_BITS
            bits = min(max(_TURBO_BITS / dim, 0.5), 4.0) if turbo else compact_bits
            chosen: Codec | None = RecurrentBinaryCodec(dim, bits, seed=seed)
        elif isinstance(codec, str):
            raise InvalidTypeError(f"codec must be 'auto', None or a codec, got {codec!r}")
        else:
            chosen = codec
        check_codec(chosen, dim)
        automatic = _AUTO if isinstance(codec, str) else ""
        recipe = "" if chosen is None else automatic + chosen._recipe()
        native = _core.HNSWIndex(dim, metric, vectors, chosen is not None, recipe, links, width, seed, turbo)
        if fields:
            native.declare_columns(fields)
        self._start(native, chosen)
        if chosen is not None:
            chosen._join(metric)
            if chosen.is_trained:
                native.set_codec(chosen._trained(), 1)

    @classmethod
    def _waiting_codec(cls, native: Any) -> Codec:
        return from_recipe(native.dim, native.codec_recipe.removeprefix(_AUTO))

    def _start(self, native: _core.Index, codec: Codec | None) -> None:
        super()._start(native, codec)
        self._automatic = native.codec_recipe.startswith(_AUTO)

    @property
    def M(self) -> int:  # noqa: N802
        """Half the neighbours that a vector may have."""
        return self._native.M

    @property
    def ef_construction(self) -> int:
        """How widely neighbours are looked for."""
        return self._native.ef_construction

    @property
    def layout(self) -> str:
        """How codes and neighbours lie in memory."""
        return "turbo" if self._native.turbo else "compact"

    @property
    def plan(self) -> str:
        """How a search runs with default settings, in words."""
        if self._native.awaits_codec:
            return self._with_reason(f"exact scan of kept vectors (until {self._fit_at():_} rows or train())")
        if self._native.codec is None:
            return self._with_reason("walk over the graph by the kept vectors")
        rerank = "" if self._native.vectors == "none" else ", then exact re-ranking from the kept vectors"
        beside = " beside their lists" if self._native.turbo else ""
        return self._with_reason(
            f"walk over the graph by {self._native.codec.code_bytes}-byte codes{beside}{rerank}"
        )

    @property
    def costs(self) -> dict[str, float]:
        """Nanoseconds per unit of work, by which plans are chosen: calibrated, or from the sizes of codes."""
        return self._native.costs

    def calibrate(self) -> dict[str, float]:
        """Measure on this machine what the units of work behind a plan take, and keep it with the index.

        Takes about a second, on one thread; ``save`` keeps the result. Searches never measure.

        Returns
        -------
        :attr:`costs`.

        Raises
        ------
        InvalidValueError: fewer than 1,000 rows, or no codec yet.
        """
        return self._native.calibrate()

    def _axes(self, k: int) -> list[tuple[str, Sequence[int]]]:
        return [] if self._native.awaits_codec else [("ef", ladder(k, max(k, min(len(self), 64 * k))))]

    def _fit_at(self) -> int:
        return min(max(10 * self.dim, 5000), _CODEC_ROWS) if self._automatic else _FIT_AT

    def _train(
        self, x: ArrayLike, queries: ArrayLike | None, threads: int | None, progress: Progress
    ) -> None:
        codec = self._codec
        if codec is None:
            return
        if not codec.is_trained:
            rows, _ = as_vectors(x, self.dim, "x")
            if len(rows) > _CODEC_ROWS:
                rows = np.ascontiguousarray(rows[_core.sample_rows(len(rows), _CODEC_ROWS, 0)])
            # Rows that wait take longer to link than a codec to fit.
            report: Progress = False if len(self) else progress
            codec.fit(rows, queries=queries, metric=self.metric, num_threads=threads, progress=report)
        steps = reporter(progress, "train") if len(self) and progress else None
        self._native.set_codec(codec._trained(), as_threads(threads), steps)

    def search(
        self,
        q: ArrayLike,
        k: int = 10,
        *,
        filter: Any = None,
        scoring: Scoring | None = None,
        rerank: int | bool | None = None,
        ef: int | None = None,
        plan: Plan = "auto",
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
            As for :meth:`FlatIndex.search`.
        scoring
            None or ``"asymmetric"`` (float query against codes), or ``"symmetric"`` (the query is encoded
            too, as ``codec.encode(q, refine="scale")`` does).
        rerank
            None chooses how many candidates are settled exactly from the kept vectors; False or 0 gives
            code scores only; an integer says how many, True as None. Without a codec all scores are exact.
        ef
            How many of the best rows a walk keeps, at least 1; less than k acts as k. More finds more of the
            true neighbours and takes longer. None is 64, and 96 with a filter.
        plan
            How rows that pass a filter are found: ``"auto"`` estimates what each way costs and takes the
            cheapest, per query; ``"scan"`` scores all of them, ``"graph"`` walks over all rows, with a wider
            beam where few pass, ``"filtered_graph"`` looks past rows that do not (docs/filters.md). A walk
            that finds too little ends in a scan. Without a filter, all but ``"scan"`` walk.
        num_threads
            At least 1; None uses the CPUs that the process may use. Results do not depend on it.
        explain
            Add to ``hits.stats`` what was chosen and why: per query ``plans``, ``visits``, ``local_rate``,
            ``fallback`` and ``costs``, and the ``share`` of rows that match.

        Returns
        -------
        Hits, best first, ties by smaller id; always as many as exist and pass the filter, up to k.

        Raises
        ------
        ShapeError, DtypeError, NonFiniteError, InvalidValueError, InvalidTypeError
        """
        if plan == "auto" and filter is None and scoring is None and rerank is None and explain is False:
            found = self._native.search_one(q, k, ef, num_threads)
            if found is not None:
                return Hits(*found)
        options = {"ef": self._as_ef(ef, k), "plan": as_choice(plan, "plan", _PLANS)}
        return self._search(q, k, filter, scoring, rerank, num_threads, explain, **options)

    def search_codes(
        self,
        codes: ArrayLike,
        k: int = 10,
        *,
        filter: Any = None,
        scoring: Scoring | None = None,
        rerank: int | bool | None = None,
        ef: int | None = None,
        plan: Plan = "auto",
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
        ef, plan, num_threads, explain
            As for :meth:`search`.

        Returns
        -------
        Hits, best first, ties by smaller id.
        """
        options = {"ef": self._as_ef(ef, k), "plan": as_choice(plan, "plan", _PLANS)}
        return self._search_codes(codes, k, filter, scoring, rerank, num_threads, explain, **options)

    def _takes_filters(self) -> bool:
        return not self._native.awaits_codec

    def _as_ef(self, ef: Any, k: Any) -> int:
        ef = self._default("ef", ef, k)
        return 0 if ef is None else as_int(ef, "ef", 1, 2**31 - 1)
