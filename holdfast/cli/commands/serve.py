"""``holdfast serve``: one broker in the foreground."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from holdfast.cli.options import Json, parse_size


def serve(
    config: Annotated[
        Path | None, typer.Option("--config", "-c", metavar="FILE", help="Settings in a TOML file.")
    ] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option("--data-dir", metavar="DIR", help="Where data is kept. \\[default: ./holdfast-data]"),
    ] = None,
    listen: Annotated[
        str | None,
        typer.Option("--listen", metavar="HOST:PORT", help="For clients. \\[default: 127.0.0.1:7450]"),
    ] = None,
    peer_listen: Annotated[
        str | None,
        typer.Option("--peer-listen", metavar="HOST:PORT", help="For brokers. \\[default: 127.0.0.1:7451]"),
    ] = None,
    node_id: Annotated[
        str | None, typer.Option("--node-id", metavar="ID", help="This broker's name. \\[default: n1]")
    ] = None,
    members: Annotated[
        str | None,
        typer.Option(
            "--members",
            metavar="ID=HOST:PORT/PEERPORT,…",
            help="All brokers of the cluster, this one included.",
        ),
    ] = None,
    quota: Annotated[
        str | None,
        typer.Option(
            "--quota", metavar="SIZE", help="Refuse publishes past this much data. \\[default: 64GiB]"
        ),
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Any other setting, such as raft.heartbeat_ms=50."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Run a broker in the foreground; without options a single node.

    Settings come from the file, then HOLDFAST_* variables, then these options.
    With --json the log is JSON, one object a line. Ctrl-C or SIGTERM stops it.
    """
    overrides: dict[str, Any] = {}
    for assignment in assignments or []:
        name, equals, value = assignment.partition("=")
        if not equals:
            raise typer.BadParameter(f"{assignment!r} is not name=value.", param_hint="'--set'")
        overrides[name.strip()] = value
    overrides |= {
        "data_dir": str(data_dir) if data_dir else None,
        "listen": listen,
        "peer_listen": peer_listen,
        "node_id": node_id,
        "members": members,
        "quota_bytes": parse_size(quota, "--quota") if quota else None,
        "log.format": "json" if as_json else None,
    }
    from holdfast.rpc.settings import load

    settings = load(config, overrides={name: v for name, v in overrides.items() if v is not None})
    from holdfast.rpc.broker import run

    run(settings)
