"""Publishers of RabbitMQ's stream protocol, on rstream's connection."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain

from rstream import ServerError
from rstream.client import Client as Connection
from rstream.constants import Key, T
from rstream.schema import Frame, Message, Publish, PublishConfirm, PublishError, PublishSubBatching

from benchmarks.peers.confirms import settle

#: What a client puts into one frame of many records; a frame may hold 1 MiB by both sides' defaults.
FRAME_RECORDS = 4000
FRAME_BYTES = 400_000
#: Frames that are not confirmed yet at a time: of plain entries, and of sub-entries.
_WINDOW = 40
_SUB_WINDOW = 16

#: Before a plain entry: its publishing id and its length.
_HEAD = struct.Struct(">QI")
_LENGTH = struct.Struct(">I")
#: Marks a sub-entry that is not compressed: the payloads are random.
_PLAIN_SUB_ENTRY = 0x80


@dataclass
class _Entries(Frame):
    """What rstream's ``Publish`` is on the wire, its entries put together by one ``join``."""

    key = Key.Publish
    publisher_id: int = field(metadata={"type": T.uint8})
    count: int = field(metadata={"type": T.uint32})
    entries: bytes = field(metadata={"type": T.raw})


_Entries.prepare()


class Publisher:
    """A stream's publisher on a connection to its leader; what is not confirmed yet, by publishing id."""

    def __init__(self, connection: Connection, number: int) -> None:
        self.connection = connection
        self._number = number
        self._id = 0
        self._waiting: list[Message] = []
        self._pending: dict[int, asyncio.Future[None] | None] = {}
        self._moved = asyncio.Event()
        self._sending: asyncio.Task[None] | None = None
        self.failure: Exception | None = None

    async def publish(self, payload: bytes) -> None:
        """Returns when confirmed; goes out with whatever else is published in the same turn of the loop."""
        if self.failure:
            raise self.failure
        self._id += 1
        confirmed = asyncio.get_running_loop().create_future()
        self._pending[self._id] = confirmed
        self._waiting.append(Message(self._id, None, payload))
        if self._sending is None:
            self._sending = asyncio.create_task(self._send())
        await confirmed

    async def _send(self) -> None:
        while self._waiting:
            size = count = 0
            for message in self._waiting:
                size += len(message.data) + 12
                if count and size > FRAME_BYTES:
                    break
                count += 1
            some = self._waiting[:count]
            del self._waiting[:count]
            await self.connection.send_publish_frame(Publish(self._number, some))
        self._sending = None

    async def publish_all(self, payloads: Sequence[bytes], times: int) -> None:
        """Each record an entry of its own, with its own publishing id and its own confirmation."""
        per_frame = records_per_frame(payloads)
        for _ in range(times):
            for start in range(0, len(payloads), per_frame):
                some = payloads[start : start + per_frame]
                await self._at_most(_WINDOW * per_frame - len(some))
                ids = range(self._id + 1, self._id + 1 + len(some))
                self._id += len(some)
                self._pending.update(dict.fromkeys(ids))
                heads = map(_HEAD.pack, ids, map(len, some))
                data = b"".join(chain.from_iterable(zip(heads, some, strict=True)))
                await self.connection.send_frame(_Entries(self._number, len(some), data))
        await self._at_most(0)

    async def _at_most(self, pending: int) -> None:
        while len(self._pending) > pending and not self.failure:
            self._moved.clear()
            await self._moved.wait()
        if self.failure:
            raise self.failure

    def confirmed(self, frame: PublishConfirm) -> None:
        if frame.publisher_id == self._number:
            settle([self._pending.pop(each) for each in frame.publishing_ids], self.failure)
            self._moved.set()

    def refused(self, frame: PublishError) -> None:
        if frame.publisher_id == self._number:
            self.broken(ServerError(f"a record was refused: {frame.errors[0]}"))

    def broken(self, reason: Exception) -> None:
        """Nothing pending will be confirmed."""
        self.failure = self.failure or reason
        settle(self._pending.values(), self.failure)
        self._pending.clear()
        self._moved.set()


class SubEntryPublisher(Publisher):
    """Many records at a time as sub-entries: under one publishing id, stored and confirmed as one entry."""

    async def publish_all(self, payloads: Sequence[bytes], times: int) -> None:
        per_frame = records_per_frame(payloads)
        for _ in range(times):
            for start in range(0, len(payloads), per_frame):
                some = payloads[start : start + per_frame]
                lengths = map(_LENGTH.pack, map(len, some))
                data = b"".join(chain.from_iterable(zip(lengths, some, strict=True)))
                await self._at_most(_SUB_WINDOW - 1)
                self._id += 1
                self._pending[self._id] = None
                frame = PublishSubBatching(
                    self._number, 1, self._id, _PLAIN_SUB_ENTRY, len(some), len(data), len(data), data
                )
                await self.connection.send_frame(frame)
        await self._at_most(0)


def records_per_frame(payloads: Sequence[bytes]) -> int:
    """As many as a frame is to hold of records as large as the largest."""
    return max(1, min(FRAME_RECORDS, FRAME_BYTES // max(map(len, payloads), default=1)))
