"""The demo's checker finds what it is there to find: one planted fault per test."""

from collections.abc import Callable

import pytest

from holdfast.chaos.demo.flights import Departure
from holdfast.chaos.demo.verify import Replayed, Verdict

TABLE = [Departure(b"N%d" % (i % 3), b'{"row":%d}' % i, 1000 + i) for i in range(12)]
#: Row i lies in partition i % 3 (its key's) at offset i // 3.
ACKED = {(i % 3, i // 3): i for i in range(12)}

Row = tuple[int, int, bytes, bytes, int]


def clean_replay() -> list[Row]:
    return [(p, o, TABLE[i].key, TABLE[i].value, TABLE[i].timestamp_us) for (p, o), i in ACKED.items()]


def judge(rows: list[Row], acked: dict[tuple[int, int], int] | None = None) -> Verdict:
    replayed = Replayed(TABLE, ACKED if acked is None else acked)
    for row in rows:
        replayed.add(*row)
    return replayed.finish()


def test_a_true_replay_is_clean() -> None:
    verdict = judge(clean_replay())
    assert verdict.clean
    assert (verdict.acked, verdict.replayed) == (12, 12)


def test_a_missing_record_is_lost() -> None:
    verdict = judge(clean_replay()[:-1])
    assert verdict.lost == 1
    assert not verdict.clean


def test_a_gap_in_the_offsets_is_a_problem() -> None:
    verdict = judge(clean_replay()[1:])
    assert "offset 1 where 0 was due" in verdict.problems[0]


def test_a_record_that_nobody_was_acknowledged_is_a_duplicate() -> None:
    verdict = judge([*clean_replay(), (0, 4, TABLE[0].key, TABLE[0].value, TABLE[0].timestamp_us)])
    assert verdict.duplicated == 1


def test_a_row_acknowledged_at_two_places_is_a_duplicate() -> None:
    acked = {**ACKED, (0, 4): 9}
    verdict = judge([*clean_replay(), (0, 4, TABLE[9].key, TABLE[9].value, TABLE[9].timestamp_us)], acked)
    assert verdict.duplicated == 1


@pytest.mark.parametrize(
    "damage",
    [
        lambda r: (r[0], r[1], b"other", r[3], r[4]),
        lambda r: (r[0], r[1], r[2], r[3] + b" ", r[4]),
        lambda r: (r[0], r[1], r[2], r[3], r[4] + 1),
    ],
)
def test_key_value_and_time_must_be_the_tables(damage: Callable[[Row], Row]) -> None:
    rows = clean_replay()
    verdict = judge([damage(rows[0]), *rows[1:]])
    assert verdict.damaged == 1
    assert not verdict.clean


def test_records_of_a_key_that_changed_places_are_out_of_order() -> None:
    swapped = {**ACKED, (0, 0): ACKED[(0, 1)], (0, 1): ACKED[(0, 0)]}
    rows = [(p, o, TABLE[i].key, TABLE[i].value, TABLE[i].timestamp_us) for (p, o), i in swapped.items()]
    verdict = judge(rows, swapped)
    assert verdict.out_of_order == 1
    assert verdict.lost == 0
