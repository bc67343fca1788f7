"""TensorBoard files, if tensorboardX is installed.

They are written by the calling thread. The one of tensorboardX's ``SummaryWriter`` ends at the first error, such as a full disk,
and further calls would wait for it.
"""

import time
from collections.abc import Mapping
from pathlib import Path

from jaxtyping import UInt8
from numpy import ndarray

FLUSH = 120.0
"""Seconds after which the file is brought up to date."""


class Board:
    """One file of events. Methods raise OSError if it cannot be written.

    Args:
      folder: gets the file.
      start_step: records of later steps in earlier files are hidden.

    Raises:
      ImportError: tensorboardX is not installed.
    """

    def __init__(self, folder: Path, start_step: int):
        from tensorboardX import event_file_writer, summary
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        self._event, self._summary = Event, summary
        folder.mkdir(parents=True, exist_ok=True)
        self._file = event_file_writer.EventsWriter(str(folder / "events"), f".from{start_step}")
        self._flushed = time.monotonic()
        if start_step:
            self._add(start_step + 1, session_log=SessionLog(status=SessionLog.START))

    def scalars(self, values: Mapping[str, int | float], step: int) -> None:
        """Numbers by name."""
        for name, value in values.items():
            self._add(step, summary=self._summary.scalar(name, value))
        if time.monotonic() - self._flushed > FLUSH:
            self._file.flush()
            self._flushed = time.monotonic()

    def image(self, name: str, image: UInt8[ndarray, "_ _ 3"], step: int) -> None:
        """One image."""
        self._add(step, summary=self._summary.image(name, image, dataformats="HWC"))

    def close(self) -> None:
        """Completes the file."""
        self._file.close()

    def _add(self, step: int, **content: object) -> None:
        self._file.write_event(self._event(wall_time=time.time(), step=step, **content))
