# SPDX-License-Identifier: Apache-2.0
"""inspect tells what is in a file, damaged or not; bench measures what the library gives."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner, Result

import residua as rz
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
    return np.asarray(rz.datasets.load_sample().documents[:1200], dtype=np.float32)


@pytest.fixture(scope="module")
def queries() -> Matrix:
    return np.asarray(rz.datasets.load_sample().queries[:50], dtype=np.float32)


def facts_of(result: Result, code: int = 0) -> dict[str, Any]:
    assert result.exit_code == code, result.output
    return dict(json.loads(result.stdout))


def test_inspect_vectors(run: Run) -> None:
    x = np.random.default_rng(0).normal(size=(200, 9)).astype(np.float32)
    x[3], x[5, 2], x[6, 1], x[7] = 0, np.nan, np.inf, 1e30
    np.save("x.npy", x)
    facts = facts_of(run("inspect", "x.npy", "--json"))
    good = np.delete(x, [5, 6], axis=0).astype(np.float64)
    norms = np.linalg.norm(good, axis=1)
    assert (facts["format"], facts["n"], facts["dim"], facts["dtype"]) == ("npy", 200, 9, "float32")
    assert facts["bytes"] == x.nbytes
    assert facts["share_of_nan_rows"] == 2 / 200
    assert facts["zero_rows"] == 1
    assert (facts["min"], facts["max"]) == (good.min(), good.max())
    assert facts["norms"] == pytest.approx({"min": 0, "mean": norms.mean(), "max": norms.max()})
    np.testing.assert_array_equal(np.float32(facts["first_values"]), x[0, :6])
    shown = run("inspect", "x.npy").stdout
    for text in ("200", "float32", "1.00%"):
        assert text in shown


def test_inspect_looks_at_a_sample_unless_told(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib

    monkeypatch.setattr(importlib.import_module("residua.cli.inspect"), "_SAMPLE_ROWS", 50)
    np.save("x.npy", np.ones((300, 2), "f4"))
    np.savez("x.npz", np.ones((300, 2), "f4"))
    assert facts_of(run("inspect", "x.npy", "--json"))["rows_looked_at"] == 50
    assert facts_of(run("inspect", "x.npy", "--json", "--full"))["rows_looked_at"] == 300
    assert facts_of(run("inspect", "x.npz", "--json"))["rows_looked_at"] == 300


def test_inspect_ids_and_nothing(run: Run) -> None:
    np.save("ids.npy", np.arange(6, dtype="i8").reshape(2, 3))
    facts = facts_of(run("inspect", "ids.npy", "--json"))
    assert facts["first_values"] == [0, 1, 2]
    assert "norms" not in facts
    np.save("none.npy", np.zeros((0, 3), "f4"))
    assert facts_of(run("inspect", "none.npy", "--json"))["n"] == 0
    np.save("nan.npy", np.full((2, 2), np.nan))
    facts = facts_of(run("inspect", "nan.npy", "--json"))
    assert facts["share_of_nan_rows"] == 1
    assert facts["first_values"] == ["nan", "nan"]


def test_inspect_lists_several_arrays(run: Run) -> None:
    np.savez("x.npz", a=np.zeros((2, 3), "f4"), b=np.zeros(4, "i8"))
    holds = facts_of(run("inspect", "x.npz", "--json"))["holds"]
    assert holds == {"a": "(2, 3) float32", "b": "(4,) int64"}
    assert facts_of(run("inspect", "x.npz::a", "--json"))["dim"] == 3
    assert facts_of(run("inspect", "x.npz", "--key", "a", "--json"))["dim"] == 3
    pq.write_table(pa.table({"id": ["x"], "v": [[1.0, 2.0]]}), "x.parquet")
    assert set(facts_of(run("inspect", "x.parquet", "--json"))["holds"]) == {"id", "v"}
    assert "(2, 3) float32" in run("inspect", "x.npz").stdout


@pytest.fixture
def index_file(vectors: Matrix, tmp_path: Path) -> Path:
    index = rz.FlatIndex(384, codec=rz.RecurrentBinaryCodec(384, bits=1))
    index.add(vectors)
    index.save(tmp_path / "i.rsd")
    return tmp_path / "i.rsd"


def test_inspect_an_index(run: Run, index_file: Path) -> None:
    facts = facts_of(run("inspect", index_file, "--json"))
    assert (facts["kind"], facts["n"], facts["dim"], facts["metric"]) == ("flat_index", 1200, 384, "cosine")
    assert facts["version"] == "1.0"
    assert "bits=1" in facts["codec"]
    assert facts["meta"]["codec"]["kind"] == "recurrent_codec"
    assert facts["problems"] == []
    sections = {section["name"]: section for section in facts["sections"]}
    assert sections["codes"]["bytes"] == 1200 * 54 + (-1200 % 32) * 54
    assert sections["meta"]["checksum"] == "ok"
    assert sections["vectors.data"]["checksum"] == "not verified"
    sections_full = facts_of(run("inspect", index_file, "--json", "--full"))["sections"]
    assert {section["checksum"] for section in sections_full} == {"ok"}
    shown = run("inspect", index_file).stdout
    for text in ("flat_index", "1,200", "vectors.data", "not verified"):
        assert text in shown


def test_inspect_a_codec(run: Run, vectors: Matrix) -> None:
    codec = rz.BinaryCodec(384).fit(vectors, metric="ip")
    codec.save("c.rsd")
    facts = facts_of(run("inspect", "c.rsd", "--json"))
    assert facts["fingerprint"] == codec.fingerprint
    assert (facts["dim"], facts["metric"], facts["bytes_per_vector"]) == (384, "ip", 48)


def test_inspect_describes_a_damaged_file(run: Run, index_file: Path) -> None:
    whole = index_file.read_bytes()
    at = whole.rindex(whole[-4096:-4090])  # in the codes, the last section
    index_file.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    result = run("inspect", index_file, "--json", "--full")
    facts = facts_of(result, 1)
    states = {section["name"]: section["checksum"] for section in facts["sections"]}
    assert [name for name, state in states.items() if state != "ok"] == ["codes"]
    assert "section codes is damaged" in result.stderr
    index_file.write_bytes(whole[:-5000])
    result = run("inspect", index_file)
    assert result.exit_code == 1
    assert "codes is truncated" in result.stderr
    assert "vectors.data" in result.stdout
    assert len(result.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("step", range(5))
def test_inspect_survives_any_damage(run: Run, vectors: Matrix, step: int) -> None:
    rz.BinaryCodec(16).fit(vectors[:, :16]).save("c.rsd")
    whole = Path("c.rsd").read_bytes()
    for at in range(step, len(whole), 5):
        damaged = bytearray(whole)
        damaged[at] ^= 0x81
        Path("c.rsd").write_bytes(damaged)
        result = run("inspect", "c.rsd", "--json")
        assert result.exit_code == 1, at
        assert isinstance(result.exception, SystemExit)
        Path("c.rsd").write_bytes(whole[:at])
        assert run("inspect", "c.rsd").exit_code == 1, at


def rows_of(folder: str = "bench-report") -> dict[str, dict[str, Any]]:
    report = json.loads(Path(folder, "bench.json").read_text())
    for name in ("pareto.png", "pareto.svg"):
        assert Path(folder, name).stat().st_size > 1000
    return {row["label"]: row for row in report["rows"]}


def test_bench_measures_what_the_library_gives(run: Run, vectors: Matrix, queries: Matrix) -> None:
    np.save("x.npy", vectors)
    np.save("q.npy", queries)
    result = run("bench", "x.npy", "--queries", "q.npy", "--bits", 1, "--bits", 1.5, "--repeats", 1)
    assert result.exit_code == 0, result.output
    rows = rows_of()
    assert "1,200 vectors, 50 queries, 384 dims, cosine" in result.stdout
    truth = rz.exact_search(queries, vectors).ids
    index = rz.FlatIndex(384, codec=rz.RecurrentBinaryCodec(384, bits=1.5).fit(vectors))
    index.add(vectors)
    for label, options in (("", {"rerank": 0}), (", re-ranked", {})):
        expected = rz.recall(index.search(queries, **options).ids, truth)  # type: ignore[arg-type]
        assert rows[f"recurrent 1.5 bit{label}"]["recall"] == pytest.approx(expected)
    assert rows["float32"]["recall"] == 1
    assert rows["recurrent 1 bit"]["bytes_per_vector"] == 54
    for bits, size in ((4, 200), (8, 392)):
        scalar = rz.FlatIndex(384, codec=rz.ScalarCodec(384, bits).fit(vectors))  # type: ignore[arg-type]
        scalar.add(vectors)
        expected = rz.recall(scalar.search(queries, rerank=0).ids, truth)
        assert rows[f"scalar {bits} bit"]["recall"] == pytest.approx(expected)
        assert rows[f"scalar {bits} bit"]["bytes_per_vector"] == size
    assert rows["recurrent 1 bit, re-ranked"]["kept_bytes"] > 700


def test_bench_a_folder(run: Run, vectors: Matrix, queries: Matrix) -> None:
    Path("data").mkdir()
    np.save("data/base.npy", vectors)
    np.save("data/queries.npy", queries)
    np.save("data/gt.npy", rz.exact_search(queries, vectors, metric="l2").ids[:, ::-1])  # any order
    Path("data/metric.txt").write_text("l2\n")
    result = run("bench", "data", "--bits", 2, "--repeats", 1, "--out", "r")
    assert result.exit_code == 0, result.output
    assert rows_of("r")["float32"]["recall"] == 1
    assert "l2" in result.stdout
    np.save("data/gt.npy", np.full((50, 10), 1200))
    fail(run("bench", "data"), 1, "gt.npy", "1200")
    Path("data/metric.txt").write_text("dot")
    fail(run("bench", "data"), 1, "metric.txt", "dot")
    Path("data/base.npy").unlink()
    fail(run("bench", "data"), 1, "base.npy")


def test_bench_holds_queries_out(run: Run, vectors: Matrix) -> None:
    np.save("x.npy", vectors)
    result = run("bench", "x.npy", "--limit", 500, "--bits", 2, "--repeats", 1)
    assert "450 vectors, 50 more held out as queries" in result.stdout
    assert rows_of()["float32"]["recall"] == 1


def test_bench_an_index(run: Run, index_file: Path, queries: Matrix) -> None:
    np.save("q.npy", queries)
    result = run("bench", index_file, "--queries", "q.npy", "--repeats", 1)
    assert result.exit_code == 0, result.output
    rows = rows_of()
    index = rz.load(index_file)
    assert isinstance(index, rz.FlatIndex)
    truth = index.search(queries, rerank=len(index)).ids
    assert rows["i"]["recall"] == pytest.approx(rz.recall(index.search(queries, rerank=0).ids, truth))
    assert rows["i, re-ranked"]["recall"] > rows["i"]["recall"]
    fail(run("bench", index_file), 2, "--queries")
    fail(run("bench", index_file, "--queries", "q.npy", "--bits", 1), 2, "--bits")


def fail(result: Result, code: int, *words: str) -> None:
    assert result.exit_code == code, result.output
    (line,) = result.stderr.strip().splitlines()
    for word in words:
        assert word in line


def test_bench_refuses(run: Run, vectors: Matrix) -> None:
    np.save("few.npy", vectors[:15])
    fail(run("bench", "few.npy"), 1, "too few")
    np.save("gt.npy", np.zeros((1, 1), "i4"))
    fail(run("bench", "few.npy", "--truth", "gt.npy"), 2, "--queries")
    fail(run("bench", "none.npy"), 1, "none.npy")
    np.save("more.npy", vectors[:200])
    limited = ("--truth", "gt.npy", "--limit", 100)
    fail(run("bench", "more.npy", "--queries", "few.npy", *limited), 2, "--truth", "--limit")
    Path("file").write_text("")
    fail(run("bench", "few.npy", "--out", "file"), 1, "file")


def test_an_embedding_table(run: Run, vectors: Matrix) -> None:
    table = rz.EmbeddingTable(vectors, rz.ScalarCodec(384, 4))
    table.save("t.rsd")
    facts = facts_of(run("inspect", "t.rsd", "--json"))
    assert (facts["kind"], facts["n"], facts["dim"]) == ("embedding_table", 1200, 384)
    assert facts["memory"] == rz.load("t.rsd", mmap=True).memory()
    assert facts["bytes_per_vector"] == sum(facts["memory"].values()) / 1200
    shown = run("inspect", "t.rsd")
    assert shown.exit_code == 0, shown.output
    assert "ScalarCodec" in shown.stdout
    np.save("q.npy", vectors[:3])
    for arguments in (("search", "t.rsd", "q.npy"), ("bench", "t.rsd", "--queries", "q.npy")):
        refused = run(*arguments)
        assert refused.exit_code == 1
        assert refused.stderr.count("\n") == 1
        assert "t.rsd: holds an embedding table, expected an index" in refused.stderr


def test_files_of_token_sets(run: Run, vectors: Matrix) -> None:
    encoder = rz.FDEncoder(384, 2, 3, 4)
    encoder.save("e.rsd")
    store = rz.TokenStore([vectors[:20], vectors[20:300]], "rb2")
    store.save("s.rsd")
    facts = facts_of(run("inspect", "e.rsd", "--json"))
    assert (facts["kind"], facts["dim"], facts["output_dim"]) == ("fd_encoder", 384, 48)
    facts = facts_of(run("inspect", "s.rsd", "--json"))
    assert (facts["kind"], facts["n"], facts["tokens"], facts["dim"]) == ("token_store", 2, 300, 384)
    index = rz.MultiVectorIndex(384)
    index.add([vectors[:20], vectors[20:300]])
    index.save("m.rsd")
    facts = facts_of(run("inspect", "m.rsd", "--json"))
    assert (facts["kind"], facts["n"], facts["dim"]) == ("multivector_index", 2, 384)
    np.save("q.npy", vectors[:3])
    for name, held in (
        ("e.rsd", "an encoder of token sets"),
        ("s.rsd", "a token store"),
        ("m.rsd", "an index of token sets, which rz.load reads"),
    ):
        assert run("inspect", name).exit_code == 0
        refused = run("search", name, "q.npy")
        assert refused.exit_code == 1
        assert f"{name}: holds {held}, expected an index" in refused.stderr
