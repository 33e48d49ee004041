# SPDX-License-Identifier: Apache-2.0
"""To indexes of FAISS."""

from __future__ import annotations

from typing import Any

import numpy as np

from residua._faiss.codes import check_pq, fill_pq, qtype_of, trained_levels
from residua._faiss.lists import write_lists
from residua._faiss.package import set_vector
from residua._index import Index
from residua._typing import AnyArray, ByteArray, FloatArray, IntArray
from residua.codecs import BinaryCodec, Codec, FloatCodec, PQCodec, RecurrentBinaryCodec, ScalarCodec
from residua.errors import NotTrainedError, UnsupportedError
from residua.indexes import FlatIndex
from residua.ivf_index import IVFIndex


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
    if isinstance(index, IVFIndex):
        return write_lists(faiss, index, ids)
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
        made = faiss.IndexScalarQuantizer(index.dim, qtype_of(faiss, codec), metric)
        if isinstance(codec, ScalarCodec):
            set_vector(faiss, trained_levels(codec), made.sq.trained)
        made.is_trained = True
        return made
    if isinstance(codec, PQCodec):
        check_pq(codec)
        made = faiss.IndexPQ(index.dim, codec.n_subspaces, codec.bits, metric)
        fill_pq(faiss, made.pq, codec)
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
