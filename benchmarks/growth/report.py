"""The report of a run, and its place in benchmarks/README.md."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.compare.document import Machine
from benchmarks.growth.findings import Finding, table

BEGIN, END = "<!-- growth: begin -->", "<!-- growth: end -->"


def text(machine: Machine, findings: Sequence[Finding]) -> str:
    return "\n".join([f"`{machine}`", "", *table(findings)])


def write_json(path: Path, machine: Machine, took: float, findings: Sequence[Finding]) -> None:
    """``took``: seconds of all of it."""
    document = {
        "machine": asdict(machine),
        "took": round(took, 1),
        "findings": [asdict(one) for one in findings],
    }
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def embedded(readme: str, between: str) -> str:
    """``readme`` with what stands between the markers replaced.

    Raises ValueError unless both are there, once and in order.
    """
    if readme.count(BEGIN) != 1 or readme.count(END) != 1 or readme.index(BEGIN) > readme.index(END):
        raise ValueError(f"benchmarks/README.md needs one line {BEGIN} and, after it, one line {END}")
    before, _, rest = readme.partition(BEGIN)
    after = rest.partition(END)[2]
    return f"{before}{BEGIN}\n{between.strip()}\n{END}{after}"
