"""The client of Redis Streams: redis-py, with hiredis to parse and to pack."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import redis
import redis.asyncio
import redis.exceptions

from benchmarks.peers import system

#: Bytes of payload, and records, in one pipeline before it waits for the replica.
_BATCH_BYTES = 512 << 10
_BATCH_RECORDS = 1_000
#: Pipelines under way at a time, each on a connection of its own. The server reads 16 KiB of each connection
#: between two fsyncs, so that more of them share one.
_PIPELINES = 8
#: Threads: pipelines, and readers besides.
_THREADS = 2 * _PIPELINES
#: Entries in one answer.
_READ = 5_000
_FIELD = b"d"
#: A reader in a thread looks up this often, so that it does not outlive its client.
_BLOCK_MS = 500

_T = TypeVar("_T")


class Client(system.Client):
    """redis-py: the asyncio client for single records, the blocking one in threads for many.

    The blocking client packs and parses in C and costs a third of the asyncio one per command. Replies of
    reading commands are taken as hiredis gives them (``set_response_callback``): no dictionary per entry.

    * ``publish``: XADD and WAIT 1 in one round trip, on a connection from the pool.
    * ``publish_all``: pipelines of 1,000 XADD (at most 512 KiB) and WAIT 1, eight under way.
    * ``consume``: XREADGROUP and, in the same round trip, the XACK of the batch before; WAIT 1 after the last
      XACK, which covers all of them.
    * ``publish_through_failure``: unsupported. Redis elects nobody by itself; Sentinel, a further service,
      promotes a replica without asking whether it has what WAIT acknowledged, so it would not be the same
      promise.
    """

    async def connect(self) -> None:
        host, _, port = self.addresses[0].rpartition(":")
        # Without a timeout: WAIT and blocking reads take as long as they take.
        settings: dict[str, Any] = {
            "host": host,
            "port": int(port),
            "socket_timeout": None,
            "max_connections": 1_000,
            "protocol": 2,
        }
        self._single: Any = redis.asyncio.Redis(**settings)  # its commands carry no annotations
        self._many: Any = redis.Redis(**settings)
        both: list[Any] = [self._single, self._many]
        for client in both:
            for command in ("XRANGE", "XREAD", "XREADGROUP"):
                client.set_response_callback(command, _as_it_is)
        self._closed = threading.Event()
        self._threads = ThreadPoolExecutor(_THREADS)

    async def close(self) -> None:
        self._closed.set()
        await self._single.aclose()
        self._many.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def create(self, topic: str) -> None:
        """Nothing: the first XADD makes the stream."""

    async def publish(self, topic: str, payload: bytes) -> None:
        pipeline = self._single.pipeline(transaction=False)
        pipeline.execute_command("XADD", topic, "*", _FIELD, payload)
        pipeline.execute_command("WAIT", 1, 0)
        _held((await pipeline.execute())[-1])

    async def publish_all(self, topic: str, payloads: Sequence[bytes], times: int) -> None:
        room = asyncio.Semaphore(_PIPELINES)

        async def one(part: Sequence[bytes]) -> None:
            async with room:
                await self._run(self._publish, topic, part)

        parts = _parts(payloads)
        await asyncio.gather(*[one(part) for _ in range(times) for part in parts])

    def _publish(self, topic: str, payloads: Sequence[bytes]) -> None:
        pipeline = self._many.pipeline(transaction=False)
        for payload in payloads:
            pipeline.execute_command("XADD", topic, "*", _FIELD, payload)
        pipeline.execute_command("WAIT", 1, 0)
        _held(pipeline.execute()[-1])

    async def replay(self, topic: str, count: int) -> tuple[int, int]:
        return await self._run(self._replay, topic, count)

    def _replay(self, topic: str, count: int) -> tuple[int, int]:
        """Raises RuntimeError when the stream has fewer records."""
        start = b"-"
        records = size = 0
        while records < count:
            entries = self._many.execute_command(
                "XRANGE", topic, start, "+", "COUNT", min(_READ, count - records)
            )
            if not entries:
                raise RuntimeError(f"{topic} has {records} of {count} records")
            size += sum([len(fields[1]) for _, fields in entries])
            records += len(entries)
            start = b"(" + entries[-1][0]
        return records, size

    async def consume(self, topic: str, group: str, count: int) -> int:
        return await self._run(self._consume, topic, group, count)

    def _consume(self, topic: str, group: str, count: int) -> int:
        try:
            self._many.execute_command("XGROUP CREATE", topic, group, "0", "MKSTREAM")
        except redis.exceptions.ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):  # the group is there already
                raise
        consumed = 0
        done: list[bytes] = []
        while True:
            pipeline = self._many.pipeline(transaction=False)
            if done:
                pipeline.execute_command("XACK", topic, group, *done)
            if consumed >= count:
                pipeline.execute_command("WAIT", 1, 0)
                _held(pipeline.execute()[-1])
                return consumed
            if self._closed.is_set():
                raise RuntimeError("the client was closed")
            read = ["XREADGROUP", "GROUP", group, "c", "COUNT", min(_READ, count - consumed)]
            pipeline.execute_command(*read, "BLOCK", _BLOCK_MS, "STREAMS", topic, ">")
            done = [entry for _, entries in pipeline.execute()[-1] or [] for entry, _ in entries]
            consumed += len(done)

    async def deliveries(self, topic: str) -> AsyncIterator[Sequence[bytes]]:
        last: bytes | str = "$"
        while True:
            [(_, entries)] = await self._single.execute_command(
                "XREAD", "COUNT", _READ, "BLOCK", 0, "STREAMS", topic, last
            )
            last = entries[-1][0]
            yield [fields[1] for _, fields in entries]

    async def _run(self, call: Callable[..., _T], *arguments: Any) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call, *arguments)


def _parts(payloads: Sequence[bytes]) -> list[Sequence[bytes]]:
    """The records in pipelines of at most so many records and bytes."""
    largest = max(map(len, payloads))
    step = max(1, min(_BATCH_RECORDS, _BATCH_BYTES // largest))
    return [payloads[index : index + step] for index in range(0, len(payloads), step)]


def _held(replicas: int) -> None:
    """Raises RuntimeError when WAIT says that no replica has the records."""
    if replicas < 1:
        raise RuntimeError("no replica of Redis has the records")


def _as_it_is(reply: Any, **options: Any) -> Any:
    return reply
