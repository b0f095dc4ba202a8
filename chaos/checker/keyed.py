"""Records with idempotency keys: in the log once within the topic's window, and answers name that place."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from itertools import pairwise
from typing import NamedTuple

from holdfast.chaos.checker.history import Keyed, Outcome
from holdfast.chaos.checker.promises import Findings
from holdfast.chaos.checker.view import Place, View

#: Topic and idempotency key.
_Key = tuple[str, str]


class _Copy(NamedTuple):
    """A record of a key in the log; in the order of the log's time."""

    appended_us: int
    partition: int
    offset: int
    value: str

    def __str__(self) -> str:
        return f"{self.value!r} at {self.partition} offset {self.offset}"


def check(view: View, findings: Findings) -> None:
    """Keyed publishes against the logs at rest."""
    if not view.keyed:
        return
    copies = _copies(view)
    _once(view, copies, findings)
    if view.replicas:
        for publish in view.keyed:
            if publish.outcome is Outcome.OK and view.judged(publish.topic, publish.started):
                _answer(view, publish, copies.get((publish.topic, publish.idempotency_key), []), findings)


def _copies(view: View) -> dict[_Key, list[_Copy]]:
    found: dict[_Key, list[_Copy]] = defaultdict(list)
    for place, log in list(view.logs.items()):
        times = _times(view, place)
        for offset, value in enumerate(log.values, log.start):
            publish = view.keyed_by_value.get(value) if value is not None else None
            if publish is None or publish.topic != place[0]:
                continue
            at = bisect_right(times, (offset, 1 << 63)) - 1
            appended_us = times[at][1] if at >= 0 else 0
            key = (publish.topic, publish.idempotency_key)
            found[key].append(_Copy(appended_us, place[1], offset, publish.value))
    for held in found.values():
        held.sort()
    return found


def _times(view: View, place: Place) -> list[tuple[int, int]]:
    """First offset and append time of each batch."""
    held = view.replicas.get(place, [])
    return max((replica.appended for replica in held), key=len, default=[])


def _once(view: View, copies: dict[_Key, list[_Copy]], findings: Findings) -> None:
    for (topic, key), held in copies.items():
        for one, two in pairwise(held):
            known_us = int(view.keyed_by_value[one.value].window * 1_000_000)
            apart_us = two.appended_us - one.appended_us
            if apart_us < known_us:
                findings.add(
                    "repeated-key",
                    f"key {key!r} of {topic}: {one} and {two}, appended {apart_us / 1e6:.6f} s apart,"
                    f" and a key is known for {known_us / 1e6:g} s",
                )


def _answer(view: View, publish: Keyed, held: list[_Copy], findings: Findings) -> None:
    """The place that was told is the one of the key's record."""
    topic, value = publish.topic, publish.value
    at = publish.ended if publish.ended is not None else publish.started
    log = view.log((topic, publish.partition or 0))
    offset = publish.offset
    if publish.partition is None or offset is None or not log.known or offset < log.start:
        return
    here = f"{topic}/{publish.partition} offset {offset}"
    told = f"{value!r} of key {publish.idempotency_key!r} was acknowledged at {here}"
    if log.at(offset) is None:
        findings.add("lost-record", f"{told}; nothing is there", at)
        return
    named = next(
        (copy for copy in held if (copy.partition, copy.offset) == (publish.partition, offset)), None
    )
    if named is None:
        findings.add("repeated-key", f"{told}; {log.at(offset)!r} is there, which is not of this key", at)
    elif not publish.duplicate and named.value != value:
        findings.add("repeated-key", f"{told} as new; {named.value!r} is there", at)
    else:
        newer = _newer(view, publish, held[held.index(named) + 1 :])
        if newer is not None:
            findings.add("repeated-key", f"{told}, after {newer} had been acknowledged", at)


def _newer(view: View, publish: Keyed, later: list[_Copy]) -> _Copy | None:
    """A later copy of the key that was acknowledged as stored before this publish was begun."""
    for copy in later:
        other = view.keyed_by_value[copy.value]
        if other.outcome is Outcome.OK and other.ended is not None and other.ended < publish.started:
            return copy
    return None
