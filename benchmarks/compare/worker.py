"""One workload on one system, in a process of its own so that the client's processor time is its own.

    python -m benchmarks.compare.worker SYSTEM WORKLOAD --addresses HOST:PORT,… [--parameters JSON]

Messages are JSON lines on standard output: ``{"event": "begin"}`` right before the measured part, upon which
it waits for a line on standard input (its end will do); ``{"event": "end"}`` right after it; in the end one
``{"event": "result", "figures": {…}, "seconds": …, "cpu_seconds": …}``, with a ``note`` of what the figures
lack, if anything; or ``{"event": "failed", "unsupported": …, "reason": …}``. What libraries print goes to
standard error. Exit status 0 in all these cases; 2 for arguments that make no sense.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import traceback
from collections.abc import Sequence

import msgspec
import uvloop

from benchmarks.compare.workloads import WORKLOADS, Workload
from benchmarks.compare.workloads.context import Channel, Context, Parameters, one_line, private_channel
from benchmarks.peers.catalog import SYSTEMS, make_client
from benchmarks.peers.system import Unsupported

_CLOSE_SECONDS = 10.0


async def work(
    system: str, workload: Workload, addresses: Sequence[str], given: Parameters, to: Channel
) -> None:
    """Connect, run, report. Raises what the client raises; of a failed run, not what closing raises too."""
    client = make_client(system, addresses)
    await client.connect()
    context = Context(system, client, given, to, workload.name)
    try:
        figures = await workload.run(context)
    except BaseException:
        try:
            await asyncio.wait_for(client.close(), _CLOSE_SECONDS)
        except Exception:  # noqa: BLE001  (the first error is the one to tell)
            traceback.print_exc()
        raise
    await asyncio.wait_for(client.close(), _CLOSE_SECONDS)
    window, more = context.window, {"note": context.note} if context.note else {}
    to.say(event="result", figures=figures, seconds=window.seconds, cpu_seconds=window.cpu_seconds, **more)


async def told(
    system: str, workload: Workload, addresses: Sequence[str], given: Parameters, to: Channel
) -> None:
    """``work``; its failure is told at once, before the loop waits for threads that a library has left."""
    try:
        await work(system, workload, addresses, given, to)
    except Unsupported as error:
        to.say(event="failed", unsupported=True, reason=one_line(error))
    except Exception as error:  # noqa: BLE001  (a client library may raise anything; it is told and shown)
        traceback.print_exc()
        to.say(event="failed", unsupported=False, reason=one_line(error))


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Raises SystemExit for arguments that make no sense."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare.worker")
    parser.add_argument("system", choices=SYSTEMS)
    parser.add_argument("workload", choices=WORKLOADS)
    parser.add_argument("--addresses", required=True, help="of the nodes, separated by commas")
    parser.add_argument("--parameters", default="{}", help="JSON of workloads.context.Parameters")
    found = parser.parse_args(arguments)
    try:
        found.parameters = msgspec.convert(json.loads(found.parameters), Parameters)
    except (ValueError, msgspec.ValidationError) as error:
        parser.error(f"--parameters: {error}")
    return found


def main() -> int:
    arguments = parse()
    channel = private_channel()
    workload = WORKLOADS[arguments.workload]
    uvloop.run(
        told(arguments.system, workload, arguments.addresses.split(","), arguments.parameters, channel)
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
