"""A broker as a process: signals, logs, the ready line, the exit status."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
import threading
from importlib.metadata import version

import uvloop

from holdfast.rpc import logs
from holdfast.rpc.broker import Broker
from holdfast.rpc.malloc import give_back, keep_freed_memory
from holdfast.rpc.settings import Settings, Telemetry

logger = logging.getLogger("holdfast.broker")

#: After a failed engine or a second signal, the process ends by force after this long.
_LAST_RESORT_S = 10.0
_SWITCH_INTERVAL_S = 0.0002
#: How often free memory is looked at.
_TIDY_S = 2.0
_GC_THRESHOLD = 20_000


def run(settings: Settings) -> None:
    """See ``broker.run``."""
    # The engine and the loop hand work to each other within microseconds; the
    # default of 5 ms would let whoever runs keep the other waiting that long.
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    keep_freed_memory()
    logs.configure(settings.log, settings.node_id)
    _check_telemetry(settings.telemetry)
    if not uvloop.run(_main(settings)):
        sys.exit(1)


async def _main(settings: Settings) -> bool:
    """True when it was stopped; False when it failed."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[BaseException | None] = loop.create_future()

    def on_signal(name: str) -> None:
        if ended.done():
            logger.warning("%s again: ending at once", name)
            os._exit(130)
        logger.info("%s: stopping", name)
        ended.set_result(None)

    def on_failure(error: BaseException) -> None:
        if not ended.done():
            ended.set_result(error)

    broker = Broker(settings, on_failure=on_failure)
    await broker.start()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, on_signal, signum.name)
    # What a broker is made of stays; what a call makes is freed by reference
    # counts. Looking for cycles among it all, often, only costs latency.
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GC_THRESHOLD, 20, 50)
    _announce(broker)
    tidier = asyncio.create_task(_give_memory_back())
    failure = await ended
    tidier.cancel()
    if failure is not None:
        # The disk that failed may also block the way out.
        last_resort = threading.Timer(_LAST_RESORT_S, os._exit, (1,))
        last_resort.daemon = True
        last_resort.start()
    await broker.stop()
    logger.info("stopped")
    return failure is None


async def _give_memory_back() -> None:
    while True:
        await asyncio.sleep(_TIDY_S)
        await asyncio.to_thread(give_back)


def _check_telemetry(telemetry: Telemetry) -> None:
    """Half a setting is a mistake that shows only when the graphs stay empty."""
    wanted = telemetry.prometheus or telemetry.otlp_endpoint
    if wanted and not telemetry.enabled:
        logger.warning("telemetry.enabled is false: nothing is served or sent at %s", wanted)
    if telemetry.enabled and not wanted:
        logger.warning(
            "telemetry.enabled is true, but neither telemetry.prometheus nor telemetry.otlp_endpoint is set"
        )


def _announce(broker: Broker) -> None:
    settings = broker.settings
    peers = broker.peer_address or "none (single node)"
    message = (
        f"holdfast {version('holdfast')} is serving: node {settings.node_id} of cluster "
        f"{settings.cluster_id}, clients {broker.client_address}, peers {peers}, "
        f"data {settings.data_path.absolute()}"
    )
    facts = {
        "event": "ready",
        "cluster_id": settings.cluster_id,
        "client_address": broker.client_address,
        "peer_address": broker.peer_address,
        "data_dir": str(settings.data_path.absolute()),
        "pid": os.getpid(),
    }
    logger.info(message, extra=facts)
