"""The seal of a small row: CRC-32C over table, key and value, little-endian, behind the value.

LMDB's pages carry no checksums: without it a flipped bit in a committed offset
or in a partition's next offset would be taken at its word. The key is covered, so that
a row in the wrong place is found out too. Log entries have a CRC of
their own (``journal.py``), because they are read in slices.
"""

from __future__ import annotations

import struct

import google_crc32c

from holdfast.storage.damage import damaged_row
from holdfast.storage.port import Table

_U32 = struct.Struct("<I")

#: Bytes a seal adds to a value.
SEAL_BYTES = _U32.size

#: CRC-32C of anything that ends with its own CRC-32C, little-endian.
RESIDUE = 0x48674BC7

#: What the CRC starts from, by table.
SEED: dict[Table, int] = {table: google_crc32c.value(table.value.encode()) for table in Table}

extend = google_crc32c.extend


def sealed(table: Table, key: bytes, value: bytes) -> bytes:
    """The value as it is stored."""
    return value + _U32.pack(extend(SEED[table], key + value))


def unsealed(table: Table, key: bytes, stored: bytes) -> bytes:
    """The value as it was written.

    Raises:
        DamagedRowError: it is not.
    """
    if extend(SEED[table], key + stored) != RESIDUE or len(stored) < SEAL_BYTES:
        raise damaged_row(table, key)
    return stored[:-SEAL_BYTES]
