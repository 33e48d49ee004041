# SPDX-License-Identifier: Apache-2.0
"""Batches that go to native code at once, or query by query where each query has its own filter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from residua import _core
from residua._filters import as_filter, split_filters
from residua._typing import AnyArray, FloatArray, IntArray
from residua.results import Hits, RangeHits, make_hits

Found = tuple[AnyArray, FloatArray, IntArray, dict[str, Any]]  # ids, scores, counts, stats
FoundRange = tuple[IntArray, AnyArray, FloatArray]  # offsets, ids, scores
_PER_FILTER = ("matches", "visited", "reranked", "stages")  # statistics that depend on the filter


def collect_hits(
    search: Callable[[slice, Any], Found], shape: tuple[int, int, bool], filter: Any, metric: str
) -> Hits:
    """Search a batch of shape (queries, k, whether it was a single query) for the k best."""
    n, k, single = shape
    parts = split_filters(filter, n, single)
    if parts is None:
        ids, scores, counts, stats = search(slice(None), as_filter(filter))
        return make_hits(ids, scores, counts, k, metric, single, stats)
    found = [search(slice(i, i + 1), as_filter(part)) for i, part in enumerate(parts)]
    rows = [make_hits(*arrays[:3], k, metric, False, arrays[3]) for arrays in found]
    return Hits(
        np.concatenate([h.ids for h in rows]),
        np.concatenate([h.scores for h in rows]),
        np.concatenate([arrays[2] for arrays in found]),
        {
            **rows[0].stats,
            **{key: [h.stats[key] for h in rows] for key in _PER_FILTER if key in rows[0].stats},
        },
    )


def add_details(hits: Hits, native: _core.Index) -> Hits:
    """Add what ``explain=True`` asks for."""
    hits.stats["rows"] = len(native)
    hits.stats["code_bytes"] = 0 if native.codec is None else native.codec.code_bytes
    return hits


def collect_ranges(
    search: Callable[[slice, Any], FoundRange], n: int, single: bool, filter: Any
) -> RangeHits:
    """Search a batch of ``n`` queries by threshold."""
    parts = split_filters(filter, n, single)
    if parts is None:
        return RangeHits(*search(slice(None), as_filter(filter)))
    found = [search(slice(i, i + 1), as_filter(part)) for i, part in enumerate(parts)]
    offsets = np.cumsum([0, *(len(scores) for _, _, scores in found)], dtype=np.int64)
    return RangeHits(offsets, *(np.concatenate([f[i] for f in found]) for i in (1, 2)))
