"""One workload on one running system, seen from the runner: the worker process, and what the brokers use."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.compare.usage import Usage, proportional_bytes, usage
from benchmarks.compare.workloads import Workload
from benchmarks.compare.workloads.context import Parameters, one_line
from benchmarks.peers.processes import forget, keep
from benchmarks.peers.system import Cluster, Unsupported

_SAMPLE_SECONDS = 0.2
#: A workload's own limit does not include the start of the worker and the topic.
_GRACE_SECONDS = 20.0
#: What the return of a killed node may take, and a failover with it and with what the worker waits for.
_RESTART_SECONDS = 120.0
_FAILOVER_SECONDS = 60.0 + _RESTART_SECONDS

#: What a cell of the run is in ``--json``.
Cell = dict[str, Any]


async def measure(cluster: Cluster, workload: Workload, given: Parameters, log: Path) -> Cell:
    """Run the worker; its figures with the brokers' use of the machine, or why there are none.

    A cell that was given up says ``stalled``.
    """
    started = time.monotonic()
    limit = workload.deadline + _GRACE_SECONDS
    if workload.kills:
        limit += given.times * _FAILOVER_SECONDS
    with log.open("ab") as errors:
        worker = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "benchmarks.compare.worker", cluster.name, workload.name),
            *("--addresses", ",".join(cluster.addresses())),
            *("--parameters", json.dumps(asdict(given))),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
        )
    keep(worker.pid)
    try:
        async with asyncio.timeout(limit):
            cell = await _Conversation(cluster, worker).run()
    except TimeoutError:
        cell = _failed(f"not done after {limit:.0f} s") | {"stalled": True}
    except Unsupported as error:
        cell = failed(error, unsupported=True)
    except Exception as error:  # noqa: BLE001  (the cluster's side of a failover: any library's error)
        traceback.print_exc()
        cell = failed(error)
    finally:
        # Whatever the client library started goes too.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(worker.pid, signal.SIGKILL)
        await worker.wait()
        forget(worker.pid)
    return cell | {"took": time.monotonic() - started}


class _Conversation:
    """The messages of one worker, answered."""

    def __init__(self, cluster: Cluster, worker: asyncio.subprocess.Process) -> None:
        self._cluster = cluster
        self._worker = worker
        self._before: Usage | None = None
        self._after: Usage | None = None
        self._peak = 0
        self._pss = 0
        self._killed: int | None = None
        self._note: str | None = None

    async def run(self) -> Cell:
        sampler = asyncio.create_task(self._sample())
        try:
            return await self._answer()
        finally:
            sampler.cancel()
            await asyncio.gather(sampler, return_exceptions=True)

    async def _answer(self) -> Cell:
        assert self._worker.stdout is not None
        while line := await self._worker.stdout.readline():
            message = json.loads(line)
            match message["event"]:
                case "begin":
                    self._before = usage(self._pids())
                    self._say()
                case "end":
                    self._after = usage(self._pids())
                    self._pss = proportional_bytes(self._pids())
                case "kill":
                    self._say(**await self._kill_leader(message["topic"]))
                case "restart":
                    assert self._killed is not None
                    self._say(**await self._restart(self._killed))
                case "failed":
                    return _failed(message["reason"], unsupported=message["unsupported"])
                case "result":
                    return self._result(message)
        status = await self._worker.wait()
        return _failed(f"the client's process ended with status {status}")

    def _result(self, message: dict[str, Any]) -> Cell:
        cell: Cell = {key: message[key] for key in ("figures", "seconds", "cpu_seconds")}
        if note := self._note or message.get("note"):
            cell["note"] = note
        if self._before is not None and self._after is not None:
            cell["brokers"] = {
                "cpu_seconds": self._after.cpu_seconds - self._before.cpu_seconds,
                "written_bytes": self._after.written_bytes - self._before.written_bytes,
                "anonymous_bytes": max(self._peak, self._after.anonymous_bytes),
                "proportional_bytes": self._pss,
            }
        return cell

    async def _kill_leader(self, topic: str) -> dict[str, float]:
        """When the kill began and when the node was gone, by the clock that the worker reads too.

        Says ``ended`` when there is nobody to kill.
        """
        try:
            self._killed = await self._cluster.leader_of(topic)
        except Exception as error:  # noqa: BLE001  (any library's error)
            return self._fewer(error)
        began = time.monotonic()
        await asyncio.to_thread(self._cluster.kill, self._killed)
        return {"began": began, "gone": time.monotonic()}

    async def _restart(self, node: int) -> dict[str, float]:
        """Says ``ended`` when the node does not come back; the cell keeps what was measured, and a note."""
        try:
            async with asyncio.timeout(_RESTART_SECONDS):
                await self._cluster.restart(node)
        except TimeoutError:
            return self._fewer(TimeoutError(f"the killed node was not back after {_RESTART_SECONDS:.0f} s"))
        except Exception as error:  # noqa: BLE001  (any library's error)
            return self._fewer(error)
        return {}

    def _fewer(self, error: Exception) -> dict[str, float]:
        traceback.print_exception(error)
        self._note = f"fewer kills: {one_line(error)}"
        return {"ended": 1}

    async def _sample(self) -> None:
        while True:
            if self._before is not None and self._after is None:
                self._peak = max(self._peak, usage(self._pids()).anonymous_bytes)
            await asyncio.sleep(_SAMPLE_SECONDS)

    def _pids(self) -> list[int]:
        return [pid for node in self._cluster.pids() for pid in node]

    def _say(self, **message: float) -> None:
        assert self._worker.stdin is not None
        self._worker.stdin.write(json.dumps(message or {"event": "go"}).encode() + b"\n")


def failed(error: BaseException, *, unsupported: bool = False) -> Cell:
    """The cell of a workload that ended with ``error``."""
    return _failed(one_line(error), unsupported=unsupported)


def _failed(reason: str, *, unsupported: bool = False) -> Cell:
    return {"failed": reason, "unsupported": unsupported}
