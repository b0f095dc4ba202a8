"""The seal of a small row: XXH32 over key and value, seeded by the table, behind the value.

LMDB's pages carry no checksums: without it a flipped bit in a committed offset
or in a partition's next offset would be taken at its word. The key is covered, so that
a row in the wrong place is found out too. Whatever changes within four aligned bytes, a
flipped bit above all, changes an XXH32 for certain; other damage but for one in 2**32.
It is half the price of a CRC-32C here, which every apply pays several times. Log entries have
a CRC of their own (``journal.py``), because they are read in slices.
"""

from __future__ import annotations

import zlib

import xxhash

from holdfast.storage.damage import damaged_row
from holdfast.storage.port import Table

#: Bytes a seal adds to a value.
SEAL_BYTES = 4

#: What the hash starts from, by table.
SEED: dict[Table, int] = {table: zlib.crc32(table.value.encode()) for table in Table}

seal = xxhash.xxh32_digest


def sealed(table: Table, key: bytes, value: bytes) -> bytes:
    """The value as it is stored."""
    return value + seal(key + value, SEED[table])


def unsealed(table: Table, key: bytes, stored: bytes) -> bytes:
    """The value as it was written.

    Raises:
        DamagedRowError: it is not.
    """
    value = stored[:-SEAL_BYTES]
    if seal(key + value, SEED[table]) != stored[-SEAL_BYTES:]:
        raise damaged_row(table, key)
    return value
