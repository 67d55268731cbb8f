"""The daemon's log: what happened, one JSON object a line, in the state folder. Never a note's text, nor a secret."""

import json
import logging
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from logging.handlers import RotatingFileHandler

from vaultlab.process import logs
from vaultlab.vault.journal import made

LOG_BYTES = 2**20
KEPT = 3
"""So many full files are kept beside the one that is written."""


@contextmanager
def logged() -> Iterator[None]:
    """Everything that happens meanwhile; the file is begun anew when it is full."""
    made(logs())
    handler = RotatingFileHandler(
        logs() / "daemon.log", maxBytes=LOG_BYTES, backupCount=KEPT, encoding="utf-8", delay=True
    )
    handler.setFormatter(_Lines())
    logger = logging.getLogger("vaultlab")
    before = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.setLevel(before[0])
        logger.propagate = before[1]
        logger.removeHandler(handler)
        handler.close()


class _Lines(logging.Formatter):
    """`of` of a record are its fields. Of an exception its kind and place are told: its words may quote a note."""

    def format(self, record: logging.LogRecord) -> str:
        said = {
            "at": time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(record.created)),
            "level": record.levelname.lower(),
            "what": record.getMessage(),
            **getattr(record, "of", {}),
        }
        if record.exc_info and record.exc_info[0] is not None:
            kind, _, place = record.exc_info
            said["trace"] = f"{kind.__name__}\n{''.join(traceback.format_tb(place))}"
        return json.dumps(said, ensure_ascii=False)
