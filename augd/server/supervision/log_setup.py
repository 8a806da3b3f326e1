"""Sets up the log of the daemon, relay and supervisor: plain lines, or JSON for collectors."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime


class _JsonLines(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        text = record.getMessage()
        level = record.levelname.lower()
        return json.dumps({"time": at, "level": level, "message": text, "pid": record.process})


def set_up_log(*, is_quiet: bool, log_format: str = "text") -> None:
    """Log to stderr: plain lines without dates, which journals add, or JSON."""
    logging.raiseExceptions = False  # no traceback for each line if the log's disk is full
    line = logging.StreamHandler(sys.stderr)
    is_json = log_format == "json"
    line.setFormatter(_JsonLines() if is_json else logging.Formatter("augd: %(message)s"))
    log = logging.getLogger("augd")
    log.addHandler(line)
    log.setLevel(logging.WARNING if is_quiet else logging.INFO)
    log.propagate = False
