"""Holdfast: a fault-tolerant event bus."""
