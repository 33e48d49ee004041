# SPDX-License-Identifier: Apache-2.0
"""From indexes of FAISS."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from residua import _core
from residua._faiss.package import code_rows, concrete, name_of
from residua._index import Index
from residua._typing import ByteArray, IntArray, Metric
from residua.codecs import BinaryCodec, Codec, FloatCodec, ScalarCodec
from residua.errors import NotTrainedError, UnsupportedError
from residua.indexes import FlatIndex

Reader = Callable[[Any, Any, "IntArray | None"], Index]


def read(faiss: Any, index: Any, ids: IntArray | None = None) -> Index:
    """Make an index of ours; ``ids`` of the rows come from an IDMap around it."""
    index = concrete(faiss, index)
    if not index.is_trained:
        raise NotTrainedError(f"{name_of(index)} is not trained: train it in FAISS before it is exchanged")
    reader = _readers(faiss).get(type(index))
    if reader is None:
        raise UnsupportedError(
            f"{name_of(index)} cannot be exchanged; {_WHAT_WORKS}, and IDMap or IDMap2 around these"
            + _hint(faiss, index)
        )
    return reader(faiss, index, ids)


_WHAT_WORKS = "these can: IndexFlat, IndexScalarQuantizer (8 and 4 bits, float16, bfloat16), IndexBinaryFlat"


def _hint(faiss: Any, index: Any) -> str:
    if isinstance(index, faiss.IndexPreTransform):
        return ". Of a transform: exchange its inner index, and apply the transform to vectors and queries"
    if isinstance(index, faiss.IndexRefine):
        return ". Of a refined index: exchange its base_index or its refine_index"
    return ". Vectors of any index that FAISS reconstructs can be added to one of ours"


def _readers(faiss: Any) -> dict[type, Reader]:
    return {
        faiss.IndexFlat: _flat,
        faiss.IndexFlatL2: _flat,
        faiss.IndexFlatIP: _flat,
        faiss.IndexScalarQuantizer: _scalar,
        faiss.IndexBinaryFlat: _binary,
        faiss.IndexIDMap: _id_map,
        faiss.IndexIDMap2: _id_map,
        faiss.IndexBinaryIDMap: _id_map,
        faiss.IndexBinaryIDMap2: _id_map,
    }


def metric_of(faiss: Any, index: Any) -> Metric:
    """The metric of a FAISS index; cosine is inner product over unit vectors there."""
    if index.metric_type == faiss.METRIC_L2:
        return "l2"
    if index.metric_type == faiss.METRIC_INNER_PRODUCT:
        return "ip"
    raise UnsupportedError(
        f"{name_of(index)} has metric_type {index.metric_type}; METRIC_L2 and METRIC_INNER_PRODUCT can be "
        "exchanged"
    )


def _id_map(faiss: Any, index: Any, _: IntArray | None) -> Index:
    own = faiss.vector_to_array(index.id_map) if index.ntotal else np.empty(0, np.int64)
    return read(faiss, index.index, own)


def _flat(faiss: Any, index: Any, ids: IntArray | None) -> Index:
    made = FlatIndex(index.d, metric=metric_of(faiss, index))
    rows = code_rows(faiss, index.codes, index.ntotal, 4 * index.d).view(np.float32)
    made.add(rows, plain(ids))
    return made


def plain(ids: IntArray | None) -> IntArray | None:
    """None for the ids that an index gives by itself."""
    return None if ids is None or np.array_equal(ids, np.arange(len(ids))) else ids


def of_codes(codec: Codec, codes: ByteArray, metric: Metric, ids: IntArray | None) -> FlatIndex:
    """An index that holds the codes and no vectors, as those of FAISS do."""
    made = FlatIndex(codec.dim, metric=metric, codec=codec, vectors="none")
    made.add_codes(codes, plain(ids))
    return made


def _binary(faiss: Any, index: Any, ids: IntArray | None) -> Index:
    codes = code_rows(faiss, index.xb, index.ntotal, index.code_size)
    return of_codes(BinaryCodec(index.d), codes, "ip", ids)


def _scalar(faiss: Any, index: Any, ids: IntArray | None) -> Index:
    metric = metric_of(faiss, index)
    codes = code_rows(faiss, index.codes, index.ntotal, index.code_size)
    codec, codes = scalar_codes(faiss, index.sq, metric, codes)
    return of_codes(codec, codes, metric, ids)


def scalar_codes(faiss: Any, sq: Any, metric: Metric, codes: ByteArray) -> tuple[Codec, ByteArray]:
    """The codec of a FAISS ScalarQuantizer, and its codes as codes of it."""
    of = faiss.ScalarQuantizer
    floats: dict[int, Literal["float16", "bfloat16"]] = {of.QT_fp16: "float16", of.QT_bf16: "bfloat16"}
    if sq.qtype in floats:
        return FloatCodec(sq.d, floats[sq.qtype]), codes
    bits: Literal[8, 4]
    if sq.qtype in (of.QT_8bit_direct, of.QT_8bit_direct_signed):
        lowest = np.full(sq.d, 0.0 if sq.qtype == of.QT_8bit_direct else -128.0)
        step, bits = np.ones(sq.d), 8
    elif sq.qtype in (of.QT_8bit, of.QT_4bit, of.QT_8bit_uniform, of.QT_4bit_uniform):
        bits = 8 if sq.qtype in (of.QT_8bit, of.QT_8bit_uniform) else 4
        trained = faiss.vector_to_array(sq.trained).astype(np.float64).reshape(2, -1)
        least, width = (np.broadcast_to(row, sq.d) for row in trained)
        # A dim that never changes has width 0 in FAISS, and one level; ours are at least this far apart.
        step = np.maximum(width / (2**bits - 1), np.finfo(np.float32).tiny)
        lowest = least + step / 2
    else:
        raise UnsupportedError(
            f"a ScalarQuantizer of qtype {_qtype(faiss, sq.qtype)} cannot be exchanged; these can: QT_8bit, "
            "QT_4bit, QT_8bit_uniform, QT_4bit_uniform, QT_8bit_direct, QT_8bit_direct_signed, QT_fp16, "
            "QT_bf16"
        )
    codec = ScalarCodec.from_levels(lowest, step, bits, metric=metric)
    levels = (
        codes if bits == 8 else np.stack([codes & 15, codes >> 4], axis=2).reshape(len(codes), -1)[:, : sq.d]
    )
    return codec, _core.encode_levels(codec._trained(), np.ascontiguousarray(levels), 0)


def _qtype(faiss: Any, qtype: int) -> str:
    names = [n for n in dir(faiss.ScalarQuantizer) if n.startswith("QT_")]
    return next((n for n in names if getattr(faiss.ScalarQuantizer, n) == qtype), str(qtype))
