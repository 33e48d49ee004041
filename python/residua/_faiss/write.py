# SPDX-License-Identifier: Apache-2.0
"""To indexes of FAISS."""

from __future__ import annotations

from typing import Any

import numpy as np

from residua._faiss.package import set_vector
from residua._index import Index
from residua._typing import AnyArray, ByteArray, FloatArray, IntArray
from residua.codecs import BinaryCodec, Codec, FloatCodec, RecurrentBinaryCodec, ScalarCodec
from residua.errors import NotTrainedError, UnsupportedError
from residua.indexes import FlatIndex


def write(faiss: Any, index: Index) -> Any:
    """Make a FAISS index that finds the same."""
    ids = _ids(index)
    if index._awaits_training:
        raise NotTrainedError(f"{index!r} is not trained yet; call train(x) or add more rows, then to_faiss")
    if index.codec is not None and index._native.vectors != "none":
        raise UnsupportedError(
            "to_faiss: this index settles its candidates by kept vectors, which no FAISS index of codes "
            "does; give an index with vectors='none', or one without a codec"
        )
    if not isinstance(index, FlatIndex):
        raise UnsupportedError(f"to_faiss cannot write a {type(index).__name__}")
    made = empty(faiss, index)
    outer = made
    plain = np.array_equal(ids, np.arange(len(ids)))
    if not plain:
        outer = (faiss.IndexBinaryIDMap2 if isinstance(made, faiss.IndexBinary) else faiss.IndexIDMap2)(made)
    _fill(faiss, made, index, ids)
    if not plain:
        set_vector(faiss, ids, outer.id_map)
        outer.ntotal = len(ids)
        outer.construct_rev_map()
    return outer


def _ids(index: Index) -> IntArray:
    if index._native.id_kind == "str":
        raise UnsupportedError(
            "to_faiss: ids of FAISS are integers, and this index has str ids; keep a list of them, and add "
            "the vectors with their places in it as ids"
        )
    return np.asarray(index._native.all_ids(), np.int64)


def _metric(faiss: Any, index: Index) -> int:
    """FAISS has no cosine: inner products of unit vectors, which queries have to be too."""
    return int(faiss.METRIC_L2 if index.metric == "l2" else faiss.METRIC_INNER_PRODUCT)


def empty(faiss: Any, index: FlatIndex) -> Any:
    """The FAISS index that rows go into."""
    codec = index.codec
    metric = _metric(faiss, index)
    if codec is None or (isinstance(codec, FloatCodec) and codec.code_bytes == 4 * codec.dim):
        return (faiss.IndexFlatL2 if index.metric == "l2" else faiss.IndexFlatIP)(index.dim)
    if isinstance(codec, (FloatCodec, ScalarCodec)):
        made = faiss.IndexScalarQuantizer(index.dim, _qtype(faiss, codec), metric)
        if isinstance(codec, ScalarCodec):
            set_vector(faiss, _trained(codec), made.sq.trained)
        made.is_trained = True
        return made
    if isinstance(codec, BinaryCodec):
        if codec.rotation != "none":
            raise UnsupportedError(
                f"to_faiss: {codec!r} turns vectors before it takes signs, which IndexBinaryFlat does not; "
                "BinaryCodec(dim) can be exchanged"
            )
        return faiss.IndexBinaryFlat(8 * codec.code_bytes)
    raise UnsupportedError(f"to_faiss: FAISS has no codes like those of {codec!r}. {_instead(codec)}")


def _instead(codec: Codec) -> str:
    what = "index.get(ids) decodes them into vectors for any FAISS index"
    if isinstance(codec, RecurrentBinaryCodec):
        return f"{what}; FloatCodec, BinaryCodec and ScalarCodec.from_levels have codes that FAISS has too"
    return what


def _qtype(faiss: Any, codec: FloatCodec | ScalarCodec) -> int:
    of = faiss.ScalarQuantizer
    if isinstance(codec, FloatCodec):
        return int(of.QT_fp16 if codec._dtype == "float16" else of.QT_bf16)
    return int(of.QT_8bit if codec.bits == 8 else of.QT_4bit)


def _trained(codec: ScalarCodec) -> FloatArray:
    """Least values and widths: FAISS puts level u at ``least + (u + 1 / 2) * width / top``."""
    try:
        lowest, step = (a.astype(np.float64) for a in codec.levels)
    except UnsupportedError:
        raise UnsupportedError(
            f"to_faiss: {codec!r} gives every vector a scale of its own, which FAISS has no place for; "
            "ScalarCodec.from_levels makes codecs that it has"
        ) from None
    return np.concatenate([lowest - step / 2, step * (2**codec.bits - 1)]).astype(np.float32)


def _fill(faiss: Any, made: Any, index: FlatIndex, ids: IntArray) -> None:
    codec = index.codec
    if isinstance(made, faiss.IndexFlat):
        made.add(_unit(index.get(ids)) if index.metric == "cosine" else index.get(ids))
        return
    rows: ByteArray = index.codes(ids)
    if isinstance(codec, ScalarCodec):
        rows = rows[:, : made.code_size]
    set_vector(faiss, rows, made.xb if isinstance(made, faiss.IndexBinary) else made.codes)
    made.ntotal = len(ids)


def _unit(x: FloatArray) -> FloatArray:
    wide: AnyArray = x.astype(np.float64)
    return np.asarray(wide / np.linalg.norm(wide, axis=1, keepdims=True), np.float32)
