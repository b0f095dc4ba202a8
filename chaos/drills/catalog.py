"""All drills: every subclass of ``Drill`` in a module of this folder."""

from __future__ import annotations

import pkgutil
from importlib import import_module

from holdfast.chaos import drills
from holdfast.chaos.drills.scene import Drill
from holdfast.errors import InternalError

#: In the order they are run in; those not named here follow by name.
ORDER = (
    "leader-kill",
    "follower-kill",
    "rolling-restart",
    "kill-all",
    "pause-leader",
    "partition-majority",
    "partition-one-way",
    "partition-bridge",
    "slow-network",
    "slow-disk",
    "full-disk",
    "clock-skew",
    "slow-consumer",
    "wiped-node",
    "exactly-once",
    "exactly-once-postgres",
    "power-loss-one",
    "power-loss-all",
    "bit-flip",
)


def find() -> dict[str, type[Drill]]:
    """Drills by name.

    Raises:
        InternalError: two of one name, or one without.
    """
    for module in pkgutil.iter_modules(drills.__path__):
        if module.name != "__main__":
            import_module(f"{drills.__name__}.{module.name}")
    found: dict[str, type[Drill]] = {}
    for kind in _all(Drill):
        if not kind.name:
            continue  # a base of several
        if kind.__module__.startswith(f"{drills.__name__}."):
            if kind.name in found:
                raise InternalError(f"two drills are called {kind.name}")
            found[kind.name] = kind
    rank = {name: place for place, name in enumerate(ORDER)}
    return dict(sorted(found.items(), key=lambda item: (rank.get(item[0], len(rank)), item[0])))


def _all(kind: type[Drill]) -> list[type[Drill]]:
    return [found for sub in kind.__subclasses__() for found in (sub, *_all(sub))]


DRILLS: dict[str, type[Drill]] = find()
