"""The lab: problems, texts, tokenizer, recipes and shipped models."""

from __future__ import annotations

import json
import random
import re
from dataclasses import asdict, replace

import pytest
import torch

from limo_nb import lab
from limo_nb.lab import pretrain, reading, shipped, texts, world
from limo_nb.lab.tokenizer import CONTROL, DEFAULT_SYSTEM

SLOW = pytest.mark.slow
# What the profiles need, but for study, which also names models that a reader must make.
MODELS = ("foundation", "poor", "weak", "reasoner", "dose-1", "dose-2", "dose-4", "dose-20")
SHIPPED = sorted(path.parent.name for path in shipped.MODELS.glob("*/record.json"))
MOST_BYTES = 60e6  # of all of them


# ------------------------------------------------------------------ problems
def _told(question: str) -> list[str]:
    """The wordings of the numbered steps of a question."""
    listed = re.search(r" 1\) (.*?)\. ", question).group(1)
    return re.split(r", \d+\) ", listed)


def _last_digit(state: str, told: str) -> str:
    word, amount = told.split()
    old, by = int(state), int(amount)
    return str({"plus": old + by, "minus": old - by, "times": old * by}[word] % 10)


def _solve_again(problem: world.LabProblem) -> str:
    """The answer worked out from the question alone, by other code than the lab's."""
    text = problem.question
    if problem.family == "recurrence":
        terms = [int(n) for n in re.findall(r"x\d=(\d)", text)]
        for _ in range(int(re.search(r"x(\d+)\?", text).group(1)) - 3):
            terms.append((terms[-1] + terms[-3]) % 10)
        return str(terms[-1])
    if problem.family == "arrows":
        roads = dict(re.findall(r"([A-Z]) to ([A-Z])", text))
        place = re.search(r"start at ([A-Z])", text).group(1)
        for _ in range(int(re.search(r"take (\d+)", text).group(1))):
            place = roads[place]
        return place
    if problem.family == "substitution":
        values = {}
        for name, right in re.findall(r"\b([a-w])=([^,.]+)", text):
            found = re.fullmatch(r"([a-w])([-+*])(\d)", right)
            if not found:
                values[name] = int(right)
                continue
            old, by = values[found[1]], int(found[3])
            values[name] = {"+": old + by, "-": old - by, "*": old * by}[found[2]] % 10
        return str(values[re.search(r"What is ([a-w])\?", text).group(1)])
    return _walk(problem.family, text)


def _walk(family: str, text: str) -> str:
    head, steps = text.split(" 1) ")[0], _told(text)
    if family in ("dial", "purse"):
        state = re.search(r"\d+", head.replace("ten", "")).group()
        for told in steps:
            if family == "dial":
                state = _last_digit(state, told)
            else:
                sign = 1 if told.split()[0] in ("gets", "finds") else -1
                state = str(int(state) + sign * int(told.split()[1]))
        return state
    if family == "months":
        at = next(i for i, month in enumerate(world.MONTHS) if month in head)
        for told in steps:
            amount, word = told.split()
            at += int(amount) * (1 if word == "later" else -1)
        return world.MONTHS[at % 12]
    if family == "grid":
        x, y = (int(n) for n in re.search(r"\((\d),(\d)\)", head).groups())
        for told in steps:
            word, amount = told.split()
            x += int(amount) * {"right": 1, "left": -1}.get(word, 0)
            y += int(amount) * {"up": 1, "down": -1}.get(word, 0)
        return f"({x % 10},{y % 10})"
    if family == "colours":
        at = next(i for i, c in enumerate(world.COLOURS) if f" {c}" in head)
        for told in steps:
            at = world.BUTTONS[told.split()[1]][at]
        return world.COLOURS[at]
    row = re.search(r"(?:[A-Z] ){1,}[A-Z]\b", head.replace("The ", "")).group().split()
    for told in steps:
        row = _move(family, row, told)
    return " ".join(row)


def _move(family: str, row: list[str], told: str) -> list[str]:
    if family == "swaps":
        i, j = (int(n) - 1 for n in re.findall(r"\d", told))
        row = row.copy()
        row[i], row[j] = row[j], row[i]
        return row
    moves = {
        "first leaves": row[1:],
        "last leaves": row[:-1],
        "first to end": row[1:] + row[:1],
        "last to front": row[-1:] + row[:-1],
    }
    return moves[told] if told in moves else row + [told.split()[0]]


@pytest.mark.parametrize("family", world.FAMILIES)
def test_answers_follow_from_the_questions(family):
    rng = random.Random(family)
    for number in range(80):
        problem = world.FAMILIES[family](rng, 1 + number % world.MAX_STEPS)
        assert problem.answer == _solve_again(problem), problem.question
        assert problem.level == 1 + number % world.MAX_STEPS


def test_families_and_domains():
    assert len(world.FAMILIES) >= 10
    assert len(world.IN_DOMAIN) >= 4 and len(world.OUT_OF_DOMAIN) >= 6
    assert not set(world.IN_DOMAIN) & set(world.OUT_OF_DOMAIN)


def test_benchmarks_are_ten_distinct_and_stable():
    rows = lab.benchmarks(40)
    assert len({row["benchmark"] for row in rows}) == 10
    assert len({row["question"].lower() for row in rows}) == len(rows) == 400
    for family, (low, high) in lab.STEPS_TESTED.items():
        own = {row["level"] for row in rows if row["benchmark"] == family}
        assert own == set(range(low, high + 1)) and 2 <= low and high <= lab.MAX_STEPS
    few = {row["id"]: row for row in lab.benchmarks(4)}
    assert all(few[row["id"]] == row for row in rows if row["id"] in few)
    assert len(few) == 40


# The reasoner started from the foundation's pretraining, which is read with it.
@pytest.mark.parametrize("name", ["weak", "reasoner", pytest.param("poor", marks=SLOW)])
def test_no_problem_that_a_model_was_trained_on_is_in_a_benchmark(name):
    """Every page of the model's training is drawn again from its seed and its log.

    Nor does a test problem open a longer training problem: their solutions would begin alike.
    """
    tested = [problem for _, problem in lab.benchmark_problems(40)]
    keys, openings = {p.key for p in tested}, {p.opening for p in tested}
    questions = {row["question"] for row in lab.benchmarks(40)}
    count = 0
    for _, problem in lab.problems_read(name):
        count += 1
        assert problem.split == "train"
        assert problem.key not in keys and problem.question not in questions
        assert problem.opening not in openings
    assert count > 8000


def test_replayed_pages_are_those_of_training():
    """The tokens that the log of a chunk counts are those of the pages drawn again."""
    recipe = lab.recipes()["weak"]
    rows = [json.loads(line) for line in (lab.model_path("weak") / "log.jsonl").open()]
    tokenizer = lab.make_tokenizer()
    for index in (0, 1):
        rng = reading.chunk_rng(recipe.seed, index)
        drawn = reading.chunk_pages(rng, recipe.pretrain, rows[index]["max_steps"])
        spans = [text for _, (_, document) in drawn for text, _ in document.spans]
        counted = sum(map(len, tokenizer(spans)["input_ids"]))
        before = rows[index - 1]["tokens"] if index else 0
        assert counted == rows[index]["tokens"] - before


def test_split_ignores_the_wording():
    rng = random.Random(3)
    problem = world.dial(rng, 4)
    reworded = replace(problem, question="other words")
    assert reworded.split == problem.split
    shares = [world.purse(rng, 5).split == "test" for _ in range(2000)]
    assert 0.09 < sum(shares) / 2000 < 0.16


@pytest.mark.parametrize("family", world.FAMILIES)
def test_a_problem_and_its_longer_continuation_are_in_one_split(family):
    """Among many problems, all with the same start and first two steps are on one side."""
    rng = random.Random(5)
    drawn = [world.FAMILIES[family](rng, rng.randint(2, 16)) for _ in range(4000)]
    sides: dict[tuple, set] = {}
    for problem in drawn:
        begins = tuple(step.line() for step in problem.steps[:2])
        sides.setdefault(begins, set()).add(problem.split)
    assert sum(len(side) for side in sides.values()) == len(sides) < len(drawn)


def test_following_is_the_only_way_to_the_end_of_the_roads():
    """A road leaves every place, also the last: none stands out by having no road."""
    rng = random.Random(6)
    for count in (1, 5, 16):
        problem = world.arrows(rng, count)
        listed = problem.question.removeprefix("The roads go ").partition(".")[0]
        roads = [tuple(road.split(" to ")) for road in listed.split(", ")]
        places = {place for road in roads for place in road}
        assert {a for a, _ in roads} == places and len(roads) == len(places)
        here = problem.steps[0].work.removesuffix(" to")
        for _ in range(count):
            here = dict(roads)[here]
        assert here == problem.answer


def test_draw_names_what_cannot_be_found():
    with pytest.raises(ValueError, match="no nowhere problem of dial"):
        world.draw(random.Random(0), "dial", 2, "nowhere")


def test_the_pool_brings_copies_and_leaks_to_be_found():
    rows = lab.pool(600, seed=1)
    assert len(rows) == len({row["id"] for row in rows}) == 600
    assert {row["subject"] for row in rows} == set(world.IN_DOMAIN)
    plain = [" ".join(row["question"].lower().split()) for row in rows]
    assert len(set(plain)) < 600
    known = {" ".join(row["question"].lower().split()) for row in lab.benchmarks(40)}
    assert known & set(plain)


# ------------------------------------------------------------------ texts
def test_manners_change_the_writing_and_not_the_answer():
    problem = world.draw(random.Random(1), "dial", 6, "train")
    plain = texts.worked_solution(random.Random(2), problem)
    checked = texts.worked_solution(random.Random(2), problem, texts.Manner(check=1.0))
    skipped = texts.worked_solution(random.Random(2), problem, texts.Manner(skip=1.0))
    for text in (plain, checked, skipped):
        assert text.endswith(f"\\boxed{{{problem.answer}}}")
    assert checked.count("Check:") == 6 and "Check:" not in plain
    assert len(skipped.splitlines()) == 3 < len(plain.splitlines()) == 7
    assert skipped.startswith("In the head: 1), 2), 3), 4), 5).\n6)")


def test_a_slip_is_always_mended():
    manner = texts.Manner(check=1.0, slip=1.0)
    for seed in range(20):
        problem = world.draw(random.Random(seed), "grid", 3, "train")
        text = texts.worked_solution(random.Random(seed), problem, manner)
        assert text.count("so not") == 3 and all(step.line() in text for step in problem.steps)


def test_what_is_tried_first_is_in_vain_or_wrong_and_replaced():
    said = []
    for seed in range(40):
        problem = world.draw(random.Random(seed), "grid", 3, "train")
        text = texts.worked_solution(random.Random(seed), problem, texts.Manner(explore=1.0))
        said += re.findall(r"Perhaps .*?\? (No|That is not this step)\.", text)
        assert all(step.line() in text for step in problem.steps)
    assert len(said) == 120 and 0.3 < said.count("No") / 120 < 0.7


@pytest.mark.parametrize("family", world.FAMILIES)
def test_the_foreign_teacher_has_other_words_for_the_same_steps(family):
    rng = random.Random(7)
    problem = world.draw(rng, family, 5, "train")
    text = texts.foreign_solution(rng, problem)
    assert all(step.value in text for step in problem.steps)
    assert text.endswith(f"it is \\boxed{{{problem.answer}}}")
    assert "Check:" not in text and not any(step.line() in text for step in problem.steps)


def test_backbones_that_read_other_pages_meet_the_same_problems():
    """At the same places of their streams; and the pages have about equally many tokens."""
    tokenizer = lab.make_tokenizer()
    found = {}
    for name in ("foundation", "poor"):
        rng = reading.chunk_rng(lab.recipes()[name].seed, 3)
        pages = reading.chunk_pages(rng, lab.recipes()[name].pretrain, 12)
        keys = [problem and problem.key for _, (problem, _) in pages]
        lengths = tokenizer([page.text for _, (_, page) in pages])["input_ids"]
        found[name] = keys, sum(map(len, lengths))
    assert found["foundation"][0] == found["poor"][0]
    assert 0.9 < found["poor"][1] / found["foundation"][1] < 1.1


@pytest.mark.parametrize("page", [texts.told_page, texts.drill_page])
def test_pages_of_the_poor_backbones_hold_no_reasoning(page):
    rng = random.Random(4)
    problems = [world.draw(rng, "dial", 8, "train") for _ in range(100)]
    pairs = [(problem, page(rng, problem).text) for problem in problems]
    followed = [all(s.equation() in text for s in p.steps) for p, text in pairs]
    assert not any(followed)


# ------------------------------------------------------------------ mistakes
@pytest.mark.parametrize("family", world.FAMILIES)
def test_a_worked_solution_has_no_mistake_in_any_manner(family):
    rng = random.Random(family)
    for _ in range(30):
        problem = world.FAMILIES[family](rng, rng.randint(1, 16))
        manner = texts.Manner(check=0.5, slip=0.3, explore=0.4, reason=0.4)
        text = texts.worked_solution(rng, problem, manner)
        assert lab.first_mistake(problem, text) == "none", text
        assert lab.first_mistake(problem, texts.terse(problem)) == "none"
        assert lab.first_mistake(problem, "\\boxed{no}") == "no steps"


@pytest.mark.parametrize("family", world.FAMILIES)
def test_the_first_mistake_is_found_and_named(family):
    rng = random.Random(f"{family}/mistakes")
    problem = world.FAMILIES[family](rng, 6)
    lines = texts.worked_solution(rng, problem).split("\n")
    step, other = problem.steps[2], problem.steps[3]
    wrong = texts._wrong(rng, problem, step)

    def found(third: str) -> str:
        return lab.first_mistake(problem, "\n".join([*lines[:2], third, *lines[3:]]))

    assert found("") == "left out"
    assert found(f"In the head: {step.label.removesuffix('=')}.") == "left out"
    assert found(f"{step.line(wrong)}.") == "miscalculated"
    assert found(f"{step.line(wrong)}. Check: no. {step.line()}.") == "none"
    assert found(f"{step.label} {other.told} {other.equation()}.") == "miscopied"
    if family == "queue":
        assert found(f"{step.line(step.value + ' Z')}.") == "miscalculated"
    text = "\n".join(lines).replace(f"{{{problem.answer}}}", "{no}")
    assert lab.first_mistake(problem, text) == "answer"


# ------------------------------------------------------------------ tokenizer
@pytest.fixture(scope="module")
def tokenizer():
    return lab.make_tokenizer()


@pytest.mark.parametrize(
    "text", ["x12=345.", "naïve Ω 中文 🙂", "a\n\n  b\t c", "\\boxed{(3,7)}", "don't"]
)
def test_tokenizer_is_lossless(tokenizer, text):
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_digits_are_single_tokens(tokenizer):
    pieces = tokenizer.tokenize("year 2024, x1=38")
    assert [p for p in pieces if any(c.isdigit() for c in p)] == list("2024138")


def test_chat_template_is_that_of_qwen(tokenizer):
    messages = [{"role": "user", "content": "Hi"}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert text == (
        f"<|im_start|>system\n{DEFAULT_SYSTEM}<|im_end|>\n"
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )
    messages = [{"role": "system", "content": "S"}, *messages]
    messages.append({"role": "assistant", "content": "Yo"})
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    assert text == texts.chat("Hi", "Yo", "S")


def test_control_tokens_are_single(tokenizer):
    for token in CONTROL:
        assert len(tokenizer(token)["input_ids"]) == 1
    assert len(tokenizer) == 512


# ------------------------------------------------------------------ recipes and models
def test_rows_carry_loss_on_the_solution_only(tokenizer):
    phase = lab.recipes()["foundation"].tune
    ids, labels = pretrain.chunk(phase, tokenizer, seed=1, index=0, max_steps=4)[0]
    assert ids.shape == labels.shape
    trained = labels[0] != pretrain.IGNORED
    assert (labels[0][trained] == ids[0][trained]).all()
    prompt = tokenizer.decode(ids[0][: int(trained.nonzero()[0])])
    assert prompt.endswith("<|im_start|>assistant\n")


def _first_losses(folder, tokens, tokenizer) -> list[float]:
    recipe = lab.recipes()["foundation"]
    torch.manual_seed(0)
    model, losses = pretrain.new_model(recipe, tokenizer), []
    how = pretrain.Compute(compiled=False)
    training = pretrain.Training(model, tokenizer, recipe.pretrain, recipe.seed, how)
    training.run(folder / "state.pt", lambda row: losses.append(row["loss"]), tokens)
    return losses


def test_the_first_minute_of_the_recipe_learns_and_resumes(tmp_path, tokenizer):
    (tmp_path / "whole").mkdir()
    (tmp_path / "parts").mkdir()
    whole = _first_losses(tmp_path / "whole", 100_000, tokenizer)
    assert whole[-1] < whole[0] - 1.5
    first = _first_losses(tmp_path / "parts", 50_000, tokenizer)
    rest = _first_losses(tmp_path / "parts", 100_000, tokenizer)
    assert len(rest) < len(whole)
    assert first + rest == pytest.approx(whole, abs=0.02)


class _Killed(Exception):
    """Stands for the end of the process between two chunks."""


@SLOW
def test_a_killed_pretraining_goes_on_to_the_same_weights_and_log(tmp_path, monkeypatch):
    """Killed in each phase: no chunk is missing from the log, and none is there twice."""
    recipe = lab.recipes()["weak"]
    short = {"batch_tokens": 4096, "tokens": 60_000}
    recipe = replace(
        recipe, pretrain=replace(recipe.pretrain, **short), tune=replace(recipe.tune, **short)
    )
    left = {"pretrain": 2, "tune": 1}

    def note(row):
        left[row["phase"]] -= 1
        if left[row["phase"]] == 0:
            raise _Killed

    def build(work, log):
        return pretrain.build("weak", work, log, recipe, pretrain.Compute(compiled=False))

    for phase in left:
        with pytest.raises(_Killed):
            build(tmp_path / "killed", note)
        assert left[phase] == 0
    models = [build(tmp_path / "killed", note), build(tmp_path / "whole", lambda row: None)]
    logs = [
        [
            {**json.loads(line), "tokens_per_second": 0}
            for line in (model.parent / "log.jsonl").open()
        ]
        for model in models
    ]
    assert logs[0] == logs[1] and len(logs[0]) > 4
    assert lab.digest(models[0]) == lab.digest(models[1])
    monkeypatch.setattr(shipped, "MODELS", tmp_path / "package")
    shipped.ship("weak", tmp_path / "whole")
    assert lab.verify() == {"weak": True}
    assert lab.digest(models[1]) in (lab.model_path("weak") / "README.md").read_text()


def test_shipped_weights_have_their_recorded_digests():
    verified = lab.verify()
    assert set(MODELS) <= set(verified) == set(SHIPPED)
    assert all(verified.values())
    files = (path for path in shipped.MODELS.rglob("*") if path.is_file())
    assert sum(path.stat().st_size for path in files) < MOST_BYTES


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_models_come_with_their_record(name):
    folder = lab.model_path(name)
    record = json.loads((folder / "record.json").read_text())
    assert record["command"] == f"limo-nb lab pretrain {name}"
    assert record["recipe"] == json.loads(json.dumps(asdict(lab.recipes()[name])))
    assert (folder / "model.safetensors").stat().st_size < 10 * 2**20
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert (folder / "README.md").read_text().startswith("---\n")


def test_an_unknown_model_is_named():
    with pytest.raises(ValueError, match="no lab model 'tall'"):
        lab.model_path("tall")
