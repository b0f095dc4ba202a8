"""What has been done under a key, for as long as a repeat is known.

A mark of a topic says where the record of an idempotency key lies; those of
topic 0, which no topic has, hold what a transaction was answered. A second
table orders marks by expiry. Times are stamped times: replicas forget alike.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import msgspec

from holdfast.errors import StorageError
from holdfast.storage.port import Reader, Table, Writer

_KEY = struct.Struct(">I16s")
_AGE = struct.Struct(">qI16s")
_PLACE = struct.Struct(">qIQ")
_EXPIRY = struct.Struct(">q")

DIGEST_BYTES = 16
#: The digest of a record without a key.
NO_DIGEST = bytes(DIGEST_BYTES)
#: Under which transactions are kept.
TRANSACTIONS = 0


class Mark(msgspec.Struct, frozen=True, gc=False):
    """Where the record of an idempotency key lies."""

    expires_us: int
    partition: int
    offset: int


def read(r: Reader, topic_id: int, digest: bytes, now_us: int) -> Mark | None:
    """The mark of a key; None when there is none, or its time is over at ``now_us``."""
    value = r.get(Table.MARKS, _KEY.pack(topic_id, digest))
    if value is None:
        return None
    if len(value) != _PLACE.size:
        raise StorageError("the mark of an idempotency key does not have the length of one")
    mark = Mark(*_PLACE.unpack(value))
    return mark if mark.expires_us > now_us else None


def write(w: Writer, topic_id: int, digest: bytes, mark: Mark) -> bool:
    """Remember where a key's record lies; an expired mark is replaced. True: there was none."""
    value = _PLACE.pack(mark.expires_us, mark.partition, mark.offset)
    return _put(w, topic_id, digest, mark.expires_us, value)


def read_transaction(r: Reader, transaction_id: bytes, now_us: int) -> bytes | None:
    """What a transaction was answered; None when it is not known, or its time is over at ``now_us``."""
    value = r.get(Table.MARKS, _KEY.pack(TRANSACTIONS, transaction_id))
    if value is None or _EXPIRY.unpack_from(value)[0] <= now_us:
        return None
    return value[_EXPIRY.size :]


def write_transaction(w: Writer, transaction_id: bytes, expires_us: int, answer: bytes) -> bool:
    """Remember what a transaction was answered; an expired mark is replaced. True: there was none."""
    return _put(w, TRANSACTIONS, transaction_id, expires_us, _EXPIRY.pack(expires_us) + answer)


def expired(r: Reader, now_us: int) -> Iterator[tuple[int, int, bytes]]:
    """Marks whose time is over, oldest first: ``(expires_us, topic id, digest)``."""
    for key in r.scan_keys(Table.MARK_AGES, b"", _AGE.pack(now_us + 1, 0, NO_DIGEST)):
        yield _AGE.unpack(key)


def expire(w: Writer, now_us: int, limit: int) -> list[int]:
    """Forget up to ``limit`` marks whose time is over; the topic of each."""
    doomed: list[tuple[int, int, bytes]] = []
    if limit > 0:
        for found in expired(w, now_us):
            doomed.append(found)
            if len(doomed) == limit:
                break
    for expires_us, topic_id, digest in doomed:
        w.delete(Table.MARK_AGES, _AGE.pack(expires_us, topic_id, digest))
        w.delete(Table.MARKS, _KEY.pack(topic_id, digest))
    return [topic_id for _, topic_id, _ in doomed]


def count(r: Reader) -> int:
    """Marks of all topics, and transactions."""
    return r.count(Table.MARKS)


def _put(w: Writer, topic_id: int, digest: bytes, expires_us: int, value: bytes) -> bool:
    key = _KEY.pack(topic_id, digest)
    before = w.get(Table.MARKS, key)
    if before is not None:
        w.delete(Table.MARK_AGES, _AGE.pack(_EXPIRY.unpack_from(before)[0], topic_id, digest))
    w.put(Table.MARKS, key, value)
    w.put(Table.MARK_AGES, _AGE.pack(expires_us, topic_id, digest), b"")
    return before is None
