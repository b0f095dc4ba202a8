"""From a function, a library or a system call to the stage of the work it belongs to. No I/O."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

#: Python: the first rule that a frame fits, looked for from the innermost frame outwards: part of the
#: file's path, functions or nothing for all, stage.
_FRAMES: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("selectors.py", (), "wait for work"),
    (
        "holdfast/storage/lmdb_store.py",
        ("LmdbStore.commit", "WriteSide.commit", "LmdbStore._reserve_ahead"),
        "commit",
    ),
    ("holdfast/storage/lmdb_store.py", ("LmdbStore.usage", "LmdbStore._disk_free"), "room on disk"),
    ("holdfast/storage/journal.py", ("append",), "log: append"),
    ("holdfast/storage/", (), "store: other reads and writes"),
    ("holdfast/cluster/delivery/", (), "replay: reading"),
    ("holdfast/cluster/state/", (), "state machine"),
    ("holdfast/cluster/commands.py", (), "entries: frame, parse"),
    ("holdfast/rpc/peer/framing.py", (), "peer link: encode, CRC, parse"),
    ("holdfast/rpc/peer/append_wire.py", (), "peer link: encode, CRC, parse"),
    ("holdfast/rpc/peer/tcp.py", ("TcpTransport._write", "TcpTransport._flush"), "peer link: send"),
    ("holdfast/rpc/peer/tcp.py", ("TcpTransport._read",), "peer link: receive"),
    ("holdfast/rpc/peer/", (), "peer link: other"),
    ("holdfast/cluster/raft/shipping.py", (), "engine: ship"),
    ("holdfast/cluster/raft/messages.py", (), "engine: messages"),
    ("holdfast/cluster/raft/journal.py", (), "engine: log"),
    ("holdfast/cluster/raft/following.py", (), "engine: take appends"),
    ("holdfast/cluster/raft/inbound.py", (), "engine: take appends"),
    ("holdfast/cluster/raft/leading.py", (), "engine: acks"),
    ("holdfast/cluster/raft/applying.py", (), "engine: apply"),
    ("holdfast/cluster/raft/requests.py", (), "engine: proposals, answers"),
    ("holdfast/cluster/raft/proposals.py", (), "engine: proposals, answers"),
    ("holdfast/cluster/raft/answers.py", (), "engine: proposals, answers"),
    ("pysyncobj/", (), "engine: PySyncObj"),
    ("holdfast/cluster/raft/", (), "engine: other"),
    ("holdfast/cluster/engine.py", (), "engine: turn"),
    ("holdfast/cluster/", (), "engine: other"),
    ("holdfast/rpc/bridge.py", (), "hand-over between engine and loop"),
    ("holdfast/rpc/services/publish_request.py", (), "publish: parse, check, frame"),
    ("holdfast/rpc/services/bus_publish.py", (), "publish: handler"),
    ("holdfast/rpc/services/replay.py", (), "replay: handler"),
    ("holdfast/rpc/services/delivery_wire.py", (), "replay: handler"),
    ("holdfast/rpc/", (), "broker: other"),
    ("holdfast/records.py", (), "batch: encode, decode, check"),
    ("holdfast/wire_format.py", (), "batch: encode, decode, check"),
    ("holdfast/client/parcels.py", (), "SDK: batches"),
    ("holdfast/client/batcher.py", (), "SDK: batches"),
    ("holdfast/client/producer.py", (), "SDK: producer"),
    ("holdfast/client/replay.py", (), "SDK: replay"),
    ("holdfast/client/", (), "SDK: other"),
    ("benchmarks/", (), "benchmark"),
    ("grpc/", (), "gRPC and the event loop"),
    ("uvloop", (), "gRPC and the event loop"),
    ("asyncio/", (), "gRPC and the event loop"),
    ("concurrent/", (), "executor"),
)
_FRAME = re.compile(r"^(?P<function>.*) \((?P<file>[^():]*)(:\d+)?\)$")


def of_stack(frames: Sequence[str]) -> str:
    """The stage of one stack, ``function (file:line)`` from the outermost to the innermost."""
    for frame in reversed(frames):
        match = _FRAME.match(frame)
        if match is None:
            continue
        for path, functions, stage in _FRAMES:
            if path in match["file"] and (not functions or match["function"] in functions):
                return stage
    return "other"


#: Shared libraries by a part of their name.
_LIBRARIES = (
    ("cygrpc", "gRPC"),
    ("_message", "protobuf"),
    ("_upb", "protobuf"),
    ("uvloop", "uvloop"),
    ("/loop.", "uvloop"),
    ("lmdb", "LMDB"),
    ("cpython.cpython", "LMDB"),
    ("crc32c", "CRC-32C"),
    ("xxhash", "XXH3"),
    ("_msgspec", "msgspec"),
    ("libpython", "Python"),
    ("python3", "Python"),
    ("libc", "libc"),
    ("vdso", "clock"),
    ("libstdc++", "gRPC"),
    ("libm.", "libc"),
)
_COPIES = re.compile(r"mem(cpy|move|set)|copy_(user|to|from)|rep_movs|clear_page|copy_page")
#: A function of the kernel that is a system call, whatever of its entry the compiler has left in the chain.
_CALL = re.compile(
    r"(?:__x64_|__arm64_|__se_|__do_)?_*k?sys_(\w+)|do_((?:p?writev|p?readv|epoll_wait|futex)\w*)"
)
#: System calls by what they are for.
_CALLS = (
    (("fdatasync", "fsync", "msync"), "kernel: fdatasync"),
    (("pwrite", "writev", "write", "fallocate", "pwritev"), "kernel: write"),
    (("send", "sendmsg", "sendto", "sendmmsg"), "kernel: send"),
    (("recv", "recvmsg", "recvfrom", "read", "readv"), "kernel: receive, read"),
    (("epoll", "poll", "select", "ppoll"), "kernel: wait for events"),
    (("futex",), "kernel: futex (locks, GIL, hand-overs)"),
    (("statfs",), "kernel: room on disk"),
    (("madvise", "mmap", "munmap", "brk", "mprotect"), "kernel: memory"),
)


def of_sample(chain: Sequence[tuple[str, str]]) -> str:
    """The stage of one sample of the processor: (symbol, library), innermost first.

    In the kernel the system call tells; faults and interrupts are told apart from calls.
    """
    if not chain:
        return "unknown"
    symbol, library = chain[0]
    if "kernel" in library or library.startswith("["):
        # From the outermost call inwards: the first that has the name of a system call.
        for name, _ in reversed(chain):
            call = _CALL.match(name)
            if call is not None:
                return _of_call(call[1] or call[2])
        if any("fault" in name for name, _ in chain):
            return "kernel: page faults"
        if any("irq" in name or "interrupt" in name for name, _ in chain):
            return "kernel: interrupts"
        return "kernel: other"
    for part, stage in _LIBRARIES:
        if part in library:
            if stage == "libc":
                if _COPIES.search(symbol):
                    return "libc: copies"
                return "libc: malloc" if re.search(r"alloc|free|_int_", symbol) else "libc: other"
            return stage
    return f"other: {library.rpartition('/')[2]}"


def _of_call(name: str) -> str:
    for starts, stage in _CALLS:
        if any(name.startswith(start) for start in starts):
            return stage
    return f"kernel: {name}"


def shares(counts: Mapping[str, int]) -> list[tuple[str, float]]:
    """Stages with their share of all samples in percent, the largest first."""
    total = sum(counts.values())
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [(stage, 100 * count / total) for stage, count in ordered] if total else []


Stack = tuple[str, tuple[str, ...], int]


def parse_collapsed(lines: Iterable[str]) -> list[Stack]:
    """(thread, frames outermost first, samples) from py-spy's ``raw`` format with threads."""
    stacks = []
    for line in lines:
        path, _, count = line.rstrip("\n").rpartition(" ")
        if not path:
            continue
        first, *frames = path.split(";")
        thread = first.partition(": ")[2].strip('"') or first
        stacks.append((thread, tuple(frames), int(count)))
    return stacks


def by_stage(stacks: Iterable[Stack], thread: str) -> Counter[str]:
    """Samples per stage, of the threads with ``thread`` in their names; waiting for work is no work."""
    counts: Counter[str] = Counter()
    for name, frames, count in stacks:
        if thread in name:
            counts[of_stack(frames)] += count
    counts.pop("wait for work", None)
    return counts


def by_function(stacks: Iterable[Stack], thread: str) -> Counter[str]:
    """Samples per innermost function, as ``module: function``."""
    counts: Counter[str] = Counter()
    for name, frames, count in stacks:
        if thread in name and frames and of_stack(frames) != "wait for work":
            match = _FRAME.match(frames[-1])
            if match is not None:
                file = match["file"].removesuffix(".py").rpartition("site-packages/")[2]
                counts[f"{file}: {match['function']}"] += count
    return counts


def parse_samples(lines: Iterable[str]) -> list[tuple[int, list[tuple[str, str]]]]:
    """(thread id, chain innermost first) from ``perf script -F tid,ip,sym,dso``."""
    samples: list[tuple[int, list[tuple[str, str]]]] = []
    chain: list[tuple[str, str]] | None = None
    for line in lines:
        text = line.strip()
        if not text:
            chain = None
        elif chain is None:
            chain = []
            samples.append((int(text.split()[0]), chain))
        else:
            match = re.match(r"[0-9a-f]+ (.*?) \((.*)\)$", text)
            if match is not None:
                chain.append((match[1].partition("+")[0], match[2]))
    return samples
