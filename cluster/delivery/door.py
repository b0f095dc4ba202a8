"""Who wants in: whether the group is what they want it to be, and what it has to become if it is not."""

from __future__ import annotations

from holdfast.cluster.delivery.hello import Hello
from holdfast.cluster.delivery.sessions import Session
from holdfast.cluster.group_definition import Definition, check, conflict, to_message
from holdfast.errors import HoldfastError, UnknownGroupError
from holdfast.v1 import bus_pb2, log_pb2


class Door:
    """Streams that are not members yet, in the order in which they came."""

    def __init__(self, group: str) -> None:
        self.waiting: list[Session] = []
        self._group = group
        self._definer: Session | None = None  # whose definition is on its way

    def knock(self, session: Session) -> None:
        """A stream begins."""
        self.waiting.append(session)

    def gone(self, session: Session) -> bool:
        """A stream ended; True when it waited here."""
        if session not in self.waiting:
            return False
        self.waiting.remove(session)
        if self._definer is session:
            self._definer = None
        return True

    def open(
        self, has: Definition | None, *, implicit: bool, empty: bool
    ) -> tuple[list[Session], log_pb2.PutGroupOp | None]:
        """Look at those who wait; who asks for what cannot be is told so.

        Args:
            has: the group's definition; None: it has none, or there is no such group.
            implicit: it was made for a member that defined nothing.
            empty: it has no members.

        Returns:
            Those who may come in; and what is to be proposed first for the one behind them.
        """
        welcome: list[Session] = []
        while self.waiting:
            session = self.waiting[0]
            if session.ended is None:
                try:
                    wanted = _wanted(session.hello, has, replaceable=implicit and empty and not welcome)
                except HoldfastError as error:
                    session.end(error)
                else:
                    if wanted is not None:
                        self._definer = session
                        return welcome, wanted
                    welcome.append(session)
            del self.waiting[0]
        return welcome, None

    def refused(self, error: HoldfastError) -> None:
        """What was proposed for the first of them cannot be."""
        session, self._definer = self._definer, None
        if session is not None:
            self.waiting.remove(session)
            session.end(error)

    def close(self, error: HoldfastError) -> None:
        """Nobody comes in."""
        for session in self.waiting:
            session.end(error)
        self.waiting.clear()
        self._definer = None


def _wanted(hello: Hello, has: Definition | None, *, replaceable: bool) -> log_pb2.PutGroupOp | None:
    """What the group has to become for this member; None: it is that.

    Raises:
        HoldfastError: it cannot become that.
    """
    asked = hello.definition
    if asked is None and hello.topics:
        asked = bus_pb2.GroupDefinition(topics=hello.topics)
    if has is not None:
        error = None if asked is None else conflict(asked, has)
        if error is None:
            return None
        if not replaceable or hello.definition is None:
            raise error
    if asked is None:
        raise UnknownGroupError(
            f"no group {hello.group!r}: define it, or name the topics it is to read",
            metadata={"group": hello.group},
        )
    complete = bus_pb2.GroupDefinition()
    complete.CopyFrom(asked)
    if hello.start is not None and not complete.HasField("start"):
        complete.start.CopyFrom(hello.start)
    return log_pb2.PutGroupOp(
        group=hello.group, definition=to_message(check(complete)), implicit=hello.definition is None
    )
