# SPDX-License-Identifier: Apache-2.0
"""Quality on judged collections: the measures against slow oracles, the folders, and the command."""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

import residua as rz
from residua.cli import app
from residua.evaluation import ndcg_at, recall_of_relevant

Matrix = np.ndarray[Any, Any]
N, NQ, DIM = 300, 40, 48


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    text = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Each query lies near two documents, of grades 2 and 1; one query is not judged."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(N, DIM)).astype(np.float32)
    near = rng.permutation(N)[: 2 * NQ].reshape(NQ, 2)
    q = 2 * x[near[:, 0]] + x[near[:, 1]] + 0.8 * rng.normal(size=(NQ, DIM)).astype(np.float32)
    place = tmp_path / "judged"
    (place / "qrels").mkdir(parents=True)
    write_jsonl(place / "corpus.jsonl", [{"_id": f"d{i}", "text": "t"} for i in range(N)])
    write_jsonl(place / "queries.jsonl.gz", [{"_id": f"q{i}", "text": "t"} for i in range(NQ)])
    np.save(place / "doc_vectors.npy", x.astype(np.float16))
    np.save(place / "query_vectors.npy", q)
    lines = ["query-id\tcorpus-id\tscore", "other-split\td0\t1"]
    for i, (a, b) in enumerate(near[:-1]):
        lines += [f"q{i}\td{a}\t2", f"q{i}\td{b}\t1", f"q{i}\td{(a + 1) % N}\t0"]
    (place / "qrels" / "test.tsv").write_text("\n".join(lines) + "\n")
    return place


@pytest.fixture
def run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.chdir(folder.parent)
    return lambda *arguments: CliRunner().invoke(app, ["eval", *map(str, arguments)])


def test_measures_equal_their_definitions() -> None:
    rng = np.random.default_rng(0)
    found = np.argsort(rng.random((50, 30)), axis=1)
    found[0, 5:] = -1
    grades = [
        {int(d): float(rng.integers(-1, 4)) for d in rng.choice(30, rng.integers(0, 15), replace=False)}
        for _ in found
    ]
    for row, one, ndcg, recall in zip(
        found, grades, ndcg_at(found, grades), recall_of_relevant(found, grades, 10), strict=True
    ):
        gain = sum(max(one.get(int(d), 0), 0) / math.log2(r + 2) for r, d in enumerate(row[:10]))
        best = sorted((g for g in one.values() if g > 0), reverse=True)
        ideal = sum(g / math.log2(r + 2) for r, g in enumerate(best[:10]))
        assert ndcg == pytest.approx(gain / ideal if best else 0)
        hit = sum(one.get(int(d), 0) > 0 for d in row[:10])
        assert recall == pytest.approx(hit / len(best) if best else 0)


def test_rows_agree_with_a_search_of_ones_own() -> None:
    rng = np.random.default_rng(1)
    x, q = rng.normal(size=(500, 32)).astype("f4"), rng.normal(size=(60, 32)).astype("f4")
    relevant = [{int(d): 1.0 for d in rng.choice(500, 8, replace=False)} for _ in q]
    relevant[7] = {}
    codec = rz.RecurrentBinaryCodec(32, 1).fit(x, metric="l2")
    rows = rz.evaluate(x, q, relevant, bits=[], codecs=[codec], metric="l2", rerank=500, resamples=50)
    assert [row.reranked for row in rows] == [0, 0, 500]
    asked = np.delete(np.arange(60), 7)
    order = np.argsort(codec.scores(q[asked], codec.encode(x)), axis=1, kind="stable")
    wanted = [relevant[i] for i in asked]
    assert rows[1].ndcg.value == pytest.approx(ndcg_at(order, wanted).mean())
    assert rows[1].recall[100].value == pytest.approx(recall_of_relevant(order, wanted, 100).mean())
    assert rows[1].share.value == pytest.approx(rows[1].ndcg.value / rows[0].ndcg.value)
    # All rows are re-ranked, so the third line is float search again, draw by draw.
    assert (rows[2].ndcg, rows[2].recall) == (rows[0].ndcg, rows[0].recall)
    assert (rows[2].share.low, rows[2].share.high) == (1.0, 1.0)
    assert rows[1].bytes_per_vector == codec.code_bytes


def test_intervals_cover_as_they_should() -> None:
    """Half of the queries find their document first, half never: the mean of n coin throws."""
    x = np.eye(200, dtype="f4")
    relevant = [{i if i % 2 else (i + 1) % 200: 1.0} for i in range(200)]
    first = rz.evaluate(x, x, relevant, bits=[], resamples=4000)[0].ndcg
    found = ndcg_at(rz.exact_search(x, x).ids, relevant)
    deviation = found.std() / math.sqrt(200)
    assert first.value == pytest.approx(found.mean())
    assert (first.high - first.low) / 2 == pytest.approx(1.96 * deviation, rel=0.1)
    assert first.low < first.value < first.high


def test_bad_judgements() -> None:
    x = np.random.default_rng(2).normal(size=(30, 8)).astype("f4")
    for relevant, error, message in [
        ([{0: 1}], ValueError, "1 mappings for 2 queries"),
        ([{0: 0}, {}], ValueError, "no query has a relevant document"),
        ([{30: 1}, {}], ValueError, "at most 29, got 30"),
        ([{0: math.nan}, {}], ValueError, "must be finite"),
        ([[0], [1]], TypeError, "must be a mapping"),
        ({0: {1: 1}}, TypeError, "one mapping"),
    ]:
        with pytest.raises(error, match=message):
            rz.evaluate(x, x[:2], relevant)  # type: ignore[arg-type]


@pytest.mark.parametrize("bits", [[], [2]])
def test_bad_seeds_are_refused_before_any_work(bits: list[float]) -> None:
    x = np.eye(8, dtype=np.float32)
    with pytest.raises(rz.errors.InvalidValueError, match="seed must be at least 0, got -1"):
        rz.evaluate(x, x[:2], [{0: 1}, {1: 1}], bits=bits, seed=-1)


def test_command_prints_and_writes_rows(run: Callable[..., Result], folder: Path) -> None:
    result = run(folder, "--bits", 2, "--rerank", 120, "--resamples", 100, "--out", "rows.json")
    assert result.exit_code == 0, result.output
    assert f"{N} documents of {DIM} dims, {NQ - 1} judged queries" in result.output
    rows = json.loads(Path("rows.json").read_text())
    assert [(row["name"], row["reranked"]) for row in rows] == [
        ("float32", 0),
        ("RecurrentBinary", 0),
        ("RecurrentBinary", 120),
    ]
    assert 0.8 < rows[0]["ndcg"]["value"] <= 1
    assert f"{rows[1]['ndcg']['value']:.3f} [{rows[1]['ndcg']['low']:.3f}" in result.output


def test_command_takes_a_codec_and_other_judgements(run: Callable[..., Result], folder: Path) -> None:
    x = np.load(folder / "doc_vectors.npy")
    rz.RecurrentBinaryCodec(DIM, 4).fit(x).save("codec.rsd")
    first = run(folder, "--codec-file", "codec.rsd", "--out", "a.json")
    assert first.exit_code == 0, first.output
    pairs = [line.split("\t") for line in (folder / "qrels/test.tsv").read_text().splitlines()[1:]]
    (folder / "qrels/test.tsv").unlink()
    write_jsonl(
        folder / "qrels.jsonl.gz", [{"query-id": a, "corpus-id": b, "score": int(c)} for a, b, c in pairs]
    )
    assert run(folder, "--codec-file", "codec.rsd", "--out", "b.json").exit_code == 0
    (folder / "qrels.jsonl.gz").unlink()
    inline: dict[str, dict[str, int]] = {f"q{i}": {} for i in range(NQ)}
    for a, b, c in pairs[1:]:
        inline[a][b] = int(c)
    inline["q0"]["gone"] = 1
    write_jsonl(folder / "queries.jsonl.gz", [{"_id": k, "relevant": v} for k, v in inline.items()])
    third = run(folder, "--codec-file", "codec.rsd", "--out", "c.json")
    assert "1 judgements name documents that are not in the folder" in third.output
    assert Path("a.json").read_text() == Path("b.json").read_text() == Path("c.json").read_text()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("corpus.jsonl", b'{"_id": "a"}\n{"_id": "a"}\n', "'a' occurs twice"),
        ("corpus.jsonl", b'{"_id": "a"}\n', f"{N} vectors for 1 lines of corpus.jsonl"),
        ("corpus.jsonl", b'{"id": []}\n', 'line 1 has no "_id"'),
        ("corpus.jsonl", b"[]\n", "line 1 is not a JSON object"),
        ("corpus.jsonl", b"{", "line 1 is not JSON"),
        ("corpus.jsonl", b"\xff\n", "cannot be read as UTF-8"),
        ("queries.jsonl.gz", b"no gzip", "cannot be read as UTF-8"),
        ("qrels/test.tsv", b"q0 d1 1\n", "line 1 has 1 columns"),
        ("qrels/test.tsv", b"q0\td1\tyes\n", "'yes' is not a number"),
        ("qrels/test.tsv", b"q0\td1\t0\n", "no query has a relevant document"),
        ("qrels/test.tsv", None, "no relevance judgements"),
        ("corpus.jsonl", None, "no documents; expected one of corpus.jsonl"),
        ("query_vectors.npy", None, "no vectors for queries.jsonl.gz"),
    ],
)
def test_bad_folders(
    run: Callable[..., Result], folder: Path, name: str, content: bytes | None, message: str
) -> None:
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content)
    result = run(folder, "--out", "rows.json")
    assert result.exit_code == 1
    assert message in result.output
    assert len(result.output.splitlines()) == 1
    assert not Path("rows.json").exists()


def test_folders_of_wrong_vectors(run: Callable[..., Result], folder: Path) -> None:
    assert "not a folder" in run("nowhere").output
    q = np.load(folder / "query_vectors.npy")
    np.save(folder / "query_vectors.npy", q[:, :8])
    assert f"documents have {DIM} dims, queries 8" in run(folder).output
    q[3, 0] = np.nan
    np.save(folder / "query_vectors.npy", q)
    assert "row 3 contains NaN" in run(folder).output
