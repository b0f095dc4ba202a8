"""Whose data this is: format version, cluster and node, checked at every start."""

from __future__ import annotations

import struct
from pathlib import Path

from holdfast.errors import DataDirectoryError, StorageError
from holdfast.storage.data_directory import DataDirectory
from holdfast.storage.lmdb_store import DEFAULT_MAP_SIZE, LmdbStore
from holdfast.storage.port import Reader, Table, Writer

#: The layout of every table. Raised when an older program could not read what
#: a newer one writes. 2: small rows carry a seal (``seal.py``), index rows a hash of their batch.
#: 3: what was acknowledged last may be in the write-ahead log alone (``write_ahead.py``).
#: 4: groups have more than offsets: the tables from FLOWS on.
FORMAT_VERSION = 4
#: Migrated when they are opened.
_BEFORE_SEALS = 1
#: In these nothing but the number changes.
_SEALED = frozenset((2, 3))

#: Kept on the disk beyond the data: many commits without records.
AHEAD_BYTES = 16 << 20

_FORMAT = b"format"
_CLUSTER = b"cluster"
_NODE = b"node"
_KEYS = frozenset((_FORMAT, _CLUSTER, _NODE))
_U32 = struct.Struct(">I")


def write_identity(w: Writer, cluster_id: str, node_id: str) -> None:
    """Mark a fresh store as this node's."""
    w.put(Table.META, _FORMAT, _U32.pack(FORMAT_VERSION))
    w.put(Table.META, _CLUSTER, cluster_id.encode())
    w.put(Table.META, _NODE, node_id.encode())


def read_identity(r: Reader) -> tuple[int, str, str] | None:
    """(format version, cluster id, node id); None in a store that has none."""
    version = r.get(Table.META, _FORMAT)
    if version is None:
        return None
    if len(version) != _U32.size:
        raise StorageError("the stored format version is damaged")
    cluster = r.get(Table.META, _CLUSTER) or b""
    node = r.get(Table.META, _NODE) or b""
    return _U32.unpack(version)[0], cluster.decode(), node.decode()


def check_identity(r: Reader, cluster_id: str, node_id: str, where: str) -> None:
    """Refuse a store that is not this node's.

    Raises:
        DataDirectoryError: another format, cluster or node; says what to do.
    """
    _check(read_identity(r), cluster_id, node_id, where)


def _check(found: tuple[int, str, str] | None, cluster_id: str, node_id: str, where: str) -> None:
    if found is None:
        raise DataDirectoryError(
            f"{where} holds no Holdfast identity; give the broker an empty directory, "
            "or restore this one from a backup"
        )
    version, stored_cluster, stored_node = found
    if version > FORMAT_VERSION:
        raise DataDirectoryError(
            f"{where} has format version {version}, and this program reads up to {FORMAT_VERSION}; "
            "start it with the newer version of Holdfast that wrote it",
            metadata={"format": str(version), "supported": str(FORMAT_VERSION)},
        )
    if version < FORMAT_VERSION:
        raise DataDirectoryError(
            f"{where} has format version {version}, which this program cannot migrate; "
            "empty the directory and let this node catch up from the others",
            metadata={"format": str(version), "supported": str(FORMAT_VERSION)},
        )
    if stored_cluster != cluster_id:
        raise DataDirectoryError(
            f"{where} belongs to cluster {stored_cluster!r}, not to {cluster_id!r}; "
            "correct the cluster id, or point this broker to another directory",
            metadata={"stored": stored_cluster, "configured": cluster_id},
        )
    if stored_node != node_id:
        raise DataDirectoryError(
            f"{where} belongs to node {stored_node!r}, not to {node_id!r}; "
            "correct the node id, or point this broker to another directory",
            metadata={"stored": stored_node, "configured": node_id},
        )


def open_store(
    data_dir: Path,
    cluster_id: str,
    node_id: str,
    quota_bytes: int,
    *,
    map_size: int = DEFAULT_MAP_SIZE,
) -> LmdbStore:
    """Lock a node's data directory and open the environment in use; make both when new.

    Raises:
        DataDirectoryError: in use, or of another cluster, node or format.
        StorageError: the environment cannot be opened.
    """
    directory = DataDirectory(data_dir)
    try:
        path = directory.current()
        if path is None:
            path = _begin(directory, cluster_id, node_id, map_size)
        store = LmdbStore(
            path,
            quota_bytes=quota_bytes,
            map_size=map_size,
            housing=directory,
            ahead_bytes=min(AHEAD_BYTES, quota_bytes // 8),
        )
    except BaseException:
        directory.closed()
        raise
    try:
        where = f"the data directory {data_dir}"
        _migrate(store, cluster_id, node_id, where)
        with store.read() as r:
            check_identity(r, cluster_id, node_id, where)
        directory.tidy()
    except BaseException:
        store.close()
        raise
    return store


def _begin(directory: DataDirectory, cluster_id: str, node_id: str, map_size: int) -> Path:
    """Set up a new directory: the environment first, then CURRENT.

    A crash in between leaves an environment without CURRENT. It holds an
    identity at most and is begun again; one that holds more was in use, its
    CURRENT has been lost, and data is never dropped on a guess.
    """
    for path in directory.environments():
        if (path / "data.mdb").exists() and not _is_blank(path, map_size):
            raise DataDirectoryError(
                f"{directory.path} holds the environment {path.name} but no CURRENT file; "
                f"write the line {path.name} to {directory.path / 'CURRENT'} if that is the one to use"
            )
        directory.remove(path)
    path = directory.fresh()
    store = LmdbStore(path, quota_bytes=map_size, map_size=map_size)
    try:
        write_identity(store.writer(), cluster_id, node_id)
        store.commit()
    finally:
        store.close()
    directory.switch(path)
    return path


def _migrate(store: LmdbStore, cluster_id: str, node_id: str, where: str) -> None:
    """Bring an older format to the present one, in one transaction: a crash leaves the one or the other."""
    version = store.stored(Table.META, _FORMAT)
    if version is None:
        return  # not set up: said when it is read
    if len(version) != _U32.size:
        with store.read() as r:
            sealed = read_identity(r)
        if sealed is not None and sealed[0] in _SEALED:
            _check((FORMAT_VERSION, *sealed[1:]), cluster_id, node_id, where)
            store.writer().put(Table.META, _FORMAT, _U32.pack(FORMAT_VERSION))
            store.commit()
        return
    cluster = store.stored(Table.META, _CLUSTER) or b""
    node = store.stored(Table.META, _NODE) or b""
    found = _U32.unpack(version)[0]
    if found == _BEFORE_SEALS:
        _check((FORMAT_VERSION, cluster.decode(), node.decode()), cluster_id, node_id, where)
        store.seal_rows()
        store.writer().put(Table.META, _FORMAT, _U32.pack(FORMAT_VERSION))
        store.commit()
    else:
        _check((found, cluster.decode(), node.decode()), cluster_id, node_id, where)


def _is_blank(path: Path, map_size: int) -> bool:
    store = LmdbStore(path, quota_bytes=map_size, map_size=map_size)
    try:
        with store.read() as r:
            meta_only = all(r.count(table) == 0 for table in Table if table is not Table.META)
            return meta_only and set(r.scan_keys(Table.META)) <= _KEYS
    finally:
        store.close()
