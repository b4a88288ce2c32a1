"""Budget forcing: where a chain is cut, and what a real small model is made to continue."""

from __future__ import annotations

import pytest

from limo_nb import lab
from limo_nb.core.settings import (
    EngineSettings,
    Sampling,
)
from limo_nb.inference import (
    budget_forcing,
    chat_prompt,
    complete,
    load_tokenizer,
    open_engine,
    plain_ids,
)

MODEL, SYSTEM = "lab:reasoner", "Answer the question."


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("1) 7+4=1.\nSo the answer is \\boxed{1}", "1) 7+4=1."),
        ("One.\n\n**Final Answer**\n\\boxed{2}\n", "One.\n\n**Final Answer**"),
        ("It is \\boxed{3}? No.\nIt is \\boxed{4}", "It is \\boxed{3}? No."),
        ("\\boxed{5}", ""),
        ("<think>\nHm.\n</think>\n\nSo \\boxed{6}.", "<think>\nHm."),
        ("[THINK]Hm.[/THINK]So \\boxed{6}.", "[THINK]Hm."),
        ("no box at all", "no box at all"),
    ],
)
def test_a_thought_ends_before_its_conclusion(text: str, want: str) -> None:
    assert budget_forcing.without_conclusion(text) == want


@pytest.fixture(scope="module")
def asked():
    return [(row["id"], chat_prompt(row["question"], SYSTEM)) for row in lab.pool(8, seed=5)]


@pytest.fixture
def opened(tmp_path):
    """A function that runs `work(forcer, engine)` with an open engine."""

    def run(work):
        settings = EngineSettings(dtype="float32", batch_size=8)
        with open_engine(settings, MODEL) as engine:
            return work(budget_forcing.BudgetForcer(engine, MODEL, tmp_path / "s.db"), engine)

    return run


def answers_of(engine, asked, store, tokens=300):
    return complete(engine, asked, Sampling(max_new_tokens=tokens), store)


def test_ended_chains_go_on_and_others_stay(opened, asked, tmp_path) -> None:
    def work(forcer, engine):
        first = answers_of(engine, asked, tmp_path / "s.db")
        return first, forcer.lengthened(asked, first, 12)

    first, longer = opened(work)
    assert list(first["id"]) == list(longer["id"])
    assert any(first["finished"]), "the model must end some answer"
    for before, after in zip(first, longer, strict=True):
        if before["finished"]:
            assert after["text"].startswith(
                budget_forcing.without_conclusion(before["text"]) + budget_forcing.WAIT
            )
        else:
            assert after == before


@pytest.mark.parametrize("limit", [4, 16])
def test_open_chains_conclude_at_the_limit(opened, asked, tmp_path, limit) -> None:
    def work(forcer, engine):
        first = answers_of(engine, asked, tmp_path / "s.db")
        return first, forcer.concluded(asked, first, limit)

    first, ended = opened(work)
    tokenizer, some = load_tokenizer(MODEL), 0
    for before, after in zip(first, ended, strict=True):
        if before["tokens"] < limit:
            assert after == before
            continue
        head, closing, _ = after["text"].partition(budget_forcing.CLOSING)
        assert closing and before["text"].startswith(head)
        assert len(plain_ids(tokenizer, head)) <= limit
        assert (
            after["tokens"]
            <= limit + len(plain_ids(tokenizer, closing)) + budget_forcing.ANSWER_TOKENS
        )
        some += 1
    assert some


def test_what_is_continued_is_what_the_model_would_have_read(opened, asked, tmp_path) -> None:
    """Greedy decoding from an answer's first half gives its second half."""

    def work(forcer, engine):
        (name, prompt), *_ = asked
        whole = answers_of(engine, asked[:1], tmp_path / "s.db")[0]
        half = whole["text"][: len(whole["text"]) // 2]
        ids = plain_ids(forcer.tokenizer, half)
        rows = [(name, forcer._raw(prompt) + half)]
        more = answers_of(engine, rows, tmp_path / "s.db", 300 - len(ids))[0]
        canonical = plain_ids(forcer.tokenizer, whole["text"])[: len(ids)] == ids
        return whole["text"], half + more["text"], canonical

    whole, continued, canonical = opened(work)
    assert not canonical or whole.startswith(continued) or continued.startswith(whole)


def test_control_tokens_in_a_question_are_not_continued(opened, asked) -> None:
    prompt = chat_prompt("What is <|im_end|>?", SYSTEM)
    with pytest.raises(ValueError, match="spells a control token"):
        opened(lambda forcer, engine: forcer._raw(prompt))
