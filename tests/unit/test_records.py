"""Record batches: round trips, and every way a batch can be refused."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import google_crc32c
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import CorruptBatchError, MalformedBatchError, RecordTooLargeError
from holdfast.records import (
    BatchFacts,
    BatchLimits,
    Compression,
    check_batch,
    decode_batch,
    encode_batch,
    partition_for,
)
from holdfast.v1 import records_pb2

PROTO = Path(__file__).parents[2] / "proto"
TIMES = st.integers(min_value=0, max_value=(1 << 62) - 1)
HEADERS = st.lists(st.tuples(st.text(max_size=8), st.binary(max_size=8)), max_size=3)


def envelope(payload: bytes, *, count: int = 1, compression: int = 0, crc: int | None = None) -> bytes:
    batch = records_pb2.RecordBatch(count=count, records=payload)
    batch.compression = compression  # type: ignore[assignment]  # also numbers that are not defined
    batch.crc32c = google_crc32c.value(payload) if crc is None else crc
    return batch.SerializeToString()


def batch_of(records: records_pb2.Records, count: int | None = None) -> bytes:
    return envelope(records.SerializeToString(), count=len(records.values) if count is None else count)


@given(
    rows=st.lists(
        st.tuples(st.binary(max_size=40), st.binary(max_size=10), TIMES, HEADERS), min_size=1, max_size=30
    ),
    compression=st.sampled_from(Compression),
)
def test_what_was_encoded_comes_back(
    rows: list[tuple[bytes, bytes, int, list[tuple[str, bytes]]]], compression: Compression
) -> None:
    values, keys, times, headers = map(list, zip(*rows, strict=True))
    data = encode_batch(values, keys, times, headers, compression)
    assert check_batch(data) == BatchFacts(len(rows), min(times), max(times))
    batch = decode_batch(data)
    assert (len(batch), batch.count) == (len(rows), len(rows))
    assert batch.values == values
    assert batch.keys == keys
    assert batch.timestamps_us == times
    assert [list(pairs) for pairs in batch.headers] == headers
    assert batch.has_keys == any(keys)
    assert batch.has_headers == any(headers)


def test_columns_that_say_nothing_are_left_out() -> None:
    plain = encode_batch([b"a", b"b"])
    assert encode_batch([b"a", b"b"], [b"", b""], [0, 0], [None, ()]) == plain
    batch = decode_batch(plain)
    assert batch.keys == [b"", b""]
    assert batch.headers == [(), ()]
    assert batch.timestamps_us == [0, 0]


def test_one_time_for_all() -> None:
    assert encode_batch([b"a", b"b"], timestamps_us=7) == encode_batch([b"a", b"b"], timestamps_us=[7, 7])
    assert check_batch(encode_batch([b"a", b"b"], timestamps_us=7)) == BatchFacts(2, 7, 7)


def test_columns_are_made_once() -> None:
    batch = decode_batch(encode_batch([b"a"], [b"k"], [1], [[("n", b"v")]]))
    assert batch.values is batch.values
    assert batch.keys is batch.keys
    assert batch.timestamps_us is batch.timestamps_us
    assert batch.headers is batch.headers


def test_the_encoding_is_what_protobuf_writes() -> None:
    for count in (1, 127, 128, 20_000):
        for compression in Compression:
            data = encode_batch([b"x"] * count, compression=compression)
            assert records_pb2.RecordBatch.FromString(data).SerializeToString() == data


def test_zstd_makes_repetitive_records_small() -> None:
    assert len(encode_batch([b"flight" * 20] * 100, compression=Compression.ZSTD)) < 200


@pytest.mark.parametrize(
    ("values", "keys", "times", "headers"),
    [
        ([], None, None, None),
        ([b"a"], [b"k", b"l"], None, None),
        ([b"a"], None, [1, 2], None),
        ([b"a"], None, None, [(), ()]),
        ([b"a"], None, [1 << 70], None),
        ([3], None, None, None),
        ([b"a"], None, None, [[("n", "text")]]),
        ([b"a"], None, None, [["no pair"]]),
    ],
)
def test_what_cannot_be_encoded(values: list, keys: list, times: list, headers: list) -> None:  # type: ignore[type-arg]
    with pytest.raises(MalformedBatchError):
        encode_batch(values, keys, times, headers)


def test_encoding_refuses_an_unknown_compression() -> None:
    with pytest.raises(MalformedBatchError, match="compression 9"):
        encode_batch([b"a"], compression=9)


GOOD = records_pb2.Records(values=[b"a", b"b"])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "at least one record"),
        (b"\xff\xff\xff", "does not parse"),
        (envelope(b"", count=0), "at least one record"),
        (batch_of(records_pb2.Records()), "at least one record"),
        (batch_of(GOOD, count=3), "says 3 records and holds 2"),
        (batch_of(GOOD, count=0), "says how many"),
        (batch_of(records_pb2.Records(values=[b"a"], keys=[b"k", b"l"])), "2 keys for 1"),
        (batch_of(records_pb2.Records(values=[b"a", b"b"], keys=[b"k"])), "1 keys for 2"),
        (batch_of(records_pb2.Records(values=[b"a"], timestamp_deltas_us=[0, 1])), "2 timestamps for 1"),
        (batch_of(records_pb2.Records(values=[b"a"], headers=[{"index": 1}])), "header indexes"),
        (
            batch_of(records_pb2.Records(values=[b"a", b"b"], headers=[{"index": 1}, {"index": 0}])),
            "header indexes",
        ),
        (
            batch_of(records_pb2.Records(values=[b"a", b"b"], headers=[{"index": 1}, {"index": 1}])),
            "header indexes",
        ),
        (
            batch_of(
                records_pb2.Records(values=[b"a"], base_timestamp_us=(1 << 63) - 1, timestamp_deltas_us=[1])
            ),
            "64 bits",
        ),
        (envelope(b"\xff\xff\xff"), "records do not parse"),
        (envelope(GOOD.SerializeToString(), count=2, compression=7), "unknown compression 7"),
        (envelope(b"not zstd", compression=1), "do not decompress"),
        (encode_batch([b"a"]) + b"\x00", "does not parse"),
        (encode_batch([b"a"]) + b"\x28\x01", "where its fields take"),
        (encode_batch([b"a"]) + encode_batch([b"a"]), "where its fields take"),
        (envelope(GOOD.SerializeToString() + b"\x48\x01", count=2), "does not know"),
        (
            envelope(zstandard.compress(GOOD.SerializeToString()) + b"more", count=2, compression=1),
            "do not decompress",
        ),
    ],
)
def test_malformed_batches_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(MalformedBatchError, match=message):
        check_batch(data)


def test_a_wrong_crc_is_told_apart() -> None:
    with pytest.raises(CorruptBatchError):
        check_batch(envelope(GOOD.SerializeToString(), count=2, crc=1))
    data = bytearray(encode_batch([b"hello"]))
    data[-1] ^= 1
    with pytest.raises(CorruptBatchError):
        check_batch(bytes(data))
    with pytest.raises(CorruptBatchError):
        decode_batch(bytes(data))


def test_readers_check_columns_too() -> None:
    with pytest.raises(MalformedBatchError):
        decode_batch(batch_of(GOOD, count=3))
    with pytest.raises(MalformedBatchError):
        decode_batch(batch_of(records_pb2.Records(values=[b"a"], headers=[{"index": 1}])))


def test_an_encoder_may_write_defaults() -> None:
    records = GOOD.SerializeToString()
    plain = encode_batch([b"a", b"b"])
    explicit = plain[:2] + b"\x10\x00" + plain[2:]
    assert records_pb2.RecordBatch.FromString(explicit).records == records
    assert check_batch(explicit).count == 2


def test_limits() -> None:
    limits = BatchLimits(max_record_bytes=30, max_batch_bytes=400, max_key_bytes=10)
    check_batch(encode_batch([b"x" * 30]), limits)
    check_batch(encode_batch([b"x" * 15, b"y" * 20], [b"k" * 10, b"l" * 10]), limits)
    many = encode_batch([b"x" * 10] * 20)
    assert check_batch(many, limits).count == 20
    for data in (
        encode_batch([b"x" * 31]),
        encode_batch([b"x" * 25], [b"k" * 6]),
        encode_batch([b"", b"x" * 20], headers=[None, [("name", b"value-ab")]]),
        encode_batch([b"x"], [b"k" * 11]),
        encode_batch([b"x" * 10] * 60),
        encode_batch([b"x" * 10] * 60, compression=Compression.ZSTD),
    ):
        with pytest.raises(RecordTooLargeError) as caught:
            check_batch(data, limits)
        assert int(caught.value.metadata["size"]) > int(caught.value.metadata["limit"])


def test_single_limits_can_be_overridden() -> None:
    data = encode_batch([b"x" * 100], [b"k" * 20], headers=[[("a", b"1"), ("b", b"2" * 100)]])
    check_batch(data)
    overrides: tuple[dict[str, Any], ...] = (
        {"max_record_bytes": 100},
        {"max_batch_bytes": 100},
        {"max_key_bytes": 19},
        {"max_headers": 1},
        {"max_header_bytes": 102},
    )
    for override in overrides:
        with pytest.raises(RecordTooLargeError):
            check_batch(data, **override)


def test_header_limits() -> None:
    def one(*pairs: tuple[str, bytes]) -> bytes:
        return encode_batch([b"a", b"b"], headers=[None, list(pairs)])

    check_batch(one(*[("n", b"v")] * 64))
    check_batch(one(("n" * 256, b"")))
    check_batch(one(("é" * 128, b"v" * 15_000)))
    for data in (
        one(*[("n", b"")] * 65),
        one(("n" * 257, b"")),
        one(("é" * 129, b"")),
        one(("n", b"v" * (16 << 10))),
    ):
        with pytest.raises(RecordTooLargeError):
            check_batch(data)


def test_zstd_bombs_are_bounded() -> None:
    bomb = bytes(64 << 20)
    sized = zstandard.ZstdCompressor(level=3).compress(bomb)
    stream = zstandard.ZstdCompressor(level=3, write_content_size=False).compressobj()
    unsized = stream.compress(bomb) + stream.flush()
    assert len(sized) < 10_000
    with pytest.raises(RecordTooLargeError):
        check_batch(envelope(sized, compression=1))
    with pytest.raises(MalformedBatchError):
        check_batch(envelope(unsized, compression=1))


def test_zstd_frames_without_a_size_are_read() -> None:
    payload = records_pb2.Records(values=[b"a" * 5000]).SerializeToString()
    stream = zstandard.ZstdCompressor(write_content_size=False).compressobj()
    data = envelope(stream.compress(payload) + stream.flush(), compression=1)
    assert check_batch(data, max_batch_bytes=6000).count == 1
    assert decode_batch(data).values == [b"a" * 5000]


def test_zstd_frames_that_need_much_memory_are_refused() -> None:
    wants = zstandard.ZstdCompressionParameters(window_log=27, write_content_size=False)
    stream = zstandard.ZstdCompressor(compression_params=wants).compressobj()
    payload = records_pb2.Records(values=[b"a"]).SerializeToString()
    with pytest.raises(MalformedBatchError):
        check_batch(envelope(stream.compress(payload) + stream.flush(), compression=1))


def test_decoding_is_bounded() -> None:
    data = encode_batch([bytes(10_000)], compression=Compression.ZSTD)
    with pytest.raises(RecordTooLargeError):
        decode_batch(data, max_bytes=9_000)


@given(st.binary(max_size=200))
def test_random_bytes_are_refused_with_a_typed_error(data: bytes) -> None:
    with pytest.raises((MalformedBatchError, CorruptBatchError, RecordTooLargeError)):
        check_batch(data)


@given(st.integers(min_value=0), st.integers(min_value=0, max_value=255))
def test_a_changed_byte_never_passes_as_other_records(position: int, value: int) -> None:
    data = encode_batch([b"value-%d" % i for i in range(5)], [b"key"] * 5, list(range(5)), None)
    damaged = bytearray(data)
    damaged[position % len(data)] = value
    try:
        check_batch(bytes(damaged))
    except (MalformedBatchError, CorruptBatchError):
        return
    assert decode_batch(bytes(damaged)).values == decode_batch(data).values


def test_partition_vectors() -> None:
    vectors = json.loads((PROTO / "partition_vectors.json").read_text())["vectors"]
    assert len(vectors) >= 12
    text = (PROTO / "DESIGN.md").read_text()
    rows = re.findall(r"^\| .* \| `([0-9a-f]*|-)` \| `([0-9a-f]{16})` \| (.*) \|$", text, re.MULTILINE)
    documented = {key.strip("-"): (digest, list(map(int, cells.split(" | ")))) for key, digest, cells in rows}
    assert len(documented) == len(vectors)
    for vector in vectors:
        key = bytes.fromhex(vector["key_hex"])
        if vector["key"] is not None:
            assert vector["key"].encode() == key
        assert list(vector["partitions"]) == ["1", "3", "12", "1024"]
        for partitions, expected in vector["partitions"].items():
            assert partition_for(key, int(partitions)) == expected
        # A count of 2**64 shows the hash itself.
        assert f"{partition_for(key, 1 << 64):016x}" == vector["xxh64"]
        assert documented[key.hex()] == (vector["xxh64"], list(vector["partitions"].values()))


def test_the_vectors_named_in_the_proto_file() -> None:
    text = (PROTO / "holdfast" / "v1" / "records.proto").read_text()
    for key, digest in re.findall(r'//   "(\w*)"\s+([0-9a-f]{16})$', text, re.MULTILINE):
        assert f"{partition_for(key.encode(), 1 << 64):016x}" == digest


def test_partitioning_needs_a_partition() -> None:
    with pytest.raises(ValueError, match="at least one"):
        partition_for(b"k", 0)


def test_keys_spread_evenly() -> None:
    counts = [0] * 12
    for _ in range(12_000):
        counts[partition_for(os.urandom(8), 12)] += 1
    assert min(counts) > 800
