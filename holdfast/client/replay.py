"""Reading a topic from any replica, through broken connections, without gap or repeat."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection, Iterator
from dataclasses import dataclass
from typing import Any

import grpc

from holdfast.client.connection import Connection
from holdfast.client.failures import from_rpc
from holdfast.client.positions import Place, TimeBasis, to_basis, to_partitions, to_position
from holdfast.client.stored import ReplayMessage, Stored
from holdfast.client.types import Batch
from holdfast.errors import (
    ClosedError,
    CorruptBatchError,
    DeadlineExceededError,
    HoldfastError,
    OffsetOutOfRangeError,
    UnavailableError,
)
from holdfast.records import decode_batch
from holdfast.v1 import bus_pb2

#: A replay that does not follow has something to say all the time.
_SILENCE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class CaughtUp:
    """Everything that was in the log at the time of the call has been read."""


class Replay:
    """One replay: what was asked for, and how far it has come."""

    def __init__(
        self,
        connection: Connection,
        topic: str,
        *,
        start: Place,
        end: Place | None,
        partitions: Collection[int],
        follow: bool,
        linearizable: bool,
        time_basis: TimeBasis,
        timeout: float,
    ) -> None:
        self._connection = connection
        self._timeout = timeout
        self._follow = follow
        self._request = bus_pb2.ReplayRequest(
            topic=topic,
            partitions=to_partitions(partitions),
            start=to_position(start, "start"),
            time_basis=to_basis(time_basis),
            follow=follow,
            linearizable=linearizable,
            format=bus_pb2.FORMAT_BATCHES,
        )
        if end is not None:
            self._request.end.CopyFrom(to_position(end, "end"))
        low, high = _time(self._request.start), _time(self._request.end)
        #: Exact bounds of event time; brokers promise whole batches only.
        self._window = None
        if time_basis == "record" and (low is not None or high is not None):
            self._window = (_MIN if low is None else low, _MAX if high is None else high)
        self._next: dict[int, int] = {}
        #: Where the log ended at the time of the call, unless the replay follows.
        self._stops: dict[int, int] = {}
        self._caught_up = False

    async def batches(self) -> AsyncGenerator[Batch | CaughtUp, None]:
        """The batches, and once ``CaughtUp``.

        Raises:
            HoldfastError: refused, or no broker could be read from for ``timeout`` seconds.
        """
        loop = asyncio.get_running_loop()
        backoff = self._connection.backoff()
        deadline = loop.time() + self._timeout
        endpoint = self._connection.any()
        # What a broker said tells more than that another one is down.
        said: HoldfastError | None = None
        while True:
            call = endpoint.replay(self._resumed())
            try:
                while True:
                    response = await self._read(call)
                    if response is None:
                        break
                    deadline = loop.time() + self._timeout
                    said = None
                    backoff.reset()
                    if not self._next:
                        self._begin(response, endpoint.address)
                    for batch in self._take(response):
                        yield batch
                    if response.rest.caught_up and not self._caught_up:
                        self._caught_up = True
                        yield CaughtUp()
                if not self._caught_up or (self._follow and not self._request.HasField("end")):
                    raise UnavailableError(f"broker {endpoint.address} ended the replay early")
                return
            except grpc.aio.AioRpcError as failure:
                error = from_rpc(failure, endpoint.address)
            except grpc.aio.UsageError:
                raise ClosedError("the client has been closed") from None
            except HoldfastError as failed:
                error = failed
            finally:
                call.cancel()
            if not error.retriable and not self._lags(error):
                raise error
            if type(error) is not UnavailableError:
                said = error
            delay = backoff.after(error)
            if loop.time() + delay >= deadline:
                raise said or error
            self._connection.failed(endpoint, error)
            await asyncio.sleep(delay)
            endpoint = self._connection.after(endpoint)

    async def _read(self, call: Any) -> ReplayMessage | None:
        if self._follow:
            response = await call.read()
        else:
            try:
                async with asyncio.timeout(_SILENCE_SECONDS if self._next else self._timeout):
                    response = await call.read()
            except TimeoutError:
                raise DeadlineExceededError(f"no answer to a replay of {self._request.topic}") from None
        return response if isinstance(response, ReplayMessage) else None

    def _resumed(self) -> bus_pb2.ReplayRequest:
        """The request, from where the replay has come to."""
        if not self._next:
            return self._request
        request = bus_pb2.ReplayRequest()
        request.CopyFrom(self._request)
        going = self._next if self._follow else {p: o for p, o in self._next.items() if o < self._stops[p]}
        # One partition must be named even when all are done: the broker then confirms the end.
        going = going or dict([next(iter(self._next.items()))])
        del request.partitions[:]
        request.partitions.extend(sorted(going))
        request.start.CopyFrom(bus_pb2.Position(offsets=bus_pb2.PartitionOffsets(offsets=going)))
        if not self._follow and _time(self._request.end) is None:
            stops = {partition: max(self._stops[partition], offset) for partition, offset in going.items()}
            request.end.CopyFrom(bus_pb2.Position(offsets=bus_pb2.PartitionOffsets(offsets=stops)))
        elif request.end.WhichOneof("position") == "offsets":
            for partition in set(request.end.offsets.offsets) - set(going):
                del request.end.offsets.offsets[partition]
        return request

    def _begin(self, response: ReplayMessage, address: str) -> None:
        """The first message says where each partition stood at the time of the call."""
        ends = {progress.partition: progress.log_end_offset for progress in response.rest.progress}
        self._stops = dict(ends)
        self._bound_stops()
        self._next = {progress.partition: progress.next_offset for progress in response.rest.progress}
        for stored in reversed(response.batches):
            self._next[stored.facts.partition] = stored.facts.first_offset
        observer = self._connection.effects.observer
        if observer is not None:
            observer.replay_began(address, self._request.topic, dict(self._next), ends)

    def _take(self, response: ReplayMessage) -> Iterator[Batch]:
        for stored in response.batches:
            batch = self._batch(stored)
            if batch is not None:
                yield batch
        for progress in response.rest.progress:
            before = self._next.get(progress.partition, 0)
            self._next[progress.partition] = max(before, progress.next_offset)

    def _bound_stops(self) -> None:
        end = self._request.end
        kind = end.WhichOneof("position")
        for partition, stop in self._stops.items():
            if kind == "offset":
                self._stops[partition] = min(stop, end.offset)
            elif kind == "offsets" and partition in end.offsets.offsets:
                self._stops[partition] = min(stop, end.offsets.offsets[partition])

    def _batch(self, stored: Stored) -> Batch | None:
        """What of a stored batch was asked for and not yet read."""
        facts = stored.facts
        partition, base = facts.partition, facts.base_offset
        first, last = facts.first_offset, facts.last_offset
        first = max(first, self._next.get(partition, 0))
        if not self._follow and partition in self._stops:
            last = min(last, self._stops[partition] - 1)
        if first > last:
            return None
        columns = decode_batch(stored.batch)
        if not base <= first <= last < base + columns.count:
            raise CorruptBatchError(
                f"{facts.topic}[{partition}]: {first}..{last} of a batch of {columns.count} at {base}"
            )
        self._next[partition] = last + 1
        pick: range | list[int] = range(first - base, last - base + 1)
        if self._window is not None:
            low, high = self._window
            times = columns.timestamps_us
            chosen = [index for index in pick if low <= times[index] < high]
            if not chosen:
                return None
            if len(chosen) != len(pick):
                pick = chosen
        return Batch(facts.topic, partition, base, facts.append_time_us, columns, pick)

    def _lags(self, error: HoldfastError) -> bool:
        """Whether a replica merely has not got yet what another one has served."""
        if not isinstance(error, OffsetOutOfRangeError) or not self._next:
            return False
        end = error.metadata.get("end_offset", "")
        return end.isdigit() and any(int(end) < offset for offset in self._next.values())


_MIN, _MAX = -(1 << 63), 1 << 63


def _time(position: bus_pb2.Position) -> int | None:
    return position.time_us if position.WhichOneof("position") == "time_us" else None
