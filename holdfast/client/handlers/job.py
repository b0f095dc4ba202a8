"""One record at a handler, and what is to be done about it."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple, TypeAlias

from holdfast.client.handlers.classify import Verdict
from holdfast.client.types import Record

#: What is handled in order, one at a time: (topic, partition), with the key or the offset behind it.
Lane: TypeAlias = tuple[str | int | bytes, ...]


class Why(Enum):
    """For what a call is ended before its time."""

    TIMEOUT = "timeout"
    STOPPED = "stopped"


class Job:
    """A record from its delivery until the broker has been told of it."""

    __slots__ = ("due", "lane", "lost", "record", "skip", "told", "why")

    def __init__(self, record: Record, lane: Lane) -> None:
        self.record = record
        self.lane = lane
        #: Monotonic seconds at which its time is over, then at which it is given up.
        self.due: float | None = None
        #: It was to end early.
        self.why: Why | None = None
        #: Taken away by the broker: there is nobody to tell.
        self.lost = False
        #: The broker has been told, though its call may not have ended.
        self.told = False
        #: Another group's: to be settled without a call.
        self.skip = False

    @property
    def given_up(self) -> bool:
        """Nobody waits for its call."""
        return self.why is not None

    def __repr__(self) -> str:
        return f"<job {self.record.topic}[{self.record.partition}]@{self.record.offset}>"


class Begin(NamedTuple):
    """Call the handler."""

    job: Job


class Cancel(NamedTuple):
    """End the call: cancel its task; a thread is only told."""

    job: Job


class Settle(NamedTuple):
    """Tell the broker what became of a record."""

    record: Record
    verdict: Verdict


class Pause(NamedTuple):
    """Be handed nothing more."""


class Resume(NamedTuple):
    """Be handed records again: so many, or as many as there is room for."""

    limit: int | None


class Leave(NamedTuple):
    """All is told: leave the group."""


class Warn(NamedTuple):
    """For the log."""

    text: str


Decision: TypeAlias = Begin | Cancel | Settle | Pause | Resume | Leave | Warn
