# SPDX-License-Identifier: Apache-2.0
"""One adapter per engine, all behind the protocol of `bench.runners.base`."""

from bench.runners.base import Engine, Runner, UnusableSpecError
from bench.runners.faiss_cpu import FaissRunner
from bench.runners.ours import OursRunner
from bench.runners.peer import PeerRunner
from bench.runners.peer_hnswlib import HnswlibRunner
from bench.runners.peer_pyvsag import PyvsagRunner
from bench.runners.peer_rabitqlib import RabitqlibRunner
from bench.runners.peer_scann import ScannRunner
from bench.runners.peer_svs import SvsRunner
from bench.runners.peer_turbovec import TurbovecRunner
from bench.runners.peer_usearch import UsearchRunner

__all__ = ["PEERS", "RUNNERS", "Engine", "Runner", "UnusableSpecError"]

_ADAPTERS: tuple[PeerRunner, ...] = (
    HnswlibRunner(),
    UsearchRunner(),
    RabitqlibRunner(),
    TurbovecRunner(),
    ScannRunner(),
    SvsRunner(),
    PyvsagRunner(),
)
PEERS: dict[str, PeerRunner] = {runner.name: runner for runner in _ADAPTERS}
RUNNERS: dict[str, Runner] = {"ours": OursRunner(), "faiss": FaissRunner(), **PEERS}
