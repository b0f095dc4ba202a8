"""The report of a run, and its place in benchmarks/README.md."""

from __future__ import annotations

from pathlib import Path

from benchmarks.compare.document import Document
from benchmarks.compare.goals import goals
from benchmarks.compare.table import tables

BEGIN = "<!-- compare: begin -->"
END = "<!-- compare: end -->"


def report(document: Document) -> str:
    """The machine, the versions, all tables and the goals, in Markdown."""
    rounds = f"{document.rounds} round{'s' if document.rounds > 1 else ''}, interleaved"
    lines = [
        f"`{document.machine}`",
        "",
        f"Medians of {rounds}; {document.seconds:g} s per throughput workload. In brackets: the figure as a "
        "multiple of Holdfast's, which is 1.00; ↑ more is better, ↓ less.",
        "",
        *[f"* {system.title}: {system.version}" for system in document.systems.values()],
        *[f"* not compared: {name}: {why}" for name, why in document.missing.items()],
        "",
        *tables(document),
        *goals(document),
    ]
    return "\n".join(lines)


def check_markers(text: str, where: Path) -> None:
    """Raises ValueError unless both markers are there, once and in order."""
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ValueError(f"{where} needs one line {BEGIN} and, after it, one line {END}")


def embedded(text: str, between: str, where: Path) -> str:
    """``text`` with what stands between the markers replaced. Raises ValueError without markers."""
    check_markers(text, where)
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    return f"{before}{BEGIN}\n{between.strip()}\n{END}{after}"
