"""The page of `limo-nb view`: what it holds, and what keys and filters do in a browser."""

import json

import pytest
from browser import Browser
from typer.testing import CliRunner

from limo_nb.book.row_viewer import ViewRows
from limo_nb.cli import app
from limo_nb.core.records import write_records

HOSTILE = "</script><script>document.title='taken'</script><!-- <b>\u2028 \ud800 ${x} `"
ROWS = [
    {"id": "a", "question": "One?", "answer": 1, "response": "\\boxed{1}", "correct": True},
    {"id": "a", "question": "One?", "answer": 1, "response": "\\boxed{2}", "correct": False},
    {"id": "b", "question": "Two?", "answer": "2", "subject": "B", "level": 5, "score": 0.5,
     "response": "<think>\nHm, wait.\n</think>\n\nIt is 2.", "correct": True},
    {"id": "c", "question": HOSTILE, "answer": "3", "response": HOSTILE, "correct": False,
     "reason": "another number"},
]  # fmt: skip
OTHER = [{**row, "correct": row["id"] != "b"} for row in ROWS[1:]]


def page(*files):
    made = ViewRows()
    for n, rows in enumerate(files):
        made.add(f"{n}.jsonl", [(f"row {i}", row) for i, row in enumerate(rows, 1)])
    return made


def test_rows_of_one_question_are_one_entry_with_both_files():
    made = page([*ROWS, {"x": 1}], OTHER)
    assert list(made.entries) == ["a", "b", "c"]
    assert [len(own) for own in made.entries["a"]["chains"]] == [2, 1]
    chain = made.entries["b"]["chains"][0][0]
    assert (chain["thought"].strip(), chain["said"].strip()) == ("Hm, wait.", "It is 2.")
    assert made.broken == ["row 5: neither a question nor a chain"]
    with pytest.raises(ValueError, match="nothing to show"):
        page([{"x": 1}]).html()


@pytest.mark.parametrize("files", [(ROWS,), (ROWS, OTHER)])
def test_a_page_needs_no_network_and_text_stays_text(files, tmp_path):
    file = tmp_path / "page.html"
    file.write_text(page(*files).html(), "utf-8")
    with Browser(tmp_path / "profile") as browser:
        browser.open(file)
        assert browser.value("document.title") == " and ".join(
            f"{n}.jsonl" for n in range(len(files))
        )
        assert [url for url in browser.requests if not url.startswith("file:")] == []
        shown = browser.value("document.getElementById('shown').innerText")
        assert "One?" in shown or len(files) > 1


def test_search_filters_and_keys(tmp_path):
    file = tmp_path / "page.html"
    many = [
        {"id": f"n{n}", "question": f"Number {n}?", "response": f"{n}", "correct": n % 2 == 0}
        for n in range(10_000)
    ]
    file.write_text(page([*ROWS, *many]).html(), "utf-8")
    with Browser(tmp_path / "profile") as browser:
        browser.open(file)
        assert browser.value("document.querySelectorAll('.row').length") < 60
        key = (
            "document.dispatchEvent(new KeyboardEvent('keydown', {key: 'KEY', bubbles: true}))"
        )
        browser.value(key.replace("KEY", "j"))
        assert "Two?" in browser.value("document.getElementById('shown').innerText")
        browser.value(key.replace("KEY", "End"))
        assert "Number 9999?" in browser.value("document.getElementById('shown').innerText")
        said = "document.getElementById('count').textContent"
        browser.value("$('verdict').value = 'mixed'; choose()")
        assert browser.value(said) == "1 of 10,003"
        browser.value("$('verdict').value = ''; $('search').value = 'number 777'; choose()")
        assert browser.value(said) == "19 of 10,003"
        browser.value("$('search').value = '<script>'; choose()")
        assert browser.value(said) == "1 of 10,003"
        assert "<b>" in browser.value("document.getElementById('shown').innerText")


def test_of_two_files_the_answers_that_differ_come_first(tmp_path):
    file = tmp_path / "page.html"
    file.write_text(page(ROWS, OTHER).html(), "utf-8")
    with Browser(tmp_path / "profile") as browser:
        browser.open(file)
        first = "document.querySelector('.row b').textContent"
        assert browser.value(first) in ("Two?", HOSTILE.replace("\u2028", " "))
        browser.value("$('verdict').value = 'apart'; choose()")
        assert browser.value("document.getElementById('count').textContent") == "3 of 3"
        assert browser.value("document.querySelectorAll('#shown section').length") == 2


def test_as_a_command(tmp_path):
    write_records(ROWS[:3], tmp_path / "a.jsonl")
    words = ["view", str(tmp_path / "a.jsonl"), "--out", str(tmp_path / "v.html")]
    done = CliRunner().invoke(app, [*words, "--json"])
    assert done.exit_code == 0, done.exception
    assert json.loads(done.stdout)["questions"] == 2
    again = CliRunner().invoke(app, words)
    assert again.exit_code == 1 and "is there already" in str(again.exception)
