# SPDX-License-Identifier: Apache-2.0
"""Cases: TOML files that say what is measured, independent of the data it is measured on."""

from __future__ import annotations

import itertools
import re
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.datasets import METRICS

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = [
    "CPU_TIMED",
    "GENERATED",
    "KINDS",
    "TOKENS",
    "WALL_TIMED",
    "Case",
    "CaseError",
    "Pair",
    "Spec",
    "expand_factory",
    "load_case",
]

KINDS = (
    "recall",
    "sdc",
    "rerank",
    "scan",
    "single_query",
    "encode_fit",
    "threads",
    "import",
    "table",
    "peers",
    "funnel",
    "filter",
    "tune",
    "lists",
    "graph",
    "filtered",
    "fde",
    "maxsim",
    "first_stage",
    "late_interaction",
)

# Kinds that make what they measure on.
GENERATED = ("import", "filter", "fde", "maxsim")
# Kinds that are measured on folders of token vectors (bench/token_data.py).
TOKENS = ("first_stage", "late_interaction")

# Kinds that always time by the CPU time of the process, and those that never can: what they time are new
# processes, or searches that the package times itself.
CPU_TIMED = ("graph", "filtered", "fde", "maxsim", "late_interaction")
WALL_TIMED = ("import", "tune")

_OPTIONS: Mapping[str, frozenset[str]] = {
    "ours": frozenset(
        {
            "codec",
            "bits",
            "fit_queries",
            "scoring",
            "rerank",
            "rotation",
            "code_bits",
            "per_dim",
            "train_rows",
            "dtype",
            "funnel",
            "nlist",
            "n_codebooks",
            "beam",
            "layout",
            "preset",
            "vectors",
            "M",
            "ef_construction",
            "index",
        }
    ),
    "faiss": frozenset(
        {"factory", "search_metric", "query_bits", "refine", "refine_type", "train_rows", "ef_construction"}
    ),
    "graph": frozenset({"library", "M", "degree", "ef_construction"}),
    "hnswlib": frozenset({"M", "ef_construction", "ef"}),
    "usearch": frozenset({"dtype", "exact", "M", "ef_construction", "ef"}),
    "rabitqlib": frozenset({"bits", "clusters", "nprobe"}),
    "turbovec": frozenset({"bits", "calibrate"}),
    "scann": frozenset({"dims_per_block", "anisotropic", "reorder"}),
    "svs": frozenset({"index", "storage", "degree", "build_window", "window"}),
    "pyvsag": frozenset({"quantization", "rerank", "degree", "ef_construction", "ef"}),
    "lancedb": frozenset({"index"}),
}
# The option that every entry of an engine must have.
_REQUIRED: Mapping[str, str] = {
    "ours": "codec",
    "faiss": "factory",
    "graph": "library",
    "hnswlib": "ef",
    "usearch": "dtype",
    "rabitqlib": "bits",
    "turbovec": "bits",
    "scann": "dims_per_block",
    "svs": "index",
    "pyvsag": "quantization",
    "lancedb": "index",
}
_PAIRED = ("ours", "faiss")
_SETTINGS: Mapping[str, tuple[type, ...]] = {
    "title": (str,),
    "kind": (str,),
    "metrics": (list,),
    "k": (int,),
    "batch": (int,),
    "queries": (int,),
    "threads": (int,),
    "repeats": (int,),
    "seed": (int,),
    "rows": (int,),
    "dims": (int,),
    "shares": (list,),
    "correlation": (float,),
}
_PAIR_KEYS = frozenset({"name", "ratio", *_PAIRED})
_BAR_KEYS = frozenset(
    {
        "name",
        "ours",
        "against",
        "extra_bytes",
        "gain",
        "gap_closed",
        "never_below",
        "at_least",
        "at_most",
        "speed",
    }
)


class CaseError(ValueError):
    """A case file is not valid; the message names the file and the key."""


@dataclass(frozen=True)
class Spec:
    """One configuration of one engine."""

    engine: str
    options: Mapping[str, Any]

    def matches(self, wanted: Mapping[str, Any]) -> bool:
        return all(self.options.get(key) == value for key, value in wanted.items())


@dataclass(frozen=True)
class Pair:
    """Ours and a peer, measured in turns; `ratio` is what ours must reach, None where there is no bar."""

    name: str
    ours: Spec
    peer: Spec
    ratio: float | None


@dataclass(frozen=True)
class Case:
    name: str
    title: str
    kind: str
    metrics: tuple[str, ...] = METRICS
    k: int = 10
    batch: int = 1000
    queries: int | None = None
    threads: int = 1
    repeats: int = 5
    seed: int = 0
    rows: int | None = None
    dims: int | None = None
    shares: tuple[float, ...] = ()
    correlation: float = 0.9
    specs: tuple[Spec, ...] = ()
    pairs: tuple[Pair, ...] = ()
    bars: tuple[Mapping[str, Any], ...] = field(default=())
    cpu_time: bool = False  # asked for, as others use the machine; for one thread

    def settings(self) -> dict[str, Any]:
        """The plain settings, as a result records them."""
        names = ("k", "batch", "queries", "threads", "repeats", "rows", "dims")
        settings = {name: getattr(self, name) for name in names} | {
            "clock": "cpu" if self.on_cpu_time else "wall"
        }
        return {**settings, "correlation": self.correlation} if self.kind == "filtered" else settings

    @property
    def on_cpu_time(self) -> bool:
        return self.cpu_time or self.kind in CPU_TIMED

    @property
    def clock(self) -> Callable[[], float]:
        """What times an action, in seconds."""
        return time.process_time if self.on_cpu_time else time.perf_counter


def expand_factory(template: str, dim: int) -> str:
    """Fill the dimension into a FAISS factory string.

    `{d}` is the dimension; `{d/8}` the largest divisor of it that is at most d / 8, because a
    product quantizer needs sub-vectors of equal length.

    >>> expand_factory("OPQ{d/8},PQ{d/8}x8", 384)
    'OPQ48,PQ48x8'
    >>> expand_factory("PQ{d/8}x8", 100)
    'PQ10x8'
    """

    def value(match: re.Match[str]) -> str:
        if match.group(1) is None:
            return str(dim)
        limit = dim // int(match.group(1))
        return str(max(n for n in range(1, max(limit, 1) + 1) if dim % n == 0))

    return re.sub(r"\{d(?:/([1-9]\d*))?\}", value, template)


def load_case(path: Path | str) -> Case:
    """Read a case file; anything that it says and that is not understood is a `CaseError`."""
    path = Path(path)
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CaseError(f"{path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise CaseError(f"{path.name}: not valid TOML: {error}") from error
    try:
        return _parse(path.stem, table)
    except CaseError as error:
        raise CaseError(f"{path.name}: {error}") from error


def _parse(name: str, table: dict[str, Any]) -> Case:
    _known(table, frozenset({*_SETTINGS, *_OPTIONS, "pair", "bar"}), "the file")
    settings = {key: table[key] for key in _SETTINGS if key in table}
    for key, value in settings.items():
        if not isinstance(value, _SETTINGS[key]) or isinstance(value, bool):
            raise CaseError(f"{key} must be of type {_SETTINGS[key][0].__name__}, got {value!r}")
        if isinstance(value, int) and value < (0 if key == "seed" else 1):
            raise CaseError(f"{key} must be at least {0 if key == 'seed' else 1}, got {value}")
    for key in ("title", "kind"):
        if key not in settings:
            raise CaseError(f"{key} is missing")
    if settings["kind"] not in KINDS:
        raise CaseError(f"kind is {settings['kind']!r}, expected one of {', '.join(KINDS)}")
    if settings.get("repeats", 5) < 5:
        raise CaseError(f"repeats must be at least 5 for a median with a spread, got {settings['repeats']}")
    unknown = set(settings.get("metrics", ())) - set(METRICS)
    if unknown:
        raise CaseError(f"metrics holds {sorted(map(str, unknown))}, expected some of {', '.join(METRICS)}")
    settings["metrics"] = tuple(settings.get("metrics", METRICS))
    specs = [spec for engine in _OPTIONS for entry in table.get(engine, []) for spec in _grid(engine, entry)]
    peers, kind = sorted({spec.engine for spec in specs} - set(_PAIRED)), settings["kind"]
    for peer in peers:
        homes = {"graph": ["graph"], "lancedb": ["filtered"]}.get(peer, ["peers", "filtered"])
        if kind not in homes:
            raise CaseError(f"[[{peer}]] belongs into a case of kind {' or '.join(homes)}, not {kind}")
    settings["shares"] = _shares(settings.get("shares", ()))
    pairs = [_pair(entry) for entry in table.get("pair", [])]
    bars = table.get("bar", [])
    for bar in bars:
        _known(bar, _BAR_KEYS, "a [[bar]]")
        if "name" not in bar:
            raise CaseError("a [[bar]] has no name")
    return Case(name=name, specs=tuple(specs), pairs=tuple(pairs), bars=tuple(bars), **settings)


def _shares(given: Any) -> tuple[float, ...]:
    for share in given:
        if not isinstance(share, float) or not 0 < share <= 1:
            raise CaseError(f"shares holds {share!r}, expected shares of the rows such as 0.01")
    return tuple(given)


def _known(table: Mapping[str, Any], allowed: frozenset[str], where: str) -> None:
    if not isinstance(table, dict):
        raise CaseError(f"{where} must be a table, got {table!r}")
    unknown = sorted(set(table) - allowed)
    if unknown:
        raise CaseError(f"{where} has the unknown key {unknown[0]!r}; known are {', '.join(sorted(allowed))}")


def _grid(engine: str, entry: Mapping[str, Any]) -> list[Spec]:
    """Every combination of the entry's options; an option that is a list stands for each of its values."""
    _known(entry, _OPTIONS[engine], f"[[{engine}]]")
    required = _REQUIRED[engine]
    if required not in entry:
        raise CaseError(f"[[{engine}]] has no {required}")
    choices = [value if isinstance(value, list) else [value] for value in entry.values()]
    return [Spec(engine, dict(zip(entry, values, strict=True))) for values in itertools.product(*choices)]


def _pair(entry: Mapping[str, Any]) -> Pair:
    _known(entry, _PAIR_KEYS, "a [[pair]]")
    for key in ("name", *_PAIRED):
        if key not in entry:
            raise CaseError(f"a [[pair]] has no {key}")
    ours, peer = (_grid(engine, entry[engine]) for engine in _PAIRED)
    if len(ours) != 1 or len(peer) != 1:
        raise CaseError(f"[[pair]] {entry['name']!r} must name one configuration per engine, not a grid")
    return Pair(entry["name"], ours[0], peer[0], entry.get("ratio"))
