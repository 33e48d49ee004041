# SPDX-License-Identifier: Apache-2.0
"""Functions that need no index: exact search, recall, Hamming distances, loading, configuration."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from residua import _core, cuda
from residua._index import Index
from residua._typing import ArrayLike, Metric
from residua._validate import (
    METRICS,
    as_array,
    as_choice,
    as_codes,
    as_k,
    as_path,
    as_threads,
    as_vectors,
    refuse_huge_result,
    refuse_zero_rows,
)
from residua.codecs import Codec, wrap
from residua.embedding_table import EmbeddingTable
from residua.errors import CorruptFileError, DtypeError, InvalidTypeError, ShapeError
from residua.fd_encoder import FDEncoder
from residua.hnsw_index import HNSWIndex
from residua.indexes import FlatIndex
from residua.ivf_index import IVFIndex
from residua.learned_encoder import LearnedEncoder
from residua.multivector_index import MultiVectorIndex
from residua.results import Hits, make_hits
from residua.token_store import TokenStore

__all__ = ["exact_search", "hamming", "load", "recall", "show_config"]

_INDEXES: dict[type[_core.Index], type[Index]] = {
    _core.FlatIndex: FlatIndex,
    _core.HNSWIndex: HNSWIndex,
    _core.IVFIndex: IVFIndex,
}
# Classes of files that hold several objects (_core.save_nested), by kind.
_NESTED: dict[str, Any] = {LearnedEncoder._KIND: LearnedEncoder, MultiVectorIndex._KIND: MultiVectorIndex}


def exact_search(
    q: ArrayLike,
    x: ArrayLike,
    k: int = 10,
    *,
    metric: Metric = "cosine",
    num_threads: int | None = None,
) -> Hits:
    """Find the k best rows of ``x`` for every query, exactly.

    Parameters
    ----------
    q
        ``(nq, dim)`` queries, or ``(dim,)`` for one, which gives one-dimensional results.
    x
        ``(n, dim)`` vectors; ids are row numbers.
    k
        How many, 1 … 2**31 - 1.
    metric
        ``"cosine"``, ``"ip"`` or ``"l2"``.
    num_threads
        At least 1; None uses the CPUs that the process may use. Results do not depend on it.

    Returns
    -------
    Hits, best first, ties by smaller id; scores are float64 sums rounded to float32.

    Examples
    --------
    >>> import numpy as np, residua as rz
    >>> rz.exact_search(np.array([1.0, 0.1]), np.eye(2), k=2).ids.tolist()
    [0, 1]
    """
    k = as_k(k)
    threads = as_threads(num_threads)
    as_choice(metric, "metric", METRICS)
    rows, _ = as_vectors(x, None, "x")
    queries, single = as_vectors(q, rows.shape[1], "q", one=True)
    if metric == "cosine":
        refuse_zero_rows(rows, "x")
        refuse_zero_rows(queries, "q")
    refuse_huge_result(len(queries), k, len(rows))
    ids, scores = _core.exact_search(queries, rows, min(k, len(rows)), metric, threads)
    counts = np.full(len(queries), min(k, len(rows)), np.int64)
    stats = {"plan": "exact", "matches": len(rows), "visited": len(rows), "reranked": 0}
    return make_hits(ids, scores, counts, k, metric, single, stats)


def recall(found_ids: ArrayLike, true_ids: ArrayLike) -> float:
    """Compute recall: the mean of ``|found ∩ true| / true_ids.shape[1]`` over the queries.

    Parameters
    ----------
    found_ids
        ``(nq, k)`` ids that a search returned; -1 and None are missing slots.
    true_ids
        ``(nq, t)`` ids that are right.

    Returns
    -------
    Recall, 0 … 1. For recall@10 give ``found_ids[:, :10]`` and ``true_ids[:, :10]``.

    Raises
    ------
    ShapeError
        The arrays are not two-dimensional, or of different numbers of queries.
    """
    found, true = as_array(found_ids, "found_ids"), as_array(true_ids, "true_ids")
    if found.ndim != 2 or true.ndim != 2 or len(found) != len(true):
        raise ShapeError(f"expected (nq, k) and (nq, t) with the same nq, got {found.shape} and {true.shape}")
    if true.size == 0:
        raise ShapeError(f"true_ids is empty: {true.shape}")
    missing = (-1, None)
    hits = sum(
        len({i for i in f if i not in missing} & set(t))
        for f, t in zip(found.tolist(), true.tolist(), strict=True)
    )
    return float(hits / true.size)


def hamming(a: ArrayLike, b: ArrayLike, *, num_threads: int | None = None) -> npt.NDArray[np.int32]:
    """Count the differing bits of every pair of packed codes.

    Parameters
    ----------
    a
        ``(na, bytes)`` uint8, or ``(bytes,)`` for one code.
    b
        ``(nb, bytes)`` uint8.
    num_threads
        At least 1; None uses the CPUs that the process may use.

    Returns
    -------
    ``(na, nb)`` int32, or ``(nb,)``.

    Examples
    --------
    >>> import numpy as np, residua as rz
    >>> rz.hamming(np.array([[255, 0]], np.uint8), np.array([[0, 0], [255, 1]], np.uint8)).tolist()
    [[8, 1]]
    """
    threads = as_threads(num_threads)
    rows = as_array(b, "b")
    if rows.dtype != np.uint8:
        raise DtypeError(f"b: dtype {rows.dtype}, expected uint8 (np.packbits makes it)")
    if rows.ndim != 2 or rows.shape[1] == 0:
        raise ShapeError(f"b: expected shape (n, bytes), got {rows.shape}")
    left, single = as_codes(a, rows.shape[1], "a")
    out = _core.hamming(left, np.ascontiguousarray(rows), threads)
    return out[0] if single else out


def load(
    path: Any, *, mmap: bool = False, verify: Literal["quick", "full"] = "quick"
) -> Index | EmbeddingTable | FDEncoder | LearnedEncoder | TokenStore | MultiVectorIndex | Codec:
    """Load an index, a table, an encoder, a token store or a codec from a file.

    Parameters
    ----------
    path
        str or os.PathLike of a file that ``save`` wrote.
    mmap
        Map the file instead of reading it: opening is quick, and pages come in as they are used.
    verify
        With ``mmap=True``: ``"quick"`` checks the structure, small sections and padding, ``"full"`` every
        byte. Without mmap every byte is always checked.

    Returns
    -------
    The index, table, encoder, token store or codec.

    Raises
    ------
    CorruptFileError
        The file is damaged, is of a newer version, or is something else; the message says which.
    FileError
        An OSError: the file does not exist, is a directory, …
    """
    if not isinstance(mmap, bool):
        raise InvalidTypeError(f"mmap must be True or False, got {mmap!r}")
    as_choice(verify, "verify", ("quick", "full"))
    native, metric_is_free = _core.load(as_path(path), mmap, verify)
    if isinstance(native, dict):
        kind = native.pop("kind")
        if kind not in _NESTED:
            raise CorruptFileError(f"{as_path(path)!r} holds {kind!r}, which this version does not know")
        return _NESTED[kind]._from_parts(native)  # type: ignore[no-any-return]
    if isinstance(native, _core.EmbeddingTable):
        return EmbeddingTable._from_native(native)
    if isinstance(native, _core.FDEncoder):
        return FDEncoder._from_native(native)
    if isinstance(native, _core.TokenStore):
        return TokenStore._from_native(native)
    if isinstance(native, _core.Codec):
        return wrap(native, metric_is_free=metric_is_free)
    return _INDEXES[type(native)]._from_native(native)


def show_config() -> dict[str, Any]:
    """Return what this build uses on this machine, for bug reports.

    Returns
    -------
    Dict with the version, the active instruction set, all that the machine can run, the default
    number of threads, CUDA devices or why there are none, and the NumPy version.
    """
    return {
        "version": _core.__version__,
        "isa": _core.kernels.active(),
        "isa_available": _core.kernels.available(),
        "num_threads": _core.kernels.default_num_threads(),
        "cuda": cuda._config(),
        "compiler": _core.compiler,
        "numpy": np.__version__,
    }
