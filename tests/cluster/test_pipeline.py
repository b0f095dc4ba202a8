"""The pipeline of the drill ``exactly-once``, small: real brokers, consumers and kills; and its judge."""

from __future__ import annotations

import csv
import io
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.chaos import postgres
from holdfast.chaos.demo.flights import Departure, load
from holdfast.chaos.drills.__main__ import main
from holdfast.chaos.pipeline import rows
from holdfast.chaos.pipeline.judge import judge
from holdfast.testing import embedded

pytestmark = pytest.mark.timeout(240)

_LINE = (
    r"drill {name}: acked=\d+ lost=0 duplicated=0 unknown=\d+ recovery_ms=\d+ orders=1000 payments=999 "
    r"ledger=999 dead=1 effects_lost=0 effects_duplicated=0 out_of_order=0 kills=\d+"
)


@pytest.mark.parametrize("name", ["exactly-once", "exactly-once-postgres"])
def test_every_effect_is_there_once(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if name.endswith("postgres") and postgres.find() is None:
        pytest.skip(postgres.MISSING)
    monkeypatch.setenv("DRILL_ROWS", "1000")
    monkeypatch.setenv("DRILL_SECONDS", "8")
    assert main([name, "--report-dir", str(tmp_path)]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert re.fullmatch(_LINE.replace("{name}", name), line), line


@pytest.fixture(scope="module", autouse=True)
def table(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A thousand flights of forty planes: the real table is fetched by who runs the drill."""
    text = io.StringIO()
    columns = ("time_hour", "tailnum", "carrier", "distance", "air_time")
    lines = csv.DictWriter(text, columns)
    lines.writeheader()
    for number in range(1000):
        lines.writerow(
            {
                "time_hour": f"2013-01-{1 + number // 100:02}T05:00:00Z",
                "tailnum": f"N{number % 41}" if number % 41 else "NA",
                "carrier": "UA",
                "distance": 100 + number % 7,
                "air_time": "NA" if number % 97 == 0 else 30 + number % 50,
            }
        )
    path = tmp_path_factory.mktemp("flights") / "flights.csv.zip"
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr("flights.csv", text.getvalue())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLIGHTS_TABLE", str(path))
        yield path


@pytest.fixture(scope="module")
def departures(table: Path) -> list[Departure]:
    return load(table)[:900]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        ("nothing", ""),
        ("payment lost", "payments: 1 are missing"),
        ("payment twice", "payments: 1 too many"),
        ("ledger wrong", "where the table adds up to"),
        ("order turned", "behind row"),
        ("dead letter missing", "dead letters of rows"),
    ],
)
async def test_the_judge_sees(departures: list[Departure], tmp_path: Path, spoil: str, said: str) -> None:
    payments = [
        rows.payment_of(rows.order(n, departure.value))
        for n, departure in enumerate(departures)
        if not rows.is_garbled(n)
    ]
    if spoil == "order turned":
        tail = next(p.tail for p in payments if p.tail and sum(q.tail == p.tail for q in payments) > 1)
        first, second = [n for n, p in enumerate(payments) if p.tail == tail][:2]
        payments[first], payments[second] = payments[second], payments[first]
    totals: dict[str, rows.Totals] = {}
    async with embedded(tmp_path / "data") as bus:
        for topic in (rows.ORDERS, rows.PAYMENTS, rows.LEDGER, rows.DEAD):
            await bus.create_topic(topic, partitions=1)
        for number, departure in enumerate(departures):
            bus.send(rows.ORDERS, rows.order(number, departure.value))
        for at, payment in enumerate(payments):
            before = totals.get(payment.tail, rows.Totals())
            totals[payment.tail] = before.and_(payment)
            if spoil == "ledger wrong" and at == len(payments) - 1:
                totals[payment.tail] = before
            if not (spoil == "payment lost" and at == 7):
                bus.send(rows.PAYMENTS, rows.encode(payment), key=rows.key_of(payment))
            if spoil == "payment twice" and at == 7:
                bus.send(rows.PAYMENTS, rows.encode(payment), key=rows.key_of(payment))
            bus.send(rows.LEDGER, rows.entry_of(payment, totals[payment.tail]), key=rows.key_of(payment))
        if spoil != "dead letter missing":
            dead = next(rows.order(n, d.value) for n, d in enumerate(departures) if rows.is_garbled(n))
            headers = [("holdfast-dead-errors", b'[[1,"order 777: does not parse"]]')]
            bus.send(rows.DEAD, dead, headers=headers)
        await bus.flush()
        found = await judge(bus, departures)
    assert any(said in problem for problem in found.problems) if said else found.problems == []
