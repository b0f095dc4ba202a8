"""The ``holdfast`` command line.

Modules are imported by the command that needs them, so that ``holdfast --help``
and shell completion do not pay for gRPC.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Entry point of the console script; exits 0, 1 (failed) or 2 (wrong usage)."""
    from holdfast.cli.run import run

    sys.exit(run(sys.argv[1:]))
