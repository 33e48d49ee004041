# SPDX-License-Identifier: Apache-2.0
"""Adapters of peer libraries: with stand-ins that search exactly, and with the real ones where installed."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]  # bench is a part of the repository, not of the wheel

from bench import cases, report  # noqa: E402
from bench.datasets import BenchData  # noqa: E402
from bench.measures import MEASURES, Session  # noqa: E402
from bench.runners import PEERS, RUNNERS, UnusableSpecError  # noqa: E402
from bench.runners.trial import run_trial  # noqa: E402
from fake_peers import FAKES, Record, nearest  # noqa: E402

N, DIM, K = 400, 64, 5
SHIPPED = [
    spec
    for name in ("peers", "peers_graphs")
    for spec in cases.load_case(ROOT / f"bench/cases/{name}.toml").specs
]
FIRST = {spec.engine: spec for spec in reversed(SHIPPED)}


def some_data(metric: str, dim: int = DIM) -> BenchData:
    """Vectors of very different lengths, so that the three metrics order them differently."""
    rng = np.random.default_rng(7)
    base = rng.standard_normal((N, dim)) * rng.uniform(0.5, 2.0, (N, 1))
    queries = rng.standard_normal((20, dim)).astype(np.float32)
    base = base.astype(np.float32)
    return BenchData("some", metric, base, queries, None, nearest(base, queries, K, metric))


# --- stand-ins ----------------------------------------------------------------------------------

# What is counted where it is not the whole file: the array of a scan, pages that hold something.
BYTES = {"usearch": 4 * N * DIM, "svs": 2 * N * DIM, "pyvsag": 4096 + 57}


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Record]:
    def install(engine: str) -> Record:
        record: Record = {}
        made = FAKES[engine](record)
        monkeypatch.setitem(sys.modules, made.__name__, made)
        if engine == "usearch":
            monkeypatch.setitem(sys.modules, "usearch.index", made.index)
        monkeypatch.delenv("RAYON_NUM_THREADS", raising=False)
        return record

    return install


def runner_of(engine: str) -> Any:
    """A runner that makes no trial: a child would not see the stand-in."""
    return type(PEERS[engine])(trial=lambda *_: None)


def test_every_runner_has_a_stand_in_and_a_place_in_the_case() -> None:
    assert list(FAKES) == list(PEERS)
    assert set(FIRST) == {"ours", *PEERS}


@pytest.mark.parametrize("metric", ["cosine", "ip", "l2"])
@pytest.mark.parametrize("engine", FAKES)
def test_an_adapter_reports_rows_threads_and_bytes(
    engine: str, metric: str, fake: Callable[[str], Record]
) -> None:
    record, data, runner = fake(engine), some_data(metric), runner_of(engine)
    assert runner.available() is None
    if (engine, metric) == ("turbovec", "l2"):
        with pytest.raises(UnusableSpecError, match="inner product only"):
            runner.build(data, FIRST[engine], threads=2, seed=0)
        return
    built = runner.build(data, FIRST[engine], threads=2, seed=0)
    found = built.search(built.prepare(data.queries), K, 1)
    assert found.dtype == np.int64
    expected = data.truth if record.get("dtype") != np.float16 else None
    if expected is not None:
        np.testing.assert_array_equal(found, expected)
    else:  # half floats may swap neighbours that are nearly as near
        assert np.mean([len(np.intersect1d(a, b)) for a, b in zip(found, data.truth, strict=True)]) > 0.95 * K
    size = BYTES.get(engine, 12345)
    assert (record["threads"], record.get("build_threads", 2)) == (1, 2)
    assert built.memory() == {"index": size}
    assert built.bytes_per_vector == size / N
    assert built.name == built.family == engine
    assert built.label


def test_configurations_that_only_search_differently_share_a_build(fake: Callable[[str], Record]) -> None:
    record, data, runner = fake("hnswlib"), some_data("l2"), runner_of("hnswlib")
    for ef, made in ((50, 1), (200, 1)):
        built = runner.build(data, cases.Spec("hnswlib", {"M": 8, "ef": ef}), threads=1, seed=0)
        built.search(built.prepare(data.queries), K, 1)
        assert (record["ef"], record["M"], record["made"]) == (ef, 8, made)
    runner.build(data, cases.Spec("hnswlib", {"M": 16, "ef": 200}), threads=1, seed=0)
    runner.build(some_data("ip"), cases.Spec("hnswlib", {"M": 16, "ef": 200}), threads=1, seed=0)
    assert record["made"] == 3


def test_a_graph_of_usearch_and_of_svs_counts_what_it_saves(fake: Callable[[str], Record]) -> None:
    data = some_data("l2")
    for engine, options in (
        ("usearch", {"dtype": "f16", "ef": 64}),
        ("svs", {"index": "vamana", "degree": 24, "window": 30}),
    ):
        record = fake(engine)
        built = runner_of(engine).build(data, cases.Spec(engine, options), threads=2, seed=0)
        np.testing.assert_array_equal(built.search(built.prepare(data.queries), K, 1), data.truth)
        assert built.memory() == {"index": 12345}
        assert record["build_threads"] == 2
    assert record["graph_max_degree"] == 24


@pytest.mark.parametrize(
    ("engine", "options", "metric", "dim", "message"),
    [
        ("usearch", {"dtype": "f64"}, "l2", 16, "dtype is 'f64', expected one of f32, f16, i8"),
        ("usearch", {"dtype": "i8"}, "ip", 16, "drops the lengths"),
        ("rabitqlib", {"bits": 10}, "l2", 16, "bits is 10"),
        ("rabitqlib", {"bits": 1}, "l2", 32, "64 dims and more, not 32"),
        ("turbovec", {"bits": 3}, "ip", 16, "bits is 3, expected one of 2, 4"),
        ("turbovec", {"bits": 2}, "ip", 12, "multiples of 8 dims, not 12"),
        ("svs", {"index": "ivf"}, "l2", 16, "expected one of vamana, flat"),
        ("svs", {"index": "vamana", "storage": "pq"}, "l2", 16, "storage is 'pq'"),
        ("svs", {"index": "flat", "storage": "lvq8"}, "l2", 16, "cannot save a flat index"),
    ],
)
def test_what_a_library_cannot_do_is_said_before_it_is_asked(
    engine: str, options: dict[str, Any], metric: str, dim: int, message: str
) -> None:
    with pytest.raises(UnusableSpecError, match=message):
        runner_of(engine).build(some_data(metric, dim), cases.Spec(engine, options), threads=1, seed=0)


@pytest.mark.parametrize(
    ("engine", "message"), [("turbovec", "RAYON_NUM_THREADS=2"), ("pyvsag", "one thread")]
)
def test_threads_that_a_library_cannot_take_are_refused(
    engine: str, message: str, fake: Callable[[str], Record]
) -> None:
    fake(engine)
    data = some_data("cosine")
    built = runner_of(engine).build(data, FIRST[engine], threads=1, seed=0)
    with pytest.raises(UnusableSpecError, match=message):
        built.search(built.prepare(data.queries), K, 2)


# --- what is missing, and what fails --------------------------------------------------------------


@pytest.mark.parametrize("engine", FAKES)
def test_a_missing_library_has_a_reason(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    runner = runner_of(engine)
    monkeypatch.setattr(runner, "module_name", "no_such_library_here.index")
    wheel = runner.wheels
    if wheel is None:
        assert "has no wheel: `pip install hnswlib` compiles it" in runner.available()
        return
    monkeypatch.setattr(platform, "system", lambda: wheel[0][0])
    monkeypatch.setattr(platform, "machine", lambda: wheel[1][0])
    monkeypatch.setattr(sys, "version_info", (*wheel[2], 0, "final", 0))
    assert runner.available() == f"{runner.package} is not installed; run `pip install {runner.package}`"
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    assert "no wheel for Python" in runner.available()
    assert "riscv64" in runner.available()


def test_a_trial_turns_the_end_of_a_process_into_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    library, spec = tmp_path / "turbovec.py", FIRST["turbovec"]
    library.write_text("import os\nprint('this CPU will not do', flush=True)\nos._exit(3)\n")
    assert run_trial("turbovec", spec, DIM, "ip") == (
        "ends the process (exit status 3) in a trial: this CPU will not do"
    )
    library.write_text("raise ValueError('an exception is met again by the caller')\n")
    assert run_trial("turbovec", spec, DIM, "ip") is None
    if os.name == "posix":
        library.write_text("import os, signal\nos.kill(os.getpid(), signal.SIGILL)\n")
        assert run_trial("turbovec", spec, DIM, "ip") == "ends the process (signal SIGILL) in a trial"


def small_case(tmp_path: Path, peers: str) -> cases.Case:
    path = tmp_path / "small.toml"
    head = "title = 'Small'\nkind = 'peers'\nk = 5\n[[ours]]\ncodec = 'float32'\n"
    path.write_text(head + peers)
    return cases.load_case(path)


@pytest.mark.parametrize("error", [RuntimeError("broken"), SystemExit(1)])
def test_a_peer_that_fails_stops_nothing(
    tmp_path: Path, error: BaseException, fake: Callable[[str], Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("threadpoolctl", reason="threadpoolctl is not installed")
    fake("hnswlib")
    fake("turbovec")
    runners = {"ours": RUNNERS["ours"], **{name: runner_of(name) for name in PEERS}}
    monkeypatch.setattr(runners["scann"], "module_name", "no_such_library_here")

    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(runners["turbovec"], "make", fail)
    peers = "[[turbovec]]\nbits = 2\n[[scann]]\ndims_per_block = 2\n[[hnswlib]]\nef = 50\n"
    lines: list[str] = []
    session = Session(small_case(tmp_path, peers), some_data("cosine"), runners, log=lines.append)
    MEASURES["peers"](session)
    result = session.result()
    assert [row["engine"] for row in result["rows"]] == ["residua", "hnswlib"]
    assert [row["recall"] for row in result["rows"]] == [1.0, 1.0]
    assert result["rows"][1]["bytes_per_vector"] == 12345 / N
    assert result["rows"][0]["bytes_per_vector"] >= 4 * DIM
    said = f"{type(error).__name__}: {error}"
    assert result["errors"] == [{"engine": "turbovec", "spec": "{'bits': 2}", "error": said}]
    assert [skipped["engine"] for skipped in result["skipped"]] == ["scann"]
    assert any("error in turbovec" in line for line in lines)
    assert any("scann is not installed" in line for line in lines)
    text = report.to_markdown(json.loads(json.dumps(result)))
    assert f"Failed: turbovec {{'bits': 2}}: {said}" in text
    assert "Not measured: scann" in text
    assert "build s" in text


def test_an_error_of_ours_is_a_bug_and_passes_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("ours")

    monkeypatch.setattr(RUNNERS["ours"], "build", fail)
    with pytest.raises(RuntimeError, match="ours"):
        MEASURES["peers"](Session(small_case(tmp_path, ""), some_data("cosine"), RUNNERS, log=lambda _: None))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "kind = 'peers'\n[[hnswlib]]\nef = 5\nefs = 6",
            r"\[\[hnswlib\]\] has the unknown key 'efs'; known are M, ef",
        ),
        ("kind = 'peers'\n[[pyvsag]]\nef = 5", r"\[\[pyvsag\]\] has no quantization"),
        ("kind = 'peers'\n[[svs]]\nwindow = 5", r"\[\[svs\]\] has no index"),
        ("kind = 'peers'\n[[annoy]]\ntrees = 5", "unknown key 'annoy'"),
        ("kind = 'recall'\n[[turbovec]]\nbits = 2", r"\[\[turbovec\]\] belongs into a case of kind peers"),
        ("kind = 'scan'\n[[pair]]\nname = 'p'\nscann = {}", "unknown key 'scann'"),
    ],
)
def test_a_wrong_entry_of_a_peer_is_a_case_error(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text("title = 't'\n" + text)
    with pytest.raises(cases.CaseError, match=message):
        cases.load_case(path)


# --- the real ones --------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    "spec",
    [spec for spec in SHIPPED if spec.engine in PEERS],
    ids=lambda spec: f"{spec.engine}-" + "-".join(map(str, spec.options.values())),
)
def test_the_real_library(spec: cases.Spec) -> None:
    """Every configuration that ships, after its trial, on clusters that each must tell apart."""
    runner = type(PEERS[spec.engine])()
    reason = runner.available()
    if reason is not None:
        pytest.skip(reason)
    rng = np.random.default_rng(3)
    centres = rng.standard_normal((50, 64))
    base = np.repeat(centres, 20, axis=0) + 0.05 * rng.standard_normal((1000, 64))
    queries = (centres + 0.05 * rng.standard_normal((50, 64))).astype(np.float32)
    data = BenchData("clusters", "cosine", base.astype(np.float32), queries)
    try:
        built = runner.build(data, spec, threads=1, seed=0)
    except UnusableSpecError as error:
        pytest.skip(str(error))
    found = built.search(built.prepare(queries), 10, 1)
    assert found.shape == (50, 10)
    assert np.mean(found // 20 == np.arange(50)[:, None]) > 0.9
    assert 64 / 8 < built.bytes_per_vector < 4096
    assert built.add_seconds > 0
