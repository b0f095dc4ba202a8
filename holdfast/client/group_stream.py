"""A Subscribe call that is made again whenever it fails: what consumers of both protocols share."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import grpc

from holdfast.client.backoff import Backoff
from holdfast.client.connection import Connection, Endpoint, settle
from holdfast.client.events import Disconnected, SubscriptionEvent
from holdfast.client.failures import from_rpc
from holdfast.errors import ClosedError, HoldfastError, InternalError, NoLeaderError, UnavailableError
from holdfast.v1 import bus_pb2

logger = logging.getLogger(__name__)

#: Silence after which somebody else may have been elected.
_SILENCE_SECONDS = 1.0

Stream = grpc.aio.StreamStreamCall[bus_pb2.SubscribeRequest, bus_pb2.SubscribeResponse]


class GroupStream:
    """Connects to the leader, reads, writes, and begins again; subclasses say what is read and written.

    Args:
        give_up_after: seconds without a broker after which it fails; None: never.
        timeout: bound of one search for the leader, in seconds.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        give_up_after: float | None,
        timeout: float,
        on_event: Callable[[SubscriptionEvent], None] | None,
    ) -> None:
        self._connection = connection
        self._give_up_after = give_up_after
        self._timeout = timeout
        self._on_event = on_event
        self._loop = asyncio.get_running_loop()
        self._heard = 0.0
        #: The call that has been answered.
        self._stream: Stream | None = None
        self._failure: HoldfastError | None = None
        self._closing = False

    # -- for subclasses -----------------------------------------------------------

    async def _read(self, call: Stream, backoff: Backoff) -> None:
        """Take what the broker says until the call ends; calls ``_connected`` at its first answer."""
        raise NotImplementedError

    async def _write(self, call: Stream) -> None:
        """Say hello and go on."""
        raise NotImplementedError

    def _disconnected(self) -> None:
        """The call failed; another one follows."""
        raise NotImplementedError

    def _wake(self) -> None:
        """Something that is waited for may have come: records, progress, the end."""
        raise NotImplementedError

    # -- the connection -------------------------------------------------------------

    def _begin(self) -> asyncio.Task[None]:
        runner = self._loop.create_task(self._run())
        runner.add_done_callback(self._stopped)
        return runner

    def _connected(self, call: Stream, backoff: Backoff) -> None:
        if self._stream is not call:
            self._stream = call
            backoff.reset()

    async def _run(self) -> None:
        backoff = self._connection.backoff()
        give_up: float | None = None
        patience = self._timeout if self._give_up_after is None else min(self._timeout, self._give_up_after)
        while True:
            began = self._loop.time()
            try:
                endpoint = await self._connection.leader(patience)
                await self._serve(endpoint, backoff)
                return  # it said all it had to say
            except HoldfastError as failed:
                error = failed
            if self._stream is not None:
                began, give_up = self._loop.time(), None
            self._stream = None
            self._disconnected()
            if give_up is None and self._give_up_after is not None:
                give_up = began + self._give_up_after
            if not error.retriable or (give_up is not None and self._loop.time() >= give_up):
                self._fail(error)
                return
            self._tell(Disconnected(error))
            await asyncio.sleep(backoff.after(error))

    async def _serve(self, endpoint: Endpoint, backoff: Backoff) -> None:
        """Consume over one call until it fails, or ``_read`` returns.

        Raises:
            HoldfastError: why it failed.
        """
        term = self._connection.term
        call = endpoint.subscribe()
        self._heard = self._loop.time()
        reading = self._loop.create_task(self._read(call, backoff))
        tasks = [
            reading,
            self._loop.create_task(self._write(call)),
            self._loop.create_task(self._watch(term)),
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            # Writing to a dead call does not tell why it died, reading does.
            if not reading.done():
                await asyncio.wait([reading], timeout=0.2)
            if reading.done() and not reading.cancelled():
                reading.result()
                return
            for task in tasks:
                if task in done and not task.cancelled():
                    task.result()
            raise UnavailableError(f"subscription at {endpoint.address} was cancelled")
        except grpc.aio.AioRpcError as failure:
            raise from_rpc(failure, endpoint.address) from None
        except grpc.aio.UsageError:
            raise ClosedError("the client has been closed") from None
        except asyncio.InvalidStateError:
            raise UnavailableError(f"broker {endpoint.address} ended the subscription") from None
        finally:
            for task in tasks:
                task.cancel()
            await settle(tasks)
            call.cancel()

    async def _watch(self, term: int) -> None:
        while True:
            await asyncio.sleep(_SILENCE_SECONDS)
            silent = self._loop.time() - self._heard >= _SILENCE_SECONDS / 2
            if silent and await self._connection.newer_leader(term):
                raise NoLeaderError("the leader has been replaced")

    def _fail(self, error: HoldfastError) -> None:
        self._failure = error
        self._wake()

    def _stopped(self, runner: asyncio.Task[None]) -> None:
        """The application must not wait for a runner that failed through a fault of ours."""
        if not runner.cancelled() and (failure := runner.exception()) is not None:
            logger.error("a subscription stopped unexpectedly", exc_info=failure)
            self._fail(InternalError(f"the subscription stopped unexpectedly: {failure!r}"))

    def _tell(self, event: SubscriptionEvent) -> None:
        if self._on_event is not None:
            self._on_event(event)
