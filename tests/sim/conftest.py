"""Whole runs of the simulator in this process."""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def runs() -> Iterator[None]:
    """What simulated brokers log is of no interest; garbage, which a run leaves for later, is collected."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)
    gc.unfreeze()
    gc.enable()
