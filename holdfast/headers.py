"""Names of the record headers that Holdfast writes itself; a leaf module."""

from __future__ import annotations

#: Of dead letters: which group gave the record up, where it had read it, and why. Text, in UTF-8.
DEAD = "holdfast-dead-"
DEAD_GROUP = DEAD + "group"
DEAD_TOPIC = DEAD + "topic"
DEAD_PARTITION = DEAD + "partition"
DEAD_OFFSET = DEAD + "offset"
#: When the broker had appended it there, in microseconds since the Unix epoch.
DEAD_APPEND_US = DEAD + "append-us"
DEAD_ATTEMPTS = DEAD + "attempts"
#: A JSON list of [microseconds since the Unix epoch, text], oldest first.
DEAD_ERRORS = DEAD + "errors"
DEAD_FIRST_US = DEAD + "first-us"
#: The group's generation when it gave the record up.
DEAD_GENERATION = DEAD + "generation"
DEAD_REDRIVES = DEAD + "redrives"
#: A JSON object: how many `errors` and `headers` were left out for want of room.
DEAD_CUT = DEAD + "cut"

#: Of redriven records: the group they are for, where they were published first, and how often
#: they have been redriven.
REDRIVE = "holdfast-redrive-"
REDRIVE_GROUP = REDRIVE + "group"
REDRIVE_TOPIC = REDRIVE + "topic"
REDRIVE_PARTITION = REDRIVE + "partition"
REDRIVE_OFFSET = REDRIVE + "offset"
REDRIVE_APPEND_US = REDRIVE + "append-us"
REDRIVE_COUNT = REDRIVE + "count"

#: W3C trace context.
TRACEPARENT = "traceparent"
TRACESTATE = "tracestate"
