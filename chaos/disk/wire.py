"""The kernel's side of FUSE (protocol 7.31): layouts, operation numbers, and mounting.

Spoken directly, so that drills need a Linux kernel and root but no library.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from enum import IntEnum
from pathlib import Path

MAJOR, MINOR = 7, 31
MAX_WRITE = 1 << 20
BUFFER = MAX_WRITE + 4096

IN_HEADER = struct.Struct("<IIQQIIII")
OUT_HEADER = struct.Struct("<IiQ")
INIT_IN = struct.Struct("<IIII")
INIT_OUT = struct.Struct("<IIIIHHIIHHI28x")
ATTRIBUTES = struct.Struct("<QQQQQQIIIIIIIIII")
ENTRY = struct.Struct("<QQQQII")
ATTR_OUT = struct.Struct("<QII")
OPEN_IN = struct.Struct("<II")
OPEN_OUT = struct.Struct("<QIi")
CREATE_IN = struct.Struct("<IIII")
MKDIR_IN = struct.Struct("<II")
RENAME_IN = struct.Struct("<Q")
RENAME2_IN = struct.Struct("<QII")
READ_IN = struct.Struct("<QQIIQII")
WRITE_IN = struct.Struct("<QQIIQII")
WRITE_OUT = struct.Struct("<II")
FSYNC_IN = struct.Struct("<QII")
HANDLE_IN = struct.Struct("<Q")
SETATTR_IN = struct.Struct("<IIQQQQQQIIIIIIII")
STATFS_OUT = struct.Struct("<QQQQQIIII24x")
FALLOCATE_IN = struct.Struct("<QQQII")
DIRENT = struct.Struct("<QQII")
INVALIDATE = struct.Struct("<Qqq")

INVALIDATE_INODE = 2
SET_MODE, SET_SIZE = 1, 8
FALLOC_KEEP_SIZE = 1
KEEP_CACHE = 2
# Asynchronous reads, O_TRUNC with the open itself, large writes, as many pages as fit.
INIT_FLAGS = 1 << 0 | 1 << 3 | 1 << 5 | 1 << 22


class Op(IntEnum):
    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    SETATTR = 4
    MKDIR = 9
    UNLINK = 10
    RMDIR = 11
    RENAME = 12
    OPEN = 14
    READ = 15
    WRITE = 16
    STATFS = 17
    RELEASE = 18
    FSYNC = 20
    INIT = 26
    OPENDIR = 27
    READDIR = 28
    RELEASEDIR = 29
    FSYNCDIR = 30
    CREATE = 35
    INTERRUPT = 36
    DESTROY = 38
    BATCH_FORGET = 42
    FALLOCATE = 43
    RENAME2 = 45


#: The kernel expects no answer to these.
SILENT = frozenset((Op.FORGET, Op.BATCH_FORGET, Op.INTERRUPT, Op.DESTROY))

_libc = ctypes.CDLL(None, use_errno=True)
_NOSUID_NODEV = 2 | 4
_DETACH = 2


def mount(point: Path) -> int:
    """Mount a FUSE file system and return the descriptor its requests come from.

    Raises:
        OSError: no /dev/fuse, or not allowed to mount.
    """
    fd = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    options = f"fd={fd},rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions"
    done = _libc.mount(
        b"holdfast-disk",
        os.fsencode(point),
        b"fuse.holdfast",
        ctypes.c_ulong(_NOSUID_NODEV),
        options.encode(),
    )
    if done != 0:
        os.close(fd)
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(point))
    return fd


def unmount(point: Path) -> bool:
    """Detach at once, whoever still uses it; False when nothing is mounted there.

    Raises:
        OSError: not allowed to.
    """
    if _libc.umount2(os.fsencode(point), _DETACH) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.EINVAL, errno.ENOENT):
        return False
    raise OSError(code, os.strerror(code), str(point))
