"""Groups and their records as the command line shows them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from holdfast.cli.output import human_duration, print_json, print_table, readable
from holdfast.cli.times import format_time
from holdfast.client.groups import GroupDefinition, GroupInfo, RetryingRecord
from holdfast.client.times import to_us


def as_dict(group: GroupInfo) -> dict[str, Any]:
    """A group for programs; members and partitions when it comes with them."""
    found: dict[str, Any] = {
        "name": group.name,
        "implicit": group.implicit,
        "generation": group.generation,
        "created_at": _time(group.created_at),
        "definition": None if group.definition is None else _definition(group.definition),
    }
    if group.members:
        found["members"] = [
            {
                "id": member.id,
                "name": member.name,
                "static": member.static,
                "grace_ms": round(member.grace * 1000),
                "joined_at": _time(member.joined_at),
            }
            for member in group.members
        ]
    if group.partitions:
        found["partitions"] = [
            {
                "topic": part.topic,
                "partition": part.partition,
                "floor": part.floor,
                "settled_above": part.settled_above,
                "retrying": part.retrying,
                "owner": part.owner or None,
                "fence": part.fence,
            }
            for part in group.partitions
        ]
    return found


def list_row(group: GroupInfo) -> list[object]:
    """A group as a line of a table."""
    definition = group.definition
    if definition is None:
        return [group.name, "not defined", "", "", "", ""]
    return [
        group.name,
        _reads(definition),
        _semantics(definition),
        definition.ordering,
        definition.retry.attempts or "no end",
        definition.dead_letter or "",
    ]


def show(group: GroupInfo, as_json: bool) -> None:
    """Print a group."""
    if as_json:
        print_json(as_dict(group))
        return
    print(f"{group.name}: {_summary(group)}")
    if group.members:
        print_table(
            ["MEMBER", "NAME", "KIND", "GRACE", "JOINED"],
            [
                [
                    member.id,
                    member.name,
                    "static" if member.static else "dynamic",
                    human_duration(round(member.grace * 1000)),
                    _time(member.joined_at),
                ]
                for member in group.members
            ],
        )
    if group.partitions:
        print_table(
            ["TOPIC", "PARTITION", "FLOOR", "SETTLED ABOVE", "RETRYING", "OWNER"],
            [
                [part.topic, part.partition, part.floor, part.settled_above, part.retrying, part.owner]
                for part in group.partitions
            ],
        )


def retry_dict(record: RetryingRecord) -> dict[str, Any]:
    """A record that waits, for programs."""
    return {
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "attempts": record.attempts,
        "losses": record.losses,
        "parked": record.parked,
        "due_at": None if record.due_at is None else _time(record.due_at),
        "first_failed_at": _time(record.first_failed_at),
        "errors": [{"at": _time(at), "error": error} for at, error in record.errors],
    }


def print_retries(records: list[RetryingRecord], as_json: bool) -> None:
    """Print records that wait: a table, or one object a line."""
    if as_json:
        for record in records:
            print_json(retry_dict(record))
        return
    print_table(
        ["TOPIC", "PARTITION", "OFFSET", "ATTEMPTS", "STATE", "LAST ERROR"],
        [
            [
                record.topic,
                record.partition,
                record.offset,
                record.attempts,
                _state(record),
                readable(record.errors[-1][1].encode()) if record.errors else "",
            ]
            for record in records
        ],
    )


def _state(record: RetryingRecord) -> str:
    if record.due_at is None:
        return "parked"
    return f"{'parked until' if record.parked else 'due'} {_time(record.due_at)}"


def _summary(group: GroupInfo) -> str:
    definition = group.definition
    if definition is None:
        return "not defined; it holds the positions of subscriptions"
    parts = [
        f"reads {_reads(definition)}",
        f"{_semantics(definition)}, ordering {definition.ordering}",
        _retrying(definition),
    ]
    if definition.ack_timeout is not None:
        parts.append(f"silent members give up after {_duration(definition.ack_timeout)}")
    if group.implicit:
        parts.append("made by a subscription")
    return "; ".join(parts)


def _retrying(definition: GroupDefinition) -> str:
    retry = definition.retry
    first, longest = (_duration(seconds or 0.0) for seconds in (retry.initial, retry.maximum))
    pauses = f"after {first}" if first == longest else f"after {first} to {longest}"
    if not retry.attempts:
        return f"failed records are tried again {pauses}, without end"
    return f"failed records are tried {retry.attempts} times, {pauses}, then go to {definition.dead_letter}"


def _definition(definition: GroupDefinition) -> dict[str, Any]:
    retry, start = definition.retry, definition.start
    return {
        "topics": list(definition.topics),
        "patterns": list(definition.patterns),
        "semantics": _semantics(definition),
        "ordering": definition.ordering,
        "attempts": retry.attempts,
        "initial_ms": _ms(retry.initial),
        "maximum_ms": _ms(retry.maximum),
        "multiplier": retry.multiplier,
        "jitter": retry.jitter,
        "dead_letter": definition.dead_letter or None,
        "ack_timeout_ms": _ms(definition.ack_timeout),
        "max_lease_ms": _ms(definition.max_lease),
        "start": _time(start) if isinstance(start, datetime) else start,
        "max_unacked": definition.max_unacked,
        "max_retrying": definition.max_retrying,
    }


def _reads(definition: GroupDefinition) -> str:
    return ", ".join([*definition.topics, *definition.patterns])


def _semantics(definition: GroupDefinition) -> str:
    return (definition.semantics or "").replace("_", "-")


def _duration(seconds: float) -> str:
    return human_duration(round(seconds * 1000)) if seconds else "0s"


def _ms(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1000)


def _time(moment: datetime) -> str:
    return format_time(to_us(moment))
