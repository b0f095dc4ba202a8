"""Every storage test runs on both stores."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from holdfast.storage.lmdb_store import LmdbStore
from holdfast.storage.memory_store import MemoryStore
from holdfast.storage.port import Store

MIB = 1 << 20
StoreFactory = Callable[..., Store]


@pytest.fixture(params=["memory", "lmdb"])
def make_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StoreFactory]:
    """Makes stores of one kind; closes them afterwards."""
    made: list[Store] = []

    def make(*, quota_bytes: int = 64 * MIB, map_size: int = 256 * MIB) -> Store:
        store: Store
        if request.param == "memory":
            store = MemoryStore(quota_bytes=quota_bytes, map_size=map_size)
        else:
            path = tmp_path / f"env-{len(made)}"
            store = LmdbStore(path, quota_bytes=quota_bytes, map_size=map_size)
        made.append(store)
        return store

    yield make
    for store in made:
        store.close()


@pytest.fixture
def store(make_store: StoreFactory) -> Store:
    return make_store()
