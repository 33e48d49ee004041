# SPDX-License-Identifier: Apache-2.0
"""Codecs of FAISS and ours, and their codes."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from residua import _core
from residua._faiss.package import name_of, set_vector
from residua._typing import ByteArray, FloatArray, Metric
from residua.codecs import Codec, FloatCodec, PQCodec, ScalarCodec
from residua.errors import UnsupportedError


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
            f"a ScalarQuantizer of qtype {_name_of_qtype(faiss, sq.qtype)} cannot be exchanged; these can: "
            "QT_8bit, QT_4bit, QT_8bit_uniform, QT_4bit_uniform, QT_8bit_direct, QT_8bit_direct_signed, "
            "QT_fp16, QT_bf16"
        )
    codec = ScalarCodec.from_levels(lowest, step, bits, metric=metric)
    levels = (
        codes if bits == 8 else np.stack([codes & 15, codes >> 4], axis=2).reshape(len(codes), -1)[:, : sq.d]
    )
    return codec, _core.encode_levels(codec._trained(), np.ascontiguousarray(levels), 0)


def _name_of_qtype(faiss: Any, qtype: int) -> str:
    names = [n for n in dir(faiss.ScalarQuantizer) if n.startswith("QT_")]
    return next((n for n in names if getattr(faiss.ScalarQuantizer, n) == qtype), str(qtype))


def qtype_of(faiss: Any, codec: FloatCodec | ScalarCodec) -> int:
    of = faiss.ScalarQuantizer
    if isinstance(codec, FloatCodec):
        return int(of.QT_fp16 if codec._dtype == "float16" else of.QT_bf16)
    return int(of.QT_8bit if codec.bits == 8 else of.QT_4bit)


def trained_levels(codec: ScalarCodec) -> FloatArray:
    """Least values and widths: FAISS puts level u at ``least + (u + 1 / 2) * width / top``."""
    try:
        lowest, step = (a.astype(np.float64) for a in codec.levels)
    except UnsupportedError:
        raise UnsupportedError(
            f"to_faiss: {codec!r} gives every vector a scale of its own, which FAISS has no place for; "
            "ScalarCodec.from_levels makes codecs that it has"
        ) from None
    return np.concatenate([lowest - step / 2, step * (2**codec.bits - 1)]).astype(np.float32)


def pq_codec(faiss: Any, pq: Any, metric: Metric) -> PQCodec:
    """The codec of a FAISS ProductQuantizer."""
    if pq.nbits not in (4, 8):
        raise UnsupportedError(
            f"product codes of {pq.nbits} bits cannot be exchanged; those of 8 and 4 bits can"
        )
    books = faiss.vector_to_array(pq.centroids).reshape(pq.M, 2**pq.nbits, pq.dsub)
    return PQCodec.from_codebooks(books, metric=metric)


def fill_pq(faiss: Any, pq: Any, codec: PQCodec) -> None:
    """Give a FAISS ProductQuantizer the codewords of a codec."""
    set_vector(faiss, codec.codebooks, pq.centroids)


def check_pq(codec: PQCodec) -> None:
    """Raise for what a FAISS ProductQuantizer has no place for."""
    if codec.rotation != "none":
        raise UnsupportedError(f"to_faiss: {codec!r} turns vectors first; rotation='none' can be exchanged")
    if codec.dim % codec.n_subspaces:
        raise UnsupportedError(
            f"to_faiss: {codec.n_subspaces} sub-spaces of {codec.dim} dims are not of one size"
        )
    if _core.pq_parts(codec._trained())[2] != 0:
        raise UnsupportedError(
            f"to_faiss: scores of {codec!r} give back what codewords lack in length, which FAISS does not; "
            "PQCodec.from_codebooks(codec.codebooks, metric=…) makes a codec that it has"
        )
