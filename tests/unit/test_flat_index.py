# SPDX-License-Identifier: Apache-2.0
"""FlatIndex: ids, vectors, searches and what is left after an error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import residua as rz
from residua.errors import DuplicateIdError, InvalidValueError, ResiduaError, UnknownIdError

METRICS = ("cosine", "ip", "l2")
DIM = 24


def vectors(n: int, seed: int = 0, dim: int = DIM) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)


def filled(n: int = 300, codec: str = "none", ids: Any = None, **options: Any) -> rz.FlatIndex:
    chosen = {
        "none": lambda: None,
        "float16": lambda: rz.FloatCodec(DIM, "float16"),
        "binary": lambda: rz.BinaryCodec(DIM),
        "recurrent": lambda: rz.RecurrentBinaryCodec(DIM, 2),
    }[codec]()
    index = rz.FlatIndex(DIM, codec=chosen, **options)
    index.add(vectors(n), ids)
    return index


def answers(index: rz.FlatIndex) -> tuple[Any, ...]:
    """All that a failed call could have changed."""
    hits = index.search(vectors(7, 99), 12)
    return (
        len(index),
        index.memory(),
        repr(index),
        hits.ids.tolist(),
        hits.scores.tolist(),
        hits.counts.tolist(),
    )


class TestIds:
    def test_automatic_ids_continue(self) -> None:
        index = rz.FlatIndex(DIM)
        ids = index.add(vectors(3))
        assert ids.dtype == np.int64
        assert ids.tolist() == [0, 1, 2]
        assert index.add(vectors(2), [100, 50]).tolist() == [100, 50]
        assert index.add(vectors(2)).tolist() == [101, 102]
        index.remove([102])
        assert index.add(vectors(1)).tolist() in ([102], [103])
        assert len(index) == 7

    def test_automatic_ids_after_load_and_compact(self, tmp_path: Any) -> None:
        index = filled(5)
        index.remove([1])
        index.compact()
        assert index.add(vectors(1)).tolist() == [5]
        index.save(tmp_path / "x")
        assert rz.load(tmp_path / "x").add(vectors(1)).tolist() == [6]

    @pytest.mark.parametrize(
        "ids",
        [
            [7, 3, 2**63 - 1, 0],
            np.array([7, 3, 5, 0], np.int8),
            np.array([7, 3, 2**63 - 1, 0], np.uint64),
            (7, 3, 5, 0),
            range(4),
            np.array([7, 9, 3, 9, 5, 9, 0])[::2],
            iter([7, 3, 5, 0]),
        ],
        ids=["list", "int8", "uint64", "tuple", "range", "strided", "iterator"],
    )
    def test_integers(self, ids: Any) -> None:
        wanted = [7, 3, 5, 0] if not hasattr(ids, "__len__") else [int(i) for i in ids]
        index = rz.FlatIndex(DIM)
        added = index.add(vectors(4), ids)
        assert added.tolist() == wanted
        assert all(i in index for i in wanted)
        assert 1234 not in index
        np.testing.assert_array_equal(index.get(wanted[::-1]), vectors(4)[::-1])
        hits = index.search(vectors(4), 1, filter=None)
        assert hits.ids[:, 0].tolist() == wanted

    @pytest.mark.parametrize(
        "ids",
        [
            ["b", "a", "", "ü ∂ \U0001f600"],
            np.array(["b", "a", "long name", "c"]),
            np.array(["b", "a", "long name", "c"], object),
            ("1", "01", " 1", "0"),
        ],
        ids=str,
    )
    def test_strings(self, ids: Any) -> None:
        index = rz.FlatIndex(DIM)
        added = index.add(vectors(4), ids)
        assert added.dtype == object
        assert added.tolist() == list(ids)
        assert all(type(i) is str for i in added)
        assert "nothing" not in index
        assert list(ids)[2] in index
        np.testing.assert_array_equal(index.get(list(ids)[:2]), vectors(4)[:2])
        hits = index.search(vectors(4), 6)
        assert hits.ids.dtype == object
        assert hits.ids[:, 0].tolist() == list(ids)
        assert all(type(i) is str for i in hits.ids[:, 0])
        assert (hits.ids[:, 4:] == None).all()  # noqa: E711
        assert index.remove([next(iter(ids))]) == 1
        assert len(index) == 3

    @pytest.mark.parametrize(
        ("ids", "error", "message"),
        [
            ([1, 2, 1, 4], ValueError, "1"),
            ([1, 2, -1, 4], ValueError, "-1"),
            ([1, 2, 2**63, 4], ValueError, "2\\*\\*63"),
            ([1, 2, 2**70, 4], ValueError, "2\\*\\*63"),
            ([1, 2, -(2**70), 4], ValueError, "2\\*\\*63"),
            ([-1, 2, 2**63, 4], ValueError, "got -1"),
            (np.array([1, 2, 2**63, 4], np.uint64), ValueError, str(2**63)),
            ([1.0, 2.0, 3.0, 4.0], TypeError, "float64"),
            ([1, 2, 3, "4"], TypeError, "mixed"),
            (["1", 2, 3, 4], TypeError, "mixed"),
            (np.array([1, "2", 3, 4], object), TypeError, "mixed"),
            ([None, 1, 2, 3], TypeError, "mixed"),
            ([b"a", b"b", b"c", b"d"], TypeError, "S1"),
            ([True, False, True, False], TypeError, "bool"),
            ("abcd", TypeError, "'abcd'"),
            (5, (TypeError, ValueError), "ids"),
            ([1, 2, 3], ValueError, "3 given for 4"),
            ([1, 2, 3, 4, 5], ValueError, "5 given for 4"),
            ([], ValueError, "0 given for 4"),
            ([[1, 2, 3, 4]], ValueError, r"\(1, 4\)"),
            (np.array([["a", "b", "c", "d"]]), ValueError, r"\(1, 4\)"),
            (np.array([["a"], ["b"], ["c"], ["d"]]), ValueError, r"\(4, 1\)"),
            (np.array([["a"], ["b"], ["c"], ["d"]], object), ValueError, r"\(4, 1\)"),
            ([[1], [2, 3], [4], [5]], (TypeError, ValueError), "ids"),
            (["a", "b", "\ud800", "d"], ValueError, "ids|UTF-8|surrogate"),
        ],
        ids=str,
    )
    def test_refused(self, ids: Any, error: Any, message: str) -> None:
        index = rz.FlatIndex(DIM)
        with pytest.raises(error, match=message) as caught:
            index.add(vectors(4), ids)
        assert isinstance(caught.value, ResiduaError)
        assert len(index) == 0
        assert index.add(vectors(1), ["still free"]).tolist() == ["still free"]

    def test_integers_and_strings_are_never_mixed(self) -> None:
        numbers, names = filled(20), filled(20, ids=[f"n{i}" for i in range(20)])
        for index, ids in [(numbers, ["a"]), (names, [77]), (names, None)]:
            before = answers(index)
            with pytest.raises((TypeError, ValueError)) as caught:
                index.add(vectors(1), ids)
            assert isinstance(caught.value, ResiduaError)
            assert answers(index) == before
        assert "a" not in numbers
        assert 7 not in names
        for thing in (None, 1.0, True, [1], object(), b"n1", -1, 2**70):
            assert thing not in numbers
            assert thing not in names
        assert np.int64(3) in numbers
        assert np.str_("n3") in names

    def test_kinds_of_ids_that_the_index_does_not_have(self) -> None:
        index = filled(20)
        for call in (lambda: index.get(["a"]), lambda: index.remove(["a"])):
            with pytest.raises((KeyError, TypeError), match="a"):
                call()

    @pytest.mark.parametrize("codec", ["none", "recurrent"])
    def test_duplicates(self, codec: str) -> None:
        index = filled(codec=codec)
        before = answers(index)
        for ids, named in [([500, 501, 500], "500"), ([500, 299, 501], "299"), ([0, 500, 501], "0")]:
            with pytest.raises(DuplicateIdError, match=named) as caught:
                index.add(vectors(3, 5), ids)
            assert isinstance(caught.value, ValueError)
        with pytest.raises(DuplicateIdError, match="500"):
            index.add(vectors(2, 5), [500, 500], upsert=True)
        assert answers(index) == before

    @pytest.mark.parametrize(
        ("codec", "mode"),
        [
            (c, m)
            for c in ("none", "binary", "recurrent")
            for m in ("auto", "none")
            if (c, m) != ("none", "none")
        ],
    )
    def test_upsert_replaces_in_place(self, codec: str, mode: str) -> None:
        index = filled(codec=codec, vectors=mode)
        new = vectors(4, 6)
        assert index.add(new, [3, 1000, 299, 0], upsert=True).tolist() == [3, 1000, 299, 0]
        assert len(index) == 301
        same = filled(codec=codec, vectors=mode)
        rows = vectors(300)
        rows[[3, 299, 0]] = new[[0, 2, 3]]
        wanted = rz.FlatIndex(DIM, codec=same.codec, vectors=mode)
        wanted.add(rows)
        wanted.add(new[1:2], [1000])
        assert answers(index)[3:] == answers(wanted)[3:]
        np.testing.assert_array_equal(index.get([0, 3, 1000, 7]), wanted.get([0, 3, 1000, 7]))
        # A mask counts rows in order of insertion: replaced rows keep their places, the new one is last.
        mask = np.zeros(301, bool)
        mask[[0, 300]] = True
        assert sorted(index.search(new[:1], 5, filter=mask).ids[0].tolist()) == [-1, -1, -1, 0, 1000]

    def test_upsert_needs_ids(self) -> None:
        with pytest.raises(ValueError, match="ids"):
            rz.FlatIndex(DIM).add(vectors(2), upsert=True)

    def test_remove(self) -> None:
        index = filled(50)
        assert index.remove([3, 9, 3]) == 2
        assert len(index) == 48
        assert 3 not in index
        before = answers(index)
        for ids, named in [([4, 3], "3"), ([4, 777], "777")]:
            with pytest.raises(UnknownIdError, match=f"id {named} ") as caught:
                index.remove(ids)
            assert isinstance(caught.value, KeyError)
        assert answers(index) == before
        assert index.remove([4, 3, 777], missing="ignore") == 1
        assert index.remove(np.array([], np.int64)) == 0
        assert index.remove([]) == 0
        assert index.remove({5, 6}) == 2
        with pytest.raises(ValueError, match="'skip'"):
            index.remove([7], missing="skip")
        found = index.search(vectors(50), 50)
        assert (found.counts == 45).all()
        assert not {3, 4, 5, 6, 9} & set(found.ids.ravel().tolist())

    def test_a_removed_id_can_come_back(self) -> None:
        for codec in ("none", "recurrent"):
            index = filled(codec=codec)
            index.remove([8])
            new = vectors(1, 7)
            index.add(new, [8])
            assert index.search(new[0], 1).ids.tolist() == [8]
            assert len(index) == 300

    def test_get_unknown(self) -> None:
        index = filled(10)
        with pytest.raises(UnknownIdError, match="id 10 "):
            index.get([1, 10, 11])
        with pytest.raises(KeyError):
            index.columns([10])
        assert index.columns([1, 2]) == {}
        assert index.get([]).shape == (0, DIM)


class TestCompact:
    @pytest.mark.parametrize("codec", ["none", "float16", "binary", "recurrent"])
    @pytest.mark.parametrize("mode", ["auto", "float32", "int8", "disk"])
    def test_gives_memory_back_and_changes_no_answer(self, codec: str, mode: str) -> None:
        index = filled(700, codec, vectors=mode)
        gone = np.random.default_rng(1).permutation(700)[:600]
        index.remove(gone)
        before, size = answers(index), sum(index.memory().values())
        index.compact()
        after = answers(index)
        assert after[0] == before[0] == 100
        assert after[3:] == before[3:]
        codec_bytes = index.memory()["codec"]
        assert sum(index.memory().values()) - codec_bytes < (size - codec_bytes) / 3
        index.compact()
        assert answers(index) == after
        index.add(vectors(3, 8))
        assert len(index) == 103

    def test_an_emptied_index(self) -> None:
        for codec in ("none", "recurrent"):
            index = filled(codec=codec)
            index.remove(np.arange(300))
            for _ in range(2):
                assert len(index) == 0
                assert (index.search(vectors(2), 3).counts == 0).all()
                index.compact()
            assert index.add(vectors(2)).tolist() == [300, 301]


STATE_ERRORS: dict[str, Callable[[rz.FlatIndex], Any]] = {
    "NaN": lambda i: i.add(np.concatenate([vectors(3), np.full((1, DIM), np.nan, "f4")])),
    "inf in a query": lambda i: i.search(np.full(DIM, np.inf)),
    "zero row": lambda i: i.add(np.concatenate([vectors(3), np.zeros((1, DIM), "f4")])),
    "zero query": lambda i: i.search(np.zeros(DIM)),
    "wrong dim": lambda i: i.add(vectors(3, dim=DIM + 1)),
    "wrong dim of a query": lambda i: i.search(vectors(3, dim=DIM - 1)),
    "int": lambda i: i.add(np.ones((3, DIM), int)),
    "duplicate": lambda i: i.add(vectors(3), [1000, 1001, 5]),
    "duplicate in the call": lambda i: i.add(vectors(2), [1000, 1000], upsert=True),
    "too few ids": lambda i: i.add(vectors(3), [1000, 1001]),
    "string ids": lambda i: i.add(vectors(1), ["a"]),
    "upsert with NaN": lambda i: i.add(np.full((2, DIM), np.nan, "f4"), [1, 2], upsert=True),
    "threads": lambda i: i.add(vectors(3), num_threads=0),
    "upsert of a wrong type": lambda i: i.add(vectors(1), [3], upsert=1),
    "progress of a wrong type": lambda i: i.add(vectors(1), progress="yes"),
    "columns": lambda i: i.add(vectors(1), columns={"a": [1]}),
    "unknown keyword": lambda i: i.add(vectors(1), overwrite=True),
    "remove": lambda i: i.remove([0, 1, 12345]),
    "get": lambda i: i.get([0, 1, 12345]),
    "k = 0": lambda i: i.search(vectors(1), 0),
    "mask": lambda i: i.search(vectors(1), filter=np.ones(3, bool)),
    "save": lambda i: i.save("/nonexistent folder/x"),
    "codes": lambda i: i.search_codes(np.zeros((1, 1000), np.uint8)),
}


@pytest.mark.parametrize("what", STATE_ERRORS)
@pytest.mark.parametrize("codec", ["none", "recurrent", "untrained"])
def test_an_error_changes_nothing(what: str, codec: str) -> None:
    if codec == "untrained":
        index = rz.FlatIndex(DIM, codec=rz.RecurrentBinaryCodec(DIM, 2))
        index.add(vectors(255))
    else:
        index = filled(codec=codec)
    index.remove([17])
    before = answers(index)
    with pytest.raises((ResiduaError, TypeError)):
        STATE_ERRORS[what](index)
    assert answers(index) == before
    assert index.add(vectors(1)).tolist() == [255 if codec == "untrained" else 300]


def test_float16_that_does_not_fit_changes_nothing() -> None:
    index = filled(300, "recurrent", metric="l2", vectors="float16")
    before = answers(index)
    big = vectors(3)
    big[1, 2] = 70_000
    with pytest.raises(InvalidValueError, match=r"row 1 .*65504.*float32"):
        index.add(big)
    with pytest.raises(InvalidValueError, match="row 1 "):
        index.add(big, [1, 2, 3], upsert=True)
    assert answers(index) == before


def test_empty_index() -> None:
    for codec in (None, rz.BinaryCodec(DIM), rz.RecurrentBinaryCodec(DIM, 1)):
        for metric in METRICS:
            if codec is not None:
                codec = (
                    type(codec)(DIM) if isinstance(codec, rz.BinaryCodec) else rz.RecurrentBinaryCodec(DIM, 1)
                )
            index = rz.FlatIndex(DIM, metric=metric, codec=codec)
            hits = index.search(vectors(3), 4)
            assert hits.ids.tolist() == [[-1] * 4] * 3
            assert (hits.scores == (np.inf if metric == "l2" else -np.inf)).all()
            assert hits.counts.tolist() == [0, 0, 0]
            assert index.search(vectors(1)[0], 4).counts == 0
            assert len(index.range_search(vectors(2), 0.0).ids) == 0
            assert index.add(vectors(0)).shape == (0,)
            assert index.add(vectors(0)).dtype == np.int64
            assert index.get([]).shape == (0, DIM)
            assert len(index) == 0
            assert index.search(vectors(0), 4).ids.shape == (0, 4)
            index.compact()


def test_looks() -> None:
    index = filled(3000, "recurrent")
    text = repr(index)
    for part in ("FlatIndex", "3_000", f"dim={DIM}", "cosine", "RecurrentBinaryCodec"):
        assert part in text
    assert "codes" in index.plan
    assert "exact" in filled(3).plan
    assert "fitted" in rz.FlatIndex(DIM, codec=rz.RecurrentBinaryCodec(DIM, 1)).plan
    assert index.dim == DIM
    assert index.metric == "cosine"
    assert isinstance(index.codec, rz.RecurrentBinaryCodec)
    assert filled(3).codec is None


@pytest.mark.parametrize(
    ("codec", "mode"),
    [
        (c, m)
        for c in ("none", "float16", "binary", "recurrent")
        for m in ("auto", "float32", "float16", "int8", "disk", "none")
        if (c, m) != ("none", "none")
    ],
)
def test_memory_is_the_index(codec: str, mode: str, tmp_path: Any) -> None:
    index = filled(5000, codec, vectors=mode)
    memory = index.memory()
    assert all(type(k) is str and type(v) is int and v >= 0 for k, v in memory.items())
    assert not any("total" in k for k in memory)
    kept = {"float32": 4, "float16": 2, "int8": 1, "none": 0, "disk": 4, "auto": 4 if codec == "none" else 2}
    code_bytes = 0 if codec == "none" else index.codec.code_bytes
    least = 5000 * (DIM * kept[mode] + code_bytes)
    size = sum(memory.values()) - memory["codec"]
    assert least <= size < 1.6 * least + 5000 * 40
    index.compact()
    index.save(tmp_path / "x")
    assert (tmp_path / "x").stat().st_size < 1.1 * sum(index.memory().values()) + 10_000
