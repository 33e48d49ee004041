# SPDX-License-Identifier: Apache-2.0
"""What a result must carry to mean something later: machine, versions, ISA; and pinning of threads."""

from __future__ import annotations

import contextlib
import datetime
import importlib
import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

__all__ = ["describe", "pinned", "usable_cpus"]

_PACKAGES = ("residua", "numpy", "faiss-cpu", "threadpoolctl", "matplotlib")


def usable_cpus() -> list[int]:
    """CPUs that this process may use, lowest first."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


@contextlib.contextmanager
def pinned(threads: int) -> Iterator[None]:
    """Restrict this thread, and threads that it starts, to `threads` CPUs; BLAS pools likewise.

    Engines are told their thread count as well: affinity alone would only make their threads compete.
    """
    threadpoolctl = importlib.import_module("threadpoolctl")
    before = usable_cpus()
    if threads > len(before):
        raise ValueError(f"{threads} threads asked for, but only {len(before)} CPUs may be used here")
    can_pin = hasattr(os, "sched_setaffinity")
    with threadpoolctl.threadpool_limits(limits=threads):
        if can_pin:
            os.sched_setaffinity(0, before[:threads])
        try:
            yield
        finally:
            if can_pin:
                os.sched_setaffinity(0, before)


def _cpu_model() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _caches() -> dict[str, str]:
    caches: dict[str, str] = {}
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        with contextlib.suppress(OSError):
            kind = (index / "type").read_text().strip()
            if kind != "Instruction":
                caches["L" + (index / "level").read_text().strip()] = (index / "size").read_text().strip()
    return caches


def _versions(packages: Sequence[str]) -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    with contextlib.suppress(ImportError, AttributeError):
        versions["residua"] = importlib.import_module("residua").__version__
    return versions


def _commit() -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    return None


def _config() -> Any:
    """What `rz.show_config()` says of the build and the chosen kernels; None where it cannot say."""
    with contextlib.suppress(ImportError, AttributeError):
        config = importlib.import_module("residua").show_config()
        if isinstance(config, dict | list | str | int | float | bool) or config is None:
            return config
        return str(config)
    return None


def describe(packages: Sequence[str] = ()) -> dict[str, Any]:
    """Machine, versions (of `packages` too), commit and date of this run. No host name, no user, no path."""
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "machine": {
            "cpu": _cpu_model(),
            "architecture": platform.machine(),
            "usable_cpus": len(usable_cpus()),
            "cpu_count": os.cpu_count(),
            "caches": _caches(),
            "system": platform.system(),
        },
        "versions": _versions((*_PACKAGES, *packages)),
        "commit": _commit(),
        "config": _config(),
    }
