"""What dispatch found out besides what to send: for the group to act on, and to tell its members."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple

from holdfast.v1 import bus_pb2

if TYPE_CHECKING:
    from holdfast.cluster.delivery.flow import Flow


class PauseReason(IntEnum):
    """Why delivery of a partition stands still; the numbers of bus.proto."""

    MAX_UNACKED = bus_pb2.PAUSE_REASON_MAX_UNACKED
    RETRIES_FULL = bus_pb2.PAUSE_REASON_RETRIES_FULL
    PARKED = bus_pb2.PAUSE_REASON_PARKED


class Pause(NamedTuple):
    """Delivery of a partition stands still."""

    reason: PauseReason
    offset: int  # the record that holds it up


class PauseChanged(NamedTuple):
    """A flow stands still for another reason than before, or goes on."""

    flow: Flow
    pause: Pause | None  # None: it goes on


class Trimmed(NamedTuple):
    """Retention removed records the group had not settled: its floor is to be proposed."""

    flow: Flow
    before: int  # the floor that was
    floor: int  # the floor that is


class Vanished(NamedTuple):
    """The partition is not there any more: its topic was deleted."""

    flow: Flow


Effect = PauseChanged | Trimmed | Vanished
