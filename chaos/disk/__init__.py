"""A disk that forgets what was not fsynced, and fails, fills, slows down or rots on demand.

``Disk`` (``disk.py``) is one such disk: a FUSE file system in a process of its
own, with one broker's data directory on it. DESIGN.md says what a power cut does.
"""

from __future__ import annotations

from holdfast.chaos.disk.disk import Disk, missing

__all__ = ["Disk", "missing"]
