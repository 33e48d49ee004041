# SPDX-License-Identifier: Apache-2.0
"""The small real data set that ships with the package: for the demo, examples and tests."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import resources
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

__all__ = ["Sample", "load_sample"]

_TEXT = ("id", "title", "venue", "venue_type")
_INTEGERS = ("year", "n_authors")
_FLAGS = ("has_code", "has_doi")

_LICENSE = (
    "Compilation: Apache-2.0 (ML Anthology). Titles and bibliographic attributes are facts from DBLP (CC0), "
    "Semantic Scholar (ODC-By), OpenAlex (CC0), OpenReview, PMLR and JMLR. Vectors made with "
    "all-MiniLM-L6-v2 (Apache-2.0). No abstract text is included."
)
_DESCRIPTION = (
    "all-MiniLM-L6-v2 embeddings of 8,000 machine-learning papers (title and abstract) and of the titles of "
    "500 other papers, with bibliographic attributes and the exact 100 nearest documents of each query."
)


@dataclass(frozen=True, eq=False)
class Sample:
    """Embeddings of machine-learning papers with attributes and exact nearest neighbours.

    Attributes
    ----------
    documents : float16 array, shape (8000, 384)
        Unit vectors of title and abstract, up to float16 rounding.
    queries : float16 array, shape (500, 384)
        Unit vectors of the titles of 500 papers that are not among the documents.
    ids : str array, shape (8000,)
        Bibliographic keys of the documents; unique.
    attributes : dict of str to array, each of shape (8000,)
        Columns of the documents: ``title``, ``venue``, ``venue_type`` (str), ``year``, ``n_authors``
        (int64), ``has_code``, ``has_doi`` (bool). Ten documents have the empty string as
        ``venue_type``, which is unknown there.
    query_ids : str array, shape (500,)
        Bibliographic keys of the queries.
    query_attributes : dict of str to array, each of shape (500,)
        The same columns for the queries.
    ground_truth : int32 array, shape (500, 100)
        Rows of the 100 documents with the largest cosine, best first, computed in float64 on the
        stored values; ties go to the lower row.
    metric : str
        ``"cosine"``.
    license : str
        Under which terms the parts may be used.
    description : str
        What the vectors are.
    """

    documents: npt.NDArray[np.float16] = field(repr=False)
    queries: npt.NDArray[np.float16] = field(repr=False)
    ids: npt.NDArray[np.str_] = field(repr=False)
    attributes: dict[str, npt.NDArray[Any]] = field(repr=False)
    query_ids: npt.NDArray[np.str_] = field(repr=False)
    query_attributes: dict[str, npt.NDArray[Any]] = field(repr=False)
    ground_truth: npt.NDArray[np.int32] = field(repr=False)
    metric: Literal["cosine"]
    license: str
    description: str


def load_sample() -> Sample:
    """Load the sample that ships with the package.

    Returns
    -------
    Sample
        Freshly read arrays; changing them changes nothing for the next caller.

    Notes
    -----
    Reads a 6 MB compressed file from the package, without network, in about 0.2 seconds; the
    result takes 15 MB. See ``residua/data/README.md`` for the origin of the data.

    Examples
    --------
    >>> import residua as rz
    >>> sample = rz.datasets.load_sample()
    >>> sample.documents.shape, sample.queries.shape, sample.ground_truth.shape
    ((8000, 384), (500, 384), (500, 100))
    >>> sorted(sample.attributes)
    ['has_code', 'has_doi', 'n_authors', 'title', 'venue', 'venue_type', 'year']
    """
    source = resources.files("residua") / "data" / "sample.npz"
    with source.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        ids, attributes = _columns(arrays, "document")
        query_ids, query_attributes = _columns(arrays, "query")
        return Sample(
            documents=arrays["documents"],
            queries=arrays["queries"],
            ids=ids,
            attributes=attributes,
            query_ids=query_ids,
            query_attributes=query_attributes,
            ground_truth=arrays["ground_truth"].astype(np.int32),
            metric="cosine",
            license=_LICENSE,
            description=_DESCRIPTION,
        )


def _columns(arrays: Any, prefix: str) -> tuple[npt.NDArray[np.str_], dict[str, npt.NDArray[Any]]]:
    """Read the columns of one side: text is stored as UTF-8 lines, integers narrow."""
    columns: dict[str, npt.NDArray[Any]] = {}
    for name in _TEXT:
        columns[name] = np.array(arrays[f"{prefix}.{name}"].tobytes().decode().split("\n"))
    for name in _INTEGERS:
        columns[name] = arrays[f"{prefix}.{name}"].astype(np.int64)
    for name in _FLAGS:
        columns[name] = arrays[f"{prefix}.{name}"]
    return columns.pop("id"), columns
