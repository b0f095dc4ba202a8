"""Record batches: encode, decode and check them, and route keys to partitions.

A leaf module: client and brokers share it, so that what one writes the other
accepts. A batch keeps its records column by column (``Records`` in
records.proto); everything here works on whole columns, because a Python
statement per record would cost more than the rest of a broker's work.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from operator import add, attrgetter, lt

import google_crc32c
import xxhash
import zstandard
from google.protobuf.message import DecodeError, EncodeError
from google.protobuf.unknown_fields import UnknownFieldSet

from holdfast.errors import CorruptBatchError, MalformedBatchError, RecordTooLargeError
from holdfast.v1 import records_pb2
from holdfast.wire_format import OpenBatch, ValueColumn, find_values, join_values, open_batch, varint

#: Headers of one record: names may repeat, order is kept.
Headers = Sequence[tuple[str, bytes]]

_MIN_TIME = -(1 << 63)
_MAX_TIME = (1 << 63) - 1
_MAX_HEADER_NAME_BYTES = 256
#: The least a header takes in an encoded RecordHeaders: tag, length, nothing.
_MIN_HEADER_ENCODED = 2
_ZSTD_LEVEL = 3
#: A frame says how much memory its reader needs; more than this is refused.
_ZSTD_WINDOW = 16 << 20
#: From this size of its values on a column is read and written in place; below, protobuf is as fast.
_IN_PLACE_BYTES = 4096

_crc32c = google_crc32c.value
_hash_key = xxhash.xxh64_intdigest
_header_index = attrgetter("index")
_header_bytes = records_pb2.RecordHeaders.ByteSize


class Compression(IntEnum):
    """How a batch's records are compressed; the numbers are those on the wire."""

    NONE = records_pb2.COMPRESSION_NONE
    ZSTD = records_pb2.COMPRESSION_ZSTD


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """What a broker accepts; all in bytes but ``max_headers``.

    Attributes:
        max_record_bytes: key, value, header names and header values of one
            record together. Topics may set a lower or higher one.
        max_batch_bytes: a batch as sent, and its records once decompressed.
        max_key_bytes: one key. 4 KiB: keys are identifiers, and every reader
            that groups by key keeps them in memory.
        max_headers: headers of one record.
        max_header_bytes: names and values of one record's headers together;
            a single name is at most 256 bytes.
    """

    max_record_bytes: int = 1 << 20
    max_batch_bytes: int = 16 << 20
    max_key_bytes: int = 4096
    max_headers: int = 64
    max_header_bytes: int = 16 << 10


DEFAULT_LIMITS = BatchLimits()


@dataclass(frozen=True, slots=True)
class BatchFacts:
    """What a checked batch holds. Times in microseconds since the Unix epoch."""

    count: int
    min_timestamp_us: int
    max_timestamp_us: int


class DecodedBatch:
    """The records of a batch. Each column becomes a list when first asked for.

    Every column has ``count`` entries; do not change the lists.
    """

    __slots__ = ("_column", "_headers", "_keys", "_records", "_timestamps", "_values", "count")

    def __init__(self, records: records_pb2.Records, count: int, column: ValueColumn | None = None) -> None:
        self.count = count
        self._records = records
        #: Where the values are, when ``records`` holds the other columns only.
        self._column = column
        self._values: list[bytes] | None = None
        self._keys: list[bytes] | None = None
        self._timestamps: list[int] | None = None
        self._headers: list[Headers] | None = None

    def __len__(self) -> int:
        return self.count

    @property
    def has_keys(self) -> bool:
        """False when no record has a key."""
        return len(self._records.keys) > 0

    @property
    def has_headers(self) -> bool:
        """False when no record has headers."""
        return len(self._records.headers) > 0

    @property
    def values(self) -> list[bytes]:
        if self._values is None:
            self._values = self._records.values[:] if self._column is None else self._column.values()
        return self._values

    @property
    def keys(self) -> list[bytes]:
        """One key per record; ``b""`` means none."""
        if self._keys is None:
            self._keys = self._records.keys[:] or [b""] * self.count
        return self._keys

    @property
    def timestamps_us(self) -> list[int]:
        """Event times, microseconds since the Unix epoch."""
        if self._timestamps is None:
            base = self._records.base_timestamp_us
            deltas = self._records.timestamp_deltas_us
            self._timestamps = [base + delta for delta in deltas[:]] if deltas else [base] * self.count
        return self._timestamps

    @property
    def headers(self) -> list[Headers]:
        """One sequence of (name, value) pairs per record; empty for most."""
        if self._headers is None:
            column: list[Headers] = [()] * self.count
            for entry in self._records.headers:
                column[entry.index] = tuple([(header.name, header.value) for header in entry.headers])
            self._headers = column
        return self._headers


def partition_for(key: bytes, partitions: int) -> int:
    """The partition of a keyed record: xxh64(key) mod ``partitions``.

    Raises:
        ValueError: ``partitions`` is not positive.
    """
    if partitions <= 0:
        raise ValueError(f"a topic has at least one partition, not {partitions}")
    return _hash_key(key) % partitions


def encode_batch(
    values: Sequence[bytes],
    keys: Sequence[bytes] | None = None,
    timestamps_us: Sequence[int] | int | None = None,
    headers: Sequence[Headers | None] | None = None,
    compression: Compression | int = Compression.NONE,
) -> bytes:
    """A serialised RecordBatch; see ``encode_parts``."""
    return b"".join(encode_parts(values, keys, timestamps_us, headers, compression))


def encode_parts(
    values: Sequence[bytes],
    keys: Sequence[bytes] | None = None,
    timestamps_us: Sequence[int] | int | None = None,
    headers: Sequence[Headers | None] | None = None,
    compression: Compression | int = Compression.NONE,
) -> tuple[bytes, bytes]:
    """A serialised RecordBatch in two parts, for whoever puts it into something larger anyway.

    Args:
        values: one per record; at least one.
        keys: None, or one per value; ``b""`` means no key.
        timestamps_us: event times in microseconds since the Unix epoch, one
            per value, or one for all; None is time 0.
        headers: None, or one sequence of (name, value) pairs, or None, per value.
        compression: of the records; worth its time from about 1 KiB on.

    Raises:
        MalformedBatchError: no values, columns of different lengths, or a
            column that holds something of the wrong type or range.
    """
    count = len(values)
    if count == 0:
        raise MalformedBatchError("a batch needs at least one record")
    if keys is not None and len(keys) != count:
        raise MalformedBatchError(f"{len(keys)} keys for {count} values")
    if headers is not None and len(headers) != count:
        raise MalformedBatchError(f"headers for {len(headers)} of {count} values")
    base, deltas = _encode_times(timestamps_us, count)
    try:
        in_place = sum(map(len, values)) >= _IN_PLACE_BYTES and set(map(type, values)) == {bytes}
        records = records_pb2.Records(
            values=None if in_place else values,
            keys=keys if keys is not None and any(keys) else None,
            base_timestamp_us=base,
            timestamp_deltas_us=deltas,
        )
        if headers is not None and any(headers):
            _add_headers(records, headers)
        payload = records.SerializeToString()
        if in_place:
            payload = join_values(values, payload)
    except (TypeError, ValueError, EncodeError) as error:
        raise MalformedBatchError(f"a record cannot be encoded: {error}") from error
    if compression == records_pb2.COMPRESSION_ZSTD:
        payload = _codecs().compressor.compress(payload)
    elif compression != records_pb2.COMPRESSION_NONE:
        raise MalformedBatchError(f"unknown compression {compression}")
    return _envelope(count, int(compression), payload)


def decode_batch(data: bytes | OpenBatch, *, max_bytes: int = 64 << 20) -> DecodedBatch:
    """The records of a stored batch; its CRC and the lengths of its columns are checked.

    Args:
        data: a serialised RecordBatch; it may have been taken apart by ``wire_format.open_batch``.
        max_bytes: bound on the decompressed records.

    Raises:
        MalformedBatchError: it does not parse or contradicts itself.
        CorruptBatchError: the CRC does not match.
        RecordTooLargeError: the records are larger than ``max_bytes``.
    """
    batch = data if isinstance(data, OpenBatch) else _open(data)
    records, column, _ = _parse_records(batch, max_bytes)
    _check_columns(records, batch.count, column)
    return DecodedBatch(records, batch.count, column)


def check_batch(
    data: bytes | OpenBatch,
    limits: BatchLimits = DEFAULT_LIMITS,
    *,
    max_record_bytes: int | None = None,
    max_batch_bytes: int | None = None,
    max_key_bytes: int | None = None,
    max_headers: int | None = None,
    max_header_bytes: int | None = None,
) -> BatchFacts:
    """Check a batch from a client before it is stored; each limit can be overridden.

    ``data`` may have been taken apart by ``wire_format.open_batch``.

    Fields this version does not know are refused: brokers must not store, and
    thereby acknowledge, what they cannot check.

    Raises:
        MalformedBatchError: it does not parse, is empty, or contradicts itself.
        CorruptBatchError: the CRC does not match.
        RecordTooLargeError: a record, key, header or the batch is over its limit.
    """
    if max_batch_bytes is None:
        max_batch_bytes = limits.max_batch_bytes
    if len(data) > max_batch_bytes:
        raise _too_large("batch", len(data), max_batch_bytes)
    batch = data if isinstance(data, OpenBatch) else _open(data)
    count = batch.count
    if not count or not batch.records:
        raise MalformedBatchError("a batch needs at least one record, and says how many")
    if isinstance(batch, records_pb2.RecordBatch):
        _check_envelope(batch, len(data))
    records, column, size = _parse_records(batch, max_batch_bytes)
    if len(UnknownFieldSet(records)):
        raise MalformedBatchError("the batch's records carry fields this broker does not know")
    _check_columns(records, count, column)
    if max_key_bytes is None:
        max_key_bytes = limits.max_key_bytes
    # A column cannot hold an entry larger than all columns together: sizes
    # are looked at one by one only where a limit could be exceeded.
    if size > max_key_bytes and records.keys:
        longest = max(map(len, records.keys[:]))
        if longest > max_key_bytes:
            raise _too_large("key", longest, max_key_bytes)
    if records.headers:
        _check_headers(
            records,
            limits.max_headers if max_headers is None else max_headers,
            limits.max_header_bytes if max_header_bytes is None else max_header_bytes,
        )
    if max_record_bytes is None:
        max_record_bytes = limits.max_record_bytes
    if size > max_record_bytes:
        largest = _largest_record(records, column)
        if largest > max_record_bytes:
            raise _too_large("record", largest, max_record_bytes)
    return BatchFacts(count, *_time_span(records))


# -- encoding ------------------------------------------------------------------


def _encode_times(timestamps_us: Sequence[int] | int | None, count: int) -> tuple[int, list[int] | None]:
    if timestamps_us is None:
        return 0, None
    if isinstance(timestamps_us, int):
        return timestamps_us, None
    if len(timestamps_us) != count:
        raise MalformedBatchError(f"{len(timestamps_us)} timestamps for {count} values")
    base = timestamps_us[0]
    if timestamps_us.count(base) == count:
        return base, None
    return base, [time_us - base for time_us in timestamps_us]


def _add_headers(records: records_pb2.Records, headers: Sequence[Headers | None]) -> None:
    # add() fills the message in place, twice as fast as building and copying.
    for index, pairs in enumerate(headers):
        if pairs:
            add_header = records.headers.add(index=index).headers.add
            for name, value in pairs:
                add_header(name=name, value=value)


def _envelope(count: int, compression: int, payload: bytes) -> tuple[bytes, bytes]:
    """A serialised RecordBatch, put together by hand: all before the payload, and that.

    The protobuf runtime grows its buffer by doubling and copies the payload
    several times over; that was half the time of encoding a batch.
    """
    parts = [b"\x08", varint(count)]
    if compression:
        parts += (b"\x10", varint(compression))
    crc = _crc32c(payload)
    if crc:
        parts += (b"\x1d", crc.to_bytes(4, "little"))
    if payload:
        parts += (b"\x22", varint(len(payload)))
    return b"".join(parts), payload


# -- decoding and checking -----------------------------------------------------


def _open(data: bytes) -> OpenBatch | records_pb2.RecordBatch:
    """The envelope by hand, or by protobuf where it is not as we write it."""
    opened = open_batch(data)
    if opened is not None:
        return opened
    try:
        return records_pb2.RecordBatch.FromString(data)
    except DecodeError as error:
        raise MalformedBatchError("the batch does not parse as a RecordBatch") from error


def _check_envelope(batch: records_pb2.RecordBatch, length: int) -> None:
    """Refuse bytes around the four fields: no CRC covers them."""
    size = len(batch.records)
    expected = 1 + _varint(batch.count) + 1 + _varint(size) + size
    expected += 1 + _varint(batch.compression) if batch.compression else 0
    expected += 5 if batch.crc32c else 0
    if length == expected:
        return
    # An encoder may write fields that have their default value.
    defaults = (0 if batch.compression else 2) + (0 if batch.crc32c else 5)
    if length > expected + defaults or len(UnknownFieldSet(batch)):
        raise MalformedBatchError(f"a batch of {length} bytes where its fields take {expected}")


def _varint(value: int) -> int:
    return (value.bit_length() + 6) // 7 or 1


def _parse_records(
    batch: OpenBatch | records_pb2.RecordBatch, max_bytes: int
) -> tuple[records_pb2.Records, ValueColumn | None, int]:
    """The records and their size in bytes, decompressed; the CRC is checked first.

    With a column the records hold everything but the values, which need no parsing.
    """
    payload = batch.records
    crc = _crc32c(payload)
    if crc != batch.crc32c:
        raise CorruptBatchError(f"CRC-32C is {crc:08x}, the batch says {batch.crc32c:08x}")
    if batch.compression == records_pb2.COMPRESSION_ZSTD:
        payload = _decompress(payload, max_bytes)
    elif batch.compression != records_pb2.COMPRESSION_NONE:
        raise MalformedBatchError(f"unknown compression {batch.compression}")
    if len(payload) > max_bytes:
        raise _too_large("batch", len(payload), max_bytes)
    try:
        if len(payload) >= _IN_PLACE_BYTES:
            column = find_values(payload, batch.count)
            if column is not None:
                rest = records_pb2.Records.FromString(payload[column.end :])
                if not rest.values:  # else they are more than the batch says
                    return rest, column, len(payload)
        return records_pb2.Records.FromString(payload), None, len(payload)
    except DecodeError as error:
        raise MalformedBatchError("the batch's records do not parse") from error


def _decompress(payload: bytes, max_bytes: int) -> bytes:
    # The size a frame claims decides what is allocated, so it is looked at
    # first; a frame without one is decompressed into a bounded buffer.
    try:
        claimed = zstandard.frame_content_size(payload)
        if claimed > max_bytes:
            raise _too_large("batch", claimed, max_bytes)
        if claimed == 0:
            return b""
        return _codecs().decompressor.decompress(payload, max_output_size=max_bytes, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise MalformedBatchError(f"the batch's records do not decompress within {max_bytes} B") from error


def _check_columns(records: records_pb2.Records, count: int, column: ValueColumn | None) -> None:
    found = len(records.values) if column is None else count
    if found == 0:
        raise MalformedBatchError("a batch needs at least one record")
    if found != count:
        raise MalformedBatchError(f"the batch says {count} records and holds {found}")
    keys = len(records.keys)
    if keys and keys != count:
        raise MalformedBatchError(f"{keys} keys for {count} values")
    times = len(records.timestamp_deltas_us)
    if times and times != count:
        raise MalformedBatchError(f"{times} timestamps for {count} values")
    if records.headers:
        indexes = list(map(_header_index, records.headers))
        if indexes[-1] >= count or not all(map(lt, indexes, indexes[1:])):
            raise MalformedBatchError("header indexes must ascend and stay below the record count")


def _check_headers(records: records_pb2.Records, max_headers: int, max_header_bytes: int) -> None:
    # An entry this small exceeds no limit whatever it holds; most are.
    unsuspicious = min(max_header_bytes, max_headers * _MIN_HEADER_ENCODED, _MAX_HEADER_NAME_BYTES)
    entries = records.headers[:]
    for entry, encoded in zip(entries, map(_header_bytes, entries), strict=True):
        if encoded > unsuspicious:
            _check_record_headers(entry, max_headers, max_header_bytes)


def _check_record_headers(entry: records_pb2.RecordHeaders, max_headers: int, max_header_bytes: int) -> None:
    count = len(entry.headers)
    if count > max_headers:
        raise RecordTooLargeError(
            f"record {entry.index} of the batch has {count} headers; the limit is {max_headers}",
            metadata={"size": str(count), "limit": str(max_headers)},
        )
    longest = max([len(header.name.encode()) for header in entry.headers], default=0)
    if longest > _MAX_HEADER_NAME_BYTES:
        raise _too_large("header name", longest, _MAX_HEADER_NAME_BYTES)
    size = _headers_size(entry)
    if size > max_header_bytes:
        raise _too_large("headers", size, max_header_bytes)


def _headers_size(entry: records_pb2.RecordHeaders) -> int:
    return sum([len(header.name.encode()) + len(header.value) for header in entry.headers])


def _largest_record(records: records_pb2.Records, column: ValueColumn | None) -> int:
    sizes = list(map(len, records.values)) if column is None else column.sizes()
    if records.keys:
        sizes = list(map(add, sizes, map(len, records.keys)))
    for entry in records.headers:
        sizes[entry.index] += _headers_size(entry)
    return max(sizes)


def _time_span(records: records_pb2.Records) -> tuple[int, int]:
    base = records.base_timestamp_us
    deltas = records.timestamp_deltas_us[:]  # a list: min and max of it are 3 times faster
    if not deltas:
        return base, base
    first, last = base + min(deltas), base + max(deltas)
    if first < _MIN_TIME or last > _MAX_TIME:
        raise MalformedBatchError("a timestamp does not fit 64 bits")
    return first, last


def _too_large(what: str, size: int, limit: int) -> RecordTooLargeError:
    return RecordTooLargeError(
        f"{what} of {size} bytes is over the limit of {limit} bytes",
        metadata={"size": str(size), "limit": str(limit)},
    )


class _Codecs(threading.local):
    """zstd contexts: costly to make, and of one thread each."""

    def __init__(self) -> None:
        self.compressor = zstandard.ZstdCompressor(level=_ZSTD_LEVEL)
        self.decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)


_CODECS = _Codecs()


def _codecs() -> _Codecs:
    return _CODECS
