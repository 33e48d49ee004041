# SPDX-License-Identifier: Apache-2.0
"""Indexes: collections of vectors that are searched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from residua import _core
from residua._codec_versions import CodecVersions
from residua._columns import as_fields
from residua._funnel import as_funnel
from residua._index import _VECTORS, Index
from residua._settings import ladder
from residua._typing import ArrayLike, Metric, Progress, Scoring, Vectors
from residua._validate import METRICS, as_choice, as_dim, as_threads
from residua.codecs import Codec, check_codec
from residua.results import Hits

__all__ = ["FlatIndex"]


class FlatIndex(CodecVersions, Index):
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
        Typed attributes for filters, name to ``"int"``, ``"float"``, ``"bool"``, ``"category"``, ``"tags"``,
        ``"str"`` or ``"datetime"`` (docs/filters.md); None for none.

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

    _native: _core.FlatIndex
    _moves = True

    def __init__(
        self,
        dim: int,
        *,
        metric: Metric = "cosine",
        codec: Codec | None = None,
        vectors: Vectors = "auto",
        columns: Mapping[str, str] | None = None,
    ) -> None:
        dim = as_dim(dim)
        as_choice(metric, "metric", METRICS)
        as_choice(vectors, "vectors", _VECTORS)
        fields = as_fields(columns)
        check_codec(codec, dim)
        recipe = "" if codec is None else codec._recipe()
        self._start(_core.FlatIndex(dim, metric, vectors, codec is not None, recipe), codec)
        if fields:
            self._native.declare_columns(fields)
        if codec is not None:
            codec._join(metric)
            if codec.is_trained:
                self._native.set_codec(codec._trained(), 1)

    @property
    def plan(self) -> str:
        """How a search runs with default settings, in words."""
        if self._native.codec is None:
            waiting = f" (until {self._codec!r} is fitted)" if self._codec is not None else ""
            return self._with_reason(f"exact scan of kept vectors{waiting}")
        rerank = "" if self._native.vectors == "none" else ", then exact re-ranking from the kept vectors"
        return self._with_reason(f"scan of {self._native.codec.code_bytes}-byte codes{rerank}")

    def _axes(self, k: int) -> list[tuple[str, Sequence[int]]]:
        if self._native.codec is None or self._native.vectors == "none":
            return []
        return [("rerank", [0, *ladder(k, max(k, len(self)))])]

    def _train(
        self, x: ArrayLike, queries: ArrayLike | None, threads: int | None, progress: Progress
    ) -> None:
        codec = self._codec
        if codec is None:
            return
        if not codec.is_trained:
            codec.fit(x, queries=queries, metric=self.metric, num_threads=threads, progress=progress)
        self._native.set_codec(codec._trained(), as_threads(threads))

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
        out: Literal["numpy", "device"] = "numpy",
    ) -> Hits:
        """Find the k best vectors of every query.

        Parameters
        ----------
        q
            ``(nq, dim)`` queries, or ``(dim,)`` for one, which gives one-dimensional results; of an index on
            a device also arrays and tensors that are there.
        k
            How many, 1 … 2**31 - 1.
        filter
            None, an expression such as ``rz.col("year") >= 2020``, its text, a boolean mask over the live
            rows in insertion order (``len(index)`` values), an array of allowed ids, or a list with one of
            these per query. Equal expressions are evaluated once. A list of str holds ids where ids are str.
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
        out
            ``"device"``: ids and scores are :class:`residua.cuda.DeviceArray`; of an index on a device, with
            integer ids.

        Returns
        -------
        Hits, best first, ties by smaller id.

        Raises
        ------
        ShapeError, DtypeError, NonFiniteError, InvalidValueError, InvalidTypeError
        """
        as_choice(plan, "plan", ("auto", "scan"))
        stages = as_funnel(funnel, self._codec)
        return self._search(q, k, filter, scoring, rerank, num_threads, explain, out, funnel=stages)

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
        as_choice(plan, "plan", ("auto", "scan"))
        return self._search_codes(codes, k, filter, scoring, rerank, num_threads, explain)
