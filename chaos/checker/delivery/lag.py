"""What nodes say of a group, and hold of it: the same at the same index."""

from __future__ import annotations

from collections import defaultdict

from holdfast.chaos.checker.delivery_events import FlowAtRest, LagRead
from holdfast.chaos.checker.promises import Findings
from holdfast.chaos.checker.view import Log, View

_Place = tuple[str, str, int]


def check(view: View, findings: Findings) -> None:
    """All nodes against each other."""
    rests: dict[_Place, list[FlowAtRest]] = defaultdict(list)
    nodes: dict[str, None] = {}
    for rest in view.of(FlowAtRest):
        rests[rest.group, rest.topic, rest.partition].append(rest)
        nodes[rest.node] = None
    for place, held in rests.items():
        _same(place, held, list(nodes), findings)
    _lag(view, rests, findings)


def _same(place: _Place, held: list[FlowAtRest], nodes: list[str], findings: Findings) -> None:
    """*group-replicas*: at rest every node holds the same of every group.

    A node that differs goes on differently when it leads: it hands out what is
    settled, or forgets what waits.
    """
    where = f"group {place[0]} at {place[1]}/{place[2]}"
    without = [node for node in nodes if node not in {rest.node for rest in held}]
    if without:
        findings.add("group-replicas", f"{where}: nothing of it is on {', '.join(without)}")
    first = held[0]
    for other in held[1:]:
        pair = f"{where} on {first.node} and {other.node}"
        for name in ("floor", "settled", "retries", "digest"):
            ours, theirs = getattr(first, name), getattr(other, name)
            if ours != theirs:
                findings.add("group-replicas", f"{pair}: {name} {_shown(ours)} and {_shown(theirs)}")
                break


def _shown(what: object) -> str:
    text = repr(what)
    return text if len(text) <= 120 else f"{text[:117]}..."


def _lag(view: View, rests: dict[_Place, list[FlowAtRest]], findings: Findings) -> None:
    """*lag-wrong*: two nodes that have applied the same index say the same lag; at rest it is the true one.

    It is a function of what is applied, and exact: every broker can be asked.
    """
    said: dict[tuple[str, str, int, int], LagRead] = {}
    for read in view.of(LagRead):
        where = f"group {read.group} at {read.topic}/{read.partition}"
        first = said.setdefault((read.group, read.topic, read.partition, read.applied_index), read)
        if (first.records, first.oldest_append_us) != (read.records, read.oldest_append_us):
            findings.add(
                "lag-wrong",
                f"{where} as of index {read.applied_index}: {first.node} says {first.records} records, the"
                " oldest of"
                f" {first.oldest_append_us}, {read.node} says {read.records} of {read.oldest_append_us}",
                read.at,
            )
        if (read.records == 0) != (read.oldest_append_us == 0):
            findings.add(
                "lag-wrong",
                f"{where}: {read.node} says {read.records} records and that the oldest is of"
                f" {read.oldest_append_us}",
                read.at,
            )
        if read.topic in view.cut:
            continue
        log = view.log((read.topic, read.partition))
        for rest in rests.get((read.group, read.topic, read.partition), ()):
            if (
                log.known
                and rest.applied_index == read.applied_index
                and read.records != (true := lag(log, rest))
            ):
                findings.add(
                    "lag-wrong",
                    f"{where} at rest: {read.node} says {read.records} records; {true} are not settled",
                    read.at,
                )
                break


def lag(log: Log, rest: FlowAtRest) -> int:
    """Records that are not settled, as the rows of a node have it."""
    floor = max(rest.floor, log.start)
    return log.end - floor - sum(max(0, min(end, log.end) - max(first, floor)) for first, end in rest.settled)
