# SPDX-License-Identifier: Apache-2.0
"""An index of inverted lists: a search reads the lists nearest to the query."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from residua import _core
from residua._columns import as_fields
from residua._index import _FIT_AT, _VECTORS, Index
from residua._ivf_fit import automatic_nlist, train_lists
from residua._progress import reporter
from residua._settings import ladder
from residua._typing import ArrayLike, Metric, Progress, Scoring, Vectors
from residua._validate import METRICS, as_choice, as_dim, as_int, as_threads, as_vectors, refuse_zero_rows
from residua.codecs import Codec, RecurrentBinaryCodec, check_codec, from_recipe, wrap
from residua.errors import DriftWarning, InvalidTypeError, InvalidValueError
from residua.results import Hits

__all__ = ["IVFIndex"]

_AUTO = "auto "  # recipe of a codec that nobody asked for
_AUTO_BITS = 1.0
_MAX_LISTS = 2**22
_DRIFT_ROWS = 500  # fewer added rows say nothing
_DRIFT_ERROR = 1.2
_DRIFT_IMBALANCE = 2.0


class IVFIndex(Index):
    """Search by reading the lists of the centroids nearest to the query (inverted file).

    Parameters
    ----------
    dim
        Dims of the vectors, 1 … 65,536.
    metric
        ``"cosine"``, ``"ip"`` (inner product) or ``"l2"`` (squared distance).
    codec
        ``"auto"`` takes recurrent codes of one bit per dim of what the centroid leaves of a vector; None
        scans the float32 vectors of the lists; a codec is used as it is, or fitted with the lists.
    vectors
        What is kept for exact re-ranking, as for :class:`FlatIndex`.
    nlist
        How many lists, 1 … 4,194,304; None takes twice the square root of the rows at training.
    columns
        Typed attributes for filters, as for :class:`FlatIndex`.
    seed
        Makes training reproducible, for any number of threads.

    Notes
    -----
    :meth:`train` fits lists and codec; without it they are fitted once the index holds
    ``max(10 * dim, 5000)`` rows (at most 50,000), or 256 where an untrained codec was given, and never
    fewer than ``nlist``. Until then rows are scored as exact float32. Rows come and go without another
    training; ``docs/ivf.md`` says how to tune a search and when to build anew.

    Examples
    --------
    >>> import residua as rz
    >>> sample = rz.datasets.load_sample()
    >>> index = rz.IVFIndex(384, nlist=64).train(sample.documents)
    >>> ids = index.add(sample.documents)
    >>> hits = index.search(sample.queries, k=10, nprobe=8)
    >>> hits.ids.shape, hits.stats["nprobe"]
    ((500, 10), 8)
    """

    _native: _core.IVFIndex
    _moves = True
    _automatic = False

    def __init__(
        self,
        dim: int,
        *,
        metric: Metric = "cosine",
        codec: Codec | Literal["auto"] | None = "auto",
        vectors: Vectors = "auto",
        nlist: int | None = None,
        columns: Mapping[str, str] | None = None,
        seed: int = 0,
    ) -> None:
        dim = as_dim(dim)
        as_choice(metric, "metric", METRICS)
        as_choice(vectors, "vectors", _VECTORS)
        fields = as_fields(columns)
        lists = 0 if nlist is None else as_int(nlist, "nlist", 1, _MAX_LISTS)
        seed = as_int(seed, "seed", 0, 2**63 - 1)
        if isinstance(codec, str) and codec == "auto":
            chosen: Codec | None = RecurrentBinaryCodec(dim, _AUTO_BITS, seed=seed)
            self._automatic = True
        elif isinstance(codec, str):
            raise InvalidTypeError(f"codec must be 'auto', None or a codec, got {codec!r}")
        else:
            chosen = codec
        check_codec(chosen, dim)
        recipe = "" if chosen is None else (_AUTO if self._automatic else "") + chosen._recipe()
        if chosen is not None:
            chosen._join(metric)
        native = _core.IVFIndex(dim, metric, vectors, chosen is not None, recipe, lists, seed)
        if chosen is not None and chosen.is_trained:
            native.set_waiting(chosen._trained())
        if fields:
            native.declare_columns(fields)
        self._start(native, chosen)

    @classmethod
    def _waiting_codec(cls, native: Any) -> Codec:
        if native.waiting is not None:
            return wrap(native.waiting)
        return from_recipe(native.dim, native.codec_recipe.removeprefix(_AUTO))

    def _start(self, native: _core.Index, codec: Codec | None) -> None:
        super()._start(native, codec)
        self._automatic = native.codec_recipe.startswith(_AUTO)

    @property
    def nlist(self) -> int:
        """How many lists there are; 0 until the index is trained."""
        return self._native.nlist

    @property
    def is_trained(self) -> bool:
        """Whether rows stand in lists; until then they are scored exactly."""
        return self._native.is_trained

    @property
    def plan(self) -> str:
        """How a search runs with default settings, in words."""
        if not self._native.is_trained:
            return self._with_reason(f"exact scan of kept vectors (until {self._fit_at():_} rows or train())")
        nprobe = min(self.defaults.get("nprobe", self._native.default_nprobe), self.nlist)
        lists = f"{nprobe} of {self.nlist} lists"
        if self._native.codec is None:
            return self._with_reason(f"exact scan of the vectors of {lists}")
        what = "residuals" if self._native.is_residual else "vectors"
        rerank = "" if self._native.vectors == "none" else ", then exact re-ranking from the kept vectors"
        return self._with_reason(
            f"scan of {self._native.codec.code_bytes}-byte codes of {what} in {lists}{rerank}"
        )

    @property
    def _awaits_training(self) -> bool:
        return not self._native.is_trained

    @property
    def _can_train(self) -> bool:
        return True

    def _fit_at(self) -> int:
        waits = self._codec is not None and not self._automatic and bool(self._codec._recipe())
        rows = _FIT_AT if waits else min(max(10 * self.dim, 5000), 50_000)
        return max(rows, self._native.wanted_nlist)

    def _train(
        self, x: ArrayLike, queries: ArrayLike | None, threads: int | None, progress: Progress
    ) -> None:
        report = reporter(progress, "train")
        rows, _ = as_vectors(x, self.dim, "x")
        asked = None if queries is None else as_vectors(queries, self.dim, "queries")[0]
        if self.metric == "cosine":
            refuse_zero_rows(rows, "x")
            if asked is not None:
                refuse_zero_rows(asked, "queries")
        nlist = self._native.wanted_nlist
        if max(1, nlist) > len(rows):
            raise InvalidValueError(f"x: {len(rows)} rows are too few to train {max(1, nlist)} lists")
        trained = train_lists(
            rows,
            asked,
            self._codec,
            metric=self.metric,
            nlist=nlist or min(automatic_nlist(max(len(rows), len(self))), len(rows)),
            seed=self._native.seed,
            threads=as_threads(threads),
            report=report,
        )
        self._native.train(
            trained.centroids, trained.codec, trained.residual, trained.error, as_threads(threads)
        )

    def drift(self) -> DriftWarning | None:
        """Compare the rows added since training with those of training.

        Returns
        -------
        A warning where at least 500 rows were added and lie, on average, 1.2 times as far (squared) from
        their centroids as rows did at training, or where the lists have become twice as unequal; else None.
        """
        fit = self._native.fit
        if fit["added"] < _DRIFT_ROWS:
            return None
        error = fit["added_error"] / fit["trained_error"] if fit["trained_error"] > 0 else 1.0
        unequal = fit["imbalance"] / fit["trained_imbalance"] if fit["trained_imbalance"] > 0 else 1.0
        if error <= _DRIFT_ERROR and unequal <= _DRIFT_IMBALANCE:
            return None
        return DriftWarning(
            f"{fit['added']:_} rows were added since training; their mean squared distance to the centroids "
            f"is {error:.2f} times that of training, and the lists are {unequal:.2f} times as unequal: "
            "recall at a given nprobe may have fallen; build the index anew from these data, or raise nprobe",
            error,
            unequal,
        )

    def _axes(self, k: int) -> list[tuple[str, Sequence[int]]]:
        if not self._native.is_trained:
            return []
        axes: list[tuple[str, Sequence[int]]] = [("nprobe", ladder(1, self.nlist))]
        if self._native.codec is not None and self._native.vectors != "none":
            axes.append(("rerank", [0, *ladder(k, max(k, min(128 * k, len(self))))]))
        return axes

    def _as_nprobe(self, nprobe: Any, plan: Any) -> int:
        as_choice(plan, "plan", ("auto", "cells", "scan"))
        if plan == "scan":
            if nprobe is not None:
                raise InvalidValueError("plan='scan' reads all lists; leave nprobe out")
            return _MAX_LISTS
        return 0 if nprobe is None else as_int(nprobe, "nprobe", 1, 2**31 - 1)

    def search(
        self,
        q: ArrayLike,
        k: int = 10,
        *,
        filter: Any = None,
        scoring: Scoring | None = None,
        rerank: int | bool | None = None,
        nprobe: int | None = None,
        plan: Literal["auto", "cells", "scan"] = "auto",
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
            None, a boolean mask over the live rows in insertion order (``len(index)`` values), an array
            of allowed ids, or a list with one of these per query.
        scoring
            None or ``"asymmetric"`` (float query against codes), or ``"symmetric"`` (the query is encoded
            too, as ``codec.encode(q, refine="scale")`` does).
        rerank
            None chooses how many candidates are settled exactly from the kept vectors; False or 0 gives
            code scores only; an integer says how many, True as None. Without a codec all scores are exact.
        nprobe
            How many lists to read per query, at least 1; more than there are stands for all. None reads
            twice the square root of their number. A search reads further lists until it has k rows; lists
            without an allowed row do not count.
        plan
            ``"auto"`` and ``"cells"`` read ``nprobe`` lists, ``"scan"`` all of them.
        num_threads
            At least 1; None uses the CPUs that the process may use. Results do not depend on it.
        explain
            Add details to ``hits.stats``.
        out
            ``"device"``: ids and scores are :class:`residua.cuda.DeviceArray`; of an index on a device, with
            integer ids.

        Returns
        -------
        Hits, best first, ties by smaller id. ``hits.stats["warning"]`` is a
        :class:`residua.errors.DriftWarning` when added rows differ from those of training, else None.

        Raises
        ------
        ShapeError, DtypeError, NonFiniteError, InvalidValueError, InvalidTypeError
        """
        if plan != "scan":
            nprobe = self._default("nprobe", nprobe, k)
        lists = self._as_nprobe(nprobe, plan)
        hits = self._search(q, k, filter, scoring, rerank, num_threads, explain, out, nprobe=lists)
        hits.stats["warning"] = self.drift()
        return hits

    def search_codes(
        self,
        codes: ArrayLike,
        k: int = 10,
        *,
        filter: Any = None,
        scoring: Scoring | None = None,
        rerank: int | bool | None = None,
        nprobe: int | None = None,
        plan: Literal["auto", "cells", "scan"] = "auto",
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
        nprobe, plan, num_threads, explain
            As for :meth:`search`.

        Returns
        -------
        Hits, best first, ties by smaller id.
        """
        lists = self._as_nprobe(nprobe, plan)
        hits = self._search_codes(codes, k, filter, scoring, rerank, num_threads, explain, nprobe=lists)
        hits.stats["warning"] = self.drift()
        return hits
