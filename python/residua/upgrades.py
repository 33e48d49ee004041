# SPDX-License-Identifier: Apache-2.0
"""Codes that outlive their embedding model: queries of a new model against the codes of an old one."""

from __future__ import annotations

import hashlib
from typing import Any, Literal, NoReturn

import numpy as np

from residua import _core, _query_maps
from residua._codec import Codec
from residua._index import Index
from residua._typing import AnyArray, ArrayLike, ByteArray, FloatArray, Ids
from residua._validate import (
    as_array,
    as_choice,
    as_codes,
    as_seed,
    as_threads,
    as_vectors,
    refuse_huge_values,
    refuse_zero_rows,
)
from residua.codecs import RecurrentBinaryCodec
from residua.errors import InvalidTypeError, InvalidValueError, NonFiniteError, ShapeError, UnsupportedError
from residua.results import Hits

__all__ = ["CompatibleCodec", "compatible_queries"]

Method = Literal["auto", "mean_shift", "procrustes", "ridge", "low_rank", "adjoint"]

_MOST_DIMS = 4096  # maps are dense


class CompatibleCodec(RecurrentBinaryCodec):
    """The query side of a trained codec for the embeddings of another model; stored codes stay as they are.

    Made by :func:`compatible_queries`. Vectors of the new model are carried into the old space by
    ``matrix @ q + offset``. For :meth:`scores` that map is part of the codec's own query transform and costs
    nothing beside it. :meth:`encode` carries documents of the new model over, too, so that rows of both
    models can stand in one index: :meth:`search` and :meth:`add` check that the index holds codes of the
    right codec.

    Parameters
    ----------
    codec
        The trained codec whose codes are searched.
    matrix
        ``(codec.dim, dim)`` map from vectors of the new model to those of the old one.
    offset
        ``(codec.dim,)``.
    method
        What made the map; for the reader.

    Examples
    --------
    >>> import numpy as np, residua as rz
    >>> x = np.random.default_rng(0).standard_normal((500, 64)).astype("float32")
    >>> codec = rz.RecurrentBinaryCodec(64, bits=2).fit(x)
    >>> turned = x[:, ::-1]  # the new model
    >>> queries = rz.compatible_queries(codec, old=x[:200], new=turned[:200])
    >>> index = rz.FlatIndex(64, codec=codec)
    >>> ids = index.add(x)
    >>> queries.search(index, turned[300], k=1).ids.tolist()
    [300]
    """

    _is_query_side = True

    def __init__(
        self, codec: RecurrentBinaryCodec, matrix: ArrayLike, offset: ArrayLike, method: str = "given"
    ) -> None:
        native = _base_of(codec)._trained()
        self._base = _base_of(codec)
        w = as_array(matrix, "matrix")
        t = as_array(offset, "offset")
        if w.ndim != 2 or w.shape[0] != codec.dim or t.shape != (codec.dim,):
            raise ShapeError(
                f"matrix and offset: shapes {w.shape} and {t.shape}, expected ({codec.dim}, dim of the new "
                f"model) and ({codec.dim},)"
            )
        if isinstance(codec, CompatibleCodec):  # one upgrade after the other
            w, t = codec._matrix @ w, codec._matrix @ t + codec._offset
        if not (np.isfinite(w).all() and np.isfinite(t).all()):
            raise NonFiniteError("matrix and offset must be finite")
        if max(w.shape) > _MOST_DIMS:
            raise UnsupportedError(f"a query map takes up to {_MOST_DIMS} dims, got {max(w.shape)}")
        self._matrix: AnyArray = w.astype(np.float64)
        self._offset: AnyArray = t.astype(np.float64)
        self._method = method
        self._dim = w.shape[1]
        self._bits, self._query_aware, self._seed = codec._bits, codec._query_aware, codec._seed
        self._native = native
        self._center: FloatArray = _core.recurrent_parts(native)["center"]
        self._fused = _query_maps.fuse(native, self._matrix, self._offset)
        self._single: tuple[FloatArray, FloatArray] = (w.astype(np.float32), t.astype(np.float32))

    @property
    def compatible_with(self) -> str:
        """Fingerprint of the codec whose codes are searched."""
        return self._base.fingerprint

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits of the codec and the map together."""
        parts = self.compatible_with.encode() + self._matrix.tobytes() + self._offset.tobytes()
        return hashlib.sha256(parts).hexdigest()[:16]

    @property
    def method(self) -> str:
        """The method that made the map."""
        return self._method

    @property
    def matrix(self) -> FloatArray:
        """``(old dim, new dim)`` float32 map into the old space; a copy."""
        return np.array(self._single[0], dtype=np.float32)

    @property
    def offset(self) -> FloatArray:
        """``(old dim,)`` float32, added after the matrix; a copy."""
        return np.array(self._single[1], dtype=np.float32)

    @property
    def code_bytes(self) -> int:
        """All bytes per vector, those of the old codec."""
        return self._base.code_bytes

    def translate(self, x: ArrayLike) -> FloatArray:
        """Carry vectors of the new model into the space of the old one.

        Parameters
        ----------
        x
            ``(n, dim)`` vectors of the new model, or ``(dim,)`` for one.

        Returns
        -------
        ``(n, old dim)`` float32, or ``(old dim,)``; under cosine unit vectors are carried, and what comes out
        is near unit length, no more.
        """
        v, single = self._checked(x, "x")
        out = self._carried(v)
        return out[0] if single else out

    def encode(
        self, x: ArrayLike, *, num_threads: int | None = None, refine: bool | Literal["scale"] = False
    ) -> ByteArray:
        """Encode vectors of the new model as codes of the old codec.

        Parameters
        ----------
        x
            ``(n, dim)`` vectors of the new model.
        num_threads
            At least 1; None uses the CPUs that the process may use.
        refine
            As for :meth:`RecurrentBinaryCodec.encode`.

        Returns
        -------
        ``(n, code_bytes)`` uint8.
        """
        v, _ = self._checked(x, "x", one=False)
        return self._base.encode(self._carried(v), num_threads=num_threads, refine=refine)

    def scores(self, queries: ArrayLike, codes: ArrayLike, *, num_threads: int | None = None) -> FloatArray:
        """Score queries of the new model against codes of the old one.

        Parameters
        ----------
        queries
            ``(nq, dim)`` queries of the new model, or ``(dim,)`` for one.
        codes
            ``(n, code_bytes)`` uint8 of the old codec, or of :meth:`encode`.
        num_threads
            At least 1; None uses the CPUs that the process may use.

        Returns
        -------
        ``(nq, n)`` float32, or ``(n,)``: estimates of the metric in the old space, of translated queries.
        """
        q, single = self._checked(queries, "queries")
        c, _ = as_codes(codes, self.code_bytes, "codes")
        lifted = np.ones((len(q), self._dim + 1), np.float32)
        lifted[:, : self._dim] = q
        out = self._fused.scores(lifted, c, as_threads(num_threads))
        if self.metric == "l2":  # the fused score is -|q - x|^2 + |q - c|^2
            away = self._carried(q) - self._center
            out = np.maximum((away * away).sum(axis=1)[:, None] - out, 0)
        return out[0] if single else out

    def search(self, index: Index, q: ArrayLike, k: int = 10, **options: Any) -> Hits:
        """Search an index of the old codec by queries of the new model.

        Parameters
        ----------
        index
            Its codec must be the one that these queries were made for.
        q
            ``(nq, dim)`` queries of the new model, or ``(dim,)`` for one.
        k
            Results per query.
        **options
            As for the ``search`` of the index; exact re-ranking compares with the old vectors that it keeps.

        Returns
        -------
        Hits

        Raises
        ------
        UnsupportedError
            The index holds other codes.
        """
        self._refuse_others(index)
        return index.search(self.translate(q), k, **options)  # type: ignore[attr-defined, no-any-return]

    def add(self, index: Index, x: ArrayLike, ids: Ids | None = None, columns: Any = None) -> AnyArray:
        """Add vectors of the new model to an index of the old codec, carried into the old space.

        Parameters
        ----------
        index
            Its codec must be the one that these queries were made for.
        x
            ``(n, dim)`` vectors of the new model.
        ids, columns
            As for ``index.add``.

        Returns
        -------
        ``(n,)`` ids.

        Raises
        ------
        UnsupportedError
            The index holds other codes.
        """
        self._refuse_others(index)
        v, _ = self._checked(x, "x", one=False)
        return index.add(self._carried(v), ids, columns)

    def save(self, path: Any) -> NoReturn:
        """Refuse: keep :attr:`matrix` and :attr:`offset` beside the codec, and make the object anew.

        Parameters
        ----------
        path
            Not used.

        Raises
        ------
        UnsupportedError
        """
        raise UnsupportedError(
            "a query map has no file of its own: save the codec, and keep .matrix and .offset "
            "(numpy.savez); rz.CompatibleCodec(codec, matrix, offset) makes it anew"
        )

    def _carried(self, v: FloatArray) -> FloatArray:
        matrix, offset = self._single
        out: FloatArray = v @ matrix.T + offset
        return out

    def _checked(self, x: ArrayLike, name: str, *, one: bool = True) -> tuple[FloatArray, bool]:
        """Return rows as the metric sees them, and whether there was one vector alone, where that may be."""
        v, single = as_vectors(x, self._dim, name, one=one)
        if self.metric == "cosine":
            refuse_zero_rows(v, name)
            v = _core.normalize(v)
        return v, single

    def _refuse_others(self, index: Any) -> None:
        if not isinstance(index, Index):
            raise InvalidTypeError(f"index must be an index such as FlatIndex, got {type(index).__name__}")
        if index.codec is None or not index.codec.is_trained:
            raise UnsupportedError(
                "the index holds no codes of a fitted codec; queries of this object are for codes of codec "
                f"{self.compatible_with}"
            )
        if not self._trained().reads_codes_of(index.codec._trained()):
            raise UnsupportedError(
                f"the index holds codes of codec {index.codec.fingerprint}, these queries are for codes of "
                f"{self.compatible_with}; call compatible_queries(index.codec, old=…, new=…)"
            )

    def _describe(self) -> str:
        return f"dim={self._dim}, method={self._method!r}, for codes of {self.compatible_with}"


def _base_of(codec: Any) -> RecurrentBinaryCodec:
    if not isinstance(codec, RecurrentBinaryCodec):
        raise InvalidTypeError(f"codec must be a RecurrentBinaryCodec, got {type(codec).__name__}")
    codec._trained()
    if codec._is_module:
        raise UnsupportedError(
            f"codec: {codec!r} has no linear query side that a query map could become part of"
        )
    return codec._base if isinstance(codec, CompatibleCodec) else codec


def compatible_queries(
    codec: RecurrentBinaryCodec, *, old: ArrayLike, new: ArrayLike, method: Method = "auto", seed: int = 0
) -> CompatibleCodec:
    """Make queries of a new embedding model searchable against codes of an old one, without re-encoding.

    Parameters
    ----------
    codec
        Trained on vectors of the old model. One that this function made itself adds one more upgrade.
    old, new
        ``(n, old dim)`` and ``(n, new dim)`` embeddings of the same texts by both models, row by row; queries
        rather than documents where both kinds exist and the models treat them differently. 200 to 1,000
        pairs are usually enough.
    method
        ``"mean_shift"``: one translation, for fine-tunes of the same model (Query Drift Compensation).
        ``"procrustes"``: the orthogonal map of least squares, after centring. ``"ridge"``: a linear map,
        drawn towards the orthogonal one. ``"low_rank"``: the orthogonal map and a correction of low rank.
        ``"adjoint"``: the transpose of the map from the old to the new model, which keeps the
        new model's scores rather than its queries' places. ``"auto"`` takes the one whose scores find the
        most neighbours of the new model, on held-out pairs.
    seed
        Seed of the choice of held-out pairs.

    Returns
    -------
    CompatibleCodec, a RecurrentBinaryCodec for vectors of the new model; ``codec`` stays as it is.

    Raises
    ------
    InvalidValueError
        Too few pairs (2, for ``"auto"`` 8), zero vectors under cosine, or ``"mean_shift"`` between models of
        unequal dims.
    ShapeError
        Unequal numbers of rows, or another dim than the codec's.
    NotTrainedError, NonFiniteError, DtypeError, InvalidTypeError, UnsupportedError

    Notes
    -----
    Costs O(n d^2 + d^3) per method tried. Sources: Query Drift Compensation (arXiv 2506.00037), Drift-Adapter
    (arXiv 2509.23471).

    Examples
    --------
    >>> import numpy as np, residua as rz
    >>> x = np.random.default_rng(0).standard_normal((500, 64)).astype("float32")
    >>> codec = rz.RecurrentBinaryCodec(64, bits=2).fit(x, metric="ip")
    >>> rz.compatible_queries(codec, old=x, new=x + 1.0, method="mean_shift").offset[0].round(3)
    np.float32(-1.0)
    """
    as_choice(method, "method", ("auto", *_query_maps.METHODS))
    base = _base_of(codec)
    as_seed(seed)
    x, _ = as_vectors(old, codec.dim, "old")
    y, _ = as_vectors(new, None, "new")
    if len(x) != len(y):
        raise ShapeError(f"old and new must be pairs, row by row: {len(x)} rows and {len(y)} rows")
    least = _query_maps.LEAST_AUTO if method == "auto" else 2
    if len(x) < least:
        raise InvalidValueError(f"old, new: expected at least {least} pairs for {method!r}, got {len(x)}")
    if max(x.shape[1], y.shape[1]) > _MOST_DIMS:
        raise UnsupportedError(f"a query map takes up to {_MOST_DIMS} dims")
    metric = base.metric
    for rows, name in ((x, "old"), (y, "new")):
        if metric == "cosine":
            refuse_zero_rows(rows, name)
        refuse_huge_values(rows, name, metric)
    if metric == "cosine":
        x, y = _core.normalize(x), _core.normalize(y)
    if method == "mean_shift" and x.shape[1] != y.shape[1]:
        raise InvalidValueError(
            f"method 'mean_shift' needs models of the same dim, got {x.shape[1]} and {y.shape[1]}; "
            "use 'procrustes', 'ridge' or 'auto'"
        )
    pairs = _query_maps.Pairs(x, y, metric)
    if method == "auto":
        codes = codec.encode(x)
        chosen = _query_maps.choose(pairs, lambda w, t, q: _scored(codec, w, t, q, codes), seed)
    else:
        chosen = str(method)
    matrix, offset = _query_maps.fit(chosen, pairs, seed)
    return CompatibleCodec(codec, matrix, offset, chosen)


def _scored(codec: Codec, matrix: AnyArray, offset: AnyArray, q: FloatArray, codes: ByteArray) -> FloatArray:
    """Similarities of mapped queries to codes, larger is better."""
    mapped = (q @ matrix.T + offset).astype(np.float32)
    if codec.metric == "cosine":  # a map of few pairs may take a query to zero
        mapped[~mapped.any(axis=1)] = 1
    scores = codec.scores(mapped, codes)
    return -scores if codec.metric == "l2" else scores
