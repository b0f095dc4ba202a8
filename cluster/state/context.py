"""What the operations of one entry share while it is applied."""

from __future__ import annotations

from dataclasses import dataclass, field

from holdfast.cluster.ports import EventSink
from holdfast.cluster.state.catalog import Catalog
from holdfast.cluster.state.limits import StateLimits
from holdfast.storage import partitions
from holdfast.storage.port import Writer


@dataclass(slots=True)
class EntryContext:
    """One entry being applied.

    Attributes:
        time_us: the entry's stamped time, the only clock there is.
        touched: (topic id, partition) of each log whose end moved.
        topics_changed: a topic may have been created, changed or deleted.
        groups_changed: groups whose definition or positions somebody else than their coordinator
            has changed; it reads their rows anew.
        stored: batches stored and not yet counted as references to the entry.
    """

    w: Writer
    index: int
    time_us: int
    entry: memoryview
    catalog: Catalog
    limits: StateLimits
    events: EventSink | None
    touched: set[tuple[int, int]] = field(default_factory=set)
    topics_changed: bool = False
    groups_changed: set[str] = field(default_factory=set)
    stored: int = 0

    def count_references(self) -> None:
        """Write what ``stored`` holds: once for a run of appends, and before

        anything that may drop batches of this very entry.
        """
        if self.stored:
            partitions.add_refs(self.w, self.index, self.stored)
            self.stored = 0

    def emit(self, event: object) -> None:
        if self.events is not None:
            self.events(event)
