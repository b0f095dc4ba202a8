"""Dead letters as records: what is in them, what is left out for want of room, and reading them back."""

from __future__ import annotations

import json

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from holdfast import headers as names
from holdfast.cluster.delivery import dead_letters
from holdfast.cluster.delivery.dead_letters import Death, Plain, make, read, redriven
from holdfast.records import BatchLimits, check_batch, decode_batch, partition_for

T0 = 1_700_000_000_000_000
DEATH = Death(
    group="billing",
    topic="orders",
    partition=3,
    offset=41,
    append_time_us=T0,
    attempts=5,
    first_failed_us=T0 + 10,
    generation=77,
    errors=((T0 + 10, "db down"), (T0 + 20, "schlägt fehl")),
)
RECORD = Plain(b"k", b"value", 7, (("traceparent", b"00-ab-cd-01"), ("h", b"1"), ("h", b"2")))


def size(record: Plain) -> int:
    return sum(len(name.encode()) + len(value) for name, value in record.headers)


def test_a_dead_letter_is_the_record_and_why_it_died() -> None:
    letter = make(RECORD, DEATH)
    assert (letter.key, letter.value, letter.timestamp_us) == (b"k", b"value", 7)
    assert letter.headers[:3] == RECORD.headers, "trace and headers of the user stay in front"
    held = {name: value.decode() for name, value in letter.headers[3:]}
    assert json.loads(held.pop(names.DEAD_ERRORS)) == [[T0 + 10, "db down"], [T0 + 20, "schlägt fehl"]]
    assert held == {
        "holdfast-dead-group": "billing",
        "holdfast-dead-topic": "orders",
        "holdfast-dead-partition": "3",
        "holdfast-dead-offset": "41",
        "holdfast-dead-append-us": str(T0),
        "holdfast-dead-attempts": "5",
        "holdfast-dead-first-us": str(T0 + 10),
        "holdfast-dead-generation": "77",
        "holdfast-dead-redrives": "0",
    }
    back = read(letter)
    assert back.death == DEATH
    assert back.record == RECORD
    assert back.redrives == 0


def test_errors_go_before_headers_and_the_oldest_first() -> None:
    record = Plain(b"k", b"v", 7, (("traceparent", b"00"), ("h", b"1" * 100), ("h", b"2" * 100)))
    errors = tuple((T0 + n, f"{n}" * 150) for n in range(5))
    long = msgspec.structs.replace(DEATH, errors=errors)
    whole = make(record, long)
    assert read(whole).death.errors == errors
    tight = make(record, long, limits=BatchLimits(max_header_bytes=size(whole) - 200))
    assert read(tight).death.errors == errors[2:]
    assert read(tight).record == record
    assert json.loads(dict(tight.headers)[names.DEAD_CUT]) == {"errors": 2}
    without = size(make(record, msgspec.structs.replace(DEATH, errors=())))
    tighter = make(record, long, limits=BatchLimits(max_header_bytes=without))
    assert read(tighter).death.errors == ()
    assert read(tighter).record.headers == record.headers[:2], "then headers, from the end"
    assert json.loads(dict(tighter.headers)[names.DEAD_CUT]) == {"errors": 5, "headers": 1}


def test_the_number_of_headers_is_kept_without_losing_errors() -> None:
    many = Plain(b"", b"v", 7, (*((f"h{n}", b"x") for n in range(63)), ("traceparent", b"00")))
    letter = make(many, DEATH)
    assert len(letter.headers) <= 64
    back = read(letter)
    assert back.death == DEATH
    kept = 64 - 10 - 1
    assert back.record.headers == (*many.headers[: kept - 1], ("traceparent", b"00")), "the trace stays"
    assert json.loads(dict(letter.headers)[names.DEAD_CUT]) == {"headers": 64 - kept}


def test_the_value_is_never_cut() -> None:
    large = Plain(b"k", b"v" * 1000, 7, (("h", b"x" * 50),))
    letter = make(large, DEATH, max_record_bytes=500)
    assert letter.value == large.value
    back = read(letter)
    assert back.record.headers == ()
    assert back.death.errors == ()
    assert (back.death.group, back.death.offset) == ("billing", 41)


def test_a_record_that_pretends_to_be_a_dead_letter() -> None:
    forged = Plain(
        b"", b"v", 7, ((names.DEAD_GROUP, b"other"), (names.DEAD_OFFSET, b"-1"), (names.DEAD_REDRIVES, b"9"))
    )
    back = read(make(forged, DEATH))
    assert back.death == DEATH
    assert back.redrives == 0
    assert back.record.headers == ()


def test_malformed_headers_are_left_out() -> None:
    for name, value in (
        (names.DEAD_OFFSET, b"-5"),
        (names.DEAD_OFFSET, b"1" * 40),
        (names.DEAD_OFFSET, "٣".encode()),
        (names.DEAD_ATTEMPTS, b"many"),
        (names.DEAD_ERRORS, b"{"),
        (names.DEAD_ERRORS, b'[["x", 1]]'),
        (names.DEAD_ERRORS, b"\xff"),
        (names.DEAD_GROUP, b"\xff\xfe"),
    ):
        back = read(Plain(b"", b"v", 7, ((name, value),)))
        assert back.death.offset == 0
        assert back.death.errors == ()
        assert back.record.headers == ()


def test_a_record_that_is_no_dead_letter_has_no_group() -> None:
    back = read(RECORD)
    assert back.death.group == ""
    assert back.record == RECORD


def test_a_redriven_record_says_where_it_was_first_and_for_whom_it_is() -> None:
    once = redriven(read(make(RECORD, DEATH)), for_group=True)
    assert (once.key, once.value, once.timestamp_us) == (b"k", b"value", 7)
    assert once.headers[:3] == RECORD.headers
    assert dict(once.headers[3:]) == {
        "holdfast-redrive-group": b"billing",
        "holdfast-redrive-topic": b"orders",
        "holdfast-redrive-partition": b"3",
        "holdfast-redrive-offset": b"41",
        "holdfast-redrive-append-us": str(T0).encode(),
        "holdfast-redrive-count": b"1",
    }
    again = Death(
        group="billing",
        topic="orders",
        partition=3,
        offset=99,
        append_time_us=T0 + 1000,
        attempts=5,
        first_failed_us=T0 + 2000,
    )
    letter = read(make(once, again))
    assert letter.redrives == 1
    assert letter.death.offset == 99, "a dead letter says which record died"
    twice = redriven(letter, for_group=True)
    held = dict(twice.headers[3:])
    assert held[names.REDRIVE_OFFSET] == b"41", "a redriven record which one it is at heart"
    assert held[names.REDRIVE_COUNT] == b"2"
    elsewhere = redriven(letter, for_group=False)
    assert names.REDRIVE_GROUP not in dict(elsewhere.headers)
    assert dead_letters.redrives_of(elsewhere.headers) == 2


def test_partitions() -> None:
    assert dead_letters.partition_of(Plain(b"k", b"", 0), 5, 4) == partition_for(b"k", 4)
    assert dead_letters.partition_of(Plain(b"", b"", 0), 5, 4) == 1


def test_an_append_of_dead_letters_passes_for_a_client_s() -> None:
    records = [Plain(b"k%d" % n, b"v%d" % n, 10 * n, (("h", b"%d" % n),)) for n in range(5)]
    op, batches = dead_letters.append_op(9, [(n % 2, record) for n, record in enumerate(records)])
    assert op.topic_id == 9
    assert [(each.partition, each.count, each.length) for each in op.batches] == [
        (0, 3, len(batches[0])),
        (1, 2, len(batches[1])),
    ]
    for facts, batch in zip(op.batches, batches, strict=True):
        checked = check_batch(batch)
        assert checked.count == facts.count
        assert checked.min_timestamp_us == facts.min_timestamp_us
        assert checked.max_timestamp_us == facts.max_timestamp_us
    decoded = decode_batch(batches[0])
    assert [dead_letters.column(decoded, at) for at in range(3)] == records[::2]


HEADER = st.tuples(st.text(max_size=30), st.binary(max_size=200))
RECORDS = st.builds(
    Plain,
    st.binary(max_size=20),
    st.binary(max_size=500),
    st.integers(-(1 << 62), 1 << 62),
    st.lists(HEADER, max_size=70).map(tuple),
)
DEATHS = st.builds(
    Death,
    group=st.text(min_size=1, max_size=20),
    topic=st.text(min_size=1, max_size=20),
    partition=st.integers(0, 1023),
    offset=st.integers(0, 1 << 62),
    append_time_us=st.integers(0, 1 << 62),
    attempts=st.integers(0, 1000),
    first_failed_us=st.integers(0, 1 << 62),
    generation=st.integers(0, 1 << 62),
    errors=st.lists(st.tuples(st.integers(0, 1 << 62), st.text(max_size=300)), max_size=8).map(tuple),
)


@given(RECORDS, DEATHS, st.integers(0, 20_000), st.integers(0, 20_000), st.integers(0, 70))
def test_whatever_dies_fits_and_is_told_truly(
    record: Plain, death: Death, max_record: int, max_headers_bytes: int, max_headers: int
) -> None:
    limits = BatchLimits(max_header_bytes=max_headers_bytes, max_headers=max_headers)
    letter = make(record, death, limits=limits, max_record_bytes=max_record)
    assert (letter.key, letter.value, letter.timestamp_us) == (record.key, record.value, record.timestamp_us)
    back = read(letter)
    for field in (
        "group",
        "topic",
        "partition",
        "offset",
        "append_time_us",
        "attempts",
        "first_failed_us",
        "generation",
    ):
        assert getattr(back.death, field) == getattr(death, field)
    lost = json.loads(dict(letter.headers).get(names.DEAD_CUT, b"{}"))
    own = [pair for pair in record.headers if not pair[0].startswith(names.DEAD)]
    assert len(own) - len(back.record.headers) == lost.get("headers", 0)
    assert len(death.errors[-5:]) - len(back.death.errors) == lost.get("errors", 0)
    if back.record.headers:
        assert len(letter.headers) <= max_headers
    if back.record.headers or back.death.errors:
        assert size(letter) <= max_headers_bytes
        assert letter.size <= (max_record or limits.max_record_bytes)
