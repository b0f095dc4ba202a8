"""``holdfast topic``: create, list, describe, update and delete topics."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from holdfast.cli.options import DEFAULT_ENDPOINTS, FLAG, Endpoints, Json, Timeout, parse_size
from holdfast.cli.times import parse_duration_us

app = typer.Typer(help="Create, list, describe, update and delete topics.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="TOPIC")]
Retention = Annotated[
    str | None,
    typer.Option(
        "--retention", metavar="DURATION", help="Trim records older than this (7d, 12h); 'none': keep."
    ),
]
RetentionSize = Annotated[
    str | None,
    typer.Option(
        "--retention-size", metavar="SIZE", help="Trim a partition to this size (10GiB); 'none': keep."
    ),
]
MaxRecord = Annotated[
    str | None,
    typer.Option("--max-record", metavar="SIZE", help="Largest record (1MiB); 'none': the broker's default."),
]
IdempotencyTtl = Annotated[
    str | None,
    typer.Option(
        "--idempotency-ttl",
        metavar="DURATION",
        help="Know repeats of idempotency keys for so long (1s to 7d); 'none': take no keys.",
    ),
]
_TIMEOUT = 10.0


@app.command("create")
def create(
    name: Name,
    partitions: Annotated[
        int, typer.Option("--partitions", "-p", min=1, max=1024, help="Fixed for the topic's life.")
    ] = 1,
    retention: Retention = None,
    retention_size: RetentionSize = None,
    max_record: MaxRecord = None,
    idempotency_ttl: IdempotencyTtl = None,
    if_not_exists: Annotated[
        bool,
        typer.Option(
            "--if-not-exists", metavar=FLAG, help="Succeed when it is there with as many partitions."
        ),
    ] = False,
    endpoints: Endpoints = DEFAULT_ENDPOINTS,
    timeout: Timeout = _TIMEOUT,
    as_json: Json = False,
) -> None:
    """Create a topic."""
    limits = _limits(retention, retention_size, max_record, idempotency_ttl)
    from holdfast.cli.session import with_client

    topic = with_client(
        endpoints,
        lambda bus: bus.create_topic(
            name, partitions=partitions, if_not_exists=if_not_exists, timeout=timeout, **limits
        ),
    )
    _show(topic, as_json)


@app.command("list")
def list_topics(
    endpoints: Endpoints = DEFAULT_ENDPOINTS, timeout: Timeout = _TIMEOUT, as_json: Json = False
) -> None:
    """List the topics."""
    from holdfast.cli.output import human_bytes, print_json, print_table
    from holdfast.cli.session import with_client

    topics = with_client(endpoints, lambda bus: bus.topics(timeout=timeout))
    if as_json:
        print_json({"topics": [_as_dict(topic) for topic in topics]})
        return
    rows = []
    for topic in topics:
        info = topic.partition_info
        records = sum(p.end_offset - p.start_offset for p in info)
        rows.append([topic.name, topic.partitions, records, human_bytes(sum(p.bytes for p in info))])
    if rows:
        print_table(["TOPIC", "PARTITIONS", "RECORDS", "SIZE"], rows)
    else:
        print("no topics yet; make one: holdfast topic create NAME", file=sys.stderr)


@app.command("describe")
def describe(
    name: Name, endpoints: Endpoints = DEFAULT_ENDPOINTS, timeout: Timeout = _TIMEOUT, as_json: Json = False
) -> None:
    """Show a topic's limits and partitions."""
    from holdfast.cli.session import with_client

    _show(with_client(endpoints, lambda bus: bus.topic(name, timeout=timeout)), as_json)


@app.command("update")
def update(
    name: Name,
    retention: Retention = None,
    retention_size: RetentionSize = None,
    max_record: MaxRecord = None,
    idempotency_ttl: IdempotencyTtl = None,
    endpoints: Endpoints = DEFAULT_ENDPOINTS,
    timeout: Timeout = _TIMEOUT,
    as_json: Json = False,
) -> None:
    """Change a topic's limits; those not named stay."""
    changes = _limits(retention, retention_size, max_record, idempotency_ttl)
    if not changes:
        raise typer.BadParameter(
            "nothing to change: give --retention, --retention-size, --max-record or --idempotency-ttl."
        )
    from holdfast.cli.session import with_client

    _show(with_client(endpoints, lambda bus: _update(bus, name, changes, timeout)), as_json)


@app.command("delete")
def delete(
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", "-y", metavar=FLAG, help="Do not ask.")] = False,
    endpoints: Endpoints = DEFAULT_ENDPOINTS,
    timeout: Timeout = _TIMEOUT,
    as_json: Json = False,
) -> None:
    """Delete a topic with its records and what groups hold in it."""
    if not yes:
        if not sys.stdin.isatty():
            raise typer.BadParameter(
                f"this deletes {name} with all its records, and there is no terminal to ask at; add --yes."
            )
        if not typer.confirm(f"Delete {name} with all its records?", err=True):
            print("nothing was deleted", file=sys.stderr)
            raise typer.Exit(1)
    from holdfast.cli.output import print_json
    from holdfast.cli.session import with_client

    with_client(endpoints, lambda bus: bus.delete_topic(name, timeout=timeout))
    if as_json:
        print_json({"deleted": name})
    else:
        print(f"deleted {name}")


async def _update(bus: Any, name: str, changes: dict[str, int], timeout: float) -> Any:
    # An update replaces all limits on the wire; what is not named is sent as it stands.
    topic = await bus.topic(name, timeout=timeout)
    limits = ("max_record_bytes", "retention_ms", "retention_bytes", "idempotency_ttl_ms")
    kept = {limit: getattr(topic, limit) for limit in limits}
    return await bus.update_topic(name, timeout=timeout, **(kept | changes))


def _limits(
    retention: str | None, retention_size: str | None, max_record: str | None, idempotency_ttl: str | None
) -> dict[str, int]:
    """The limits that were given, 0 for "none"."""
    found: dict[str, int] = {}
    for option, text, name in (
        ("--retention", retention, "retention_ms"),
        ("--idempotency-ttl", idempotency_ttl, "idempotency_ttl_ms"),
    ):
        if text is not None:
            try:
                found[name] = 0 if text == "none" else parse_duration_us(text) // 1000
            except ValueError as error:
                raise typer.BadParameter(f"{error}.", param_hint=f"'{option}'") from None
    for option, text, name in (
        ("--retention-size", retention_size, "retention_bytes"),
        ("--max-record", max_record, "max_record_bytes"),
    ):
        if text is not None:
            found[name] = 0 if text == "none" else parse_size(text, option)
    return found


def _as_dict(topic: Any) -> dict[str, Any]:
    # A limit that is not set is null, not 0.
    found: dict[str, Any] = {
        "name": topic.name,
        "partitions": topic.partitions,
        "max_record_bytes": topic.max_record_bytes or None,
        "retention_ms": topic.retention_ms or None,
        "retention_bytes": topic.retention_bytes or None,
        "idempotency_ttl_ms": topic.idempotency_ttl_ms or None,
        "created_at": topic.created_at.isoformat(),
    }
    if topic.partition_info:
        found["partition_info"] = [
            {
                "partition": p.partition,
                "start_offset": p.start_offset,
                "end_offset": p.end_offset,
                "bytes": p.bytes,
            }
            for p in topic.partition_info
        ]
    return found


def _show(topic: Any, as_json: bool) -> None:
    from holdfast.cli.output import human_bytes, human_duration, print_json, print_table

    if as_json:
        print_json(_as_dict(topic))
        return
    limits = []
    if topic.retention_ms:
        limits.append(f"records are kept {human_duration(topic.retention_ms)}")
    if topic.retention_bytes:
        limits.append(f"partitions are kept to {human_bytes(topic.retention_bytes)}")
    if topic.max_record_bytes:
        limits.append(f"records of at most {human_bytes(topic.max_record_bytes)}")
    many = "partition" if topic.partitions == 1 else "partitions"
    kept = ", ".join(limits) or "records are kept for ever"
    if topic.idempotency_ttl_ms:
        kept += f"; idempotency keys are known for {human_duration(topic.idempotency_ttl_ms)}"
    print(f"{topic.name}: {topic.partitions} {many}; {kept}")
    if topic.partition_info:
        print_table(
            ["PARTITION", "START", "END", "RECORDS", "SIZE"],
            [
                [
                    p.partition,
                    p.start_offset,
                    p.end_offset,
                    p.end_offset - p.start_offset,
                    human_bytes(p.bytes),
                ]
                for p in topic.partition_info
            ],
        )
