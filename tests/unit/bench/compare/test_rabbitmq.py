"""RabbitMQ's publishers write what rstream writes, and count what is confirmed."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

pytest.importorskip("rstream")

from rstream.encoding import encode_frame, encode_publish
from rstream.exceptions import ServerError
from rstream.schema import Frame, Message, Publish, PublishConfirm, PublishError, PublishingError

from benchmarks.peers import rabbitmq_publisher
from benchmarks.peers.catalog import cluster_class, make_client
from benchmarks.peers.rabbitmq_publisher import Publisher, SubEntryPublisher, records_per_frame


class Wire:
    """A connection that keeps what is sent; ``confirm`` is the broker."""

    def __init__(self) -> None:
        self.frames: list[bytes] = []

    async def send_frame(self, frame: Frame) -> None:
        self.frames.append(encode_frame(frame))


def _publisher(kind: type[Publisher] = Publisher) -> tuple[Publisher, Wire]:
    wire: Any = Wire()
    return kind(wire, 7), wire


async def _sent(publisher: Publisher, payloads: list[bytes], times: int = 1) -> asyncio.Task[None]:
    task = asyncio.create_task(publisher.publish_all(payloads, times))
    for _ in range(10):
        await asyncio.sleep(0)
    return task


async def test_plain_entries_are_the_library_s_frame() -> None:
    publisher, wire = _publisher()
    task = await _sent(publisher, [b"one", b"", b"three"])
    messages = [Message(number, None, data) for number, data in enumerate([b"one", b"", b"three"], 1)]
    assert wire.frames == [encode_publish(Publish(7, messages))]
    publisher.confirmed(PublishConfirm(7, [1, 2, 3]))
    await task


async def test_every_plain_entry_is_confirmed_by_its_own_id() -> None:
    publisher, _ = _publisher()
    task = await _sent(publisher, [b"a", b"b"], 2)
    publisher.confirmed(PublishConfirm(7, [1, 2, 4]))
    publisher.confirmed(PublishConfirm(8, [3]))  # of another publisher
    await asyncio.sleep(0)
    assert not task.done()
    publisher.confirmed(PublishConfirm(7, [3]))
    await task


async def test_a_sub_entry_is_confirmed_as_one() -> None:
    publisher, wire = _publisher(SubEntryPublisher)
    task = await _sent(publisher, [b"a", b"b"])
    assert len(wire.frames) == 1
    publisher.confirmed(PublishConfirm(7, [1]))
    await task


async def test_no_more_than_a_window_is_unconfirmed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rabbitmq_publisher, "_WINDOW", 2)
    monkeypatch.setattr(rabbitmq_publisher, "FRAME_RECORDS", 3)
    publisher, wire = _publisher()
    task = await _sent(publisher, [b"x"] * 12)
    assert len(wire.frames) == 2
    publisher.confirmed(PublishConfirm(7, [1, 2]))
    await asyncio.sleep(0)
    assert len(wire.frames) == 2
    publisher.confirmed(PublishConfirm(7, [3]))
    for _ in range(5):
        await asyncio.sleep(0)
    assert len(wire.frames) == 3
    task.cancel()


async def test_a_refusal_ends_the_publishing() -> None:
    publisher, _ = _publisher()
    task = await _sent(publisher, [b"a"])
    publisher.refused(PublishError(7, [PublishingError(1, 6)]))
    with pytest.raises(ServerError, match="refused"):
        await task


def test_a_frame_holds_so_many_records_and_bytes() -> None:
    assert records_per_frame([b"x"]) == 4000
    assert records_per_frame([b"", b"x" * 1000]) == 400
    assert records_per_frame([b"x" * 1_000_000]) == 1


def test_each_row_publishes_as_it_says() -> None:
    plain, sub = (make_client(name, []) for name in ("rabbitmq-stream", "rabbitmq-stream-sub"))
    assert plain.publisher is Publisher  # type: ignore[attr-defined]
    assert sub.publisher is SubEntryPublisher  # type: ignore[attr-defined]
    assert "sub-entries of 400 KB or 4,000 records" in cluster_class("rabbitmq-stream-sub").title
