"""Log output of a broker process: for people, or one JSON object a line."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

from holdfast.rpc.settings import Log

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """Time, level, logger, message, node, and whatever ``extra`` held."""

    def __init__(self, node_id: str) -> None:
        super().__init__()
        self._node_id = node_id

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "node": self._node_id,
            "message": record.getMessage(),
        }
        line.update((key, value) for key, value in vars(record).items() if key not in _STANDARD)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def _news(record: logging.LogRecord) -> bool:
    """False for what gRPC reports as an error, with a traceback, when a client goes away."""
    return not str(record.msg).startswith("ExecuteBatchError raised in core")


class _GoneReader(logging.Filter):
    """Drops gRPC's traceback of a message that could not be sent any more.

    A client that leaves in the middle of a stream is no error; gRPC logs it as one, from outside of any
    code that could catch it.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        kind = record.exc_info[0] if record.exc_info else None
        return kind is None or kind.__name__ != "ExecuteBatchError"


_GONE_READER = _GoneReader()


def quiet_grpc() -> None:
    """Once or often; of embedded brokers too, so that their host's log stays readable."""
    logging.getLogger("grpc._cython.cygrpc").addFilter(_GONE_READER)


def configure(log: Log, node_id: str) -> None:
    """Send everything to standard error; replaces what was configured before."""
    handler = logging.StreamHandler(sys.stderr)
    if log.format == "json":
        handler.setFormatter(JsonFormatter(node_id))
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    logging.getLogger("holdfast").setLevel(log.level.upper())
    logging.getLogger("grpc._cython.cygrpc").addFilter(_news)
