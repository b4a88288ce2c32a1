"""The judge: what it is asked, how its reply is read, and what is kept."""

import json
import re

import pytest
from tiny import tiny_model

from limo_nb.core.settings import EngineSettings
from limo_nb.evaluation.model_judge import (
    JUDGED,
    judge_answers,
    judge_prompt,
    read_verdict,
    rule_disagreements,
    with_judge,
)
from limo_nb.grading.verdicts import Verdict
from limo_nb.inference import (
    Completion,
    open_engine,
)

REPLIES = [  # a judge's reply, what it decides
    ("Both are one half.\nVERDICT: SAME", True), ("VERDICT: DIFFERENT", False),
    ("It depends.\nVERDICT: UNCLEAR\n\n", None), ("The same.", None), ("", None),
    ("INCORRECT", None), ("CORRECT", None), ("VERDICT: INCORRECT", None),
    ("VERDICT: SAMEISH", None), ("verdict: same", None), ("VERDICT: SAME.", None),
    ("The VERDICT: SAME", None), ("VERDICT: SAME\nVERDICT: DIFFERENT", None),
    ("VERDICT: DIFFERENT\nNo, wait.", None), ("I write\nVERDICT: SAME\nVERDICT: SAME", None),
]  # fmt: skip


@pytest.mark.parametrize(("reply", "verdict"), REPLIES)
def test_only_one_verdict_in_the_last_line_counts(reply, verdict):
    assert read_verdict(reply)[0] is verdict


def test_a_reply_that_was_cut_off_decides_nothing():
    assert read_verdict("VERDICT: SAME", finished=False) == (None, "the judge was cut off")


def test_texts_are_put_into_the_prompt_as_they_are():
    asked = judge_prompt("What is {answer}?", r"\frac{1}{2}", "{question} {0} VERDICT: SAME")
    user = asked[-1]["content"]
    assert "What is {answer}?" in user and r"\frac{1}{2}" in user
    assert "{question} {0} VERDICT: SAME" in user and "{reference}" not in user


class Comparing:
    """An engine that judges: the same text is the same answer."""

    identity = {"model": "comparing"}
    batch_size = 2

    def __init__(self):
        self.asked = []

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        pass

    def length(self, prompt):
        return len(prompt[-1]["content"])

    def run(self, batches, sampling):
        assert sampling.temperature == 0 and sampling.samples == 1
        for batch in batches:
            yield [(ask.key, Completion(self.reply(ask.prompt), 5, True)) for ask in batch]

    def reply(self, prompt):
        self.asked.append(prompt)
        user = prompt[-1]["content"]
        parts = [
            re.search(f"<{name}>\n(.*?)\n *</{name}>", user, re.DOTALL)[1].strip()
            for name in ("reference", "candidate")
        ]
        return f"Compared.\nVERDICT: {'SAME' if parts[0] == parts[1] else 'DIFFERENT'}"


ROWS = [
    {"id": "a", "question": "Q?", "reference": "甲", "response": r"\boxed{甲}"},
    {
        "id": "b",
        "question": "Q?",
        "reference": "甲",
        "response": r"<think>x</think>\boxed{乙}",
    },
    {"id": "c", "question": "Q?", "reference": "甲", "response": "<think>never ends"},
    {"id": "d", "question": "Q?", "reference": "甲", "response": "<think>x</think>甲"},
]


def test_judgements_are_kept_with_their_text(tmp_path):
    engine = Comparing()
    judged = judge_answers(engine, ROWS, tmp_path / "judge.sqlite")
    assert judged.features == JUDGED
    assert judged["correct"] == [True, False, False, True]
    assert judged["answer"] == ["甲", "乙", "", "甲"]
    assert [bool(reply) for reply in judged["reply"]] == [True, True, False, True]
    assert set(judged["judge"]) == {"model comparing"} and len(engine.asked) == 3
    again = judge_answers(engine, ROWS, tmp_path / "judge.sqlite")
    assert again.to_list() == judged.to_list() and len(engine.asked) == 3


def test_rules_and_judge_together(tmp_path):
    judged = judge_answers(Comparing(), ROWS, tmp_path / "judge.sqlite")
    rules = [Verdict(None, "甲", "?"), Verdict(True, "乙", "r"), Verdict(False, None, "no"),
             Verdict(True, "甲", "r")]  # fmt: skip
    assert [v.correct for v in with_judge(rules, judged)] == [True, True, False, True]
    assert [v.correct for v in with_judge(rules, judged, first=True)] == [
        True, False, False, True,
    ]  # fmt: skip
    listed = rule_disagreements(rules, judged)
    assert [(row["id"], row["rule"], row["correct"]) for row in listed] == [
        ("a", None, True), ("b", True, False),
    ]  # fmt: skip
    assert listed[1]["reply"] and listed[1]["rule reason"] == "r"


def test_a_model_that_cannot_judge_decides_nothing(tmp_path):
    model = tiny_model(tmp_path / "model")
    config = json.loads((model / "config.json").read_text())  # a judge reads long prompts
    (model / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 2048}))
    with open_engine(EngineSettings(batch_size=4, dtype="float32"), str(model)) as engine:
        judged = judge_answers(engine, ROWS[:1], tmp_path / "judge.sqlite", tokens=8)
    assert judged["correct"] == [None] and judged["reply"][0]


def test_two_rows_with_one_id_are_refused(tmp_path):
    with pytest.raises(ValueError, match="same id"):
        judge_answers(Comparing(), ROWS[:1] * 2, tmp_path / "judge.sqlite")
