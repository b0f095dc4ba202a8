"""Events from a blocking source, handed to the event loop as they come.

A reader on a thread of its own lets `tail -f file | holdfast publish topic -`
publish each line at once, while a fast source arrives in large portions.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Generator, Iterator
from contextlib import suppress
from typing import Self

from holdfast.cli.inputs import Event

#: Events and their bytes read ahead, at most; bounds memory when publishing is slower than reading.
_AHEAD = 10_000
_AHEAD_BYTES = 8 << 20


class Feed:
    """An asynchronous iterator over portions of what ``source`` yields; raises what it raises."""

    def __init__(self, source: Iterator[Event]) -> None:
        self._source = source
        self._loop = asyncio.get_running_loop()
        self._ready = asyncio.Event()
        self._changed = threading.Condition()
        self._events: list[Event] = []
        self._bytes = 0
        self._error: Exception | None = None
        self._ended = self._closed = False
        # A daemon: a read that blocks must not keep a cancelled command from ending.
        threading.Thread(target=self._read, name="holdfast-input", daemon=True).start()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> list[Event]:
        await self._ready.wait()
        with self._changed:
            events, self._events, self._bytes = self._events, [], 0
            if not self._ended:
                self._ready.clear()
            self._changed.notify()
        if events:
            return events
        if self._error is not None:
            raise self._error
        raise StopAsyncIteration

    def close(self) -> None:
        """Let the reader end at its next event."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def _read(self) -> None:
        error: Exception | None = None
        try:
            for event in self._source:
                if not self._put(event):
                    return
        except Exception as raised:  # noqa: BLE001  (raised again where the events are taken)
            error = raised
        finally:
            if isinstance(self._source, Generator):
                self._source.close()  # and with it the file it reads
        with self._changed:
            self._ended, self._error = True, error
            self._signal()

    def _put(self, event: Event) -> bool:
        with self._changed:
            while (len(self._events) >= _AHEAD or self._bytes >= _AHEAD_BYTES) and not self._closed:
                self._changed.wait()
            if self._closed:
                return False
            self._events.append(event)
            self._bytes += len(event.value)
            if len(self._events) == 1:
                self._signal()
            return True

    def _signal(self) -> None:
        with suppress(RuntimeError):  # the loop has been closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._ready.set)
