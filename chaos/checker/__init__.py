"""Judges histories: what was promised to clients against what the log holds."""
