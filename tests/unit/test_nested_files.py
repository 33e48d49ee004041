# SPDX-License-Identifier: Apache-2.0
"""Files that hold several native objects under names (residua._core.save_nested)."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import residua as rz
from residua import _core, errors


@pytest.fixture
def parts() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((200, 32), dtype=np.float32)
    flat = rz.FlatIndex(32, metric="ip", codec=rz.RecurrentBinaryCodec(32, bits=2))
    flat.add(x)
    hnsw = rz.HNSWIndex(32, metric="ip")
    hnsw.add(x, ids=[f"d{i}" for i in range(200)])
    store = rz.TokenStore((x, np.arange(0, 201, 4)), "int8")
    return {
        "encoder": rz.FDEncoder(32, reps=2)._native,
        "index": flat._native,
        "graph": hnsw._native,
        "tokens": store._native,
        "codec": rz.RecurrentBinaryCodec(32, bits=1).fit(x)._trained(),
        "weights": x[:3],
        "numbers": np.arange(5),
        "nothing": np.empty((0, 7), np.float32),
        "settings": "κ=1",
        "k": -3,
        "rate": 0.25,
    }


@pytest.mark.parametrize("mmap", [False, True])
def test_parts_come_back(parts: dict[str, Any], mmap: bool, tmp_path: Path) -> None:
    path = tmp_path / "n.rsd"
    _core.save_nested(str(path), "a_test", parts)
    found, metric_is_free = _core.load(str(path), mmap, "quick")
    assert isinstance(found, dict)
    assert not metric_is_free
    assert found.pop("kind") == "a_test"
    assert set(found) == set(parts)
    q = np.random.default_rng(1).standard_normal((3, 32), dtype=np.float32)
    for name in ("index", "graph"):
        assert type(found[name]) is type(parts[name])
        wrapper = rz.FlatIndex if name == "index" else rz.HNSWIndex
        again, before = wrapper._from_native(found[name]), wrapper._from_native(parts[name])
        np.testing.assert_array_equal(again.search(q, 5).ids, before.search(q, 5).ids)
    ends = np.array([0, 1, 3])
    np.testing.assert_array_equal(
        found["tokens"].maxsim(q, ends, None, 1), parts["tokens"].maxsim(q, ends, None, 1)
    )
    np.testing.assert_array_equal(
        found["encoder"].encode(q, ends, True, 1), parts["encoder"].encode(q, ends, True, 1)
    )
    assert found["codec"].code_bytes == parts["codec"].code_bytes
    for name in ("weights", "numbers", "nothing"):
        assert found[name].dtype == parts[name].dtype
        np.testing.assert_array_equal(found[name], parts[name])
    assert (found["settings"], found["k"], found["rate"]) == ("κ=1", -3, 0.25)
    with pytest.raises(errors.CorruptFileError, match="'a_test', which this version does not know"):
        rz.load(path, mmap=mmap)


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"a.b": 1}, errors.InvalidValueError, "names of parts"),
        ({"": 1}, errors.InvalidValueError, "names of parts"),
        ({"x" * 17: 1}, errors.InvalidValueError, "names of parts"),
        ({"it": object()}, errors.UnsupportedError, "part 'it' cannot be saved"),
        ({"it": np.ones(2, np.complex64)}, errors.DtypeError, "<c8"),
    ],
)
def test_bad_parts_leave_the_old_file(
    changed: dict[str, Any], error: type[Exception], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "n.rsd"
    _core.save_nested(str(path), "a_test", {"k": 1})
    before = path.read_bytes()
    with pytest.raises(error, match=message):
        _core.save_nested(str(path), "a_test", changed)
    store = _core.TokenStore.of_floats("float32", 2)
    with pytest.raises(errors.InvalidValueError, match="under two names"):
        _core.save_nested(str(path), "a_test", {"a": store, "b": store})
    store.add(np.ones((1, 2), np.float32), np.array([0, 1]), 1)  # no lock is left behind
    assert path.read_bytes() == before


def test_damage_is_refused(parts: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "n.rsd"
    del parts["graph"]
    _core.save_nested(str(path), "a_test", parts)
    data = path.read_bytes()
    for at in range(0, len(data), 997):
        path.write_bytes(data[:at] + bytes([data[at] ^ 16]) + data[at + 1 :])
        with pytest.raises(errors.CorruptFileError):
            _core.load(str(path), False, "quick")
    for size in (0, 63, 640, len(data) - 64):
        path.write_bytes(data[:size])
        with pytest.raises(errors.CorruptFileError):
            _core.load(str(path), True, "quick")


@pytest.mark.parametrize(
    ("shape", "dtype"), [([2, 2], "<f4"), ([-1], "<f4"), ([2**40, 2**40], "<f4"), ([3], "<i8"), ([3], "|O")]
)
def test_arrays_that_contradict_themselves(shape: list[int], dtype: str, tmp_path: Path) -> None:
    inner = _core.store.Writer("array")
    inner.put_string("dtype", dtype)
    inner.put("shape", np.array(shape, np.int64).tobytes())
    inner.put("data", bytes(12))
    outer = _core.store.Writer("a_test")
    outer.put_string("parts", "x\n")
    outer.nest("x", inner)
    outer.write_file(str(tmp_path / "n.rsd"))
    with pytest.raises(errors.CorruptFileError):
        _core.load(str(tmp_path / "n.rsd"), False, "quick")


def test_objects_change_while_they_are_saved(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    x = rng.standard_normal((50, 16), dtype=np.float32)
    index = rz.FlatIndex(16, metric="ip")
    stores = [rz.TokenStore([x], "float16"), rz.TokenStore([x], "rb2")]
    index.add(x)

    def save(number: int) -> None:
        order = [("a", stores[0]._native), ("b", stores[1]._native), ("c", index._native)]
        _core.save_nested(str(tmp_path / f"{number}"), "a_test", dict(order[:: 1 if number else -1]))

    with ThreadPoolExecutor(2) as pool:
        for _ in range(10):
            saves = [pool.submit(save, i) for i in range(2)]
            for s in stores:
                s.add([x])
                s.remove([len(s) - 1])
                s.compact()
            index.add(x)
            for s in saves:
                s.result()
            for i in range(2):
                found, _ = _core.load(str(tmp_path / f"{i}"), False, "full")
                assert isinstance(found, dict)
                assert len(found["c"]) % 50 == 0
