# SPDX-License-Identifier: Apache-2.0
"""A multi-vector index with the methods of the indexes of PyLate."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from residua._progress import reporter
from residua._tokens import as_tokens, part
from residua._typing import FloatArray, Progress
from residua._validate import as_flag, as_ids, as_int, as_k
from residua.errors import InvalidTypeError, InvalidValueError, ShapeError
from residua.functions import load
from residua.multivector_index import MultiVectorIndex

__all__ = ["PyLateIndex"]


class PyLateIndex:
    """Keep a :class:`MultiVectorIndex` in a folder, behind the methods that PyLate's indexes have.

    ``retrieve.ColBERT(index=residua.PyLateIndex(…))`` works as with ``indexes.PLAID``; neither PyLate nor
    PyTorch is needed here.

    Parameters
    ----------
    index_folder
        Folder of indexes; made where it is missing.
    index_name
        Name of the index: the file ``index_name + ".rz"`` in the folder.
    override
        True begins an empty index, which replaces the file at the first change; False reads the file that
        is there.
    embedding_size
        Dims of the tokens; None takes those of the first documents.
    show_progress
        Whether :meth:`add_documents` draws a progress bar.
    **options
        Of :class:`MultiVectorIndex`, where a new index is made: ``token_codec="rb2"``, …

    Examples
    --------
    >>> import tempfile, numpy as np, residua as rz
    >>> rng = np.random.default_rng(0)
    >>> tokens = [rng.normal(size=(20, 128)).astype("float32") for _ in range(3)]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     index = rz.PyLateIndex(folder, "abstracts")
    ...     _ = index.add_documents(["a", "b", "c"], tokens)
    ...     index([tokens[1][:4]], k=1)[0][0]["id"]
    'b'
    """

    is_end_to_end_index = True

    def __init__(
        self,
        index_folder: str | os.PathLike[str] = "indexes",
        index_name: str = "residua",
        override: bool = False,
        *,
        embedding_size: int | None = None,
        show_progress: bool = False,
        **options: Any,
    ) -> None:
        if not index_name or os.path.basename(index_name) != index_name:
            raise InvalidValueError(
                f"index_name must be a name of a file, without folders, got {index_name!r}"
            )
        self._path = Path(index_folder) / f"{index_name}.rz"
        self._progress: Progress = as_flag(show_progress, "show_progress")
        self._options = options
        self._index: MultiVectorIndex | None = None
        if not as_flag(override, "override") and self._path.exists():
            found = load(self._path)
            if not isinstance(found, MultiVectorIndex):
                raise InvalidTypeError(f"{self._path} holds a {type(found).__name__}, not a MultiVectorIndex")
            self._index = found
        elif embedding_size is not None:
            self._index = MultiVectorIndex(embedding_size, **options)
        elif options:
            MultiVectorIndex(1, **{k: v for k, v in options.items() if k not in ("encoder", "codec")})

    @property
    def index(self) -> MultiVectorIndex | None:
        """The index behind it; None before the first documents where ``embedding_size`` was left out."""
        return self._index

    def add_documents(
        self, documents_ids: str | list[str], documents_embeddings: Any, batch_size: int = 2000
    ) -> PyLateIndex:
        """Add documents, or replace those of ids that exist, and write the file.

        Parameters
        ----------
        documents_ids
            Their ids.
        documents_embeddings
            A list of ``(t, dim)`` arrays or CPU tensors, or a ``(n, t, dim)`` array.
        batch_size
            Documents added at a time.

        Returns
        -------
        The index itself.
        """
        batch = as_int(batch_size, "batch_size", 1, 2**31 - 1)
        ids = as_ids([documents_ids] if isinstance(documents_ids, str) else documents_ids, None)
        dim = None if self._index is None else self._index.dim
        sets = as_tokens(documents_embeddings, dim, "documents_embeddings", "document")
        if len(ids) != len(sets):
            raise ShapeError(f"documents_ids: {len(ids)} given for {len(sets)} documents")
        if not len(sets):
            return self
        index = self._index or MultiVectorIndex(sets.flat.shape[1], **self._options)
        report = reporter(self._progress, "add")
        for first in range(0, len(sets), batch):
            last = min(first + batch, len(sets))
            index.add(part(sets, first, last), ids[first:last], upsert=True)
            report(last, len(sets))
        self._index = index
        return self._save()

    def remove_documents(self, documents_ids: list[str]) -> PyLateIndex:
        """Remove documents, and write the file.

        Parameters
        ----------
        documents_ids
            Their ids; those that are not there are skipped.

        Returns
        -------
        The index itself.
        """
        if self._index is None or not self._index.remove(documents_ids, missing="ignore"):
            return self
        self._index.compact()
        return self._save()

    def __call__(
        self, queries_embeddings: Any, k: int = 10, subset: list[list[str]] | list[str] | None = None
    ) -> list[list[dict[str, Any]]]:
        """Find the k best documents of every query.

        Parameters
        ----------
        queries_embeddings
            A list of ``(t, dim)`` arrays or CPU tensors, a ``(nq, t, dim)`` array, or one query ``(t, dim)``.
        k
            How many.
        subset
            Ids to search among, for all queries or a list for each; None: all.

        Returns
        -------
        Per query a list of ``{"id": …, "score": …}``, best first.
        """
        k = as_k(k)
        if self._index is None or len(self._index) == 0:
            raise InvalidValueError("the index is empty; add documents before searching")
        sets = as_tokens(queries_embeddings, self._index.dim, "queries_embeddings", "query")
        if subset is not None and len(subset) == 0:
            return [[] for _ in range(len(sets))]
        hits = self._index.search((sets.flat, sets.offsets), min(k, len(self._index)), subset=subset)
        return [
            [{"id": i, "score": float(s)} for i, s in zip(ids[:n], scores[:n], strict=True)]
            for ids, scores, n in zip(hits.ids.tolist(), hits.scores, np.atleast_1d(hits.counts), strict=True)
        ]

    def get_documents_embeddings(self, documents_ids: list[list[str]]) -> list[list[FloatArray]]:
        """Return the tokens of documents, as they are kept.

        Parameters
        ----------
        documents_ids
            Lists of ids.

        Returns
        -------
        Per list its documents, ``(t, dim)`` float32 each.
        """
        if self._index is None:
            raise InvalidValueError("the index is empty; add documents first")
        return [self._index.get(ids) for ids in documents_ids]

    def _save(self) -> PyLateIndex:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        if self._index is not None:
            self._index.save(self._path)
        return self

    def __len__(self) -> int:
        return 0 if self._index is None else len(self._index)

    def __repr__(self) -> str:
        return f"PyLateIndex({str(self._path)!r}, {self._index!r})"
