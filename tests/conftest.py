"""Settings for all tests."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# Two busy cores may be slow at any moment: time says nothing about an example. A failure prints the
# example and how to reproduce it; pytest-timeout still ends what hangs.
settings.register_profile(
    "holdfast", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("holdfast")
