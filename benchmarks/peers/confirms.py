"""Publisher confirms that callers wait for."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable


def settle(waiting: Iterable[asyncio.Future[None] | None], failure: Exception | None) -> None:
    """End the wait of each, with ``failure`` if there is one; None: nobody waits for that record."""
    for confirmed in waiting:
        if confirmed is None or confirmed.done():
            continue
        if failure:
            confirmed.set_exception(failure)
        else:
            confirmed.set_result(None)
