"""Commands of the system, with what they said when they fail."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

from holdfast.errors import HoldfastError


class NetError(HoldfastError):
    """The network could not be made or changed; what the command said is in the message."""


class NotHereError(NetError):
    """This machine, or this kind of network, cannot do that."""


def run(command: Sequence[str], *, text: str = "", timeout: float = 20.0) -> str:
    """Run a command with ``text`` as its input; its standard output.

    Raises:
        NetError: it failed, is missing, or took longer than ``timeout`` seconds.
    """
    try:
        done = subprocess.run(
            list(command), input=text, capture_output=True, text=True, check=False, timeout=timeout
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NetError(f"{' '.join(command)}: {error}") from error
    if done.returncode:
        raise NetError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout
