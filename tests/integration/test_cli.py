"""The command line against a running broker, as a user's shell runs it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from holdfast import connect_sync
from holdfast.chaos.processes import free_ports, is_free

from .conftest import Holdfast, environment


def _json(done: subprocess.CompletedProcess[str]) -> Any:
    return json.loads(done.stdout)


def _lines(done: subprocess.CompletedProcess[str]) -> list[Any]:
    return [json.loads(line) for line in done.stdout.splitlines()]


# -- topics ----------------------------------------------------------------------


def test_a_topic_from_birth_to_death(holdfast: Holdfast) -> None:
    made = _json(holdfast("topic", "create", "life", "-p", "3", "--retention", "7d", "--json"))
    assert made["partitions"] == 3
    assert made["retention_ms"] == 7 * 86_400_000
    holdfast("topic", "create", "life", "-p", "3", "--if-not-exists")
    changed = _json(holdfast("topic", "update", "life", "--max-record", "2KiB", "--json"))
    assert changed["max_record_bytes"] == 2048
    assert changed["retention_bytes"] is None, "no limit"
    assert changed["retention_ms"] == 7 * 86_400_000, "limits that were not named stay"
    assert "life" in holdfast("topic", "list").stdout
    assert "life" in [topic["name"] for topic in _json(holdfast("topic", "list", "--json"))["topics"]]
    shown = holdfast("topic", "describe", "life").stdout
    assert "3 partitions" in shown
    assert "records are kept 7d" in shown
    assert "--yes" in holdfast("topic", "delete", "life", status=2).stderr
    assert _json(holdfast("topic", "delete", "life", "--yes", "--json")) == {"deleted": "life"}
    holdfast("topic", "describe", "life", status=1)


# -- publish, replay, consume ------------------------------------------------------


def test_arguments_are_published_and_replayed(holdfast: Holdfast) -> None:
    holdfast("topic", "create", "words")
    assert "published 2 records to words" in holdfast("publish", "words", "one", "two").stdout
    done = holdfast(
        "publish", "words", "three", "--key", "k", "--timestamp", "2013-07-04T12:00:00Z", "--json"
    )
    assert _json(done) == {
        "topic": "words",
        "published": 1,
        "partitions": [{"partition": 0, "first_offset": 2, "last_offset": 2, "count": 1}],
    }
    rows = [line.split("\t") for line in holdfast("replay", "words").stdout.splitlines()]
    assert [(place, key, value) for place, _, key, value in rows] == [
        ("0:0", "-", "one"),
        ("0:1", "-", "two"),
        ("0:2", "k", "three"),
    ]
    assert rows[2][1] == "2013-07-04T12:00:00Z"


def test_replay_takes_offsets_times_and_limits(holdfast: Holdfast) -> None:
    holdfast("topic", "create", "days")
    rows = "".join(f'{{"n": {n}, "at": "2013-07-0{n}T00:00:00Z"}}\n' for n in range(1, 6))
    holdfast("publish", "days", "--format", "ndjson", "--timestamp", "at", stdin=rows)

    def numbers(*arguments: str) -> list[int]:
        return [
            json.loads(row["value"])["n"] for row in _lines(holdfast("replay", "days", "--json", *arguments))
        ]

    assert numbers() == [1, 2, 3, 4, 5]
    assert numbers("--from", "1", "--to", "3") == [2, 3]
    assert numbers("--from", "2013-07-02", "--to", "2013-07-04") == [2, 3]
    assert numbers("--limit", "2", "--linearizable") == [1, 2]
    assert numbers("--partition", "0", "--from", "latest") == []
    assert numbers("--time-basis", "append", "--from", "-1h") == [1, 2, 3, 4, 5]


def test_lines_are_published_from_a_pipe(holdfast: Holdfast) -> None:
    holdfast("topic", "create", "piped")
    assert _json(holdfast("publish", "piped", "-", "--json", stdin="a\n\nb\n"))["published"] == 2
    assert _json(holdfast("publish", "piped", "--json", stdin="c\n"))["published"] == 1
    assert [row["value"] for row in _lines(holdfast("replay", "piped", "--json"))] == ["a", "b", "c"]


def test_a_csv_file_is_published_by_key(holdfast: Holdfast, tmp_path: Path) -> None:
    holdfast("topic", "create", "flights", "-p", "4")
    (tmp_path / "flights.csv").write_text(
        "tail,hour\n" + "".join(f"N{n % 7},2013-01-01T{n % 24:02}:00:00Z\n" for n in range(5000))
    )
    done = holdfast(
        "publish", "flights", "--file", "flights.csv", "--key", "tail", "--timestamp", "hour", "--json"
    )
    assert _json(done)["published"] == 5000
    rows = _lines(holdfast("replay", "flights", "--json"))
    assert len(rows) == 5000
    assert len({(row["key"], row["partition"]) for row in rows}) == 7, "a key stays in its partition"
    assert json.loads(rows[0]["value"])["tail"] == rows[0]["key"]


def test_idempotency_keys(holdfast: Holdfast, tmp_path: Path) -> None:
    assert (
        "--idempotency-ttl"
        in holdfast("topic", "create", "none-yet", "--idempotency-ttl", "x", status=2).stderr
    )
    holdfast("topic", "create", "paid", "-p", "3", "--idempotency-ttl", "1h")
    changed = _json(holdfast("topic", "update", "paid", "--retention", "7d", "--json"))
    assert changed["idempotency_ttl_ms"] == 3_600_000, "limits that were not named stay"
    assert "idempotency keys are known for 1h" in holdfast("topic", "describe", "paid").stdout
    (tmp_path / "paid.csv").write_text("order,amount\n" + "".join(f"o{n},{n}\n" for n in range(50)))
    publish = ("publish", "paid", "--file", "paid.csv", "--key", "order", "--idempotency-key", "order")
    first = _json(holdfast(*publish, "--json"))
    assert (first["published"], first["repeated"], len(first["partitions"])) == (50, 0, 3)
    assert "published 0 records to paid; 50 records had been published before" in holdfast(*publish).stdout
    single = ("publish", "paid", "x", "--idempotency-key", "o7", "--json")
    assert _json(holdfast(*single)) == {"topic": "paid", "published": 0, "repeated": 1, "partitions": []}
    assert len(_lines(holdfast("replay", "paid", "--json"))) == 50
    (tmp_path / "bad.ndjson").write_text('{"order": "o50"}\n{"order": null}\n')
    error = holdfast("publish", "paid", "--file", "bad.ndjson", "--idempotency-key", "order", status=1).stderr
    assert "bad.ndjson line 2: field 'order' is empty" in error


def test_bad_input_stops_with_its_line_and_says_what_was_published(
    holdfast: Holdfast, tmp_path: Path
) -> None:
    holdfast("topic", "create", "half")
    (tmp_path / "half.ndjson").write_text('{"n": 1}\n{"n": 2}\nnot json\n{"n": 4}\n')
    error = holdfast("publish", "half", "--file", "half.ndjson", status=1).stderr
    assert "at least 2 records had been published before this" in error
    assert "half.ndjson line 3: not JSON" in error
    assert len(_lines(holdfast("replay", "half", "--json"))) == 2


def test_a_group_goes_on_where_it_stopped(holdfast: Holdfast) -> None:
    holdfast("topic", "create", "work")
    holdfast("publish", "work", "a", "b", "c")
    first = _lines(holdfast("consume", "work", "--group", "g", "--limit", "2", "--json"))
    assert [row["value"] for row in first] == ["a", "b"]
    rest = _lines(holdfast("consume", "work", "--group", "g", "--idle", "2", "--json"))
    assert [row["value"] for row in rest] == ["c"]


def test_values_that_are_no_text_survive(holdfast: Holdfast, tmp_path: Path) -> None:
    holdfast("topic", "create", "bytes")
    (tmp_path / "x.txt").write_bytes(b"\xff\x00\x1b[31m\n")
    holdfast("publish", "bytes", "--file", "x.txt")
    assert _lines(holdfast("replay", "bytes", "--json"))[0]["value_base64"] == "/wAbWzMxbQ=="
    shown = holdfast("replay", "bytes").stdout
    assert "\x1b" not in shown, "a record must not command the terminal"
    assert "\\xff" in shown


def test_follow_prints_what_comes_and_stops_at_the_limit(holdfast: Holdfast, endpoint: str) -> None:
    holdfast("topic", "create", "news")
    command = [sys.executable, "-m", "holdfast.cli", "replay", "news", "--follow", "--limit", "2", "--json"]
    with subprocess.Popen(command, env=environment(endpoint), stdout=subprocess.PIPE, text=True) as follower:
        assert follower.stdout is not None
        holdfast("publish", "news", "first")
        assert json.loads(follower.stdout.readline())["value"] == "first"
        holdfast("publish", "news", "second")
        assert json.loads(follower.stdout.readline())["value"] == "second"
        assert follower.wait(30) == 0


def test_a_reader_that_leaves_is_no_error(holdfast: Holdfast, endpoint: str) -> None:
    holdfast("topic", "create", "long")
    holdfast("publish", "long", stdin="".join(f"{n}\n" for n in range(20_000)))
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {sys.executable} -m holdfast.cli replay long | head -n 1"],
        env=environment(endpoint),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


# -- the cluster -------------------------------------------------------------------


def test_cluster_status_and_digest(holdfast: Holdfast) -> None:
    holdfast("topic", "create", "digested", "--if-not-exists")
    status = _json(holdfast("cluster", "status", "--json"))
    assert status["leader"] == "n1"
    assert [node["role"] for node in status["nodes"]] == ["leader"]
    assert "leader" in holdfast("cluster", "status").stdout
    digest = _json(holdfast("cluster", "digest", "--topic", "digested", "--json"))
    assert digest["verdict"] == "equal"
    assert "equal" in holdfast("cluster", "digest").stdout


# -- errors ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["replay", "nothing"], 1, "UNKNOWN_TOPIC"),
        (["publish", "nothing", "x"], 1, "UNKNOWN_TOPIC"),
        (["topic", "describe", "nothing"], 1, "UNKNOWN_TOPIC"),
        (["cluster", "digest", "--topic", "nothing"], 1, "UNKNOWN_TOPIC"),
        (["topic", "create", "bad name"], 1, "INVALID_ARGUMENT"),
        (["cluster", "status", "-e", "127.0.0.1:1"], 1, "127.0.0.1:1: connection refused"),
        (["topic", "list", "-e", "127.0.0.1:1"], 1, "start one (`holdfast serve`"),
        (["replay", "t", "--from", "noon"], 2, "'noon' is not 'earliest'"),
        (["publish", "t", "x", "--file", "y.csv"], 2, "not both"),
        (["publish", "t", "--file", "missing.csv"], 1, "missing.csv: No such file"),
        (["publish", "t", "--file", "missing.parquet"], 1, "--format"),
        (["topic", "update", "t"], 2, "nothing to change"),
        (["publish", "t", "x", "y", "--idempotency-key", "k"], 2, "would pass for repeats"),
        (["publish", "t", "--file", "x.txt", "--idempotency-key", "k"], 2, "lines have no fields"),
        (["topic", "create", "t", "-p", "0"], 2, "greater than or equal to 1"),
        (["consume", "t", "-g", "g", "--from", "7"], 2, "a group starts at"),
        (["replay", "t", "-e", "nonsense"], 2, "'nonsense' is not host:port"),
        (["serve", "--set", "raft.hartbeat_ms=5"], 1, "did you mean raft.heartbeat_ms?"),
        (["serve", "--quota", "lots"], 2, "is no size"),
        (["serv"], 2, "holdfast --help"),
    ],
)
def test_errors_are_one_clear_line(
    holdfast: Holdfast, arguments: list[str], status: int, message: str
) -> None:
    done = holdfast(*arguments, status=status)
    assert message in done.stderr
    assert len(done.stderr.splitlines()) <= 2, done.stderr
    assert done.stdout == ""


def test_errors_as_json(holdfast: Holdfast) -> None:
    error = json.loads(holdfast("topic", "describe", "nothing", "--json", status=1).stderr)["error"]
    assert error["reason"] == "UNKNOWN_TOPIC"
    assert error["retriable"] is False


def test_a_port_in_use_is_named(holdfast: Holdfast, endpoint: str) -> None:
    error = holdfast("serve", "--listen", endpoint, "--data-dir", "other", status=1).stderr
    assert endpoint.rpartition(":")[2] in error
    assert "PORT_IN_USE" in error


def test_help_and_version_need_no_broker_and_little_time(holdfast: Holdfast) -> None:
    assert holdfast("--version").stdout.startswith("holdfast ")
    for command in ("serve", "up", "publish", "consume", "replay"):
        assert "--json" in holdfast(command, "--help").stdout
    modules = subprocess.run(
        [sys.executable, "-c", "import sys, holdfast.cli.app; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert not {"grpc", "lmdb", "opentelemetry"} & set(modules), "imported before a command asks for it"


# -- three local brokers -------------------------------------------------------------


def test_up_and_down(holdfast: Holdfast, tmp_path: Path) -> None:
    port = str(_free_block())
    try:
        started = _json(holdfast("up", "--port", port, "--json"))
        assert started["started"] == ["n1", "n2", "n3"]
        pids = {broker["node_id"]: broker["pid"] for broker in started["brokers"]}
        endpoints = ",".join(broker["address"] for broker in started["brokers"])
        assert _json(holdfast("up", "--port", port, "--json"))["started"] == []
        assert f"export HOLDFAST_ENDPOINTS={endpoints}" in holdfast("up", "--port", port).stdout

        holdfast("topic", "create", "t", "-p", "2", "-e", endpoints)
        holdfast("publish", "t", "kept", "-e", endpoints)
        os.kill(pids[started["leader"]], signal.SIGKILL)
        holdfast("publish", "t", "kept too", "-e", endpoints)
        again = _json(holdfast("up", "--port", port, "--json"))
        assert again["started"] == [started["leader"]], "only the one that is gone"

        assert "run with other ports" in holdfast("up", "--port", str(int(port) + 100), status=1).stderr
        values = {row["value"] for row in _lines(holdfast("replay", "t", "--json", "-e", endpoints))}
        assert values == {"kept", "kept too"}
        verdict = _json(holdfast("cluster", "digest", "--json", "-e", endpoints))
        assert (verdict["verdict"], verdict["nodes"]) == ("equal", ["n1", "n2", "n3"])
    finally:
        stopped = _json(holdfast("down", "--json"))["stopped"]
    assert stopped == ["n1", "n2", "n3"]
    assert "none was running" in holdfast("down").stdout


def test_up_is_all_or_nothing(holdfast: Holdfast) -> None:
    port = _free_block()
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", port + 10))
        taken.listen()
        lines = holdfast("up", "--port", str(port), status=1).stderr.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(f"holdfast: broker n2 ended: cannot listen on 127.0.0.1:{port + 10}")
    assert "`holdfast up --port PORT`" in lines[0]
    assert "none was running in holdfast-data/local" in holdfast("down").stdout


def _free_block() -> int:
    """A port with the five others that `up` takes free as well."""
    for _ in range(100):
        (port,) = free_ports(1)
        if port < 65000 and all(is_free(port + step) for step in (1, 10, 11, 20, 21)):
            return port
    raise AssertionError("no free ports")


# -- dead letters ------------------------------------------------------------------


def test_dead_letters_are_listed_redriven_and_discarded(holdfast: Holdfast, endpoint: str) -> None:
    for topic in ("source", "given-up"):
        holdfast("topic", "create", topic)
    assert "no dead letters" in holdfast("dead-letter", "list", "given-up").stderr
    with connect_sync(endpoint) as bus:
        for number, error in enumerate(["db down", "bad payload", "db down"]):
            facts = {"group": "billing", "topic": "source", "partition": "0", "offset": str(number)}
            facts |= {"attempts": "5", "errors": json.dumps([[1_700_000_000_000_000, error]])}
            headers = {f"holdfast-dead-{name}": value for name, value in facts.items()}
            bus.publish("given-up", b"v%d" % number, headers=headers)
    rows = [line.split("\t") for line in holdfast("dead-letter", "list", "given-up").stdout.splitlines()]
    assert [(row[0], row[1], row[2], row[3], row[5]) for row in rows] == [
        ("0:0", "billing", "source:0:0", "5", "db down"),
        ("0:1", "billing", "source:0:1", "5", "bad payload"),
        ("0:2", "billing", "source:0:2", "5", "db down"),
    ]
    (second,) = _lines(
        holdfast("dead-letter", "list", "given-up", "--error", "payload", "--values", "--json")
    )
    assert (second["offset"], second["value"], second["key"]) == (1, "v1", None)
    assert second["origin"] == {"topic": "source", "partition": 0, "offset": 1}
    assert second["errors"] == [{"time": "2023-11-14T22:13:20Z", "error": "bad payload"}]
    assert not _lines(holdfast("dead-letter", "list", "given-up", "--until", "1h", "--json"))
    assert len(_lines(holdfast("dead-letter", "list", "given-up", "--since", "1h", "--json"))) == 3

    for verb in ("redrive", "discard"):
        assert "--yes" in holdfast("dead-letter", verb, "given-up", status=2).stderr
    assert "--partition" in holdfast("dead-letter", "list", "given-up", "-o", "1", status=2).stderr
    assert "no time" in holdfast("dead-letter", "list", "given-up", "--since", "soon", status=2).stderr
    shown = holdfast("dead-letter", "redrive", "given-up", "--dry-run").stdout
    assert "would redrive 3 of 3 dead letters of given-up" in shown
    assert "redriven 1 of 1" in holdfast("dead-letter", "redrive", "given-up", "-p", "0", "-o", "0").stdout
    done = _json(holdfast("dead-letter", "discard", "given-up", "--error", "payload", "--json"))
    assert done == {"matched": 1, "discarded": 1}
    done = _json(holdfast("dead-letter", "redrive", "given-up", "--yes", "--rate", "1000", "--json"))
    assert done == {"matched": 1, "redriven": 1, "refused": 0}
    assert [row["value"] for row in _lines(holdfast("replay", "source", "--json"))] == ["v0", "v2"]
    with connect_sync(endpoint) as bus:
        bus.publish("given-up", b"stray")
    refused = holdfast("dead-letter", "redrive", "given-up", "--yes", status=1)
    assert "redriven 0 of 1" in refused.stdout
    assert "name one to redrive it to" in refused.stderr
    holdfast("dead-letter", "redrive", "given-up", "--yes", "--to", "source")
    assert (
        "given-up"
        in holdfast("dead-letter", "redrive", "given-up", "--to", "given-up", "-y", status=1).stderr
    )
