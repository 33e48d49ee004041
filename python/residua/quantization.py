# SPDX-License-Identifier: Apache-2.0
"""Precisions of sentence-transformers: the same codes, and searches on them."""

from __future__ import annotations

from time import perf_counter
from typing import Any, Literal, TypeAlias

import numpy as np

from residua import _core
from residua._typing import AnyArray, ArrayLike, FloatArray
from residua._validate import as_array, as_choice, as_flag, as_int, as_vectors
from residua.codecs import BinaryCodec, ScalarCodec
from residua.errors import DtypeError, InvalidTypeError, InvalidValueError, ShapeError, UnsupportedError
from residua.indexes import FlatIndex

__all__ = ["quantize_embeddings", "semantic_search"]

Precision: TypeAlias = Literal["float32", "int8", "uint8", "binary", "ubinary"]
_PRECISIONS = ("float32", "int8", "uint8", "binary", "ubinary")
_DTYPES = {"float32": "float32", "int8": "int8", "uint8": "uint8", "binary": "int8", "ubinary": "uint8"}


def quantize_embeddings(
    embeddings: ArrayLike,
    precision: Precision,
    ranges: ArrayLike | None = None,
    calibration_embeddings: ArrayLike | None = None,
) -> AnyArray:
    """Convert embeddings to a precision of sentence-transformers, with the same codes.

    Parameters
    ----------
    embeddings
        ``(n, dim)``, or ``(dim,)`` for one embedding, of floats.
    precision
        ``"float32"``; ``"uint8"`` or ``"int8"``: 256 levels between the least and largest value of every
        dim; ``"ubinary"``: one sign bit per dim, packed as :func:`numpy.packbits` does, row by row, zeros in
        the last byte where ``dim`` is no multiple of 8; ``"binary"``: the same bytes less 128, as int8.
    ranges
        ``(2, dim)`` least and largest values, for ``"int8"`` and ``"uint8"``; values beyond saturate.
    calibration_embeddings
        ``(m, dim)`` embeddings that the ranges are taken from where there are no ``ranges``; None takes
        ``embeddings``, of which there must be two at least.

    Returns
    -------
    ``(n, dim)`` float32, int8 or uint8, or ``(n, ceil(dim / 8))`` int8 or uint8 of packed bits; one row less
    an axis for one embedding. As in sentence-transformers, uint8 rounds down and int8 towards zero.

    Raises
    ------
    InvalidValueError
        One embedding is its own range, so that its codes would say nothing.
    ShapeError, DtypeError, NonFiniteError, InvalidTypeError

    Examples
    --------
    >>> import numpy as np, residua as rz
    >>> rz.quantize_embeddings(np.array([[1.0, -1, 2, -0.5]]), "ubinary").tolist()
    [[160]]
    >>> rz.quantize_embeddings([0.5, 9.0], "int8", ranges=[[0, 0], [1, 1]]).tolist()
    [0, 127]
    """
    as_choice(precision, "precision", _PRECISIONS)
    v, single = as_vectors(embeddings, None, "embeddings", one=True)
    given = [
        n
        for n, r in (("ranges", ranges), ("calibration_embeddings", calibration_embeddings))
        if r is not None
    ]
    if given and precision not in ("int8", "uint8"):
        raise InvalidTypeError(f"{given[0]} is for precision 'int8' and 'uint8'; {precision!r} has no ranges")
    if precision == "float32":
        out: AnyArray = v.copy()
    elif precision in ("binary", "ubinary"):
        bits = np.packbits(v > 0, axis=1)
        out = bits if precision == "ubinary" else _shifted(bits, "int8")
    else:
        least, step = _levels(ranges, calibration_embeddings, v, v.shape[1])
        with np.errstate(over="ignore"):  # a dim that never changed in the calibration
            level = np.clip((v - least) / step, 0, 255)
        out = level.astype(np.uint8) if precision == "uint8" else (level - 128).astype(np.int8)
    return out[0] if single else out


def semantic_search(
    query_embeddings: ArrayLike,
    corpus_embeddings: ArrayLike | None = None,
    corpus_index: FlatIndex | None = None,
    corpus_precision: Precision = "float32",
    top_k: int = 10,
    ranges: ArrayLike | None = None,
    calibration_embeddings: ArrayLike | None = None,
    rescore: bool = True,
    rescore_multiplier: int = 2,
    exact: bool = True,
    output_index: bool = False,
) -> tuple[Any, ...]:
    """Search embeddings of any precision with float queries; arguments as in sentence-transformers.

    Parameters
    ----------
    query_embeddings
        ``(nq, dim)``, or ``(dim,)`` for one query, of floats.
    corpus_embeddings
        What :func:`quantize_embeddings` (here or in sentence-transformers) made, ``(n, dim)`` or packed bits.
    corpus_index
        Instead of ``corpus_embeddings``: the index that an earlier call returned.
    corpus_precision
        The precision of the corpus.
    top_k
        Results per query, at least 1.
    ranges, calibration_embeddings
        For ``"int8"`` and ``"uint8"``: what the corpus was quantized with; an index knows.
    rescore
        The query is coded too and finds ``top_k * rescore_multiplier`` candidates; True scores these by the
        inner product of the float query and the decoded vectors: levels in their ranges, or signs -1 and 1.
        Float32 scores are exact either way.
    rescore_multiplier
        Candidates per result, at least 1.
    exact
        True; for an approximate search build another index and use its ``search``.
    output_index
        Return the index as well.

    Returns
    -------
    ``(results, seconds)`` or ``(results, seconds, index)``. Results are a list per query of
    ``{"corpus_id": int, "score": float}``, best first; scores are inner products, larger is better, and
    ``dim - 2 * hamming`` for bits that are not re-scored.

    Raises
    ------
    ShapeError, DtypeError, NonFiniteError, InvalidValueError, InvalidTypeError, UnsupportedError

    Examples
    --------
    >>> import numpy as np, residua as rz
    >>> x = np.random.default_rng(0).standard_normal((100, 64)).astype("float32")
    >>> packed = rz.quantize_embeddings(x, "ubinary")
    >>> results, seconds = rz.semantic_search(x[:2], packed, corpus_precision="ubinary", top_k=3)
    >>> [hits[0]["corpus_id"] for hits in results]
    [0, 1]
    """
    as_choice(corpus_precision, "corpus_precision", _PRECISIONS)
    k = as_int(top_k, "top_k", 1, 2**31 - 1)
    as_flag(rescore, "rescore")
    as_flag(output_index, "output_index")
    wider = as_int(rescore_multiplier, "rescore_multiplier", 1, 2**20)
    if not as_flag(exact, "exact"):
        raise UnsupportedError(
            "exact=False: build an approximate index and use its search; this one is exact"
        )
    q, _ = as_vectors(query_embeddings, None, "query_embeddings", one=True)
    index = _corpus(
        q.shape[1], corpus_embeddings, corpus_index, corpus_precision, ranges, calibration_embeddings
    )
    start = perf_counter()
    if index.codec is None:
        found = index.search(q, min(k, max(1, len(index))))
        results = _listed(found.ids, found.scores, found.counts)
    else:
        wanted = min(k * wider if rescore else k, max(1, len(index)))
        found = index.search(q, wanted, scoring="symmetric")
        results = _listed(found.ids, found.scores, found.counts)
        if rescore:
            results = [_rescored(index, q[i], hits, k) for i, hits in enumerate(results)]
    seconds = perf_counter() - start
    return (results, seconds, index) if output_index else (results, seconds)


def _listed(ids: AnyArray, scores: FloatArray, counts: Any) -> list[list[dict[str, Any]]]:
    return [
        [{"corpus_id": int(i), "score": float(s)} for i, s in zip(ids[r, :n], scores[r, :n], strict=True)]
        for r, n in enumerate(counts)
    ]


def _rescored(
    index: FlatIndex, query: FloatArray, hits: list[dict[str, Any]], k: int
) -> list[dict[str, Any]]:
    """The k best of some results by the inner product with what their codes stand for."""
    if not hits:
        return []
    ids = np.array([h["corpus_id"] for h in hits])
    scores = index.get(ids).astype(np.float64) @ query.astype(np.float64)
    order = np.lexsort((ids, -scores))[:k]
    return [{"corpus_id": int(ids[i]), "score": float(scores[i])} for i in order]


def _corpus(
    dim: int,
    embeddings: ArrayLike | None,
    index: FlatIndex | None,
    precision: str,
    ranges: ArrayLike | None,
    calibration: ArrayLike | None,
) -> FlatIndex:
    """The index to search: the one given, or one of the codes given."""
    if (embeddings is None) == (index is None):
        raise InvalidTypeError("give either corpus_embeddings or corpus_index")
    has_ranges = ranges is not None or calibration is not None
    if index is not None:
        if has_ranges:
            raise InvalidTypeError(
                "ranges and calibration_embeddings go with corpus_embeddings; an index knows"
            )
        return _checked(index, dim, precision)
    if has_ranges and precision not in ("int8", "uint8"):
        raise InvalidTypeError(f"ranges are for precision 'int8' and 'uint8'; {precision!r} has none")
    codes = as_array(embeddings if embeddings is not None else [], "corpus_embeddings")
    if precision == "float32":
        x, _ = as_vectors(codes, dim, "corpus_embeddings")
        made = FlatIndex(dim, metric="ip")
        made.add(x)
        return made
    bits = precision in ("binary", "ubinary")
    _check_codes(codes, dim, precision, (dim + 7) // 8 if bits else dim)
    if bits:
        made = FlatIndex(dim, metric="ip", codec=BinaryCodec(dim), vectors="none")
        made.add_codes(codes if precision == "ubinary" else _shifted(codes, "uint8"))
        return made
    if not has_ranges:
        raise InvalidTypeError(
            f"precision {precision!r} needs ranges or calibration_embeddings: codes say nothing without"
        )
    least, step = _levels(ranges, calibration, None, dim)
    # uint8 rounds down, so that a level stands half a step higher; int8 rounds towards zero.
    codec = ScalarCodec.from_levels(least + step * (0.5 if precision == "uint8" else 0), step, 8, metric="ip")
    made = FlatIndex(dim, metric="ip", codec=codec, vectors="none")
    levels = codes if precision == "uint8" else _shifted(codes, "uint8")
    made.add_codes(_core.encode_levels(codec._trained(), np.ascontiguousarray(levels), 0))
    return made


def _checked(index: FlatIndex, dim: int, precision: str) -> FlatIndex:
    if not isinstance(index, FlatIndex):
        raise InvalidTypeError(
            f"corpus_index must be a FlatIndex that semantic_search returned, got {index!r}"
        )
    codec = index.codec
    if precision == "float32":
        fits = codec is None
    elif precision in ("binary", "ubinary"):
        fits = isinstance(codec, BinaryCodec) and codec.rotation == "none" and codec.bits == codec.dim
    else:
        fits = isinstance(codec, ScalarCodec) and codec.bits == 8
    if not fits or index.metric != "ip" or index._native.id_kind == "str":
        raise InvalidTypeError(f"corpus_index does not hold a corpus of precision {precision!r}: {index!r}")
    if index.dim != dim:
        raise ShapeError(f"query_embeddings have {dim} dims, corpus_index {index.dim}")
    return index


def _check_codes(codes: AnyArray, dim: int, precision: str, width: int) -> None:
    if codes.dtype != _DTYPES[precision]:
        fitting = [p for p, dtype in _DTYPES.items() if codes.dtype == dtype]
        hint = f"; that is the dtype of {' and '.join(fitting)}" if fitting else ""
        raise DtypeError(
            f"corpus_embeddings: dtype {codes.dtype}, expected {_DTYPES[precision]} for precision "
            f"{precision!r}{hint}"
        )
    if codes.ndim != 2 or codes.shape[1] != width:
        hint = (
            "; this is the width of unpacked int8 or uint8"
            if codes.ndim == 2 and codes.shape[1] == dim
            else ""
        )
        raise ShapeError(
            f"corpus_embeddings: shape {codes.shape}, expected (n, {width}) for {dim} dims of precision "
            f"{precision!r}{hint}"
        )


def _shifted(codes: AnyArray, dtype: str) -> AnyArray:
    """Bytes as signed or unsigned numbers 128 apart: the highest bit changes, nothing else."""
    flipped: AnyArray = np.ascontiguousarray(codes).view(np.uint8) ^ np.uint8(128)
    return flipped.view(dtype)


def _levels(
    ranges: ArrayLike | None, calibration: ArrayLike | None, own: FloatArray | None, dim: int
) -> tuple[FloatArray, FloatArray]:
    """Least value and step of every dim."""
    if ranges is not None:
        if calibration is not None:
            raise InvalidTypeError("give either ranges or calibration_embeddings")
        a = as_array(ranges, "ranges")
        bounds, _ = as_vectors(a.astype(np.float32) if a.dtype.kind in "iu" else a, dim, "ranges")
        if len(bounds) != 2:
            raise ShapeError(f"ranges: expected shape (2, {dim}): least and largest values, got {a.shape}")
        if (bounds[1] < bounds[0]).any():
            raise InvalidValueError(
                f"ranges: dim {int(np.argmax(bounds[1] < bounds[0]))} ends before it begins"
            )
    else:
        rows = own
        if calibration is not None:
            rows, _ = as_vectors(calibration, dim, "calibration_embeddings")
        if rows is None or len(rows) < 2:
            raise InvalidValueError(
                "ranges need at least 2 embeddings, better 1,000: one embedding is its own range, and its "
                "codes would say nothing; give ranges or calibration_embeddings"
            )
        bounds = np.stack([rows.min(axis=0), rows.max(axis=0)])
    step = (bounds[1] - bounds[0]) / np.float32(255)
    # A dim that never changes has one level, which is exact.
    return bounds[0], np.maximum(step, np.finfo(np.float32).tiny)
