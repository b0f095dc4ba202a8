"""``python -m holdfast.chaos.pipeline publish|consume``: the processes of the drill ``exactly-once``."""

from __future__ import annotations

import argparse
import asyncio

from holdfast.chaos.pipeline.consumer import consume
from holdfast.chaos.pipeline.publisher import publish


def main() -> None:
    parser = argparse.ArgumentParser(prog="holdfast.chaos.pipeline", description=__doc__)
    parser.add_argument("--endpoints", required=True, help="host:port, joined by commas")
    parts = parser.add_subparsers(dest="part", required=True)
    publishing = parts.add_parser("publish", help="rows of the flights table as orders")
    publishing.add_argument("--first", type=int, default=0)
    publishing.add_argument("--end", type=int, required=True)
    publishing.add_argument("--seconds", type=float, default=0.0, help="to take for it")
    consuming = parts.add_parser("consume", help="orders to payments, payments to the ledger, until SIGTERM")
    consuming.add_argument("--database", default="", help="a PostgreSQL that has the ledger; else a topic")
    arguments = parser.parse_args()
    endpoints = arguments.endpoints.split(",")
    if arguments.part == "publish":
        asyncio.run(publish(endpoints, arguments.first, arguments.end, arguments.seconds))
    else:
        asyncio.run(consume(endpoints, arguments.database))


if __name__ == "__main__":
    main()
