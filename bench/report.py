# SPDX-License-Identifier: Apache-2.0
"""Tables and plots from raw JSON. Nothing is measured here, so a report can always be made again."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["ReportError", "replace_between_markers", "to_markdown", "write_report"]

# (key in the row, heading, format); a value that is a spread shows its median and, beside it, its ends.
_COLUMNS = (
    ("pair", "pair", "{}"),
    ("engine", "engine", "{}"),
    ("label", "configuration", "{}"),
    ("target", "recall asked", "{:.2f}"),
    ("setting", "setting", "{}"),
    ("bytes_per_vector", "bytes/vector", "{:,.0f}"),
    ("memory_per_vector", "all bytes/vector", "{:,.0f}"),
    ("all_bytes_per_vector", "with kept vectors", "{:,.0f}"),
    ("candidates", "candidates for 95 % of the top {k}", "{:,}"),
    ("tokens", "tokens until then", "{:,}"),
    ("ranked", "documents ranked", "{:,}"),
    ("encode_query_us", "µs per query", "{:,.0f}"),
    ("encode_document_us", "µs per document", "{:,.0f}"),
    ("recall", "recall@{k}", "{:.4f}"),
    ("ndcg", "nDCG@10", "{:.4f}"),
    ("bytes_share", "share of the float32 bytes", "{:.3f}"),
    ("first_stage_bytes", "first stage, bytes/document", "{:,.0f}"),
    ("one_by_one_us", "µs per query", "{:,.0f}"),
    ("one_by_one_speed", "by exact", "{:.1f}"),
    ("batch_us", "µs per query of a batch", "{:,.0f}"),
    ("batch_speed", "batch by exact", "{:.1f}"),
    ("ns_per_code", "ns per code", "{:.2f}"),
    ("queries_per_second", "queries/s", "{:,.0f}"),
    ("single_queries_per_second", "queries/s, one per call", "{:,.0f}"),
    ("batch_queries_per_second", "queries/s, one batch", "{:,.0f}"),
    ("batch_by_exact", "batch by exact", "{:.2f}"),
    ("single_by_exact", "one per call by exact", "{:.2f}"),
    ("queries_per_second_1", "queries/s, 1 thread", "{:,.0f}"),
    ("queries_per_second_2", "queries/s, 2 threads", "{:,.0f}"),
    ("encoded_vectors_per_second", "encode vectors/s", "{:,.0f}"),
    ("fit_seconds", "fit s", "{:.2f}"),
    ("build_seconds", "build s", "{:.2f}"),
    ("random_gb_per_second", "GB/s, random rows", "{:.2f}"),
    ("ordered_gb_per_second", "GB/s, rows in order", "{:.2f}"),
    ("filter", "filter", "{}"),
    ("share", "share", "{}"),
    ("matches", "rows that match", "{:,}"),
    ("plan", "plan", "{}"),
    ("recall_each", "recall, filter per query", "{:.4f}"),
    ("queries_per_second_one", "queries/s", "{:,.0f}"),
    ("queries_per_second_each", "queries/s, filter per query", "{:,.0f}"),
    ("cold_us", "µs, not evaluated before", "{:.0f}"),
    ("cached_us", "µs, again, Python included", "{:.1f}"),
    ("microseconds", "CPU µs each", "{:,.1f}"),
    ("import_seconds", "import s", "{:.3f}"),
    ("process_seconds", "whole process s", "{:.3f}"),
    ("milliseconds", "ms", "{:,.3f}"),
    ("documents_per_second", "documents/s", "{:,.0f}"),
    ("gb_per_second", "GB/s", "{:,.0f}"),
    ("share_of_copy", "of copy bandwidth", "{:.2f}"),
    ("tera_operations", "10^12 operations/s", "{:,.0f}"),
    ("share_of_int8_peak", "of int8 peak", "{:.2f}"),
    ("share_of_int8_of_torch", "of torch._int_mm", "{:.2f}"),
    ("device_mb", "device MB", "{:,.1f}"),
)
_QUALITY_KINDS = ("recall", "sdc", "rerank", "peers")


class ReportError(ValueError):
    """A result or a Markdown file cannot be used for a report."""


def _load(path: Path) -> dict[str, Any]:
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ReportError(f"{path.name} is not JSON: {error}") from error
    missing = {"case", "kind", "rows", "outcomes", "settings", "data"} - set(result)
    if missing:
        raise ReportError(
            f"{path.name} is not a result of `python -m bench run`: it lacks {sorted(missing)[0]!r}"
        )
    return dict(result)


def _cell(value: Any, form: str) -> str:
    if value is None:
        return ""
    if isinstance(value, dict):
        low, high = (form.format(value[end]) for end in ("low", "high"))
        return f"{form.format(value['median'])} ({low} to {high})"
    return form.format(value)


def _table(headings: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    aligned = ["---" if i < 2 else "---:" for i in range(len(headings))]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (headings, aligned, *lines))


def _outcome(outcome: Mapping[str, Any]) -> tuple[str, str, str, str]:
    sign = {
        "points": "{:+.2f} points",
        "share": "{:.1%}",
        "recall": "{:.4f}",
        "x": "{:.2f}x",
        "vectors/s": "{:,.0f} vectors/s",
        "ms": "{:.1f} ms",
    }
    form = sign.get(outcome["unit"], "{:.3g} " + outcome["unit"])
    bar = ""
    if outcome["must"] is not None:
        bar = ("at most " if outcome["at_most"] else "at least ") + form.format(outcome["must"])
    verdict = {True: "pass", False: "**miss**", None: ""}[outcome["passed"]]
    return outcome["claim"], form.format(outcome["value"]).strip(), bar.strip(), verdict


def to_markdown(result: Mapping[str, Any]) -> str:
    """One result as Markdown: what, where, every row, and ours against the bars, misses included."""
    data, machine, settings = result["data"], result.get("machine", {}), result["settings"]
    versions = ", ".join(f"{name} {version}" for name, version in result.get("versions", {}).items())
    lines = [f"### {result['title']}: {data['name']}", ""]
    if data["n"]:
        lines.append(f"{data['n']:,} x {data['dim']}, {data['metric']}, {data['queries']:,} queries. ")
    if data["note"]:
        lines.append(f"**Speed only**: {data['note']}. ")
    clock = ", CPU time" if settings.get("clock") == "cpu" else ""
    lines.append(
        f"Threads {settings['threads']}, medians of {settings['repeats']} repetitions "
        f"(smallest to largest){clock}. "
        f"{machine.get('cpu', '')}, {versions}, {result.get('date', '')[:10]}.\n"
    )
    rows = result["rows"]
    columns = [column for column in _COLUMNS if any(row.get(column[0]) is not None for row in rows)]
    headings = [heading.format(k=settings["k"]) for _, heading, _ in columns]
    if result["kind"] in ("recall", "peers"):
        rows = sorted(rows, key=lambda row: (row["bytes_per_vector"], -row["recall"]))
    cells = [[_cell(row.get(key), form) for key, _, form in columns] for row in rows]
    for peer in dict.fromkeys(peer for row in rows for peer in row.get("versus", ())):
        headings.append(peer)
        for line, row in zip(cells, rows, strict=True):
            line.append(row["versus"].get(peer, ""))
    lines.append(_table(headings, cells))
    if result["outcomes"]:
        lines += ["", _table(("claim", "measured", "bar", ""), [_outcome(o) for o in result["outcomes"]])]
    for skipped in result.get("skipped", ()):
        lines += ["", f"Not measured: {_whose(skipped)}: {skipped['reason']}"]
    for failed in result.get("errors", ()):
        lines += ["", f"Failed: {_whose(failed)}: {failed['error']}"]
    return "\n".join(lines) + "\n"


def _whose(entry: Mapping[str, str]) -> str:
    """The configuration of a line without figures, after its engine unless that is ours or FAISS."""
    known = entry["engine"] in ("ours", "faiss")
    return entry["spec"] if known else f"{entry['engine']} {entry['spec']}".rstrip()


def replace_between_markers(text: str, name: str, body: str) -> str:
    """Put `body` between `<!-- bench:name -->` and `<!-- /bench:name -->`."""
    pattern = re.compile(
        rf"(<!-- bench:{re.escape(name)} -->\n).*?(<!-- /bench:{re.escape(name)} -->)", re.DOTALL
    )
    if not pattern.search(text):
        raise ReportError(f"the document has no markers <!-- bench:{name} --> ... <!-- /bench:{name} -->")
    return pattern.sub(lambda match: f"{match.group(1)}{body}{match.group(2)}", text)


def _show(markdown: str) -> None:
    if importlib.util.find_spec("rich") is None:
        print(markdown)
        return
    from rich.console import Console
    from rich.markdown import Markdown

    Console().print(Markdown(markdown))


def _plots(result: Mapping[str, Any], folder: Path) -> list[Path]:
    """Recall against bytes and against queries/s, for the kinds that have a recall."""
    from residua._plot import Point, Series, draw_pareto

    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in result["rows"]:
        name = row["family"]
        if row["engine"] == "residua":
            suffix = row["label"].split(", ", 1)[1] if ", " in row["label"] else ""
            name = "Residua " + row["family"] + (f", {suffix}" if suffix else "")
        groups.setdefault(name, []).append(row)
    data, k = result["data"], result["settings"]["k"]
    written: list[Path] = []
    for axis, x_label, larger in (
        ("bytes_per_vector", "bytes per vector (log2)", False),
        ("queries_per_second", "queries/s (log2)", True),
    ):
        series = [
            Series(name, [Point(_median(row[axis]), row["recall"], _short(row)) for row in rows],
                   line=name.startswith("Residua"))
            for name, rows in groups.items()
        ]  # fmt: skip
        stem = folder / f"{result['case']}-{data['name']}-{axis.split('_')[0]}"
        written += draw_pareto(
            series,
            stem,
            title=f"{result['title']} ({data['name']}): recall@{k} against {x_label.split(' (')[0]}",
            x_label=x_label,
            y_label=f"recall@{k}",
            larger_x=larger,
            footnote=f"{data['n']:,} x {data['dim']}, {data['metric']}; "
            f"{result.get('machine', {}).get('cpu', '')}, {result['settings']['threads']} thread(s), "
            f"{result.get('date', '')[:10]}",
        )
    return written


def _median(value: Any) -> float:
    return float(value["median"] if isinstance(value, dict) else value)


def _short(row: Mapping[str, Any]) -> str:
    return str(row["label"]).split(", queries")[0].removeprefix("recurrent ")


def write_report(results: Sequence[Path], *, docs: Path | None = None, plots: Path | None = None) -> None:
    """Print the tables of all results, or put them into `docs` by case; draw plots into `plots`."""
    loaded = [_load(path) for path in results]
    by_case: dict[str, list[str]] = {}
    for result in loaded:
        by_case.setdefault(result["case"], []).append(to_markdown(result))
    if docs is None:
        for bodies in by_case.values():
            _show("\n".join(bodies))
    else:
        text = docs.read_text(encoding="utf-8")
        for case, bodies in by_case.items():
            text = replace_between_markers(text, case, "\n" + "\n".join(bodies) + "\n")
        docs.write_text(text, encoding="utf-8")
        print(f"wrote {docs}")
    if plots is not None:
        plots.mkdir(parents=True, exist_ok=True)
        for result in loaded:
            if result["kind"] in _QUALITY_KINDS:
                for path in _plots(result, plots):
                    print(f"wrote {path}")
