# SPDX-License-Identifier: Apache-2.0
"""From indexes of FAISS."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from residua._faiss.codes import metric_of, pq_codec, scalar_codes
from residua._faiss.lists import read_lists
from residua._faiss.package import code_rows, concrete, name_of
from residua._index import Index
from residua._typing import ByteArray, IntArray, Metric
from residua.codecs import BinaryCodec, Codec
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


_WHAT_WORKS = (
    "these can: IndexFlat, IndexScalarQuantizer, IndexPQ, IndexIVFFlat, IndexIVFScalarQuantizer, IndexIVFPQ "
    "(codes of 8 and 4 bits, float16, bfloat16), IndexBinaryFlat"
)


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
        faiss.IndexPQ: _product,
        faiss.IndexIVFFlat: read_lists,
        faiss.IndexIVFPQ: read_lists,
        faiss.IndexIVFScalarQuantizer: read_lists,
        faiss.IndexBinaryFlat: _binary,
        faiss.IndexIDMap: _id_map,
        faiss.IndexIDMap2: _id_map,
        faiss.IndexBinaryIDMap: _id_map,
        faiss.IndexBinaryIDMap2: _id_map,
    }


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


def _product(faiss: Any, index: Any, ids: IntArray | None) -> Index:
    metric = metric_of(faiss, index)
    codes = code_rows(faiss, index.codes, index.ntotal, index.code_size)
    return of_codes(pq_codec(faiss, index.pq, metric), codes, metric, ids)


def _scalar(faiss: Any, index: Any, ids: IntArray | None) -> Index:
    metric = metric_of(faiss, index)
    codes = code_rows(faiss, index.codes, index.ntotal, index.code_size)
    codec, codes = scalar_codes(faiss, index.sq, metric, codes)
    return of_codes(codec, codes, metric, ids)
