"""The tables, in Markdown: systems in rows, one table per group of figures, Holdfast as 1.00."""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.compare.document import Document
from benchmarks.compare.figures import FIGURES, GROUPS, Figure, Value, reasons, values

OURS = "holdfast"
Values = Mapping[tuple[str, str], Value]


def tables(document: Document) -> list[str]:
    """Lines of all tables that have a figure, each followed by why cells are empty and how rounds differ."""
    found, why = values(document), reasons(document)
    lines: list[str] = []
    for group in GROUPS:
        figures = [f for f in FIGURES.values() if f.group == group and _any(f, document, found, why)]
        if figures:
            lines += [f"### {group}", "", *_table(document, figures, found, why), ""]
    return lines


def number(value: float) -> str:
    """With as many digits as mean something: ``812,657``, ``41.2``, ``2.35``."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:,.1f}" if abs(value) >= 10 else f"{value:,.2f}"


def _any(figure: Figure, document: Document, found: Values, why: Mapping[tuple[str, str], str]) -> bool:
    """Whether anything was tried for this column."""
    return any((s, figure.key) in found or (s, figure.workload) in why for s in document.systems)


def _table(
    document: Document, figures: list[Figure], found: Values, why: Mapping[tuple[str, str], str]
) -> list[str]:
    heads = [f"{figure.title}, {figure.unit} {'↑' if figure.more else '↓'}" for figure in figures]
    lines = [f"| | {' | '.join(heads)} |", f"|---|{'---:|' * len(figures)}"]
    notes: dict[str, str] = {}
    for name, system in document.systems.items():
        if not any(system.runs(figure.workload) for figure in figures):
            continue
        row = f"**{system.row}**" if name == OURS else system.row
        cells = [_cell(name, figure, found, why, notes) for figure in figures]
        lines.append(f"| {row} | {' | '.join(cells)} |")
    below = [*_spread(document, figures, found), *[f"({mark}) {text}  " for text, mark in notes.items()]]
    return [*lines, "", *below] if below else lines


def _cell(
    system: str, figure: Figure, found: Values, why: Mapping[tuple[str, str], str], notes: dict[str, str]
) -> str:
    reason = why.get((system, figure.workload))
    mark = ""
    if reason is not None:
        text = f"{system}, {figure.workload}: {reason}"
        mark = f" ({notes.setdefault(text, str(len(notes) + 1))})"
    value, ours = found.get((system, figure.key)), found.get((OURS, figure.key))
    if value is None:
        return f"none{mark}" if mark else "-"
    if ours is None or not ours.value:
        return f"{number(value.value)}{mark}"
    return f"{number(value.value)} ({ratio(value.value, ours.value)}){mark}"


def ratio(value: float, ours: float) -> str:
    """``value`` in units of Holdfast's: two digits that count."""
    share = value / ours
    if share >= 10:
        return f"{share:,.0f}"
    return f"{share:.2f}" if share >= 0.1 else f"{share:.2g}"


def _spread(document: Document, figures: list[Figure], found: Values) -> list[str]:
    """How far the rounds were apart, at most; nothing after a single round."""
    if document.rounds < 2:
        return []
    widest = max(
        (
            ((value.high - value.low) / value.value, document.systems[name].title, figure)
            for name in document.systems
            for figure in figures
            if (value := found.get((name, figure.key))) and value.value
        ),
        key=lambda item: item[0],
        default=None,
    )
    if widest is None:
        return []
    share, title, figure = widest
    return [f"Rounds differ by at most {share:.0%} of the median ({title}, {figure.title}).  "]
