"""Printing a group's records, and saying that they are done with."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import holdfast
from holdfast.cli.output import note
from holdfast.cli.reading import printer, say_waiting, to_place
from holdfast.cli.times import At
from holdfast.client.groups import GroupDefinition, GroupInfo
from holdfast.client.retry import Retry
from holdfast.errors import FailedPreconditionError, UnknownGroupError


@dataclass(frozen=True, slots=True)
class MemberRequest:
    """What was said of the member and its group; None: nothing."""

    id: str | None = None
    ordering: str | None = None
    attempts: int | None = None
    dead_letter: str | None = None

    @property
    def given(self) -> bool:
        """Anything was."""
        return self != MemberRequest()


@dataclass(frozen=True, slots=True)
class ConsumeRequest:
    """What ``holdfast consume`` was asked for."""

    topics: tuple[str, ...]
    group: str
    start: At
    limit: int | None
    idle: float | None
    name: str
    wants: MemberRequest = MemberRequest()


class Outages:
    """Says why nothing comes: once, until the group is served again."""

    def __init__(self) -> None:
        self._said = False

    def on_event(self, event: holdfast.SubscriptionEvent) -> None:
        if isinstance(event, holdfast.Assigned):
            self._said = False
        elif isinstance(event, holdfast.Disconnected) and not self._said:
            self._said = True
            note(f"holdfast: the connection failed and is made again: {event.error.message}")


async def print_group(bus: holdfast.Client, request: ConsumeRequest, *, as_json: bool) -> None:
    """Print a group's records; each is acknowledged when it has left for standard output.

    Raises:
        FailedPreconditionError: the group reads other topics, or is settled by transactions.
        HoldfastError: refused, or the last acknowledgements did not become durable.
    """
    write = printer(as_json)
    group = await _group(bus, request.group)
    has = None if group is None or group.implicit else group.definition
    outages = Outages()
    if has is None and not request.wants.given:
        async with bus.subscribe(
            list(request.topics),
            request.group,
            initial=_initial(request.start),
            name=request.name or None,
            on_event=outages.on_event,
        ) as subscription:
            await _print(request, aiter(subscription), write, lambda record: record.ack())
            await subscription.committed()
        return
    definition = _definition(request, has)
    settles = has is None or has.semantics != "at_most_once"
    async with bus.join(
        request.group,
        definition,
        max_in_flight=100,
        member_id=request.wants.id,
        name=request.name or None,
        on_event=outages.on_event,
    ) as member:
        await _print(request, aiter(member), write, (lambda record: record.ack()) if settles else None)
        await member.settled()


async def _group(bus: holdfast.Client, name: str) -> GroupInfo | None:
    try:
        return await bus.group(name)
    except UnknownGroupError:
        return None


def _definition(request: ConsumeRequest, has: GroupDefinition | None) -> GroupDefinition:
    """What a member asks of the group: what was said, and nothing else."""
    wants, fields = request.wants, dict[str, Any]()
    if has is None:
        fields |= {"topics": request.topics, "start": _initial(request.start)}
    elif has.semantics == "exactly_once":
        raise FailedPreconditionError(
            f"records of group {request.group!r} are settled by transactions, which this command does not "
            "make; look at them and leave the group where it is: holdfast replay TOPIC"
        )
    elif not has.patterns and set(has.topics) != set(request.topics):
        raise FailedPreconditionError(
            f"group {request.group!r} reads {', '.join(has.topics)}; name these, or change it: "
            f"holdfast group update {request.group} --topic TOPIC"
        )
    else:
        fields |= {"topics": has.topics, "patterns": has.patterns}
    if wants.ordering is not None:
        fields["ordering"] = wants.ordering
    if wants.attempts is not None:
        fields["retry"] = Retry(attempts=wants.attempts)
    if wants.dead_letter is not None:
        fields["dead_letter"] = "" if wants.dead_letter == "none" else wants.dead_letter
    return GroupDefinition(**fields)


async def _print(
    request: ConsumeRequest,
    records: AsyncIterator[holdfast.Record],
    write: Callable[[holdfast.Record], None],
    done: Callable[[holdfast.Record], Awaitable[object]] | None,
) -> None:
    say_waiting(request.group)
    left = request.limit
    while left is None or left > 0:
        try:
            async with asyncio.timeout(request.idle):
                record = await anext(records)
        except (TimeoutError, StopAsyncIteration):
            break
        write(record)
        sys.stdout.flush()
        if done is not None:
            await done(record)
        if left is not None:
            left -= 1


def _initial(at: At) -> datetime | Literal["earliest", "latest"]:
    place = to_place(at)
    assert not isinstance(place, int), "a group starts at no offset"
    return place
