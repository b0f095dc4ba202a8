"""Topics by name, as the event loop needs them: hot, and right soon enough.

A row is kept until an entry that changes topics has been applied, so a publish pays a
dictionary look-up.
"""

from __future__ import annotations

from holdfast.cluster.state.names import MAX_NAME, check_name
from holdfast.errors import UnknownTopicError
from holdfast.rpc.bridge import EngineBridge
from holdfast.rpc.status import invalid
from holdfast.storage import topics
from holdfast.storage.port import Store
from holdfast.storage.topics import TopicRow


class TopicCache:
    """Reads topics from ``store``; event loop only."""

    def __init__(self, store: Store, bridge: EngineBridge) -> None:
        self._store = store
        self._bridge = bridge
        self._rows: dict[str, TopicRow] = {}
        self._seen = -1

    def cached(self, name: str) -> TopicRow | None:
        """The topic as this node knows it; None when it knows none of this name."""
        progress = self._bridge.progress
        if progress.topics_index != self._seen:
            self._rows.clear()
            # Applied, and not visible yet: what is read now is not to be kept.
            self._seen = progress.topics_index if progress.visible_index >= progress.topics_index else -1
        row = self._rows.get(name)
        if row is None and name and len(name) <= MAX_NAME and name.isascii():
            with self._store.read() as reader:
                row = topics.find(reader, name)
            if row is not None:
                self._rows[name] = row
        return row

    async def find(self, name: str, timeout: float) -> TopicRow:
        """The topic; before it is called unknown, the leader is asked what was acknowledged.

        That way a topic created through one node can be used through another at once.

        Raises:
            InvalidArgumentError: no name was given, or one no topic can have.
            UnknownTopicError: there is no such topic.
            NoLeaderError, DeadlineExceededError: it cannot be known now.
        """
        if not name:
            raise invalid("topic", "the topic's name is missing")
        check_name(name, what="topic", field="topic")
        row = self.cached(name)
        if row is None:
            await self._bridge.barrier(timeout)
            self._seen = -1
            row = self.cached(name)
        if row is None:
            raise unknown_topic(name)
        return row


def unknown_topic(name: str) -> UnknownTopicError:
    shown = name if len(name) <= 64 else name[:64] + "..."
    return UnknownTopicError(
        f"no topic {shown!r}; create it first", metadata={"field": "topic", "topic": shown}
    )
