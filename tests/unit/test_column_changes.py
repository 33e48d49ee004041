# SPDX-License-Identifier: Apache-2.0
"""Columns that change in place, masks that are no masks, and ids far beyond the number of rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import residua as rz
from residua import _core
from residua._columns import as_cells
from residua.errors import ResiduaError

DIM = 8


def vectors(n: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal((n, DIM), dtype=np.float32)


def filled() -> rz.FlatIndex:
    index = rz.FlatIndex(DIM, columns={"year": "int", "lang": "category"})
    index.add(vectors(4), columns={"year": [2019, 2020, None, 2022], "lang": ["en", "de", None, "en"]})
    return index


def test_tags_change_by_one_row_and_by_thousands() -> None:
    rng = np.random.default_rng(5)
    n, fields = 6000, [("tags", "tags")]
    words = np.array([f"t{i}" for i in range(300)])

    def some(count: int) -> list[Any]:
        drawn = [
            list(dict.fromkeys(words[rng.integers(0, 300, rng.integers(0, 4))].tolist()))
            for _ in range(count)
        ]
        return [None if rng.random() < 0.1 else tags for tags in drawn]

    table = _core.columns.Columns(fields)
    rows = some(n)
    table.append(n, as_cells({"tags": rows}, fields, n))

    def check() -> None:
        assert table.read(list(range(len(rows))))[0] == rows
        for tag in ("t0", "t7"):
            wanted = [tags is not None and tag in tags for tags in rows]
            assert table.select(rz.where(f"{tag!r} in tags")._expr).mask().tolist() == wanted
        again = _core.columns.Columns.from_bytes(table.to_bytes(), len(rows))
        assert again.to_bytes() == table.to_bytes()
        assert again.read(list(range(len(rows))))[0] == rows

    def put(at: list[int], n_new: int = 0) -> None:
        tags = some(len(at))
        rows.extend([None] * n_new)
        for i, value in zip(at, tags, strict=True):
            rows[i] = value
        table.put(at, n_new, as_cells({"tags": tags}, fields, len(at)))

    for _ in range(5):
        put([int(rng.integers(n))])
    check()
    for _ in range(3000):  # more in all than stay apart
        put([int(rng.integers(n))])
    check()
    put([3, n, 1, n + 1, n + 2], n_new=4)  # new ones among them, and one without
    check()
    put(rng.permutation(n)[:4000].tolist())
    check()
    for _ in range(9000):  # of the same row
        put([17])
    check()


@pytest.mark.parametrize(
    ("mask", "error", "message"),
    [
        (np.ones(3, bool), ValueError, "expected 4, got 3"),
        (np.ones((2, 4), bool), ValueError, "one per query goes in a list"),
        (
            np.array([True, None, False, True], object),
            TypeError,
            "an array of bool, got one of object with None",
        ),
        ([True, 3, False, True], TypeError, "ids must be"),
        (pa.array([True, None, False, True]), TypeError, "fillna"),
    ],
)
def test_bad_masks(mask: Any, error: type, message: str) -> None:
    index = filled()
    with pytest.raises(error, match=message) as caught:
        index.search(vectors(2), filter=mask)
    assert isinstance(caught.value, ResiduaError)


def test_an_id_of_a_billion_has_columns_and_is_filtered() -> None:
    index = filled()
    assert index.search(vectors(1)[0], 9, filter=[10**9]).counts == 0
    with pytest.raises(ResiduaError, match="1000000000 is not in the index"):
        index.set_columns([10**9], {"year": [1]})
    index.add(vectors(1, 7), [10**9], columns={"year": [7], "lang": ["日本"]})
    assert index.search(vectors(1)[0], 1, filter="year == 7 and lang == '日本'").ids.tolist() == [10**9]
    assert index.columns([10**9])["year"].tolist() == [7]
