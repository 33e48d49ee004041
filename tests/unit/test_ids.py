# SPDX-License-Identifier: Apache-2.0
"""Every way in which Python and NumPy spell ids is understood alike, everywhere that ids are given."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import residua as rz
from residua.errors import InvalidTypeError, InvalidValueError, OutOfRangeError, ResiduaError

DIM = 8
X = np.random.default_rng(0).standard_normal((50, DIM)).astype(np.float32)
INTEGERS: dict[str, Any] = {
    "objects": np.array([1, 2, 3], object),
    "objects of NumPy": np.array([np.int8(1), np.uint64(2), 3], object),
    "signed and unsigned": [np.int32(1), np.uint64(2), 3],
    "tuple": (np.int64(1), np.uint64(2), np.int16(3)),
}
STRINGS: dict[str, Any] = {"objects": np.array(["ä", "b", "c"], object), "fixed": np.array(["ä", "b", "c"])}
if hasattr(np.dtypes, "StringDType"):  # NumPy 2
    STRINGS["variable"] = np.array(["ä", "b", "c"], np.dtypes.StringDType())


def works_everywhere(ids: Any, plain: list[Any]) -> None:
    index = rz.FlatIndex(DIM, metric="ip")
    assert index.add(X[:3], ids).tolist() == plain
    np.testing.assert_array_equal(index.get(ids), X[:3])
    np.testing.assert_array_equal(index.get(ids[1:]), X[1:3])
    assert index.search(X[:4], 3, filter=ids[:2]).counts.tolist() == [2] * 4
    assert len(index.range_search(X[0], -np.inf, filter=ids[:2]).ids) == 2
    assert index.add(X[3:6], ids, upsert=True).tolist() == plain
    np.testing.assert_array_equal(index.get(plain), X[3:6])
    assert ids[0] in index
    assert index.remove(ids[:2]) == 2
    assert plain[2] in index


@pytest.mark.parametrize("form", INTEGERS)
def test_integers(form: str) -> None:
    ids = INTEGERS[form]
    works_everywhere(ids, [1, 2, 3])
    table = rz.EmbeddingTable(X, rz.FloatCodec(DIM))
    if form == "tuple":
        with pytest.raises(InvalidTypeError, match="not a tuple"):
            table[ids]
        return
    np.testing.assert_array_equal(table[ids], X[1:4])
    np.testing.assert_array_equal(table[[[ids[0], np.uint64(5)], [ids[1], -1]]], X[[[1, 5], [2, -1]]])


@pytest.mark.parametrize("form", STRINGS)
def test_strings(form: str) -> None:
    works_everywhere(STRINGS[form], ["ä", "b", "c"])


@pytest.mark.parametrize(
    ("ids", "error"),
    [
        (np.array([1, True], object), InvalidTypeError),
        ([1, True], InvalidTypeError),
        ([np.int32(1), np.True_], InvalidTypeError),
        ([True, False], InvalidTypeError),
        (np.array([True, False]), InvalidTypeError),
        (np.array([1, 2.0], object), InvalidTypeError),
        (np.array([1, "2"], object), InvalidTypeError),
        (np.array(["1", None], object), InvalidTypeError),
        ([1.0, 2.0], InvalidTypeError),
        (np.array([1, -1], object), InvalidValueError),
        (np.array([1, 2**63], object), InvalidValueError),
        ([np.int32(1), np.uint64(2**63)], InvalidValueError),
        ([np.int32(-1), np.uint64(2)], InvalidValueError),
        ([1, 10**30], InvalidValueError),
    ],
)
def test_refused(ids: Any, error: type[Exception]) -> None:
    index = rz.FlatIndex(DIM, metric="ip")
    index.add(X[:5])
    for use in (lambda: index.add(X[:2], ids), lambda: index.get(ids), lambda: index.remove(ids)):
        with pytest.raises(error, match="ids must be"):
            use()
    assert len(index) == 5


def test_a_filter_of_objects_that_are_not_ids() -> None:
    index = rz.FlatIndex(DIM, metric="ip")
    index.add(X[:2])
    for bad in (np.array([True, False], object), [1.5, 2.5], np.array([None, 1], object)):
        with pytest.raises(InvalidTypeError):
            index.search(X[:1], filter=bad)


def test_rows_of_a_table_beyond_every_integer_type() -> None:
    table = rz.EmbeddingTable(X, rz.FloatCodec(DIM))
    for far in ([2**64, 1], np.array([-(10**30)], object), [np.int8(1), np.uint64(2**63)], [50], [-51]):
        with pytest.raises(OutOfRangeError, match=r"row .* outside a table of 50 rows"):
            table[far]
    with pytest.raises(InvalidTypeError):
        table[np.array([1, 2.5], object)]


def test_range_hits_are_indexed_by_whole_numbers() -> None:
    index = rz.FlatIndex(DIM, metric="ip")
    index.add(X)
    hits = index.range_search(X[:3], 0.0)
    np.testing.assert_array_equal(hits[np.int64(-1)][0], hits[2][0])
    for bad, error in ((3, IndexError), (-4, IndexError), ("0", TypeError), (1.0, TypeError)):
        with pytest.raises(error) as caught:
            hits[bad]  # type: ignore[index]
        assert isinstance(caught.value, ResiduaError)


def test_recall_of_rows_of_unequal_length() -> None:
    with pytest.raises(rz.errors.ShapeError, match="found_ids"):
        rz.recall([[1, 2], [3]], [[1], [2]])
    with pytest.raises(rz.errors.ShapeError, match="true_ids"):
        rz.recall([[1], [2]], [[1, 2], [3]])
