"""Runs a command line and turns every failure into one clear line.

Exit codes: 0 done; 1 failed, with the reason on standard error; 2 wrong usage;
130 interrupted.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence

import typer
from typer.exceptions import TyperException

from holdfast.cli.app import app
from holdfast.errors import HoldfastError, InternalError

FAILED, USAGE, INTERRUPTED = 1, 2, 130


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code."""
    as_json = "--json" in arguments
    try:
        result = app(args=list(arguments), prog_name="holdfast", standalone_mode=False)
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except typer.Exit as stop:
        return stop.exit_code
    except (typer.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except TyperException as error:
        return _usage(error)
    except HoldfastError as error:
        report(error, as_json=as_json)
        return FAILED
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"holdfast: {where}{error.strerror or error}", file=sys.stderr)
        return FAILED
    except Exception as error:
        # A fault of ours. The person at the terminal gets a line; whoever looks into it, the whole story.
        if os.environ.get("HOLDFAST_CLI_TRACEBACK"):
            raise
        report(
            InternalError(f"{type(error).__name__}: {error}; HOLDFAST_CLI_TRACEBACK=1 shows where"),
            as_json=as_json,
        )
        return FAILED


def report(error: HoldfastError, *, as_json: bool) -> None:
    """Print an error to standard error: a line, or a JSON object."""
    if as_json:
        body = {
            "reason": error.reason,
            "message": str(error),
            "retriable": error.retriable,
            "metadata": error.metadata,
        }
        print(json.dumps({"error": body}), file=sys.stderr)
        return
    hint = " (trying again may help)" if error.retriable else ""
    text = " ".join(str(error).split())
    published = error.metadata.get("published", "0")
    if published != "0":
        print(
            f"holdfast: at least {int(published):,} records had been published before this:", file=sys.stderr
        )
    print(f"holdfast: {text}{hint} [{error.reason}]", file=sys.stderr)


def _usage(error: BaseException) -> int:
    # Typer's usage errors carry their command's context; without arguments the message is the help.
    context = getattr(error, "ctx", None)
    message = getattr(error, "format_message", lambda: str(error))()
    if type(error).__name__ == "NoArgsIsHelpError":
        if message:
            print(message, file=sys.stderr)
        return USAGE
    command = context.command_path if context is not None else "holdfast"
    if message[-1:] not in (".", "?"):
        message += "."
    print(f"holdfast: {message} See '{command} --help'.", file=sys.stderr)
    return USAGE
