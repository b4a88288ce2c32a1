"""The pages on the package: complete, linked with the chapters in both directions."""

from __future__ import annotations

import re

import nbformat
import pytest
from conftest import ROOT

from limo_nb.book import api, autodoc, contents, docstrings
from limo_nb.core.syntax import PACKAGE

CHAPTERS = contents.chapters(ROOT)


@pytest.fixture(scope="module")
def index() -> api.Index:
    return api.index({own: contents.read_notebook(own.path) for own in CHAPTERS})


@pytest.fixture(scope="module")
def pages(index: api.Index) -> dict[str, str]:
    return api.pages(index)


def test_every_room_has_its_page_and_its_place_in_the_table_of_contents() -> None:
    folders = {file.parent.name for file in PACKAGE.glob("*/__init__.py")}
    assert folders == set(api.ROOMS)
    listed = [file for file in contents.toc_files(ROOT) if file.startswith(api.FOLDER)]
    assert listed == [f"{api.FOLDER}/{name}" for name in ("index", *api.ROOMS)]


@pytest.mark.parametrize("room", api.ROOMS)
def test_what_a_face_offers_is_there(room: str) -> None:
    for entry in api.offered(room):
        assert entry.address.startswith(f"limo_nb.{room}.")
        assert entry.home[1] in api.definitions(entry.home[0])


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda own: own.name)
def test_a_chapter_and_its_names_link_to_each_other(chapter, index, pages) -> None:
    used = index.of_chapter(chapter)
    assert len(used) > 3, "every chapter uses the package"
    back = api.link_back(chapter, index)
    for entry in used:
        assert f"<{entry.address}>`" in back
        described = pages[f"{entry.room}.rst"].split(f":: {entry.address}\n")[1]
        assert f"</book/{chapter.name}>`" in described.split(".. auto")[0]


def test_no_name_is_described_twice_and_commands_have_a_page(pages) -> None:
    names = re.findall(r"\.\. auto\w+:: (\S+)", "\n".join(pages.values()))
    assert len(names) == len(set(names)) and "limo_nb.core.Run" in names
    assert "## `limo-nb run`" in pages["cli.md"] and "--help" not in pages["cli.md"]


@pytest.mark.parametrize(
    ("code", "homes"),
    [
        ("from limo_nb import Run\nRun('mini')", {"core.runs.Run"}),
        ("from limo_nb.core import Run", {"core.runs.Run"}),
        ("from limo_nb import lab\nlab.pool(3, 1)", {"lab.items.pool"}),
        ("from limo_nb.lab import items as i\ni.pool(3, 1)", {"lab.items.pool"}),
        ("from limo_nb.book import plots\nplots.show(plots.lines())",
         {"book.plots.show", "book.plots.lines"}),
        ("from limo_nb import book\nbook.exercises.check", {"book.exercises.check"}),
        ("from limo_nb import lab\nlab.nothing", set()),
        ("import numpy as np\n%matplotlib inline\nnp.mean([1])", set()),
    ],
)  # fmt: skip
def test_the_names_that_cells_use(code: str, homes: set[str]) -> None:
    found = api.used([nbformat.v4.new_code_cell(code)])
    assert {".".join(home) for home in found} == {f"limo_nb.{home}" for home in homes}


@pytest.mark.parametrize(
    ("text", "rst"),
    [
        ("A *b* of c_ and `x | y`s.", r"A \*b\* of c\_ and \ ``x | y``\ s."),
        ("See `draw` and `draw()`.",
         r"See \ :py:obj:`draw <a.draw>`\  and \ :py:obj:`draw() <a.draw>`\ ."),
        ("Chapters 4 and 5; 4 rows.", "Chapters :doc:`4 </book/04-x>` and 5; 4 rows."),
        ("One.\n\n- a\n  b\n- c", "One.\n\n- a\n  b\n- c"),
        ("Run\n\n    limo *", "Run\n\n::\n\n        limo *"),
        ("hanging\n  line", "hanging\nline"),
    ],
)  # fmt: skip
def test_plain_docstrings_become_restructured_text(text: str, rst: str) -> None:
    assert docstrings.restructured(text, {"draw": "a.draw"}, {4: "/book/04-x"}) == rst


def test_fields_and_constants_are_described_by_their_comments() -> None:
    source = (
        "# of both\n# lines\nSIZE = 3\n\nOTHER = 4  # fmt: skip\n\n"
        "class Row:\n    id: str  # its name\n    n: int = 1\n"
        "    text: str = field(\n    )  # long\n"
    )
    assert autodoc.comments(source) == {
        ("", "SIZE"): "of both lines",
        ("Row", "id"): "its name",
        ("Row", "text"): "long",
    }
