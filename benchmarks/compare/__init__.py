"""``make bench``: the comparison. ``python -m benchmarks.compare --help``."""
