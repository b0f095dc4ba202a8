"""Handlers: functions that are called with the records of a group. This package's modules are private."""
