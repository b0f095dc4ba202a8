"""Replays show what the log holds, whole, and linearizable ones the latest of it."""

from __future__ import annotations

import math
from bisect import bisect_left
from itertools import chain

from holdfast.chaos.checker.history import Committed, Outcome, Read
from holdfast.chaos.checker.promises import Findings
from holdfast.chaos.checker.view import Log, Place, View


class Floor:
    """The highest number known by a time: a step function, asked after it was built."""

    def __init__(self, steps: list[tuple[float, int]]) -> None:
        steps.sort()
        self._times = [time for time, _ in steps]
        self._highest: list[int] = []
        high = -1
        for _, number in steps:
            high = max(high, number)
            self._highest.append(high)

    def before(self, time: float) -> int:
        """The highest of what was known strictly before ``time``; -1: nothing was."""
        place = bisect_left(self._times, time)
        return self._highest[place - 1] if place else -1


def check(view: View, findings: Findings) -> None:
    """Replays against the logs, acknowledgements and each other; reads of group offsets too."""
    ends: dict[Place, list[tuple[float, int]]] = {}
    for publish in chain(view.publishes, view.transacted.values()):
        if publish.outcome is Outcome.OK and publish.partition is not None and publish.offset is not None:
            done = publish.ended if publish.ended is not None else math.inf
            steps = ends.setdefault((publish.topic, publish.partition), [])
            steps.append((done, publish.offset + 1))
    for place, reads in view.reads.items():
        _partition(view, place, reads, ends.get(place, []), findings)
    _offsets(view, findings)


def _partition(
    view: View, place: Place, reads: list[Read], known: list[tuple[float, int]], findings: Findings
) -> None:
    # Once a topic has been deleted it may be another one: each read by itself, then.
    cut = view.cut.get(place[0], math.inf)
    log = view.log(place) if cut == math.inf else Log()
    same_topic = [read for read in reads if _before(read.ended, cut)]
    for read in reads:
        _gap_free(read, log, findings)
        if not read.records or log.same(read.records):
            continue
        for offset, value in read.records:
            got = f"{_name(read)} got {value!r} at offset {offset}"
            wrong = log.contradiction(offset, value) if _before(read.ended, cut) else ""
            if wrong:
                findings.add("read-mismatch", f"{got}; {wrong}", read.started)
                break
            fault = view.origin_fault(place[0], value)
            if fault is not None:
                findings.add(fault[0], f"{got}: {fault[1]}", read.started)
                break
    # Whatever a replay shows is committed, wherever it came from.
    shown = [
        (read.ended, _end(read))
        for read in same_topic
        if read.records and read.ended is not None and read.outcome is Outcome.OK
    ]
    floor = Floor(known + shown)
    for read in filter(_fresh, same_topic):
        need = floor.before(read.started)
        if max(_end(read), read.from_offset) < need:
            findings.add(
                "stale-read",
                f"{_name(read)} ended before offset {_end(read)}; {need - 1} was known before it began",
                read.started,
            )


def _before(ended: float | None, cut: float) -> bool:
    """Was it over before the topic's first deletion began? Infinite: there was none."""
    return cut == math.inf or (ended is not None and ended < cut)


def _fresh(read: Read) -> bool:
    return read.to_end and read.linearizable and read.outcome is Outcome.OK


def _name(read: Read) -> str:
    on = f" on {read.replica}" if read.replica else ""
    return f"the replay of {read.topic}/{read.partition} from {read.from_offset} by {read.client}{on}"


def _end(read: Read) -> int:
    """The offset after the last one that was shown."""
    return read.records[-1][0] + 1 if read.records else max(read.from_offset, read.start_offset)


def _gap_free(read: Read, log: Log, findings: Findings) -> None:
    # What lies below the range asked for is not missed.
    if log.known and read.start_offset > max(log.start, read.from_offset):
        findings.add(
            "read-gap",
            f"{_name(read)} was told the log begins at {read.start_offset}; it begins at {log.start}",
            read.started,
        )
    expected = max(read.from_offset, read.start_offset)
    offsets = [offset for offset, _ in read.records]
    if offsets == list(range(expected, expected + len(offsets))):
        return
    for offset in offsets:
        if offset != expected:
            findings.add("read-gap", f"{_name(read)} got offset {offset} instead of {expected}", read.started)
            return
        expected += 1


def _offsets(view: View, findings: Findings) -> None:
    for (group, topic, partition), reads in view.offset_reads.items():
        cut = view.cut.get(topic, math.inf)
        told = view.groups.get((group, topic, partition), [])
        confirmed = [(event.at, event.offset) for event in told if isinstance(event, Committed)]
        answered = [
            read
            for read in reads
            if read.linearizable and read.outcome is Outcome.OK and _before(read.ended, cut)
        ]
        shown = [
            (read.ended, read.offset)
            for read in answered
            if read.ended is not None and read.offset is not None
        ]
        floor = Floor(confirmed + shown)
        for read in answered:
            need = floor.before(read.started)
            got = read.offset if read.offset is not None else -1
            if got < need:
                findings.add(
                    "stale-offset",
                    f"group {group} at {topic}/{partition}: read {read.offset},"
                    f" {need} was confirmed before it began",
                    read.started,
                )
