"""Plans as text, one a line: what a failing seed did stays the same when seeds draw something else.

::

    # why it is kept
    {"seed": 7, "nodes": 3, "settings": 1, "storm": 6.5, "faults": [[0.31, "crash", "n1", "n2", 0.05, 0.4]]}

A fault is its time, kind, target, other node, span and amount; see ``plan.Fault``. A plan may
have an ``"order": [share, begin, end, rounds]``; see ``plan.Order``; and ``"guests": [name, ...]``.
"""

from __future__ import annotations

from dataclasses import astuple

import msgspec

from holdfast.chaos.sim.plan import GUESTS, KINDS, LONGEST, SETTINGS, Fault, Order, Plan


class _Line(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    seed: int
    nodes: int
    settings: int
    storm: float
    faults: list[tuple[float, str, str, str, float, float]]
    order: tuple[float, float, float, int] | None = None
    guests: tuple[str, ...] = ()


def to_line(plan: Plan) -> str:
    """A plan as one line of JSON."""
    faults = [(f.at, f.kind, f.target, f.other, f.span, f.amount) for f in plan.faults]
    order = None if plan.order is None else astuple(plan.order)
    line = _Line(plan.seed, plan.nodes, plan.settings, plan.storm, faults, order, plan.guests)
    return msgspec.json.encode(line).decode()


def from_line(text: str) -> Plan:
    """What ``to_line`` wrote.

    Raises:
        ValueError: it is no plan.
    """
    try:
        line = msgspec.json.decode(text, type=_Line)
    except msgspec.DecodeError as error:
        raise ValueError(f"not a plan: {error}") from error
    if line.nodes < 1:
        raise ValueError(f"not a plan: {line.nodes} nodes")
    if not 0 <= line.settings < len(SETTINGS):
        raise ValueError(f"not a plan: no settings {line.settings}; there are 0 to {len(SETTINGS) - 1}")
    nodes = {f"n{number}" for number in range(1, line.nodes + 1)}
    faults = []
    for at, kind, target, other, span, amount in line.faults:
        if kind not in KINDS:
            raise ValueError(f"not a plan: no fault of kind {kind!r}")
        if target not in nodes | {"leader"} or other not in nodes:
            raise ValueError(f"not a plan: no node {target!r} or no node {other!r} among {line.nodes}")
        faults.append(Fault(at, kind, target, other, span, amount))
    order = None
    if line.order is not None:
        order = Order(*line.order)
        if not (
            0 < order.share <= 1 and 0 <= order.begin < order.end <= LONGEST and 0 <= order.rounds <= 1000
        ):
            raise ValueError(f"not a plan: no order {list(line.order)}: a share, a begin, an end, rounds")
    for guest in line.guests:
        if guest not in GUESTS:
            raise ValueError(f"not a plan: no guests {guest!r}")
    return Plan(line.seed, line.nodes, line.settings, line.storm, tuple(faults), order, line.guests)


def read_plans(text: str) -> list[Plan]:
    """The plans of a file; empty lines and those that begin with ``#`` are left out.

    Raises:
        ValueError: a line is no plan; its number is named.
    """
    plans = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            plans.append(from_line(line))
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from error
    return plans
