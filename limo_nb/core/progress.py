"""One line that changes: progress in a terminal, in a notebook, and headless.

In a notebook the line is one display that is updated in place, so that a run through
papermill keeps its last state only; in a log file it is printed twice a minute. With
LIMO_NB_PROGRESS=lines a notebook prints these lines too: `papermill --log-output` shows
what cells print, not what they update (`limo-nb run` shows both).
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any

from tqdm import tqdm

PROGRESS = "application/vnd.limo-nb.progress"  # marks an output that no page needs
QUIET_SECONDS = 30.0  # between two lines where nobody can see a line change


def in_notebook() -> bool:
    """Whether this process is a Jupyter kernel."""
    shell = sys.modules.get("IPython")
    return bool(shell and getattr(shell.get_ipython(), "kernel", None))


class LiveLine:
    """A file whose last written line is what the reader sees (tqdm can write to it)."""

    def __init__(self) -> None:
        lines = os.environ.get("LIMO_NB_PROGRESS") == "lines"
        self.notebook = in_notebook() and not lines
        self.terminal = not in_notebook() and not lines and sys.stderr.isatty()
        self._handle: Any = None
        self._shown, self._at, self._last = 0, 0.0, ""

    @property
    def interval(self) -> float:
        """Seconds between two states that are worth writing."""
        return 0.5 if self.notebook or self.terminal else QUIET_SECONDS

    def write(self, text: str) -> None:
        """Show `text`; carriage returns and empty text are left out."""
        text = text.strip("\r\n ")
        if not text or text == self._last:
            return
        self._last = text
        if self.notebook:
            self._update({"text/plain": text, PROGRESS: ""})
        elif self.terminal:
            sys.stderr.write("\r" + text.ljust(self._shown))
            self._shown = len(text)
        elif time.monotonic() - self._at >= QUIET_SECONDS:
            print(text, file=sys.stderr, flush=True)
            self._at = time.monotonic()

    def _update(self, bundle: dict[str, str]) -> None:
        from IPython.display import display

        if self._handle is None:
            self._handle = display(bundle, raw=True, display_id=True)
        else:
            self._handle.update(bundle, raw=True)

    def finish(self, text: str = "") -> None:
        """Show `text` as the last state and end the line."""
        self._at = -QUIET_SECONDS
        self.write(text)
        if self.terminal:
            sys.stderr.write("\n")

    def flush(self) -> None:
        """Part of a file's interface; every write is shown at once."""


class Bar(tqdm):
    """A tqdm bar on a LiveLine; its last state stays."""

    def close(self) -> None:
        """End the bar and leave its last state."""
        if not self.disable:
            self.fp.finish(str(self))
        super().close()


def progress_bar(total: int, unit: str, label: str, done: int = 0) -> Bar:
    """A bar over `total` things, of which `done` were there before."""
    line = LiveLine()
    return Bar(
        total=total, initial=done, unit=f" {unit}", desc=label or unit, file=line,
        mininterval=line.interval, miniters=1, leave=False, ascii=" -",
        ncols=None if line.terminal else 96,
    )  # fmt: skip
