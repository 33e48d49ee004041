# SPDX-License-Identifier: Apache-2.0
"""Pareto plots of recall against cost, for the demo and the benchmarks. Needs matplotlib (extra `[cli]`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter

__all__ = ["Point", "Series", "draw_pareto", "pareto_front"]

# Okabe-Ito: distinct for readers with any colour vision.
_COLOURS = ("#0072B2", "#009E73", "#D55E00", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F", "#000000")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")


@dataclass(frozen=True)
class Point:
    x: float
    y: float
    label: str = ""


@dataclass(frozen=True)
class Series:
    """Points of one kind; `line` joins them, `on_front` lets them take part in the Pareto front."""

    name: str
    points: Sequence[Point]
    line: bool = False
    on_front: bool = True


def pareto_front(points: Sequence[Point], *, larger_x: bool = False) -> list[Point]:
    """The points that no other point beats in both directions: y larger, x smaller (or larger)."""
    ordered = sorted(points, key=lambda p: (-p.x if larger_x else p.x, -p.y))
    front: list[Point] = []
    for point in ordered:
        if not front or point.y > front[-1].y:
            front.append(point)
    return front


def _place_labels(canvas: Any, axes: Any, points: Sequence[Point], taken: list[Any]) -> None:
    """Write each label at the first of some offsets where it covers no marker and no box of `taken`."""
    renderer = canvas.get_renderer()
    frame = axes.get_window_extent(renderer)
    marks = [tuple(axes.transData.transform((p.x, p.y))) for p in points]
    offsets = [(7, -10), (7, 5), (-7, 5), (-7, -10), (0, 10), (0, -15)]
    offsets += [(side * 16, 11 * step) for step in (2, -2, 3, -3, 4, -4, 5, -5) for side in (1, -1)]
    for point in points:
        if not point.label:
            continue
        for dx, dy in offsets:
            far = abs(dy) > 15
            text = axes.annotate(
                point.label,
                (point.x, point.y),
                xytext=(dx, dy),
                textcoords="offset points",
                ha="left" if dx > 0 else "right" if dx < 0 else "center",
                fontsize=7.5,
                color="#333333",
                path_effects=[withStroke(linewidth=2.5, foreground="white")],
                arrowprops={"arrowstyle": "-", "lw": 0.5, "color": "#999999"} if far else None,
            )
            box = text.get_window_extent(renderer).padded(1.5)
            inside = frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1
            if inside and not any(box.overlaps(other) for other in taken) and not _covers(box, marks):
                taken.append(box)
                break
            text.remove()


def _covers(box: Any, marks: Sequence[tuple[float, ...]]) -> bool:
    return any(box.x0 - 3 <= x <= box.x1 + 3 and box.y0 - 3 <= y <= box.y1 + 3 for x, y in marks)


def draw_pareto(
    series: Sequence[Series],
    stem: Path,
    *,
    title: str,
    x_label: str,
    y_label: str,
    larger_x: bool = False,
    footnote: str = "",
) -> tuple[Path, Path]:
    """Draw `series` on a log2 x axis and write `stem`.png and `stem`.svg; return both paths.

    The Pareto front of all series with `on_front` is a stepped grey line: what it runs through cannot be had
    better and cheaper at once among what was measured.
    """
    figure = Figure(figsize=(9.0, 5.6), dpi=150, layout="constrained")
    canvas = FigureCanvasAgg(figure)  # files only: pyplot and its windows stay out of it
    axes = figure.add_subplot()
    axes.set_xscale("log", base=2)
    # One label shows a plain number where matplotlib would write a power of two.
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.4g}"))
    front = pareto_front([p for s in series if s.on_front for p in s.points], larger_x=larger_x)
    if len(front) > 1:
        axes.step(
            [p.x for p in front], [p.y for p in front], where="pre" if larger_x else "post",
            color="#BBBBBB", lw=5, alpha=0.55, zorder=1, label="Pareto front",
        )  # fmt: skip
    for i, one in enumerate(series):
        points = sorted(one.points, key=lambda p: p.x)
        axes.plot(
            [p.x for p in points],
            [p.y for p in points],
            linestyle="-" if one.line else "none",
            marker=_MARKERS[i % len(_MARKERS)],
            color=_COLOURS[i % len(_COLOURS)],
            markersize=6.5 if one.line else 5.5,
            lw=1.6,
            zorder=3 if one.line else 2,
            label=one.name,
        )
    axes.margins(x=0.12, y=0.09)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.set_title(title, loc="left", fontsize=11)
    axes.grid(True, which="major", color="#E6E6E6", lw=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    legend = axes.legend(loc="best", framealpha=0.9, fontsize=8)
    if footnote:
        figure.supxlabel(footnote, fontsize=7.5, color="#555555", x=0.01, ha="left")
    figure.draw_without_rendering()
    _place_labels(canvas, axes, [p for s in series for p in s.points], [legend.get_window_extent()])
    png, svg = stem.with_name(stem.name + ".png"), stem.with_name(stem.name + ".svg")
    figure.savefig(png)
    with rc_context({"svg.hashsalt": stem.name}):  # with no date either, the same numbers give the same file
        figure.savefig(svg, metadata={"Date": None})
    return png, svg
