# SPDX-License-Identifier: Apache-2.0
"""Inverted lists of FAISS: every row stays in its list, and its code is taken over as it is."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from residua._faiss.codes import (
    check_pq,
    fill_pq,
    metric_of,
    pq_codec,
    qtype_of,
    scalar_codes,
    trained_levels,
)
from residua._faiss.package import code_rows, concrete, name_of, set_vector
from residua._index import Index
from residua._typing import AnyArray, ByteArray, FloatArray, IntArray, Metric
from residua.codecs import Codec, FloatCodec, PQCodec, ScalarCodec
from residua.errors import InvalidValueError, UnsupportedError
from residua.ivf_index import IVFIndex

Lists = npt.NDArray[np.uint32]


def read_lists(faiss: Any, index: Any, ids: IntArray | None) -> Index:
    """Make an IVFIndex of an IndexIVFFlat, IndexIVFPQ or IndexIVFScalarQuantizer."""
    centroids, by_product = _centroids(faiss, index)
    rows, own, lists = _rows(faiss, index)
    given = own if ids is None else ids[own]
    order = np.argsort(given, kind="stable")
    rows, lists, given = np.ascontiguousarray(rows[order]), lists[order], given[order]
    metric = metric_of(faiss, index)
    vectors = rows.view(np.float32) if isinstance(index, faiss.IndexIVFFlat) else None
    if metric == "ip" and not by_product:
        metric = _cosine(index, vectors)
    codec, codes = (None, rows) if vectors is not None else _codec(faiss, index, metric, rows)
    residual = codec is not None and bool(index.by_residual)
    made = IVFIndex(index.d, metric=metric, codec=codec, vectors="float32" if codec is None else "none",
                    nlist=index.nlist)  # fmt: skip
    native = made._native
    native.train(centroids, None if codec is None else codec._trained(), residual, 0.0, 0)
    places = np.ascontiguousarray(lists)
    if vectors is not None:
        native.add(np.ascontiguousarray(vectors), _plain(given), False, 0, lists=places)
    else:
        native.add_codes(codes, _plain(given), places)
    native.take_as_trained()
    made.set_defaults({"nprobe": max(1, int(index.nprobe))})
    return made


def _plain(ids: IntArray) -> IntArray | None:
    if len(ids) and ids.min() < 0:
        raise InvalidValueError(f"ids must be integers from 0 to 2**63 - 1, got {ids.min()}")
    return None if np.array_equal(ids, np.arange(len(ids))) else np.ascontiguousarray(ids)


def _cosine(index: Any, vectors: FloatArray | None) -> Metric:
    """Lists chosen by distance and rows scored by product go together where all vectors have length 1."""
    if vectors is not None and (abs(np.linalg.norm(vectors.astype(np.float64), axis=1) - 1) < 1e-5).all():
        return "cosine"
    raise UnsupportedError(
        f"{name_of(index)} chooses lists by distance and scores by inner product; give it an IndexFlatIP to "
        "choose them in FAISS"
    )


def _centroids(faiss: Any, index: Any) -> tuple[FloatArray, bool]:
    coarse = concrete(faiss, index.quantizer)
    if not isinstance(coarse, faiss.IndexFlat):
        raise UnsupportedError(
            f"{name_of(index)} chooses lists through a {name_of(coarse)}, which may miss the nearest; only "
            "an IndexFlat to choose lists can be exchanged"
        )
    by_product = metric_of(faiss, coarse) == "ip"
    if by_product and metric_of(faiss, index) == "l2":
        raise UnsupportedError(f"{name_of(index)} chooses lists by product and scores by distance")
    rows = code_rows(faiss, coarse.codes, coarse.ntotal, 4 * index.d)
    return np.ascontiguousarray(rows.view(np.float32)), by_product


def _rows(faiss: Any, index: Any) -> tuple[ByteArray, IntArray, Lists]:
    """Codes, ids and lists of all rows."""
    codes, ids, lists = [], [], []
    for l in range(index.nlist):  # noqa: E741
        n = index.invlists.list_size(l)
        if n == 0:
            continue
        codes.append(faiss.rev_swig_ptr(index.invlists.get_codes(l), n * index.code_size).copy())
        ids.append(faiss.rev_swig_ptr(index.invlists.get_ids(l), n).copy())
        lists.append(np.full(n, l, np.uint32))
    if not ids:
        return np.empty((0, index.code_size), np.uint8), np.empty(0, np.int64), np.empty(0, np.uint32)
    flat = np.concatenate(codes).reshape(-1, index.code_size)
    return flat, np.concatenate(ids).astype(np.int64), np.concatenate(lists)


def _codec(faiss: Any, index: Any, metric: Metric, rows: ByteArray) -> tuple[Codec, ByteArray]:
    """The codec and its codes; residuals are scored by product, or by distance from that of the query."""
    if isinstance(index, faiss.IndexIVFPQ):
        return pq_codec(faiss, index.pq, metric), rows
    codec, codes = scalar_codes(faiss, index.sq, metric, rows)
    return codec, codes


def write_lists(faiss: Any, index: IVFIndex, ids: IntArray) -> Any:
    """Make a FAISS index of the lists."""
    native = index._native
    metric = faiss.METRIC_L2 if index.metric == "l2" else faiss.METRIC_INNER_PRODUCT
    coarse = faiss.IndexFlatIP(index.dim) if index.metric == "ip" else faiss.IndexFlatL2(index.dim)
    coarse.add(native.centroids())
    made, rows = _empty(faiss, index, coarse, metric, ids)
    made.own_fields = True
    coarse.this.disown()
    made.is_trained = True
    lists = native.lists_of(ids)
    for l in np.unique(lists):  # noqa: E741
        here = np.flatnonzero(lists == l)
        part, own = np.ascontiguousarray(rows[here]), np.ascontiguousarray(ids[here])
        made.invlists.add_entries(int(l), len(here), faiss.swig_ptr(own), faiss.swig_ptr(part))
    made.ntotal = len(ids)
    made.nprobe = int(index.defaults.get("nprobe", native.default_nprobe))
    return made


def _empty(faiss: Any, index: IVFIndex, coarse: Any, metric: int, ids: IntArray) -> tuple[Any, AnyArray]:
    codec, size = index.codec, (index.dim, index.nlist)
    if codec is None:
        x = index.get(ids)
        if index.metric == "cosine":
            x = (x / np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True)).astype(np.float32)
        return faiss.IndexIVFFlat(coarse, *size, metric), np.ascontiguousarray(x).view(np.uint8)
    if isinstance(codec, PQCodec):
        check_pq(codec)
        made = faiss.IndexIVFPQ(coarse, *size, codec.n_subspaces, codec.bits, metric)
        fill_pq(faiss, made.pq, codec)
        made.by_residual = index._native.is_residual
        return made, index.codes(ids)
    if isinstance(codec, (FloatCodec, ScalarCodec)):
        if index.metric == "cosine" and index._native.is_residual:
            raise UnsupportedError("to_faiss: residuals under cosine have no counterpart in FAISS")
        made = faiss.IndexIVFScalarQuantizer(
            coarse, *size, qtype_of(faiss, codec), metric, index._native.is_residual
        )
        if isinstance(codec, ScalarCodec):
            set_vector(faiss, trained_levels(codec), made.sq.trained)
        return made, index.codes(ids)[:, : made.code_size]
    raise UnsupportedError(
        f"to_faiss: FAISS has no lists of codes like those of {codec!r}; index.get(ids) decodes them"
    )
