"""``holdfast group`` against a running broker, as a user's shell runs it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from .conftest import Holdfast


def _json(holdfast: Holdfast, *arguments: str) -> Any:
    return json.loads(holdfast("group", *arguments, "--json").stdout)


def test_a_group_from_birth_to_death(holdfast: Holdfast) -> None:
    assert "make one: holdfast group create NAME" in holdfast("group", "list").stderr
    holdfast("topic", "create", "orders", "-p", "2")
    holdfast("topic", "create", "orders.dead")
    holdfast("publish", "orders", "a", "b", "c", "--key", "k")
    options = [
        *("--topic", "orders", "--ordering", "key", "--semantics", "exactly-once", "--attempts", "5"),
        *("--backoff", "1s..60s", "--dead-letter", "orders.dead", "--ack-timeout", "30s"),
    ]
    made = _json(holdfast, "create", "billing", *options)
    assert made["definition"] == {
        "topics": ["orders"],
        "patterns": [],
        "semantics": "exactly-once",
        "ordering": "key",
        "attempts": 5,
        "initial_ms": 1_000,
        "maximum_ms": 60_000,
        "multiplier": 2.0,
        "jitter": 0.1,
        "dead_letter": "orders.dead",
        "ack_timeout_ms": 30_000,
        "max_lease_ms": 0,
        "start": "earliest",
        "max_unacked": 50_000,
        "max_retrying": 4_096,
    }
    assert (made["name"], made["implicit"]) == ("billing", False)
    assert _json(holdfast, "create", "billing", *options) == made, "one that is just the same is fine"
    assert "GROUP_CONFLICT" in holdfast("group", "create", "billing", "-t", "orders", status=1).stderr

    changed = _json(holdfast, "update", "billing", "--attempts", "7", "--start", "2013-07-04T12:00:00Z")
    assert changed["definition"] == made["definition"] | {"attempts": 7, "start": "2013-07-04T12:00:00Z"}
    assert changed["generation"] > made["generation"]
    loose = _json(holdfast, "update", "billing", "--attempts", "0", "--dead-letter", "none")
    assert loose["definition"]["dead_letter"] is None

    assert "--yes" in holdfast("group", "delete", "billing", status=2).stderr
    assert _json(holdfast, "list")["groups"] == [loose]
    assert _json(holdfast, "delete", "billing", "--yes") == {"deleted": "billing"}
    assert "UNKNOWN_GROUP" in holdfast("group", "describe", "billing", status=1).stderr
    assert _json(holdfast, "list") == {"groups": []}


def test_what_people_see(holdfast: Holdfast) -> None:
    holdfast("topic", "create", "shop")
    holdfast("topic", "create", "shop.dead")
    holdfast("publish", "shop", *"abcde")
    holdfast(
        *("group", "create", "slow", "-t", "shop", "--ordering", "key", "--attempts", "3"),
        *("--backoff", "500ms..2m", "--dead-letter", "shop.dead"),
    )
    holdfast("group", "create", "watch", "--pattern", "sh?p", "--ack-timeout", "1m", "--backoff", "5s")
    assert holdfast("group", "list").stdout.splitlines() == [
        "GROUP  READS  SEMANTICS      ORDERING   ATTEMPTS  DEAD LETTERS",
        "slow   shop   at-least-once  key        3         shop.dead",
        "watch  sh?p   at-least-once  partition  no end",
    ]
    moved = holdfast(
        *("group", "seek", "slow", "--topic", "shop", "--partition", "0", "--to", "latest", "--yes")
    ).stdout.splitlines()
    assert moved[0] == (
        "slow: reads shop; at-least-once, ordering key; failed records are tried 3 times, after 500ms to 2m, "
        "then go to shop.dead; silent members give up after 30s"
    )
    assert moved[1:] == [
        "TOPIC  PARTITION  FLOOR  SETTLED ABOVE  RETRYING  OWNER",
        "shop           0      5              0         0",
    ]
    assert holdfast("group", "describe", "slow").stdout.splitlines() == moved
    assert holdfast("group", "describe", "watch").stdout.splitlines() == [
        "watch: reads sh?p; at-least-once, ordering partition; failed records are tried again after 5s, "
        "without end; silent members give up after 1m"
    ]
    assert holdfast("group", "delete", "watch", "-y").stdout == "deleted watch\n"


def test_a_group_goes_on_where_it_was_sent(holdfast: Holdfast) -> None:
    holdfast("topic", "create", "work")
    holdfast("publish", "work", "a", "b", "c")

    def consumed() -> list[str]:
        lines = holdfast("consume", "work", "-g", "readers", "--idle", "1", "--json").stdout.splitlines()
        return [json.loads(line)["value"] for line in lines]

    assert consumed() == ["a", "b", "c"]
    seek = ("group", "seek", "readers", "--topic", "work")
    refused = holdfast(*seek, "--to", "1", status=2).stderr
    assert "this moves group readers to 1 in work, and there is no terminal to ask at; add --yes" in refused
    assert consumed() == []
    moved = _json(holdfast, *seek[1:], "--to", "1", "--yes")
    assert [(p["partition"], p["floor"], p["owner"]) for p in moved["partitions"]] == [(0, 1, None)]
    assert consumed() == ["b", "c"]
    holdfast(*seek, "--to", "earliest", "--partition", "0", "--yes")
    assert consumed() == ["a", "b", "c"]
    assert [p["floor"] for p in _json(holdfast, "describe", "readers")["partitions"]] == [3]


def test_nothing_waits(holdfast: Holdfast) -> None:
    holdfast("topic", "create", "calm")
    holdfast("group", "create", "calm", "-t", "calm")
    assert holdfast("group", "retries", "calm").stderr == "no records of calm wait\n"
    assert holdfast("group", "retries", "calm", "--parked").stderr == "no records of calm are parked\n"
    assert holdfast("group", "retries", "calm", "--json").stdout == ""
    assert _json(holdfast, "restore", "calm", "--all") == {"restored": 0}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["describe", "nobody"], "UNKNOWN_GROUP"),
        (["update", "nobody", "--attempts", "0"], "UNKNOWN_GROUP"),
        (["delete", "nobody", "--yes"], "UNKNOWN_GROUP"),
        (["retries", "nobody"], "UNKNOWN_GROUP"),
        (["restore", "nobody", "--all"], "UNKNOWN_GROUP"),
        (["seek", "nobody", "-t", "nothing", "--to", "latest", "--yes"], "UNKNOWN_TOPIC"),
        (["create", "g", "-t", "nothing"], "create it first, or name a pattern"),
        (["create", "bad name", "--pattern", "x"], "INVALID_ARGUMENT"),
        (["create", "g", "--pattern", "x", "--attempts", "3"], "dead_letter_topic is missing"),
    ],
)
def test_errors_are_one_clear_line(holdfast: Holdfast, arguments: list[str], message: str) -> None:
    done = holdfast("group", *arguments, status=1)
    assert message in done.stderr
    assert len(done.stderr.splitlines()) <= 2, done.stderr
    assert done.stdout == ""


def test_a_defined_group_is_consumed_as_a_member(holdfast: Holdfast) -> None:
    def values(*options: str) -> list[str]:
        out = holdfast("consume", "paid", "-g", "ledger", "--json", *options).stdout
        return [json.loads(line)["value"] for line in out.splitlines()]

    holdfast("topic", "create", "paid")
    holdfast("topic", "create", "paid.dead")
    holdfast("publish", "paid", "a", "b", "c", "d", "e")
    options = ("--member", "m1", "--ordering", "key", "--attempts", "5", "--dead-letter", "paid.dead")
    assert values(*options, "--limit", "2") == ["a", "b"]
    made = _json(holdfast, "describe", "ledger")
    assert not made["implicit"]
    assert (made["definition"]["ordering"], made["definition"]["attempts"]) == ("key", 5)
    assert made["definition"]["dead_letter"] == "paid.dead"
    assert values("--limit", "1") == ["c"], "a defined group is joined without being told so"
    other = holdfast("consume", "paid", "-g", "ledger", "--ordering", "none", status=1).stderr
    assert "GROUP_CONFLICT" in other
    other = holdfast("consume", "paid.dead", "-g", "ledger", status=1).stderr
    assert "reads paid; name these" in other
    assert values("--idle", "2") == ["d", "e"]
    holdfast("group", "create", "exact", "-t", "paid", "--semantics", "exactly-once")
    assert "settled by transactions" in holdfast("consume", "paid", "-g", "exact", status=1).stderr


def test_a_group_that_settles_before_it_delivers_is_consumed_too(holdfast: Holdfast) -> None:
    holdfast("topic", "create", "ticks")
    holdfast("publish", "ticks", "a", "b")
    holdfast("group", "create", "screen", "-t", "ticks", "--semantics", "at-most-once", "--ordering", "none")
    done = holdfast("consume", "ticks", "-g", "screen", "--idle", "2", "--json")
    assert [json.loads(line)["value"] for line in done.stdout.splitlines()] == ["a", "b"]
    assert done.stderr == ""
