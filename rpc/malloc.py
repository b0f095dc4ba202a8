"""Tunes glibc's allocator for a broker.

A broker allocates and frees buffers of 100 KB to some MB all day. By default
glibc gives such memory back to the kernel at once and faults it in again,
page by page, for the next batch; encoding a batch then costs several times as
much. Keeping a bounded amount is what the settings below do.

They only speak of the top of the heap. What is freed below it, such as the
messages of a hundred readers that went away, is given back by ``give_back``.
"""

from __future__ import annotations

import ctypes
import logging

logger = logging.getLogger(__name__)

# From glibc's malloc.h.
_M_TRIM_THRESHOLD = -1
_M_TOP_PAD = -2
_M_MMAP_THRESHOLD = -3

#: Free memory at the top of the heap that is kept, in bytes.
KEEP_BYTES = 32 << 20
#: Larger blocks still come straight from the kernel and go back to it.
MMAP_BYTES = 16 << 20
#: More free memory than this anywhere in the heap is given back.
EXCESS_BYTES = 96 << 20


class _Mallinfo2(ctypes.Structure):
    """glibc's ``struct mallinfo2``."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        )
    )


def give_back(excess_bytes: int = EXCESS_BYTES) -> bool:
    """Give free memory back to the kernel when there is more than ``excess_bytes`` of it; True when it was.

    Takes some milliseconds when there is much; callable from any thread.
    """
    library = ctypes.CDLL(None)
    info = getattr(library, "mallinfo2", None)  # glibc 2.33
    trim = getattr(library, "malloc_trim", None)
    if info is None or trim is None:
        return False
    info.restype = _Mallinfo2
    trim.argtypes = (ctypes.c_size_t,)
    if info().fordblks <= excess_bytes:
        return False
    return bool(trim(KEEP_BYTES))


def keep_freed_memory() -> bool:
    """Apply the settings; False where the C library has none (not glibc)."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    wanted = ((_M_MMAP_THRESHOLD, MMAP_BYTES), (_M_TRIM_THRESHOLD, KEEP_BYTES), (_M_TOP_PAD, 1 << 20))
    applied = [bool(mallopt(option, value)) for option, value in wanted]
    if not all(applied):
        logger.debug("mallopt refused a setting: %s", applied)
    return all(applied)
