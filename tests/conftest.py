# SPDX-License-Identifier: Apache-2.0
"""Shared fixtures. Helpers live here as fixtures: importlib mode keeps the tests folder off sys.path."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from residua import _core

ROOT = Path(__file__).resolve().parents[1]
KNOWN_ISAS = sorted(path.stem for path in (ROOT / "cpp" / "kernel" / "isa").glob("*.cpp"))


def pytest_configure() -> None:
    # What a shell starts in the background ignores interrupts, and so would all that tests start.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def root() -> Path:
    """Top of the source tree, for tests that read sources; the tested package is the installed one."""
    return ROOT


@pytest.fixture(params=_core.kernels.available())
def isa(request: pytest.FixtureRequest) -> str:
    """Each instruction set that this build has and this machine runs."""
    return str(request.param)


def pytest_report_header() -> str:
    kernels = _core.kernels
    return (
        f"residua: {Path(_core.__file__).parent}, ISA {kernels.active()} of {', '.join(kernels.available())}"
    )


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    available = _core.kernels.available()
    for name in KNOWN_ISAS:
        if name not in available:
            terminalreporter.write_line(f"skipped ISA: {name} (not for this machine)")
