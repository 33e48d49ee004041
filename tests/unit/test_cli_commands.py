# SPDX-License-Identifier: Apache-2.0
"""encode, build, search: what they write equals what the library computes, and what they refuse."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner, Result

import residua as rz
from residua import _io
from residua.cli import app

Run = Callable[..., Result]
Matrix = np.ndarray[Any, Any]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def invoke(*arguments: object) -> Result:
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    return invoke


@pytest.fixture(scope="module")
def vectors() -> Matrix:
    return np.asarray(rz.datasets.load_sample().documents[:1500], dtype=np.float32)


@pytest.fixture(scope="module")
def queries() -> Matrix:
    return np.asarray(rz.datasets.load_sample().queries[:40], dtype=np.float32)


def succeed(result: Result) -> str:
    assert result.exit_code == 0, result.output
    assert not result.stderr.strip() or result.stderr.startswith("note: ")
    return result.stdout


def fail(result: Result, code: int, *words: str) -> None:
    assert result.exit_code == code, result.output
    assert isinstance(result.exception, SystemExit)
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("residua")
    for word in words:
        assert word in lines[0]


def test_encode_equals_the_library(run: Run, vectors: Matrix) -> None:
    np.save("x.npy", vectors)
    printed = succeed(run("encode", "x.npy", "codes.npy", "--bits", 2, "--save-codec", "c.rsd"))
    expected = rz.RecurrentBinaryCodec(384, bits=2).fit(vectors)
    codec = rz.load("c.rsd")
    assert isinstance(codec, rz.Codec)
    assert codec.fingerprint == expected.fingerprint
    codes = np.load("codes.npy")
    np.testing.assert_array_equal(codes, expected.encode(vectors))
    assert "102 bytes/vector" in printed
    assert "vectors/s" in printed
    # The codec of a file, other output formats, another input format: the same codes.
    with h5py.File("x.h5", "w") as file:
        file["train"], file["test"] = vectors, vectors[:3]
    for output in ("codes.u8bin", "codes.bvecs"):
        succeed(run("encode", "x.h5", output, "--codec-file", "c.rsd"))
        np.testing.assert_array_equal(_io.open_vectors(output).read(), codes)


def test_chunks_do_not_show(run: Run, vectors: Matrix, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save("x.npy", vectors[:300])
    succeed(run("encode", "x.npy", "whole.npy"))
    monkeypatch.setattr(_io.vector_file, "_CHUNK_BYTES", 7 * 4 * 384)
    succeed(run("encode", "x.npy", "parts.npy"))
    assert Path("whole.npy").read_bytes() == Path("parts.npy").read_bytes()


def test_a_sample_is_seeded(run: Run, vectors: Matrix) -> None:
    np.save("x.npy", vectors)
    codes = []
    for name, seed in (("a.npy", 1), ("b.npy", 1), ("c.npy", 2)):
        succeed(run("encode", "x.npy", name, "--sample", 500, "--seed", seed))
        codes.append(np.load(name))
    np.testing.assert_array_equal(codes[0], codes[1])
    assert (codes[0] != codes[2]).any()
    rows = _io.sample_rows(1500, 500, 1)
    expected = rz.RecurrentBinaryCodec(384, bits=2, seed=1).fit(vectors[rows])
    np.testing.assert_array_equal(codes[0], expected.encode(vectors))


@pytest.mark.parametrize(
    ("codec", "bits", "code_bytes"),
    [
        ("binary", None, 48),
        ("binary", 1, 48),
        ("scalar", None, 392),
        ("scalar", 4, 200),
        ("float", None, 1536),
        ("float", 16, 768),
        ("recurrent", 0.5, 30),
    ],
)
def test_every_codec_encodes(
    run: Run, vectors: Matrix, codec: str, bits: float | None, code_bytes: int
) -> None:
    np.save("x.npy", vectors[:100])
    options = [] if bits is None else ["--bits", bits]
    succeed(run("encode", "x.npy", "codes.npy", "--codec", codec, *options))
    assert np.load("codes.npy").shape == (100, code_bytes)


@pytest.mark.parametrize("metric", ["cosine", "ip", "l2"])
def test_queries_and_metric_reach_the_fit(run: Run, vectors: Matrix, queries: Matrix, metric: str) -> None:
    np.save("x.npy", vectors)
    np.save("q.npy", queries)
    options = ("--metric", metric, "--queries", "q.npy", "--save-codec", "c.rsd")
    succeed(run("encode", "x.npy", "codes.npy", *options))
    expected = rz.RecurrentBinaryCodec(384, bits=2)
    expected.fit(vectors, queries=queries, metric=metric)  # type: ignore[arg-type]
    codec = rz.load("c.rsd")
    assert isinstance(codec, rz.Codec)
    assert codec.fingerprint == expected.fingerprint


def test_build_and_search_equal_the_library(run: Run, vectors: Matrix, queries: Matrix) -> None:
    np.save("x.npy", vectors.astype(np.float16))
    x = vectors.astype(np.float16).astype(np.float32)
    np.save("q.npy", queries)
    truth = rz.exact_search(queries, x).ids
    _io_ivecs(Path("gt.ivecs"), truth)
    printed = succeed(run("build", "x.npy", "i.rsd", "--bits", 1))
    assert "1_500" in printed
    index = rz.FlatIndex(384, codec=rz.RecurrentBinaryCodec(384, bits=1).fit(x))
    index.add(x)
    for options, library in (
        ([], {}),
        (["--rerank", 0], {"rerank": 0}),
        (["--rerank", 20, "--mmap"], {"rerank": 20}),
        (["--scoring", "symmetric", "--rerank", 0], {"scoring": "symmetric", "rerank": 0}),
    ):
        command = ("search", "i.rsd", "q.npy", "-k", 7, "--out", "hits.npz", "--truth", "gt.ivecs")
        printed = succeed(run(*command, *options))
        hits = index.search(queries, 7, **library)  # type: ignore[arg-type]
        with np.load("hits.npz") as found:
            np.testing.assert_array_equal(found["ids"], hits.ids)
            np.testing.assert_array_equal(found["scores"], hits.scores)
        assert f"recall@7 {rz.recall(hits.ids, truth[:, :7]):.4f}" in printed
        assert "queries/s" in printed


def _io_ivecs(path: Path, ids: Matrix) -> None:
    path.write_bytes(b"".join(struct.pack("<i", len(row)) + row.astype("<i4").tobytes() for row in ids))


@pytest.mark.parametrize("out", ["h.npz", "h.npy", "h.ivecs", "h.ibin", "h.json"])
def test_outputs_of_search(run: Run, vectors: Matrix, queries: Matrix, out: str) -> None:
    np.save("x.npy", vectors[:5])  # fewer than k
    np.save("q.npy", queries[:2])
    succeed(run("build", "x.npy", "i.rsd", "--codec", "none"))
    succeed(run("search", "i.rsd", "q.npy", "-k", 6, "--out", out))
    hits = rz.exact_search(queries[:2], vectors[:5], 6)
    if out.endswith(".json"):
        rows = json.loads(Path(out).read_text())
        assert [row["ids"] for row in rows] == hits.ids[:, :5].tolist()
        np.testing.assert_allclose([row["scores"] for row in rows], hits.scores[:, :5])
    elif out.endswith(".npz"):
        with np.load(out) as found:
            np.testing.assert_allclose(found["scores"], hits.scores, rtol=1e-5)
            np.testing.assert_array_equal(found["ids"], hits.ids)
    else:
        np.testing.assert_array_equal(_io.open_vectors(out).read(), hits.ids)


def test_without_a_file_results_are_shown(run: Run, vectors: Matrix, queries: Matrix) -> None:
    np.save("x.npy", vectors)
    np.save("q.npy", queries)
    succeed(run("build", "x.npy", "i.rsd", "--codec", "none"))
    printed = succeed(run("search", "i.rsd", "q.npy", "-k", 1))
    best = rz.exact_search(queries, vectors, 1).ids[:, 0]
    for query in range(5):
        assert f"{query}  {best[query]}: " in printed
    assert "35 more queries" in printed
    fail(run("search", "i.rsd", "q.npy", "--rerank", 5), 1, "rerank=5", "exactly")
    assert succeed(run("search", "i.rsd", "q.npy", "-k", 1, "--rerank", 0)).count("\n") > 5


def test_text_ids(run: Run, vectors: Matrix, queries: Matrix) -> None:
    names = [f"[bold]doi/{i}" for i in range(100)]
    table = {"embedding": list(vectors[:100]), "doi": names}
    pq.write_table(pa.table(table), "x.parquet")
    np.save("q.npy", queries[:3])
    succeed(run("build", "x.parquet", "i.rsd", "--ids", "x.parquet::doi", "--codec", "binary"))
    expected = [[names[i] for i in row] for row in rz.exact_search(queries[:3], vectors[:100], 4).ids]
    succeed(run("search", "i.rsd", "q.npy", "-k", 4, "--out", "h.json", "--rerank", 100))
    assert [row["ids"] for row in json.loads(Path("h.json").read_text())] == expected
    succeed(run("search", "i.rsd", "q.npy", "-k", 4, "--out", "h.npy", "--rerank", 100))
    assert np.load("h.npy", allow_pickle=False).tolist() == expected
    printed = succeed(run("search", "i.rsd", "q.npy", "-k", 1, "--rerank", 100))
    assert expected[0][0] in printed  # ids are text, not markup
    fail(run("search", "i.rsd", "q.npy", "--out", "h.ivecs"), 1, "h.ivecs", "text")
    _io_ivecs(Path("gt.ivecs"), np.zeros((3, 4), "i4"))
    fail(run("search", "i.rsd", "q.npy", "--truth", "gt.ivecs"), 1, "gt.ivecs", "text")


def test_given_ids(run: Run, vectors: Matrix) -> None:
    np.save("x.npy", vectors[:50])
    ids = np.arange(50) * 7 + 3
    np.save("ids.npy", ids)
    succeed(run("build", "x.npy", "i.rsd", "--ids", "ids.npy", "--vectors", "float16"))
    index = rz.load("i.rsd")
    assert isinstance(index, rz.FlatIndex)
    assert 353 not in index
    np.testing.assert_allclose(index.get([3, 346]), vectors[[0, 49]], atol=1e-3)
    np.save("ids.npy", np.append(ids[:-1], 3))
    fail(run("build", "x.npy", "j.rsd", "--ids", "ids.npy"), 1, "3")
    assert not Path("j.rsd").exists()


def test_ann_benchmarks_files_need_no_names(run: Run, vectors: Matrix, queries: Matrix) -> None:
    with h5py.File("a.hdf5", "w") as file:
        file["train"], file["test"] = vectors, queries
        file["near"] = rz.exact_search(queries, vectors, 20).ids.astype("i4")
        file["distances"] = np.zeros((len(queries), 20), "f4")
    succeed(run("build", "a.hdf5", "i.rsd", "--codec", "none"))
    assert "recall@10 1.0000" in succeed(run("search", "i.rsd", "a.hdf5", "--truth", "a.hdf5"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["encode"], ["Missing argument", "residua encode --help"]),
        (["encode", "x.npy"], ["Missing argument"]),
        (["encode", "x.npy", "o.npy", "--codec", "zip"], ["zip", "recurrent, binary"]),
        (["encode", "x.npy", "o.npy", "--metric", "dot"], ["dot", "cosine, ip, l2"]),
        (["encode", "x.npy", "o.npy", "--bits", "9"], ["0.5 to 8", "9"]),
        (["encode", "x.npy", "o.npy", "--bits", "many"], ["--bits", "number"]),
        (["encode", "x.npy", "o.npy", "--bits", "nan"], ["nan"]),
        (["encode", "x.npy", "o.npy", "--codec", "binary", "--bits", "2"], ["--bits 1"]),
        (["encode", "x.npy", "o.npy", "--codec", "float", "--bits", "8"], ["16 or 32"]),
        (["encode", "x.npy", "o.npy", "--codec", "scalar", "--bits", "2"], ["scalar", "8 or 4", "2"]),
        (["encode", "x.npy", "o.npy", "--codec-file", "c.rsd", "--bits", "2"], ["--codec-file", "--bits"]),
        (["encode", "x.npy", "o.npy", "--save-codec", "o.npy"], ["same file"]),
        (["encode", "x.npy", "o.csv"], [".npy", "o.csv"]),
        (["encode", "x.npy", "o.npy", "--threads", "0"], ["--threads"]),
        (["encode", "x.npy", "o.npy", "--sample", "0"], ["--sample"]),
        (["encode", "x.npy", "o.npy", "--codec", "binary", "--sample", "9"], ["binary", "--sample"]),
        (["encode", "x.npy", "o.npy", "--codec", "float", "--queries", "x.npy"], ["float", "--queries"]),
        (["build", "x.npy", "i.rsd", "--index", "tree"], ["tree", "flat"]),
        (["build", "x.npy", "i.rsd", "--codec", "none", "--bits", "2"], ["--codec none", "--bits"]),
        (["build", "x.npy", "i.rsd", "--codec", "none", "--codec-file", "c"], ["exclude"]),
        (["build", "x.npy", "i.rsd", "--vectors", "all"], ["all", "float16"]),
        (["search", "i.rsd", "q.npy", "--scoring", "fast"], ["fast", "symmetric"]),
        (["search", "i.rsd", "q.npy", "--out", "h.csv"], ["h.csv", ".npz"]),
        (["search", "i.rsd", "q.npy", "-k", "0"], ["-k"]),
        (["search", "i.rsd", "q.npy", "--rerank", "-1"], ["--rerank"]),
        (["bulid"], ["bulid", "build"]),
        (["--wrong"], ["--wrong"]),
    ],
)
def test_wrong_usage(run: Run, vectors: Matrix, arguments: list[str], words: list[str]) -> None:
    np.save("x.npy", vectors[:300])
    before = sorted(Path().iterdir())
    fail(run(*arguments), 2, *words)
    assert sorted(Path().iterdir()) == before


def test_wrong_data(run: Run, vectors: Matrix) -> None:
    np.save("x.npy", vectors[:300])
    np.save("narrow.npy", vectors[:30, :100])
    np.save("empty.npy", vectors[:0])
    np.save("ints.npy", np.ones((4, 4), "i8"))
    bad = vectors[:300].copy()
    bad[77] = np.nan
    np.save("nan.npy", bad)
    bad[77] = 0
    np.save("zero.npy", bad)
    Path("junk.rsd").write_bytes(b"junk" * 100)
    Path("cut.npy").write_bytes(Path("x.npy").read_bytes()[:-1])
    succeed(run("encode", "x.npy", "codes.npy", "--save-codec", "c.rsd"))
    succeed(run("build", "x.npy", "i.rsd", "--codec", "binary", "--vectors", "none"))
    _io_ivecs(Path("gt.ivecs"), np.zeros((3, 4), "i4"))
    before = {path.name: path.read_bytes() for path in Path().iterdir()}
    for arguments, words in (
        (["encode", "no.npy", "o.npy"], ["no.npy", "No such file"]),
        (["encode", "x.npy", "no/o.npy"], ["no/o.npy", "folder"]),
        (["encode", "x.npy", "x.npy"], ["x.npy", "input"]),
        (["inspect", "."], ["folder"]),
        (["inspect", "i.txt"], ["i.txt", "No such file"]),
        (["encode", "x.npy", "o.npy", "--save-codec", "no/c.rsd"], ["no/c.rsd"]),
        (["encode", "empty.npy", "o.npy"], ["no vectors"]),
        (["encode", "ints.npy", "o.npy"], ["int64"]),
        (["encode", "nan.npy", "o.npy"], ["nan.npy", "row 77"]),
        (["encode", "nan.npy", "codes.npy", "--sample", "3"], ["row 77"]),
        (["encode", "zero.npy", "o.npy"], ["row 77", "zero vector"]),
        (["encode", "cut.npy", "o.npy"], ["truncated"]),
        (["encode", "narrow.npy", "o.npy", "--codec-file", "c.rsd"], ["c.rsd", "384", "100"]),
        (["encode", "x.npy", "o.npy", "--codec-file", "c.rsd", "--metric", "l2"], ["--metric cosine"]),
        (["encode", "x.npy", "o.npy", "--codec-file", "i.rsd"], ["i.rsd", "index"]),
        (["encode", "x.npy", "o.npy", "--codec-file", "junk.rsd"], ["junk.rsd"]),
        (["encode", "x.npy", "o.npy", "--queries", "narrow.npy"], ["narrow.npy", "384"]),
        (["encode", "x.npy", "o.npy", "--key", "a"], ["takes no key"]),
        (["build", "nan.npy", "i.rsd"], ["row 77"]),
        (["build", "x.npy", "i.rsd", "--ids", "no.txt"], ["no.txt"]),
        (["search", "c.rsd", "x.npy"], ["c.rsd", "codec"]),
        (["search", "junk.rsd", "x.npy"], ["junk.rsd"]),
        (["search", "i.rsd", "narrow.npy"], ["narrow.npy", "100", "384"]),
        (["search", "i.rsd", "x.npy", "--rerank", "9"], ["rerank", "none"]),
        (["search", "i.rsd", "x.npy", "--truth", "gt.ivecs"], ["gt.ivecs", "(3, 4)", "300"]),
        (["search", "i.rsd", "x.npy", "--truth", "narrow.npy"], ["narrow.npy", "float32"]),
        (["search", "i.rsd", "zero.npy"], ["row 77"]),
        (["search", "i.rsd", "x.npy", "--out", "i.rsd/h.npz"], ["h.npz"]),
    ):
        fail(run(*arguments), 1, *words)
    assert {path.name: path.read_bytes() for path in Path().iterdir()} == before


def test_names_of_files_cannot_break_the_line(run: Run) -> None:
    fail(run("encode", "a\nb\x1b[31m.npy", "o.npy"), 1, "a b\\x1b[31m.npy")


@pytest.mark.parametrize("command", ["encode", "build", "search", "inspect", "bench", "demo"])
def test_help_has_examples(run: Run, command: str) -> None:
    printed = succeed(run(command, "--help"))
    assert command == "demo" or f"  residua {command} " in printed
