"""Runs handlers: joins their groups, makes their dead-letter topics, ends with the process."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from holdfast.client.events import Lost, Revoking, SubscriptionEvent
from holdfast.client.handlers.runner import Runner
from holdfast.client.handlers.subscriber import Handler, Options
from holdfast.client.membership import Membership
from holdfast.client.transaction import Transaction
from holdfast.client.types import Record, TopicInfo
from holdfast.errors import FailedPreconditionError, TopicExistsError, UnknownTopicError

logger = logging.getLogger(__name__)

#: A dead letter is its record and what became of it: so much more the topic has to take.
_DEAD_LETTER_ROOM = 16 << 10
#: They end a program in order.
SIGNALS = (signal.SIGTERM, signal.SIGINT)


def pass_on(event: SubscriptionEvent, runner: Runner) -> None:
    """What a membership tells, as far as it matters to the runner on it."""
    if isinstance(event, Lost):
        runner.lost(event.topic, event.partition, event.offset)
    elif isinstance(event, Revoking):
        for topic, partition in event.partitions:
            runner.revoke(topic, partition)


class HandlerHost:
    """The handlers of one client. What it is given are the client's methods of these names.

    Args:
        join: makes a member of a handler's group.
    """

    def __init__(
        self,
        topic: Callable[[str], Awaitable[TopicInfo]],
        create_topic: Callable[..., Awaitable[TopicInfo]],
        join: Callable[..., Membership],
        transaction: Callable[[], Transaction],
    ) -> None:
        self.handlers: list[Handler[Any, Any]] = []
        self._topic = topic
        self._create_topic = create_topic
        self._join = join
        self._begin = transaction
        self._runners: list[Runner] = []
        self._stopped: float | None = None  # seconds of grace

    async def run(self, *, grace: float, signals: bool) -> None:
        """Handle records until ``stop``, or a signal; then drain, settle and leave.

        Raises:
            FailedPreconditionError: there are no handlers, or they run already.
            HoldfastError: a group could not be joined, or was lost for good; the others were stopped.
        """
        if not self.handlers:
            raise FailedPreconditionError("no handlers: decorate functions with subscriber() first")
        if self._runners:
            raise FailedPreconditionError("the handlers run already")
        for handler in self.handlers:
            await self._make_dead_letter_topic(handler.options)
        self._stopped = None
        undo = self._catch_signals(grace) if signals else []
        try:
            self._runners = [self._runner(handler) for handler in self.handlers]
            await self._all(grace)
        finally:
            self._runners = []
            for each in undo:
                each()

    def stop(self, grace: float) -> None:
        """Begin nothing more; what runs has ``grace`` seconds to end. A second call ends it at once."""
        again = self._stopped is not None
        self._stopped = grace
        for runner in self._runners:
            if again:
                runner.abort()
            else:
                runner.stop(grace)

    async def _all(self, grace: float) -> None:
        tasks = [asyncio.ensure_future(runner.run()) for runner in self._runners]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            if self._stopped is None:
                # One has failed: the others end in order.
                self.stop(grace)
            await asyncio.wait(tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for task in tasks:
            if not task.cancelled() and (error := task.exception()) is not None:
                raise error

    def _runner(self, handler: Handler[Any, Any]) -> Runner:
        def heard(event: SubscriptionEvent) -> None:
            pass_on(event, runner)

        options = handler.options
        link = self._join(
            options.group,
            options.definition(),
            max_in_flight=options.capacity,
            concurrency=options.concurrency,
            on_event=heard,
        )
        runner = Runner(handler, link, transaction=self._transaction)
        return runner

    def _transaction(self, record: Record) -> Transaction:
        transaction = self._begin()
        transaction.consume(record)
        return transaction

    async def _make_dead_letter_topic(self, options: Options) -> None:
        """Of as many partitions as the first topic it gets records of, when it is not there."""
        name = options.dead_letter
        if name is None or not options.create_dead_letter:
            return
        try:
            await self._topic(name)
        except UnknownTopicError:
            partitions, largest = await self._source(options.topics)
            try:
                await self._create_topic(
                    name,
                    partitions=partitions,
                    max_record_bytes=largest + _DEAD_LETTER_ROOM if largest else 0,
                )
            except TopicExistsError:
                return  # another process of these handlers was faster
            logger.info("made the dead-letter topic %s of group %s", name, options.group)

    async def _source(self, topics: Sequence[str]) -> tuple[int, int]:
        """Partitions, and the largest record, of the first topic that is there; 0: the broker's default."""
        for name in topics:
            if "*" not in name and "?" not in name:
                try:
                    topic = await self._topic(name)
                except UnknownTopicError:
                    continue
                return topic.partitions, topic.max_record_bytes
        return 0, 0

    def _catch_signals(self, grace: float) -> list[Callable[[], object]]:
        if threading.current_thread() is not threading.main_thread():
            return []
        loop = asyncio.get_running_loop()
        undo: list[Callable[[], object]] = []

        def ask(number: int) -> None:
            logger.info("%s: handlers end", signal.Signals(number).name)
            self.stop(grace)

        for number in SIGNALS:
            before = signal.getsignal(number)
            loop.add_signal_handler(number, ask, number)

            def restore(number: int = number, before: Any = before) -> None:
                loop.remove_signal_handler(number)
                signal.signal(number, before)

            undo.append(restore)
        return undo
