"""How Holdfast bears a long log, many partitions and a silent network: figures beside their goals."""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import grpc
import uvloop

from benchmarks.compare import machine
from benchmarks.compare.workloads.context import one_line
from benchmarks.growth import log_size, partitions, scale, silence
from benchmarks.growth.findings import Finding, not_measured
from benchmarks.growth.report import embedded, text, write_json
from holdfast.chaos.keeper import INTERRUPTED, unwinding
from holdfast.errors import HoldfastError

SECTIONS = ("log", "restart", "partitions", "silent")
_LOGS = {"log", "restart"}
_README = Path(__file__).resolve().parents[1] / "README.md"

Tell = Callable[[str], None]


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Raises SystemExit for arguments that make no sense."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__)
    parser.add_argument("--only", action="append", choices=SECTIONS, help="these sections; may be repeated")
    parser.add_argument("--gigabytes", type=_gigabytes, help="payload of the long log (8; quick: 0.3)")
    parser.add_argument("--quick", action="store_true", help="small sizes: does it run at all")
    parser.add_argument("--directory", type=Path, help="for the brokers' data; on the disk to be measured")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every single figure")
    parser.add_argument("--write", action="store_true", help="renew the table of benchmarks/README.md")
    found = parser.parse_args(arguments)
    found.directory = found.directory or Path(tempfile.gettempdir())
    if not found.directory.is_dir():
        parser.error(f"--directory: {found.directory} is no directory")
    if found.write and (found.quick or found.only):
        parser.error("--write records a whole run: neither --quick nor --only")
    found.only = [name for name in SECTIONS if name in (found.only or SECTIONS)]
    found.scale = scale.of(found.quick, found.gigabytes)
    return found


async def run(options: argparse.Namespace, tell: Tell) -> tuple[list[Finding], list[str]]:
    """What was found, and which sections failed. All data is removed, also when it is cancelled."""
    found: list[Finding] = []
    failed: list[str] = []

    async def attempt(name: str, section: Coroutine[Any, Any, list[Finding]]) -> None:
        try:
            found.extend(await section)
        except (HoldfastError, grpc.RpcError, RuntimeError, OSError, ExceptionGroup) as error:
            tell(f"{name}: FAILED\n{traceback.format_exc(limit=-4)}")
            failed.append(name)
            found.append(not_measured(name, "", f"failed: {one_line(error)}"))

    with tempfile.TemporaryDirectory(
        prefix="holdfast-growth-", dir=options.directory, ignore_cleanup_errors=True
    ) as scratch:
        root, sizes = Path(scratch), options.scale
        logs = [name for name in options.only if name in _LOGS]
        if logs:
            await attempt(" and ".join(logs), log_size.findings(root, sizes, logs, tell))
        if "partitions" in options.only:
            await attempt("partitions", partitions.findings(root / "partitions", sizes, tell))
        if "silent" in options.only:
            await attempt("silent", silence.findings(root / "silent", sizes, tell))
    return found, failed


def main(arguments: Sequence[str] | None = None) -> int:
    """0: all measured, met or not; 1: a section failed; 2: it could not begin; 130: interrupted."""
    options = parse(arguments)
    began = time.monotonic()

    def tell(what: str) -> None:
        print(f"{time.monotonic() - began:6.1f} s  {what}", file=sys.stderr, flush=True)

    if _LOGS & set(options.only):
        why = scale.lacking_room(options.scale, shutil.disk_usage(options.directory).free)
        if why:
            print(why, file=sys.stderr)
            return 2
    try:
        if options.write:
            embedded(_README.read_text(encoding="utf-8"), "")  # better now than after ten minutes
        with unwinding():
            looked = machine.look(options.directory, quick=options.quick)
            tell(str(looked))
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                found, failed = runner.run(run(options, tell))
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return INTERRUPTED
    tell("done")
    report = text(looked, found)
    print(report)
    if options.json:
        write_json(options.json, looked, time.monotonic() - began, found)
    if options.write:
        _README.write_text(embedded(_README.read_text(encoding="utf-8"), report), encoding="utf-8")
    return 1 if failed else 0


def _gigabytes(of: str) -> float:
    number = float(of)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError("more than 0")
    return number
