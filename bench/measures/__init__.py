# SPDX-License-Identifier: Apache-2.0
"""The kinds of measurement. Each turns a session (case, data, engines) into rows and outcomes."""

from __future__ import annotations

from collections.abc import Callable

from bench.measures.filtered import measure_filtered
from bench.measures.filters import measure_filters
from bench.measures.first_stage import measure_first_stage
from bench.measures.funnel import measure_funnel
from bench.measures.graphs import measure_graphs
from bench.measures.importing import measure_import
from bench.measures.late_interaction import measure_late_interaction
from bench.measures.lists import measure_lists
from bench.measures.multivector import measure_fde, measure_maxsim
from bench.measures.peers import measure_peers
from bench.measures.quality import measure_recall, measure_rerank, measure_sdc
from bench.measures.session import Outcome, Session
from bench.measures.speed import measure_encode_fit, measure_scan, measure_single_query, measure_threads
from bench.measures.table import measure_table
from bench.measures.tuning import measure_tune

__all__ = ["MEASURES", "Outcome", "Session"]

MEASURES: dict[str, Callable[[Session], None]] = {
    "recall": measure_recall,
    "sdc": measure_sdc,
    "rerank": measure_rerank,
    "scan": measure_scan,
    "single_query": measure_single_query,
    "encode_fit": measure_encode_fit,
    "threads": measure_threads,
    "import": measure_import,
    "table": measure_table,
    "peers": measure_peers,
    "funnel": measure_funnel,
    "filter": measure_filters,
    "filtered": measure_filtered,
    "tune": measure_tune,
    "lists": measure_lists,
    "graph": measure_graphs,
    "fde": measure_fde,
    "maxsim": measure_maxsim,
    "first_stage": measure_first_stage,
    "late_interaction": measure_late_interaction,
}
