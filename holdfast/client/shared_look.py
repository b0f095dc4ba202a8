"""One look for many who ask the same at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

#: What was seen so many seconds ago is not looked for again.
FRESH_SECONDS = 0.25


class SharedLook:
    """Asks once for all subscriptions of a client whether there is a newer leader.

    Each of them asks every second in which it hears nothing: a hundred of them must not ask every
    broker a hundred times.

    Args:
        look: whether there is a leader of a later term than this one.
    """

    def __init__(self, look: Callable[[int], Awaitable[bool]]) -> None:
        self._look = look
        self._than = -1
        self._began = 0.0
        self._task: asyncio.Task[bool] | None = None

    async def shared(self, than: int) -> bool:
        """The answer of the look that is under way or has just been made, else of one that begins now."""
        now = asyncio.get_running_loop().time()
        task = self._task
        stale = task is not None and task.done() and now - self._began >= FRESH_SECONDS
        if task is None or stale or self._than != than:
            task = self._task = asyncio.ensure_future(self._ask(than))
            self._than, self._began = than, now
        # Who asked may be cancelled; the others still wait.
        return await asyncio.shield(task)

    async def close(self) -> None:
        """End the look that is under way."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _ask(self, than: int) -> bool:
        return await self._look(than)
