"""reasoning-gym: what may be asked for, what is drawn, and verdicts on hostile answers."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import warnings
from collections import Counter
from itertools import product

import pytest
from conftest import ROOT

from limo_nb.core.settings import PoolSettings
from limo_nb.evaluation import benchmarks, scoring
from limo_nb.experiments import worked
from limo_nb.grading import Gym, gym, isolation
from limo_nb.grading.verifiers import BY_REFERENCE
from limo_nb.problems import gym as drawing
from limo_nb.problems import load_pool, normalise

HANOI = {"min_disks": 3, "max_disks": 3, "min_pegs": 3, "max_pegs": 3}
SIGNS = {"min_numbers": 3, "max_numbers": 3, "min_value": 2, "max_value": 30,
         "min_target": 5, "max_target": 60, "operators": ["+", "-"]}  # fmt: skip
ISLAND = {"n_people": 2}


# ---------------------------------------------------------------- what may be asked for
@pytest.mark.parametrize(
    ("family", "values", "told"),
    [
        ("countdwn", {}, "no family 'countdwn': did you mean countdown"),
        ("countdown", {"min_number": 3}, "no setting 'min_number': did you mean min_numbers"),
        ("countdown", {"min_numbers": "3"}, "min_numbers is a number, not '3'"),
        ("countdown", {"shuffle": 1}, "shuffle is a switch, not 1"),
        ("countdown", {"min_numbers": 9}, "max_numbers must be >= min_numbers"),
        ("countdown", {"size": 9}, "leave out 'size': that is pool.size's"),
        ("countdown", {"level": 0}, "level is a whole number from 1"),
        ("countdown", {"level": 9}, "its highest level is 5"),
        ("acre", {"level": 1}, "it has no levels"),
        ("puzzle24", {}, "'puzzle24' is not offered: it does not look at which numbers"),
    ],
)
def test_wrong_settings_are_named(family, values, told):
    with pytest.raises(ValueError, match=told):
        gym.checked_config(family, values)


def test_a_level_is_that_of_the_curriculum_and_other_values_replace_its_own():
    easy, hard = (gym.checked_config("chain_sum", {"level": n}) for n in (1, 3))
    assert easy["max_digits"] < hard["max_digits"]
    assert gym.checked_config("chain_sum", {"level": 3, "max_digits": 9})["max_digits"] == 9


def test_families_are_those_of_source_gym():
    with pytest.raises(ValueError, match="families are those of source gym"):
        PoolSettings(source="lab", size=5, families={"countdown": {}})


def test_default_families_are_known_and_apart():
    facts = drawing.gym_facts()
    assert not set(facts["in_domain"]) & set(facts["out_of_domain"])
    for side in ("in_domain", "out_of_domain"):
        for family, values in facts[side].items():
            gym.checked_config(family, values)


def test_ordinary_work_does_not_import_it():
    code = (
        "import sys, limo_nb, limo_nb.problems.sources, limo_nb.evaluation.benchmarks as b, "
        "limo_nb.grading.verifiers as v; b.known(['lab', 'paper']); "
        r"v.BY_REFERENCE.verify(['1'], ['\\boxed{1}']); print('reasoning_gym' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr


# ---------------------------------------------------------------- drawing
@pytest.fixture(scope="module")
def pool():
    families = {"countdown": SIGNS, "knights_knaves": ISLAND, "word_ladder": {}}
    settings = PoolSettings(source="gym", size=31, seed=3, families=families)
    return load_pool(settings)


def test_a_pool_has_its_families_in_turn(pool):
    assert Counter(pool["subject"]) == {
        "countdown": 11,
        "knights_knaves": 10,
        "word_ladder": 10,
    }
    assert pool["subject"][:4] == ["countdown", "knights_knaves", "word_ladder", "countdown"]
    assert len(set(pool["id"])) == len(set(map(normalise, pool["question"]))) == 31
    assert set(pool["source"]) == {"gym"}


def test_the_same_seed_gives_the_same_rows_everywhere(pool):
    """Of `word_ladder` the answer depends on the order of hashes; here on nothing."""
    text = json.dumps([pool["question"][:6], pool["answer"][:6]], ensure_ascii=False)
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == DIGEST


DIGEST = "d787fe42f220cae2"


def test_own_answers_are_right_and_others_wrong(pool):
    rows = [row for row in pool if row["subject"] != "word_ladder"][:12]
    references = [row["answer"] for row in rows]
    solutions = [row["solution"] for row in rows]
    verdicts = BY_REFERENCE.verify([*references, "1/2"], [*solutions, r"\boxed{0.5}"])
    assert [v.correct for v in verdicts] == [True] * 13, verdicts
    shifted = Gym().verify(references, solutions[2:] + solutions[:2])
    assert sum(v.correct is True for v in shifted) <= 2


def test_a_small_family_runs_out_and_its_parts_are_apart():
    texts = {}
    for part in ("train", "test"):
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            rows = drawing.gym_rows({"tower_of_hanoi": HANOI}, 8, 1, part)
        texts[part] = {normalise(row["question"]) for row in rows}
        assert f"{len(rows)} different questions for the {part} part" in str(said[0].message)
        assert "8 were wanted" in str(said[0].message)
        assert len(texts[part]) == len(rows) > 0
    # Six ways to choose two of three pegs.
    assert not texts["train"] & texts["test"] and len(texts["train"] | texts["test"]) <= 6


def test_a_repeated_or_foreign_question_is_counted_and_left_out():
    wanted = drawing.Wanted("x", {}, 2, "train")
    own, other = (
        next(t for t in map(str, range(99)) if drawing.part_of(t) == p)
        for p in ("train", "test")
    )
    for seed, text in enumerate((own, other, f" {own} ", other)):
        wanted.take(seed, {"question": text}, "")
    wanted.take(9, None, "out of time")
    assert list(wanted.tasks) == [0] and wanted.other == 2
    with pytest.warns(UserWarning, match="1 different .*2 were wanted.*failed: out of time"):
        wanted.tell()
    with pytest.raises(ValueError, match="0 different"):
        drawing.Wanted("x", {}, 2, "train").tell()


def test_seeds_next_to_each_other_share_no_draws(pool):
    """The library's task 1 of seed 1 is its task 0 of seed 2; a pool's seeds lie apart."""
    assert all(
        6 * drawing.REGION <= int(name.rpartition("-")[2]) < 7 * drawing.REGION
        for name in pool["id"]
    )
    with pytest.raises(ValueError, match="seeds from 0 to 2047"):
        drawing.gym_rows({"countdown": SIGNS}, 1, 2048, "train")


# ---------------------------------------------------------------- verdicts
def reference(family: str, answer: str, **metadata) -> str:
    return gym.gym_reference(family, {}, answer, metadata)


COUNTDOWN = reference("countdown", "2 + 3", numbers=[2, 3], target=5)
PRODUCT = reference("polynomial_multiplication", "x**2 - 1")
SPIRAL = reference("spiral_matrix", "1 2 3")
QUEENS = reference("n_queens", "Q _", valid_answers=["Q _"])
ISLANDERS = reference("knights_knaves", "Ann is a knight, and Ben is a knave.")
ANY = reference("graph_color", None, possible_answer={}, puzzle={})


@pytest.mark.parametrize(
    ("task", "said", "correct"),
    [
        (COUNTDOWN, "3+2", True),
        (COUNTDOWN, r"\text{2 + 3}", True),
        (COUNTDOWN, "2 * 3", False),
        (COUNTDOWN, "5", False),
        (COUNTDOWN, "sum([2, 3])", False),
        (COUNTDOWN, "(2).__class__", False),
        (PRODUCT, "(x*x) - 1", True),
        (PRODUCT, "x**2 + 1", False),
        (PRODUCT, "__import__('os').system('touch {mark}')", False),
        (SPIRAL, "1 2 3", True),
        (SPIRAL, "[1, 2, 3]", False),  # the library's 0.1: another form
        (SPIRAL, "open('{mark}', 'w')", False),
        (SPIRAL, "oracle_answer", False),
        (QUEENS, "Q _", True),
        (QUEENS, "[open('{mark}', 'w')]", False),
        (ISLANDERS, "Ben is a knave, Ann is a knight", True),
        (ISLANDERS, "Ann is a knight, and Ben is a knight.", False),  # 0.65 for a half
        (ISLANDERS, "", False),
        (ANY, "None", False),
        (ANY, "[1", False),
        (reference("prime_factorization", "2 × 3"), r"2 \times 3", True),
        (reference("prime_factorization", "2 × 3"), "x", False),  # raises in the library
        (reference("calendar_arithmetic", "3"), "9" * 1900, False),
    ],
)  # fmt: skip
def test_answers_are_scored_and_never_executed(task, said, correct, tmp_path):
    mark = tmp_path / "mark"
    points, why = gym.score_task(task, said.replace("{mark}", str(mark)))
    assert (points >= 1) is correct, why
    assert not mark.exists()


def test_an_endless_answer_is_not_scored():
    endless = rf"\boxed{{{'9' * 9000}}}"
    (verdict,) = Gym().verify([reference("calendar_arithmetic", "3")], [endless])
    assert (verdict.correct, verdict.reason) == (None, "answer of 9000 characters")
    assert len(verdict.answer or "") <= 2000


def test_what_hangs_raises_or_dies_ends_in_a_verdict():
    tasks = [PRODUCT, PRODUCT, COUNTDOWN, "2"]
    said = ["9**9**9**9", "x**2 - 1", "1/0", "2"]
    responses = [rf"\boxed{{{own}}}" for own in said]
    verdicts = type(BY_REFERENCE)(gym=Gym(seconds=1.0)).verify(tasks, responses)
    assert [v.correct for v in verdicts] == [None, True, False, True]
    assert verdicts[0].reason == "out of time"
    assert Gym().verify([COUNTDOWN], ["I cannot say."])[0].reason == "no answer"
    with pytest.raises(ValueError, match="a reference of reasoning-gym is"):
        Gym().verify(['{"gym": 3'], ["x"])


def test_what_a_worker_cannot_send_back_is_that_rows_failure():
    failed = (None, "TypeError in a worker")
    found = isolation.in_workers(divmod, [(7, 2), (1, 0), (7, 2), ("7", 2)], 1, 5.0)
    assert found == [(3, 1), (None, "ZeroDivisionError in a worker"), (3, 1), failed]
    assert isolation.in_workers(complex, [(1, 2)], 1, 5.0) == [failed]


# ---------------------------------------------------------------- keys and chains
def test_worked_solutions_agree_with_the_keys(pool):
    rows = [row for row in pool if row["subject"] in worked.PROCEDURES]
    solutions = [worked.worked_out(row) for row in rows]
    verdicts = Gym().verify([row["answer"] for row in rows], solutions)
    assert [v.correct for v in verdicts] == [True] * len(rows)
    with pytest.raises(ValueError, match="signs alone do not make 50"):
        worked.signs_for("Using all the numbers 1, 2, create an expression that equals 50.")


def test_why_syllogisms_are_refused():
    """All A are B, some B are not C: that some A are not C is called valid, and is not."""
    from reasoning_gym.logic.syllogisms import Quantifier, SyllogismDataset, Term

    a, b, c = (Term(name, f"{name}s") for name in "ABC")
    premises = (Quantifier.ALL, a, b), (Quantifier.SOME_NOT, b, c)
    called = SyllogismDataset._is_valid_syllogism(*premises, (Quantifier.SOME_NOT, a, c))
    kinds = list(product((False, True), repeat=3))  # of things: whether they are A, B, C
    worlds = (
        [kind for kind, there in zip(kinds, some, strict=True) if there]
        for some in product((False, True), repeat=8)
    )
    against = [
        world
        for world in worlds
        if any(x[0] for x in world) and all(x[1] for x in world if x[0])
        and any(x[1] and not x[2] for x in world)
        and not any(x[0] and not x[2] for x in world)
    ]  # fmt: skip
    assert called and against


@pytest.mark.parametrize("family", ["coin_flip", "game_of_life_halting", "puzzle24"])
def test_why_families_are_refused(family):
    """A wrong answer that the library takes for right; where it does not, offer it."""
    from reasoning_gym import create_dataset

    tasks = list(create_dataset(family, seed=5, size=8))
    data = create_dataset(family, seed=5, size=8)
    wrong = {"coin_flip": "0", "game_of_life_halting": "no idea"}
    others = [wrong.get(family) or other["answer"] for other in (*tasks[1:], tasks[0])]
    taken = [
        data.score_answer(other, task)
        for task, other in zip(tasks, others, strict=True)
        if other != task["answer"]
    ]
    assert 1.0 in taken


# ---------------------------------------------------------------- benchmarks
def test_a_family_is_a_benchmark_from_a_stated_seed():
    few, more = (benchmarks.load_benchmark("gym:countdown", count) for count in (2, 3))
    assert few["id"] == more["id"][:2] and set(few["benchmark"]) == {"gym:countdown"}
    assert few["in_domain"] == [True, True]
    assert all(drawing.part_of(normalise(text)) == "test" for text in more["question"])
    told = scoring.described("gym:countdown", few)
    assert told["source"].startswith("reasoning-gym 0.") and told["seed"] == 7


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("gym:countdwn", "did you mean gym:countdown"),
        ("gym:puzzle24", "unknown benchmark 'gym:puzzle24'"),
        ("gsm9k", "there are lab, gym, aime, .* and gym:FAMILY"),
    ],
)
def test_unknown_benchmarks_are_named(name, told):
    with pytest.raises(ValueError, match=told):
        benchmarks.known([name])


def test_math500_and_gsm8k_are_read_by_name(monkeypatch):
    data = ROOT.parent / "shared" / "data"
    if not (data / "benchmarks").is_dir():
        pytest.skip("there is no LIMO_NB_DATA here: shared/data")
    monkeypatch.setenv("LIMO_NB_DATA", str(data))
    assert benchmarks.known(["math500", "gsm8k"]) == ["math", "gsm8k"]
    found = benchmarks.load_benchmark("gsm8k")
    assert len(found) == 1319 and max(map(len, found["answer"])) < 10
    assert len(benchmarks.load_benchmark("math")) == 500


def test_drawn_items_do_not_contaminate():
    from limo_nb.core.settings import EvaluationSettings, Sampling

    sampling = Sampling()
    settings = EvaluationSettings(
        benchmarks=("gym:countdown",), items=2, sampling=sampling, votes=sampling
    )
    assert len(benchmarks.to_avoid(settings)) == 0
