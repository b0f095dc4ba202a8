"""``holdfast publish``: records from arguments, lines, NDJSON or CSV."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from holdfast.cli.inputs import Fields, InputFormat
from holdfast.cli.options import DEFAULT_ENDPOINTS, Endpoints, Json


def publish(
    topic: Annotated[str, typer.Argument(metavar="TOPIC")],
    values: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[VALUE]…", help="One record each; '-' reads standard input.", show_default=False
        ),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option("--file", "-f", metavar="FILE", help="NDJSON, CSV (a header line, then rows) or lines."),
    ] = None,
    kind: Annotated[
        InputFormat | None,
        typer.Option(
            "--format", help="Of the file or standard input; by default what the name says, or lines."
        ),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(
            "--key", "-k", metavar="FIELD", help="NDJSON and CSV: the field to key by; else the key."
        ),
    ] = None,
    timestamp: Annotated[
        str | None,
        typer.Option(
            "--timestamp",
            metavar="FIELD",
            help="NDJSON and CSV: the field of the event time (ISO 8601, or seconds); else the time itself.",
        ),
    ] = None,
    idempotency_key: Annotated[
        str | None,
        typer.Option(
            "--idempotency-key",
            metavar="FIELD",
            help="NDJSON and CSV: the field by which a record that was published before is known; "
            "of a single value: the key itself. The topic needs --idempotency-ttl.",
        ),
    ] = None,
    endpoints: Endpoints = DEFAULT_ENDPOINTS,
    timeout: Annotated[
        float, typer.Option("--timeout", metavar="SECONDS", help="Give up on a record after this long.")
    ] = 60.0,
    as_json: Json = False,
) -> None:
    """Publish records; returns when a majority of the brokers has them on disk.

    Of a CSV file each row becomes a JSON object.
    """
    from holdfast.cli.publishing import open_source, publish_all
    from holdfast.cli.session import with_client

    with open_source(values or [], file, kind, Fields(key, timestamp, idempotency_key)) as source:
        published = with_client(endpoints, lambda bus: publish_all(bus, topic, source, timeout))
    published.show(as_json=as_json)
