"""The machine itself: totality, reset, digests."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.cluster.commands import encode_entry, encode_op
from holdfast.cluster.state.digest import read_digests
from holdfast.errors import StorageError, StorageFullError, UnknownTopicError
from holdfast.storage.memory_store import MemoryStore
from holdfast.storage.port import Table
from holdfast.v1 import log_pb2

from .group_kit import definition, put, seek
from .replica_kit import T0, Replica, append, commit, create, delete, trim
from .settle_kit import PARK, REJECT, flow, item, letter, restore, settle, sweep


def test_an_operation_of_a_later_version_is_an_error() -> None:
    replica = Replica()
    assert replica.refused(encode_op(log_pb2.Op()))[0] == "INVALID_ARGUMENT"
    unknown = b"\xfa\x06\x00"  # field 111
    assert log_pb2.Op.FromString(unknown).WhichOneof("op") is None
    framed = len(unknown).to_bytes(4, "big") + bytes(4) + unknown
    assert replica.refused(framed)[0] == "INVALID_ARGUMENT"


def test_an_empty_entry_gives_nothing() -> None:
    assert Replica().entry(encode_entry(T0, [])).results == []


@pytest.mark.parametrize(
    ("entry", "results"),
    [
        (b"", 1),
        (b"\x02" + encode_entry(T0, [create("a"), create("b")])[1:], 2),
        (encode_entry(T0, [create("a"), create("b")])[:-1], 2),
        (encode_entry(T0, [create("a")]) + b"x", 1),
        (encode_entry(T0, [])[:-4] + b"\xff\xff\xff\xff" + bytes(16), 2),
        (encode_entry(T0, [b"\x00\x00\x00\x01\x00\x00\x00\x00\xff"]), 1),
    ],
)
def test_an_entry_that_does_not_decode_is_an_error_for_each_operation(entry: bytes, results: int) -> None:
    replica = Replica()
    before = replica.dump()
    applied = replica.entry(entry)
    assert [each.error.reason for each in applied.results] == ["INTERNAL"] * results
    assert replica.dump() == before


def every_kind() -> bytes:
    """An entry that touches all there is."""
    dying = flow(retries=[item(2, REJECT, dead=True), item(1, PARK, delay_ms=5, error="why", lane=7)])
    return encode_entry(
        T0,
        [
            append(1, [(0, 1, 1)], producer=7),
            commit("g", (1, 0, 1)),
            put("g", definition("t", attempts=3, dead_letter_topic="dead")),
            settle("g", dying, flow(1, 1, offsets=[0, 2], floor=1), dead=[letter(2)]),
            restore("g", flow(runs=[1, 1]), discard=True),
            seek("g", (1, 1, 0)),
            trim(1, 0, 1),
            delete("t"),
            sweep(),
        ],
    )


@given(data=st.data())
def test_apply_is_total(data: st.DataObject) -> None:
    replica = Replica()
    replica.topic("t", 2)
    replica.topic("dead")
    replica.do(append(1, [(0, 3), (1, 3)], producer=7))
    replica.do(put("g", definition("t", attempts=3, dead_letter_topic="dead")))
    good = every_kind()
    damaged = bytearray(good)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    assert replica.entry(bytes(damaged)).results
    replica.do(create("another"))


def test_the_entry_that_is_damaged_is_sound() -> None:
    replica = Replica()
    replica.topic("t", 2)
    replica.topic("dead")
    replica.do(append(1, [(0, 3), (1, 3)]))
    replica.do(append(1, [(0, 1)], producer=7))
    assert [each.error.reason for each in replica.entry(every_kind()).results] == [""] * 9


def fill(replica: Replica) -> None:
    for _ in range(100):
        replica.do(append(1))


def test_errors_of_the_store_are_raised() -> None:
    replica = Replica(store=MemoryStore(map_size=2000))
    replica.topic()
    with pytest.raises(StorageFullError):
        fill(replica)


def test_a_missing_row_is_damage_not_a_result() -> None:
    replica = Replica()
    replica.topic()
    for key in list(replica.w.scan_keys(Table.PARTITIONS)):
        replica.w.delete(Table.PARTITIONS, key)
    with pytest.raises(StorageError, match="has no state"):
        replica.run(append(1))


def test_reset_forgets_what_an_aborted_transaction_said() -> None:
    replica = Replica()
    replica.store.commit()
    replica.topic("first")
    replica.do(append(1))
    replica.store.abort()
    replica.machine.reset()
    replica.topic("second", 2)
    assert replica.refused(append(1, [(5, 1)]))[1]["topic"] == "second"
    assert ack_base(replica) == 0


def ack_base(replica: Replica) -> int:
    return replica.do(append(1)).append.acks[0].base_offset


def test_digests_follow_content_and_order() -> None:
    a, b, c = Replica(), Replica(), Replica()
    for replica in (a, b, c):
        replica.topic("t", 2)
        replica.do(append(1, [(0, 2)], fill=b"x"))
    assert a.digests() == b.digests() == c.digests()
    a.run(append(1, [(0, 1)], fill=b"1"), append(1, [(0, 1)], fill=b"2"))
    b.run(append(1, [(0, 1)], fill=b"1"), append(1, [(0, 1)], fill=b"2"))
    c.run(append(1, [(0, 1)], fill=b"2"), append(1, [(0, 1)], fill=b"1"))
    assert a.digests() == b.digests()
    assert a.digests()[0] != c.digests()[0]
    assert a.digests()[1] == c.digests()[1]
    a.do(trim(1, 0, 2))
    digests = read_digests(a.w, "t")
    assert (digests[0].start_offset, digests[0].end_offset) == (2, 4)
    assert digests[0].digest == read_digests(b.w, "t")[0].digest


def test_digests_of_topics() -> None:
    replica = Replica()
    replica.topic("b", 2)
    replica.topic("a", 1)
    assert [each[:2] for each in replica.digests()] == [("a", 0), ("b", 0), ("b", 1)]
    assert [each.topic for each in read_digests(replica.w, "b")] == ["b", "b"]
    with pytest.raises(UnknownTopicError):
        read_digests(replica.w, "c")
