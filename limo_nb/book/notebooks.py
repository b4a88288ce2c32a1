"""One notebook through papermill, with word of every cell while it happens."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import papermill
from nbformat import NotebookNode
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, NotebookExecutionManager, papermill_engines


class TellingClient(PapermillNotebookClient):
    """Papermill's own client, which also passes on what cells print and display."""

    def __init__(
        self, manager: NotebookExecutionManager, heard: Callable[[str], None], **options: Any
    ) -> None:
        super().__init__(manager, **options)
        self.heard = heard

    def process_message(self, msg: Mapping, cell: NotebookNode, cell_index: int) -> Any:
        """Pass on the message's text, and treat it as papermill does."""
        content = msg["content"]
        self.heard(content.get("text") or content.get("data", {}).get("text/plain", ""))
        return super().process_message(msg, cell, cell_index)


class TellingEngine(NBClientEngine):
    """Papermill's own engine, which also tells of cells and output while they happen."""

    @classmethod
    def execute_managed_notebook(
        cls,
        nb_man: NotebookExecutionManager,
        kernel_name: str,
        told: Callable[[int, int], None],
        heard: Callable[[str], None],
        **_: Any,
    ) -> None:
        """Execute the notebook of `nb_man`; its errors are kept there, as papermill wants."""
        start = nb_man.cell_start

        def cell_start(cell: NotebookNode, cell_index: int, **rest: Any) -> None:
            told(cell_index, len(nb_man.nb.cells))
            start(cell, cell_index, **rest)

        nb_man.cell_start = cell_start
        TellingClient(
            nb_man,
            heard,
            kernel_name=kernel_name,
            timeout=None,
            startup_timeout=120,  # importing can be slow on a machine under load
            # Of the kernel itself: it calls the interrupt that ends it an error.
            extra_arguments=["--log-level=50"],
        ).execute()


papermill_engines.register("limo-nb", TellingEngine)


def run_notebook(
    source: Path,
    target: Path,
    parameters: Mapping[str, Any],
    told: Callable[[int, int], None] = lambda index, cells: None,
    heard: Callable[[str], None] = lambda text: None,
) -> None:
    """Execute `source` into `target` by papermill, with this environment's kernel.

    `told(index, cells)` is called for each cell that starts, `heard(text)` for what cells
    print and display. Raises what papermill raises. Whatever ends it, the kernel ends too,
    and `target` holds the outputs up to there.
    """
    papermill.execute_notebook(
        str(source),
        str(target),
        parameters=dict(parameters),
        engine_name="limo-nb",
        kernel_name="python3",
        cwd=str(source.parent),
        progress_bar=False,
        told=told,
        heard=heard,
    )
