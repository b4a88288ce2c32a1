"""Rows of public data sets and tools: what each is read as, and what is unclear."""

import json
from pathlib import Path

import pytest

from limo_nb.problems.dialects import COLUMNS_OF, parse_columns
from limo_nb.problems.reader import RowReader
from limo_nb.problems.row_columns import Unclear

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data" / "schemas.jsonl"
Q = "A shop sells pens at 3 dollars each. How many dollars do 4 pens cost?"
THOUGHT, END = (
    "Each pen costs 3. Wait, four of them cost 3*4=12.",
    "They cost $12$.\n\n\\boxed{12}",
)
MARKED = f"<think>\n{THOUGHT}\n</think>\n\n{END}"
USER, REPLY = {"role": "user", "content": Q}, {"role": "assistant", "content": MARKED}
ASKED = [{"role": "user", "content": f"{Q} Let's think step by step and box it."}]


def shape(row, answer=None, chains=1, thought=True, correct=None, question=Q):
    correct = correct or [None] * chains
    return {"row": row, "want": (question, answer, chains, thought, correct)}


SHAPES = {
    "OpenMathReasoning": shape(
        {"expected_answer": "12", "problem_type": "has_answer_extracted", "problem": Q,
         "problem_source": "aops_c4", "generation_model": "R1", "pass_rate_72b_tir": "0.5",
         "generated_solution": MARKED, "inference_mode": "cot"}, "12"),
    "OpenMathInstruct-2": shape(
        {"problem": Q, "generated_solution": END, "expected_answer": "12",
         "problem_source": "augmented_gsm8k"}, "12", thought=False),
    "s1K-1.1": shape(
        {"solution": "12", "question": Q, "cot_type": "math", "source_type": "x",
         "metadata": "{}", "gemini_thinking_trajectory": THOUGHT, "gemini_attempt": END,
         "deepseek_thinking_trajectory": THOUGHT, "deepseek_attempt": END,
         "gemini_grade": "No", "deepseek_grade": "Yes"}, "12", 2, correct=[False, True]),
    "s1K": shape(
        {"solution": "12", "question": Q, "attempt": END, "thinking_trajectories": [THOUGHT]},
        "12"),
    "Skywork-OR1": shape(
        {"data_source": "train-math", "prompt": [USER], "ability": "math",
         "reward_model": {"ground_truth": '["12"]', "style": "rule"},
         "extra_info": {"index": 3, "model_difficulty": {"x": 4}}}, "12", 0, False),
    "verl GSM8K": shape(
        {"data_source": "openai/gsm8k", "prompt": ASKED, "ability": "math",
         "reward_model": {"style": "rule", "ground_truth": "12"},
         "extra_info": {"split": "train", "answer": f"{THOUGHT}\n#### 12", "question": Q}},
        "12", thought=False),
    "Open-Reasoner-Zero": shape(
        [{"from": "human", "value": Q}, {"from": "assistant", "ground_truth": {"value": "12"}}],
        "12", 0, False),
    "Open-Reasoner-Zero, by number": shape(
        {"0": {"from": "human", "value": Q},
         "1": {"from": "assistant", "ground_truth": {"value": "12"}}}, "12", 0, False),
    "DeepMath": shape(
        {"question": Q, "final_answer": "12", "difficulty": 4.0, "topic": "Algebra",
         "r1_solution_1": MARKED, "r1_solution_2": MARKED, "r1_solution_3": MARKED}, "12", 3),
    "MetaMathQA": shape(
        {"type": "GSM_Rephrased", "query": Q, "original_question": "Another one?",
         "response": f"{THOUGHT} The answer is: 12"}, thought=False),
    "Nemotron": shape(
        {"input": [USER], "output": MARKED, "category": "math", "reasoning": "on",
         "license": "x", "generator": "R1", "version": "v1", "system_prompt": "detailed"}),
    "Nemotron, text": shape({"input": Q, "output": MARKED, "reasoning": "on"}),
    "AIME, capital names": shape(
        {"ID": "2024-I-1", "Problem": Q, "Solution": END, "Answer": 12}, 12, thought=False),
    "AIME, spaces": shape({"Problem ID": 3, "Problem Text": Q, "Correct Answer": "12"},
                          "12", 0, False),
    "batch request": shape(
        {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions",
         "body": {"model": "m", "messages": [USER], "max_tokens": 9}}, None, 0, False),
    "batch result": shape(
        {"custom_id": "a", "error": None, "response": {"status_code": 200, "body": {"choices": [
            {"index": 0, "message": {"role": "assistant", "content": END,
                                     "reasoning_content": THOUGHT}}]}}}, question=None),
    "distilabel": shape(
        {"instruction": Q, "generation": MARKED, "model_name": "m",
         "distilabel_metadata": {"raw": "x"}}),
    "distilabel, several": shape(
        {"instruction": Q, "generations": [MARKED, MARKED, None], "model_name": "m"},
        chains=2),
    "thinking": shape({"question": Q, "thinking": THOUGHT, "response": END}),
    "thinking and a short answer": shape({"question": Q, "thinking": THOUGHT, "answer": "12"},
                                         "12"),
    "thinking and a long answer": shape({"prompt": Q, "thinking": THOUGHT, "answer": END},
                                        "12"),
    "thinking in the turn": shape(
        {"messages": [USER, {"role": "assistant", "thinking": THOUGHT, "content": END}]}),
    "thinking in blocks": shape(
        {"messages": [USER, {"role": "assistant", "content": [
            {"type": "thinking", "thinking": THOUGHT}, {"type": "text", "text": END}]}]}),
    "thinking in blocks of blocks": shape(
        {"messages": [USER, {"role": "assistant", "content": [
            {"type": "thinking", "thinking": [{"type": "text", "text": THOUGHT}]},
            {"type": "text", "text": END}]}]}),
    "Dolphin R1": shape({"messages": [{"role": "system", "content": "S"}, USER],
                         "reasoning": THOUGHT, "answer": "It is twelve.\nIn all."}),
    "OpenThoughts, metadata": shape(
        {"problem": Q, "deepseek_reasoning": THOUGHT, "deepseek_solution": END,
         "ground_truth_solution": "\\boxed{12}", "domain": "math", "source": "x"}, "12"),
    "SYNTHETIC": shape(
        {"problem_id": "p", "prompt": Q, "verification_info": '{"ground_truth": "12"}',
         "llm_response": MARKED, "score": 1.0}, "12"),
    "OlympiadBench": shape(
        {"question": Q, "solution": [THOUGHT], "final_answer": ["12"], "subfield": "Algebra"},
        "12", thought=False),
    "Tulu, RLVR": shape(
        {"messages": [USER], "ground_truth": "12", "dataset": "gsm8k"}, "12", 0, False),
    "preference": shape(
        {"prompt": Q, "chosen": [USER, REPLY], "rejected": [USER, {**REPLY, "content": "5"}]}),
    "lm-eval samples": shape(
        {"doc_id": 0, "doc": {"question": Q, "answer": f"{THOUGHT}\n#### 12"}, "target": "12",
         "resps": [["It is 12."]], "filtered_resps": ["12"]}, "12", thought=False),
    "messages as a string": shape({"messages": json.dumps([USER, REPLY])}),
    "our samples": shape(
        {"id": "row 1", "question": Q, "answer": "12", "sample": 0, "text": MARKED,
         "finished": True, "tokens": 9}, "12"),
    "our verdicts": shape(
        {"question": Q, "gold": "12", "response": END, "correct": True, "answer": "12"}, "12",
        thought=False, correct=[True]),
    # What a sceptical reader tried, and was read wrongly once.
    "a thought that does not end": shape(
        {"question": Q, "answer": "12", "response": "<think>\nEach pen"}, "12", thought=False),
    "preference without a question's turn": shape(
        {"prompt": Q, "chosen": [REPLY], "rejected": [REPLY]}),
    "system and developer": shape(
        {"messages": [{"role": "system", "content": "S"}, {"role": "developer", "content": "D"},
                      USER, REPLY]}),
    "MMLU": shape({"question": Q, "choices": ["10", "11", "12", "13"], "answer": 2}, "C", 0,
                  False, question=f"{Q}\nA. 10\nB. 11\nC. 12\nD. 13"),
    "AQuA": shape({"question": Q, "options": ["A)10", "B)12"], "answer_key": "B"}, "B", 0,
                  False, question=f"{Q}\nA. A)10\nB. B)12"),
    "SVAMP": shape({"Body": "A shop sells pens at 3 dollars each.", "Type": "x", "Answer": 12,
                    "Question": "How many dollars do 4 pens cost?"}, 12, 0, False,
                   question=Q.replace(". How", ".\nHow")),
    "an extracted answer beside the reply": shape(
        {"question": Q, "answer": "12", "response": MARKED, "model_answer": "12"}, "12"),
    "responses and predictions": shape(
        {"question": Q, "responses": [MARKED, MARKED], "predictions": ["12", "13"]}, chains=2),
    "several in a response": shape({"prompt": Q, "response": [MARKED, MARKED]}, chains=2),
    "LIMO's own evaluation": shape(
        {"question": Q, "generated_responses": [MARKED, MARKED], "gold_answer": "12",
         "generated_answers": ["12", "3"], "is_correct": True,
         "answers_correctness": [True, False]}, "12", 2, correct=[True, False]),
    "Qwen's evaluation": shape(
        {"question": Q, "gt": "12", "solution": END, "code": [MARKED], "pred": ["12"],
         "score": [True]}, "12", correct=[True]),
    "responses as mappings": shape(
        {"question": Q, "reference_answer": "12",
         "responses": [{"response_model": "L", "response": MARKED}]}, "12"),
    "samples with marks": shape(
        {"question": Q, "samples": [{"response": MARKED, "correct": True},
                                    {"response": MARKED, "correct": False}]},
        chains=2, correct=[True, False]),
    "a call of a tool": shape(
        {"question": Q, "choices": [{"message": {"role": "assistant", "content": None}}]},
        None, 0, False),
    "MathArena": shape({"problem": Q, "answer": MARKED, "gold_answer": "12", "correct": True},
                       "12", correct=[True]),
    "a reply as the answer": shape({"prompt": Q, "answer": MARKED}),
    "LUFFY": shape({"prompt": [USER], "target": [REPLY],
                    "reward_model": {"ground_truth": "12"}}, "12"),
    "a reward's label": shape({"question": Q, "response": MARKED, "label": 1}, correct=[True]),
    "one answer, written twice": shape(
        {"question": Q, "gold": "$12$", "expected_answer": "12.0"}, "$12$", 0, False),
    "numbers as marks": shape({"question": Q, "response": MARKED, "is_correct": "1.0"},
                              correct=[True]),
    "a blank generation": shape(
        {"question": Q, "generations": [MARKED, None, MARKED],
         "correctness": [True, None, False]}, chains=2, correct=[True, False]),
    "marks in a CSV file": shape(
        {"question": Q, "generations": json.dumps([MARKED, MARKED]),
         "correctness": "[True, false]"}, chains=2, correct=[True, False]),
    "medical-o1": shape({"Question": Q, "Complex_CoT": THOUGHT, "Response": END}),
    "thoughts one for one": shape(
        {"question": Q, "responses": [END, END], "reasoning_content": [THOUGHT, THOUGHT]},
        chains=2),
    "Harmony": shape(
        {"messages": [USER, {"role": "assistant", "channel": "analysis", "content": THOUGHT},
                      {"role": "assistant", "channel": "final", "content": END}]}),
    "LLaMA-Factory's predictions": shape({"prompt": Q, "predict": MARKED, "label": END}, "12"),
    "a whole message": shape({"role": "assistant", "content": MARKED}, question=None),
    "numbered": shape({"question": Q, "response_1": MARKED, "response_2": MARKED}, chains=2),
    "AM-DeepSeek-R1": shape(
        {"messages": [{**USER, "info": {"reference_answer": "12"}}, REPLY]}, "12"),
    "NaN beside": shape({"question": Q, "gold": float("nan"), "expected_answer": "12"}, "12", 0,
                        False),
    "a table that pandas wrote": shape({"messages": repr([USER, REPLY])}),
    "blocks that are texts": shape({"messages": [USER, {**REPLY, "content": [MARKED]}]}),
    "MT-Bench": shape({"turns": [Q]}, None, 0, False),
}  # fmt: skip


def read(row, **columns):
    return RowReader(columns).read(row, "here")


@pytest.mark.parametrize("name", SHAPES)
def test_shape(name):
    got = read(SHAPES[name]["row"])
    thoughts = [chain.thought for chain in got.chains]
    found = (got.question, got.answer, len(got.chains), any(thoughts),
             [chain.correct for chain in got.chains])  # fmt: skip
    assert found == SHAPES[name]["want"], got.told()
    assert all(thought.strip() == THOUGHT for thought in thoughts if thought)


@pytest.mark.skipif(not SHARED.is_file(), reason="the shapes are not beside the repository")
def test_shapes_of_public_sets():
    for line in SHARED.read_text("utf-8").splitlines():
        case = json.loads(line)
        want, got = case["want"], read(case["row"])
        assert got.question == want["question"], case["like"]
        assert want["chains"] in (None, len(got.chains)), case["like"]
        assert (None if got.answer is None else str(got.answer)) == want["answer"], case["like"]
        assert any(chain.thought for chain in got.chains) == want["thinking"], case["like"]


UNCLEAR = {
    "question": {"question": "One?", "problem": "Two?"},
    "answer": {"question": Q, "gold": "1", "expected_answer": "2"},
    "chain": {"question": Q, "response": "So 1.", "completion": "So 2."},
}


@pytest.mark.parametrize("what", UNCLEAR)
def test_two_columns_with_equal_claim_are_shown_and_a_choice_settles_it(what):
    row = UNCLEAR[what]
    with pytest.raises(Unclear, match=f"here: which is the {what}") as error:
        read(row)
    names = [name for name in row if name != "question" or what == "question"]
    assert all(f"{name}: " in str(error.value) for name in names)
    got = read(row, **{what: names[1]})
    value = got.chains[0].text if what == "chain" else getattr(got, what)
    assert value == row[names[1]] and got.took[what] == names[1]


def test_columns_lie_deeper_and_have_other_names():
    row = {"data": {"q": Q, "meta": '{"key": 12}'}, "reply": MARKED, "Notes": "x"}
    columns = parse_columns(["question=data.q, gold=data.meta.key", "response=reply"])
    assert columns == {"question": "data.q", "answer": "data.meta.key", "chain": "reply"}
    got = read(row, **columns)
    assert (got.question, got.answer, got.chains[0].text) == (Q, 12, MARKED)
    assert got.used == {"reply"}
    with pytest.raises(ValueError, match=r"here: no data\.p \(found: data, reply, Notes\)"):
        read(row, question="data.p")
    for pair in ("gold", "nothing=x", "=x", "answer="):
        with pytest.raises(ValueError, match="WHAT=COLUMN"):
            parse_columns([pair])


def test_a_question_of_several_turns_and_rows_that_are_none_are_named():
    for row, message in [
        (
            {"messages": [USER, REPLY, USER]},
            "here: expected one question .* user, assistant, us",
        ),
        ({"messages": [{"role": "user", "content": 3}]}, "here: a turn's content is int"),
        ({"question": 3}, "here: the question in question is not text"),
        ({"question": Q, "messages": [USER, REPLY, USER, REPLY]}, "expected one question"),
        ("a line", "here: expected a mapping, found str"),
        ([1, 2], "here: expected a mapping, found list"),
        ({"instruction": Q, "output": "1", "history": [["a", "b"]]}, "here: has a history"),
    ]:
        with pytest.raises(ValueError, match=message):
            read(row)
    assert read({}).question is None and read({"level": 1}).level == 1


def test_only_a_prompt_without_a_reply_loses_its_instruction():
    wrapped = f"Solve the problem step by step.\n\n{Q}\n\nRemember to put your answer in a box."
    assert read({"prompt": wrapped, "answer": "12"}).question == Q
    assert read({"prompt": wrapped, "completion": END}).question == wrapped
    assert read({"question": wrapped, "answer": "12"}).question == wrapped
    assert read({"prompt": "Solve it step by step.", "answer": "1"}).question.startswith(
        "Solve"
    )


def test_answers_keep_their_type():
    for value in (12, 0.5, ["a", "b"], {"value": 3, "unit": "m"}, "007"):
        assert read({"question": Q, "answer": value}).answer == value
    assert read({"question": Q, "answer": ["a"]}).answer == "a"
    assert read({"question": Q, "answer": "[0, 1)"}).answer == "[0, 1)"
    assert read({"question": Q, "answer": "\\boxed{12}"}).answer == "12"


def test_a_text_that_looks_like_json_stays_one():
    for text in ('{"answer": 12}', '["a", "b"]', "[1]", "{x}", "[]", "[" * 100_000 + "]"):
        got = read({"question": text, "answer": text, "response": text})
        assert (got.question, got.answer, got.chains[0].text) == (text, text, text)


def test_what_has_a_name_is_looked_for_by_all_its_spellings():
    for what, groups in COLUMNS_OF.items():
        for name in (name for group in groups for name in group):
            row = {name.title().replace("_", " "): "x"}
            assert RowReader().kept(row) == row, (what, name)
    assert RowReader().kept({"question": Q, "num_tokens": 3}) == {"question": Q}
