"""The ledger of limits: what a sample is counted as, and how the tables come about."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence

import pytest

from benchmarks.limits import ledger, marks, rhythm, stages, takeover, threads, timeline
from benchmarks.limits.measured import Measured
from benchmarks.limits.parts import parts
from benchmarks.limits.physical import APPENDS, MESSAGE, REQUEST, Physical
from benchmarks.limits.sampling import Samples
from benchmarks.limits.table import BEGIN, END, Row, figure, markdown, replace_between, rows
from benchmarks.limits.work import WORK, Done

_KERNEL = "[kernel.kallsyms]"

# -- stages ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frames", "stage"),
    [
        (
            [
                "Engine._turn (holdfast/cluster/engine.py)",
                "WriteSide.commit (holdfast/storage/lmdb_store.py)",
            ],
            "commit",
        ),
        (["Engine._turn (holdfast/cluster/engine.py)"], "engine: turn"),
        (
            ["append (holdfast/storage/journal.py)", "LmdbWriter.put (holdfast/storage/lmdb_write.py)"],
            "store: other reads and writes",
        ),
        (["append (holdfast/storage/journal.py:90)"], "log: append"),
        (["TcpTransport._write (holdfast/rpc/peer/tcp.py)"], "peer link: send"),
        (["Runner.run (asyncio/runners.py)"], "gRPC and the event loop"),
        (["_StreamRequestMixin._write (grpc/aio/_call.py)"], "gRPC and the event loop"),
        # A helper of the standard library belongs to whoever called it.
        (["encode_batch (holdfast/records.py)", "helper (somewhere.py)"], "batch: encode, decode, check"),
        (["poll (holdfast/rpc/peer/tcp.py)", "EpollSelector.select (selectors.py)"], "wait for work"),
        (["helper (somewhere.py)"], "other"),
        ([], "other"),
    ],
)
def test_a_stack_belongs_to_the_innermost_frame_that_is_known(frames: list[str], stage: str) -> None:
    assert stages.of_stack(frames) == stage


@pytest.mark.parametrize(
    ("chain", "stage"),
    [
        ([("memcpy", _KERNEL), ("__x64_sys_sendmsg", _KERNEL)], "kernel: send"),
        ([("x", _KERNEL), ("__x64_sys_fdatasync", _KERNEL)], "kernel: fdatasync"),
        (
            [("x", _KERNEL), ("__x64_sys_epoll_pwait", _KERNEL)],
            "kernel: wait for events",
        ),
        ([("x", _KERNEL), ("__x64_sys_uname", _KERNEL)], "kernel: uname"),
        (
            [("clear", _KERNEL), ("asm_exc_page_fault", _KERNEL)],
            "kernel: page faults",
        ),
        ([("schedule", _KERNEL)], "kernel: other"),
        ([("copy", _KERNEL), ("____sys_sendmsg", _KERNEL), ("__sys_sendmsg", _KERNEL)], "kernel: send"),
        ([("vfs_writev", _KERNEL), ("do_writev", _KERNEL), ("do_syscall_64", _KERNEL)], "kernel: write"),
        ([("vfs_write", _KERNEL), ("ksys_write", _KERNEL)], "kernel: write"),
        ([("f", "/x/grpc/_cython/cygrpc.cpython-311-x86_64-linux-gnu.so")], "gRPC"),
        ([("__memcpy_avx", "/lib/libc.so.6")], "libc: copies"),
        ([("malloc", "/lib/libc.so.6")], "libc: malloc"),
        ([("f", "/x/libunheardof.so.1")], "other: libunheardof.so.1"),
        ([], "unknown"),
    ],
)
def test_a_sample_belongs_to_its_library_or_to_its_system_call(
    chain: list[tuple[str, str]], stage: str
) -> None:
    assert stages.of_sample(chain) == stage


def test_collapsed_stacks_are_read_by_thread_and_waiting_is_left_out() -> None:
    lines = [
        'thread (0x7F): "holdfast-engine-n1";Engine._turn (holdfast/cluster/engine.py) 3',
        "thread (12): holdfast-engine-n1;EpollSelector.select (selectors.py) 9",
        "thread (13): MainThread;Runner.run (asyncio/runners.py) 5",
        "",
    ]
    stacks = stages.parse_collapsed(lines)
    assert [(thread, count) for thread, _, count in stacks] == [
        ("holdfast-engine-n1", 3),
        ("holdfast-engine-n1", 9),
        ("MainThread", 5),
    ]
    assert stages.by_stage(stacks, "engine") == {"engine: turn": 3}
    assert stages.by_function(stacks, "Main") == {"asyncio/runners: Runner.run": 5}


def test_samples_of_perf_are_read_with_their_chains() -> None:
    text = """
    42
        ffffffff81 copy_user+0x10 ([kernel.kallsyms])
        ffffffff82 __x64_sys_write+0x5 ([kernel.kallsyms])

    43
        7f00 [unknown] (/usr/lib/libpython3.11.so.1.0)
"""
    samples = stages.parse_samples(text.splitlines())
    assert [(tid, stages.of_sample(chain)) for tid, chain in samples] == [
        (42, "kernel: write"),
        (43, "Python"),
    ]


def test_shares_add_up() -> None:
    assert stages.shares({"a": 1, "b": 3}) == [("b", 75.0), ("a", 25.0)]
    assert stages.shares({}) == []


# -- threads ---------------------------------------------------------------------


def test_threads_are_told_apart_by_role_and_only_new_use_counts() -> None:
    before = {(1, "python"): threads.Usage(1.0, 0.0, 10, 1), (2, "holdfast-engine"): threads.Usage(2.0)}
    after = {
        (1, "python"): threads.Usage(1.5, 0.25, 14, 1),
        (2, "holdfast-engine"): threads.Usage(4.0),
        (3, "event_engine"): threads.Usage(0.5),
        (4, "event_engine"): threads.Usage(0.25),
    }
    used = threads.since(before, after, 1)
    assert used["event loop"] == threads.Usage(0.5, 0.25, 4, 0)
    assert used["engine"].seconds == 2.0
    assert used["gRPC's event engine"].seconds == 0.75
    lines = threads.table({"leader": used}, 1000, 100)
    assert lines[0].startswith("per 100 records")
    assert lines[1].split()[:3] == ["leader", "engine", "200000"]


def test_this_process_can_be_looked_at() -> None:
    assert sum(usage.seconds for usage in threads.of(os.getpid()).values()) > 0


# -- the timeline ------------------------------------------------------------------


def _moments(*given: tuple[str, int, int]) -> timeline.Log:
    return timeline.Log([(name, at, number, at // 2) for name, at, number in given])


def test_a_publish_is_followed_by_its_log_index_through_all_processes() -> None:
    leader = _moments(
        ("received", 110, 0),
        ("proposed", 120, 0),
        ("woken", 130, 0),
        ("appended", 140, 7),
        ("ship", 150, 7),
        ("ship", 155, 7),
        ("commit", 160, 0),
        ("committed", 300, 0),
        ("acked", 200, 6),  # of the publish before
        ("woken", 310, 0),
        ("acked", 320, 7),
        ("applied", 330, 7),
        ("deliver", 340, 0),
        ("reported", 350, 0),
        ("answer", 360, 0),
        ("turned", 370, 0),
    )
    near = _moments(
        ("woken", 170, 0),
        ("polled", 172, 0),
        ("appended", 175, 7),
        ("commit", 180, 0),
        ("committed", 250, 0),
        ("ack", 260, 7),
    )
    far = _moments(("appended", 190, 7), ("commit", 195, 0), ("committed", 280, 0), ("ack", 290, 7))
    client = {"call": 100, "written": 105, "read": 380, "done": 390}
    trace = timeline.trace(client, leader, [far, near])
    assert trace is not None
    assert trace.times["acked"] == 320
    assert trace.times["a_woken"] == 310
    assert (trace.times["f_ack"], trace.times["g_ack"]) == (260, 290)
    assert {step.key for step in timeline.STEPS} == set(trace.times)
    assert trace.cpu["f_committed"] == 125
    lines = timeline.table([trace] * 3)
    assert len(lines) == len(timeline.STEPS) + 3
    assert timeline.trace({"call": 500, "done": 600}, leader, [near, far]) is None


def test_a_step_that_is_never_seen_has_dashes() -> None:
    lines = timeline.table([timeline.Trace({"call": 0, "done": 1000}, {})])
    assert sum(line.split()[:1] == ["-"] for line in lines) == len(timeline.STEPS) - 2
    assert lines[-1].startswith("Dashes: never seen")


def test_wrapped_functions_note_their_moments(tmp_path_factory: pytest.TempPathFactory) -> None:
    class Box:
        def twice(self, number: int) -> int:
            return 2 * number

    marks.MOMENTS.clear()
    globals()["_Box"] = Box

    def result(arguments: Sequence[object], given: object) -> int | None:
        return given if isinstance(given, int) else None

    assert marks.wrap(f"{__name__}:_Box.twice", enter="in", leave="out", number=result)
    assert not marks.wrap(f"{__name__}:_Box.thrice", enter="in")
    assert Box().twice(4) == 8
    assert [(name, number) for name, _, number, _ in marks.MOMENTS] == [("out", 8)]
    file = tmp_path_factory.mktemp("marks") / "moments"
    marks.write(file)
    assert marks.read(file) == marks.MOMENTS
    assert json.loads(file.read_text())
    marks.MOMENTS.clear()


# -- tables --------------------------------------------------------------------------


def _physical() -> Physical:
    def append(rate: float) -> dict[str, float]:
        return {"megabytes": rate, "micros": 200.0}

    committed = {
        "megabytes": 200.0,
        "append_micros": 10.0,
        "commit_micros": 590.0,
        "cpu_per_gigabyte": 1.0,
    }
    given = {
        "sync": append(20),
        "sync_three": [append(10)] * 3,
        "append": {size: append(400) for size in APPENDS},
        "append_after": {size: append(200) for size in APPENDS},
        "append_three": {size: [append(90)] * 3 for size in APPENDS[2:]},
        "store_small": committed,
        "store_small_three": [committed] * 3,
        "store_bulk": committed,
        "store_bulk_three": [committed] * 3,
        "link": {"micros": 20.0, "megabytes_64k": 2000.0, "megabytes_1m": 2500.0},
        "copies": 7.0,
        "hand_over": 7.0,
        "grpc": {
            "unary_micros": 450.0,
            "stream_micros": 180.0,
            "up": {str(REQUEST): 600.0, str(MESSAGE): 800.0},
            "down": {str(REQUEST): 700.0, str(MESSAGE): 800.0},
            "cpu_per_gigabyte": 2.0,
        },
        "coded": {size: {"encode": 1e6, "decode": 2e6} for size in (100, 1024, 10240)},
        "engines": {"micros": 900.0, "megabytes": {str(REQUEST): 150.0}},
    }
    return Physical(**given)  # type: ignore[arg-type]


def _measured(workload: str, records: int = 100_000) -> Measured:
    latency = 1.6 if workload in ("sequential", "delivery") else 0.0
    done = Done(records=records, seconds=1.0, p50_ms=latency, p99_ms=2 * latency)
    used = {"leader": {"engine": threads.Usage(0.5)}, "client": {"event loop": threads.Usage(0.5)}}
    samples = Samples()
    samples.stacks["leader"] = [("holdfast-engine-n1", ("Engine._turn (holdfast/cluster/engine.py)",), 20)]
    samples.processor = [(11, [("__x64_sys_fdatasync", _KERNEL)])] * 3 + [(99, [])]
    return Measured(
        workload,
        done,
        used,
        samples,
        {"leader": 10, "client": 20},
        {10: "python", 11: "holdfast-engine", 20: "python"},
        {"leader": [10, 11], "client": [20]},
        {"leader": {"futex": 3.25, "brk": 0.001}},
    )


def test_every_workload_has_its_limits() -> None:
    measured = {name: _measured(name) for name in WORK}
    found = rows(_physical(), measured, [30.0, 50.0, 40.0])
    by_name = {(row.workload.partition(" (")[0], row.what): row for row in found}
    third = by_name["pipelined publish of 1 KiB", "raw fdatasync bandwidth ÷ 3"]
    assert (third.limit, third.goal) == (100.0, 0.6)
    assert third.reached == pytest.approx(1.024)
    stream = by_name["replay of 1 KiB", "a gRPC stream to the client, 1 MiB"]
    assert stream.reached == pytest.approx(102.4 / 800)
    floor = next(row for row in found if row.what.startswith("floor: gRPC"))
    assert floor.limit == pytest.approx(0.8)  # 180 + 20 + 600 µs
    assert floor.reached == pytest.approx(0.5)
    processor = next(row for row in found if row.workload.startswith("CPU"))
    assert (processor.ours, processor.limit) == pytest.approx((10.0, 1.0 + 0.2 + 0.3))
    assert found[-1].workload == "failover, median of 3"


def test_the_table_names_a_workload_once_and_judges_its_goal() -> None:
    lines = markdown(
        [
            Row("w", "first", 100.0, 60.0, "MB/s", goal=0.6),
            Row("w", "second", 2.0, 4.0, "ms", False),
            Row("v", "third", 0.0, 4.0, "MB/s", goal=0.6),
        ]
    )
    assert lines[2] == "| w | 60.0 MB/s | first | 100 MB/s | 60 % (goal 60 %: met) |"
    assert lines[3] == "|  |  | second | 2.00 ms | 50 % |"
    assert lines[4].endswith("| 0 % (goal 60 %: **not met**) |")


def test_figures_have_three_digits() -> None:
    assert [figure(value) for value in (1234.5, 99.94, 1.234)] == ["1,234", "99.9", "1.23"]


def test_text_between_markers_is_replaced_and_the_rest_stays() -> None:
    once = replace_between("# Title\n", BEGIN, END, "one \\1")
    assert once == f"# Title\n\n{BEGIN}\none \\1\n{END}\n"
    assert replace_between(once + "end\n", BEGIN, END, "two") == f"# Title\n\n{BEGIN}\ntwo\n{END}\nend\n"


def test_a_page_of_the_ledger_says_who_used_the_processors_and_for_what() -> None:
    text = "\n".join(ledger.page(_measured("sequential")))
    assert "CPU: 10.00 s per million records, 1.00 cores" in text
    assert "100.0 %  leader, engine" in text
    assert "kernel: fdatasync" in text
    assert "engine: turn" in text
    assert "futex 3.2" in text
    assert "brk" not in text


def test_the_rhythm_counts_and_times_commits() -> None:
    noted = [
        ("appended", 5, 1, 0),
        ("commit", 10, 0, 0),
        ("committed", 2_000_010, 0, 0),
        ("turned", 2_000_020, 0, 0),
        ("commit", 3_000_000, 0, 0),
        ("committed", 5_000_000, 0, 0),
    ]
    lines = rhythm.table({"leader": noted}, 1000, 1024)
    assert lines[2] == "leader: turns 1.0, entries appended 1.0, commits 2.0"
    assert lines[3].strip() == (
        "512.0 KB of records per commit, which takes 2.00 ms (median); 50 % of commits hold no new entry"
    )


def test_the_machine_is_told_in_lines() -> None:
    physical = _physical()
    lines = parts(physical)
    assert lines[0] == "fdatasync of 4 KiB appended: 200 µs alone, 200 µs with three at once"
    assert sum(line.startswith("appends of") for line in lines) == len(physical.append)
    assert all(lines)
    assert len(set(lines)) == len(lines)


def test_a_takeover_has_a_line_for_each_step() -> None:
    lines = takeover.table([{"killed": 1.0, "done": 40.0}, {"killed": 3.0, "done": 60.0}])
    assert lines[2].split()[:3] == ["2.0", "1.0", "3.0"]
    assert lines[-1].split()[:3] == ["50.0", "40.0", "60.0"]
    assert lines[3].split()[0] == "-"
