"""What a leader does from time to time: propose retention, expiry and sweeps.

What to forget is decided by pure functions in ``cluster.state.retention``;
replicas forget the same because it travels through the log.
"""

from __future__ import annotations

import asyncio
import logging

from holdfast.cluster.commands import encode_op
from holdfast.cluster.ports import Clock
from holdfast.cluster.results import Role
from holdfast.cluster.state.retention import plan_expiry, plan_mark_expiry, plan_trims
from holdfast.cluster.state.sweep import plan_sweep
from holdfast.errors import HoldfastError
from holdfast.rpc.bridge import EngineBridge
from holdfast.storage.port import Store
from holdfast.v1 import log_pb2

logger = logging.getLogger(__name__)

_TIMEOUT_S = 10.0
#: Rounds of trimming, of forgetting marks and of sweeping in one go; what is left waits for the next
#: interval.
_MAX_ROUNDS = 64


class LeaderDuties:
    """Runs on every node, acts on the leader.

    Args:
        interval_s: seconds between looks.
        producer_idle_s: idempotence state of producers idle this long is dropped.
    """

    def __init__(
        self, store: Store, bridge: EngineBridge, clock: Clock, *, interval_s: float, producer_idle_s: float
    ) -> None:
        self._store = store
        self._bridge = bridge
        self._clock = clock
        self._interval_s = interval_s
        self._producer_idle_us = int(producer_idle_s * 1_000_000)
        self._after = (0, 0)
        self._swept = b""
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="holdfast-duties")

    async def close(self) -> None:
        """Stop; what was proposed goes on."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._interval_s)
            try:
                await self.run_once()
            except HoldfastError as error:
                # Leadership may have moved, or the disk be full: the next look tries again.
                logger.debug("retention was put off: %s", error)
            except Exception:
                logger.exception("retention failed")

    async def run_once(self) -> int:
        """One look at everything; how many operations were proposed.

        Raises:
            HoldfastError: a proposal failed.
        """
        proposed = 0
        for _ in range(_MAX_ROUNDS):
            if self._bridge.progress.role is not Role.LEADER:
                return proposed
            # A plan looks at every partition: not on the event loop.
            ops = await asyncio.to_thread(self._plan_trims)
            await self._propose(ops)
            proposed += len(ops)
            if not ops:
                break
            self._after = (ops[-1].trim.topic_id, ops[-1].trim.partition)
        expiry = await asyncio.to_thread(self._plan_expiry)
        if expiry is not None and self._bridge.progress.role is Role.LEADER:
            await self._propose([expiry])
            proposed += 1
        return proposed + await self._expire_marks() + await self._sweep()

    async def _expire_marks(self) -> int:
        proposed = 0
        for _ in range(_MAX_ROUNDS):
            ops = await asyncio.to_thread(self._plan_mark_expiry)
            if not ops or self._bridge.progress.role is not Role.LEADER:
                break
            await self._propose(ops)
            proposed += len(ops)
        return proposed

    async def _sweep(self) -> int:
        """Delete what groups keep of topics that are gone."""
        op, self._swept = await asyncio.to_thread(self._plan_sweep)
        proposed = 0
        while op is not None and proposed < _MAX_ROUNDS and self._bridge.progress.role is Role.LEADER:
            result, _ = await self._bridge.submit(encode_op(op), _TIMEOUT_S)
            proposed += 1
            if not result.more:
                break
        return proposed

    async def _propose(self, ops: list[log_pb2.Op]) -> None:
        calls = [self._bridge.submit(encode_op(op), _TIMEOUT_S) for op in ops]
        results = await asyncio.gather(*calls, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    def _plan_trims(self) -> list[log_pb2.Op]:
        with self._store.read() as reader:
            return plan_trims(reader, self._clock.wall_us(), after=self._after)

    def _plan_mark_expiry(self) -> list[log_pb2.Op]:
        with self._store.read() as reader:
            return plan_mark_expiry(reader, self._clock.wall_us())

    def _plan_sweep(self) -> tuple[log_pb2.Op | None, bytes]:
        with self._store.read() as reader:
            return plan_sweep(reader, self._swept)

    def _plan_expiry(self) -> log_pb2.Op | None:
        with self._store.read() as reader:
            return plan_expiry(reader, self._clock.wall_us(), idle_us=self._producer_idle_us)
