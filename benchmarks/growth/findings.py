"""What was found beside what was to be reached, and the arithmetic of it. No I/O."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.compare.table import number


@dataclass(frozen=True, slots=True)
class Finding:
    """One row: ``here`` in words, resting on ``figures``; ``met`` is None when it was not measured."""

    what: str
    goal: str
    here: str
    met: bool | None
    figures: dict[str, Any] = field(default_factory=dict)


def share(what: str, least: float, ours: Sequence[float], base: Sequence[float], unit: str) -> Finding:
    """The median of ``ours`` as a share of the median of ``base``; both measured in pairs.

    Raises ValueError when they are not pairs, or none.
    """
    if not ours or len(ours) != len(base):
        raise ValueError(f"{len(ours)} and {len(base)} figures are no pairs")
    top, bottom = statistics.median(ours), statistics.median(base)
    ratio = top / bottom
    pairs = [one / other for one, other in zip(ours, base, strict=True)]
    return Finding(
        what,
        f"≥ {least:.0%}",
        f"{ratio:.1%} ({number(top)} : {number(bottom)} {unit}; pairs {min(pairs):.0%} … {max(pairs):.0%})",
        ratio >= least,
        {"ratio": ratio, "ours": list(ours), "base": list(base), "unit": unit},
    )


def no_longer_than(what: str, more: float, ours: Sequence[float], base: Sequence[float]) -> Finding:
    """The median of ``ours`` is at most ``more`` seconds over ``base``'s. Raises ValueError for none."""
    if not ours or not base:
        raise ValueError("nothing was measured")
    top, bottom = statistics.median(ours), statistics.median(base)
    return Finding(
        what,
        f"≤ {more:g} s more",
        f"{top:.2f} s : {bottom:.2f} s ({top - bottom:+.2f} s)",
        top - bottom <= more,
        {"difference": top - bottom, "ours": list(ours), "base": list(base), "unit": "s"},
    )


def at_most(what: str, most: float, seconds: Sequence[float], cuts: Sequence[float]) -> Finding:
    """Median and worst of ``seconds``; the worst counts. Raises ValueError for none."""
    if not seconds:
        raise ValueError("nothing was measured")
    middle, worst = statistics.median(seconds), max(seconds)
    return Finding(
        what,
        f"≤ {most:g} s, also the worst of {len(seconds)}",
        f"median {middle:.2f} s, worst {worst:.2f} s (best {min(seconds):.2f} s; "
        f"of it the cutting {statistics.median(cuts):.2f} s)",
        worst <= most,
        {"median": middle, "worst": worst, "seconds": list(seconds), "cutting": list(cuts)},
    )


def not_measured(what: str, goal: str, why: str) -> Finding:
    return Finding(what, goal, why, None)


def table(findings: Sequence[Finding]) -> list[str]:
    """Lines, in Markdown."""
    lines = ["| | goal | here | |", "|---|---|---|---|"]
    for one in findings:
        verdict = {True: "met", False: "**NOT MET**", None: "-"}[one.met]
        lines.append(f"| {_cell(one.what)} | {_cell(one.goal)} | {_cell(one.here)} | {verdict} |")
    return lines


def _cell(text: str) -> str:
    """On one line and within its cell."""
    return " ".join(text.split()).replace("|", "\\|")
