"""Dead letters: what both clients offer."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from contextlib import aclosing
from typing import Any, TypeVar

from holdfast.client.connection import Connection
from holdfast.client.dead_letters import (
    EVERY,
    DeadLetter,
    DeadLetterFilter,
    DiscardResult,
    RedriveResult,
    discard,
    letters,
    redrive,
)
from holdfast.client.options import ClientOptions

_T = TypeVar("_T")


class DeadLetterCalls:
    """The part of ``Client`` that is about dead letters."""

    options: ClientOptions

    @property
    def _connected(self) -> Connection:
        raise NotImplementedError

    async def dead_letters(
        self,
        topic: str,
        chosen: DeadLetterFilter = EVERY,
        *,
        limit: int | None = None,
        brief: bool = False,
    ) -> AsyncGenerator[DeadLetter, None]:
        """The records of a dead-letter topic that were neither redriven nor discarded.

        Args:
            topic: to which groups gave up records.
            chosen: which of them; all.
            limit: at most so many.
            brief: without keys and values.

        Raises:
            UnknownTopicError: there is none of this name.
            HoldfastError: no broker answered, or the connection broke on the way.
        """
        found = letters(self._connected, self.options.timeout, topic, chosen, limit, brief=brief)
        async with aclosing(found) as each:
            async for letter in each:
                yield letter

    async def redrive_dead_letters(
        self,
        topic: str,
        chosen: DeadLetterFilter = EVERY,
        *,
        to: str | None = None,
        rate: int | None = None,
        limit: int | None = None,
        force: bool = False,
        dry_run: bool = False,
        on_progress: Callable[[RedriveResult], None] | None = None,
    ) -> RedriveResult:
        """Publish dead letters again, and take them off the list; each once, whatever fails.

        They go behind what is in their topics by then, marked for the group that gave them up. What
        came back three times, or would meet the very members that failed with it, is refused and stays.

        Args:
            to: another topic than the one each came from.
            rate: records a second; None: 1,000.
            limit: redrive at most so many.
            force: redrive also what would be refused because it came back.
            dry_run: do nothing, say what would be done.
            on_progress: told after each step.

        Raises:
            RedriveLoopError: ``to`` is the dead-letter topic itself.
            UnknownTopicError: no such topic.
            HoldfastError: interrupted; what was redriven stays so, ``metadata["redriven"]`` says how much.
        """
        return await redrive(
            self._connected,
            self.options.timeout,
            topic,
            chosen,
            to=to,
            rate=rate,
            limit=limit,
            force=force,
            dry_run=dry_run,
            on_progress=on_progress,
        )

    async def discard_dead_letters(
        self,
        topic: str,
        chosen: DeadLetterFilter = EVERY,
        *,
        limit: int | None = None,
        dry_run: bool = False,
        on_progress: Callable[[DiscardResult], None] | None = None,
    ) -> DiscardResult:
        """Take dead letters off the list. The records stay in the topic until it is trimmed.

        Arguments are those of ``redrive_dead_letters``.

        Raises:
            UnknownTopicError: there is none of this name.
            HoldfastError: interrupted; ``metadata["discarded"]`` says how many were discarded.
        """
        return await discard(
            self._connected,
            self.options.timeout,
            topic,
            chosen,
            limit=limit,
            dry_run=dry_run,
            on_progress=on_progress,
        )


class SyncDeadLetterCalls:
    """The part of ``SyncClient`` that is about dead letters; arguments are those of ``Client``'s."""

    _client: DeadLetterCalls

    def _run(self, work: Coroutine[Any, Any, _T]) -> _T:
        raise NotImplementedError

    def dead_letters(self, topic: str, *arguments: Any, **options: Any) -> Iterator[DeadLetter]:
        """See ``Client.dead_letters``."""
        found = self._client.dead_letters(topic, *arguments, **options)
        try:
            while (letter := self._run(_next(found))) is not None:
                yield letter
        finally:
            self._close(found)

    def redrive_dead_letters(self, topic: str, *arguments: Any, **options: Any) -> RedriveResult:
        """See ``Client.redrive_dead_letters``."""
        return self._run(self._client.redrive_dead_letters(topic, *arguments, **options))

    def discard_dead_letters(self, topic: str, *arguments: Any, **options: Any) -> DiscardResult:
        """See ``Client.discard_dead_letters``."""
        return self._run(self._client.discard_dead_letters(topic, *arguments, **options))

    def _close(self, found: AsyncGenerator[Any, None]) -> None:
        raise NotImplementedError


async def _next(found: AsyncGenerator[_T, None]) -> _T | None:
    return await anext(found, None)
