"""``holdfast up`` and ``down``: three brokers on this machine, in the background."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from holdfast.cli.options import Json, Timeout

_DEFAULT_DIRECTORY = Path("holdfast-data/local")
_DEFAULT_PORT = 7450

Directory = Annotated[
    Path, typer.Option("--dir", metavar="DIR", help="Where the brokers keep data, logs and pid files.")
]


def up(
    directory: Directory = _DEFAULT_DIRECTORY,
    port: Annotated[
        int,
        typer.Option("--port", min=1, max=65000, help="Of the first broker; the others are 10 and 20 above."),
    ] = _DEFAULT_PORT,
    timeout: Timeout = 30.0,
    as_json: Json = False,
) -> None:
    """Start three local brokers, or those of them that do not run, and wait for a leader."""
    from holdfast.cli.local_brokers import LocalBrokers
    from holdfast.cli.output import print_json, print_table

    brokers = LocalBrokers(directory, port)
    started = brokers.up(timeout)
    rows = [
        {
            "node_id": broker.node_id,
            "address": broker.client,
            "role": "leader" if broker.node_id == started.leader_id else "follower",
            "pid": broker.pid(),
            "log": str(broker.log),
        }
        for broker in brokers.brokers
    ]
    if as_json:
        print_json({"leader": started.leader_id, "started": list(started.started), "brokers": rows})
        return
    print_table(["NODE", "ADDRESS", "ROLE", "PID", "LOG"], [[str(v) for v in row.values()] for row in rows])
    if not started.started:
        print("all three were running already")
    if port != _DEFAULT_PORT:
        # Elsewhere than where the other commands look by themselves.
        print(f"export HOLDFAST_ENDPOINTS={','.join(broker.client for broker in brokers.brokers)}")


def down(
    directory: Directory = _DEFAULT_DIRECTORY,
    as_json: Json = False,
) -> None:
    """Stop the brokers that `up` started; their data stays."""
    from holdfast.cli.local_brokers import LocalBrokers
    from holdfast.cli.output import print_json

    stopped = LocalBrokers(directory).down()
    if as_json:
        print_json({"stopped": stopped})
    else:
        none = f"none was running in {directory} (`up` and `down` of other folders: --dir)"
        print(f"stopped {', '.join(stopped)}; data stays in {directory}" if stopped else none)
