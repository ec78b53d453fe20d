"""The operator's log: one JSON object per line on standard error; events with facts.

Never prompt text, completion text, keys or paths a client chose; and never a source for the audit log, nor made from
it.  A line that cannot be written (standard error lies on a full disk, its reader is gone) is counted and dropped: what
an operator may miss must not keep a request from its answer, or the appliance from its stop.
"""

from __future__ import annotations

import json
import logging
import os
from typing import Any, TextIO, cast

import structlog

STANDARD_ERROR = 2
LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


def configure_logs(level: str) -> None:
    """Set the one configuration of this process's logs."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(ensure_ascii=True),  # control characters stay data
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=structlog.PrintLoggerFactory(cast("TextIO", LineSink(STANDARD_ERROR))),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(cast("TextIO", LineSink(STANDARD_ERROR)))
    handler.setFormatter(_JsonFormatter())
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)


def class_names(failure: BaseException) -> list[str]:
    """Name what broke, an exception or a group of them, without a message: that could carry a piece of a prompt."""
    inner = failure.exceptions if isinstance(failure, BaseExceptionGroup) else (failure,)
    return [type(one).__name__ for one in inner]


class LineSink:
    """The part of a text file that loggers use; no write fails.

    Whoever owns it serializes its calls, as both kinds of loggers do.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._parts: list[str] = []
        """Of the line that is being put together."""
        self.num_lost = 0
        """Lines dropped since the last one that could be written."""

    def write(self, text: str) -> int:
        """Take a part of a line."""
        self._parts.append(text)
        return len(text)

    def flush(self) -> None:
        """Write what came, after a word on what was lost before it."""
        text = "".join(self._parts)
        self._parts.clear()
        lost = json.dumps({"event": "log_lines_lost", "num_lines": self.num_lost, "level": "error"}) + "\n"
        try:
            _write_all(self._descriptor, (lost if self.num_lost else "") + text)
        except OSError:
            self.num_lost += 1
        else:
            self.num_lost = 0


def _write_all(descriptor: int, text: str) -> None:
    rest = memoryview(text.encode(errors="backslashreplace"))
    while rest:
        rest = rest[os.write(descriptor, rest) :]


class _JsonFormatter(logging.Formatter):
    """Libraries' own messages in the same shape: name and level, and the message escaped."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {"event": record.getMessage(), "logger": record.name, "level": record.levelname.lower()}
        return str(structlog.processors.JSONRenderer(ensure_ascii=True)(None, "", line))
