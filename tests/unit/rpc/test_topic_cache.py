"""Topics as the event loop knows them: read once, forgotten when one may have changed."""

from __future__ import annotations

import asyncio

import msgspec
from rpc_fakes import FakeEngine, make_engine

from holdfast.cluster.commands import encode_op
from holdfast.cluster.results import Progress, Role
from holdfast.rpc.services.topic_cache import TopicCache
from holdfast.storage import topics
from holdfast.storage.port import Store
from holdfast.v1 import log_pb2


class _Store:
    """Counts the looks at a store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.reads = 0

    def read(self) -> object:
        self.reads += 1
        return self._store.read()


def _cache(engine: FakeEngine) -> tuple[TopicCache, _Store]:
    store = _Store(engine.store)
    return TopicCache(store, engine.bridge), store  # type: ignore[arg-type]


async def _create(engine: FakeEngine, name: str, partitions: int) -> None:
    op = log_pb2.Op(create_topic=log_pb2.CreateTopicOp(name=name, partitions=partitions))
    await engine.bridge.submit(encode_op(op), 5)


def _at(index: int, *, visible: int, topics_index: int) -> Progress:
    return Progress(index, index, 1, Role.LEADER, "n1", frozenset(), visible, topics_index)


async def test_publishing_does_not_make_it_read_again() -> None:
    engine = make_engine()
    await _create(engine, "t", 2)
    cache, store = _cache(engine)
    row = cache.cached("t")
    assert row is not None
    created = engine.index
    for index in range(created, created + 5):
        engine.bridge.deliver((), _at(index, visible=index, topics_index=created))
        assert cache.cached("t") is row
    assert store.reads == 1


async def test_a_change_of_topics_is_seen_at_once() -> None:
    engine = make_engine()
    await _create(engine, "t", 2)
    cache, _ = _cache(engine)
    row = cache.cached("t")
    assert row is not None
    topics.write(engine.store.writer(), msgspec.structs.replace(row, partitions=3))
    engine.store.commit()
    assert cache.cached("t") is row  # no entry has said so yet
    index = engine.index + 1
    engine.bridge.deliver((), _at(index, visible=index, topics_index=index))
    changed = cache.cached("t")
    assert changed is not None
    assert changed.partitions == 3


async def test_what_is_read_before_a_change_is_visible_is_not_kept() -> None:
    engine = make_engine()
    await _create(engine, "t", 2)
    cache, store = _cache(engine)
    index = engine.index + 1
    engine.bridge.deliver((), _at(index, visible=index - 1, topics_index=index))
    assert cache.cached("t") is not None
    assert cache.cached("t") is not None
    assert store.reads == 2
    engine.bridge.deliver((), _at(index, visible=index, topics_index=index))
    assert cache.cached("t") is not None
    assert cache.cached("t") is not None
    assert store.reads == 3
    await asyncio.sleep(0)
