"""The command `limo-nb`. One module for each group of commands."""

from __future__ import annotations

from rich.console import Console

# Each of them registers its commands.
from limo_nb.cli import book, chains, clean, evaluate, grade, lab, pool, sft  # noqa: F401
from limo_nb.cli.base import app


def main() -> None:
    """The entry point: an expected failure is told in its own words, without a traceback."""
    try:
        app()
    except Exception as error:
        if not isinstance(error, (ValueError, OSError)) and not isinstance(error, _failures()):
            raise
        Console(stderr=True).print(
            f"limo-nb: {error}", markup=False, highlight=False, soft_wrap=True
        )
        raise SystemExit(1) from None


def _failures() -> tuple[type[Exception], ...]:
    """The package's own; imported after a failure only, since torch takes seconds."""
    from limo_nb.book.render import RenderFailed
    from limo_nb.book.run import ChapterFailed
    from limo_nb.core.runs import MissingArtifact
    from limo_nb.inference import EngineFailed, NotInstalled

    return (ChapterFailed, RenderFailed, MissingArtifact, EngineFailed, NotInstalled)
