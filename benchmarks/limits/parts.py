"""What was measured of the machine and of the parts alone, in plain lines. No I/O."""

from __future__ import annotations

import statistics

from benchmarks.limits.physical import REQUEST, Physical
from benchmarks.limits.table import commit_micros, size_text


def parts(physical: Physical) -> list[str]:
    """One line for each."""
    return [*_disk(physical), *_store(physical), *_memory(physical), *_wire(physical), *_coded(physical)]


def _disk(physical: Physical) -> list[str]:
    three = statistics.mean(one["micros"] for one in physical.sync_three)
    alone = physical.sync["micros"]
    lines = [f"fdatasync of 4 KiB appended: {alone:.0f} µs alone, {three:.0f} µs with three at once"]
    for size, one in physical.append.items():
        after = physical.append_after[size]["megabytes"]
        line = f"appends of {size_text(size)}, each fdatasynced: {one['megabytes']:.0f} MB/s"
        line += f", after all workloads {after:.0f} MB/s"
        several = physical.append_three.get(size)
        if several:
            line += f"; each of three at once {statistics.mean(s['megabytes'] for s in several):.0f} MB/s"
        lines.append(line)
    return lines


def _store(physical: Physical) -> list[str]:
    small, bulk = physical.store_small, physical.store_bulk
    beside = statistics.mean(one["megabytes"] for one in physical.store_bulk_three)
    engines = physical.engines
    rates = [f"{rate:.0f} MB/s of {size_text(int(size))}" for size, rate in engines["megabytes"].items()]
    return [
        f"the store, one small entry per commit: {commit_micros([small]):.0f} µs alone, "
        f"{commit_micros(physical.store_small_three):.0f} µs with three at once",
        f"the store, four entries of {size_text(REQUEST)} per commit: {bulk['megabytes']:.0f} MB/s alone, "
        f"{beside:.0f} MB/s each of three at once; {bulk['cpu_per_gigabyte']:.2f} CPU s per GB",
        f"three engines without gRPC: {engines['micros']:.0f} µs one at a time; {', '.join(rates)}",
    ]


def _memory(physical: Physical) -> list[str]:
    link = physical.link
    return [
        f"loopback TCP: {link['micros']:.0f} µs round trip, {link['megabytes_64k']:,.0f} MB/s in writes of "
        f"64 KiB, {link['megabytes_1m']:,.0f} MB/s of 1 MiB",
        f"memory: {physical.copies:.1f} GB/s copied by one thread",
        f"hand-over to another thread of the process, through a socket pair: {physical.hand_over:.0f} µs",
    ]


def _wire(physical: Physical) -> list[str]:
    grpc = physical.grpc
    lines = [
        f"gRPC alone: unary {grpc['unary_micros']:.0f} µs, stream round trip {grpc['stream_micros']:.0f} µs; "
        f"{grpc['cpu_per_gigabyte']:.2f} CPU s per GB, both ends"
    ]
    for way, rates in (("to the server", grpc["up"]), ("to the client", grpc["down"])):
        told = [f"{rate:.0f} MB/s in messages of {size_text(int(size))}" for size, rate in rates.items()]
        lines.append(f"gRPC alone, stream {way}: {', '.join(told)}")
    return lines


def _coded(physical: Physical) -> list[str]:
    return [
        f"the SDK alone, records of {size_text(size)}: {coded['encode'] / 1e6:.2f} M/s encoded, "
        f"{coded['decode'] / 1e6:.2f} M/s decoded"
        for size, coded in physical.coded.items()
    ]
