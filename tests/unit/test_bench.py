# SPDX-License-Identifier: Apache-2.0
"""The benchmark harness: statistics, data folders, cases and reports. Nothing here measures time."""

from __future__ import annotations

import itertools
import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # bench is a part of the repository, not of the wheel

from bench import cases, datasets, prepare, report, stats  # noqa: E402
from bench.__main__ import main  # noqa: E402
from bench.measures import MEASURES  # noqa: E402
from bench.measures.quality import gain_lines  # noqa: E402
from bench.measures.session import Outcome, Session  # noqa: E402
from bench.runners import RUNNERS  # noqa: E402
from bench.runners.faiss_cpu import family_of  # noqa: E402

# --- statistics -----------------------------------------------------------------------------------


def test_cpu_time_is_for_one_thread(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "two.toml"
    path.write_text(
        'title = "t"\nkind = "recall"\nthreads = 2\n[[ours]]\ncodec = "float"\n', encoding="utf-8"
    )
    assert main(["run", str(path), "--cpu-time"]) == 1
    assert "threads = 2" in capsys.readouterr().err
    case = replace(cases.load_case(path), cpu_time=True)
    assert case.clock is time.process_time
    assert case.settings()["clock"] == "cpu"
    assert cases.load_case(path).clock is time.perf_counter


@pytest.mark.parametrize("kind", ["filtered", "graph", "fde", "maxsim"])
def test_kinds_that_always_take_cpu_time_say_so(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "own.toml"
    path.write_text(f'title = "t"\nkind = "{kind}"\n', encoding="utf-8")
    case = cases.load_case(path)
    assert case.clock is time.process_time
    assert case.settings()["clock"] == "cpu"


@pytest.mark.parametrize("kind", ["import", "tune"])
def test_kinds_that_cannot_take_cpu_time_refuse_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    path = tmp_path / "own.toml"
    path.write_text(f'title = "t"\nkind = "{kind}"\n', encoding="utf-8")
    assert main(["run", str(path), "--cpu-time"]) == 1
    assert f"kind {kind}, which times by the clock" in capsys.readouterr().err


def test_every_stored_result_names_the_clock_of_its_kind() -> None:
    for path in (Path(cases.__file__).parent / "results").glob("*.json"):
        result = json.loads(path.read_text(encoding="utf-8"))
        clock = result["settings"].get("clock", "wall")
        if result["kind"] in cases.CPU_TIMED:
            assert clock == "cpu", path.name
        if result["kind"] in cases.WALL_TIMED:
            assert clock == "wall", path.name


def test_spread_keeps_the_median_and_both_ends() -> None:
    assert stats.spread([3.0, 1.0, 2.0]) == stats.Spread(2.0, 1.0, 3.0, 3)
    with pytest.raises(ValueError, match="at least one"):
        stats.spread([])


def test_a_falling_unit_change_swaps_the_ends() -> None:
    rate = stats.spread([1.0, 2.0, 4.0]).map(lambda seconds: 8.0 / seconds)
    assert (rate.median, rate.low, rate.high) == (4.0, 2.0, 8.0)


def test_interleave_runs_in_turns_after_a_warm_up() -> None:
    calls: list[str] = []
    ticks = itertools.count()
    seconds = stats.interleave(
        {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 3, clock=lambda: float(next(ticks))
    )
    assert "".join(calls) == "ab" + "ababab"
    assert seconds == {"a": [1.0] * 3, "b": [1.0] * 3}


def test_pair_ratios_are_taken_round_by_round() -> None:
    # A slow second round hits both sides: the ratio does not move.
    assert stats.pair_ratios([2.0, 20.0, 2.0], [1.0, 10.0, 1.0]) == stats.Spread(2.0, 2.0, 2.0, 3)
    with pytest.raises(ValueError, match="pair up"):
        stats.pair_ratios([1.0], [1.0, 2.0])


def test_recall_ignores_padding_order_and_surplus() -> None:
    assert stats.recall_at([[2, 1, 9]], [[1, 2, 3]], 2) == 1.0
    assert stats.recall_at([[1, -1, -1]], [[1, 2, -1]], 3) == 0.5
    assert stats.recall_at([[5], [1]], [[-1], [1]], 1) == 1.0
    with pytest.raises(ValueError, match="queries"):
        stats.recall_at([[1]], [[1], [2]], 1)


# --- data folders ---------------------------------------------------------------------------------


def raw_folder(folder: Path, n: int = 60, queries: int = 20, dim: int = 8) -> Path:
    """A folder shaped like the raw sets: float16 vectors, ground truth by inner product."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    base = rng.standard_normal((n, dim)).astype(np.float16)
    query = rng.standard_normal((queries, dim)).astype(np.float16)
    np.save(folder / "base_vectors.npy", base)
    np.save(folder / "query_vectors.npy", query)
    scores = query.astype(np.float64) @ base.astype(np.float64).T
    np.save(folder / "gt100_ip.npy", np.argsort(-scores, axis=1)[:, :10].astype(np.int32))
    return folder


def test_prepare_splits_the_queries_without_overlap(tmp_path: Path) -> None:
    source = raw_folder(tmp_path / "raw")
    written = prepare.prepare(source, tmp_path / "set")
    data = datasets.load_folder(tmp_path / "set")
    assert data.summary() == written.summary()
    assert (len(data.queries), data.metric, data.note) == (10, "cosine", "")
    assert data.train_queries is not None
    assert data.truth is not None
    together = np.concatenate([data.train_queries, data.queries])
    np.testing.assert_array_equal(together, np.load(source / "query_vectors.npy").astype(np.float32))
    cosine = data.queries @ (data.base / np.linalg.norm(data.base, axis=1, keepdims=True)).T
    np.testing.assert_array_equal(data.truth[:, 0], cosine.argmax(axis=1))


def test_prepare_is_deterministic(tmp_path: Path) -> None:
    source = raw_folder(tmp_path / "raw")
    for name in ("a", "b"):
        prepare.prepare(source, tmp_path / name, rows=150, dims=16)
    for file in ("base.npy", "queries.npy", "train_queries.npy"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_a_stretched_set_is_for_speed_only(tmp_path: Path) -> None:
    prepare.prepare(raw_folder(tmp_path / "raw"), tmp_path / "set", rows=150)
    data = datasets.load_folder(tmp_path / "set")
    assert data.base.shape == (150, 8)
    assert "repeated" in data.note
    assert data.truth is None
    assert len(np.unique(data.base, axis=0)) == 150
    with pytest.raises(datasets.DataError, match="speed only"):
        data.require_truth("recall")


def test_prepare_names_what_it_knows(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(datasets.DataError, match=r"base_vectors\.npy"):
        prepare.prepare(tmp_path / "empty", tmp_path / "set")
    with pytest.raises(datasets.DataError, match=r"0 \.\.\. 19"):
        prepare.prepare(raw_folder(tmp_path / "raw"), tmp_path / "set", train_queries=20)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("metric.txt", "hamming", "expected one of cosine, ip, l2"),
        ("queries.npy", np.zeros((3, 5), np.float32), "5 dims, base.npy has 8"),
        ("queries.npy", np.zeros(8, np.float32), "2-D"),
        ("gt.npy", np.zeros((3, 2), np.int32), "one row per query"),
        ("gt.npy", np.full((10, 2), 60, np.int32), "outside"),
    ],
)
def test_a_wrong_folder_says_what_is_wrong(
    tmp_path: Path, file: str, content: str | np.ndarray, message: str
) -> None:
    prepare.prepare(raw_folder(tmp_path / "raw"), tmp_path / "set")
    if isinstance(content, str):
        (tmp_path / "set" / file).write_text(content)
    else:
        np.save(tmp_path / "set" / file, content)
    with pytest.raises(datasets.DataError, match=message):
        datasets.load_folder(tmp_path / "set")


# --- cases ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted((ROOT / "bench/cases").glob("*.toml")), ids=lambda path: path.stem)
def test_every_case_that_ships_is_valid(path: Path) -> None:
    case = cases.load_case(path)
    assert case.kind in cases.GENERATED + cases.TOKENS or case.specs or case.pairs
    assert f"<!-- bench:{case.name} -->" in (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")


def test_lists_make_a_grid(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text(
        "title = 't'\nkind = 'recall'\n[[ours]]\ncodec = 'recurrent'\n"
        "bits = [1.0, 2.0]\nfit_queries = [false, true]\n"
    )
    case = cases.load_case(path)
    assert [(s.options["bits"], s.options["fit_queries"]) for s in case.specs] == [
        (1.0, False), (1.0, True), (2.0, False), (2.0, True),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kind = 'recall'", "title is missing"),
        ("title = 't'\nkind = 'speed'", "expected one of recall"),
        ("title = 't'\nkind = 'scan'\nrepeats = 3", "at least 5"),
        ("title = 't'\nkind = 'scan'\nk = 'ten'", "k must be of type int"),
        ("title = 't'\nkind = 'scan'\nk = 0", "k must be at least 1"),
        ("title = 't'\nkind = 'scan'\nspeed = 1", "unknown key 'speed'"),
        ("title = 't'\nkind = 'scan'\nmetrics = ['l1']", "expected some of cosine"),
        ("title = 't'\nkind = 'recall'\n[[ours]]\nbits = 1.0", r"\[\[ours\]\] has no codec"),
        ("title = 't'\nkind = 'recall'\n[[faiss]]\nfactory = 'Flat'\nqb = 8", "unknown key 'qb'"),
        ("title = 't'\nkind = 'scan'\n[[pair]]\nname = 'p'\nours = { codec = 'float32' }", "has no faiss"),
        ("title = 't'\nkind = 'scan'\n[[bar]]\ngain = 1", "no name"),
        ("title = ", "not valid TOML"),
    ],
)
def test_a_wrong_case_names_the_file_and_the_key(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text(text)
    with pytest.raises(cases.CaseError, match=message) as caught:
        cases.load_case(path)
    assert "wrong.toml" in str(caught.value)


@pytest.mark.parametrize(
    ("template", "dim", "expected"),
    [
        ("RR{d},EDEN2", 384, "RR384,EDEN2"),
        ("OPQ{d/8},PQ{d/8}x8", 384, "OPQ48,PQ48x8"),
        ("PQ{d/8}x8", 100, "PQ10x8"),
        ("PQ{d/8}x8", 7, "PQ1x8"),
    ],
)
def test_factory_templates(template: str, dim: int, expected: str) -> None:
    assert cases.expand_factory(template, dim) == expected


def test_families() -> None:
    names = ["RaBitQ1", "RR384,RaBitQ2", "EDEN4", "SQ8", "PQ96x4fs", "OPQ48,PQ48x8", "BFlat", "Flat"]
    families = ["RaBitQ", "RaBitQ", "EDEN", "SQ", "PQ", "OPQ", "BinaryFlat", "Flat"]
    assert [family_of(name) for name in names] == families


# --- bars and reports -----------------------------------------------------------------------------


def row(engine: str, family: str, size: float, recall: float, **options: float) -> dict[str, object]:
    label = f"{family} {size:g}"
    return {
        "engine": engine, "family": family, "label": label,
        "bytes_per_vector": size, "recall": recall, "options": options,
    }  # fmt: skip


def test_gain_compares_with_the_best_peer_of_the_allowed_bytes() -> None:
    rows = [
        row("residua", "recurrent", 54, 0.80, bits=1.0),
        row("residua", "recurrent", 102, 0.90, bits=2.0),
        row("faiss", "RaBitQ", 56, 0.70),
        row("faiss", "EDEN", 70, 0.72),
        row("faiss", "RaBitQ", 71, 0.79),  # one byte too many for a peer of 54 + 16
        row("faiss", "PQ", 54, 0.85),  # another family
    ]
    bar = {"name": "1 bit", "ours": {"bits": 1.0}, "against": ["RaBitQ", "EDEN"], "extra_bytes": 16}
    [(claim, gain, must)] = gain_lines(rows, {**bar, "gain": 0.08})
    assert "EDEN 70" in claim
    assert (gain, must) == (pytest.approx(8.0), pytest.approx(8.0))
    [(_, closed, _)] = gain_lines(rows, {**bar, "gap_closed": 0.5})
    assert closed == pytest.approx(0.08 / 0.28)
    losing, winning = gain_lines(rows, {"name": "never below", "never_below": 0.003})
    assert losing[1] == pytest.approx(-5.0)
    assert losing[2] == pytest.approx(-0.3)
    assert winning[1] == pytest.approx(5.0)


def test_outcomes_know_their_direction() -> None:
    assert Outcome("a", 2.0, 1.5, "x").passed is True
    assert Outcome("a", 1.4, 1.5, "x").passed is False
    assert Outcome("a", 1.4, 1.5, "s", at_most=True).passed is True
    assert Outcome("a", 1.4, None, "x").passed is None


def result() -> dict[str, object]:
    outcomes = [Outcome("good", 2.0, 1.5, "x"), Outcome("bad", 1.0, 1.5, "x")]
    return {
        "case": "scan_speed", "title": "Scan speed", "kind": "recall",
        "settings": {"k": 10, "threads": 1, "repeats": 5},
        "data": {"name": "set", "n": 100, "dim": 8, "metric": "l2", "queries": 5, "note": "repeated"},
        "rows": [
            {**row("residua", "recurrent", 54, 0.8), "queries_per_second": vars(stats.spread([1e3, 2e3]))},
            {**row("faiss", "PQ", 54, 0.7), "queries_per_second": vars(stats.spread([3e3, 4e3]))},
        ],
        "outcomes": [{**vars(o), "passed": o.passed} for o in outcomes],
        "skipped": [{"engine": "faiss", "spec": "X", "reason": "unknown"}],
    }  # fmt: skip


def test_the_report_shows_misses_and_what_was_not_measured() -> None:
    text = report.to_markdown(result())
    assert "| good | 2.00x | at least 1.50x | pass |" in text
    assert "| bad | 1.00x | at least 1.50x | **miss** |" in text
    assert "Speed only" in text
    assert "Not measured: X: unknown" in text
    assert "1,500 (1,000 to 2,000)" in text


def test_the_report_goes_between_the_markers(tmp_path: Path) -> None:
    raw, docs = tmp_path / "r.json", tmp_path / "d.md"
    raw.write_text(json.dumps(result()))
    docs.write_text("before\n<!-- bench:scan_speed -->\nold\n<!-- /bench:scan_speed -->\nafter\n")
    for _ in range(2):  # a second report replaces the first
        report.write_report([raw], docs=docs)
    text = docs.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert text.count("### Scan speed") == 1
    docs.write_text("no markers")
    with pytest.raises(report.ReportError, match="no markers"):
        report.write_report([raw], docs=docs)
    raw.write_text("{}")
    with pytest.raises(report.ReportError, match="lacks 'case'"):
        report.write_report([raw], docs=docs)


def test_plots_are_written_and_reproducible(tmp_path: Path) -> None:
    raw = tmp_path / "r.json"
    raw.write_text(json.dumps(result()))
    for name in ("a", "b"):
        report.write_report([raw], docs=None, plots=tmp_path / name)
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == [f"scan_speed-set-{x}.{kind}" for x in ("bytes", "queries") for kind in ("png", "svg")]
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_fits_of_a_pair_run_in_turns(tmp_path: Path) -> None:
    path = tmp_path / "fits.toml"
    path.write_text(
        'title = "t"\nkind = "encode_fit"\n[[pair]]\nname = "fits"\nratio = 1e-9\n'
        'ours = { codec = "pq", bits = 4, per_dim = 0.25 }\nfaiss = { factory = "PQ2x4np" }\n',
        encoding="utf-8",
    )
    rows = np.random.default_rng(0).standard_normal((700, 8)).astype(np.float32)
    data = datasets.BenchData("x", "l2", rows, rows[:5])
    session = Session(cases.load_case(path), data, RUNNERS, log=lambda _: None)
    MEASURES["encode_fit"](session)
    assert [(row["engine"], row["pair"]) for row in session.rows] == [("residua", "fits"), ("faiss", "fits")]
    assert all(row["fit_seconds"]["repeats"] == 5 for row in session.rows)
    (fit,) = session.outcomes
    assert fit.claim == "fits: speed of the fit"
    assert fit.value > 0
