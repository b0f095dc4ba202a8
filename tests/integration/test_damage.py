"""Bits flipped in the data of running clusters: detected, never served, repaired from a replica."""

from __future__ import annotations

import asyncio
from pathlib import Path

from holdfast.storage import journal, partitions
from holdfast.storage.identity import open_store
from holdfast.storage.port import Table

from .delivery_kit import PATIENCE, Member, leader_of, records_of, three


def spoil(path: Path, node_id: str, offsets: list[int]) -> list[int]:
    """Flip a bit within the batches at these offsets; the log entries they lie in."""
    entries = []
    store = open_store(path / node_id, "holdfast", node_id, 1 << 30)
    for offset in offsets:
        with store.read() as reader:
            row = partitions.index_at(reader, 1, 0, offset)
            assert row is not None
            key = journal.row_key(row.log_index)
            value = bytearray(reader.get(Table.JOURNAL, key) or b"")
        value[row.position + row.length - 2] ^= 1
        store.writer().put(Table.JOURNAL, key, bytes(value))
        entries.append(row.log_index)
    store.commit()
    store.close()
    return entries


async def fill(tmp_path: Path) -> None:
    """Twenty records on three brokers, which have applied them and ended."""
    async with three(tmp_path) as nodes:
        await nodes[0].create()
        for i in range(20):
            await nodes[0].publish([b"%d" % i])
        for node in nodes:
            await node.replay(linearizable=True)


async def test_flipped_bits_are_repaired_while_they_are_read(tmp_path: Path) -> None:
    await fill(tmp_path)
    spoiled = {
        node_id: spoil(tmp_path, node_id, offsets)
        for node_id, offsets in (("n0", [3, 9, 10]), ("n1", [4, 12]), ("n2", [5]))
    }
    async with three(tmp_path) as nodes:
        leader = await leader_of(nodes)
        async with Member(leader) as member:
            while len(member.delivered) < 20:
                await member.next("delivery")
            assert [offset for _, offset in member.delivered] == list(range(20))
        for node in nodes:
            assert [r.offset for r in records_of(await node.replay())] == list(range(20))
        states = set()
        for node in nodes:
            with node.broker.store.read() as reader:
                states.add(tuple(partitions.scan_states(reader)))
        assert len(states) == 1  # digests included
        for node in nodes:
            with node.broker.store.read() as reader:
                for index in spoiled[node.broker.settings.node_id]:
                    journal.expect(reader, index)


async def test_the_scrub_repairs_what_nobody_reads(tmp_path: Path) -> None:
    await fill(tmp_path)
    entries = spoil(tmp_path, "n1", list(range(0, 20, 2)))
    async with three(tmp_path) as nodes:
        node = nodes[1]
        async with asyncio.timeout(PATIENCE):
            while True:
                with node.broker.store.read() as reader:
                    try:
                        for index in entries:
                            journal.expect(reader, index)
                        break
                    except journal.DamagedRowError:
                        pass
                await asyncio.sleep(0.05)
