"""Calls that a follower passes on to the leader."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from holdfast.cluster.results import Progress, Role
from holdfast.errors import HoldfastError, NoLeaderError, OutcomeUnknownError, UnknownTopicError
from holdfast.rpc.bridge import EngineBridge
from holdfast.rpc.clock import SystemClock
from holdfast.rpc.services.leader_call import LeaderCall
from holdfast.rpc.services.leader_channel import FORWARDED, RemoteStatusError
from holdfast.rpc.settings import make
from holdfast.rpc.status import abort
from holdfast.rpc.topology import Topology

PATH = "/test.Leader/Call"
STREAM = "/test.Leader/Stream"
PATIENCE = 10.0


class Called:
    """The context of a client's call, as far as it is looked at."""

    def __init__(self, *metadata: tuple[str, str]) -> None:
        self.metadata = metadata
        self.aborted: tuple[Any, ...] = ()

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return self.metadata

    async def abort(self, *arguments: Any) -> None:
        self.aborted = arguments


class Leader:
    """A server that answers as a leader might; ``hang`` is set once it has been asked to."""

    def __init__(self) -> None:
        self.seen: list[tuple[bytes, str | None]] = []
        self.hangs = asyncio.Event()
        self.server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        methods = {
            "Call": grpc.unary_unary_rpc_method_handler(self.call),
            "Stream": grpc.unary_stream_rpc_method_handler(self.stream),
        }
        self.server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Leader", methods),))
        self.address = f"127.0.0.1:{self.server.add_insecure_port('127.0.0.1:0')}"

    async def call(self, raw: bytes, context: Any) -> bytes:
        self.seen.append((raw, dict(context.invocation_metadata()).get(FORWARDED)))
        await self._maybe(raw, context)
        return raw[::-1]

    async def stream(self, raw: bytes, context: Any) -> AsyncIterator[bytes]:
        self.seen.append((raw, dict(context.invocation_metadata()).get(FORWARDED)))
        yield b"first"
        await self._maybe(raw, context)
        yield raw

    async def _maybe(self, raw: bytes, context: Any) -> None:
        if raw == b"fail":
            await abort(context, UnknownTopicError("no topic", metadata={"topic": "t"}))
        if raw == b"hang":
            self.hangs.set()
            await asyncio.Event().wait()


def progress(leader: str | None, term: int = 1) -> Progress:
    return Progress(1, 1, term, Role.FOLLOWER, leader)


@asynccontextmanager
async def follower() -> AsyncIterator[tuple[LeaderCall, Leader, EngineBridge]]:
    leader = Leader()
    await leader.server.start()
    members = {
        "n1": {"client": "127.0.0.1:1", "peer": "127.0.0.1:2"},
        "n2": {"client": leader.address, "peer": "127.0.0.1:3"},
        "n3": {"client": "127.0.0.1:5", "peer": "127.0.0.1:4"},
    }
    topology = Topology(make(node_id="n1", members=members, listen="127.0.0.1:1", peer_listen="127.0.0.1:2"))
    bridge = EngineBridge(asyncio.get_running_loop(), SystemClock(), progress("n2"))
    calls = LeaderCall(bridge, topology)
    try:
        yield calls, leader, bridge
    finally:
        await calls.close()
        bridge.close()
        await leader.server.stop(None)


async def collect(calls: LeaderCall, raw: bytes) -> list[bytes]:
    return [answer async for answer in calls.stream(STREAM, raw, Called())]  # type: ignore[arg-type]


async def test_bytes_go_there_and_back_marked() -> None:
    async with follower() as (calls, leader, _):
        assert not calls.leads
        answer = await calls.unary(PATH, b"abc", Called(), PATIENCE)  # type: ignore[arg-type]
        assert answer == b"cba"
        assert await collect(calls, b"abc") == [b"first", b"abc"]
        assert leader.seen == [(b"abc", "n1"), (b"abc", "n1")]


async def test_statuses_come_back_as_the_leader_gave_them() -> None:
    async with follower() as (calls, _, _):
        for work in (calls.unary(PATH, b"fail", Called(), PATIENCE), collect(calls, b"fail")):  # type: ignore[arg-type]
            with pytest.raises(RemoteStatusError) as caught:
                await work
            client = Called()
            await caught.value.pass_on(client)  # type: ignore[arg-type]
            code, text, details = client.aborted
            assert (code, text) == (grpc.StatusCode.NOT_FOUND, "no topic")
            assert b"UNKNOWN_TOPIC" in details[0][1]


async def test_a_call_is_passed_on_once() -> None:
    async with follower() as (calls, leader, _):
        with pytest.raises(NoLeaderError) as caught:
            await calls.unary(PATH, b"abc", Called((FORWARDED, "n3")), PATIENCE)  # type: ignore[arg-type]
        assert caught.value.metadata == {"leader": "n2", "leader_address": leader.address}
        assert not leader.seen


@pytest.mark.parametrize("known", [None, "n1"])
async def test_without_a_leader_nothing_is_done(known: str | None) -> None:
    async with follower() as (calls, _, bridge):
        bridge.report((), progress(known))
        with pytest.raises(NoLeaderError):
            await calls.unary(PATH, b"abc", Called(), PATIENCE)  # type: ignore[arg-type]
        with pytest.raises(NoLeaderError):
            await collect(calls, b"abc")


@pytest.mark.parametrize("end", ["killed", "replaced"])
async def test_a_leader_that_is_lost_leaves_changes_open(end: str) -> None:
    async with follower() as (calls, leader, bridge):
        failed: list[HoldfastError] = []

        async def call(work: Any) -> None:
            try:
                await work
            except HoldfastError as error:
                failed.append(error)

        context: Any = Called()
        tasks = []
        for work in (
            calls.unary(PATH, b"hang", context, PATIENCE),
            calls.unary(PATH, b"hang", context, PATIENCE, changes=False),
            collect(calls, b"hang"),
        ):
            leader.hangs.clear()
            tasks.append(asyncio.create_task(call(work)))
            async with asyncio.timeout(PATIENCE):
                await leader.hangs.wait()
        if end == "killed":
            await leader.server.stop(None)
        else:
            bridge.report((), progress("n3", term=2))
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*tasks)
        assert sorted(type(error).__name__ for error in failed) == [
            NoLeaderError.__name__,
            NoLeaderError.__name__,
            OutcomeUnknownError.__name__,
        ]
        assert all(error.retriable for error in failed)


async def test_a_deadline_that_passes_leaves_changes_open() -> None:
    async with follower() as (calls, _, _):
        with pytest.raises(OutcomeUnknownError):
            await calls.unary(PATH, b"hang", Called(), 0.05)  # type: ignore[arg-type]


async def test_a_caller_that_goes_away_ends_its_call() -> None:
    async with follower() as (calls, leader, _):
        task = asyncio.create_task(calls.unary(PATH, b"hang", Called(), PATIENCE))  # type: ignore[arg-type]
        async with asyncio.timeout(PATIENCE):
            await leader.hangs.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not calls._channel.active
