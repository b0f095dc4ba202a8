"""What a broker's log holds, and what it does not."""

from __future__ import annotations

import json
import logging
import sys

import pytest
from grpc._cython import cygrpc

from holdfast.rpc.logs import JsonFormatter, quiet_grpc


def test_a_reader_that_leaves_is_no_traceback(caplog: pytest.LogCaptureFixture) -> None:
    quiet_grpc()
    quiet_grpc()
    logger = logging.getLogger("grpc._cython.cygrpc")
    for error in (cygrpc.ExecuteBatchError('Failed "execute_batch"'), RuntimeError("a fault of a handler")):
        try:
            raise error
        except Exception:
            logger.exception("%s", type(error).__name__)
    logger.error("said by gRPC")
    assert [record.message for record in caplog.records] == ["RuntimeError", "said by gRPC"]


def test_json_lines_hold_extra_facts_and_exceptions() -> None:
    try:
        raise ValueError("bad")
    except ValueError:
        record = logging.LogRecord(
            "holdfast.x", logging.ERROR, __file__, 1, "went %s", ("wrong",), sys.exc_info()
        )
    record.topic = "orders"
    line = json.loads(JsonFormatter("n7").format(record))
    assert (line["level"], line["logger"], line["node"]) == ("error", "holdfast.x", "n7")
    assert (line["message"], line["topic"]) == ("went wrong", "orders")
    assert "ValueError: bad" in line["exception"]
