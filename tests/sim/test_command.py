"""`make sim` as a user runs it: its last line, its exit status, and what it says about a failure."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from holdfast.chaos.sim.__main__ import main
from holdfast.chaos.sim.plan import make_plan
from holdfast.chaos.sim.planfile import from_line, to_line
from holdfast.chaos.sim.sabotage import SABOTAGES
from holdfast.chaos.sim.seeds import run_plan

ROOT = Path(__file__).resolve().parents[2]
LAST = re.compile(r"sim: seeds=(\d+) violations=(\d+) virtual_s=\d+ real_s=\d+\.\d")
#: Without it any outage brings duplicates, so that it is found within a few seeds.
BUG = "dedup_off"


def last_line(printed: str) -> tuple[int, int]:
    """Seeds and violations."""
    found = LAST.fullmatch(printed.splitlines()[-1])
    assert found, printed
    return int(found[1]), int(found[2])


def test_seeds_that_pass(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seeds", "2", "--seed", "3"]) == 0
    assert last_line(capsys.readouterr().out) == (2, 0)


def test_a_single_seed_gives_its_trace_and_its_timeline(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seed", "3", "--timeline"]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"^seed 3: trace=[0-9a-f]{8} .*publish=\d+", printed)
    assert re.search(r"^ *\d+\.\d+ s  role +n\d leader in term 1$", printed, re.MULTILINE)
    assert re.search(r"^ *\d+\.\d+ s  calm ", printed, re.MULTILINE)
    assert last_line(printed) == (1, 0)


def test_a_failing_seed_is_told_with_its_commit_and_how_to_repeat_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--seeds", "100", "--sabotage", BUG, "--no-shrink"]) == 1
    printed = capsys.readouterr().out
    seeds, violations = last_line(printed)
    assert violations > 0
    # A retry that is stored again is a second record, or one behind its successors.
    said = "(?:duplicate-record|producer-order)"
    failed = re.search(rf"^seed (\d+) of (.+) breaks: {said}(?:, [a-z-]+)*$", printed, re.MULTILINE)
    assert failed, printed
    assert seeds == int(failed[1])
    if (ROOT / ".git").exists():
        assert re.fullmatch(r"commit [0-9a-f]{7,}( with changes)?", failed[2])
    assert re.search(rf"^  {said}: '?p\d", printed, re.MULTILINE)
    assert str(make_plan(seeds)) in printed
    assert re.search(r"^ *\d+\.\d+ s  role +n\d leader in term 1$", printed, re.MULTILINE)
    assert f"repeat with: make sim SEED={seeds} SABOTAGE={BUG}" in printed
    assert to_line(make_plan(seeds)) in printed.splitlines()


def test_a_failing_plan_is_made_small_and_what_is_left_can_be_run(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "plans"
    plans = [make_plan(seed, kinds=("isolate", "slow_disk"), nodes=3, settings=1) for seed in range(1, 50)]
    file.write_text("".join(f"{to_line(plan)}\n" for plan in plans))
    assert main(["--plan", str(file), "--sabotage", BUG]) == 1
    printed = capsys.readouterr().out
    assert last_line(printed)[1] > 0

    line = next(line for line in printed.splitlines() if line.startswith("{"))
    small = from_line(line)
    assert str(small) in printed
    assert small.faults
    # No fault is left that is not needed.
    for place in range(len(small.faults)):
        assert not run_plan(small.without({place}), BUG).violations

    file.write_text(f"# found\n{line}\n")
    assert main(["--plan", str(file), "--sabotage", BUG]) == 1
    again = capsys.readouterr().out
    assert "breaks: duplicate-record" in again
    assert "SEED=" not in again, "what the seed draws is something else"
    assert main(["--plan", str(file)]) == 0
    assert last_line(capsys.readouterr().out) == (1, 0)


def test_what_cannot_be_run_is_said(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["--sabotage", "no_such_bug"]) == 2
    assert "no planted bug 'no_such_bug'" in capsys.readouterr().err
    assert main(["--plan", str(tmp_path / "missing")]) == 2
    assert "cannot read plans" in capsys.readouterr().err
    (tmp_path / "plan").write_text("\n{}\n")
    assert main(["--plan", str(tmp_path / "plan")]) == 2
    assert "line 2: not a plan" in capsys.readouterr().err


def test_names_of_planted_bugs_one_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    assert capsys.readouterr().out.splitlines() == list(SABOTAGES)


def test_a_seed_gives_the_same_trace_in_every_process() -> None:
    """Also where hashes of strings differ."""
    printed = []
    for hash_seed in ("0", "1"):
        done = subprocess.run(
            [sys.executable, "-m", "holdfast.chaos.sim", "--seed", "1075"],
            cwd=ROOT,
            env=os.environ | {"PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            timeout=100,
            check=True,
        )
        assert done.stderr == ""
        printed.append(done.stdout.splitlines()[0])
    assert printed[0] == printed[1]
    outcome = run_plan(make_plan(1075))
    assert printed[0].startswith(f"seed 1075: trace={outcome.trace:08x} ")


def test_seeds_run_in_processes() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "holdfast.chaos.sim", "--seeds", "3", "--jobs", "2"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    assert last_line(done.stdout) == (3, 0)
