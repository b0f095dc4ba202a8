"""What flows answer: settled, refused, charged."""

from __future__ import annotations

from typing import NamedTuple

from holdfast.cluster.delivery.leases import Refused
from holdfast.cluster.delivery.runs import Range
from holdfast.errors import LeaseExpiredError


class Outcome(NamedTuple):
    """What came of a settle."""

    settled: list[Range]  # these are to be proposed
    refused: list[Refused]


class Charged(NamedTuple):
    """A record whose row the log has to change; it waits until the flow is told what became of that."""

    offset: int
    lane: int


class Nacked(NamedTuple):
    """What came of a nack; both None: there is nothing to propose."""

    #: To be proposed. Of a release: it has been given back too often, and is charged as a failure.
    charge: Charged | None = None
    refused: Refused | None = None


class Run(NamedTuple):
    """Records that may be handed out in a row."""

    first: int
    stop: int | None  # the end, not in it; None: only the log's
    fresh: bool = True  # they are read for the first time: the bounds of the flow count


class Single(NamedTuple):
    """A record that failed, and is due."""

    offset: int


def expired(first: int, end: int) -> Refused:
    """The lease of ``first`` up to, not including, ``end`` is over."""
    return Refused(
        first,
        end - 1,
        LeaseExpiredError(
            f"the lease of offsets {first}..{end - 1} is over, or void since an earlier record failed;"
            " what is not settled is delivered again"
        ),
    )
