# SPDX-License-Identifier: Apache-2.0
"""Ids and rows: memory, errors that change nothing, and any sequence of changes against a model."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from residua._core import store
from residua.errors import DuplicateIdError, InvalidValueError, UnknownIdError


def test_consecutive_ids_cost_nothing() -> None:
    ids = store.IdMap()
    assert ids.add(100_000) == list(range(100_000))
    ids.add(list(range(100_000, 100_500)))
    assert (ids.memory_bytes, ids.is_monotone, len(ids), ids.max_id) == (0, True, 100_500, 100_499)
    assert (ids.find(0), ids.find(100_499), ids.find(100_500), ids.find(-1)) == (0, 100_499, None, None)
    ids.compact(list(range(50, 1000)))
    assert ids.memory_bytes == 0
    assert ids.find(50) == 0
    assert ids.find(49) is None
    other = store.IdMap()
    other.add([10**18, 10**18 + 1])
    assert other.add(1) == [2]
    assert other.id_of(2) == 10**18 + 2
    assert other.memory_bytes == 0


def test_ascending_ids_need_no_table() -> None:
    ids = store.IdMap()
    ids.add(list(range(0, 20_000, 2)))
    assert ids.is_monotone
    assert ids.memory_bytes <= 20_000 * 8
    assert ids.find(19_998) == 9_999
    assert ids.find(19_997) is None


def test_automatic_ids_continue_above_the_largest_ever() -> None:
    ids = store.IdMap()
    ids.add([10, 3])
    ids.erase_row(0)
    ids.add(2)
    assert [ids.id_of(r) for r in (2, 3)] == [11, 12]
    ids.compact([])
    assert ids.add(1) == [0]
    assert ids.id_of(0) == 13
    ids.add([2**63 - 1])
    ids.add([5])
    assert ids.find(2**63 - 1) == 1
    with pytest.raises(InvalidValueError, match="no automatic ids are left"):
        ids.add(1)


def test_id_errors_change_nothing() -> None:
    ids = store.IdMap()
    ids.add([5, 1])
    before = ids.to_bytes()
    for batch, error, message in [
        ([7, 8, 7], DuplicateIdError, "id 7 is given twice in this call, at positions 0 and 2"),
        ([7, 1], DuplicateIdError, "id 1 is in the index already; pass upsert=True"),
        ([7, -1], InvalidValueError, "got -1 at position 1"),
        (["a"], InvalidValueError, "has integer ids; string ids cannot be mixed in"),
    ]:
        with pytest.raises(error, match=message):
            ids.add(batch)
        assert ids.to_bytes() == before
    with pytest.raises(DuplicateIdError):
        ids.add([1, 1], upsert=True)
    assert ids.add([9, 1], upsert=True) == [2, 1]
    with pytest.raises(UnknownIdError):
        ids.erase_row(3)
    for keep in ([1, 0], [0, 0], [5]):
        with pytest.raises(InvalidValueError):
            ids.compact(keep)


def test_string_ids() -> None:
    ids = store.IdMap()
    ids.add(["b", "", "ä", "x" * 65_535])
    assert [ids.find(i) for i in ("b", "", "ä", "x" * 65_535, "a")] == [0, 1, 2, 3, None]
    assert ids.find(0) is None
    assert ids.before(1, 0)
    assert ids.before(3, 2)
    assert not ids.is_monotone
    with pytest.raises(InvalidValueError, match="at most 65535 bytes"):
        ids.add(["x" * 65_536])
    with pytest.raises(InvalidValueError, match="string ids"):
        ids.add(1)


class IdMapModel(RuleBasedStateMachine):
    """The map against a list of rows and a dict, under any sequence of changes."""

    string = False

    def __init__(self) -> None:
        super().__init__()
        self.ids = store.IdMap()
        self.rows: list[object] = []  # id of each row, None when erased
        self.largest = -1

    def key(self, n: int) -> object:
        return f"{n % 7}-{n}" if self.string else n

    def live(self) -> dict[object, int]:
        return {i: row for row, i in enumerate(self.rows) if i is not None}

    @rule(
        batch=st.lists(st.one_of(st.integers(0, 30), st.integers(0, 2**63 - 1)), max_size=8),
        upsert=st.booleans(),
    )
    def add(self, batch: list[int], upsert: bool) -> None:
        keys = [self.key(n) for n in batch]
        live = self.live()
        if len(set(keys)) < len(keys) or (not upsert and any(k in live for k in keys)):
            with pytest.raises(DuplicateIdError):
                self.ids.add(keys, upsert=upsert)
            return
        expected = []
        for k in keys:
            if k not in live:
                self.rows.append(k)
            expected.append(live.get(k, len(self.rows) - 1))
        assert self.ids.add(keys, upsert=upsert) == expected
        if not self.string:
            self.largest = max([self.largest, *batch])

    @rule(start=st.integers(0, 40), n=st.integers(1, 20))
    def add_run(self, start: int, n: int) -> None:
        self.add([*range(start, start + n)], True)

    @precondition(lambda self: not self.string and self.largest < 2**62)
    @rule(n=st.integers(0, 5))
    def add_automatic(self, n: int) -> None:
        rows = self.ids.add(n)
        assert rows == list(range(len(self.rows), len(self.rows) + n))
        self.rows += range(self.largest + 1, self.largest + 1 + n)
        self.largest += n

    @precondition(lambda self: self.live())
    @rule(data=st.data())
    def erase(self, data: st.DataObject) -> None:
        row = data.draw(st.sampled_from(sorted(self.live().values())))
        self.ids.erase_row(row)
        self.rows[row] = None

    @rule(drop=st.integers(0, 2**16))
    def compact(self, drop: int) -> None:
        keep = [row for row in self.live().values() if not drop >> (row % 16) & 1]
        self.ids.compact(keep)
        self.rows = [self.rows[row] for row in keep]

    @rule()
    def save_and_load(self) -> None:
        image = self.ids.to_bytes()
        self.ids = store.IdMap.from_bytes(image)
        assert self.ids.to_bytes() == image

    @invariant()
    def agrees(self) -> None:
        live = self.live()
        assert (self.ids.rows, len(self.ids)) == (len(self.rows), len(live))
        assert self.ids.live_rows() == list(live.values())
        for n in range(32):
            assert self.ids.find(self.key(n)) == live.get(self.key(n))
        for i, row in live.items():
            assert self.ids.find(i) == row
            assert self.ids.id_of(row) == i
        if not self.string:
            assert self.ids.max_id == self.largest
        order = sorted(live.values(), key=lambda row: str(self.rows[row]) if self.string else self.rows[row])
        assert all(self.ids.before(a, b) and not self.ids.before(b, a) for a, b in itertools.pairwise(order))
        if self.ids.is_monotone:
            assert order == sorted(order)


class StringIdMapModel(IdMapModel):
    string = True


TestIntegerIds = IdMapModel.TestCase
TestStringIds = StringIdMapModel.TestCase
TestIntegerIds.settings = TestStringIds.settings = settings(
    deadline=None, max_examples=60, stateful_step_count=25
)


def test_many_random_ids() -> None:
    rng = random.Random(0)
    values = list({rng.randrange(2**63): None for _ in range(20_000)})
    ids = store.IdMap()
    for start in range(0, len(values), 3000):
        ids.add(values[start : start + 3000])
    for row in range(0, len(values), 3):
        ids.erase_row(row)
    assert all(ids.find(v) == (None if row % 3 == 0 else row) for row, v in enumerate(values))
    loaded = store.IdMap.from_bytes(ids.to_bytes())
    assert all(loaded.find(v) == (None if row % 3 == 0 else row) for row, v in enumerate(values))
