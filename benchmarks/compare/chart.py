"""The chart: six figures as bars in one SVG, drawn for light and for dark pages.

A system that acknowledges before a record is on the disks of a majority has an outlined bar and says so
beside its name: the difference is seen without colours too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from xml.sax.saxutils import escape

from benchmarks.compare.document import Document
from benchmarks.compare.figures import FIGURES, Figure, Value, values
from benchmarks.compare.table import OURS, number
from benchmarks.peers.catalog import LABELS

#: Figures of the panels, left to right and down, with their titles.
PANELS = (
    ("pipelined-100", "Pipelined publish, 100 B"),
    ("pipelined-1k", "Pipelined publish, 1 KiB"),
    ("replay-100", "Replay, 100 B"),
    ("sequential", "One publish, median"),
    ("failover", "Failover, median"),
    ("half.p99", "Publish to delivery at half load, p99"),
)

_WIDTH, _COLUMNS = 900, 2
_MARGIN, _GAP = 16, 24
_NAME_WIDTH, _VALUE_WIDTH = 184, 72
_ROW, _BAR = 21, 13
_HEAD = 44
_TOP, _BOTTOM = 44, 34

_STYLE = """
  text { font: 12px system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif; fill: #1f2328; }
  .title { font-size: 16px; font-weight: 600; }
  .panel { font-size: 13px; font-weight: 600; }
  .quiet { fill: #59636e; font-size: 11px; }
  .ours { font-weight: 600; }
  .axis { stroke: #59636e; stroke-width: 1; }
  .bar { fill: #8c959f; stroke: #8c959f; }
  .bar.us { fill: #0969da; stroke: #0969da; }
  .bar.loose { fill: none; stroke-dasharray: 3 2; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; }
    .quiet { fill: #9198a1; }
    .axis { stroke: #9198a1; }
    .bar { fill: #6e7681; stroke: #8b949e; }
    .bar.us { fill: #4493f8; stroke: #4493f8; }
    .bar.loose { fill: none; }
  }
"""


@dataclass(frozen=True, slots=True)
class _Bar:
    name: str
    ours: bool
    fsynced: bool
    value: float | None


def chart(document: Document) -> str:
    """The SVG's text. Panels without any value are left out."""
    found = values(document)
    panels = [
        (FIGURES[key], title, _bars(document, found, key))
        for key, title in PANELS
        if any((name, key) in found for name in document.systems)
    ]
    width = (_WIDTH - 2 * _MARGIN - (_COLUMNS - 1) * _GAP) // _COLUMNS
    height = _HEAD + _ROW * len(document.systems)
    rows = -(-len(panels) // _COLUMNS)
    total = _TOP + rows * height + _BOTTOM
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{total}" '
        f'viewBox="0 0 {_WIDTH} {total}" role="img" aria-labelledby="title">',
        '<title id="title">Holdfast and other systems, three nodes each, measured in one run</title>',
        f"<style>{_STYLE}</style>",
        _text(_MARGIN, 26, "Three nodes and the client on one machine, one run", "title"),
    ]
    for index, (figure, title, bars) in enumerate(panels):
        left = _MARGIN + index % _COLUMNS * (width + _GAP)
        parts += _panel(left, _TOP + index // _COLUMNS * height, width, figure, title, bars)
    legend = "Filled: on the disks of a majority when acknowledged. Outlined: acknowledged before that."
    return "\n".join([*parts, _text(_MARGIN, total - 12, legend, "quiet"), "</svg>", ""])


def _bars(document: Document, found: Mapping[tuple[str, str], Value], key: str) -> list[_Bar]:
    return [
        _Bar(
            LABELS.get(name, system.title),
            name == OURS,
            system.fsynced,
            found[name, key].value if (name, key) in found else None,
        )
        for name, system in document.systems.items()
        if system.runs(FIGURES[key].workload)
    ]


def _panel(left: int, top: int, width: int, figure: Figure, title: str, bars: list[_Bar]) -> list[str]:
    better = "more is better" if figure.more else "less is better"
    start = left + _NAME_WIDTH
    room = width - _NAME_WIDTH - _VALUE_WIDTH
    most = max(bar.value for bar in bars if bar.value is not None) or 1.0
    parts = [
        _text(left, top + 16, title, "panel"),
        _text(left, top + 31, f"{figure.unit}, {better}", "quiet"),
    ]
    first = top + _HEAD - 6
    for index, bar in enumerate(bars):
        y = first + index * _ROW
        middle = y + _BAR - 2
        parts.append(_text(start - 8, middle, bar.name, "ours" if bar.ours else "", anchor="end"))
        if bar.value is None:
            parts.append(_text(start + 6, middle, "none", "quiet"))
            continue
        length = max(1.0, bar.value / most * room)
        kind = "bar" + (" us" if bar.ours else "") + ("" if bar.fsynced else " loose")
        parts += [
            f'<rect class="{kind}" x="{start}" y="{y}" width="{length:.1f}" height="{_BAR}"/>',
            _text(round(start + length + 6), middle, number(bar.value), "ours" if bar.ours else ""),
        ]
    end = first + len(bars) * _ROW - 4
    return [*parts, f'<line class="axis" x1="{start}" y1="{first - 3}" x2="{start}" y2="{end}"/>']


def _text(x: int, y: int, text: str, kind: str = "", *, anchor: str = "start") -> str:
    attributes = (f' class="{kind}"' if kind else "") + (
        f' text-anchor="{anchor}"' if anchor != "start" else ""
    )
    return f'<text x="{x}" y="{y}"{attributes}>{escape(text)}</text>'
