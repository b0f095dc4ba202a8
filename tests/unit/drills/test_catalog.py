"""Every drill that was promised is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from holdfast.chaos.drills.__main__ import command, main
from holdfast.chaos.drills.catalog import DRILLS, ORDER
from holdfast.chaos.drills.compose import ComposeTarget
from holdfast.chaos.drills.scene import Drill
from holdfast.chaos.drills.target import LocalTarget

PROMISED = (
    "leader-kill", "follower-kill", "rolling-restart", "pause-leader", "partition-majority",
    "partition-one-way", "partition-bridge", "slow-network", "slow-disk", "full-disk", "clock-skew",
    "slow-consumer", "wiped-node", "power-loss-one", "power-loss-all", "bit-flip", "exactly-once",
    "exactly-once-postgres",
)  # fmt: skip


def test_every_promised_drill_exists() -> None:
    assert set(PROMISED) <= set(DRILLS)


def test_each_says_what_it_is() -> None:
    for name, kind in DRILLS.items():
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", name)
        assert kind.name == name
        assert 10 < len(kind.summary) < 120, name
        assert kind.run is not Drill.run, name


def test_the_order_names_only_drills_there_are() -> None:
    assert set(ORDER) <= set(DRILLS)
    assert list(DRILLS)[: len(ORDER)] == list(ORDER)


def test_the_list_names_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(DRILLS)


def test_an_unknown_drill_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["no-such-drill"]) == 2
    assert "leader-kill" in capsys.readouterr().err


def test_what_a_target_cannot_do_is_said_aloud(tmp_path: Path) -> None:
    class Impossible(Drill):
        name = ""  # not for the catalogue
        needs = frozenset({"kill", "time-travel"})

    assert Impossible().unable(LocalTarget(tmp_path)) == "target local lacks here: time-travel"


def test_the_command_to_repeat_names_target_and_seed() -> None:
    assert command("kill-all", "local", 7) == "make drill NAME=kill-all SEED=7"
    assert command("kill-all", "compose", 0) == "make drill NAME=kill-all SEED=0 TARGET=compose"


def test_containers_keep_their_data_here_and_tell_clients_what_they_can_reach(tmp_path: Path) -> None:
    target = ComposeTarget(tmp_path, settings={"HOLDFAST_QUOTA_BYTES": "1"})
    target.place("n2", tmp_path / "elsewhere")
    services = target.override()["services"]
    assert isinstance(services, dict)
    assert services["n1"]["volumes"] == [f"{tmp_path / 'n1'}:/data"]
    assert services["n2"]["volumes"] == [f"{tmp_path / 'elsewhere'}:/data"]
    environment = services["n3"]["environment"]
    assert environment["HOLDFAST_QUOTA_BYTES"] == "1"
    for node, address in target.endpoints.items():
        assert f"{node}={address}/{node}:7451" in environment["HOLDFAST_MEMBERS"].split(",")
