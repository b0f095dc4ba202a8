"""Every storage test runs on both stores."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
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


@pytest.fixture(params=["memory", "lmdb"], scope="session")
def fresh_store(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[], AbstractContextManager[Store]]:
    """An empty store for each example of a property test."""

    @contextmanager
    def fresh() -> Iterator[Store]:
        if request.param == "memory":
            yield MemoryStore()
            return
        path = tmp_path_factory.mktemp("env")
        store = LmdbStore(path, quota_bytes=64 * MIB, map_size=256 * MIB)
        try:
            yield store
        finally:
            store.close()
            shutil.rmtree(path)

    return fresh


@pytest.fixture
def store(make_store: StoreFactory) -> Store:
    return make_store()
