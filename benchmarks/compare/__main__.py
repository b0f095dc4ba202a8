"""``make bench``: Holdfast and its peers on this machine, in one run."""

from __future__ import annotations

import sys

from benchmarks.compare.command import main

if __name__ == "__main__":
    sys.exit(main())
