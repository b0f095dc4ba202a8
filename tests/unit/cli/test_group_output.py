"""How groups and records that wait are shown."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from holdfast.cli.group_output import print_retries, show
from holdfast.client.groups import (
    GroupDefinition,
    GroupInfo,
    GroupMember,
    GroupPartition,
    RetryingRecord,
)
from holdfast.client.retry import Retry

AT = datetime(2026, 11, 23, 12, tzinfo=UTC)

WAITING = RetryingRecord(
    "orders", 0, 7, 2, 1, False, AT + timedelta(minutes=1), AT, ((AT, "ValueError: no price"), (AT, "again"))
)
PARKED = RetryingRecord("orders", 1, 12345, 1, 0, True, None, AT, ((AT, "asked for a person"),))
RESTING = RetryingRecord("orders", 1, 12346, 1, 0, True, AT, AT)

GROUP = GroupInfo(
    "billing",
    GroupDefinition(
        topics=("orders",),
        patterns=("eu.*",),
        semantics="at_least_once",
        ordering="partition",
        retry=Retry(attempts=0, initial=1.0, maximum=60.0, multiplier=2.0, jitter=0.1),
        ack_timeout=30.0,
        dead_letter="",
    ),
    812,
    True,
    AT,
    (GroupMember("m-1", "worker", True, 30.0, AT), GroupMember("m-2", "", False, 1.5, AT)),
    (GroupPartition("orders", 0, 1000, 3, 2, "m-1", 812), GroupPartition("orders", 1, 0, 0, 0, "", 0)),
)


def test_records_that_wait(capsys: pytest.CaptureFixture[str]) -> None:
    print_retries([WAITING, PARKED, RESTING], as_json=False)
    assert capsys.readouterr().out.splitlines() == [
        "TOPIC   PARTITION  OFFSET  ATTEMPTS  STATE                              LAST ERROR",
        "orders          0       7         2  due 2026-11-23T12:01:00Z           again",
        "orders          1  12,345         1  parked                             asked for a person",
        "orders          1  12,346         1  parked until 2026-11-23T12:00:00Z",
    ]


def test_records_that_wait_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    print_retries([WAITING, PARKED], as_json=True)
    first, second = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert first == {
        "topic": "orders",
        "partition": 0,
        "offset": 7,
        "attempts": 2,
        "losses": 1,
        "parked": False,
        "due_at": "2026-11-23T12:01:00Z",
        "first_failed_at": "2026-11-23T12:00:00Z",
        "errors": [
            {"at": "2026-11-23T12:00:00Z", "error": "ValueError: no price"},
            {"at": "2026-11-23T12:00:00Z", "error": "again"},
        ],
    }
    assert (second["parked"], second["due_at"]) == (True, None)


def test_a_group_with_members(capsys: pytest.CaptureFixture[str]) -> None:
    show(GROUP, as_json=False)
    assert capsys.readouterr().out.splitlines() == [
        "billing: reads orders, eu.*; at-least-once, ordering partition; failed records are tried again "
        "after 1s to 1m, without end; silent members give up after 30s; made by a subscription",
        "MEMBER  NAME    KIND     GRACE   JOINED",
        "m-1     worker  static   30s     2026-11-23T12:00:00Z",
        "m-2             dynamic  1500ms  2026-11-23T12:00:00Z",
        "TOPIC   PARTITION  FLOOR  SETTLED ABOVE  RETRYING  OWNER",
        "orders          0  1,000              3         2  m-1",
        "orders          1      0              0         0",
    ]


def test_a_group_that_was_never_defined(capsys: pytest.CaptureFixture[str]) -> None:
    show(GroupInfo("old", None, 0, True, AT), as_json=False)
    assert capsys.readouterr().out == "old: not defined; it holds the positions of subscriptions\n"


def test_a_group_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    show(GROUP, as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert found["members"][0] == {
        "id": "m-1",
        "name": "worker",
        "static": True,
        "grace_ms": 30_000,
        "joined_at": "2026-11-23T12:00:00Z",
    }
    assert found["partitions"][1] == {
        "topic": "orders",
        "partition": 1,
        "floor": 0,
        "settled_above": 0,
        "retrying": 0,
        "owner": None,
        "fence": 0,
    }
    assert (found["generation"], found["implicit"]) == (812, True)


def test_errors_of_handlers_do_not_command_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    hostile = RetryingRecord("orders", 0, 7, 2, 1, False, AT, AT, ((AT, "\x1b[31mred\nline"),))
    print_retries([hostile], as_json=False)
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert len(printed.splitlines()) == 2
