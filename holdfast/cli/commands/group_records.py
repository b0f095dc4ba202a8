"""``holdfast group seek``, ``retries`` and ``restore``: where a group goes on, and what it has put off."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from holdfast.cli.options import DEFAULT_ENDPOINTS, FLAG, Endpoints, Json, Timeout
from holdfast.cli.times import parse_position

Name = Annotated[str, typer.Argument(metavar="GROUP")]
Topic = Annotated[str, typer.Option("--topic", "-t", metavar="TOPIC", help="Of the topics it reads.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", metavar=FLAG, help="Do not ask.")]
_TIMEOUT = 10.0


def seek(
    name: Name,
    topic: Topic,
    to: Annotated[
        str,
        typer.Option("--to", metavar="POSITION", help="earliest, latest, an offset, a time or how long ago."),
    ],
    partitions: Annotated[
        list[int] | None, typer.Option("--partition", min=0, help="Only this one; may be repeated.")
    ] = None,
    yes: Yes = False,
    endpoints: Endpoints = DEFAULT_ENDPOINTS,
    timeout: Timeout = _TIMEOUT,
    as_json: Json = False,
) -> None:
    """Have a group go on elsewhere in a topic; what it settled behind that place is handed out again."""
    at = parse_position(to, "--to")
    where = f"in partition {', '.join(map(str, partitions))} of {topic}" if partitions else f"in {topic}"
    confirm(
        yes,
        f"this moves group {name} to {to} {where}",
        f"Move group {name} to {to} {where}?",
        "nothing was moved",
    )
    from holdfast.cli.group_output import show
    from holdfast.cli.reading import to_place
    from holdfast.cli.session import with_client

    group = with_client(
        endpoints,
        lambda bus: bus.seek_group(name, topic, to_place(at), partitions=partitions or (), timeout=timeout),
    )
    show(group, as_json)


def retries(
    name: Name,
    parked: Annotated[
        bool, typer.Option("--parked", metavar=FLAG, help="Only those that are parked.")
    ] = False,
    limit: Annotated[
        int | None, typer.Option("--limit", "-n", min=1, metavar="N", help="At most so many.")
    ] = None,
    endpoints: Endpoints = DEFAULT_ENDPOINTS,
    timeout: Timeout = _TIMEOUT,
    as_json: Json = False,
) -> None:
    """Show a group's records that wait for another attempt or are parked, with their errors."""
    from holdfast.cli.group_output import print_retries
    from holdfast.cli.session import with_client

    records = with_client(
        endpoints, lambda bus: bus.retries(name, parked=parked, limit=limit, timeout=timeout)
    )
    if records or as_json:
        print_retries(records, as_json)
    else:
        print(f"no records of {name} {'are parked' if parked else 'wait'}", file=sys.stderr)


def restore(
    name: Name,
    topic: Annotated[
        str | None, typer.Option("--topic", "-t", metavar="TOPIC", help="Of the record.")
    ] = None,
    partition: Annotated[int | None, typer.Option("--partition", "-p", min=0, help="Of the record.")] = None,
    offsets: Annotated[
        list[int] | None, typer.Option("--offset", "-o", min=0, help="Of the record; may be repeated.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", metavar=FLAG, help="All that are parked.")] = False,
    discard: Annotated[
        bool, typer.Option("--discard", metavar=FLAG, help="Settle them: nobody will handle them.")
    ] = False,
    yes: Yes = False,
    endpoints: Endpoints = DEFAULT_ENDPOINTS,
    timeout: Timeout = _TIMEOUT,
    as_json: Json = False,
) -> None:
    """Have parked records handed out again, or settle them."""
    named = topic is not None and partition is not None and offsets
    if everything == bool(named) or (everything and (topic or partition is not None or offsets)):
        raise typer.BadParameter("name records by --topic, --partition and --offset, or all by --all.")
    if discard:
        what = f"all parked records of group {name}" if everything else f"records of group {name}"
        confirm(yes, f"this settles {what} unhandled", f"Settle {what} unhandled?", "nothing was settled")
    from holdfast.cli.output import print_json
    from holdfast.cli.session import with_client

    places = None if everything else [(topic or "", partition or 0, offset) for offset in offsets or []]
    count = with_client(endpoints, lambda bus: bus.restore(name, places, discard=discard, timeout=timeout))
    done = "discarded" if discard else "restored"
    if as_json:
        print_json({done: count})
    else:
        print(f"{done} {count:,} {'record' if count == 1 else 'records'}")


def confirm(yes: bool, what: str, question: str, otherwise: str) -> None:
    """Go on when ``yes`` says so, or the person at the terminal.

    Raises:
        typer.BadParameter: there is nobody to ask.
        typer.Exit: they do not want it.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise typer.BadParameter(f"{what}, and there is no terminal to ask at; add --yes.")
    if not typer.confirm(question, err=True):
        print(otherwise, file=sys.stderr)
        raise typer.Exit(1)
