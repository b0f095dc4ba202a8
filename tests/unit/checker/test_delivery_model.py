"""A naive group that keeps every promise, run at random: clean; with one change to its history, never."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.chaos.checker import check
from holdfast.chaos.checker.delivery_events import (
    DeadLetter,
    FlowAtRest,
    Handed,
    LagRead,
    Told,
    Transacted,
)
from holdfast.chaos.checker.history import Event, History, Outcome, Replica

from .delivery_model import NaiveGroup

KINDS = [
    ("key", "at_least_once"),
    ("partition", "at_least_once"),
    ("none", "at_least_once"),
    ("key", "exactly_once"),
    ("partition", "exactly_once"),
    ("none", "at_most_once"),
    ("partition", "at_most_once"),
]
Chance = random.Random


def run(seed: int, steps: int, kind: tuple[str, str]) -> History:
    return NaiveGroup(seed, *kind).run(steps)


@pytest.mark.parametrize("kind", KINDS, ids="-".join)
def test_a_naive_group_keeps_every_promise(kind: tuple[str, str]) -> None:
    @settings(max_examples=60, deadline=None)
    @given(seed=st.integers(0, 2**32), steps=st.integers(0, 250))
    def judge(seed: int, steps: int) -> None:
        assert check(run(seed, steps, kind)) == []

    judge()


def kept(events: list[Event], kind: type[Event]) -> list[int]:
    """Where in the history the events of a kind are."""
    return [place for place, event in enumerate(events) if isinstance(event, kind)]


def replace(events: list[Event], place: int, **changes: object) -> None:
    events[place] = msgspec.structs.replace(events[place], **changes)


def final(events: list[Event]) -> FlowAtRest:
    return next(event for event in events if isinstance(event, FlowAtRest))


def handings(events: list[Event]) -> dict[int, list[int]]:
    """Offset -> where in the history it is handed out."""
    found: dict[int, list[int]] = {}
    for place in kept(events, Handed):
        found.setdefault(events[place].offset, []).append(place)  # type: ignore[union-attr]
    return found


def confirmed(events: list[Event], outcome: str) -> list[int]:
    return [
        place
        for place, event in enumerate(events)
        if isinstance(event, Told) and event.outcome == outcome and event.confirmed is not None
    ]


def alter_value(events: list[Event], chance: Chance) -> bool:
    """A handler is given another record."""
    places = kept(events, Handed)
    if places:
        replace(events, chance.choice(places), value="another")
    return bool(places)


def forget_acks(events: list[Event], chance: Chance) -> bool:
    """A record is settled, and nobody has said so."""
    done = {event.offset for event in events if isinstance(event, Told) and event.outcome == "ack"}
    dead = {event.origin_offset for event in events if isinstance(event, DeadLetter)}
    done -= dead
    if done:
        offset = chance.choice(sorted(done))
        events[:] = [
            e for e in events if not (isinstance(e, Told) and e.offset == offset and e.outcome == "ack")
        ]
    return bool(done)


def hand_again(events: list[Event], chance: Chance) -> bool:
    """A record is handed out after it was confirmed as settled, in the same session."""
    places = [p for p in confirmed(events, "ack") if p + 1 < len(events)]
    if not places:
        return False
    told = events[chance.choice(places)]
    assert isinstance(told, Told)
    assert told.confirmed is not None
    again = [e for e in events if isinstance(e, Handed) and e.offset == told.offset][-1]
    same = msgspec.structs.replace(
        again, at=told.confirmed + 0.0001, session=told.session, client=told.client
    )
    events.append(same)
    return True


def hand_twice(events: list[Event], chance: Chance) -> bool:
    """Another client is handed a record while a handler has it."""
    told = {(e.offset, e.session): e.at for e in events if isinstance(e, Told)}
    places = [
        place
        for place in kept(events, Handed)
        if told.get((events[place].offset, events[place].session), 0) > events[place].at  # type: ignore[union-attr]
    ]
    if not places:
        return False
    first = events[chance.choice(places)]
    assert isinstance(first, Handed)
    events.append(msgspec.structs.replace(first, at=first.at + 0.00001, session="z1", client="z"))
    return True


def retried(events: list[Event]) -> list[tuple[Told, int]]:
    """Confirmed failures, and where in the history the record comes next, if that is in the same session."""
    found = []
    for told in [events[place] for place in confirmed(events, "nack")]:
        assert isinstance(told, Told)
        later = [
            place
            for place in handings(events).get(told.offset, [])
            if events[place].at > told.at and events[place].session == told.session  # type: ignore[union-attr]
        ]
        if later:
            found.append((told, later[0]))
    return found


def too_early(events: list[Event], chance: Chance) -> bool:
    """A retry comes at once."""
    for told, place in retried(events):
        replace(events, place, at=told.at + 0.001)
        return True
    return False


def not_counted(events: list[Event], chance: Chance) -> bool:
    """A failure is not counted."""
    places = [place for _, place in retried(events)]
    if places:
        place = chance.choice(places)
        replace(events, place, attempt=events[place].attempt - 1)  # type: ignore[union-attr]
    return bool(places)


def counted_too_often(events: list[Event], chance: Chance) -> bool:
    """An attempt has a number beyond all failures and losses."""
    places = [place for places in handings(events).values() for place in places[1:]]
    if places:
        replace(events, chance.choice(places), attempt=50)
    return bool(places)


def forget_row(events: list[Event], chance: Chance) -> bool:
    """On all nodes the row of a record that failed is gone."""
    rows = final(events).retries
    failed = {events[p].offset for p in (*confirmed(events, "nack"), *confirmed(events, "park"))}  # type: ignore[union-attr]
    known = sorted({row.offset for row in rows} & failed)
    if known:
        offset = chance.choice(known)
        for place in kept(events, FlowAtRest):
            replace(events, place, retries=[row for row in rows if row.offset != offset])
    return bool(known)


def unsettle(events: list[Event], chance: Chance) -> bool:
    """On all nodes everything is open again."""
    rest = final(events)
    if rest.floor == 0:
        return False
    for place in kept(events, FlowAtRest):
        replace(events, place, floor=0, settled=[])
    return True


def settle_all(events: list[Event], chance: Chance) -> bool:
    """On all nodes everything counts as settled, what is parked too."""
    if not final(events).retries:
        return False
    end = max(len(event.records) for event in events if isinstance(event, Replica) and event.topic == "t")
    for place in kept(events, FlowAtRest):
        replace(events, place, floor=end, settled=[], retries=[])
    return True


def one_node(events: list[Event], chance: Chance) -> bool:
    """One node has another floor."""
    place = chance.choice(kept(events, FlowAtRest))
    replace(events, place, floor=final(events).floor + 1)
    return True


def forget_letter(events: list[Event], chance: Chance) -> bool:
    """The last dead letter never came to lie in its topic."""
    letters = kept(events, DeadLetter)
    if letters:
        last = events.pop(letters[-1])
        for place in kept(events, Replica):
            copy = events[place]
            assert isinstance(copy, Replica)
            if copy.topic == "dead":
                replace(events, place, records=copy.records[:-1], end_offset=copy.end_offset - 1)
        assert isinstance(last, DeadLetter)
    return bool(letters)


def double_letter(events: list[Event], chance: Chance) -> bool:
    """A record is a dead letter twice."""
    letters = kept(events, DeadLetter)
    if letters:
        one = events[chance.choice(letters)]
        for place in kept(events, Replica):
            copy = events[place]
            assert isinstance(copy, Replica)
            assert isinstance(one, DeadLetter)
            if copy.topic == "dead":
                records = [*copy.records, (copy.end_offset, one.value)]
                replace(events, place, records=records, end_offset=copy.end_offset + 1)
        events.append(msgspec.structs.replace(one, offset=len(letters)))
    return bool(letters)


def false_header(events: list[Event], chance: Chance) -> bool:
    """A dead letter says it comes from somewhere else."""
    letters = kept(events, DeadLetter)
    if letters:
        place = chance.choice(letters)
        replace(events, place, origin_offset=events[place].origin_offset + 1_000)  # type: ignore[union-attr]
    return bool(letters)


def wrong_lag(events: list[Event], chance: Chance) -> bool:
    """One node is one off."""
    reads = kept(events, LagRead)
    if reads:
        place = chance.choice(reads)
        replace(events, place, records=events[place].records + 1, oldest_append_us=1)  # type: ignore[union-attr]
    return bool(reads)


def transactions(events: list[Event], outcome: Outcome) -> list[int]:
    return [p for p in kept(events, Transacted) if events[p].outcome is outcome]  # type: ignore[union-attr]


def lose_output(events: list[Event], chance: Chance) -> bool:
    """What a transaction published is something else."""
    done = transactions(events, Outcome.OK)
    if done:
        one = events[chance.choice(done)]
        assert isinstance(one, Transacted)
        for place in kept(events, Replica):
            copy = events[place]
            assert isinstance(copy, Replica)
            if copy.topic == "out":
                records = [(o, "!" if v == one.published[0].value else v) for o, v in copy.records]
                replace(events, place, records=records)
    return bool(done)


def refuse_done(events: list[Event], chance: Chance) -> bool:
    """What is done was told to have failed."""
    done = transactions(events, Outcome.OK)
    if done:
        replace(events, chance.choice(done), outcome=Outcome.FAIL)
    return bool(done)


def consume_twice(events: list[Event], chance: Chance) -> bool:
    """A second transaction uses up what one has used up."""
    done = transactions(events, Outcome.OK)
    if done:
        one = events[chance.choice(done)]
        events.append(msgspec.structs.replace(one, transaction="again", published=[]))
    return bool(done)


def out_of_order(events: list[Event], chance: Chance) -> bool:
    """A record is handed out before the one before it in its lane, at the moment that one came."""
    keys = {e.offset: e.key for e in events if isinstance(e, Handed)}
    by_key: dict[str, list[int]] = {}
    for offset in sorted(keys):
        key = keys[offset]
        if key is not None:
            by_key.setdefault(key, []).append(offset)
    found = handings(events)
    pairs = [(a, b) for offsets in by_key.values() for a, b in pairwise(offsets)]
    if pairs:
        first, second = chance.choice(pairs)
        before = events[found[first][0]]
        assert isinstance(before, Handed)
        replace(
            events, found[second][0], at=before.at - 0.00001, session=before.session, client=before.client
        )
    return bool(pairs)


ALL = [k for k in KINDS if k[1] != "at_most_once"]
ACKED = [k for k in ALL if k[1] == "at_least_once"]
EXACT = [k for k in ALL if k[1] == "exactly_once"]
MUTATIONS: list[tuple[Callable[[list[Event], Chance], bool], list[tuple[str, str]]]] = [
    (alter_value, KINDS),
    (forget_acks, ACKED),
    (hand_again, ACKED),
    (hand_twice, ALL),
    (too_early, ALL),
    (not_counted, ALL),
    (counted_too_often, ALL),
    (forget_row, ALL),
    (unsettle, KINDS),
    (settle_all, ALL),
    (one_node, KINDS),
    (forget_letter, ALL),
    (double_letter, ALL),
    (false_header, ALL),
    (wrong_lag, KINDS),
    (lose_output, EXACT),
    (refuse_done, EXACT),
    (consume_twice, EXACT),
    (out_of_order, [("key", "at_least_once"), ("key", "exactly_once")]),
]


@pytest.mark.parametrize(("mutate", "kinds"), MUTATIONS, ids=[mutate.__name__ for mutate, _ in MUTATIONS])
def test_one_change_is_found(
    mutate: Callable[[list[Event], Chance], bool], kinds: list[tuple[str, str]]
) -> None:
    changed = 0

    @settings(max_examples=40, deadline=None)
    @given(seed=st.integers(0, 2**32), steps=st.integers(100, 250), kind=st.sampled_from(kinds))
    def changed_once(seed: int, steps: int, kind: tuple[str, str]) -> None:
        nonlocal changed
        history = run(seed, steps, kind)
        if mutate(history.events, random.Random(seed)):
            changed += 1
            assert check(history), "the change went unseen"

    changed_once()
    assert changed > 0
