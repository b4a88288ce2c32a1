"""The command `limo-nb`: one module for each group of commands.

In: options and files. Out: tables for people, JSON for programs. Rooms are imported when a
command runs, so that `--help` is quick; what commands share is in `base`. Every chapter
whose work can be done on a reader's own files names its command.
"""

from __future__ import annotations

# Each of them registers its commands.
from limo_nb.cli import book, chains, clean, evaluate, grade, lab, pool, sft  # noqa: F401
from limo_nb.cli.base import app, tell


def main() -> None:
    """The entry point: an expected failure is told in its own words, without a traceback."""
    try:
        app()
    except Exception as error:
        if not isinstance(error, (ValueError, OSError)) and not isinstance(error, _failures()):
            raise
        tell(f"limo-nb: {error}")
        raise SystemExit(1) from None


def _failures() -> tuple[type[Exception], ...]:
    """The package's own; imported after a failure only, since torch takes seconds."""
    from limo_nb.book.render import RenderFailed
    from limo_nb.book.run import ChapterFailed
    from limo_nb.core.runs import MissingArtifact
    from limo_nb.inference import EngineFailed, NotInstalled

    return (ChapterFailed, RenderFailed, MissingArtifact, EngineFailed, NotInstalled)
