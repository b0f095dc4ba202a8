"""Nothing that was started is left behind, however the program that started it ends.

A program that is asked to end (SIGTERM, SIGHUP) leaves what it entered, as it
does after Ctrl-C: see ``unwinding``. One that is killed can do nothing: what it
started is ended by a keeper, a shell of a few kilobytes that waits for it to go.
"""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

#: Exit status of a program that was told to end.
INTERRUPTED = 130
#: Each line names all processes that are to end with us; the end of the input is our end.
#: (The kernel's PR_SET_PDEATHSIG waits for the thread that started the process, not for us.)
_SCRIPT = """
trap '' INT TERM HUP
all=
while read -r pids; do all=$pids; done
[ -z "$all" ] || kill -KILL $all 2>/dev/null
"""


class Keeper:
    """Kills processes of ours when we are gone. Calls are for one thread at a time."""

    def __init__(self) -> None:
        self._shell: subprocess.Popen[bytes] | None = None

    def keep(self, pids: Iterable[int]) -> None:
        """From now on these, and no others, end with us."""
        if self._shell is None:
            self._shell = subprocess.Popen(
                ["/bin/sh", "-c", _SCRIPT],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                start_new_session=True,  # a Ctrl-C in the terminal is for us to handle
                bufsize=0,
            )
        assert self._shell.stdin is not None
        self._shell.stdin.write(" ".join(map(str, pids)).encode() + b"\n")

    def close(self) -> None:
        """End the keeper; whatever it still kept is killed. It may be used again."""
        shell, self._shell = self._shell, None
        if shell is not None:
            assert shell.stdin is not None
            shell.stdin.close()
            shell.wait()


@contextmanager
def unwinding() -> Iterator[None]:
    """SIGTERM and SIGHUP are as Ctrl-C: KeyboardInterrupt, so that contexts are left. For the main thread."""
    before: dict[int, Any] = {
        number: signal.signal(number, _interrupt) for number in (signal.SIGTERM, signal.SIGHUP)
    }
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        # As scripts start what goes on in their background; ``_interrupt`` would say nothing.
        before[signal.SIGINT] = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    # asyncio has a handler of its own for this one, which cancels what runs.
    signal.raise_signal(signal.SIGINT)
