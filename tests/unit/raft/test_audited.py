"""The library underneath is the one that was audited."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pysyncobj.syncobj
from pysyncobj.syncobj import SyncObj

from holdfast.cluster.raft.core import RaftCore

AUDITED = "e8bdf06797085d734df86e24ab4802fe87893dff77268565ec036f7ad4a1cfe4"


def test_syncobj_is_the_audited_version() -> None:
    installed = Path(pysyncobj.syncobj.__file__).read_bytes()
    assert hashlib.sha256(installed).hexdigest() == AUDITED, (
        "pysyncobj is not the version whose faults are cured here: audit it anew, then change this hash"
    )


def test_every_override_overrides_something() -> None:
    parts = RaftCore.__mro__[: RaftCore.__mro__.index(SyncObj)]
    names = [name for part in parts for name in vars(part) if name.startswith("_SyncObj__")]
    ours = [name for name in names if callable(getattr(RaftCore, name, None))]
    assert len(ours) == len(set(ours)), "two parts override the same method"
    assert len(ours) >= 8
    for name in ours:
        assert callable(vars(SyncObj)[name]), name
    assert callable(vars(SyncObj)["_checkCommandsToApply"])


def test_no_name_of_the_library_is_patched() -> None:
    from holdfast.chaos.sim import SimCluster

    before = {name: id(value) for name, value in vars(pysyncobj.syncobj).items()}
    sim = SimCluster(3, seed=1)
    sim.elect()
    assert {name: id(value) for name, value in vars(pysyncobj.syncobj).items()} == before
