"""Drives the scrub on the event loop: a step in a worker thread, then a pause."""

from __future__ import annotations

import asyncio
import logging

from holdfast.cluster.ports import Clock, EventSink
from holdfast.cluster.scrub import Scrub
from holdfast.errors import HoldfastError
from holdfast.rpc.bridge import EngineBridge
from holdfast.storage.damage import DamagedRowError
from holdfast.storage.port import Store

logger = logging.getLogger(__name__)

#: After a step that failed.
_PAUSE_S = 10.0
#: A small store is not read more often than this: a pass of it takes milliseconds.
_PASS_S = 1.0
#: Passes that found nothing are logged no more often than this.
_QUIET_S = 3600.0


class Scrubbing:
    """Reads everything this node stores, again and again.

    Args:
        rate: bytes a second; 0: never.
    """

    def __init__(
        self, store: Store, bridge: EngineBridge, clock: Clock, *, rate: int, emit: EventSink | None = None
    ) -> None:
        self._bridge = bridge
        self._clock = clock
        self._scrub = Scrub(store, self._tell, rate=rate, emit=emit) if rate else None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        if self._scrub is not None:
            self._task = asyncio.create_task(self._run(self._scrub), name="holdfast-scrub")

    async def close(self) -> None:
        """Stop; a step under way ends first."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self, scrub: Scrub) -> None:
        passes = damaged = 0
        began = told = self._clock.monotonic()
        while True:
            now = self._clock.monotonic()
            try:
                # Not on the event loop: the disk may have to be read.
                due = await asyncio.to_thread(scrub.step, now)
            except HoldfastError as error:
                logger.error("scrub: %s", error)
                due = now + _PAUSE_S
            if scrub.counters.passes > passes:
                counters = scrub.counters
                passes = counters.passes
                if counters.damaged > damaged or now - told >= _QUIET_S:
                    damaged, told = counters.damaged, now
                    logger.info(
                        "scrub: everything has been read: %d rows so far, %d damaged",
                        counters.rows,
                        counters.damaged,
                    )
                due = max(due, began + _PASS_S)
                began = due
            await asyncio.sleep(max(0.0, due - self._clock.monotonic()))

    def _tell(self, damage: DamagedRowError) -> None:
        try:
            self._bridge.check_open().repair(damage)
        except HoldfastError as error:
            # Too much at once, or the broker is stopping: the next pass finds it again.
            logger.debug("scrub: %s", error)
