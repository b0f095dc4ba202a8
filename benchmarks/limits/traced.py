"""A broker with named threads and, when asked, with its moments noted.

For ``BrokerProcess.prefix``: the command line that follows is the broker's usual one. Threads are named for
the kernel, as Python before 3.14 does not, so that processor time can be told apart by thread. With
HF_MOMENTS=FILE in the environment the moments of ``marks`` are written there when the broker ends.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
from pathlib import Path

from benchmarks.limits import marks


def name_threads() -> None:
    """Every Python thread that starts from now on carries its name in /proc."""
    original = threading.Thread.run

    def run(self: threading.Thread) -> None:
        Path(f"/proc/self/task/{threading.get_native_id()}/comm").write_text(self.name[:15])
        original(self)

    threading.Thread.run = run  # type: ignore[method-assign]


def main() -> None:
    name_threads()
    where = os.environ.get("HF_MOMENTS")
    if where:
        for gone in marks.install():
            print(f"no longer there: {gone}", file=sys.stderr)
        atexit.register(marks.write, Path(where))
    from holdfast.cli import main as serve  # noqa: PLC0415  (its modules are wrapped before it makes anything of them)

    sys.argv = ["holdfast", "serve"]
    serve()


if __name__ == "__main__":
    main()
