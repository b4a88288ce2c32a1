"""`limo_nb.sample`: questions in, a table of answers out."""

from __future__ import annotations

import sqlite3

import pytest
from datasets import Dataset
from tiny import problems, tiny_model

from limo_nb.core.settings import SYSTEM_PROMPT, EngineSettings, Sampling
from limo_nb.inference import chat_prompt, complete, open_engine, sample

FLOAT = EngineSettings(dtype="float32", batch_size=8)
SHORT = Sampling(max_new_tokens=12)
DRAWN = Sampling(samples=2, temperature=1.0, max_new_tokens=12, seed=3)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(tiny_model(tmp_path_factory.mktemp("tiny")))


@pytest.fixture(scope="module")
def questions():
    return [row["question"] for row in problems(3)]


def test_texts_get_answers_in_their_order(model, questions, tmp_path):
    """The same as by hand: prompts of the book's form, an engine, a request."""
    table = sample(questions, model, sampling=DRAWN, engine=FLOAT)
    names = [f"row {number}" for number in (1, 2, 3)]
    with open_engine(FLOAT, model) as engine:
        asked = [
            (n, chat_prompt(q, SYSTEM_PROMPT)) for n, q in zip(names, questions, strict=True)
        ]
        known = complete(engine, asked, DRAWN, tmp_path / "s.db").to_list()
    assert [{name: row[name] for name in known[0]} for row in table] == known
    assert table["id"][:] == [name for name in names for _ in range(2)]
    assert table["question"][:] == [question for question in questions for _ in range(2)]
    assert set(table["model"]) == {model}


def test_rows_keep_their_columns(model, questions):
    rows = [{"id": "a", "question": questions[0], "level": 3}, {"question": questions[1]}]
    table = sample(rows, model, sampling=SHORT, engine=FLOAT)
    assert table["id"][:] == ["a", "row 2"] and table["level"][:] == [3, None]
    whole = Dataset.from_list([{"id": 7, "question": questions[0], "answer": "1"}])
    assert sample(whole, model, sampling=SHORT, engine=FLOAT)["answer"][:] == ["1"]


def test_a_store_is_continued_and_its_absence_leaves_nothing(
    model, questions, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    sample(questions[:1], model, sampling=SHORT, engine=FLOAT)
    assert not list(tmp_path.iterdir())
    store = tmp_path / "kept" / "s.sqlite"
    for count in (2, 3):
        table = sample(questions[:count], model, sampling=SHORT, engine=FLOAT, store=store)
        with sqlite3.connect(store) as database:
            (kept,) = database.execute("SELECT count(*) FROM completions").fetchone()
        assert len(table) == kept == count


def test_the_system_prompt_counts(model, questions):
    one, other = (
        sample(questions, model, sampling=DRAWN, system_prompt=prompt, engine=FLOAT)["text"][:]
        for prompt in (SYSTEM_PROMPT, "Answer.")
    )
    assert one != other


@pytest.mark.parametrize(
    ("rows", "match"),
    [
        ([{"id": "a"}], "row 1 has no text in `question`"),
        (["x", {"question": 3}], "row 2 has no text"),
        ([{"id": "a", "question": "x"}, {"id": "a", "question": "y"}], "the same id"),
    ],
)
def test_rows_that_cannot_be_asked_are_named(model, rows, match):
    with pytest.raises(ValueError, match=match):
        sample(rows, model, sampling=SHORT, engine=FLOAT)


def test_no_question_has_no_answer(model):
    assert len(sample([], model, sampling=SHORT, engine=FLOAT)) == 0
