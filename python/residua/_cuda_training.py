# SPDX-License-Identifier: Apache-2.0
"""k-means and encoding on a CUDA device; public as rz.cuda.kmeans and rz.cuda.encode."""

from __future__ import annotations

from typing import Any

import numpy as np

from residua._codec import Codec
from residua._typing import AnyArray, FloatArray
from residua._validate import as_int, as_seed, as_threads, as_vectors, refuse_huge_values, refuse_zero_rows
from residua.errors import InvalidTypeError, InvalidValueError


def kmeans(
    x: Any,
    k: int,
    *,
    n_iter: int = 25,
    metric: str = "l2",
    max_rows: int | None = None,
    seed: int = 0,
    num_threads: int | None = None,
    device: Any = "cuda",
    memory_limit: int | None = None,
) -> tuple[FloatArray, AnyArray]:
    """Find centroids of rows by k-means on a CUDA device.

    Seeds are drawn as k-means++ draws them, by the CPU; products of rows with centroids, which take nearly
    all of the time, are cuBLAS's in full float32. The same call gives the same bits on the same device.

    Parameters
    ----------
    x
        ``(n, dim)`` float32, float16, bfloat16 or float64; finite, and not zero under cosine.
    k
        Number of centroids, 1 to 2^24 - 1. With fewer distinct rows than that, centroids repeat.
    n_iter
        Iterations at most; fewer when no row changes its centroid.
    metric
        ``"l2"``; or ``"cosine"``, where rows count by their direction and centroids have length 1.
    max_rows
        Rows to learn from, drawn at random; None: all.
    seed
        For rows and seeds.
    num_threads
        Of the CPU; None uses the CPUs that the process may use. Results do not depend on it.
    device
        As for :func:`device_info`.
    memory_limit
        Bytes of device memory at most; None: what there is.

    Returns
    -------
    ``(k, dim)`` float32 centroids, and ``(n,)`` uint32, the centroid of every row.

    Raises
    ------
    UnsupportedError, OutOfMemoryError, ShapeError, DtypeError, NonFiniteError, InvalidValueError
    """
    from residua import cuda

    if metric not in ("l2", "cosine"):
        raise InvalidValueError(f"metric must be 'l2' or 'cosine', got {metric!r}")
    k = as_int(k, "k", 1, 2**24 - 1)
    n_iter = as_int(n_iter, "n_iter", 0, 2**31 - 1)
    most = 0 if max_rows is None else as_int(max_rows, "max_rows", 1, 2**32 - 1)
    context = cuda._context(device, memory_limit)
    rows, _ = as_vectors(cuda._to_host(x, context, "x"), None, "x")
    if len(rows) == 0:
        raise InvalidValueError("x has no rows; k-means needs at least one")
    refuse_huge_values(rows, "x", metric)
    if metric == "cosine":
        refuse_zero_rows(rows, "x")
    centroids, labels = cuda._native().kmeans(
        context, rows, k, n_iter, metric == "cosine", most, as_seed(seed), as_threads(num_threads)
    )
    return centroids, labels


def encode(
    codec: Codec,
    x: Any,
    *,
    refine: bool | str = False,
    out: str = "numpy",
    device: Any = "cuda",
    memory_limit: int | None = None,
    stream: Any = None,
) -> Any:
    """Encode vectors with a recurrent binary codec on a CUDA device.

    Codes are those of ``codec.encode(x)``, but for levels of dims that lie within rounding of a step's edge.

    Parameters
    ----------
    codec
        A trained :class:`residua.RecurrentBinaryCodec`.
    x
        ``(n, dim)``, as for ``codec.encode``; or an array on the device (DLPack or
        ``__cuda_array_interface__``) of float32, float16 or bfloat16 in C order, which is read where it is.
    refine
        False: plain rounding; ``"scale"``: the best scale of every vector; True: the best level of every
        dim, too.
    out
        ``"numpy"``, or ``"device"`` for a :class:`residua.cuda.DeviceArray`.
    device, memory_limit
        As for :func:`kmeans`.
    stream
        That the work is ordered on: a handle, or a stream of PyTorch or CuPy; None makes one.

    Returns
    -------
    ``(n, code_bytes)`` uint8.

    Raises
    ------
    UnsupportedError
        CUDA is not available, or the codec is of another kind; NotTrainedError, OutOfMemoryError, ShapeError,
        DtypeError, NonFiniteError, InvalidValueError.
    """
    from residua import cuda

    if not isinstance(codec, Codec):
        raise InvalidTypeError(f"codec must be a codec, got {type(codec).__name__}")
    if not isinstance(refine, bool) and refine != "scale":
        raise InvalidTypeError(f"refine must be True, False or 'scale', got {refine!r}")
    if out not in ("numpy", "device"):
        raise InvalidValueError(f"out must be 'numpy' or 'device', got {out!r}")
    native = codec._trained()
    context = cuda._context(device, memory_limit, stream)
    if isinstance(x, (np.ndarray, list, tuple)) or not cuda._native().is_on_device(x):
        x, _ = as_vectors(x, native.dim, "x")
    effort = "scaled" if refine == "scale" else "refined" if refine else "rounded"
    codes = cuda._native().encode(context, native, x, effort, out == "device")
    return codes if out == "numpy" else cuda.DeviceArray._of(codes)
