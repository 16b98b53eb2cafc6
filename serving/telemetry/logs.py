"""Logging: structured fields on the standard library's records, as text for people or JSON for machines.

Fields travel in `extra={"fields": {...}}`, a table in `extra={"lines": [...]}`; both formats show the same ones. Everything
goes to standard error.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

LEVELS = ("debug", "info", "warning", "error")
FORMATS = ("text", "json")


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = "".join(f" {name}={_shown(value)}" for name, value in getattr(record, "fields", {}).items())
        line = f"{_when(record)} {record.levelname:<7} {_one_line(record.getMessage())}{fields}"
        line += "".join(f"\n    {_one_line(more)}" for more in getattr(record, "lines", ()))
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": _when(record),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if lines := getattr(record, "lines", ()):
            entry["lines"] = list(lines)
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)


def _when(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")


def _one_line(text: str) -> str:
    """Nothing that a client sends may look like a line of ours or steer a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _shown(value: object) -> str:
    if isinstance(value, list | tuple):
        value = ",".join(map(str, value)) or None
    if value is None:
        return "none"
    text = str(value).lower() if isinstance(value, bool) else str(value)
    plain = text.isprintable() and not any(c.isspace() or c in '"=' for c in text)
    return text if text and plain else json.dumps(text)


def configure(style: str, level: str) -> None:
    """Sends our log records to standard error in the given style; called once, at start."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if style == "json" else _Text())
    logger = logging.getLogger("serving")
    logger.handlers[:] = [handler]
    logger.propagate = False
    logger.setLevel(level.upper())
