# SPDX-License-Identifier: Apache-2.0
"""Indexes from other libraries and for them, with the same results."""

from __future__ import annotations

from typing import Any, Literal

from residua import _core, _hnswlib
from residua._faiss.package import open_index, package
from residua._faiss.read import read
from residua._faiss.write import write
from residua._index import Index
from residua._progress import reporter
from residua._typing import Progress, Vectors
from residua._validate import METRICS, as_choice, as_dim, as_threads, refuse_zero_rows
from residua.codecs import Codec
from residua.errors import InvalidTypeError, NonFiniteError
from residua.hnsw_index import HNSWIndex

__all__ = ["from_faiss", "from_hnswlib", "to_faiss"]

_LINKS = range(2, 129)  # M that our graphs can have


def from_faiss(index_or_path: Any) -> Index:
    """Make an index of a FAISS index: searches find the same ids and scores.

    Codes are taken over as they are; nothing is trained or coded again.

    Parameters
    ----------
    index_or_path
        A FAISS index, or the path of a file that ``faiss.write_index`` or ``faiss.write_index_binary`` wrote:
        ``IndexFlat``, ``IndexScalarQuantizer``, ``IndexPQ``, ``IndexBinaryFlat``, ``IndexIVFFlat``,
        ``IndexIVFPQ``, ``IndexIVFScalarQuantizer``, and ``IndexIDMap`` or ``IndexIDMap2`` around them;
        docs/exchange.md has the table.

    Returns
    -------
    The index. Metrics are ``"l2"`` and ``"ip"``; of binary codes it is ``search_codes`` that finds the same.

    Raises
    ------
    UnsupportedError
        The faiss package is missing, or the class, metric or kind of codes has no counterpart.
    NotTrainedError
        The FAISS index is not trained.
    InvalidValueError, DuplicateIdError
        Ids of an IDMap are negative, or not unique.
    NonFiniteError
        The FAISS index holds NaN or infinity.
    FileError, CorruptFileError, InvalidTypeError
    """
    faiss = package("from_faiss")
    theirs = open_index(faiss, index_or_path)
    return read(faiss, theirs)


def to_faiss(index: Index) -> Any:
    """Make a FAISS index of an index: searches find the same ids and scores.

    FAISS has no cosine: such an index becomes one of inner products over unit vectors, and queries for it
    have to be unit vectors too.

    Parameters
    ----------
    index
        Without a codec, or with ``vectors="none"`` and a ``FloatCodec``, a ``ScalarCodec`` that
        ``ScalarCodec.from_levels`` made, or a ``BinaryCodec`` without a rotation; docs/exchange.md has the
        table.

    Returns
    -------
    A FAISS index; ``IndexIDMap2`` (``IndexBinaryIDMap2``) where ids are not 0, 1, 2, … in order of insertion.
    Removed rows are left out.

    Raises
    ------
    UnsupportedError
        The faiss package is missing, ids are str, or FAISS has no such codes; the message says what works.
    NotTrainedError
        The codec is not trained.
    InvalidTypeError
        ``index`` is not an index.
    """
    if not isinstance(index, Index):
        raise InvalidTypeError(f"to_faiss takes an index such as FlatIndex, got {type(index).__name__}")
    return write(package("to_faiss"), index)


def from_hnswlib(
    index_or_path: Any,
    *,
    space: Literal["l2", "ip", "cosine"] | None = None,
    dim: int | None = None,
    codec: Codec | Literal["auto"] | None = "auto",
    vectors: Vectors = "auto",
    layout: Literal["auto", "compact", "turbo"] = "auto",
    num_threads: int | None = None,
    progress: Progress = False,
) -> HNSWIndex:
    """Make a graph index of one of hnswlib: its vectors, labels and neighbours are taken over.

    The lowest layer of its graph is kept where it can be, so that nothing is searched for; what is fitted is
    the codec. Labels become ids; elements that were marked as deleted are left out.

    Parameters
    ----------
    index_or_path
        An ``hnswlib.Index``, which is saved into a temporary file, or the path of a file that it saved.
    space
        Of a file, which does not say it: ``"l2"``, ``"ip"`` or ``"cosine"``, as given to ``hnswlib.Index``;
        it becomes the metric. hnswlib keeps vectors of ``"cosine"`` at length 1, and so does the result.
    dim
        Dims of the vectors, to be checked; the file knows them.
    codec, vectors, layout
        As for :class:`HNSWIndex`; ``codec=None, vectors="float32"`` walks over float32, as hnswlib does.
    num_threads
        At least 1; None uses the CPUs that the process may use.
    progress
        True draws a progress bar; a callable gets ``(done, total)``.

    Returns
    -------
    HNSWIndex with ``M`` and ``ef_construction`` of hnswlib (``M`` from 2 to 128), rows in its order.

    Raises
    ------
    CorruptFileError
        The file is damaged, or not one of hnswlib.
    UnsupportedError
        A label is above ``2**63 - 1``, or there are more than 65,536 dims.
    FileError, InvalidTypeError, InvalidValueError, NonFiniteError
    """
    threads = as_threads(num_threads)
    report = reporter(progress, "from_hnswlib")
    if space is not None:
        as_choice(space, "space", METRICS)
    saved, metric = _hnswlib.opened(index_or_path, None if dim is None else as_dim(dim), space)
    links = min(max(saved.links, _LINKS.start), _LINKS.stop - 1)
    index = HNSWIndex(
        saved.dim,
        metric=metric,
        codec=codec,
        vectors=vectors,
        layout=layout,
        M=links,
        ef_construction=min(max(saved.ef_construction, 1), 65_536),
    )
    if len(saved.vectors) == 0:
        return index
    bad = _core.first_non_finite(saved.vectors)
    if bad >= 0:
        raise NonFiniteError(f"the vector of label {saved.labels[bad]} holds NaN or infinity")
    if metric == "cosine":
        refuse_zero_rows(saved.vectors, "the hnswlib index")
    report(0, 1)
    if index._awaits_training and len(saved.vectors) >= index._fit_at():
        index.train(saved.vectors, num_threads=num_threads)
    if index._awaits_training or saved.links != links:
        index.add(saved.vectors, saved.labels, num_threads=num_threads)
    else:
        index._native.add(saved.vectors, saved.labels, False, threads, None, saved.lists)
    if saved.deleted.any():
        index.remove(saved.labels[saved.deleted])
        index.compact()
    report(1, 1)
    return index
