"""Databases of users: what inbox and outbox need to know of their connections. Not public."""
