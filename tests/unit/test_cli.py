# SPDX-License-Identifier: Apache-2.0
"""The command line: exit codes and messages; and the demo, end to end."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("typer", reason="the command line needs typer: pip install '.[cli]'")
pytest.importorskip("rich", reason="the command line needs rich: pip install '.[cli]'")
pytest.importorskip("matplotlib", reason="the command line needs matplotlib: pip install '.[cli]'")

from typer.testing import CliRunner

import residua as rz
from residua import __main__ as entry
from residua import cli, demo
from residua._plot import Point, Series, draw_pareto, pareto_front

runner = CliRunner()


def fail_with(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def run_demo(*_: Any, **__: Any) -> list[str]:
        raise error

    monkeypatch.setattr(demo, "run_demo", run_demo)


def test_help_names_the_command() -> None:
    result = runner.invoke(cli.app, ["--help"])
    assert result.exit_code == 0
    assert "demo" in result.output


def test_version() -> None:
    result = runner.invoke(cli.app, ["--version"])
    assert (result.exit_code, result.output.strip()) == (0, f"residua {rz.__version__}")


@pytest.mark.parametrize(
    "error", [rz.errors.CorruptFileError("the sample is\ndamaged"), PermissionError(13, "refused", "x")]
)
def test_expected_errors_are_one_line(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    fail_with(monkeypatch, error)
    result = runner.invoke(cli.app, ["demo"])
    assert result.exit_code == 1
    lines = result.output.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("residua: ")


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    fail_with(monkeypatch, ZeroDivisionError())
    result = runner.invoke(cli.app, ["demo"])
    assert isinstance(result.exception, ZeroDivisionError)


def test_recall_below_a_floor_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "run_demo", lambda *_, **__: ["recall@10 of x is 0.1, below the floor of 0.7"])
    result = runner.invoke(cli.app, ["demo"])
    assert result.exit_code == 1
    assert "below the floor of 0.7" in result.output


@pytest.mark.parametrize("arguments", [["demo", "--threads", "0"], ["demo", "--fast"], ["encode"]])
def test_wrong_usage_is_refused(arguments: list[str]) -> None:
    assert runner.invoke(cli.app, arguments).exit_code == 2


def test_a_file_in_the_place_of_the_folder(tmp_path: Path) -> None:
    blocked = tmp_path / "report"
    blocked.write_text("")
    result = runner.invoke(cli.app, ["demo", "--out", str(blocked)])
    assert result.exit_code == 1
    assert str(blocked.name) in result.output


def test_missing_packages_name_the_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "rich" else object())
    assert entry.main() == 2
    message = capsys.readouterr().err
    assert message == 'residua: the command line needs rich; run: pip install "residua[cli]"\n'


def measured(recalls: dict[str, float]) -> list[demo.Row]:
    return [demo.Row("residua", label, "", 1.0, 0.0, recall, 1.0, None) for label, recall in recalls.items()]


def test_floors() -> None:
    assert demo.check_floors(measured(demo.FLOORS)) == []
    worse = {**demo.FLOORS, "float32": 0.5}
    assert demo.check_floors(measured(worse)) == ["recall@10 of float32 is 0.5000, below the floor of 0.9999"]
    assert demo.check_floors(measured({**demo.FLOORS, "float32": float("nan")}))
    del worse["float32"]
    assert demo.check_floors(measured(worse)) == ["float32 was not measured"]


def test_the_demo_runs(tmp_path: Path) -> None:
    out = tmp_path / "report"
    result = runner.invoke(cli.app, ["demo", "--quick", "--threads", "1", "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert {path.name for path in out.iterdir()} == {"demo.json", "pareto.png", "pareto.svg"}
    report = json.loads((out / "demo.json").read_text(encoding="utf-8"))
    assert report["failures"] == []
    assert {row["label"] for row in report["rows"]} >= set(demo.FLOORS)


def test_pareto_front() -> None:
    a, b, c, d = Point(1, 0.5), Point(2, 0.4), Point(2, 0.8), Point(4, 0.8)
    assert pareto_front([d, c, b, a]) == [a, c]
    assert pareto_front([d, c, b, a], larger_x=True) == [d]
    assert pareto_front([]) == []


def test_a_plot_of_one_point(tmp_path: Path) -> None:
    series = [Series("one", [Point(8, 0.5, "x")])]
    paths = draw_pareto(series, tmp_path / "p.q", title="t", x_label="x", y_label="y")
    assert [path.name for path in paths] == ["p.q.png", "p.q.svg"]
    assert all(path.stat().st_size > 1000 for path in paths)
