"""``python -m holdfast.chaos.disk MOUNT BACKING FD``: the process of one disk; ``Disk`` starts it."""

from __future__ import annotations

import signal
import socket
import sys
from pathlib import Path

from holdfast.chaos.disk.server import Server


def main() -> int:
    point, backing, control = sys.argv[1:]
    # A Ctrl-C is for the drill, which then closes its end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with socket.socket(fileno=int(control)) as orders:
        Server(Path(point), Path(backing), orders).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
