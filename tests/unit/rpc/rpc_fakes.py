"""An engine without consensus: applies to the real state machine at once."""

from __future__ import annotations

import asyncio
from collections import deque

from holdfast.cluster import commands
from holdfast.cluster.results import Completed, EngineStatus, Progress, Role
from holdfast.cluster.state.machine import StateMachine
from holdfast.errors import HoldfastError
from holdfast.rpc.bridge import EngineBridge
from holdfast.rpc.clock import SystemClock
from holdfast.storage.memory_store import MemoryStore

START = Progress(1, 1, 1, Role.LEADER, "n1", visible_index=1)


class FakeEngine:
    """``hold`` keeps proposals until ``release``; ``refuse`` is raised by propose;
    ``fail`` answers the next ones."""

    def __init__(self, bridge: EngineBridge, store: MemoryStore | None = None) -> None:
        self.bridge = bridge
        self.store = store or MemoryStore()
        self.machine = StateMachine()
        self.index = 1
        self.hold = False
        self.refuse: HoldfastError | None = None
        self.fail: HoldfastError | None = None
        self.time_us = 1_000_000
        self.barriers = 0
        self._held: deque[tuple[bytes, object]] = deque()

    @property
    def held(self) -> int:
        return len(self._held)

    def propose(self, op: bytes, token: object, deadline: float) -> None:
        if self.refuse is not None:
            raise self.refuse
        self._held.append((op, token))
        if not self.hold:
            self.release()

    def read_barrier(self, token: object, deadline: float) -> None:
        self.barriers += 1
        self.bridge.deliver(
            (Completed(token, None, self.fail, 0 if self.fail else self.index),), self.progress()
        )

    def release(self, count: int | None = None) -> None:
        completed = []
        touched: set[tuple[int, int]] = set()
        while self._held and count != len(completed):
            op, token = self._held.popleft()
            if self.fail is not None:
                completed.append(Completed(token, None, self.fail, 0))
                continue
            self.index += 1
            self.time_us += 1
            entry = commands.encode_entry(self.time_us, [op])
            applied = self.machine.apply(self.store.writer(), self.index, entry)
            self.store.commit()
            touched |= applied.touched
            completed.append(Completed(token, applied.results[0], None, self.index))
        self.bridge.deliver(completed, self.progress(frozenset(touched)))

    def progress(self, touched: frozenset[tuple[int, int]] = frozenset()) -> Progress:
        return Progress(self.index, self.index, 1, Role.LEADER, "n1", touched, self.index)

    def status(self) -> EngineStatus:
        i = self.index
        return EngineStatus("n1", Role.LEADER, 1, "n1", i, i, i, 2, i, i, (), True, len(self._held))


def make_engine() -> FakeEngine:
    """A fake engine and its bridge, on the running loop."""
    bridge = EngineBridge(asyncio.get_running_loop(), SystemClock(), START)
    engine = FakeEngine(bridge)
    bridge.attach(engine)
    return engine
