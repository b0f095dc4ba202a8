"""Dead letters: what groups gave up, listed, published again, or let go of."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

import grpc
from google.protobuf.message import Message

from holdfast.client.connection import Connection, Method
from holdfast.client.failures import from_result, from_rpc, is_uncertain
from holdfast.client.inputs import to_key
from holdfast.client.times import moment, to_us
from holdfast.errors import ClosedError, HoldfastError, InvalidArgumentError
from holdfast.records import Headers
from holdfast.v1 import groups_pb2

LIST: Method[groups_pb2.ListDeadLettersRequest, groups_pb2.DeadLetterPage] = Method(
    "Groups", "ListDeadLetters", groups_pb2.DeadLetterPage
)
REDRIVE: Method[groups_pb2.RedriveRequest, groups_pb2.RedriveProgress] = Method(
    "Groups", "RedriveDeadLetters", groups_pb2.RedriveProgress
)
DISCARD: Method[groups_pb2.DiscardRequest, groups_pb2.DiscardProgress] = Method(
    "Groups", "DiscardDeadLetters", groups_pb2.DiscardProgress
)

_Request = TypeVar("_Request", bound=Message)
_Response = TypeVar("_Response", bound=Message)


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record that a group gave up.

    Attributes:
        topic, partition, offset: where it lies now.
        group: which gave it up; empty: somebody published it there.
        origin_topic, origin_partition, origin_offset: where the group had read it.
        attempts: how often it was tried.
        errors: the last five, with their times.
        first_failed_at, dead_at: when it failed first, and when it was given up.
        redrives: how often it had been redriven before.
        key, value, timestamp, headers: as it was published.
    """

    topic: str
    partition: int
    offset: int
    group: str
    origin_topic: str
    origin_partition: int
    origin_offset: int
    attempts: int
    errors: tuple[tuple[datetime, str], ...]
    first_failed_at: datetime
    dead_at: datetime
    redrives: int
    key: bytes | None
    value: bytes
    timestamp: datetime
    headers: Headers = ()


@dataclass(frozen=True, slots=True)
class DeadLetterFilter:
    """Which dead letters are meant: those that fit everything that is given.

    Attributes:
        group: which gave them up.
        origin_topic: they were read from.
        error: part of the text of one of the errors.
        since, until: when they were given up, the second exclusive; aware datetimes.
        partition, offsets: where they lie in the dead-letter topic.
    """

    group: str = ""
    origin_topic: str = ""
    error: str = ""
    key: bytes | str | None = None
    since: datetime | int | None = None
    until: datetime | int | None = None
    partition: int | None = None
    offsets: Collection[int] = ()

    def to_message(self) -> groups_pb2.DeadLetterFilter:
        """
        Raises:
            InvalidArgumentError: a time without time zone, a key that is none.
        """
        message = groups_pb2.DeadLetterFilter(
            group=self.group,
            origin_topic=self.origin_topic,
            error_contains=self.error,
            key=b"" if self.key is None else to_key(self.key),
            from_us=0 if self.since is None else to_us(self.since, "since"),
            to_us=0 if self.until is None else to_us(self.until, "until"),
            offsets=sorted(self.offsets),
        )
        if self.partition is not None:
            message.partition = self.partition
        return message


EVERY = DeadLetterFilter()


@dataclass(frozen=True, slots=True)
class RedriveResult:
    """What a redrive has done so far, or would do.

    Attributes:
        matched: dead letters that were looked at and fit the filter.
        redriven: published again and taken off the list.
        refused: left on the list.
        last_error: why the last of those was refused.
        done: nothing is left to do.
        sample: of a dry run, the first that would go, without keys and values.
    """

    matched: int
    redriven: int
    refused: int
    last_error: HoldfastError | None
    done: bool
    sample: tuple[DeadLetter, ...] = ()


@dataclass(frozen=True, slots=True)
class DiscardResult:
    """What a discard has done so far, or would do; fields as in ``RedriveResult``."""

    matched: int
    discarded: int
    done: bool
    sample: tuple[DeadLetter, ...] = ()


async def letters(
    connection: Connection,
    timeout: float,
    topic: str,
    chosen: DeadLetterFilter,
    limit: int | None,
    *,
    brief: bool,
) -> AsyncGenerator[DeadLetter, None]:
    """See ``Client.dead_letters``; ``timeout`` is for the first answer, in seconds."""
    request = groups_pb2.ListDeadLettersRequest(
        topic=topic, filter=chosen.to_message(), limit=_positive("limit", limit), brief=brief
    )
    async for page in _stream(connection, timeout, LIST, request):
        for letter in page.letters:
            yield from_message(letter)


async def redrive(
    connection: Connection,
    timeout: float,
    topic: str,
    chosen: DeadLetterFilter,
    *,
    to: str | None,
    rate: int | None,
    limit: int | None,
    force: bool,
    dry_run: bool,
    on_progress: Callable[[RedriveResult], None] | None,
) -> RedriveResult:
    """See ``Client.redrive_dead_letters``."""
    request = groups_pb2.RedriveRequest(
        topic=topic,
        filter=chosen.to_message(),
        dry_run=dry_run,
        per_second=_positive("rate", rate),
        limit=_positive("limit", limit),
        to=to or "",
        force=force,
    )
    result = RedriveResult(0, 0, 0, None, False)
    try:
        async for progress in _stream(connection, timeout, REDRIVE, request):
            result = _redriven(progress)
            if on_progress is not None:
                on_progress(result)
    except HoldfastError as error:
        raise _interrupted(error, "redriven", result.redriven) from error
    return result


async def discard(
    connection: Connection,
    timeout: float,
    topic: str,
    chosen: DeadLetterFilter,
    *,
    limit: int | None,
    dry_run: bool,
    on_progress: Callable[[DiscardResult], None] | None,
) -> DiscardResult:
    """See ``Client.discard_dead_letters``."""
    request = groups_pb2.DiscardRequest(
        topic=topic, filter=chosen.to_message(), dry_run=dry_run, limit=_positive("limit", limit)
    )
    result = DiscardResult(0, 0, False)
    try:
        async for progress in _stream(connection, timeout, DISCARD, request):
            result = DiscardResult(
                progress.matched,
                progress.discarded,
                progress.done,
                tuple([from_message(letter) for letter in progress.sample]),
            )
            if on_progress is not None:
                on_progress(result)
    except HoldfastError as error:
        raise _interrupted(error, "discarded", result.discarded) from error
    return result


async def _stream(
    connection: Connection, timeout: float, method: Method[_Request, _Response], request: _Request
) -> AsyncIterator[_Response]:
    """The answers; another broker is asked as long as none has answered at all.

    Raises:
        HoldfastError: the broker's, or the last failure.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    backoff = connection.backoff()
    while True:
        endpoint = connection.any()
        answered = False
        try:
            async for response in endpoint.stream(method, request):
                answered = True
                yield response
            return
        except grpc.aio.AioRpcError as failure:
            error = from_rpc(failure, endpoint.address)
        except grpc.aio.UsageError as failure:
            raise ClosedError("the client has been closed") from failure
        connection.failed(endpoint, error)
        delay = backoff.delay(error.retry_after_ms)
        if answered or not error.retriable or is_uncertain(error) or loop.time() + delay >= deadline:
            raise error
        await asyncio.sleep(delay)


def from_message(message: groups_pb2.DeadLetter) -> DeadLetter:
    """A dead letter as brokers tell of it."""
    record = message.record
    return DeadLetter(
        topic=message.topic,
        partition=message.partition,
        offset=message.offset,
        group=message.group,
        origin_topic=message.origin_topic,
        origin_partition=message.origin_partition,
        origin_offset=message.origin_offset,
        attempts=message.attempts,
        errors=tuple([(moment(each.time_us), each.error) for each in message.errors]),
        first_failed_at=moment(message.first_failed_us),
        dead_at=moment(message.dead_us),
        redrives=message.redrives,
        key=record.key or None,
        value=record.value,
        timestamp=moment(record.timestamp_us),
        headers=tuple([(header.name, header.value) for header in record.headers]),
    )


def _redriven(progress: groups_pb2.RedriveProgress) -> RedriveResult:
    return RedriveResult(
        progress.matched,
        progress.redriven,
        progress.refused,
        from_result(progress.last_error) if progress.HasField("last_error") else None,
        progress.done,
        tuple([from_message(letter) for letter in progress.sample]),
    )


def _positive(field: str, value: int | None) -> int:
    """0 for None: no limit, or the broker's default."""
    if value is None:
        return 0
    if value < 1:
        raise InvalidArgumentError(f"{field} must be at least 1", metadata={"field": field})
    return value


def _interrupted(error: HoldfastError, how: str, count: int) -> HoldfastError:
    """What was done stays done: that belongs to the error."""
    if not count:
        return error
    return type(error)(
        f"{error.message}; {count} records were {how} before, call again for the others",
        metadata=error.metadata | {how: str(count)},
        retry_after_ms=error.retry_after_ms,
    )
