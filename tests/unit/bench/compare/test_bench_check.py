"""``make bench-check``: ratios beside those recorded."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.compare import check
from benchmarks.compare.check import CHECKED, Bare, Line, Ratio
from benchmarks.compare.workloads import WORKLOADS


def _ratio(value: float) -> Ratio:
    return Ratio(value, value, value, 1.0)


@pytest.mark.parametrize(("now", "fell"), [(1.4, False), (0.71, False), (0.69, True)])
def test_a_ratio_may_fall_by_thirty_per_cent(now: float, fell: bool) -> None:
    (line,) = check.compare({"group": _ratio(now)}, {"group": _ratio(1.0)})
    assert line.fell is fell
    assert ("FELL" in str(line)) is fell


def test_a_figure_without_a_record_cannot_fall() -> None:
    line = Line("group", _ratio(0.1), None)
    assert not line.fell
    assert "not recorded" in str(line)


def test_a_ratio_is_the_median_of_the_turns() -> None:
    found = check.summary([{"group": (10.0, 1.0)}, {"group": (30.0, 5.0)}, {"group": (20.0, 2.0)}])
    assert found == {"group": Ratio(2.0, 1.0, 5.0, 20.0)}


def test_a_slower_machine_changes_no_ratio() -> None:
    fast = Bare(loop=1000, echo_ms=0.5, sync_ms=0.2, sync_megabytes=600)
    slow = Bare(loop=500, echo_ms=1.0, sync_ms=0.4, sync_megabytes=300)
    for checked in CHECKED:
        less_is_better = checked.figure == "p50"
        assert checked.ratio(10, fast) == pytest.approx(checked.ratio(20 if less_is_better else 5, slow))


def test_what_is_checked_is_there_in_time() -> None:
    names = [checked.workload for checked in CHECKED]
    for name in names:
        needs = WORKLOADS[name].needs
        assert needs is None or names.index(needs) < names.index(name)


def test_a_record_is_read_back(tmp_path: Path) -> None:
    check.write(tmp_path / "check.json", {"group": Ratio(1.23456, 1.0, 2.0, 123456.0)})
    assert check.read(tmp_path / "check.json") == {"group": Ratio(1.235, 1.0, 2.0, 123500.0)}


def test_what_is_no_record_is_refused(tmp_path: Path) -> None:
    (tmp_path / "check.json").write_text('{"group": 1}')
    with pytest.raises(ValueError, match=r"check\.json"):
        check.read(tmp_path / "check.json")


def test_without_a_record_there_is_nothing_to_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(check, "RECORDED", tmp_path / "none.json")
    assert check.main([]) == 2
    assert "none.json" in capsys.readouterr().err


def test_the_loop_counts_its_passes() -> None:
    assert check.loop(0.01) > 0
