"""``holdfast group``: list, describe, create, update and delete consumer groups."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from holdfast.cli.commands import group_lag, group_records
from holdfast.cli.options import DEFAULT_ENDPOINTS, FLAG, Endpoints, Json, Timeout
from holdfast.cli.times import parse_duration_us, parse_position

if TYPE_CHECKING:
    from holdfast.client.groups import GroupDefinition, GroupInfo

app = typer.Typer(
    help="List, describe, create, update, delete and seek groups; their lag, their records that wait.",
    no_args_is_help=True,
)


class Semantics(StrEnum):
    """As users write it; the SDK's names have underscores."""

    AT_LEAST_ONCE = "at-least-once"
    AT_MOST_ONCE = "at-most-once"
    EXACTLY_ONCE = "exactly-once"


class Ordering(StrEnum):
    PARTITION = "partition"
    KEY = "key"
    NONE = "none"


Name = Annotated[str, typer.Argument(metavar="GROUP")]
Topics = Annotated[
    list[str] | None, typer.Option("--topic", "-t", metavar="TOPIC", help="What it reads; may be repeated.")
]
Patterns = Annotated[
    list[str] | None,
    typer.Option("--pattern", metavar="PATTERN", help="Topics whose names match ('eu.*'); may be repeated."),
]
Attempts = Annotated[
    int | None,
    typer.Option("--attempts", min=0, help="After so many a record goes to the dead letters; 0: never."),
]
Backoff = Annotated[
    str | None,
    typer.Option("--backoff", metavar="FIRST..LONGEST", help="Pauses between attempts: 1s..60s, or 5s."),
]
Multiplier = Annotated[
    float | None, typer.Option("--multiplier", help="Each pause is so many times the one before: 1 to 10.")
]
Jitter = Annotated[
    float | None, typer.Option("--jitter", help="Pauses are longer or shorter by up to this share: 0 to 1.")
]
DeadLetter = Annotated[
    str | None,
    typer.Option("--dead-letter", metavar="TOPIC", help="Takes records after the last attempt; 'none': no."),
]
AckTimeout = Annotated[
    str | None,
    typer.Option(
        "--ack-timeout", metavar="DURATION", help="A member silent for this long gives up its records (30s)."
    ),
]
MaxLease = Annotated[
    str | None,
    typer.Option(
        "--max-lease", metavar="DURATION", help="The longest a member may keep a record; 'none': no bound."
    ),
]
Start = Annotated[
    str | None,
    typer.Option(
        "--start",
        metavar="POSITION",
        help="Where it begins: earliest, latest, a time or how long ago (-15m).",
    ),
]
MaxUnacked = Annotated[
    int | None, typer.Option("--max-unacked", min=1, help="Records of a partition handed out and open.")
]
MaxRetrying = Annotated[
    int | None, typer.Option("--max-retrying", min=1, help="Records of a partition that wait or are parked.")
]
_TIMEOUT = 10.0


@app.command("list")
def list_groups(
    lag: Annotated[bool, typer.Option("--lag", metavar=FLAG, help="And how far each is behind.")] = False,
    endpoints: Endpoints = DEFAULT_ENDPOINTS,
    timeout: Timeout = _TIMEOUT,
    as_json: Json = False,
) -> None:
    """List the groups."""
    from holdfast.cli.commands.group_lag import totals
    from holdfast.cli.group_output import as_dict, list_row
    from holdfast.cli.output import print_json, print_table
    from holdfast.cli.session import with_client

    async def ask(bus: Any) -> tuple[list[GroupInfo], dict[str, tuple[int, str]]]:
        return await bus.groups(timeout=timeout), totals(await bus.lag(timeout=timeout)) if lag else {}

    groups, behind = with_client(endpoints, ask)
    none = (0, "-")
    if as_json:
        more = {group.name: {"lag": behind.get(group.name, none)[0]} if lag else {} for group in groups}
        print_json({"groups": [as_dict(group) | more[group.name] for group in groups]})
    elif groups:
        columns = ["GROUP", "READS", "SEMANTICS", "ORDERING", "ATTEMPTS", "DEAD LETTERS"]
        rows = [[*list_row(group), *(behind.get(group.name, none) if lag else ())] for group in groups]
        print_table([*columns, *(("LAG", "BEHIND") if lag else ())], rows)
    else:
        print("no groups yet; make one: holdfast group create NAME --topic TOPIC", file=sys.stderr)


@app.command("describe")
def describe(
    name: Name, endpoints: Endpoints = DEFAULT_ENDPOINTS, timeout: Timeout = _TIMEOUT, as_json: Json = False
) -> None:
    """Show a group's definition, its members, and where it stands in its partitions."""
    from holdfast.cli.group_output import show
    from holdfast.cli.session import with_client

    show(with_client(endpoints, lambda bus: bus.group(name, timeout=timeout)), as_json)


@app.command("create")
def create(
    name: Name,
    topics: Topics = None,
    patterns: Patterns = None,
    semantics: Annotated[
        Semantics, typer.Option("--semantics", help="Fixed for the group's life.")
    ] = Semantics.AT_LEAST_ONCE,
    ordering: Annotated[
        Ordering, typer.Option("--ordering", help="Fixed for the group's life.")
    ] = Ordering.PARTITION,
    attempts: Attempts = None,
    backoff: Backoff = None,
    multiplier: Multiplier = None,
    jitter: Jitter = None,
    dead_letter: DeadLetter = None,
    ack_timeout: AckTimeout = None,
    max_lease: MaxLease = None,
    start: Start = None,
    max_unacked: MaxUnacked = None,
    max_retrying: MaxRetrying = None,
    endpoints: Endpoints = DEFAULT_ENDPOINTS,
    timeout: Timeout = _TIMEOUT,
    as_json: Json = False,
) -> None:
    """Create a group; one that is just the same is fine."""
    if not topics and not patterns:
        raise typer.BadParameter("a group reads something: give --topic or --pattern.")
    fields = _fields(topics, patterns, dead_letter, ack_timeout, max_lease, start, max_unacked, max_retrying)
    pauses = _pauses(attempts, backoff, multiplier, jitter)
    from holdfast.cli.group_output import show
    from holdfast.cli.session import with_client
    from holdfast.client.groups import GroupDefinition
    from holdfast.client.retry import Retry

    definition = GroupDefinition(
        semantics=semantics.value.replace("-", "_"),  # type: ignore[arg-type]
        ordering=ordering.value,
        retry=Retry(**pauses),
        **fields,
    )
    show(with_client(endpoints, lambda bus: bus.create_group(name, definition, timeout=timeout)), as_json)


@app.command("update")
def update(
    name: Name,
    topics: Topics = None,
    patterns: Patterns = None,
    attempts: Attempts = None,
    backoff: Backoff = None,
    multiplier: Multiplier = None,
    jitter: Jitter = None,
    dead_letter: DeadLetter = None,
    ack_timeout: AckTimeout = None,
    max_lease: MaxLease = None,
    start: Start = None,
    max_unacked: MaxUnacked = None,
    max_retrying: MaxRetrying = None,
    endpoints: Endpoints = DEFAULT_ENDPOINTS,
    timeout: Timeout = _TIMEOUT,
    as_json: Json = False,
) -> None:
    """Change a group's definition, at once and under its members; what is not named stays."""
    fields = _fields(topics, patterns, dead_letter, ack_timeout, max_lease, start, max_unacked, max_retrying)
    pauses = _pauses(attempts, backoff, multiplier, jitter)
    if not fields and not pauses:
        raise typer.BadParameter(
            "nothing to change: give --topic, --attempts, --backoff, --dead-letter or another option."
        )
    from holdfast.cli.group_output import show
    from holdfast.cli.session import with_client

    def change(has: GroupDefinition) -> GroupDefinition:
        return replace(has, retry=replace(has.retry, **pauses), **fields)

    show(with_client(endpoints, lambda bus: _update(bus, name, change, timeout)), as_json)


@app.command("delete")
def delete(
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", "-y", metavar=FLAG, help="Do not ask.")] = False,
    endpoints: Endpoints = DEFAULT_ENDPOINTS,
    timeout: Timeout = _TIMEOUT,
    as_json: Json = False,
) -> None:
    """Delete a group without members: its definition, its positions, its records that wait."""
    group_records.confirm(
        yes,
        f"this deletes group {name} with its positions",
        f"Delete group {name} with its positions?",
        "nothing was deleted",
    )
    from holdfast.cli.output import print_json
    from holdfast.cli.session import with_client

    with_client(endpoints, lambda bus: bus.delete_group(name, timeout=timeout))
    if as_json:
        print_json({"deleted": name})
    else:
        print(f"deleted {name}")


app.command("seek")(group_records.seek)
app.command("retries")(group_records.retries)
app.command("restore")(group_records.restore)
app.command("lag")(group_lag.lag)


async def _update(
    bus: Any, name: str, change: Callable[[GroupDefinition], GroupDefinition], timeout: float
) -> Any:
    # A definition is replaced as a whole; what is not named is sent as it stands.
    group = await bus.group(name, timeout=timeout)
    if group.definition is None:
        from holdfast.errors import FailedPreconditionError

        raise FailedPreconditionError(
            f"group {name!r} was never defined; define it: holdfast group create {name} --topic TOPIC"
        )
    return await bus.put_group(name, change(group.definition), timeout=timeout)


def _fields(
    topics: list[str] | None,
    patterns: list[str] | None,
    dead_letter: str | None,
    ack_timeout: str | None,
    max_lease: str | None,
    start: str | None,
    max_unacked: int | None,
    max_retrying: int | None,
) -> dict[str, Any]:
    """The fields of a definition that were given."""
    found: dict[str, Any] = {}
    if topics:
        found["topics"] = tuple(topics)
    if patterns:
        found["patterns"] = tuple(patterns)
    if dead_letter is not None:
        found["dead_letter"] = "" if dead_letter == "none" else dead_letter
    if ack_timeout is not None:
        found["ack_timeout"] = _seconds(ack_timeout, "--ack-timeout")
    if max_lease is not None:
        found["max_lease"] = 0.0 if max_lease == "none" else _seconds(max_lease, "--max-lease")
    if start is not None:
        found["start"] = _start(start)
    if max_unacked is not None:
        found["max_unacked"] = max_unacked
    if max_retrying is not None:
        found["max_retrying"] = max_retrying
    return found


def _pauses(
    attempts: int | None, backoff: str | None, multiplier: float | None, jitter: float | None
) -> dict[str, Any]:
    """The fields of a retry policy that were given."""
    found: dict[str, Any] = {}
    if attempts is not None:
        found["attempts"] = attempts
    if backoff is not None:
        first, _, longest = backoff.partition("..")
        found["initial"] = _seconds(first, "--backoff")
        found["maximum"] = _seconds(longest or first, "--backoff")
    if multiplier is not None:
        found["multiplier"] = multiplier
    if jitter is not None:
        found["jitter"] = jitter
    return found


def _seconds(text: str, option: str) -> float:
    try:
        return parse_duration_us(text) / 1_000_000
    except ValueError as error:
        raise typer.BadParameter(f"{error}.", param_hint=f"'{option}'") from None


def _start(text: str) -> Any:
    at = parse_position(text, "--start")
    if at.kind == "offset":
        raise typer.BadParameter(
            "a group begins at a time, earliest or latest; seek it afterwards.", param_hint="'--start'"
        )
    from holdfast.cli.reading import to_place

    return to_place(at)
