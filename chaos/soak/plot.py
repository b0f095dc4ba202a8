"""A run as one self-contained page: plots as inline SVG, no script, nothing fetched."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass

_WIDTH, _HEIGHT = 960, 180
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 150, 24, 22
_COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf", "#8c564b", "#7f7f7f", "#bcbd22")

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Panel:
    """Lines over the same seconds; a gap of more than ``gap_s`` between samples is left open."""

    title: str
    unit: str
    lines: dict[str, Sequence[Point]]
    gap_s: float = 15.0


@dataclass(frozen=True, slots=True)
class Mark:
    """Something that happened at ``at`` seconds."""

    at: float
    label: str
    colour: str = "#d62728"


def page(title: str, summary: Sequence[str], panels: Sequence[Panel], marks: Sequence[Mark]) -> str:
    """The HTML document."""
    end = max((t for p in panels for line in p.lines.values() for t, _ in line), default=1.0) or 1.0
    body = "\n".join(_panel(panel, marks, end) for panel in panels)
    notes = "".join(f"<li>{mark.at:.0f} s: {html.escape(mark.label)}</li>" for mark in marks)
    text = html.escape("\n".join(summary))
    return (
        "<!doctype html><html lang=en><meta charset=utf-8>"
        f"<title>{html.escape(title)}</title>"
        "<style>body{font:14px sans-serif;max-width:980px;margin:2em auto;color:#222}"
        "pre{background:#f4f4f4;padding:8px;white-space:pre-wrap}svg{display:block;margin:8px 0}</style>"
        f"<h1>{html.escape(title)}</h1><pre>{text}</pre>{body}"
        f"<h2>What was done to it</h2><ul>{notes}</ul></html>\n"
    )


def _panel(panel: Panel, marks: Sequence[Mark], end: float) -> str:
    top = max((v for line in panel.lines.values() for _, v in line), default=1.0) or 1.0
    wide, high = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM

    def x(t: float) -> float:
        return _LEFT + wide * t / end

    def y(v: float) -> float:
        return _TOP + high * (1 - v / top)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{_HEIGHT}" font-size="11">',
        f'<text x="{_LEFT}" y="14" font-weight="bold">{html.escape(panel.title)}</text>',
    ]
    for share in (0.0, 0.5, 1.0):
        parts.append(
            f'<line x1="{_LEFT}" x2="{_LEFT + wide}" y1="{y(top * share):.1f}" y2="{y(top * share):.1f}" '
            'stroke="#ddd"/>'
            f'<text x="{_LEFT - 6}" y="{y(top * share) + 4:.1f}" text-anchor="end">'
            f"{_number(top * share)} {html.escape(panel.unit)}</text>"
        )
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        at = end * share
        parts.append(f'<text x="{x(at):.1f}" y="{_HEIGHT - 6}" text-anchor="middle">{at:.0f} s</text>')
    for mark in marks:
        parts.append(
            f'<line x1="{x(mark.at):.1f}" x2="{x(mark.at):.1f}" y1="{_TOP}" y2="{_TOP + high}" '
            f'stroke="{mark.colour}" stroke-dasharray="2 3"><title>{html.escape(mark.label)}</title></line>'
        )
    for place, (name, line) in enumerate(panel.lines.items()):
        colour = _COLOURS[place % len(_COLOURS)]
        for stretch in _stretches(line, panel.gap_s):
            points = " ".join(f"{x(t):.1f},{y(v):.1f}" for t, v in stretch)
            parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.4"/>')
        parts.append(
            f'<text x="{_LEFT + wide + 10}" y="{_TOP + 12 + 14 * place}" fill="{colour}">'
            f"{html.escape(name)}</text>"
        )
    return "".join(parts) + "</svg>"


def _stretches(line: Sequence[Point], gap_s: float) -> list[list[Point]]:
    found: list[list[Point]] = []
    for point in line:
        if not found or point[0] - found[-1][-1][0] > gap_s:
            found.append([])
        found[-1].append(point)
    return found


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 or value == 0 else f"{value:.2f}"
