"""The soak's bookkeeping finds what it is for, and forgets what is settled."""

from holdfast.chaos.soak.ledger import Ledger


def settled(count: int) -> Ledger:
    ledger = Ledger()
    for offset in range(count):
        ledger.note_ack(offset, 0, offset)
        ledger.note_delivery(offset, 0, offset)
    return ledger


def test_nothing_is_remembered_of_what_is_settled() -> None:
    ledger = settled(1000)
    assert (ledger.acked, ledger.delivered, ledger.remembered) == (1000, 1000, 0)
    assert (ledger.lost, ledger.duplicated, ledger.problems) == (0, 0, [])


def test_deliveries_may_come_before_the_acknowledgement_and_out_of_order() -> None:
    ledger = Ledger()
    for offset in (2, 0, 1):
        ledger.note_delivery(10 + offset, 3, offset)
    for offset in (1, 2, 0):
        ledger.note_ack(10 + offset, 3, offset)
    assert (ledger.lost, ledger.duplicated, ledger.remembered) == (0, 0, 0)


def test_an_acknowledged_record_that_is_never_delivered_is_lost() -> None:
    ledger = settled(3)
    ledger.note_ack(7, 0, 3)
    assert (ledger.lost, ledger.duplicated) == (1, 0)


def test_a_record_at_a_second_place_is_a_duplicate() -> None:
    ledger = settled(3)
    ledger.note_delivery(2, 0, 3)
    assert (ledger.lost, ledger.duplicated) == (0, 1)


def test_two_acknowledgements_of_one_place_are_a_duplicate() -> None:
    ledger = settled(3)
    ledger.note_ack(9, 0, 1)
    assert ledger.duplicated == 1
    assert ledger.problems


def test_another_record_than_the_acknowledged_one_is_found() -> None:
    ledger = Ledger()
    ledger.note_ack(1, 0, 0)
    ledger.note_delivery(2, 0, 0)
    assert ledger.duplicated == 1
    assert ledger.problems


def test_coming_again_after_a_reconnect_is_no_duplicate() -> None:
    ledger = settled(3)
    ledger.note_delivery(1, 0, 1)
    ledger.note_delivery(9, 0, 5)
    ledger.note_delivery(9, 0, 5)
    assert ledger.redelivered == 2
    assert ledger.delivered == 4


def test_an_unknown_outcome_explains_one_place() -> None:
    ledger = settled(3)
    ledger.note_unknown(8)
    ledger.note_delivery(8, 0, 3)
    assert ledger.duplicated == 0
    ledger.note_delivery(8, 0, 4)
    assert ledger.duplicated == 1
