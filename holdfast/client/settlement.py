"""What becomes of parcels under way: answers, refusals, broken streams, deadlines. No I/O.

A parcel is *uncertain* when a try of it ended without a verdict: it may be
stored. It may then be repeated under the same sequence only. When it is given
up, so are the parcels behind it that were under way too: under new sequences
they could be stored twice.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping

from holdfast.client.failures import from_result, is_uncertain
from holdfast.client.parcels import Parcel, Request, TopicQueue
from holdfast.errors import (
    DeadlineExceededError,
    HoldfastError,
    InternalError,
    OutcomeUnknownError,
    RecordTooLargeError,
    SequenceGapError,
    UnknownPartitionError,
    UnknownTopicError,
)
from holdfast.records import Compression
from holdfast.v1 import bus_pb2

#: Fresh starts of a parcel whose sequence the broker does not expect.
_MAX_RESTARTS = 3


class Settlement:
    """The parcels of all topics, from the time they leave until they are settled.

    Args:
        compression: for batches that have to be cut.
        on_lost: called with the error of records nobody waits for one by one.
    """

    def __init__(self, compression: Compression, on_lost: Callable[[HoldfastError], None]) -> None:
        self._compression = compression
        self._on_lost = on_lost
        self.topics: dict[str, TopicQueue] = {}
        #: First epoch of topics that were known once.
        self._epochs: dict[str, int] = {}
        #: Bytes taken and not settled.
        self.buffered = 0
        #: Under way, in order.
        self.requests: deque[Request] = deque()
        #: Answered with an error, in order: nothing more leaves until ``on_break`` has settled them.
        self.refused: list[Request] = []

    def on_result(self, result: bus_pb2.PublishResult) -> Request:
        """The broker's answer to the oldest request; an error of it is in ``refused`` then.

        Raises:
            InternalError: it answers something else.
        """
        if not self.requests or self.requests[0].number != result.request_id:
            raise InternalError(f"the broker answered request {result.request_id} out of turn")
        request = self.requests.popleft()
        places = {ack.partition: ack for ack in result.response.acks}
        if result.HasField("error"):
            request.error = from_result(result.error)
        else:
            request.error = _incomplete(request, places)
        if request.error is not None:
            self.refused.append(request)
            return request
        request.topic.in_flight -= 1
        for parcel in request.parcels:
            if not parcel.settled:
                parcel.queue.in_flight.remove(parcel)
                self.buffered -= parcel.size
                parcel.resolve(request.topic.name, places[parcel.queue.number].base_offset)
        return request

    def on_break(self) -> None:
        """The stream is over: settle what was refused, put back what has to leave again.

        Requests without an answer are uncertain.
        """
        under_way = sorted([*self.requests, *self.refused], key=lambda request: request.number)
        self.requests.clear()
        self.refused.clear()
        for request in under_way:
            request.topic.in_flight -= 1
            if request.error is None or is_uncertain(request.error):
                for parcel in request.parcels:
                    parcel.uncertain = True
        # Back into the queues first, so that a verdict finds all that stands behind a parcel.
        queues = dict.fromkeys(parcel.queue for request in under_way for parcel in request.parcels)
        for queue in queues:
            queue.waiting.extendleft(reversed(queue.in_flight))
            queue.in_flight.clear()
        for request in under_way:
            if request.error is not None and not request.error.retriable:
                self._judge(request, request.error)
        for queue in queues:
            if queue.waiting or queue.open is not None:
                queue.topic.pending[queue] = None

    def _judge(self, request: Request, error: HoldfastError) -> None:
        """A refusal that repeating does not cure."""
        if isinstance(error, InternalError):
            return  # uncertain: tried again until its deadline
        live = [parcel for parcel in request.parcels if not parcel.settled]
        if isinstance(error, UnknownTopicError):
            self.forget(request.topic, error)
            return
        if isinstance(error, SequenceGapError) and any(map(_follows, live)):
            return  # it only has to follow an earlier parcel that was refused
        if len(request.parcels) > 1:
            for parcel in live:
                parcel.alone = True
            return
        for parcel in live:
            if isinstance(error, SequenceGapError):
                self._restart(parcel, error)
            elif isinstance(error, RecordTooLargeError) and parcel.count > 1:
                self._split(parcel)
            else:
                self._give_up(parcel, error)
        if isinstance(error, UnknownPartitionError):
            self.forget(request.topic, error)

    def _restart(self, parcel: Parcel, error: HoldfastError) -> None:
        """The broker does not know what came before this parcel, though it was acknowledged.

        The producer was idle for so long that it was forgotten, or the topic
        was made anew: sequences start again, unless an earlier try of the
        parcel may have been stored.
        """
        queue = parcel.queue
        parcel.restarts += 1
        if parcel.uncertain or parcel.restarts > _MAX_RESTARTS:
            self._give_up(parcel, error)
        else:
            queue.new_epoch([parcel, *queue.behind(parcel)])

    def _split(self, parcel: Parcel) -> None:
        """One of these records is too large: halve the batch until it stands alone."""
        waiting = parcel.queue.waiting
        halves = parcel.halves(self._compression)
        self.buffered += halves[0].size + halves[1].size - parcel.size
        at = waiting.index(parcel)
        del waiting[at]
        waiting.insert(at, halves[1])
        waiting.insert(at, halves[0])

    def _give_up(self, parcel: Parcel, error: HoldfastError) -> None:
        """Fail a parcel for good, and those behind it that could otherwise be stored twice."""
        queue = parcel.queue
        behind = queue.behind(parcel)
        doubtful = parcel.uncertain or parcel in queue.in_flight
        queue.drop(parcel)
        self._fail(parcel, error)
        if parcel.base_sequence < 0:
            return  # it never left: nothing behind it did
        kept = []
        for other in behind:
            if doubtful and (other.uncertain or other in queue.in_flight):
                queue.drop(other)
                text = f"given up with an earlier batch of {queue.topic.name}: {error.message}"
                self._fail(other, OutcomeUnknownError(text))
            else:
                kept.append(other)
        queue.new_epoch(kept)

    def expire(self, now: float, because: str = "") -> None:
        """Give up parcels whose delivery timeout is over; ``because`` goes into their errors."""
        reason = f": {because}" if because else ""
        for topic in list(self.topics.values()):
            for queue in topic.all_queues():
                # In order, but for timeouts that differ; almost always only the first is looked at.
                for parcel in list(queue.parcels()):
                    if parcel.deadline <= now and not parcel.settled:
                        doubtful = parcel.uncertain or parcel in queue.in_flight
                        outcome = "it may be stored or not" if doubtful else "nothing was stored"
                        text = f"topic {topic.name}: not acknowledged within {parcel.timeout:g} s; {outcome}"
                        self._give_up(parcel, DeadlineExceededError(text + reason))

    def close_older(self, opened_before: float) -> None:
        """Close parcels that have been open for long, so that deadlines stay those of their records."""
        for topic in self.topics.values():
            for queue in topic.all_queues():
                if queue.open is not None and queue.open.opened < opened_before:
                    queue.close()

    def outstanding(self) -> list[Parcel]:
        """All parcels not settled."""
        return [
            parcel
            for topic in self.topics.values()
            for queue in topic.all_queues()
            for parcel in queue.parcels()
            if not parcel.settled
        ]

    def rest(self) -> None:
        """Nothing is held any more: the next record finds idle topics.

        What is given up without a stream leaves its queues marked as having something to send,
        and a topic that is armed wakes nobody.
        """
        for topic in self.topics.values():
            topic.pending.clear()
            topic.armed = False

    def fail_all(self, error: HoldfastError) -> None:
        """The client closes: nothing waits any longer."""
        for topic in list(self.topics.values()):
            self.forget(topic, error)
        self.requests.clear()

    def drop(self, topic: TopicQueue) -> None:
        """Forget the topic, but not the epochs used up: an old sequence would pass for a repeat."""
        self._epochs[topic.name] = topic.epoch + 1
        if self.topics.get(topic.name) is topic:
            del self.topics[topic.name]

    def forget(self, topic: TopicQueue, error: HoldfastError) -> None:
        """The topic is of no use: fail what waits for it; the next record asks anew."""
        self.drop(topic)
        for queue in topic.all_queues():
            for parcel in list(queue.parcels()):
                self._fail(parcel, error)
            queue.clear()
        topic.pending.clear()

    def _fail(self, parcel: Parcel, error: HoldfastError) -> None:
        if parcel.settled:
            return
        self.buffered -= parcel.size
        if not parcel.fail(error):
            self._on_lost(error)


def _follows(parcel: Parcel) -> bool:
    """Whether an earlier parcel has to be stored first, or this one is numbered anew."""
    waiting = parcel.queue.waiting
    return parcel.base_sequence < 0 or not waiting or waiting[0] is not parcel


def _incomplete(request: Request, places: Mapping[int, bus_pb2.PartitionAck]) -> InternalError | None:
    for parcel in request.parcels:
        place = places.get(parcel.queue.number)
        if place is None or (place.count != parcel.count and not parcel.settled):
            return InternalError(f"the broker's answer leaves out partition {parcel.queue.number}")
    return None
