"""Durable storage: LMDB behind a small port, and the tables built on it."""
