# SPDX-License-Identifier: Apache-2.0
"""Batches that go to native code at once, or in groups of queries that have the same filter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from residua import _core
from residua._filters import as_filter, group_filters, split_filters
from residua._placement import Place
from residua._typing import AnyArray, FloatArray, IntArray
from residua.results import Hits, RangeHits, make_hits

Found = tuple[AnyArray, FloatArray, IntArray, dict[str, Any]]  # ids, scores, counts, stats
FoundRange = tuple[IntArray, AnyArray, FloatArray]  # offsets, ids, scores
Rows = slice | IntArray  # which queries of the batch
_PER_FILTER = ("matches", "visited", "reranked", "stages")  # statistics that depend on the filter


_COSTS = ("scan", "graph", "filtered_graph")  # plans whose costs a graph index estimates


def takes_texts(native: _core.Index, filter: Any) -> bool:
    """Whether a list of str would hold filters rather than ids."""
    return isinstance(filter, (list, tuple)) and native.id_kind != "str" and bool(native.fields)


def collect_hits(
    search: Callable[[Rows, Any], Found],
    shape: tuple[int, int, bool],
    filter: Any,
    metric: str,
    *,
    texts: bool = False,
    together: bool = False,
) -> Hits:
    """Search a batch of shape (queries, k, whether it was a single query) for the k best.

    With ``together``, ``search`` takes a pair of filters and which of them each query has.
    """
    n, k, single = shape
    parts = split_filters(filter, n, single, texts=texts)
    if parts is None:
        ids, scores, counts, stats = search(slice(None), as_filter(filter))
        return make_hits(ids, scores, counts, k, metric, single, stats)
    groups = group_filters(parts)
    if together and n:
        filter_of = np.empty(n, np.uint32)
        for i, (_, rows) in enumerate(groups):
            filter_of[rows] = i
        ids, scores, counts, stats = search(slice(None), ([allowed for allowed, _ in groups], filter_of))
        stats.update({key: stats["notes"][key].tolist() for key in ("matches", "visited", "reranked")})
        return make_hits(ids, scores, counts, k, metric, single, stats)
    order = np.argsort(np.concatenate([rows for _, rows in groups]), kind="stable")
    found = [search(np.array(rows), allowed) for allowed, rows in groups]
    hits = [make_hits(*arrays[:3], k, metric, False, arrays[3]) for arrays in found]
    counts = np.concatenate([arrays[2] for arrays in found])
    per_query: dict[str, list[Any]] = {key: [None] * n for key in _PER_FILTER if key in hits[0].stats}
    for (_, rows), h in zip(groups, hits, strict=True):
        for key, values in per_query.items():
            for i in rows:
                values[i] = h.stats[key]
    return Hits(
        np.concatenate([h.ids for h in hits])[order],
        np.concatenate([h.scores for h in hits])[order],
        counts[order],
        {**hits[0].stats, **per_query},
    )


def add_details(hits: Hits, native: _core.Index, explain: bool, place: Place | None = None) -> Hits:
    """Add what ``explain=True`` asks for, and where codes were scanned if not on the CPU."""
    if place is not None:
        hits.stats["device"] = place.name
    notes = hits.stats.pop("notes", None)
    if not explain:
        return hits
    hits.stats["rows"] = len(native)
    hits.stats["code_bytes"] = 0 if native.codec is None else native.codec.code_bytes
    matches = hits.stats["matches"]
    total = max(1, len(native))
    hits.stats["share"] = [m / total for m in matches] if isinstance(matches, list) else matches / total
    if notes is not None:
        hits.stats["plans"] = notes["plans"]
        hits.stats["visits"] = notes["visited"]
        hits.stats["fallback"] = notes["fallback"]
        hits.stats["local_rate"] = np.where(notes["local_rate"] < 0, np.nan, notes["local_rate"])
        costs = np.where(notes["costs"] < 0, np.nan, notes["costs"])
        hits.stats["costs"] = {name: costs[:, i] for i, name in enumerate(_COSTS)}
    return hits


def collect_ranges(
    search: Callable[[Rows, Any], FoundRange], n: int, single: bool, filter: Any, *, texts: bool = False
) -> RangeHits:
    """Search a batch of ``n`` queries by threshold."""
    parts = split_filters(filter, n, single, texts=texts)
    if parts is None:
        return RangeHits(*search(slice(None), as_filter(filter)))
    queries: dict[int, tuple[AnyArray, FloatArray]] = {}
    for allowed, rows in group_filters(parts):
        offsets, ids, scores = search(np.array(rows), allowed)
        for i, begin, end in zip(rows, offsets[:-1], offsets[1:], strict=True):
            queries[i] = (ids[begin:end], scores[begin:end])
    found = [queries[i] for i in range(n)]
    lengths = np.cumsum([0, *(len(scores) for _, scores in found)], dtype=np.int64)
    return RangeHits(lengths, *(np.concatenate([f[i] for f in found]) for i in (0, 1)))
