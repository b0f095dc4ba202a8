"""The arithmetic, the table and the command line of ``make bench-growth``; no brokers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import holdfast
from benchmarks.growth import command, report, scale, silence
from benchmarks.growth.bursts import Burst, Load
from benchmarks.growth.findings import at_most, no_longer_than, not_measured, share, table
from benchmarks.growth.offsets import Offsets
from holdfast import BatchAck

from ..machine import MACHINE


def _ack(partition: int, offset: int, count: int) -> BatchAck:
    return BatchAck("t", partition, offset, count)


@pytest.mark.parametrize(("ours", "met"), [([95.0, 10.0, 99.0], True), ([94.9, 94.9, 200.0], False)])
def test_a_share_is_of_medians_and_tells_its_pairs(ours: list[float], met: bool) -> None:
    found = share("x", 0.95, ours, [100.0, 100.0, 100.0], "MB/s")
    assert found.met is met
    assert found.goal == "≥ 95%"
    assert f"pairs {min(ours):.0f}% … {max(ours):.0f}%" in found.here
    assert found.figures["ours"] == ours


@pytest.mark.parametrize(("ours", "base"), [([], []), ([1.0], [1.0, 2.0])])
def test_a_share_of_what_are_no_pairs_is_refused(ours: list[float], base: list[float]) -> None:
    with pytest.raises(ValueError, match="no pairs"):
        share("x", 0.9, ours, base, "MB/s")


@pytest.mark.parametrize(("ours", "met"), [([0.9, 1.5, 9.0], True), ([1.6, 1.6, 0.1], False)])
def test_a_restart_may_take_so_much_longer_and_no_more(ours: list[float], met: bool) -> None:
    found = no_longer_than("x", 0.5, ours, [1.0, 1.0, 8.0])
    assert found.met is met
    assert found.goal == "≤ 0.5 s more"


def test_a_faster_restart_is_no_longer() -> None:
    assert "(-0.50 s)" in no_longer_than("x", 0.5, [0.5], [1.0]).here


@pytest.mark.parametrize(("worst", "met"), [(1.5, True), (1.51, False)])
def test_of_cuts_the_worst_counts(worst: float, met: bool) -> None:
    found = at_most("x", 1.5, [0.5, worst, 0.6], [0.1, 0.1, 0.1])
    assert found.met is met
    assert "median 0.60 s" in found.here
    assert found.goal == "≤ 1.5 s, also the worst of 3"


def test_nothing_measured_is_no_success() -> None:
    with pytest.raises(ValueError, match="nothing"):
        at_most("x", 1.5, [], [])
    with pytest.raises(ValueError, match="nothing"):
        no_longer_than("x", 0.5, [], [1.0])


def test_the_table_names_what_is_met_and_what_is_not() -> None:
    lines = table(
        [
            share("one", 0.9, [1.0], [1.0], "MB/s"),
            share("two", 0.9, [1.0], [2.0], "MB/s"),
            not_measured("three", "≤ 1 s", "skipped: a | b\nc"),
        ]
    )
    assert [line.split(" | ")[-1] for line in lines[2:]] == ["met |", "**NOT MET** |", "- |"]
    assert lines[4] == "| three | ≤ 1 s | skipped: a \\| b c | - |"


def test_offsets_follow_each_other_in_every_partition() -> None:
    offsets = Offsets(3)
    offsets.take([_ack(1, 0, 2), _ack(0, 5, 1), _ack(0, 0, 5)], 8)
    offsets.take([_ack(0, 6, 4)], 4)
    assert (offsets.records, offsets.used) == (12, 2)
    assert offsets.differing({0: 10, 1: 2, 2: 0}) == ""
    assert offsets.differing({0: 10, 1: 3, 2: 0}) == "partition 1 ends at 3, not 2"
    assert offsets.differing({}) == "partition 0 ends at None, not 10 and 2 more"


@pytest.mark.parametrize(
    ("acks", "why"),
    [
        ([_ack(0, 0, 2), _ack(0, 3, 1)], "was to go on at 2"),  # a hole
        ([_ack(0, 0, 2), _ack(0, 1, 1)], "was to go on at 2"),  # a place given twice
        ([_ack(0, 0, 2)], "2 of 3 records"),
    ],
)
def test_wrong_acknowledgements_are_refused(acks: list[BatchAck], why: str) -> None:
    with pytest.raises(RuntimeError, match=why):
        Offsets(1).take(acks, 3)


def test_a_burst_in_figures() -> None:
    burst = Burst(records=1000, payload_bytes=1_024_000, acks=4, seconds=0.5)
    assert (burst.rate, burst.megabytes, burst.per_ack) == (2000.0, 2.048, 250.0)


def test_calls_make_about_so_many_bytes() -> None:
    load = Load(holdfast.connect("127.0.0.1:1"), "t", 1, [b"x" * 100] * 10)
    assert [load.calls(size) for size in (1, 1400, 1600, 10_000)] == [1, 1, 2, 10]
    load.offsets.take([_ack(0, 0, 20)], 20)
    assert load.payload_bytes == 2000


def test_room_is_for_all_copies() -> None:
    assert scale.lacking_room(scale.FULL, int(scale.FULL.disk) + 1) == ""
    assert scale.FULL.disk > 3 * 8e9
    assert "10.0 GB are missing" in scale.lacking_room(scale.FULL, int(scale.FULL.disk - 10e9))


def test_the_size_of_the_log_can_be_said() -> None:
    assert (scale.of(False, None), scale.of(True, None)) == (scale.FULL, scale.QUICK)
    assert scale.of(False, 2.5).large == 2.5e9


@pytest.mark.parametrize(
    "arguments",
    [
        ["--only", "nosuch"],
        ["--gigabytes", "0"],
        ["--gigabytes", "nan"],
        ["--directory", "/no/such/folder"],
        ["--write", "--quick"],
        ["--write", "--only", "log"],
    ],
)
def test_what_makes_no_sense_is_refused(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command.parse(arguments)
    assert ended.value.code == 2


def test_sections_keep_their_order() -> None:
    assert command.parse([]).only == list(command.SECTIONS)
    assert command.parse(["--only", "silent", "--only", "log"]).only == ["log", "silent"]


def test_too_little_room_is_told_before_anything_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["--gigabytes", "1e9", "--directory", str(tmp_path)]) == 2
    assert "GB are missing" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


async def test_without_namespaces_the_cut_is_skipped_aloud(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(silence, "lacking", lambda: "network namespaces need root")
    said: list[str] = []
    (found,) = await silence.findings(tmp_path, scale.QUICK, said.append)
    assert found.met is None
    assert said == ["silent: SKIPPED: network namespaces need root"]


async def test_a_section_that_fails_does_not_end_the_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def broken(*_: object) -> None:
        raise RuntimeError("no room")

    async def whole(*_: object) -> list[object]:
        return [share("x", 0.9, [1.0], [1.0], "MB/s")]

    monkeypatch.setattr(command.partitions, "findings", broken)
    monkeypatch.setattr(command.silence, "findings", whole)
    options = command.parse(["--only", "partitions", "--only", "silent", "--directory", str(tmp_path)])
    found, failed = await command.run(options, lambda _: None)
    assert failed == ["partitions"]
    assert (found[0].here, found[0].met) == ("failed: RuntimeError: no room", None)
    assert found[1].met
    assert list(tmp_path.iterdir()) == []


def test_the_report_stands_between_its_markers() -> None:
    old = f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n"
    assert report.embedded(old, "new\n") == f"before\n{report.BEGIN}\nnew\n{report.END}\nafter\n"
    with pytest.raises(ValueError, match="needs one line"):
        report.embedded("nothing", "new")


def test_the_readme_has_the_markers() -> None:
    readme = (Path(command.__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    assert "text" in report.embedded(readme, "text")


def test_every_figure_is_kept(tmp_path: Path) -> None:
    found = [share("one", 0.9, [1.0, 3.0], [1.0, 2.0], "MB/s")]
    report.write_json(tmp_path / "growth.json", MACHINE, 12.34, found)
    kept = json.loads((tmp_path / "growth.json").read_text())
    assert kept["took"] == 12.3
    assert kept["findings"][0]["figures"]["ours"] == [1.0, 3.0]
    assert "2 cores" in report.text(MACHINE, found)
