"""The timeline of a drill as SVG: acks, latency, who led, what was broken. Drawn by hand, no script."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from holdfast.chaos.checker.history import Fault

_WIDTH = 960
_LEFT = 64
_RIGHT = 12
_PLOT = _WIDTH - _LEFT - _RIGHT
_BUCKETS = 120
#: Two looks of a leader further apart are two times of leading.
_BAND_GAP_SECONDS = 0.7
_MIN_LATENCY_MS = 0.5


@dataclass(frozen=True, slots=True)
class Timeline:
    """What is drawn. Times are seconds.

    Attributes:
        acks: (begun, acknowledged) of publishes.
        leaders: (time, node, term) of looks at a leader.
        end: where the time axis ends.
    """

    acks: Sequence[tuple[float, float]]
    leaders: Sequence[tuple[float, str, int]]
    faults: Sequence[Fault]
    nodes: Sequence[str]
    end: float

    @property
    def bucket(self) -> float:
        """Seconds of one bucket."""
        return max(self.end, 0.1) / _BUCKETS


def draw(line: Timeline) -> str:
    """The plots one above the other, as one SVG element."""
    faults_height = 14 * max(1, len(_rows(line.faults)))
    leaders_height = 16 * max(1, len(line.nodes))
    tops = [20, 20 + faults_height + 24]
    tops.append(tops[1] + leaders_height + 28)
    tops.append(tops[2] + 150 + 28)
    bottom = tops[3] + 150
    parts = [
        f'<svg viewBox="0 0 {_WIDTH} {bottom + 34}" role="img" aria-label="timeline of the drill">',
        *_shades(line, tops[1], bottom),
        *_faults(line, tops[0]),
        *_leaders(line, tops[1], leaders_height),
        *_throughput(line, tops[2], 150),
        *_latency(line, tops[3], 150),
        *_seconds(line, tops[1], bottom),
        "</svg>",
    ]
    return "\n".join(parts)


def _x(line: Timeline, at: float) -> float:
    return _LEFT + _PLOT * min(max(at / max(line.end, 0.1), 0.0), 1.0)


def _text(x: float, y: float, words: str, more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" {more}>{escape(words)}</text>'


def _title(top: float, words: str) -> str:
    return _text(_LEFT, top - 7, words, 'class="title"')


def _rows(faults: Sequence[Fault]) -> list[list[Fault]]:
    """Faults in rows in which none covers another."""
    rows: list[list[Fault]] = []
    for fault in sorted(faults, key=lambda fault: fault.at):
        for row in rows:
            ended = row[-1].ended
            if ended is not None and ended <= fault.at:
                row.append(fault)
                break
        else:
            rows.append([fault])
    return rows


def _shades(line: Timeline, top: float, bottom: float) -> list[str]:
    return [
        f'<rect class="fault" x="{_x(line, fault.at):.1f}" y="{top}" '
        f'width="{_span(line, fault.at, fault.ended):.1f}" height="{bottom - top}"/>'
        for fault in line.faults
    ]


def _span(line: Timeline, begin: float, end: float | None) -> float:
    return max(_x(line, line.end if end is None else end) - _x(line, begin), 1.5)


def _faults(line: Timeline, top: float) -> list[str]:
    parts = [_title(top, "faults")]
    for number, row in enumerate(_rows(line.faults)):
        y = top + 14 * number
        for fault in row:
            begin, width = _x(line, fault.at), _span(line, fault.at, fault.ended)
            label = f"{fault.name} {fault.target}"
            tip = f"{label}: {fault.detail} ({fault.at:.2f} s to {_ended(fault)})"
            parts.append(
                f'<rect class="bar" x="{begin:.1f}" y="{y}" width="{width:.1f}" height="12">'
                f"<title>{escape(tip)}</title></rect>"
            )
            # Towards the right edge there is room on the left only.
            late = begin > _LEFT + _PLOT * 0.8
            parts.append(
                _text(
                    begin + (width - 3 if late else 3),
                    y + 10,
                    label,
                    f'text-anchor="{"end" if late else "start"}"',
                )
            )
    return parts


def _ended(fault: Fault) -> str:
    return "the end" if fault.ended is None else f"{fault.ended:.2f} s"


def bands(leaders: Sequence[tuple[float, str, int]]) -> list[tuple[str, int, float, float]]:
    """(node, term, from, to) of uninterrupted leading."""
    found: list[tuple[str, int, float, float]] = []
    last: dict[str, int] = {}
    for at, node, term in sorted(leaders):
        place = last.get(node)
        if place is not None and found[place][1] == term and at - found[place][3] < _BAND_GAP_SECONDS:
            found[place] = (node, term, found[place][2], at)
        else:
            last[node] = len(found)
            found.append((node, term, at, at))
    return found


def _leaders(line: Timeline, top: float, height: float) -> list[str]:
    parts = [_title(top, "who leads (term)")]
    for number, node in enumerate(line.nodes):
        y = top + 16 * number
        parts.append(_text(_LEFT - 6, y + 11, node, 'text-anchor="end"'))
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_LEFT + _PLOT}" y1="{y + 15}" y2="{y + 15}"/>')
    for node, term, begin, end in bands(line.leaders):
        if node not in line.nodes:
            continue
        number = list(line.nodes).index(node)
        y = top + 16 * number
        parts.append(
            f'<rect class="leader c{number % 5}" x="{_x(line, begin):.1f}" y="{y + 1}" '
            f'width="{_span(line, begin, end):.1f}" height="13">'
            f"<title>{escape(node)} leads term {term}, {begin:.2f} s to {end:.2f} s</title></rect>"
        )
        parts.append(_text(_x(line, begin) + 3, y + 11, str(term), 'class="on"'))
    return parts


def _throughput(line: Timeline, top: float, height: float) -> list[str]:
    counts = [0] * _BUCKETS
    for _, ended in line.acks:
        counts[min(int(ended / line.bucket), _BUCKETS - 1)] += 1
    rates = [count / line.bucket for count in counts]
    highest = _nice(max(rates, default=1.0))
    points = [(line.bucket * (i + 0.5), top + height * (1 - rate / highest)) for i, rate in enumerate(rates)]
    area = " ".join(f"{_x(line, at):.1f},{y:.1f}" for at, y in points)
    first, last = _x(line, points[0][0]), _x(line, points[-1][0])
    parts = [_title(top, "acknowledged records per second"), *_box(top, height)]
    for share in (0.0, 0.5, 1.0):
        parts += _tick(top + height * (1 - share), f"{highest * share:g}")
    parts.append(
        f'<polygon class="area" points="{first:.1f},{top + height} {area} {last:.1f},{top + height}"/>'
    )
    parts.append(f'<polyline class="acks" points="{area}"/>')
    return parts


def _latency(line: Timeline, top: float, height: float) -> list[str]:
    buckets: list[list[float]] = [[] for _ in range(_BUCKETS)]
    for begun, ended in line.acks:
        buckets[min(int(ended / line.bucket), _BUCKETS - 1)].append((ended - begun) * 1e3)
    worst = max((max(bucket) for bucket in buckets if bucket), default=1.0)
    decades = max(1, math.ceil(math.log10(max(worst, 1.0) / _MIN_LATENCY_MS)))

    def y(milliseconds: float) -> float:
        share = math.log10(max(milliseconds, _MIN_LATENCY_MS) / _MIN_LATENCY_MS) / decades
        return top + height * (1 - min(share, 1.0))

    parts = [
        _title(top, "latency of acknowledged publishes, ms (log): p50 and p99 of each bucket"),
        *_box(top, height),
    ]
    for decade in range(decades + 1):
        milliseconds = _MIN_LATENCY_MS * 10**decade
        parts += _tick(y(milliseconds), f"{milliseconds:g}")
    for name, share in (("p99", 0.99), ("p50", 0.5)):
        for run in _runs(buckets):
            points = " ".join(
                f"{_x(line, line.bucket * (i + 0.5)):.1f},{y(quantile(buckets[i], share)):.1f}" for i in run
            )
            if len(run) == 1:
                x, _, height_of = points.partition(",")
                parts.append(f'<circle class="{name}" cx="{x}" cy="{height_of}" r="1.6"/>')
            else:
                parts.append(f'<polyline class="{name}" points="{points}"/>')
    parts.append(_text(_LEFT + _PLOT - 4, top + 12, "p99", 'class="p99 key" text-anchor="end"'))
    parts.append(_text(_LEFT + _PLOT - 34, top + 12, "p50", 'class="p50 key" text-anchor="end"'))
    return parts


def _runs(buckets: Sequence[Sequence[float]]) -> list[list[int]]:
    """Indexes of buckets that are not empty, in unbroken runs: a silence shows as a gap in the line."""
    runs: list[list[int]] = []
    for index, bucket in enumerate(buckets):
        if not bucket:
            continue
        if runs and runs[-1][-1] == index - 1:
            runs[-1].append(index)
        else:
            runs.append([index])
    return runs


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that ``share`` of all do not exceed; 0.0 of none."""
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, math.ceil(share * len(ordered)) - 1))]


def _box(top: float, height: float) -> list[str]:
    return [f'<line class="axis" x1="{_LEFT}" x2="{_LEFT}" y1="{top}" y2="{top + height}"/>']


def _tick(y: float, words: str) -> list[str]:
    return [
        f'<line class="grid" x1="{_LEFT}" x2="{_LEFT + _PLOT}" y1="{y:.1f}" y2="{y:.1f}"/>',
        _text(_LEFT - 6, y + 4, words, 'text-anchor="end"'),
    ]


def _seconds(line: Timeline, top: float, bottom: float) -> list[str]:
    step = _nice(max(line.end, 0.1) / 10)
    parts = []
    for number in range(int(line.end / step) + 1):
        x = _x(line, number * step)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{bottom}"/>')
        parts.append(_text(x, bottom + 16, f"{number * step:g} s", 'text-anchor="middle"'))
    return parts


def _nice(value: float) -> float:
    """The next of 1, 2, 5, 10, 20, … that is not smaller."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= value)
