"""The ``holdfast`` command line.

Modules are imported by the command that needs them, so that ``holdfast --help``
and shell completion do not pay for gRPC.
"""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Entry point of the console script; exits 0, 1 (failed) or 2 (wrong usage)."""
    # gRPC's core writes to standard error what is no news here: each stranger on a port, each port in use.
    # It looks at this once, when it is imported.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from holdfast.cli.run import run

    sys.exit(run(sys.argv[1:]))
