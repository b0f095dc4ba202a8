"""``holdfast consume``: read as a member of a group, acknowledging what was printed."""

from __future__ import annotations

from typing import Annotated

import typer

from holdfast.cli.commands.group import Attempts, DeadLetter, Ordering
from holdfast.cli.options import DEFAULT_ENDPOINTS, Endpoints, Json


def consume(
    topics: Annotated[list[str], typer.Argument(metavar="TOPIC…")],
    group: Annotated[
        str, typer.Option("--group", "-g", metavar="GROUP", help="Members share the partitions.")
    ],
    start: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="POSITION",
            help="Where a group that is new to a partition starts: earliest, latest, a time or how long ago.",
        ),
    ] = "earliest",
    limit: Annotated[
        int | None, typer.Option("--limit", "-n", min=1, metavar="N", help="Stop after this many records.")
    ] = None,
    idle: Annotated[
        float | None,
        typer.Option("--idle", min=0.1, metavar="SECONDS", help="Stop when nothing came for this long."),
    ] = None,
    member: Annotated[
        str | None,
        typer.Option("--member", metavar="ID", help="The same id comes back to its partitions."),
    ] = None,
    ordering: Annotated[
        Ordering | None, typer.Option("--ordering", help="Of a group that is made, or has to be so.")
    ] = None,
    attempts: Attempts = None,
    dead_letter: DeadLetter = None,
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="Shown by the brokers.")] = "",
    endpoints: Endpoints = DEFAULT_ENDPOINTS,
    as_json: Json = False,
) -> None:
    """Print a group's records, acknowledging each once it is printed; Ctrl-C stops.

    What was not acknowledged is given to the group again. A group that is defined is joined as a member, and
    so it is with --member, --ordering, --attempts or --dead-letter, which define one that is not there.
    """
    from holdfast.cli.consuming import ConsumeRequest, MemberRequest, print_group
    from holdfast.cli.session import with_client
    from holdfast.cli.times import parse_position

    initial = parse_position(start, "--from")
    if initial.kind == "offset":
        raise typer.BadParameter("a group starts at a time, earliest or latest.", param_hint="'--from'")
    request = ConsumeRequest(
        topics=tuple(topics),
        group=group,
        start=initial,
        limit=limit,
        idle=idle,
        name=name,
        wants=MemberRequest(member, None if ordering is None else ordering.value, attempts, dead_letter),
    )
    with_client(endpoints, lambda bus: print_group(bus, request, as_json=as_json))
