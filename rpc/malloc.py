"""Tunes glibc's allocator for a broker.

A broker allocates and frees buffers of 100 KB to some MB all day. By default
glibc gives such memory back to the kernel at once and faults it in again,
page by page, for the next batch; encoding a batch then costs several times as
much. Keeping a bounded amount is what the settings below do.
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
