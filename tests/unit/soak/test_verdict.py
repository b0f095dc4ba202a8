"""The last line of a soak, and when all is well."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

from holdfast.chaos.soak.__main__ import Soak, verdict
from holdfast.chaos.soak.ledger import Ledger
from holdfast.chaos.soak.returns import Return
from holdfast.chaos.soak.watch import Watch

from .test_watch import watch


def soak(seen: Watch, published: int = 1000) -> Soak:
    for wiped, by in ((False, "log"), (True, "snapshot")):
        seen.returns.append(Return("n3", 100.0, 10.0, wiped, by, 50, 0.5))
    load = SimpleNamespace(ledger=Ledger(), published=published, unknown=0, short_lived=3, longest_gap=0.1)
    return cast(Soak, SimpleNamespace(watch=seen, load=load, problems=[], seconds=1800.0, own_cpu=0.1))


def test_a_steady_run_is_well() -> None:
    line, _, well = verdict(soak(watch()))
    assert well
    assert line.startswith("soak: minutes=30 published=1000 lost=0 duplicated=0 ")
    assert line.endswith(" flat=yes")


def test_a_run_that_shows_nothing_is_not() -> None:
    assert not verdict(soak(watch(), published=0))[2]
    seen = watch()
    # Each of them was killed once: what is left of the judged series is the client's own.
    seen.restarted.update(seen.nodes)
    _, notes, well = verdict(soak(seen))
    assert not well
    assert any("no broker ran all the time" in note for note in notes)


def test_what_is_acknowledged_and_not_delivered_is_lost() -> None:
    run = soak(watch())
    run.load.ledger.note_ack(7, 0, 0)
    line, _, well = verdict(run)
    assert not well
    assert " lost=1 " in line
