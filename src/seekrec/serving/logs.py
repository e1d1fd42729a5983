# SPDX-License-Identifier: Apache-2.0
"""JSON logs, one line per entry, each with the id of its request. They contain neither users' texts nor tokens."""

from __future__ import annotations

import json
import logging
import sys
from contextvars import ContextVar
from datetime import UTC, datetime

# The request that is answered; empty outside of one.
request_id: ContextVar[str] = ContextVar("request_id", default="")

logger = logging.getLogger("seekrec.serving")


class JsonLines(logging.Formatter):
    """One JSON object a line: time, level, logger, message, request id, and what `extra={"fields": ...}` gives."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, object] = {
            "time": time,
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if found := request_id.get():
            line["request_id"] = found
        line |= getattr(record, "fields", {})
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str).encode("utf-8", "replace").decode()


def log_as_json() -> None:
    """Write the logs of this process as JSON lines to the standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logger.setLevel(logging.INFO)
    for name in ("uvicorn", "uvicorn.error"):
        server = logging.getLogger(name)
        server.handlers[:] = []
        server.propagate = True
        server.setLevel(logging.INFO)
    # A history may name items that the catalogue lacks: a line for each such request, with ids that a client made up.
    logging.getLogger("seekrec.models").setLevel(logging.ERROR)
    # It would write whole paths, with the ids of users in them; the server writes its own.
    logging.getLogger("uvicorn.access").disabled = True


__all__ = ["JsonLines", "log_as_json", "logger", "request_id"]
