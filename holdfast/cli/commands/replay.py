"""``holdfast replay``: read records from anywhere, without a group."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from holdfast.cli.options import DEFAULT_ENDPOINTS, FLAG, Endpoints, Json


class Basis(StrEnum):
    """Which of a record's two times is meant."""

    RECORD = "record"
    APPEND = "append"


def replay(
    topic: Annotated[str, typer.Argument(metavar="TOPIC")],
    start: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="POSITION",
            help="earliest, latest, a time (2013-07-04T12:00:00Z), how long ago (-15m), or an offset, which "
            "every partition read must have (see --partition).",
        ),
    ] = "earliest",
    end: Annotated[
        str | None, typer.Option("--to", metavar="POSITION", help="Stop before this; else at the end of now.")
    ] = None,
    partitions: Annotated[
        list[int] | None,
        typer.Option("--partition", "-p", min=0, metavar="N", help="Only this one; may be repeated."),
    ] = None,
    follow: Annotated[
        bool,
        typer.Option(
            "--follow", metavar=FLAG, help="Go on with what is published from now on; Ctrl-C stops."
        ),
    ] = False,
    limit: Annotated[
        int | None, typer.Option("--limit", "-n", min=1, metavar="N", help="Stop after this many records.")
    ] = None,
    basis: Annotated[
        Basis, typer.Option("--time-basis", help="Times mean event times, or times of append.")
    ] = Basis.RECORD,
    linearizable: Annotated[
        bool,
        typer.Option(
            "--linearizable",
            metavar=FLAG,
            help="First make sure that all acknowledged so far is visible.",
        ),
    ] = False,
    endpoints: Endpoints = DEFAULT_ENDPOINTS,
    as_json: Json = False,
) -> None:
    """Print records: PARTITION:OFFSET, event time, key, value; with --json one object a line.

    Order holds within a partition.
    """
    from holdfast.cli.reading import ReplayRequest, print_replay
    from holdfast.cli.session import with_client
    from holdfast.cli.times import parse_position

    request = ReplayRequest(
        topic=topic,
        start=parse_position(start, "--from"),
        end=parse_position(end, "--to") if end is not None else None,
        partitions=tuple(partitions or ()),
        follow=follow,
        limit=limit,
        basis="append" if basis is Basis.APPEND else "record",
        linearizable=linearizable,
    )
    with_client(endpoints, lambda bus: print_replay(bus, request, as_json=as_json))
