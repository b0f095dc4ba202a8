"""What a member of a group was handed, and what it has said of it. No I/O, no clock.

A record is *open* from its delivery until its outcome is told. What has been
told is repeated over a new connection until the broker confirms it; what the
application still works on is claimed there again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from holdfast.v1 import bus_pb2

#: (topic, partition)
Place = tuple[str, int]

#: Items in one Settle.
MAX_NACKS = 1_000

#: Brokers keep so much of an error, in UTF-8.
MAX_ERROR_BYTES = 200

#: Acks and runs of offsets in one message: brokers take 16,384 of everything.
MAX_ITEMS = 8_192


class Nack(NamedTuple):
    """An outcome that is not an ack."""

    kind: bus_pb2.NackKind
    delay_ms: int | None = None
    error: str = ""


_RELEASE = Nack(bus_pb2.NACK_KIND_RELEASE)

#: What was told of a record; None: an ack.
Outcome = Nack | None


class Slot:
    """One partition of an assignment."""

    __slots__ = ("acked", "blocked", "fence", "number", "open", "place")

    def __init__(self, number: int, place: Place, fence: int) -> None:
        self.number = number
        self.place = place
        self.fence = fence
        #: Offset -> twice its lease, one more once the application has it.
        self.open: dict[int, int] = {}
        #: Acked and not sent: lease -> offsets.
        self.acked: dict[int, list[int]] = {}
        #: Deliveries are void until the Settle of this number is answered: the broker sent them
        #: before it heard that a record before them has failed.
        self.blocked = 0


class Handed:
    """The records of one member.

    Args:
        in_order: the group's ordering is by partition: behind a record that failed nothing is valid.
    """

    def __init__(self, *, in_order: bool) -> None:
        self.in_order = in_order
        self.slots: dict[int, Slot] = {}
        self.by_place: dict[Place, Slot] = {}
        #: Records delivered whose outcome has not been told.
        self.open = 0
        #: Records taken away while the application worked on them: (topic, partition, offset).
        self.lost: list[tuple[str, int, int]] = []
        self._nacks: list[tuple[Slot, int, int, Nack]] = []
        self._releases: list[tuple[Slot, int, int, Nack]] = []
        self._extensions: list[tuple[Slot, int, int, int]] = []
        self._number = 0
        self._told: dict[int, list[tuple[Place, Sequence[int], Outcome]]] = {}
        self._held: dict[Place, dict[int, Outcome | bool]] = {}
        self._kept: dict[Place, set[int]] | None = None

    # -- from the broker --------------------------------------------------------------

    def deliver(self, slot_number: int, lease: int, offsets: Sequence[int]) -> Slot | None:
        """Note a delivery; None when it is void and to be dropped."""
        slot = self.slots.get(slot_number)
        if slot is None or slot.blocked:
            if slot is not None:
                # Void, most likely; if the broker thinks otherwise, it hands them out again.
                self._releases.append((slot, lease, offsets[0], _RELEASE))
            return None
        slot.open.update(dict.fromkeys(offsets, lease << 1))
        self.open += len(offsets)
        return slot

    def settled(self, number: int) -> None:
        """The Settle of this number is durable, but for what was refused."""
        self._told.pop(number, None)
        for slot in self.slots.values():
            if slot.blocked == number:
                slot.blocked = 0

    def assign(self, parts: Iterable[bus_pb2.AssignedPartition]) -> None:
        """The slots this member has from now on; records of those that go are lost."""
        wanted = {part.slot: part for part in parts}
        for number in [number for number in self.slots if number not in wanted]:
            self._close(self.slots.pop(number))
        self.by_place = {slot.place: slot for slot in self.slots.values()}
        for number, part in wanted.items():
            if number not in self.slots:
                slot = Slot(number, (part.topic, part.partition), part.fence)
                self.slots[number] = self.by_place[slot.place] = slot
            else:
                self.slots[number].fence = part.fence
        if self._kept is not None:
            self._take_up(self._kept)
            self._kept = None

    def disconnect(self) -> list[bus_pb2.Holding]:
        """The connection is gone; what the next one claims."""
        held: dict[Place, dict[int, Outcome | bool]] = {}
        for place, offsets in self._held.items():
            held.setdefault(place, {}).update(offsets)  # of a connection that was never answered
        for said in self._told.values():
            for place, told, outcome in said:
                held.setdefault(place, {}).update(dict.fromkeys(told, outcome))
        for slot in self.slots.values():
            mine = held.setdefault(slot.place, {})
            for acked in slot.acked.values():
                mine.update(dict.fromkeys(acked, None))
            for offset, value in slot.open.items():
                if value & 1:
                    mine[offset] = True
        for slot, _, offset, nack in (*self._nacks, *self._releases):
            held.setdefault(slot.place, {})[offset] = nack
        self._held = {place: offsets for place, offsets in held.items() if offsets}
        for slot in self.slots.values():
            slot.open.clear()
        self.slots.clear()
        self.by_place.clear()
        self._nacks.clear()
        self._releases.clear()
        self._extensions.clear()
        self._told.clear()
        self._kept = None
        self.open = 0
        claims = []
        for (topic, partition), offsets in self._held.items():
            base, runs = runs_of(sorted(offsets))
            claims.append(bus_pb2.Holding(topic=topic, partition=partition, base=base, runs=runs))
        return claims

    def welcome(self, kept: Iterable[bus_pb2.Holding]) -> None:
        """What of the claims is still this member's; taken up with the assignment that follows."""
        self._kept = {
            (claim.topic, claim.partition): set(offsets_of(claim.base, claim.runs)) for claim in kept
        }

    def _take_up(self, kept: Mapping[Place, set[int]]) -> None:
        held, self._held = self._held, {}
        for place, offsets in held.items():
            slot, mine = self.by_place.get(place), kept.get(place, set())
            for offset, outcome in offsets.items():
                if slot is None or offset not in mine:
                    if outcome is True:
                        self.lost.append((*place, offset))
                elif outcome is True:
                    slot.open[offset] = 1
                    self.open += 1
                elif isinstance(outcome, Nack):
                    self._nack(slot, 0, offset, outcome)
                else:
                    slot.acked.setdefault(0, []).append(offset)

    def _close(self, slot: Slot) -> None:
        for offset, value in slot.open.items():
            self.open -= 1
            if value & 1:
                self.lost.append((*slot.place, offset))
        # Whoever still has records of it in a queue must not begin with them.
        slot.open.clear()
        self._nacks = [item for item in self._nacks if item[0] is not slot]
        self._releases = [item for item in self._releases if item[0] is not slot]
        self._extensions = [item for item in self._extensions if item[0] is not slot]

    # -- from the application -----------------------------------------------------------

    def begin(self, slot: Slot, offset: int, lease: int) -> bool:
        """The application takes a record; False when it is not this member's any more.

        Nor under that lease: what was given back and delivered again is taken from the later delivery,
        in its order.
        """
        value = slot.open.get(offset)
        if value is None or value >> 1 != lease:
            return False
        slot.open[offset] = value | 1
        return True

    def ack(self, topic: str, partition: int, offset: int) -> bool:
        """A record has been handled; False when that changes nothing."""
        slot = self.by_place.get((topic, partition))
        value = None if slot is None else slot.open.pop(offset, None)
        if slot is None or value is None:
            return self._say_later((topic, partition), offset, None)
        self.open -= 1
        slot.acked.setdefault(value >> 1, []).append(offset)
        return True

    def ack_through(self, topic: str, partition: int, offset: int) -> int:
        """All records of the partition up to this one have been handled; how many that were."""
        slot = self.by_place.get((topic, partition))
        if slot is None:
            claimed = [at for at in self._held.get((topic, partition), ()) if at <= offset]
            return sum(self._say_later((topic, partition), at, None) for at in claimed)
        # Deliveries come in order, so the first ones are the lowest.
        done = []
        for open_offset in slot.open:
            if open_offset > offset:
                break
            done.append(open_offset)
        for open_offset in done:
            slot.acked.setdefault(slot.open.pop(open_offset) >> 1, []).append(open_offset)
        self.open -= len(done)
        return len(done)

    def nack(self, topic: str, partition: int, offset: int, nack: Nack) -> bool:
        """A record has another outcome; False when it is not this member's any more."""
        slot = self.by_place.get((topic, partition))
        value = None if slot is None else slot.open.pop(offset, None)
        if slot is None or value is None:
            return self._say_later((topic, partition), offset, nack)
        self.open -= 1
        self._nack(slot, value >> 1, offset, nack)
        return True

    def _say_later(self, place: Place, offset: int, outcome: Outcome) -> bool:
        """Of a record that is claimed over a new connection: it is said once the claim is answered."""
        claimed = self._held.get(place, {})
        if claimed.get(offset) is not True:
            return False
        claimed[offset] = outcome
        if outcome is not None and self.in_order:
            for behind in [at for at, what in claimed.items() if at > offset and what is True]:
                del claimed[behind]
                self.lost.append((*place, behind))
        return True

    def _nack(self, slot: Slot, lease: int, offset: int, nack: Nack) -> None:
        released = nack.kind == bus_pb2.NACK_KIND_RELEASE
        (self._releases if released else self._nacks).append((slot, lease, offset, nack))
        if self.in_order:
            for behind in [other for other in slot.open if other > offset]:
                self.open -= 1
                if slot.open.pop(behind) & 1:
                    self.lost.append((*slot.place, behind))
            slot.blocked = -1  # the number follows when it is sent

    def extend(self, topic: str, partition: int, offset: int, by_ms: int) -> bool:
        """The record's lease ends ``by_ms`` from now; False when it is not this member's any more."""
        slot = self.by_place.get((topic, partition))
        value = None if slot is None else slot.open.get(offset)
        if slot is None or value is None:
            return False
        self._extensions.append((slot, value >> 1, offset, by_ms))
        return True

    def consumed(self, topic: str, partition: int, offset: int) -> None:
        """A transaction has settled the record."""
        slot = self.by_place.get((topic, partition))
        if slot is not None and slot.open.pop(offset, None) is not None:
            self.open -= 1
        elif self._held.get((topic, partition), {}).get(offset) is True:
            del self._held[topic, partition][offset]

    def lease(self, topic: str, partition: int, offset: int) -> tuple[int, int] | None:
        """Slot and lease of an open record."""
        slot = self.by_place.get((topic, partition))
        value = None if slot is None else slot.open.get(offset)
        return None if slot is None or value is None else (slot.number, value >> 1)

    def waiting(self) -> Iterator[tuple[Slot, int]]:
        """Open records the application has not begun."""
        for slot in self.slots.values():
            for offset, value in slot.open.items():
                if not value & 1:
                    yield slot, offset

    # -- to the broker --------------------------------------------------------------------

    @property
    def due(self) -> bool:
        """Something is to be sent."""
        return bool(
            self._nacks
            or self._releases
            or self._extensions
            or any(slot.acked for slot in self.slots.values())
        )

    @property
    def unconfirmed(self) -> bool:
        """Something was told and is not known to be durable."""
        return bool(self._told) or bool(self._held) or self.due

    def collect(self) -> list[bus_pb2.Settle]:
        """What is to be sent now, numbered."""
        found = []
        settle = bus_pb2.Settle()
        told: list[tuple[Place, Sequence[int], Outcome]] = []
        items = 0
        for slot in self.slots.values():
            for lease, acked in slot.acked.items():
                acked.sort()
                for offsets, base, runs in _portions(acked):
                    if items + len(runs) // 2 >= MAX_ITEMS:
                        found.append(self._numbered(settle, told, []))
                        settle, told, items = bus_pb2.Settle(), [], 0
                    settle.acks.add(slot=slot.number, lease=lease, base=base, runs=runs)
                    told.append((slot.place, offsets, None))
                    items += 1 + len(runs) // 2
            slot.acked = {}
        extensions, self._extensions = self._extensions[:MAX_NACKS], self._extensions[MAX_NACKS:]
        for slot, lease, offset, by_ms in extensions:
            of = bus_pb2.OffsetRuns(slot=slot.number, lease=lease, base=offset, runs=(0, 1))
            settle.extensions.add(of=of, by_ms=by_ms)
        nacks, self._nacks = self._nacks[:MAX_NACKS], self._nacks[MAX_NACKS:]
        if told or nacks or settle.extensions:
            found.append(self._numbered(settle, told, nacks))
        # By themselves: nothing has to become durable for them, so their answer comes at once,
        # and the records may come again before that of a Settle with acks would.
        releases, self._releases = self._releases[:MAX_NACKS], self._releases[MAX_NACKS:]
        if releases:
            found.append(self._numbered(bus_pb2.Settle(), [], releases))
        return found

    def _numbered(
        self,
        settle: bus_pb2.Settle,
        told: list[tuple[Place, Sequence[int], Outcome]],
        nacks: list[tuple[Slot, int, int, Nack]],
    ) -> bus_pb2.Settle:
        self._number += 1
        settle.number = self._number
        for slot, lease, offset, nack in nacks:
            settle.nacks.add(
                slot=slot.number,
                lease=lease,
                offset=offset,
                kind=nack.kind,
                delay_ms=nack.delay_ms,
                error=_cut(nack.error),
            )
            told.append((slot.place, (offset,), nack))
            if self.in_order:
                slot.blocked = self._number
        self._told[self._number] = told
        return settle


def _cut(error: str) -> str:
    """As far as brokers keep it, and what they can be sent: some file names are no UTF-8."""
    return error[:MAX_ERROR_BYTES].encode(errors="replace")[:MAX_ERROR_BYTES].decode(errors="ignore")


def _portions(offsets: Sequence[int]) -> Iterator[tuple[Sequence[int], int, list[int]]]:
    """Ascending offsets, as many at a time as one message holds, with base and runs."""
    base, runs = runs_of(offsets)
    if len(runs) // 2 < MAX_ITEMS:
        yield offsets, base, runs
        return
    for at in range(0, len(offsets), MAX_ITEMS - 1):
        portion = offsets[at : at + MAX_ITEMS - 1]
        yield portion, *runs_of(portion)


def runs_of(offsets: Sequence[int]) -> tuple[int, list[int]]:
    """Base and runs, as in OffsetRuns, of offsets in ascending order."""
    base = offsets[0]
    if offsets[-1] - base + 1 == len(offsets):
        return base, [0, len(offsets)]
    runs: list[int] = []
    gap, first, last = 0, base, base
    for offset in offsets[1:]:
        if offset != last + 1:
            runs += (gap, last + 1 - first)
            gap, first = offset - last - 1, offset
        last = offset
    runs += (gap, last + 1 - first)
    return base, runs


def offsets_of(base: int, runs: Sequence[int]) -> Iterator[int]:
    """The offsets of an OffsetRuns."""
    at = base
    for gap, length in zip(runs[::2], runs[1::2], strict=False):
        at += gap
        yield from range(at, at + length)
        at += length
