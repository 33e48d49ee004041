# SPDX-License-Identifier: Apache-2.0
"""Damaged files of indexes and codecs: refused, or loaded with the content they were saved with."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mutate import mutations, truncations

import residua as rz
from residua.errors import CorruptFileError, FileError

DIM = 20
MUTATIONS = 2000


def vectors(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, DIM)).astype(np.float32)


def exact_index() -> rz.FlatIndex:
    index = rz.FlatIndex(DIM)
    index.add(vectors(60))
    index.remove([5, 7])
    return index


def recurrent_index() -> rz.FlatIndex:
    index = rz.FlatIndex(DIM, metric="l2", codec=rz.RecurrentBinaryCodec(DIM, 2))
    index.add(vectors(300), [f"doc {i}" for i in range(300)])
    index.remove(["doc 3"])
    return index


def binary_index() -> rz.FlatIndex:
    index = rz.FlatIndex(DIM, metric="ip", codec=rz.BinaryCodec(DIM), vectors="none")
    index.add(vectors(100), np.arange(100)[::-1] * 7)
    return index


def waiting_index() -> rz.FlatIndex:
    index = rz.FlatIndex(DIM, codec=rz.RecurrentBinaryCodec(DIM, 2), vectors="int8")
    index.add(vectors(30))
    return index


def scalar_index() -> rz.FlatIndex:
    index = rz.FlatIndex(DIM, codec=rz.ScalarCodec(DIM, 4), vectors="none")
    index.add(vectors(300))
    return index


def graph_index() -> rz.HNSWIndex:
    index = rz.HNSWIndex(DIM, codec=rz.ScalarCodec(DIM, 4), M=4)
    index.add(vectors(300))
    index.remove([4])
    return index


def columns_index() -> rz.FlatIndex:
    kinds = ("int", "float", "bool", "category", "tags", "str", "datetime")
    index = rz.FlatIndex(DIM, vectors="float16", columns={kind: kind for kind in kinds})
    rows = [
        {
            "int": i * 10**15,
            "float": i / 7,
            "bool": i % 3 == 0,
            "category": f"c{i % 5}",
            "tags": [f"t{j}" for j in range(i % 4)],
            "str": f"ä{i}",
            "datetime": np.datetime64("2024-01-01") + i,
        }
        if i % 8
        else {}
        for i in range(300)
    ]
    index.add(vectors(300), columns=rows)
    index.remove([5, 6])
    return index


def ivf_index() -> rz.IVFIndex:
    index = rz.IVFIndex(DIM, metric="l2", nlist=7).train(vectors(300))
    index.add(vectors(200), [f"doc {i}" for i in range(200)])
    index.remove(["doc 3", "doc 4"])
    return index


def plain_ivf_index() -> rz.IVFIndex:
    index = rz.IVFIndex(DIM, metric="ip", codec=None, nlist=5).train(vectors(300))
    index.add(vectors(80))
    return index


def waiting_ivf_index() -> rz.IVFIndex:
    index = rz.IVFIndex(DIM, codec=rz.ScalarCodec(DIM, 4).fit(vectors(300)), nlist=9)
    index.add(vectors(20))
    return index


SAVED = {
    "graph index": graph_index,
    "turbo graph": lambda: _filled(
        rz.HNSWIndex(DIM, codec=rz.RecurrentBinaryCodec(DIM, 1), layout="turbo", M=4)
    ),
    "exact graph": lambda: _filled(rz.HNSWIndex(DIM, metric="l2", codec=None, M=2)),
    "columns index": columns_index,
    "ivf index": ivf_index,
    "plain ivf index": plain_ivf_index,
    "waiting ivf index": waiting_ivf_index,
    "exact index": exact_index,
    "recurrent index": recurrent_index,
    "binary index": binary_index,
    "waiting index": waiting_index,
    "int8 index": lambda: rz.FlatIndex(DIM, codec=rz.FloatCodec(DIM, "float16"), vectors="int8"),
    "recurrent codec": lambda: rz.RecurrentBinaryCodec(DIM, 1.5).fit(vectors(300), metric="ip"),
    "binary codec": lambda: rz.BinaryCodec(DIM).fit(vectors(2), metric="l2"),
    "scalar index": scalar_index,
    "pq codec": lambda: rz.PQCodec(DIM, 3, bits=4, rotation="opq").fit(vectors(300), metric="l2"),
    "scalar codec": lambda: rz.ScalarCodec(DIM, 8).fit(vectors(300), metric="l2"),
    "table": lambda: rz.EmbeddingTable(vectors(40), rz.ScalarCodec(DIM, 4)),
    "float codec": lambda: rz.FloatCodec(DIM, "float16"),
}


def _filled(index: rz.HNSWIndex) -> rz.HNSWIndex:
    index.add(vectors(40))
    return index


@cache
def saved(kind: str, folder: Path) -> tuple[bytes, Any]:
    thing = SAVED[kind]()
    thing.save(folder / "good")
    data = (folder / "good").read_bytes()
    return data, content(rz.load(folder / "good"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("files")


def content(thing: Any) -> Any:
    """Everything that the answers of an index or codec depend on."""
    x = vectors(4, 9)
    if isinstance(thing, rz.Codec):
        return type(thing), thing.fingerprint, thing.encode(x).tobytes()
    if isinstance(thing, rz.EmbeddingTable):
        return len(thing), thing.codec.fingerprint, thing[:].tobytes()
    hits = thing.search(x, 300, rerank=None)
    ids = sorted((i for i in hits.ids[0].tolist() if i not in (-1, None)), key=str)
    codec = thing.codec.fingerprint if thing.codec is not None and thing.codec.is_trained else None
    columns = {name: repr(values.tolist()) for name, values in thing.columns(ids).items()}
    if columns:
        for text in (
            "int > 10000",
            "category == 'c1' or str is None",
            "'t1' in tags and float < 30 and not bool",
        ):
            columns[text] = thing.search(x, 300, filter=text).ids.tolist()
    return len(thing), codec, hits.ids.tolist(), hits.scores.tobytes(), thing.get(ids).tobytes(), columns


@pytest.mark.parametrize("kind", SAVED)
@pytest.mark.parametrize(("mmap", "verify"), [(False, "quick"), (True, "full")])
def test_a_damaged_file_is_never_loaded_with_changed_content(
    kind: str, mmap: bool, verify: str, folder: Path
) -> None:
    data, wanted = saved(kind, folder)
    path = folder / "damaged"
    seed = sorted(SAVED).index(kind) + 10 * mmap
    refused = 0
    for what, changed in mutations(data, MUTATIONS // 2, seed):
        path.write_bytes(changed)
        try:
            thing = rz.load(path, mmap=mmap, verify=verify)
        except CorruptFileError as error:
            assert str(path) in str(error) or "section" in str(error) or "header" in str(error), what  # noqa: PT017
            refused += 1
            continue
        assert content(thing) == wanted, what
    assert refused == MUTATIONS // 2  # every byte of a file is under a checksum, or padding that is checked


@pytest.mark.parametrize("kind", SAVED)
def test_a_quick_look_at_a_damaged_file_never_crashes(kind: str, folder: Path) -> None:
    """Content may differ then, but every answer comes, or an error of ours."""
    data, _ = saved(kind, folder)
    path = folder / "damaged"
    for what, changed in mutations(data, MUTATIONS // 4, seed=77):
        path.write_bytes(changed)
        try:
            thing = rz.load(path, mmap=True, verify="quick")
        except CorruptFileError:
            continue
        try:
            content(thing)
        except (CorruptFileError, ValueError) as error:
            assert isinstance(error, rz.errors.ResiduaError), what  # noqa: PT017


@pytest.mark.parametrize("kind", SAVED)
def test_every_cut_near_the_ends_is_found(kind: str, folder: Path) -> None:
    data, _ = saved(kind, folder)
    path = folder / "cut"
    for length, (what, changed) in enumerate(truncations(data)):
        if 1200 < length < len(data) - 300 and length % 97:
            continue
        path.write_bytes(changed)
        for mmap in (False, True):
            with pytest.raises(CorruptFileError):
                pytest.fail(f"loaded: {what}: {rz.load(path, mmap=mmap)!r}")


def test_in_another_process(folder: Path) -> None:
    """A crash would end that process: its exit code says that there was none."""
    data, _ = saved("recurrent index", folder)
    for i, (_, changed) in enumerate(mutations(data, 200, seed=5)):
        (folder / f"m{i}").write_bytes(changed)
    code = """
import sys
from pathlib import Path
import residua as rz
import numpy as np
done = 0
for path in sorted(Path(sys.argv[1]).glob("m*")):
    for mmap, verify in [(False, "quick"), (True, "full"), (True, "quick")]:
        try:
            thing = rz.load(path, mmap=mmap, verify=verify)
            thing.search(np.ones((2, 20)), 5)
        except rz.errors.ResiduaError:
            pass
        done += 1
print(done)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, "600"), done.stderr[-2000:]


@pytest.mark.parametrize("mmap", [False, True])
@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("empty", b"", "empty"),
        ("text", "id,title\n1,Überblick\n".encode(), "text"),
        ("zeros", bytes(5000), "00 00 00"),
        ("pickle", b"\x80\x04\x95" + bytes(50), "pickle"),
        ("npy", b"\x93NUMPY\x01\x00" + bytes(100), "NumPy"),
    ],
)
def test_other_files_say_what_they_are(
    name: str, data: bytes, message: str, mmap: bool, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(CorruptFileError, match=message) as caught:
        rz.load(path, mmap=mmap)
    assert name in str(caught.value)
    assert isinstance(caught.value, ValueError)


def test_paths(tmp_path: Path) -> None:
    index = exact_index()
    codec = rz.BinaryCodec(DIM)
    for thing in (index, codec):
        for path in (tmp_path / "a", str(tmp_path / "b"), os.fsencode(tmp_path / "c")):
            thing.save(path)
            assert type(rz.load(path)) is type(thing)
        for path, error in [
            (tmp_path, OSError),
            (tmp_path / "missing" / "x", OSError),
            (tmp_path / "a" / "x", OSError),
            ("", OSError),
            (None, TypeError),
            (3, TypeError),
            (tmp_path / ("x" * 300), OSError),
        ]:
            with pytest.raises(error) as caught:
                thing.save(path)
            assert isinstance(caught.value, rz.errors.ResiduaError)
    assert not (tmp_path / "missing").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b", "c"]
    for path, error, message in [
        (tmp_path, OSError, "directory"),
        (tmp_path / "missing", OSError, "missing"),
        (None, TypeError, "NoneType"),
        (3, TypeError, "int"),
    ]:
        with pytest.raises(error, match=message) as caught:
            rz.load(path)
        assert isinstance(caught.value, rz.errors.ResiduaError)
    with pytest.raises(FileError) as missing:
        rz.load(tmp_path / "missing")
    assert missing.value.errno == 2
    for options in ({"mmap": 1}, {"verify": "all"}, {"verify": True}, {"lazy": True}):
        with pytest.raises((TypeError, ValueError)):
            rz.load(tmp_path / "a", **options)


@pytest.mark.parametrize("kind", [k for k in SAVED if k.endswith("index")])
@pytest.mark.parametrize("mmap", [False, True])
def test_a_loaded_index_is_the_saved_one(kind: str, mmap: bool, tmp_path: Path) -> None:
    index = SAVED[kind]()
    index.save(tmp_path / "x")
    loaded = rz.load(tmp_path / "x", mmap=mmap)
    assert content(loaded) == content(index)
    assert (loaded.dim, loaded.metric, loaded.plan) == (index.dim, index.metric, index.plan)
    loaded.save(tmp_path / "y")
    assert (tmp_path / "y").read_bytes() == (tmp_path / "x").read_bytes()
    # Saving over the mapped file, then changing the index, touches neither the file nor the mapping.
    loaded.save(tmp_path / "x")
    assert content(loaded) == content(index)
    before = (tmp_path / "x").read_bytes()
    new = ["new"] if kind in ("recurrent index", "ivf index") else [10**9]
    for thing in (loaded, index):
        thing.add(vectors(1, 3), new)
        if len(thing) > 20:
            thing.remove(thing.search(vectors(1, 4), 1).ids[0].tolist())
            thing.compact()
    assert content(loaded) == content(index)
    assert (tmp_path / "x").read_bytes() == before


def test_a_failed_save_leaves_the_old_file(tmp_path: Path) -> None:
    index = exact_index()
    path = tmp_path / "x"
    index.save(path)
    before = path.read_bytes()
    code = f"""
import resource, signal, sys
import numpy as np, residua as rz
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
index = rz.FlatIndex(64)
index.add(np.random.default_rng(0).standard_normal((20_000, 64)))
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    index.save({str(path)!r})
except OSError as e:
    assert isinstance(e, rz.errors.FileError), e
else:
    sys.exit("no error")
assert len(index) == 20_000
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["x"]
