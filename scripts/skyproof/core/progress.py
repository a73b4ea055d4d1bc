"""Progress of a long step: a bar on a terminal, or a line in the log every 20 s."""

from __future__ import annotations

import logging
import sys
import time

from tqdm import tqdm

_LINE_EVERY_S = 20.0


class Progress:
    """Counts steps of a known total, for use on rank 0."""

    def __init__(self, total: int, label: str, log: logging.Logger, *, quiet: bool = False) -> None:
        self.total, self.label, self.log, self.done = total, label, log, 0
        self._quiet = quiet
        self._started = self._last = time.monotonic()
        terminal = sys.stderr.isatty() and not quiet
        self._bar = tqdm(total=total, desc=label, file=sys.stderr) if terminal else None

    def advance(self, count: int = 1, note: str = "") -> None:
        """Add `count` finished steps; `note` (a loss, a name) is shown beside the count."""
        self.done += count
        if self._bar is not None:
            if note:
                self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(count)
            return
        now = time.monotonic()
        if not self._quiet and (now - self._last > _LINE_EVERY_S or self.done == self.total):
            self._last = now
            rate = self.done / max(now - self._started, 1e-9)
            self.log.info("%s %d/%d, %.3g/s %s", self.label, self.done, self.total, rate, note)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
