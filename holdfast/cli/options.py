"""Options that several commands share."""

from __future__ import annotations

import re
from typing import Annotated

import typer

#: Where `serve` and `up` listen, so that no command needs an address on a developer's machine.
DEFAULT_ENDPOINTS = "127.0.0.1:7450,127.0.0.1:7460,127.0.0.1:7470"

#: Of options that take no value; without it the help would say ``<bool>``.
FLAG = ""

Json = Annotated[bool, typer.Option("--json", metavar=FLAG, help="Print JSON: one object, or one a line.")]
Endpoints = Annotated[
    str,
    typer.Option(
        "--endpoint",
        "-e",
        envvar="HOLDFAST_ENDPOINTS",
        metavar="HOST:PORT[,…]",
        help="Brokers to talk to; any of a cluster will do.",
        show_default=False,
    ),
]
Timeout = Annotated[float, typer.Option("--timeout", metavar="SECONDS", help="Give up after this long.")]


def split_endpoints(text: str) -> list[str]:
    """The addresses of ``--endpoint``.

    Raises:
        typer.BadParameter: there is none, or one has no port.
    """
    found = [part.strip() for part in text.split(",") if part.strip()]
    for part in found:
        host, _, port = part.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 65536:
            raise typer.BadParameter(
                f"{part!r} is not host:port with a port of 1 to 65535.", param_hint="'--endpoint'"
            )
    if not found:
        raise typer.BadParameter("it names no broker.", param_hint="'--endpoint'")
    return found


_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", re.IGNORECASE)


def parse_size(text: str, option: str) -> int:
    """Bytes of ``500MB``, ``64GiB`` or a plain number (units are powers of 1024).

    Raises:
        typer.BadParameter: not of that form.
    """
    found = _SIZE.fullmatch(text.strip())
    if not found:
        raise typer.BadParameter(
            f"{text!r} is no size: write it like 500MiB or 64GiB.", param_hint=f"'{option}'"
        )
    return int(float(found[1]) * 1024 ** " KMGT".index(found[2].upper() or " "))
