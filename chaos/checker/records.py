"""Acknowledged records are there, once, in place and in order; nothing else is."""

from __future__ import annotations

import math
from collections import Counter
from itertools import chain

from holdfast.chaos.checker.history import Keyed, Outcome, Publish
from holdfast.chaos.checker.promises import Findings
from holdfast.chaos.checker.view import Log, Place, View

_Spots = dict[str, tuple[str, int, int]]


def check(view: View, findings: Findings) -> None:
    """Publishes against the logs at rest."""
    spots: _Spots = {}
    fixed = _fixed_partitions(view)
    keys: dict[tuple[str, str], tuple[int, str]] = {}
    gone = _trimmed(view)
    for place, log in list(view.logs.items()):
        before = gone.get(place, [])
        _walk(view, place, log, before, spots, findings)
        if place[0] in fixed:
            _keys(view, place, log, before, keys, findings)
    _room(view, findings)
    _acked(view, spots, findings)
    _real_time(view, findings)


def _trimmed(view: View) -> dict[Place, list[Publish]]:
    """What was acknowledged in each partition below its start, by offset: it was there, and in order."""
    found: dict[Place, list[Publish]] = {}
    for publish in view.publishes:
        if publish.outcome is not Outcome.OK or publish.partition is None or publish.offset is None:
            continue
        place = (publish.topic, publish.partition)
        log = view.logs.get(place)
        below = log is not None and log.known and publish.offset < log.start
        if below and view.judged(publish.topic, publish.started):
            found.setdefault(place, []).append(publish)
    for held in found.values():
        held.sort(key=lambda publish: publish.offset or 0)
    return found


def _walk(
    view: View, place: Place, log: Log, before: list[Publish], spots: _Spots, findings: Findings
) -> None:
    topic, partition = place
    last: dict[str, int] = {}
    for publish in before:
        if publish.idempotent:
            _in_order(publish, f"{topic}/{partition} offset {publish.offset}", last, findings)
    for offset, value in enumerate(log.values, log.start):
        if value is None or (topic, partition, offset) in view.copies:
            continue
        here = f"{topic}/{partition} offset {offset}"
        wrong = view.origin_fault(topic, value, copied=False)
        if wrong is not None:
            findings.add(wrong[0], f"{value!r} at {here}: {wrong[1]}")
            if wrong[0] == "unpublished-record":
                continue
        if value in view.keyed_by_value:
            continue  # judged by its idempotency key
        publish = view.by_value[value]
        first = spots.setdefault(value, (topic, partition, offset))
        if first != (topic, partition, offset):
            if publish.idempotent:
                findings.add("duplicate-record", f"{value!r} at {here} and {first[1]} offset {first[2]}")
            elif first[1] == partition and publish.outcome is Outcome.OK and publish.offset == offset:
                # A retry was the one that was acknowledged: remember where.
                spots[value] = (topic, partition, offset)
            continue
        if publish.idempotent:
            _in_order(publish, here, last, findings)


def _in_order(publish: Publish, here: str, last: dict[str, int], findings: Findings) -> None:
    highest = last.get(publish.producer)
    if highest is not None and publish.sequence < highest:
        findings.add(
            "producer-order",
            f"{publish.producer} number {publish.sequence} at {here} lies behind number {highest}",
        )
    else:
        last[publish.producer] = publish.sequence


def _room(view: View, findings: Findings) -> None:
    """No more offsets were given than there were records: what was never there cannot have been trimmed."""
    ends: Counter[str] = Counter()
    for (topic, _), held in view.replicas.items():
        ends[topic] += max(replica.end_offset for replica in held)
    every: list[Publish | Keyed] = [*view.publishes, *view.transacted.values(), *view.keyed]
    published = Counter(publish.topic for publish in every if publish.outcome is not Outcome.FAIL)
    # Of a plain producer's record there may be any number.
    plain = {publish.topic for publish in view.publishes if not publish.idempotent}
    for topic, end in ends.items():
        if end > published[topic] and topic not in plain and topic not in view.copied_to:
            findings.add(
                "unpublished-record",
                f"{topic} has given {end} offsets; {published[topic]} records were published to it",
            )


def _fixed_partitions(view: View) -> set[str]:
    """Topics whose number of partitions never changed, as far as known."""
    counts: dict[str, set[int]] = {topic: set() for topic, _ in view.logs}
    for change in view.changes:
        if change.kind != "delete" and change.outcome is not Outcome.FAIL and change.partitions > 0:
            counts.setdefault(change.topic, set()).add(change.partitions)
    return {topic for topic, seen in counts.items() if len(seen) <= 1 and topic not in view.cut}


def _keys(
    view: View,
    place: Place,
    log: Log,
    before: list[Publish],
    keys: dict[tuple[str, str], tuple[int, str]],
    findings: Findings,
) -> None:
    topic, partition = place
    held = (view.by_value.get(value) for value in log.values if value is not None)
    for publish in chain(before, held):
        if publish is None or publish.key is None or publish.topic != topic:
            continue
        first = keys.setdefault((topic, publish.key), (partition, publish.value))
        if first[0] != partition:
            findings.add(
                "key-partition",
                f"key {publish.key!r} of {topic}: {first[1]!r} is in {first[0]},"
                f" {publish.value!r} in {partition}",
            )


def _acked(view: View, spots: _Spots, findings: Findings) -> None:
    if not view.replicas:
        return
    trimmed = {topic for (topic, _), log in view.logs.items() if log.start > 0} - view.keeps_all
    owners: dict[tuple[str, int, int], str] = {}
    for publish in view.publishes:
        if publish.outcome is not Outcome.OK or not view.judged(publish.topic, publish.started):
            continue
        value, topic = publish.value, publish.topic
        at = publish.ended if publish.ended is not None else publish.started
        if publish.partition is None or publish.offset is None:
            if value not in spots and topic not in trimmed:
                findings.add("lost-record", f"{value!r} was acknowledged and is nowhere in {topic}", at)
            continue
        place = (topic, publish.partition, publish.offset)
        here = f"{topic}/{publish.partition} offset {publish.offset}"
        owner = owners.setdefault(place, value)
        if owner != value:
            findings.add("wrong-offset", f"{here} was acknowledged for {owner!r} and for {value!r}", at)
        log = view.log((topic, publish.partition))
        if log.known and publish.offset < log.start and topic not in view.keeps_all:
            if value in spots:
                elsewhere = f"it is at {spots[value][1]} offset {spots[value][2]}"
                if publish.idempotent:
                    findings.add("wrong-offset", f"{value!r} was acknowledged at {here}; {elsewhere}", at)
            else:
                wrong = log.contradiction(publish.offset, value)
                if wrong:
                    findings.add("wrong-offset", f"{value!r} was acknowledged at {here}; {wrong}", at)
            continue
        held = log.at(publish.offset)
        if held == value:
            continue
        if value in spots:
            _, partition, offset = spots[value]
            findings.add(
                "wrong-offset",
                f"{value!r} was acknowledged at {here}; it is at {partition} offset {offset}",
                at,
            )
        else:
            instead = f"{held!r} is there" if held is not None else "nothing is there"
            findings.add("lost-record", f"{value!r} was acknowledged at {here}; {instead}", at)


def _real_time(view: View, findings: Findings) -> None:
    """Append order agrees with the clock: who starts after another's ack comes to lie behind it."""
    acked: dict[Place, dict[int, float]] = {place: {} for place in view.logs}
    starts: dict[Place, dict[int, tuple[float, str]]] = {place: {} for place in view.logs}
    for publish in chain(view.publishes, view.transacted.values()):
        if publish.outcome is Outcome.OK and publish.partition is not None and publish.offset is not None:
            place = (publish.topic, publish.partition)
            if view.judged(publish.topic, publish.started) and publish.ended is not None:
                acked.setdefault(place, {})[publish.offset] = publish.ended
                starts.setdefault(place, {})[publish.offset] = (publish.started, publish.value)
    for place, log in view.logs.items():
        if place[0] in view.cut:
            continue
        for offset, value in enumerate(log.values, log.start):
            found = view.by_value.get(value) if value is not None else None
            if found is not None and found.outcome is Outcome.UNKNOWN:
                starts[place].setdefault(offset, (found.started, found.value))
    for place, begun in starts.items():
        ends = acked.get(place, {})
        earliest, behind = math.inf, -1
        for offset in sorted(begun, reverse=True):
            started, value = begun[offset]
            if started > earliest:
                findings.add(
                    "real-time-order",
                    f"{value!r} at {place[0]}/{place[1]} offset {offset} was begun at {started:.6f},"
                    f" after offset {behind} was acknowledged at {earliest:.6f}",
                    started,
                )
            ended = ends.get(offset, math.inf)
            if ended < earliest:
                earliest, behind = ended, offset
