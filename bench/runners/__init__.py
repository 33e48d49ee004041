# SPDX-License-Identifier: Apache-2.0
"""One adapter per engine, all behind the protocol of `bench.runners.base`."""

from bench.runners.base import Engine, Runner, UnusableSpecError
from bench.runners.faiss_cpu import FaissRunner
from bench.runners.ours import OursRunner

__all__ = ["RUNNERS", "Engine", "Runner", "UnusableSpecError"]

RUNNERS: dict[str, Runner] = {"ours": OursRunner(), "faiss": FaissRunner()}
