"""Logging in the shape that Istio's components use: time, level, scope, message, separated by tabs."""

from __future__ import annotations

import logging
import sys


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        at = self.formatTime(record, "%Y-%m-%dT%H:%M:%S")
        level = {"WARNING": "warn", "CRITICAL": "fatal"}.get(record.levelname, record.levelname.lower())
        text = (
            f"{at}.{int(record.msecs):03d}000Z\t{level}\t{record.name.removeprefix('lateen.')}\t{record.getMessage()}"
        )
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


def setup(level: int = logging.INFO) -> None:
    import time

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter())
    _Formatter.converter = time.gmtime
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
