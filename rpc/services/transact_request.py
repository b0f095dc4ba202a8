"""A TransactRequest on its way to an operation, and a result on its way to the answer. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import xxhash

from holdfast.cluster.commands import encode_op
from holdfast.cluster.state.limits import StateLimits
from holdfast.errors import HoldfastError, InternalError, TransactionTooLargeError
from holdfast.rpc.services.keyed_publish import KeyedPublish
from holdfast.rpc.services.publish_request import PublishEncoder, TopicFacts
from holdfast.rpc.status import invalid
from holdfast.storage.marks import DIGEST_BYTES, NO_DIGEST, Mark
from holdfast.v1 import bus_pb2, log_pb2

#: How long a repeat is given the first answer, in milliseconds: longer than the SDK repeats one by itself.
KEEP_MS = 60_000

#: Where the record of an idempotency key lies: by topic id and digest.
Find = Callable[[int, bytes], Mark | None]


def check_request(request: bus_pb2.TransactRequest, limits: StateLimits) -> None:
    """
    Raises:
        InvalidArgumentError: a field is missing or contradicts another.
        TransactionTooLargeError: more than one transaction takes.
    """
    if len(request.transaction_id) != DIGEST_BYTES:
        raise invalid(
            "transaction_id", f"{DIGEST_BYTES} random bytes are needed, not {len(request.transaction_id)}"
        )
    if not request.appends and not request.consume:
        raise invalid("appends", "the transaction holds nothing: neither records nor consumed ones")
    names = [item.topic for item in request.appends]
    if len(set(names)) != len(names):
        raise invalid("appends", "a topic is named twice; put its records into one")
    size = 0
    for item in request.appends:
        size += sum([len(record.value) for record in item.records]) + sum(
            [len(b.batch) for b in item.batches]
        )
    if size > limits.max_transaction_bytes:
        raise too_large("bytes", size, limits.max_transaction_bytes)
    runs = 0
    for consumed in request.consume:
        runs += sum([max(1, len(item.runs) // 2) for item in consumed.offsets])
        runs += sum([max(1, len(item.runs) // 2) for item in consumed.places])
    if runs > limits.max_settle_runs:
        raise too_large("runs of consumed records", runs, limits.max_settle_runs)


class Transaction:
    """One transaction: ``op``, then ``repeated`` or ``stored``, until nothing is ``left``; or ``recalled``.

    Args:
        request: one that passed ``check_request``.
        topics: those it appends to, by name.
        consume: what it settles.
        encoder: checks and encodes records as those of a publish.
        limits: of the state.

    Raises:
        HoldfastError: what a publish of its records would be refused with.
        TransactionTooLargeError: over a bound.
    """

    def __init__(
        self,
        request: bus_pb2.TransactRequest,
        topics: Mapping[str, TopicFacts],
        consume: Sequence[log_pb2.SettleOp],
        encoder: PublishEncoder,
        limits: StateLimits,
    ) -> None:
        self._id = request.transaction_id
        self._consume = consume
        self._unleased = any(item.places for item in request.consume)
        self._topics = [topics[item.topic] for item in request.appends]
        # A repeat has to put records without a key where the first call did.
        keyless = xxhash.xxh3_64_intdigest(self._id)
        self._keyed: list[KeyedPublish] = []
        #: Of each topic, whether the caller is told the place of each record.
        self._placed: list[bool] = []
        for item, topic in zip(request.appends, self._topics, strict=True):
            records = bus_pb2.PublishRequest(
                topic=item.topic,
                records=item.records,
                batches=item.batches,
                idempotency_keys=item.idempotency_keys,
            )
            self._keyed.append(encoder.keyed(records, topic, keyless=keyless))
            self._placed.append(bool(item.records) or any(batch.idempotency_keys for batch in item.batches))
        parts = [part for keyed in self._keyed for part in keyed.parts]
        if len(parts) > limits.max_batches_per_append:
            raise too_large("batches", len(parts), limits.max_batches_per_append)
        size = sum([len(part.data) for part in parts])
        if size > limits.max_transaction_bytes:
            raise too_large("bytes", size, limits.max_transaction_bytes)

    @property
    def left(self) -> bool:
        """There is something to propose."""
        return bool(self._consume) or bool(self._waiting())

    @property
    def repeats(self) -> int:
        """Records that were stored before under their idempotency keys; once nothing is left."""
        return sum(keyed.repeats for keyed in self._keyed)

    def op(self) -> bytes:
        """The operation that does what is left."""
        op = log_pb2.Op()
        transact = op.transact
        transact.transaction_id = self._id
        transact.keep_ms = KEEP_MS
        transact.unleased = self._unleased
        transact.consume.extend(self._consume)
        batches: list[bytes] = []
        for keyed in self._waiting():
            append, blobs = keyed.append()
            transact.appends.append(append)
            batches += blobs
        return encode_op(op, batches)

    def repeated(self, marked: Sequence[log_pb2.MarkedRecord]) -> None:
        """The operation was refused, because these of its records are stored."""
        if not marked:
            raise InternalError("a transaction was refused for its idempotency keys, and none was named")
        first = 0
        for keyed in self._waiting():
            count = len(keyed.parts)
            own = [_counted_from(mark, first) for mark in marked if first <= mark.batch < first + count]
            if own:
                keyed.repeated(own)
            first += count

    def stored(self, result: log_pb2.TransactResult) -> None:
        """The operation is in the log."""
        for keyed, done in zip(self._waiting(), result.appends, strict=True):
            keyed.stored(done.acks)
        self._consume = ()

    def answer(self) -> bus_pb2.TransactResponse:
        """What the caller is told, once nothing is left."""
        response = bus_pb2.TransactResponse()
        for topic, keyed, placed in zip(self._topics, self._keyed, self._placed, strict=True):
            done = keyed.response()
            added = response.appends.add(topic=topic.name, acks=done.acks)
            if placed:
                added.positions.extend(done.positions)
        return response

    def recalled(self, result: log_pb2.TransactResult, find: Find) -> bus_pb2.TransactResponse:
        """What the caller is told when an earlier call of this transaction has done it.

        Records that call found stored already, it left out. Where they are is looked up again; when it
        is not known any more, the places of that topic's records are left open.
        """
        done = {item.topic: item for item in result.appends}
        response = bus_pb2.TransactResponse(repeated_call=True)
        for topic, keyed, placed in zip(self._topics, self._keyed, self._placed, strict=True):
            acks = done[topic.name].acks if topic.name in done else ()
            added = response.appends.add(topic=topic.name, acks=acks)
            if placed and _place_again(keyed, topic.id, acks, find):
                added.positions.extend(keyed.response().positions)
        return response

    def _waiting(self) -> list[KeyedPublish]:
        return [keyed for keyed in self._keyed if keyed.left]


def too_large(what: str, size: int, limit: int) -> HoldfastError:
    return TransactionTooLargeError(
        f"a transaction of {size} {what}; at most {limit} are taken: make it several",
        metadata={"size": str(size), "limit": str(limit)},
    )


def _counted_from(mark: log_pb2.MarkedRecord, first: int) -> log_pb2.MarkedRecord:
    return log_pb2.MarkedRecord(
        batch=mark.batch - first, index=mark.index, partition=mark.partition, offset=mark.offset
    )


def _place_again(
    keyed: KeyedPublish, topic_id: int, acks: Sequence[bus_pb2.PartitionAck], find: Find
) -> bool:
    """Find out what of a topic's records ``acks`` are about, and what was stored before; False: not known."""
    stored = {ack.partition: range(ack.base_offset, ack.base_offset + ack.count) for ack in acks}
    marked = []
    for number, part in enumerate(keyed.parts):
        for index, digest in enumerate(part.digests):
            mark = find(topic_id, digest) if digest != NO_DIGEST else None
            if mark is not None and mark.offset not in stored.get(mark.partition, ()):
                marked.append(
                    log_pb2.MarkedRecord(
                        batch=number, index=index, partition=mark.partition, offset=mark.offset
                    )
                )
    if marked:
        keyed.repeated(marked)
    left = [(part.facts.partition, part.facts.count) for part in keyed.parts]
    if left != [(ack.partition, ack.count) for ack in acks]:
        return False
    keyed.stored(acks)
    return True
