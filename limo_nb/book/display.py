"""What is seen while the book runs."""

from __future__ import annotations

import re

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn


class Display:
    """One live line on a terminal; elsewhere one line per chapter."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._live = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task: TaskID | None = None
        self._chapter = self._where = self._said = ""

    def __enter__(self) -> Display:
        self._live.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._live.stop()

    def begin(self, chapter: str) -> None:
        """Start the line of `chapter`, and its clock."""
        if self._task is not None:
            self._live.remove_task(self._task)
        self._task = self._live.add_task(chapter, total=None)
        self._chapter = self._where = chapter
        self._said = ""

    def cell(self, index: int, cells: int) -> None:
        """Show that cell `index` (from 0) of `cells` has started."""
        self._where = f"{self._chapter}  cell {index + 1}/{cells}"
        self._said = ""
        self._show()

    def hear(self, text: str) -> None:
        """Show the last line of what a cell prints."""
        lines = [line for line in re.split(r"[\r\n]+", text) if line.strip()]
        if lines:
            self._said = lines[-1].strip()
            self._show()

    def _show(self) -> None:
        if self._task is not None:
            width = max(20, self.console.width - len(self._where) - 16)
            said = f"{self._where}  {self._said[:width]}"
            self._live.update(self._task, description=said)

    def line(self, text: str) -> None:
        """Print a line that stays."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)
