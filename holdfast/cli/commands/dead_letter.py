"""``holdfast dead-letter``: what groups gave up, listed, published again, or let go of."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from holdfast.cli.options import DEFAULT_ENDPOINTS, FLAG, Endpoints, Json

if TYPE_CHECKING:
    from holdfast.client.dead_letters import DeadLetterFilter

app = typer.Typer(help="List, redrive and discard dead letters.", no_args_is_help=True)

Topic = Annotated[str, typer.Argument(metavar="TOPIC", help="The topic to which groups give up records.")]
Group = Annotated[
    str | None, typer.Option("--group", "-g", metavar="GROUP", help="Only what this group gave up.")
]
Origin = Annotated[
    str | None, typer.Option("--origin", metavar="TOPIC", help="Only what was read from this topic.")
]
Error = Annotated[
    str | None, typer.Option("--error", metavar="TEXT", help="Only with this text in one of the errors.")
]
Key = Annotated[str | None, typer.Option("--key", metavar="KEY", help="Only records of this key.")]
Since = Annotated[
    str | None,
    typer.Option("--since", metavar="TIME", help="Only given up since: a time, or how long ago (1h)."),
]
Until = Annotated[
    str | None,
    typer.Option("--until", metavar="TIME", help="Only given up before: a time, or how long ago (1h)."),
]
Partition = Annotated[
    int | None, typer.Option("--partition", "-p", min=0, metavar="N", help="Only in this partition of TOPIC.")
]
Offsets = Annotated[
    list[int] | None,
    typer.Option("--offset", "-o", min=0, metavar="N", help="Only this one of --partition; may be repeated."),
]
DryRun = Annotated[bool, typer.Option("--dry-run", metavar=FLAG, help="Only say what would be done.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", metavar=FLAG, help="Do not ask.")]
Limit = Annotated[int | None, typer.Option("--limit", "-n", min=1, metavar="N", help="At most so many.")]


@app.command("list")
def list_letters(
    topic: Topic,
    group: Group = None,
    origin: Origin = None,
    error: Error = None,
    key: Key = None,
    since: Since = None,
    until: Until = None,
    partition: Partition = None,
    offsets: Offsets = None,
    limit: Limit = None,
    values: Annotated[bool, typer.Option("--values", metavar=FLAG, help="Show keys and values too.")] = False,
    endpoints: Endpoints = DEFAULT_ENDPOINTS,
    as_json: Json = False,
) -> None:
    """List dead letters: place, group, origin, attempts, when given up, last error."""
    chosen = _filter(group, origin, error, key, since, until, partition, offsets)
    from holdfast.cli.letters import print_letters
    from holdfast.cli.session import with_client

    with_client(
        endpoints, lambda bus: print_letters(bus, topic, chosen, limit, values=values, as_json=as_json)
    )


@app.command("redrive")
def redrive(
    topic: Topic,
    group: Group = None,
    origin: Origin = None,
    error: Error = None,
    key: Key = None,
    since: Since = None,
    until: Until = None,
    partition: Partition = None,
    offsets: Offsets = None,
    limit: Limit = None,
    rate: Annotated[
        int | None, typer.Option("--rate", min=1, metavar="N", help="Records a second; 1,000 without.")
    ] = None,
    to: Annotated[
        str | None, typer.Option("--to", metavar="TOPIC", help="Another topic than the one each came from.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", metavar=FLAG, help="Also what came back before.")] = False,
    dry_run: DryRun = False,
    yes: Yes = False,
    endpoints: Endpoints = DEFAULT_ENDPOINTS,
    as_json: Json = False,
) -> None:
    """Publish dead letters again where they came from, and take them off the list."""
    chosen = _filter(group, origin, error, key, since, until, partition, offsets)
    _ask("redrive", topic, chosen, yes=yes or dry_run)
    from holdfast.cli.letters import run_redrive
    from holdfast.cli.session import with_client

    done = with_client(
        endpoints,
        lambda bus: run_redrive(
            bus,
            topic,
            chosen,
            to=to,
            rate=rate,
            limit=limit,
            force=force,
            dry_run=dry_run,
            as_json=as_json,
        ),
    )
    if not done:
        raise typer.Exit(1)


@app.command("discard")
def discard(
    topic: Topic,
    group: Group = None,
    origin: Origin = None,
    error: Error = None,
    key: Key = None,
    since: Since = None,
    until: Until = None,
    partition: Partition = None,
    offsets: Offsets = None,
    limit: Limit = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    endpoints: Endpoints = DEFAULT_ENDPOINTS,
    as_json: Json = False,
) -> None:
    """Take dead letters off the list; their records stay in TOPIC until it is trimmed."""
    chosen = _filter(group, origin, error, key, since, until, partition, offsets)
    _ask("discard", topic, chosen, yes=yes or dry_run)
    from holdfast.cli.letters import run_discard
    from holdfast.cli.session import with_client

    with_client(
        endpoints,
        lambda bus: run_discard(bus, topic, chosen, limit=limit, dry_run=dry_run, as_json=as_json),
    )


def _filter(
    group: str | None,
    origin: str | None,
    error: str | None,
    key: str | None,
    since: str | None,
    until: str | None,
    partition: int | None,
    offsets: list[int] | None,
) -> DeadLetterFilter:
    if offsets and partition is None:
        raise typer.BadParameter(
            "offsets are those of a partition: add --partition.", param_hint="'--offset'"
        )
    from holdfast.client.dead_letters import DeadLetterFilter

    return DeadLetterFilter(
        group=group or "",
        origin_topic=origin or "",
        error=error or "",
        key=key,
        since=None if since is None else _moment(since, "--since"),
        until=None if until is None else _moment(until, "--until"),
        partition=partition,
        offsets=offsets or (),
    )


def _moment(text: str, option: str) -> int:
    """Microseconds since the epoch of a time, or of so long ago."""
    import time

    from holdfast.cli.times import parse_duration_us, parse_time

    try:
        return time.time_ns() // 1000 - parse_duration_us(text.removeprefix("-"))
    except ValueError:
        pass
    try:
        return parse_time(text)
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is no time like 2013-07-04T12:30:00Z, and not how long ago, like 1h.",
            param_hint=f"'{option}'",
        ) from None


def _ask(verb: str, topic: str, chosen: DeadLetterFilter, *, yes: bool) -> None:
    """Everything at once is seldom meant.

    Raises:
        typer.BadParameter: nothing is chosen, and there is nobody to ask.
        typer.Exit: the answer is no.
    """
    from holdfast.client.dead_letters import EVERY

    if yes or chosen != EVERY:
        return
    if not sys.stdin.isatty():
        raise typer.BadParameter(
            f"this would {verb} all dead letters of {topic}, and there is no terminal to ask at; choose some "
            "(--group, --error, --since, ...), look first (--dry-run), or add --yes."
        )
    if not typer.confirm(f"{verb.capitalize()} all dead letters of {topic}?", err=True):
        print("nothing was done", file=sys.stderr)
        raise typer.Exit(1)
