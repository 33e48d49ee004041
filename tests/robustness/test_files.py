# SPDX-License-Identifier: Apache-2.0
"""A damaged or foreign file is refused with a reason; a save either happens or changes nothing."""

from __future__ import annotations

import contextlib
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from mutate import bit_flips, mutations, truncations

from residua._core import store
from residua.errors import CorruptFileError, FileError

RUNNING_AS_ROOT = hasattr(os, "geteuid") and os.geteuid() == 0


def small_file() -> bytes:
    writer = store.Writer("small")
    writer.put_int("n", 3)
    writer.put("values", b"abc")
    inner = store.Writer("inner")
    inner.put("data", bytes(range(70)))
    writer.nest("codec", inner)
    return writer.to_bytes()


def ids_file() -> bytes:
    ids = store.IdMap()
    ids.add([7, 3, 10**15, 0])
    ids.erase_row(1)
    return ids.to_bytes()


def vectors_file() -> bytes:
    vectors = store.VectorStore("int8", 9, "cosine")
    vectors.append(np.random.default_rng(0).standard_normal((11, 9), dtype=np.float32))
    return vectors.to_bytes()


def with_header(data: bytes, **fields: int) -> bytes:
    """Change header fields and make the checksum right again."""
    offsets = {"major": ("<H", 8), "minor": ("<H", 10), "n_sections": ("<I", 12), "n_bytes": ("<Q", 16)}
    header = bytearray(data[:64])
    for name, value in fields.items():
        code, at = offsets[name]
        struct.pack_into(code, header, at, value)
    struct.pack_into("<Q", header, 56, store.xxh64(bytes(header[:56])))
    return bytes(header) + data[64:]


def with_entry(
    data: bytes,
    index: int,
    *,
    offset: int | None = None,
    n_bytes: int | None = None,
    name: bytes | None = None,
) -> bytes:
    """Change a section table entry and make every checksum above it right again."""
    n_sections = struct.unpack_from("<I", data, 12)[0]
    table = bytearray(data[64 : 64 + 64 * n_sections])
    if name is not None:
        table[64 * index : 64 * index + 40] = name.ljust(40, b"\0")
    if offset is not None:
        struct.pack_into("<Q", table, 64 * index + 40, offset)
    if n_bytes is not None:
        struct.pack_into("<Q", table, 64 * index + 48, n_bytes)
    header = bytearray(data[:64])
    struct.pack_into("<Q", header, 24, store.xxh64(bytes(table)))
    return with_header(bytes(header) + bytes(table) + data[64 + len(table) :])


@pytest.mark.parametrize("damage", [bit_flips, truncations])
def test_every_bit_flip_and_truncation_is_found(damage) -> None:
    for what, data in damage(small_file()):
        try:
            store.Reader.from_bytes(data)
        except CorruptFileError:
            continue
        pytest.fail(f"not noticed: {what}")


@pytest.mark.parametrize("make", [small_file, ids_file, vectors_file])
def test_random_mutations_are_found(make) -> None:
    for what, data in mutations(make(), 2000, seed=1):
        try:
            store.Reader.from_bytes(data)
        except CorruptFileError:
            continue
        pytest.fail(f"not noticed: {what}")


def test_mapped_files_find_damage_in_a_full_check(tmp_path: Path) -> None:
    path = tmp_path / "mapped"
    writer = store.Writer("big")
    writer.put("large", bytes(200_000))
    data = writer.to_bytes()
    rng = np.random.default_rng(2)
    for byte in rng.integers(len(data), size=200):
        changed = bytearray(data)
        changed[byte] ^= 1 << int(rng.integers(8))
        path.write_bytes(bytes(changed))
        with pytest.raises(CorruptFileError):
            store.Reader.open(str(path), mmap=True, verify="full")


def test_quick_check_of_a_mapped_file_leaves_large_sections(tmp_path: Path) -> None:
    path = tmp_path / "mapped"
    writer = store.Writer("big")
    writer.put("large", bytes(65_537))
    writer.put("small", bytes(65_536))
    data = bytearray(writer.to_bytes())
    start = 64 + 3 * 64 + 64  # header, table, meta
    data[start + 1000] = 1
    path.write_bytes(bytes(data))
    reader = store.Reader.open(str(path), mmap=True)
    assert reader.section("large")[1000] == 1
    with pytest.raises(CorruptFileError, match="section 'large': checksum mismatch"):
        reader.verify("large")
    with pytest.raises(CorruptFileError, match="section 'large': checksum mismatch"):
        store.Reader.open(str(path))
    data[start + 1000] = 0
    data[-1000] = 1
    path.write_bytes(bytes(data))
    with pytest.raises(CorruptFileError, match="section 'small': checksum mismatch"):
        store.Reader.open(str(path), mmap=True)


def test_loading_random_mutations_of_contents_with_right_checksums() -> None:
    """What a checksum cannot find must still be refused or harmless: no crash, no wrong memory."""
    for make, load in [
        (ids_file, store.IdMap.from_bytes),
        (vectors_file, lambda data: store.VectorStore.from_bytes(data, 9, "cosine")),
    ]:
        reader = store.Reader.from_bytes(make())
        sections = {name: reader.section(name) for name in reader.names() if name != "meta"}
        meta = reader.section("meta")
        for _, changed in mutations(meta, 500, seed=3):
            image = rebuilt({"meta": changed, **sections})
            with contextlib.suppress(CorruptFileError):
                load(image)
        for name, content in sections.items():
            for _, changed in mutations(content, 200, seed=4):
                image = rebuilt({"meta": meta, **sections, name: changed})
                with contextlib.suppress(CorruptFileError):
                    load(image)


def rebuilt(sections: dict[str, bytes]) -> bytes:
    """A container written by hand from docs/format.md, with any bytes as its meta section."""
    table, body, at = b"", b"", 64 + 64 * len(sections)
    for name, content in sections.items():
        table += name.encode().ljust(40, b"\0") + struct.pack("<QQQ", at, len(content), store.xxh64(content))
        padded = content + bytes(-len(content) % 64)
        body += padded
        at += len(padded)
    header = (
        b"\x89RSD\r\n\x1a\n" + struct.pack("<HHIQQ", 1, 0, len(sections), at, store.xxh64(table)) + bytes(24)
    )
    return header + struct.pack("<Q", store.xxh64(header)) + table + body


def test_a_file_written_by_hand_from_the_specification_loads() -> None:
    reader = store.Reader.from_bytes(small_file())
    sections = {name: reader.section(name) for name in reader.names()}
    assert rebuilt(sections) == small_file()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda d: with_header(d, major=2), r"header: format version 2\.0 is newer than 1\.0.*upgrade"),
        (lambda d: d[:8] + b"\x02" + d[9:], r"header: format version 2\.0 is newer.*may be damaged"),
        (lambda d: with_header(d, major=0), "header: format version 0"),
        (lambda d: with_header(d, n_sections=0), "section table: 0 sections"),
        (lambda d: with_header(d, n_sections=2**32 - 1), "section table: 4294967295 sections do not fit"),
        (lambda d: with_header(d, n_bytes=2**63), "header: truncated"),
        (lambda d: with_header(d, n_bytes=64), "header: oversized"),
        (lambda d: with_entry(d, 1, offset=2**64 - 64), "section 'values': begins at byte"),
        (lambda d: with_entry(d, 1, n_bytes=2**64 - 1), "section 'values': its .* bytes reach past the end"),
        (lambda d: with_entry(d, 1, name=b""), "section table: entry 1 has no valid name"),
        (lambda d: with_entry(d, 1, name=b"a b"), "section table: entry 1 has no valid name"),
        (lambda d: with_entry(d, 1, name=b"codec.meta"), "two sections are named 'codec.meta'"),
        (lambda d: with_entry(d, 0, name=b"other"), "section 'meta': is missing"),
        (lambda d: d[:40], "header: truncated: the file has 40 bytes"),
        (lambda d: d[:3], "header: truncated: only 3 bytes"),
        (lambda d: d + b"\0", "header: oversized"),
        (
            lambda d: d.replace(b"\r\n", b"\n", 1),
            "header: the signature is damaged, as by a transfer in text mode",
        ),
    ],
)
def test_structural_damage_is_named(damage, message: str) -> None:
    with pytest.raises(CorruptFileError, match=message):
        store.Reader.from_bytes(damage(small_file()))


def test_a_newer_minor_version_loads() -> None:
    assert store.Reader.from_bytes(with_header(small_file(), minor=7)).version == (1, 7)


def test_foreign_files_say_what_they_are(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros(3))
    np.savez(tmp_path / "a.npz", x=np.zeros(3))
    with zipfile.ZipFile(tmp_path / "empty.zip", "w"):
        pass
    for name, content in {
        "a.empty": b"",
        "a.txt": "recall, überall\n".encode(),
        "a.json": b'{"dim": 4}',
        "a.lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 12\n",
        "a.pkl": pickle.dumps({"a": 1}),
        "a.faiss": b"IxF2" + struct.pack("<iq", 128, 1000),
        "a.gz": b"\x1f\x8b\x08\0",
        "a.parquet": b"PAR1\x15\x04",
        "a.bin": bytes(range(200, 255)),
    }.items():
        (tmp_path / name).write_bytes(content)
    for name, message in {
        "a.npy": "NumPy .npy",
        "a.npz": "ZIP archive",
        "empty.zip": "empty ZIP",
        "a.empty": "the file is empty",
        "a.txt": "a text file",
        "a.json": "a text file",
        "a.lfs": "Git LFS pointer",
        "a.pkl": "pickle",
        "a.faiss": "FAISS",
        "a.gz": "gzip",
        "a.parquet": "Parquet",
        "a.bin": "begins with c8 c9 ca",
    }.items():
        for mmap in (False, True):
            with pytest.raises(CorruptFileError, match=message) as caught:
                store.Reader.open(str(tmp_path / name), mmap=mmap)
            assert name in str(caught.value)


def test_a_faiss_index_is_recognised(tmp_path: Path) -> None:
    faiss = pytest.importorskip("faiss")
    for spec in ["Flat", "IVF2,Flat", "PQ2x4", "HNSW8", "SQ8"]:
        index = faiss.index_factory(8, spec)
        index.train(np.random.default_rng(0).standard_normal((64, 8)).astype("f4"))
        faiss.write_index(index, str(tmp_path / "x.faiss"))
        with pytest.raises(CorruptFileError, match="FAISS"):
            store.Reader.open(str(tmp_path / "x.faiss"))


@pytest.mark.parametrize("mmap", [False, True])
def test_unreadable_paths(tmp_path: Path, mmap: bool) -> None:
    with pytest.raises(FileError) as caught:
        store.Reader.open(str(tmp_path / "missing"), mmap=mmap)
    assert caught.value.errno == 2
    with pytest.raises(FileError, match="directory"):
        store.Reader.open(str(tmp_path), mmap=mmap)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FileError, match="not a regular file"):
        store.Reader.open(str(tmp_path / "pipe"), mmap=mmap)
    with pytest.raises(ValueError, match="null byte"):
        store.Reader.open("a\0b", mmap=mmap)


def writer_of(content: bytes) -> store.Writer:
    writer = store.Writer("w")
    writer.put("content", content)
    return writer


def test_save_replaces_in_one_step(tmp_path: Path) -> None:
    path = tmp_path / "x"
    writer_of(b"old").write_file(str(path))
    path.chmod(0o640)
    link = tmp_path / "link"
    link.symlink_to(path)
    opened = store.Reader.open(str(path), mmap=True)
    writer_of(b"new").write_file(str(link))
    assert link.is_symlink()
    assert store.Reader.open(str(path)).section("content") == b"new"
    assert opened.section("content") == b"old"
    assert path.stat().st_mode & 0o777 == 0o640
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link", "x"]


def test_save_refusals_leave_nothing(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for target, errno in [("folder", 21), ("folder/", 21), ("none/x", 2), ("x" * 300, 36)]:
        with pytest.raises(FileError) as caught:
            writer_of(b"x").write_file(f"{tmp_path}/{target}")
        assert caught.value.errno == errno
    with pytest.raises(FileError, match="path is empty"):
        writer_of(b"x").write_file("")
    with pytest.raises(ValueError, match="null byte"):
        writer_of(b"x").write_file("a\0b")
    with pytest.raises(FileError, match="not a regular file"):
        writer_of(b"x").write_file("/dev/null")
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


@pytest.mark.skipif(RUNNING_AS_ROOT, reason="root may write anywhere")
def test_save_without_permission(tmp_path: Path) -> None:
    folder = tmp_path / "locked"
    folder.mkdir()
    folder.chmod(0o500)
    with pytest.raises(FileError) as caught:
        writer_of(b"x").write_file(str(folder / "x"))
    assert caught.value.errno == 13


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    """A limit on the file size stands in for the full disk: the same path through write()."""
    path = tmp_path / "x"
    writer_of(b"old").write_file(str(path))
    code = f"""
import resource
from residua._core import store
from residua.errors import FileError
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
writer = store.Writer("w")
writer.put("content", bytes(1_000_000))
try:
    writer.write_file({str(path)!r})
except FileError as error:
    assert error.errno == 27, error
else:
    raise SystemExit("no error")
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    assert store.Reader.open(str(path)).section("content") == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["x"]
