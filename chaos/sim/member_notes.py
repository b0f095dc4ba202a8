"""What a member of a defined group does and is told, as the history has it."""

from __future__ import annotations

from collections.abc import Callable

from holdfast.chaos.checker.delivery_events import (
    Handed,
    Joined,
    PauseTold,
    SessionOver,
    Silent,
    Spot,
    Told,
    Verdict,
)
from holdfast.chaos.checker.history import History
from holdfast.client import events
from holdfast.client.group_stream import Stream
from holdfast.client.membership import Membership
from holdfast.client.types import Record
from holdfast.v1 import bus_pb2

#: Seconds, less than a step of the simulation.
_AFTER = 0.0005


class MemberNotes:
    """Watches one membership, from its making to its end.

    It looks into the membership where what the application is told says too little to judge by: when
    a stream was begun, and which Settle was confirmed.

    Args:
        client: the name of the program.
        life: sessions of another life of it are others.
        clock: the world's time, seconds.
        lost: told of the records that were taken away.
    """

    def __init__(
        self,
        history: History,
        client: str,
        life: int,
        member: Membership,
        clock: Callable[[], float],
        lost: Callable[[Spot], None],
    ) -> None:
        self._history = history
        self._client = client
        self._life = life
        self._member = member
        self._clock = clock
        self._lost = lost
        self._streams = 0
        self._began = clock()
        self._held: list[Spot] = []
        #: The present or last session; whether the brokers know it, and it is not over.
        self.session = ""
        self._open = False
        #: What was said and is neither confirmed nor refused.
        self._told: dict[Spot, Told] = {}
        self._write, self._confirmed = member._write, member._confirmed
        member._write = self._begin  # type: ignore[method-assign]
        member._confirmed = self._answered  # type: ignore[method-assign]

    # -- what the program does ---------------------------------------------------------------

    def handed(self, record: Record, session: str, received: float, fence: int) -> None:
        """A handler begins with a record."""
        self._history.add(
            Handed(
                client=self._client,
                group=self._member.group,
                session=session,
                topic=record.topic,
                partition=record.partition,
                offset=record.offset,
                value=record.value.decode(),
                at=self._clock(),
                key=record.key.decode() if record.key else None,
                attempt=record.attempt,
                received=received,
                fence=fence,
            )
        )

    def told(self, record: Record, outcome: Verdict, delay: float | None = None) -> None:
        """A handler is about to say what became of a record."""
        spot = record.topic, record.partition, record.offset
        self._say(spot, outcome, None if delay is None else round(delay * 1000), self.fence(spot))

    def fence(self, spot: Spot) -> int:
        """Under which the member has the partition; 0: it has it not."""
        slot = self._member._handed.by_place.get(spot[:2])
        return 0 if slot is None else slot.fence

    def silent(self, until: float) -> None:
        """The program stops, and goes on then."""
        if self._open:
            self._history.add(
                Silent(self._client, self._member.group, self.session, self._member._heard, until)
            )

    def over(self, *, known: bool, orderly: bool = False) -> None:
        """The session has ended; if it was not orderly, perhaps when the broker was heard last."""
        if self._open:
            self._open = False
            # What it was sent last was still said by somebody who knew it.
            at = self._clock() if orderly else min(self._clock(), self._member._heard + _AFTER)
            self._history.add(
                SessionOver(self._client, self._member.group, self.session, at, known=known, orderly=orderly)
            )

    # -- what the membership does ------------------------------------------------------------

    async def _begin(self, call: Stream) -> None:
        self._streams += 1
        self.session = f"{self._client}.{self._life}.{self._streams}"
        self._began = self._clock()
        await self._write(call)

    def _answered(self, settled: bus_pb2.Settled) -> None:
        said = self._member._handed._told.get(settled.number, [])
        refused: dict[Spot, str] = {}
        for refusal in settled.refusals:
            slot = self._member._handed.slots.get(refusal.slot)
            if slot is not None:
                reason = refusal.error.message or "refused"
                for offset in range(refusal.first_offset, refusal.last_offset + 1):
                    refused[*slot.place, offset] = reason
        for place, offsets, _ in list(said):
            for offset in offsets:
                told = self._told.pop((*place, offset), None)
                if told is None:
                    continue
                if (*place, offset) in refused:
                    told.refused = refused[*place, offset]
                else:
                    told.confirmed = self._clock()
        self._confirmed(settled)

    def on_event(self, event: events.SubscriptionEvent) -> None:
        """What the membership tells."""
        if isinstance(event, events.Welcomed):
            held = self._member._handed._held
            self._history.add(
                Joined(
                    client=self._client,
                    group=self._member.group,
                    session=self.session,
                    member=event.member_id,
                    started=self._began,
                    at=self._clock(),
                    held=[(*place, offset) for place, offsets in held.items() for offset in offsets],
                )
            )
            self._open = True
        elif isinstance(event, events.Assigned):
            self._say_again()
        elif isinstance(event, events.Disconnected):
            self.over(known=True)
        elif isinstance(event, events.Lost):
            self._lost((event.topic, event.partition, event.offset))
        elif isinstance(event, events.Paused):
            self._history.add(
                PauseTold(
                    self._client,
                    self._member.group,
                    self.session,
                    event.topic,
                    event.partition,
                    event.paused,
                    event.reason,
                    self._clock(),
                    event.offset,
                )
            )

    def _say_again(self) -> None:
        """What was said over an earlier connection is said over this one, where it is still taken."""
        handed = self._member._handed
        again = {
            (*slot.place, offset)
            for slot in handed.slots.values()
            for offsets in slot.acked.values()
            for offset in offsets
        }
        again |= {(*slot.place, offset) for slot, _, offset, _ in (*handed._nacks, *handed._releases)}
        for spot, told in list(self._told.items()):
            if told.session != self.session:
                del self._told[spot]
                if spot in again:
                    self._say(spot, told.outcome, told.delay_ms, self.fence(spot))

    def _say(self, spot: Spot, outcome: Verdict, delay_ms: int | None, fence: int) -> None:
        topic, partition, offset = spot
        self._told[spot] = told = Told(
            client=self._client,
            group=self._member.group,
            session=self.session,
            topic=topic,
            partition=partition,
            offset=offset,
            outcome=outcome,
            at=self._clock(),
            delay_ms=delay_ms,
            fence=fence,
        )
        self._history.add(told)
