"""Fault drills: real brokers broken on purpose under load, and a history that is judged afterwards."""
