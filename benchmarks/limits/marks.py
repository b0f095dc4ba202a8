"""Moments of a broker's work, noted by wrapping its functions from outside.

Only the launcher ``benchmarks.limits.traced`` does this; a broker that is started as usual carries nothing
of it. A moment is (name, nanoseconds of CLOCK_MONOTONIC, number, nanoseconds of the thread's processor
time): the first clock is the same for all processes of a machine. The number is a log index where there is
one, else 0.
"""

from __future__ import annotations

import functools
import importlib
import json
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

Moment = tuple[str, int, int, int]
#: From (arguments, result) to the number noted, or None: not a moment of interest.
Number = Callable[[Sequence[Any], Any], "int | None"]

#: What was noted in this process; appended to from several threads, which a list takes.
MOMENTS: list[Moment] = []
_now = time.perf_counter_ns
_used = time.thread_time_ns


def note(name: str, number: int = 0) -> None:
    MOMENTS.append((name, _now(), number, _used()))


def write(path: Path) -> None:
    """Everything noted, as one JSON list."""
    path.write_text(json.dumps(MOMENTS))


def read(path: Path) -> list[Moment]:
    return [(name, at, number, used) for name, at, number, used in json.loads(path.read_text())]


def _always(arguments: Sequence[Any], result: Any) -> int:
    return 0


def wrap(target: str, *, enter: str = "", leave: str = "", number: Number = _always) -> bool:
    """Note ``enter`` when ``module:Class.method`` is called and ``leave`` when it returns.

    ``number`` is asked before the call for ``enter`` (with result None) and after it for ``leave``. False
    when there is no such function any more: its row of the table then stays empty.
    """
    module_name, _, path = target.partition(":")
    owner: Any = importlib.import_module(module_name)
    *holders, name = path.split(".")
    for holder in holders:
        owner = getattr(owner, holder, None)
    original = getattr(owner, name, None)
    if original is None:
        return False

    @functools.wraps(original)
    def noted(*arguments: Any, **named: Any) -> Any:
        if enter:
            at = _now()
            value = number(arguments, None)
            if value is not None:
                MOMENTS.append((enter, at, value, _used()))
        result = original(*arguments, **named)
        if leave:
            at = _now()
            value = number(arguments, result)
            if value is not None:
                MOMENTS.append((leave, at, value, _used()))
        return result

    setattr(owner, name, noted)
    return True


def wrap_generator(target: str, *, before: str, after: str) -> bool:
    """Note each item that an async generator method gives, and when it is asked for the next one."""
    module_name, _, path = target.partition(":")
    class_name, _, name = path.partition(".")
    owner = getattr(importlib.import_module(module_name), class_name, None)
    original = getattr(owner, name, None)
    if original is None:
        return False

    @functools.wraps(original)
    async def noted(*arguments: Any) -> AsyncIterator[Any]:
        async for item in original(*arguments):
            note(before)
            yield item
            note(after)

    setattr(owner, name, noted)
    return True


# -- the broker's own points ---------------------------------------------------


def _index_appended(arguments: Sequence[Any], result: Any) -> int:
    return int(arguments[2])


def _index_applied(arguments: Sequence[Any], result: Any) -> int:
    return int(arguments[2])


def _append_sent(arguments: Sequence[Any], result: Any) -> int | None:
    """The last index of an append with entries."""
    frame = arguments[2]
    if frame.WhichOneof("body") != "append" or not frame.append.entries:
        return None
    return int(frame.append.prev_index) + len(frame.append.entries)


def _ack_sent(arguments: Sequence[Any], result: Any) -> int | None:
    frame = arguments[2]
    if frame.WhichOneof("body") != "append_reply" or not frame.append_reply.success:
        return None
    return int(frame.append_reply.match_index)


def _came(arguments: Sequence[Any], result: Any) -> int | None:
    """A poll that brought something."""
    return 0 if result else None


def install() -> list[str]:
    """Wrap everything the timeline knows; the names of points that are gone."""
    raft, rpc = "holdfast.cluster.raft", "holdfast.rpc"
    missing = []

    def point(target: str, **marks: Any) -> None:
        if not wrap(target, **marks):
            missing.append(target)

    point(f"{rpc}.services.bus_publish:parse_publish", enter="received")
    point(f"{rpc}.services.bus_publish:PublishService.publish", enter="handler")
    point("holdfast.cluster.engine:Engine.propose", enter="proposed")
    point("selectors:EpollSelector.select", leave="woken", number=_came)
    point(f"{rpc}.peer.tcp:TcpTransport.poll", leave="polled", number=_came)
    point(f"{raft}.journal:StoreJournal.add", leave="appended", number=_index_appended)
    # All frames go through one method: the frame says whether it is an append or an ack.
    point(f"{rpc}.peer.tcp:TcpTransport.send_append", enter="ship", number=_append_sent)
    point(f"{rpc}.peer.tcp:TcpTransport.send_append", enter="ack", number=_ack_sent)
    point(f"{raft}.core:RaftCore._on_append", enter="append", number=_append_sent)
    point(f"{raft}.core:RaftCore._on_append_reply", enter="acked", number=_ack_sent)
    for durable in ("commit_store", "persist_store"):
        point(f"{raft}.core:RaftCore.{durable}", enter="commit", leave="committed")
    point("holdfast.cluster.state.machine:StateMachine.apply", leave="applied", number=_index_applied)
    point(f"{rpc}.bridge:EngineBridge.deliver", enter="deliver")
    point(f"{rpc}.bridge:EngineBridge._tell", enter="reported")
    point("holdfast.cluster.engine:Engine.turn", leave="turned")
    point(f"{raft}.core:RaftCore._disconnected", enter="lost")
    point(f"{raft}.core:RaftCore._ask_pre_votes", enter="asked")
    point(f"{raft}.core:RaftCore._SyncObj__onBecomeLeader", enter="led")
    if not wrap_generator(
        f"{rpc}.services.bus_publish:PublishService.publish_stream", before="answer", after="answered"
    ):
        missing.append("publish_stream")
    return missing
