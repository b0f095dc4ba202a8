"""``holdfast group lag``: how far groups are behind."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from holdfast.cli.options import DEFAULT_ENDPOINTS, FLAG, Endpoints, Json, Timeout
from holdfast.cli.times import parse_duration_us

if TYPE_CHECKING:
    import holdfast

_TIMEOUT = 10.0
_CLEAR = "\x1b[2J\x1b[H"


def lag(
    name: Annotated[str | None, typer.Argument(metavar="[GROUP]", help="Only this one.")] = None,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", metavar=FLAG, help="Show it again and again, until Ctrl-C.")
    ] = False,
    every: Annotated[
        str, typer.Option("--every", metavar="DURATION", help="How often, with --watch.")
    ] = "2s",
    endpoints: Endpoints = DEFAULT_ENDPOINTS,
    timeout: Timeout = _TIMEOUT,
    as_json: Json = False,
) -> None:
    """Show how far groups are behind, in records and in time, for each partition."""
    pause = _seconds(every)
    from holdfast.cli.session import with_client

    async def show(bus: holdfast.Client) -> None:
        while True:
            lags = await bus.lag(name, timeout=timeout)
            if watch and not as_json and sys.stdout.isatty():
                print(_CLEAR, end="")
            _print(lags, as_json, name)
            sys.stdout.flush()
            if not watch:
                return
            await asyncio.sleep(pause)

    with_client(endpoints, show)


def _seconds(text: str) -> float:
    try:
        seconds = parse_duration_us(text) / 1_000_000
    except ValueError as error:
        raise typer.BadParameter(f"{error}.", param_hint="'--every'") from None
    if seconds < 0.1:
        raise typer.BadParameter("at least 100ms.", param_hint="'--every'")
    return seconds


def _print(lags: list[holdfast.PartitionLag], as_json: bool, name: str | None) -> None:
    from holdfast.cli.output import print_json, print_table

    if as_json:
        print_json({"lags": [_as_dict(lag) for lag in lags]})
    elif lags:
        print_table(
            ["GROUP", "TOPIC", "PARTITION", "LAG", "BEHIND", "RETRYING", "PARKED"],
            [
                [
                    lag.group,
                    lag.topic,
                    lag.partition,
                    lag.records,
                    _behind(lag.records, lag.seconds),
                    lag.retrying,
                    lag.parked,
                ]
                for lag in lags
            ],
        )
    elif name is not None:
        print(f"{name} has begun with no partition yet", file=sys.stderr)
    else:
        print("no group has begun with a topic yet", file=sys.stderr)


def _as_dict(lag: holdfast.PartitionLag) -> dict[str, Any]:
    from holdfast.cli.times import format_time
    from holdfast.client.times import to_us

    return {
        "group": lag.group,
        "topic": lag.topic,
        "partition": lag.partition,
        "records": lag.records,
        "seconds": lag.seconds,
        "oldest_at": None if lag.oldest_at is None else format_time(to_us(lag.oldest_at)),
        "floor": lag.floor,
        "end": lag.end,
        "retrying": lag.retrying,
        "parked": lag.parked,
    }


def totals(lags: list[holdfast.PartitionLag]) -> dict[str, tuple[int, str]]:
    """Of each group all records it is behind, and by how long at most."""
    records: dict[str, int] = {}
    seconds: dict[str, float] = {}
    for lag in lags:
        records[lag.group] = records.get(lag.group, 0) + lag.records
        seconds[lag.group] = max(seconds.get(lag.group, 0.0), lag.seconds)
    return {group: (count, _behind(count, seconds[group])) for group, count in records.items()}


def _behind(records: int, seconds: float) -> str:
    """``1h02m``, ``3m20s``, ``7.5s``: as exact as a person reads it."""
    if not records:
        return "-"
    if seconds < 60:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes}m{rest:02}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m" if hours < 48 else f"{hours // 24}d{hours % 24:02}h"
