"""Members of defined groups, and handlers: that part of ``Client``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from holdfast.client.connection import Connection
from holdfast.client.consumer import Subscription
from holdfast.client.effects import Effects
from holdfast.client.events import SubscriptionEvent
from holdfast.client.groups import GroupDefinition, to_definition
from holdfast.client.handlers.host import HandlerHost
from holdfast.client.handlers.subscriber import Handler, Subscribe, subscriber
from holdfast.client.membership import Membership
from holdfast.client.options import ClientOptions
from holdfast.errors import InvalidArgumentError
from holdfast.v1 import bus_pb2


class MemberCalls:
    """The part of ``Client`` that consumes as a member of a defined group."""

    options: ClientOptions
    _effects: Effects
    _subscriptions: set[Subscription | Membership]
    _host: HandlerHost

    @property
    def _connected(self) -> Connection:
        raise NotImplementedError

    def join(
        self,
        group: str,
        definition: GroupDefinition | None = None,
        *,
        topics: str | Sequence[str] = (),
        max_in_flight: int = 1000,
        concurrency: int = 1,
        member_id: str | None = None,
        static_grace: float | None = None,
        name: str | None = None,
        give_up_after: float | None = 60.0,
        on_event: Callable[[SubscriptionEvent], None] | None = None,
    ) -> Membership:
        """Join a group whose retries, ordering and dead letters the brokers look after.

        ::

            definition = GroupDefinition(
                topics=["orders"], ordering="key", retry=Retry(attempts=5), dead_letter="orders.dead"
            )
            async for record in bus.join("billing", definition):
                try:
                    ...
                except Exception as error:
                    record.nack(error=str(error))
                else:
                    record.ack()

        Args:
            group: its name.
            definition: makes the group when it is not there; else what it says has to agree
                with it. None: any definition will do, and a group that is not there is made
                with the defaults for ``topics``.
            topics: one or several; not together with ``definition``.
            max_in_flight: records delivered and not settled, at most.
            concurrency: records worked on at once: so many may be to blame when this process dies.
            member_id: 1 to 64 of A-Z a-z 0-9 . _ -; the same id comes back to its partitions. Of two
                members with one id the newer stays. None: a random one.
            static_grace: seconds this member's place is kept after its process has ended, for a
                restart under the same ``member_id`` that moves no partition; None: a moment.
            name: shown by brokers; None: the client's.
            give_up_after: seconds without a broker after which iteration
                fails; None: never.
            on_event: told of assignments, refusals, lost records and broken connections; must
                return at once.

        Raises (while iterating):
            GroupConflictError: the group is defined otherwise; ``metadata["field"]`` says where.
            UnknownGroupError, UnknownTopicError, InvalidArgumentError: there is nothing to join.
            FencedError: another member joined under this id.
            HoldfastError: no broker for ``give_up_after`` seconds.
        """
        if max_in_flight < 1:
            raise InvalidArgumentError(
                "max_in_flight must be at least 1", metadata={"field": "max_in_flight"}
            )
        asked = None if definition is None else to_definition(definition)
        return self._join(
            group,
            asked,
            topics=topics,
            max_in_flight=max_in_flight,
            concurrency=concurrency,
            member_id=member_id,
            static_grace=static_grace,
            name=name,
            give_up_after=give_up_after,
            on_event=on_event,
        )

    def _join(
        self,
        group: str,
        definition: bus_pb2.GroupDefinition | None,
        *,
        topics: str | Sequence[str] = (),
        max_in_flight: int,
        concurrency: int,
        member_id: str | None = None,
        static_grace: float | None = None,
        name: str | None = None,
        give_up_after: float | None = None,
        on_event: Callable[[SubscriptionEvent], None] | None,
    ) -> Membership:
        hello = bus_pb2.SubscribeStart(
            group=group,
            topics=[topics] if isinstance(topics, str) else list(topics),
            format=bus_pb2.FORMAT_BATCHES,
            consumer_name=self.options.name if name is None else name,
            protocol=2,
            member_id=f"{self._effects.producer_id():016x}" if member_id is None else member_id,
            concurrency=concurrency,
            definition=definition,
            static_grace_ms=None if static_grace is None else round(static_grace * 1000),
        )
        membership = Membership(
            self._connected,
            hello,
            max_in_flight=max_in_flight,
            give_up_after=give_up_after,
            timeout=self.options.timeout,
            on_event=on_event,
            on_end=self._subscriptions.discard,
        )
        self._subscriptions.add(membership)
        return membership

    # -- handlers ----------------------------------------------------------------

    def subscriber(self, topics: str | Sequence[str], *, group: str, **options: Any) -> Subscribe:
        """A decorator: the function is called with the records of a group while ``run`` runs.

        ::

            @bus.subscriber("orders", group="billing", ordering="key", concurrency=64)
            async def bill(order: Order, record: holdfast.Record) -> None: ...


            async with bus:
                await bus.run()

        Returning acknowledges; raising has the record come again as the group's retries say. Arguments
        are those of ``holdfast.client.handlers.subscriber.Options``.

        Raises:
            InvalidArgumentError: here, or when it decorates: what makes no sense.
        """
        return subscriber(topics, group=group, on_made=self.include, **options)

    def include(self, handler: Handler[Any, Any]) -> None:
        """Run a handler that was decorated with ``holdfast.subscriber``."""
        self._host.handlers.append(handler)

    async def run(self, *, grace: float = 30.0, signals: bool = True) -> None:
        """Call the handlers with records until ``stop`` is called.

        Then nothing more is begun, what runs may end, everything is settled, and the groups are left.

        Args:
            grace: seconds what runs has to end, before it is cancelled and given back.
            signals: SIGTERM and SIGINT stop it, too; a second one at once.

        Raises:
            FailedPreconditionError: there are no handlers.
            HoldfastError: a group cannot be joined, or was lost for good.
        """
        await self._host.run(grace=grace, signals=signals)

    def stop(self, grace: float = 30.0) -> None:
        """Make ``run`` return; see there. A second call does not wait."""
        self._host.stop(grace)
