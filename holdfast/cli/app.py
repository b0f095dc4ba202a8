"""The tree of commands."""

from __future__ import annotations

from typing import Annotated

import typer

from holdfast.cli.commands import cluster, consume, dead_letter, group, local, publish, replay, serve, topic
from holdfast.cli.options import FLAG

app = typer.Typer(
    name="holdfast",
    help="A fault-tolerant event bus: replicated, replayable, provably lossless.",
    epilog="Start with: holdfast serve, or three brokers: holdfast up.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"holdfast {version('holdfast')}")
        raise typer.Exit


@app.callback()
def _root(
    _version: Annotated[
        bool,
        typer.Option(
            "--version",
            metavar=FLAG,
            callback=_print_version,
            is_eager=True,
            help="Print the version and leave.",
        ),
    ] = False,
) -> None:
    pass


_BROKERS, _DATA, _STATE = "Brokers", "Events", "Cluster, topics and groups"
app.command("serve", rich_help_panel=_BROKERS)(serve.serve)
app.command("up", rich_help_panel=_BROKERS)(local.up)
app.command("down", rich_help_panel=_BROKERS)(local.down)
app.command("publish", rich_help_panel=_DATA)(publish.publish)
app.command("replay", rich_help_panel=_DATA)(replay.replay)
app.command("consume", rich_help_panel=_DATA)(consume.consume)
app.add_typer(topic.app, name="topic", rich_help_panel=_STATE)
app.add_typer(group.app, name="group", rich_help_panel=_STATE)
app.add_typer(cluster.app, name="cluster", rich_help_panel=_STATE)
app.add_typer(dead_letter.app, name="dead-letter", rich_help_panel=_STATE)
