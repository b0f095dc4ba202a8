"""The half of a group that rows speak to: what is known of it, and how that is read anew.

``group_log.py`` has what is proposed, ``live_group.py`` what members say, and the whole in words.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from heapq import heappush

from holdfast.cluster.delivery.assignment import PartitionKey
from holdfast.cluster.delivery.claims import Claim
from holdfast.cluster.delivery.door import Door
from holdfast.cluster.delivery.group_rows import FlowRows, GroupRows, read_group, read_topics
from holdfast.cluster.delivery.membership import Membership
from holdfast.cluster.delivery.outcomes import Charged
from holdfast.cluster.delivery.pending import Charge
from holdfast.cluster.delivery.places import Place, Places
from holdfast.cluster.delivery.reshaping import Reshaping
from holdfast.cluster.delivery.sessions import Session
from holdfast.cluster.delivery.settling import FIRST_PAUSE, Settling
from holdfast.cluster.delivery.surroundings import Kind, Surroundings
from holdfast.cluster.group_definition import Definition, Ordering
from holdfast.cluster.results import Completed
from holdfast.errors import FencedError, HoldfastError, LimitExceededError, UnknownTopicError
from holdfast.storage.bits import CHUNK_BITS
from holdfast.storage.topics import TopicRow
from holdfast.v1 import log_pb2


class GroupState(ABC):
    """See the module.

    Args:
        name: of the group.
        around: what it is handed.
        since: when this leader began: members it finds in the rows are away since then.
    """

    def __init__(self, name: str, around: Surroundings, since: float) -> None:
        self.name = name
        self.generation = 0
        self.definition = Definition()
        self.settings = around.settings
        self.places = Places()
        self.members = Membership(around.settings.rejoin)
        self.settling = Settling(name, around.limits, around.settings.commit_delay)
        self.shape = Reshaping(name, self.members, around.settings.handover)
        self.door = Door(name)
        self._around = around
        self._since = since
        self._defined = False
        self._implicit = False
        self._topics: dict[int, TopicRow] = {}
        self._topics_seen: frozenset[int] = frozenset()
        #: A new leader waits for those who may still work on what an earlier one handed them.
        self._gathering = False
        self._dues: list[tuple[int, PartitionKey]] = []
        self._no_room: dict[PartitionKey, int] = {}  # where dead letters wait for room on the disks
        self._defining = self._fencing = False  # such an operation is in flight
        self._in_doubt: set[Kind] = set()  # operations whose outcome is not known
        self._claims: dict[Claim, None] = {}  # of transactions under way
        self._unknown: list[Claim] = []  # those of transactions whose outcome is not known
        self._fenced = False  # the fence behind them is answered
        self._broken: HoldfastError | None = None  # it cannot be read as it is defined
        self._rows_at: int | None = None  # rows are to be read anew once this log index is visible
        self._reshape_due = False
        self._again_at: float | None = None  # after a failure: nothing but settling before
        self._pause = FIRST_PAUSE

    @property
    def idle(self) -> bool:
        """Nobody belongs to it and nothing is under way: it may be forgotten."""
        under_way = self._defining or self._fencing or self._rows_at is not None or bool(self._claims)
        settled = self.settling.idle and self.shape.in_flight is None
        return self.members.empty and not self.door.waiting and settled and not under_way

    @property
    def waits_for_rows(self) -> bool:
        """It looks at its rows once they are visible."""
        return self._rows_at is not None

    @property
    def blocked(self) -> bool:
        """Nothing may be proposed before the rows are read anew."""
        return self._rows_at is not None or bool(self._in_doubt)

    def forget(self) -> None:
        """It is idle, and forgotten."""
        for key in list(self.places.by_key):
            self._remove(key)

    # -- rows ---------------------------------------------------------------

    def _want_rows(self, index: int) -> None:
        self._rows_at = max(index, self._rows_at or 0)

    def changed(self, index: int, now: float) -> None:
        """Somebody else changed the group, or a topic, by the entry of this index."""
        self._want_rows(index)
        self._go_on(now)

    def _read_rows(self, now: float) -> None:
        """Everything proposed whose outcome was not known is decided in what is read here."""
        self._rows_at, self._fenced = None, False
        with self._around.read() as reader:
            rows = read_group(reader, self.name)
            found: dict[int, TopicRow] | HoldfastError = {}
            if rows is not None and rows.definition is not None:
                try:
                    found = read_topics(reader, rows.definition)
                except (UnknownTopicError, LimitExceededError) as error:
                    found = error
        self._defined = rows is not None and rows.definition is not None
        if rows is None or rows.definition is None:
            rows = GroupRows(0, None, False, frozenset(), [], {})
        self._take_rows(rows, now)
        self._decide(rows, now)
        self._broken = found if isinstance(found, HoldfastError) else None
        self._take_flows({} if isinstance(found, HoldfastError) else found, rows, now)
        self._seat(opened=True, now=now)
        if self._broken is not None:
            self.close(self._broken)
        self._reshape_due = True

    def _take_rows(self, rows: GroupRows, now: float) -> None:
        self.generation = rows.generation
        self._implicit = rows.implicit
        self._topics_seen = rows.topics_seen
        if rows.definition is not None and rows.definition != self.definition:
            self.definition = rows.definition
            self.shape.within = min(self.settings.handover, rows.definition.ack_timeout_ms / 1_000)
            for place in self.places:
                place.flow.redefine(rows.definition)
            for session in self.members.sessions.values():
                session.assignment_due = True
        first = not self.members.seats and not self.members.sessions
        for lost in self.members.load(rows.members, self._since if first else now):
            self._lose(lost, now)
        if first and rows.members and self.definition.ordering != Ordering.PARTITION:
            self._gathering = True

    def _decide(self, rows: GroupRows, now: float) -> None:
        """What became of the operations in doubt."""

        def stored(key: PartitionKey, offset: int) -> object:
            flow = rows.flows.get(key)
            if flow is None or offset < flow.floor:
                return "settled"
            chunk, bit = divmod(offset, CHUNK_BITS)
            if any(number == chunk and value >> bit & 1 for number, value in flow.chunks):
                return "settled"
            row = next((row for at, row in flow.retries if at == offset), None)
            return None if row is None else (row.attempts, row.state, row.due_us)

        if Kind.SETTLE in self._in_doubt and self.settling.in_flight is not None:
            self.settling.reconcile(stored)
        if Kind.RESHAPE in self._in_doubt and self.shape.in_flight is not None:
            self.shape.ended()
        unknown, self._unknown = self._unknown, []
        for claim in unknown:
            claim.decide(lambda key, offset: stored(key, offset) == "settled")
            self._over(claim, now)
        self._in_doubt.clear()
        self.shape.reset()

    def _take_flows(self, topics: dict[int, TopicRow], rows: GroupRows, now: float) -> None:
        self._topics = topics
        wanted = {(row.id, n) for row in topics.values() for n in range(row.partitions)}
        fenced: set[PartitionKey] = set()
        for key in [key for key in self.places.by_key if key not in wanted]:
            self._remove(key)
            for session in self.members.sessions.values():
                session.assignment_due = True
        charged = self.settling.charged()
        for key in sorted(wanted & rows.flows.keys()):
            row, place = rows.flows[key], self.places.get(key)
            if place is None:
                place = self._add(key)
                assert place is not None
                place.flow.fence = row.fence
                place.flow.load(row.floor, row.chunks, row.retries)
                self.places.give(place, row.owner)
            elif place.flow.fence != row.fence:
                fenced.add(key)
                self._take_fenced(place, row)
            else:
                place.flow.reload(row.floor, row.chunks, row.retries, charged.get(key, ()))
                place.flow.durable = row.floor
                place.owner = row.owner
            for _, retry in row.retries:
                heappush(self._dues, (retry.due_us, key))
            self._end_the_dying(place, now)
        error = FencedError(
            "the partition has another owner or position now; what was not settled is delivered again",
            metadata={"generation": str(self.generation)},
        )
        self.settling.forget(lambda key: key in self.places.by_key and key not in fenced, error)

    def _take_fenced(self, place: Place, row: FlowRows) -> None:
        """Somebody has set its position, or it has another owner: nothing that is known of it holds."""
        place.flow.seek(row.floor)
        place.flow.fence = row.fence
        place.flow.reload(row.floor, row.chunks, row.retries, ())
        if self.definition.ordering == Ordering.PARTITION:
            # By key, who works on a record says under the same number that it is done; its key waits.
            self.places.give(place, row.owner)
        for session in self._sessions_of(place):
            session.assignment_due = True

    def _add(self, key: PartitionKey) -> Place | None:
        topic = self._topics.get(key[0])
        known = self.places.get(key)
        if topic is None or known is not None:
            return known
        place = self.places.add(key, topic.name, self.definition)
        readers = self._around.readers
        readers[key] = (*readers.get(key, ()), self)
        return place

    def _remove(self, key: PartitionKey) -> None:
        self.places.remove(key)
        left = tuple(group for group in self._around.readers.get(key, ()) if group is not self)
        if left:
            self._around.readers[key] = left
        else:
            self._around.readers.pop(key, None)

    def _end_the_dying(self, place: Place, now: float) -> None:
        for charged in place.flow.take_dying():
            self._charge(place, charged, log_pb2.RETRY_CAUSE_LET_GO, now)

    def _charge(
        self,
        place: Place,
        charged: Charged,
        cause: log_pb2.RetryCause,
        now: float,
        error: str = "",
    ) -> None:
        charge = Charge(place.key, charged.offset, cause, charged.lane, error)
        self.settling.charge(charge, now)

    # -- the other halves ---------------------------------------------------

    @abstractmethod
    def answered(self, kind: Kind, done: Completed, now: float) -> None:
        """A proposal has ended."""

    @abstractmethod
    def touch(self, key: PartitionKey) -> None:
        """Records were appended to a partition."""

    @abstractmethod
    def next_time(self, now: float) -> float | None:
        """When ``tick`` has something to do, whatever happens until then."""

    @abstractmethod
    def _over(self, claim: Claim, now: float) -> None:
        """A transaction has been decided."""

    @abstractmethod
    def _go_on(self, now: float) -> None:
        """Propose what may be proposed now."""

    @abstractmethod
    def close(self, error: HoldfastError) -> None:
        """Every stream ends with this error."""

    @abstractmethod
    def _admit(self, session: Session, now: float) -> None:
        """The group is what it wants it to be."""

    @abstractmethod
    def _seat(self, *, opened: bool, now: float) -> None:
        """Streams may have got their seats, and partitions come."""

    @abstractmethod
    def _turn_away(self, member: str, error: HoldfastError) -> None:
        """There is no seat for it."""

    @abstractmethod
    def _lose(self, session: Session, now: float) -> None:
        """A stream has ended, and its member did not come back in time."""

    @abstractmethod
    def _sessions_of(self, place: Place) -> Iterable[Session]:
        """The streams that are sent records of a partition."""

    @abstractmethod
    def _tell_moves(self, asked: list[PartitionKey], kept: list[PartitionKey]) -> None:
        """These are to be let go by their owners, and those are not after all."""

    @abstractmethod
    def _tell_room(self, key: PartitionKey, offset: int | None) -> None:
        """A record is to die and there is no room for its dead letter; None: there is again."""

    @abstractmethod
    def _tell_committed(self, place: Place) -> None:
        """A floor became durable."""

    @abstractmethod
    def _wake(self, place: Place | None = None) -> None:
        """There may be something to send."""
