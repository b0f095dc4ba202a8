"""The engine's own thread: made, run and ended there.

The store's write transaction belongs to the thread that began it, so the
engine is constructed on the thread as well, and leaves no transaction behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable
from typing import Protocol

from holdfast.cluster.results import EngineStatus
from holdfast.storage.damage import DamagedRowError
from holdfast.storage.port import Store

logger = logging.getLogger(__name__)


class EngineLike(Protocol):
    """What the broker needs of ``cluster.engine.Engine``."""

    failed: BaseException | None

    def propose(self, op: bytes, token: object, deadline: float) -> None: ...

    def read_barrier(self, token: object, deadline: float) -> None: ...

    def repair(self, damage: DamagedRowError, token: object | None = None, deadline: float = 0.0) -> None: ...

    def status(self) -> EngineStatus: ...

    def run(self) -> None: ...

    def stop(self) -> None: ...


class EngineThread:
    """Runs one engine.

    Args:
        name: of the thread.
        make: makes the engine; called on the thread.
        store: whose open transaction is dropped at the end.
        on_failure: called on the event loop when the engine ends without ``stop``.
    """

    def __init__(
        self,
        name: str,
        make: Callable[[], EngineLike],
        store: Store,
        on_failure: Callable[[BaseException], None],
    ) -> None:
        self._make = make
        self._store = store
        self._on_failure = on_failure
        self._loop = asyncio.get_running_loop()
        self._made: asyncio.Future[EngineLike] = self._loop.create_future()
        self._ended = self._loop.create_future()
        self._stopping = threading.Event()
        self._engine: EngineLike | None = None
        self._thread = threading.Thread(target=self._main, name=name, daemon=True)

    async def start(self) -> EngineLike:
        """The running engine.

        Raises:
            HoldfastError: it could not be made.
        """
        self._thread.start()
        try:
            self._engine = await self._made
        except BaseException:
            self._stopping.set()
            raise
        return self._engine

    async def stop(self, timeout: float) -> bool:
        """Stop and join the thread; False when it does not end within ``timeout`` seconds."""
        self._stopping.set()
        if self._engine is not None:
            # It may close its links between being told and being woken.
            with contextlib.suppress(OSError):
                self._engine.stop()
        if not self._thread.ident:
            return True
        try:
            async with asyncio.timeout(timeout):
                await asyncio.shield(self._ended)
        except TimeoutError:
            return False
        self._thread.join()
        return True

    def _main(self) -> None:
        failure: BaseException | None = None
        try:
            failure = self._run()
        finally:
            try:
                self._store.abort()
            except Exception as error:  # noqa: BLE001  (the thread ends here; the broker is told)
                failure = failure or error
            self._tell(self._on_ended, failure)

    def _run(self) -> BaseException | None:
        try:
            engine = self._make()
        except Exception as error:  # noqa: BLE001  (raised by ``start``)
            self._tell(self._on_made, None, error)
            return None
        self._tell(self._on_made, engine, None)
        try:
            engine.run()
        except Exception as error:
            logger.exception("the engine has failed")
            return error
        if engine.failed is not None:
            return engine.failed
        return None if self._stopping.is_set() else RuntimeError("the engine ended without being asked to")

    def _tell(self, callback: Callable[..., None], *args: object) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(callback, *args)

    def _on_made(self, engine: EngineLike | None, error: BaseException | None) -> None:
        if self._made.done():
            return
        if error is not None:
            self._made.set_exception(error)
        elif engine is not None:
            self._made.set_result(engine)

    def _on_ended(self, failure: BaseException | None) -> None:
        if not self._ended.done():
            self._ended.set_result(None)
        if failure is not None:
            self._on_failure(failure)
