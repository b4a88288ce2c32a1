"""The command `limo-nb`: one module for each group of commands.

In: options and files. Out: tables for people, JSON for programs. Rooms are imported when a
command runs, so that `--help` is quick; what commands share is in `base`. Every chapter
whose work can be done on a reader's own files names its command.
"""

from __future__ import annotations

import os

# Each of them registers its commands.
from limo_nb.cli import (  # noqa: F401
    book,
    chains,
    clean,
    evaluate,
    grade,
    lab,
    pool,
    sft,
    show,
)
from limo_nb.cli.base import app, tell


def main() -> None:
    """The entry point: a failure is told in a line, and `LIMO_NB_DEBUG=1` shows its place."""
    try:
        app()
    except Exception as error:
        if os.environ.get("LIMO_NB_DEBUG"):
            raise
        tell(f"limo-nb: {_words(error)}", always=True)
        raise SystemExit(1) from None


def _words(error: Exception) -> str:
    """What is said of `error`: its own words where it was foreseen."""
    if isinstance(error, ValueError | OSError) or isinstance(error, _failures()):
        return str(error)
    first = (str(error).strip() or "no more is known").splitlines()[0]
    return f"{type(error).__name__}: {first} (LIMO_NB_DEBUG=1 shows where)"


def _failures() -> tuple[type[Exception], ...]:
    """The package's own; imported after a failure only, since torch takes seconds."""
    from limo_nb.book.render import RenderFailed
    from limo_nb.book.run import ChapterFailed
    from limo_nb.core.runs import MissingArtifact
    from limo_nb.inference import EngineFailed, NotInstalled

    return (ChapterFailed, RenderFailed, MissingArtifact, EngineFailed, NotInstalled)
