"""One line that changes: progress in a terminal, in a notebook, and headless.

In a notebook the line is one display that is updated in place, so that a run through
papermill keeps its last state only; in a log file it is printed twice a minute. With
LIMO_NB_PROGRESS=lines a notebook prints these lines too: `papermill --log-output` shows
what cells print, not what they update (`limo-nb run` shows both). With
LIMO_NB_PROGRESS=none, which `limo-nb --quiet` sets, nothing of it is shown.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from datetime import timedelta
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
        self.silent = os.environ.get("LIMO_NB_PROGRESS") == "none"
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
        if self.silent:
            return
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
        if self.terminal and not self.silent:
            sys.stderr.write("\n")

    def flush(self) -> None:
        """Part of a file's interface; every write is shown at once."""


class Bar(tqdm):
    """A tqdm bar on a LiveLine; its last state stays."""

    last_print_t: float  # tqdm's own

    def sign(self, text: str) -> None:
        """Show `text` behind the bar: none of its things has ended, but there is work."""
        self.set_postfix_str(text, refresh=False)
        if self.disable or time.time() - self.last_print_t < self.mininterval:
            return
        self.last_print_t = time.time()
        self.refresh()

    def close(self) -> None:
        """End the bar and leave its last state."""
        if not self.disable:
            self.fp.finish(str(self))
        super().close()


class Pace:
    """Tokens a second and the time left, from tokens as they come and from rows that ended.

    Rows that end first are short, so the tokens of a row are no fewer than those that a row
    on its way has by now; before any has ended, none is longer than `limit` tokens.
    """

    def __init__(
        self, rows: int, limit: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.rows, self.limit, self._clock = rows, limit, clock
        self._began = clock()
        self.ended = self.tokens = 0  # of rows that ended
        self.underway = (0, 0)  # rows that are being made, and their tokens so far

    def end(self, rows: int, tokens: int) -> None:
        """Count rows that have ended, with the tokens of all of each."""
        self.ended += rows
        self.tokens += tokens

    def __str__(self) -> str:
        rows, tokens = self.underway
        rate = (self.tokens + tokens) / max(self._clock() - self._began, 1e-9)
        said = [f"{rate:,.0f} tokens/s" if rate >= 10 or not rate else f"{rate:.1f} tokens/s"]
        if rows:
            said.append(f"{rows} on their way" + (f" with {tokens:,} tokens" if tokens else ""))
        if rate and self.ended < self.rows:
            seconds = max(0.0, self._left(rows, tokens)) / rate
            most = "" if self.ended else "at most "
            said.append(f"{most}{timedelta(seconds=round(seconds))} left")
        return ", ".join(said)

    def _left(self, rows: int, tokens: int) -> float:
        """Tokens that are still to be made, estimated."""
        each = float(self.limit)
        if self.ended:
            each = max(self.tokens / self.ended, tokens / rows if rows else 0.0)
        return (self.rows - self.ended) * each - tokens


def progress_bar(
    total: int, unit: str, label: str, done: int = 0, bar_format: str | None = None
) -> Bar:
    """A bar over `total` things, of which `done` were there before.

    `bar_format` is tqdm's, where its own rate and time left say too little.
    """
    line = LiveLine()
    return Bar(
        total=total, initial=done, unit=f" {unit}", desc=label or unit, file=line,
        mininterval=line.interval, miniters=1, leave=False, ascii=" -",
        ncols=None if line.terminal else 120 if bar_format else 96, bar_format=bar_format,
    )  # fmt: skip
