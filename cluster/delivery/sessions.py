"""One stream of a member on the leader: what it may be sent, and what it is to be told."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from holdfast.cluster.delivery.assignment import PartitionKey
from holdfast.cluster.delivery.hello import Hello
from holdfast.cluster.delivery.leases import Holder
from holdfast.errors import HoldfastError
from holdfast.v1 import bus_pb2

#: Messages that wait for a client which does not read; then its own are not read either.
MAX_WAITING = 1_024


class Session:
    """A stream.

    ``notify`` is called when there may be something to send: it must only set a flag or an event.

    Attributes:
        id: of the stream, for Transact; never used twice.
        holder: whom its records are leased to.
        renewed: when it said something last; its leases stand on that.
        silent: so long ago that they ended: it is given nothing until it speaks again.
        blameless: it broke no handler of its own: nothing it was handed is charged at its end.
        paused: it asked for no records.
        leaving: it says goodbye: no more records, and the end once all it said is settled.
        unsettled: messages of it that are not settled yet.
        welcomed: it has been told that it is a member.
        assignment_due: what it owns has changed since it was told.
        earlier: the stream of the same member before, until it is known what of its records goes on here.
        committed: floors that became durable since it was told.
        ended: why the stream must end; None: it goes on.
    """

    def __init__(self, id: str, hello: Hello, now: float, notify: Callable[[], None]) -> None:
        self.id = id
        self.hello = hello
        self.member = hello.member
        self.notify = notify
        self.holder = Holder(
            id, credits=hello.credits, concurrency=hello.concurrency, whole_only=not hello.protocol
        )
        self.renewed = now
        self.silent = False
        self.blameless = not hello.protocol  # nobody knows what it had begun
        self.paused = False
        self.leaving = False
        self.welcomed = False
        self.unsettled = 0
        self.assignment_due = False
        self.earlier: Session | None = None
        self.committed: dict[PartitionKey, int] = {}
        self.ended: HoldfastError | None = None
        self._told: deque[bus_pb2.SubscribeResponse] = deque()

    @property
    def willing(self) -> bool:
        """It takes records."""
        return self.welcomed and not (
            self.silent or self.paused or self.leaving or self.ended or self.holder.gone
        )

    @property
    def clogged(self) -> bool:
        """Its client does not read: read no more of what it says until it does."""
        return len(self._told) >= MAX_WAITING

    def tell(self, **kind: Any) -> None:
        """Queue a message, by the name it has in SubscribeResponse."""
        self.put(bus_pb2.SubscribeResponse(**kind))

    def put(self, message: bus_pb2.SubscribeResponse) -> None:
        """Queue a message."""
        self._told.append(message)
        self.notify()

    def take(self) -> bus_pb2.SubscribeResponse | None:
        """The next message to send."""
        return self._told.popleft() if self._told else None

    def end(self, error: HoldfastError) -> None:
        """The stream must end with this error; the first one stays."""
        if self.ended is None:
            self.ended = error
            self.notify()
