"""Chain quality: words, scores, measures, teachers, choosing, levels and their control."""

import numpy as np
import pytest
from datasets import Dataset

from limo_nb.chains import (
    choice,
    collection,
    measures,
    scoring,
)
from limo_nb.chains.measures import (
    measure,
    role,
)
from limo_nb.chains.scoring import (
    DIMENSIONS,
    Scale,
    keywords,
    score,
)
from limo_nb.grading import verifiers
from limo_nb.inference import token_counter

LAB = (
    "1) 2*3=6. Check: 2*3=6, right.\n"
    "Perhaps 3*7=1? That is not this step. Since 2) is minus 2: 2) 6-2=4.\n"
    "3) 4-8=9. Check: 4-8=6, so not 9. 3) 4-8=6.\n"
    "Therefore the answer is \\boxed{6}"
)
BARE = "1) 2*3=6.\n2) 6-2=4.\n3) 4-8=6.\nAnswer: \\boxed{6}"


# ---------------------------------------------------------------- words
def test_weights_are_the_published_ones():
    assert scoring.weights() == {
        "length": 0.30, "verification": 0.20, "exploration": 0.25, "granularity": 0.25,
    }  # fmt: skip


def test_no_word_stands_twice_and_every_group_has_a_reason_and_both_languages():
    found = [word for name in DIMENSIONS for word in scoring.words(name)]
    assert len(found) == len(set(found))
    rules = scoring.settings()
    assert all(rule["reason"] for rule in rules["dimensions"].values())
    for name in (*DIMENSIONS, "backtracks"):
        for group in rules.get(name, rules["dimensions"].get(name))["words"]:
            assert group["why"] and group["en"] and group["zh"]
            assert not any(map(str.isascii, group["zh"])) and all(map(str.isascii, group["en"]))


@pytest.mark.parametrize("name", ["verification", "exploration", "granularity", "backtracks"])
def test_every_word_of_the_lists_is_found(name):
    for word in scoring.words(name):
        text = f"x {word.rstrip('*')} y" if word.isascii() else f"我{word}你"
        start = text.index(word.rstrip("*"))
        assert (start, start + len(word.rstrip("*"))) in list(scoring._found(name, text)), word


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Check it.", ["verification"]),
        ("We VERIFIED and checked.", ["verification", "verification"]),
        ("Let me double-check this.", ["verification"]),
        ("We are checking; it is rechecked.", ["verification", "verification"]),
        ("a checkered flag, checkmate, the paycheck mighty sincere", []),
        ("It might work, perhaps.", ["exploration", "exploration"]),
        ("Since a is 2, b is 3. Therefore", ["granularity", "granularity"]),
        ("this means\nthat", ["granularity"]),
        ("let’s try it", ["exploration"]),
        ("$\\therefore x$", ["granularity"]),
        ("我们检查一下,因此答案可能是三", ["verification", "granularity", "exploration"]),
        ("So far so good, and so on; so that x", ["granularity"]),
        ("不可能。所有可能的值有可能性。", []),
        ("三、四等等。等等，不对", ["exploration"]),
        ("他故意说，故而", ["granularity"]),
        ("檢查一下，因為它或許不同", ["verification", "granularity", "exploration"]),
        ("CHECK因此check", ["verification", "granularity", "verification"]),
        ("", []),
    ],
)
def test_keywords(text, expected):
    assert [name for _, _, name in keywords(text)] == expected


def test_keywords_do_not_overlap_and_point_into_the_text():
    text = "So wait, let me double-check: on second thought it might be so."
    hits = keywords(text)
    assert all(a[1] <= b[0] for a, b in zip(hits, hits[1:], strict=False))
    assert [text[a:b].lower() for a, b, _ in hits][:3] == ["so", "wait", "double-check"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("three plain words", 3),
        ("it's 3.5 and 12", 4),
        ("答案是三", 2.5),
        ("let's用三", 1 + 2 / 1.6),
        ("x=2+3", 3),
        ("…", 0),
    ],
)
def test_count_words(text, words):
    assert scoring.count_words(text) == words


# ---------------------------------------------------------------- score
SCALE = Scale(length=40, verification=5, exploration=5, granularity=10)


@pytest.mark.parametrize("text", [LAB, BARE, "因此答案是三", "check " * 50, "word " * 9000])
def test_every_part_lies_between_0_and_1(text):
    for scale in (None, SCALE, Scale.of([LAB, BARE])):
        result = score(text, scale)
        assert all(0 <= getattr(result, name) <= 1 for name in DIMENSIONS)
        assert 0 <= result.total <= 1


def test_counts_are_relative_to_length():
    once, diluted = (
        "check one two three",
        "check one two three " + "and more words of text " * 8,
    )
    assert score(once, SCALE).verification > score(diluted, SCALE).verification > 0
    # twice the text with twice the words is the same rate
    wide = Scale(100, 100, 100, 100)
    assert score(once, wide).verification == pytest.approx(
        score(f"{once} {once}", wide).verification
    )


def test_total_is_the_weighted_sum():
    result = scoring.ChainScore(length=1, verification=0.5, exploration=0.2, granularity=0)
    assert result.total == pytest.approx(0.30 + 0.10 + 0.05)


def test_habits_raise_the_score():
    assert score(LAB, SCALE).total > score(BARE, SCALE).total


def test_scale_of_a_batch_is_relative_to_it():
    long = LAB + "\n" + LAB
    scale = Scale.of([BARE, LAB, long])
    assert score(long, scale).length == 1
    assert score(BARE, scale).length < 0.5
    assert score(LAB, scale).length > score(LAB).length  # tiny beside LIMO's chains


def test_a_dimension_that_no_chain_shows_scores_0():
    assert score(BARE, Scale.of([BARE])).exploration == 0


@pytest.mark.parametrize("text", ["", "  \n", "…"])
def test_empty_chain_has_no_score(text):
    with pytest.raises(ValueError, match="empty chain"):
        score(text)


def test_no_scale_of_nothing():
    with pytest.raises(ValueError, match="no chains"):
        Scale.of([])


# ---------------------------------------------------------------- features
@pytest.mark.parametrize(
    ("sentence", "does"),
    [
        ("1) 2*3=6.", "step"),
        ("Since 2) is minus 2: 2) 6-2=4.", "step"),
        ("Check: 2*3=6, right.", "check"),
        ("Perhaps 3*7=1?", "exploration"),
        ("That is not this step.", "exploration"),
        ("Therefore n is even.", "conclusion"),
        ("Therefore the answer is \\boxed{6}", "answer"),
        ("Let us read the problem.", "plain"),
        ("Jun+3 gives Sep.", "step"),
        ("我们验证一下。", "check"),
        ("因此它是偶数。", "conclusion"),
    ],
)
def test_roles(sentence, does):
    assert role(sentence) == does


def test_measures_of_a_lab_chain():
    found = measure(LAB)
    assert (found.steps, found.checks, found.backtracks) == (3, 2, 2)
    assert not found.truncated and found.mixing == 0 and found.after_answer is None
    assert measure(BARE).steps == 3 and measure(BARE).checks == 0


def test_steps_of_a_chain_without_labels_are_its_equations():
    text = (
        "We have x = 3. Then x + 1 = 4, so y = 4. Case 1) is void. It follows: z = 5.\nw = 6."
    )
    assert measure(text).steps == 4


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("one two three four five", 0),
        ("a b c d " * 50, 1 - 4 / 197),  # a loop: four different runs
        ("a b c d e a b c d", 1 / 6),
        ("few words", 0),
        ("", 0),
    ],
)
def test_repetition(text, share):
    assert measures.repetition(text) == pytest.approx(share)


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("We add x and y, so $n$ is \\frac{1}{2}.", 0),
        ("所以 x 是 $\\alpha$，答案是三。", 0),
        ("Wait here 我们再算", 2 / (2 + 4 / 1.6)),  # two words and four characters
        ("Maybe так", 0.5),
        ("12 + 3", 0),
    ],
)
def test_mixing(text, share):
    assert measures.mixing(text) == pytest.approx(share)


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        (LAB, False),
        ("<think>It is 6, I", True),
        ("<think>It is 6.</think>", True),  # thoughts, but no answer
        ("<think>It is 6.</think> The answer is \\boxed{6}", False),
        ("The answer is 6. To be sure, let us multiply the", True),
        ("**Final Answer**\n\\boxed{6}", False),
        ("因此答案是 $6$。", False),
        ("", True),
    ],
)
def test_a_text_that_stops_before_its_end_is_recognised(text, cut):
    assert measures.looks_cut(text) is cut


def test_what_the_engine_said_of_the_end_goes_before_the_text():
    assert measure(LAB, finished=False).truncated
    assert not measure("and so", finished=True).truncated


@pytest.mark.parametrize(
    ("text", "reference", "end"),
    [
        ("So the answer is 6. Wait. Yes: \\boxed{6}", "6", "is 6."),
        ("We get 6 on the way. \\boxed{6}", "6", None),  # only statements count
        ("The answer is 5. No. The answer is 0.50. Hmm.", "1/2", "is 0.50."),
        ("<think>The answer is 6.</think> \\boxed{7}", "6", "is 6."),
        ("答案是六。再检查一下。", "六", "答案是六。"),
        ("Is the answer 6? The answer is 8.", "6", 0),
        ("no statement", "6", 0),
    ],
)
def test_first_right_statement(text, reference, end):
    (found,) = measures.first_right([text], [reference])
    expected = {None: len(text), 0: None}.get(end) if end in (None, 0) else (
        text.index(end) + len(end)
    )  # fmt: skip
    assert found == expected


def test_share_behind_the_first_right_answer():
    text = "one two three answer is \\boxed{6} and four more words here now"
    (place,) = measures.first_right([text.replace(" and", ".\nand")], ["6"])
    share = measure(text.replace(" and", ".\nand"), place).after_answer
    assert share == pytest.approx(6 / scoring.count_words(text))


def test_share_behind_the_answer_in_tokens():
    count = token_counter("lab:foundation")
    assert count("12 + 3") > scoring.count_words("12 + 3")  # digits are tokens of their own
    text = "12 + 3 = 15. The answer is \\boxed{15}. Check: 15 - 3 = 12."
    (place,) = measures.first_right([text], ["15"])
    expected = count(" Check: 15 - 3 = 12.") / count(text)
    assert (
        0 < measure(text, place, count=count).after_answer == pytest.approx(expected, abs=0.05)
    )
    attempts = Dataset.from_list([attempt("a", 0, text)])
    asked = problems("a").map(lambda row: {"answer": "15"})
    (row,) = collection.collect(asked, attempts, count=count)
    (graded,) = choice.graded(
        [{"question": "?", "solution": text, "answer": "15"}], count=count
    )
    assert (
        row["after_answer"]
        == graded["after_answer"]
        == measure(text, place, count=count).after_answer
    )
    assert row["after_answer"] != measure(text, place).after_answer


def test_sentences_split_chinese_and_keep_list_labels():
    assert verifiers.SENTENCE.findall("2. 先算。再检查。\n3.5 is kept. Done") == [
        "2. 先算。", "再检查。", "3.5 is kept.", "Done",
    ]  # fmt: skip


# ---------------------------------------------------------------- collecting
def problems(*names):
    return Dataset.from_list(
        [
            {
                "id": name, "question": f"What is {name}?", "answer": "6", "solution": "",
                "source": "test", "subject": "dial", "level": 3,
            }
            for name in names
        ]
    )  # fmt: skip


def attempt(name, sample, text, correct=True, finished=True):
    return {
        "id": name, "sample": sample, "text": text, "tokens": len(text),
        "finished": finished, "correct": correct,
    }  # fmt: skip


def test_collect_keeps_different_correct_finished_chains():
    attempts = Dataset.from_list(
        [
            attempt("b", 1, LAB),
            attempt("b", 0, LAB.replace("\n", "\n ") + "\n"),  # the same but for spaces
            attempt("a", 0, BARE),
            attempt("a", 1, LAB + " wrong", correct=False),
            attempt("a", 2, LAB + " unsure", correct=None),
            attempt("a", 3, LAB + " cut", finished=False),
        ]
    )
    found = collection.collect(problems("a", "b"), attempts)
    assert list(zip(found["question_id"], found["sample"], strict=True)) == [("a", 0), ("b", 0)]
    row = found[0]
    assert row["question"] == "What is a?" and row["solution"] == BARE and row["level"] == 3
    assert row["score"] == score(BARE, Scale.of([BARE, LAB])).total
    assert {*DIMENSIONS, "steps", "checks", "backtracks", "tokens", "answer"} <= row.keys()
    assert row["teacher"] == "" and row["truncated"] is False and row["after_answer"] == 0


def test_collect_is_independent_of_order():
    rows = [attempt(n, s, t) for n in "ab" for s, t in enumerate((LAB, BARE))]
    one = collection.collect(problems("a", "b"), Dataset.from_list(rows))
    other = collection.collect(problems("b", "a"), Dataset.from_list(rows[::-1]))
    assert one.to_list() == other.to_list()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([attempt("a", 0, BARE, correct=False)], "no attempt is correct"),
        ([attempt("z", 0, BARE)], "not among the problems"),
    ],
)
def test_collect_says_what_is_wrong(rows, message):
    with pytest.raises(ValueError, match=message):
        collection.collect(problems("a"), Dataset.from_list(rows))


# ---------------------------------------------------------------- teachers
def taught(answers):
    """`solve` of teachers whose attempts are given, noting the folders that it was handed."""
    folders = []

    def solve(teacher, folder):
        folders.append(folder)
        return Dataset.from_list(answers[teacher])

    return solve, folders


def test_chains_of_several_teachers_compete_for_a_question(tmp_path):
    solve, folders = taught(
        {
            "strong": [attempt("a", 0, LAB), attempt("b", 0, BARE, correct=False)],
            "terse": [attempt("a", 0, BARE), attempt("b", 0, BARE), attempt("a", 1, LAB)],
        }
    )
    attempts = collection.from_teachers(["strong", "terse"], solve, tmp_path)
    assert len(set(folders)) == 2  # each keeps its completions apart
    found = collection.collect(problems("a", "b"), attempts)
    # the same text of two teachers counts once, for the first in alphabetical order
    assert [(r["question_id"], r["teacher"], r["sample"]) for r in found] == [
        ("a", "strong", 0), ("a", "terse", 0), ("b", "terse", 0),
    ]  # fmt: skip
    best = choice.best_per_question(found)
    assert dict(zip(best["question_id"], best["teacher"], strict=True)) == {
        "a": "strong", "b": "terse",
    }  # fmt: skip
    strong, terse = collection.teachers_table(attempts, found, best)
    assert [strong[k] for k in ("samples", "right", "chains", "chosen")] == [2, 1, 1, 1]
    assert [terse[k] for k in ("samples", "right", "chains", "chosen")] == [3, 3, 2, 1]
    assert strong["score"] > terse["score"]


@pytest.mark.parametrize("teachers", [[], ["a", "a"]])
def test_teachers_must_differ(teachers, tmp_path):
    with pytest.raises(ValueError, match="name one or more, each once"):
        collection.from_teachers(teachers, taught({})[0], tmp_path)


# ---------------------------------------------------------------- choosing
def table(*rows):
    """Chains from (question, sample, score, tokens)."""
    names = ("question_id", "sample", "score", "tokens")
    return Dataset.from_list([dict(zip(names, row, strict=True)) for row in rows])


def keys(chosen):
    return list(zip(chosen["question_id"], chosen["sample"], strict=True))


def test_best_per_question_and_its_ties():
    found = table(
        ("a", 0, 0.5, 90), ("a", 1, 0.9, 90), ("a", 2, 0.9, 80),  # the shorter of equals
        ("b", 1, 0.7, 50), ("b", 0, 0.7, 50),  # then the earlier sample
        ("c", 0, 0.95, 10),
    )  # fmt: skip
    assert keys(choice.best_per_question(found)) == [("c", 0), ("a", 2), ("b", 0)]
    assert keys(choice.best_rows(found, 2)) == [("c", 0), ("a", 2)]
    assert len(choice.best_rows(found, 10)) == 3
    shuffled = found.shuffle(seed=1)
    assert choice.best_rows(shuffled, 3).to_list() == choice.best_rows(found, 3).to_list()


def test_levels_take_one_chain_of_every_question_for_every_band():
    rows = [("a", s, s / 10, 50) for s in range(9)] + [("b", s, s / 20, 50) for s in range(5)]
    found = choice.levels(table(*rows, ("few", 0, 0.9, 50)), bands=5)
    assert keys(found) == [(q, s) for i in range(5) for q, s in (("a", 2 * i), ("b", i))]
    assert found["band"] == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]


def test_levels_of_the_pool_have_equal_sizes_and_rising_scores():
    found = choice.levels(
        table(*[(f"q{i}", 0, (i * 7 % 20) / 20, 5) for i in range(20)]), 4, "pool"
    )
    by_band = [[r["score"] for r in found if r["band"] == band] for band in (1, 2, 3, 4)]
    assert [len(scores) for scores in by_band] == [5, 5, 5, 5]
    assert all(max(a) < min(b) for a, b in zip(by_band, by_band[1:], strict=False))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda t: choice.best_rows(t, 0), "n is 0"),
        (lambda t: choice.best_rows(t.select([]), 1), "no chains"),
        (lambda t: choice.levels(t, 5), "no question has 5"),
        (lambda t: choice.levels(t, 1), "at least two bands"),
        (lambda t: choice.levels(t, 5, "pool"), "cannot fill"),
        (lambda t: choice.levels(t, 5, "world"), "may be"),
    ],
)
def test_choosing_says_what_is_wrong(call, message):
    with pytest.raises(ValueError, match=message):
        call(table(("a", 0, 0.5, 9), ("a", 1, 0.6, 9)))


# ---------------------------------------------------------------- the control of length
def habitual(question, sample, tokens, rate, length=0.5):
    """A chain whose three habits all score `rate`."""
    parts = dict.fromkeys(DIMENSIONS, rate) | {"length": length}
    total = sum(scoring.weights()[name] * parts[name] for name in DIMENSIONS)
    return {"question_id": question, "sample": sample, "tokens": tokens, "score": total} | parts


def test_matched_levels_differ_in_habits_and_not_in_length():
    rows = [
        habitual("a", 0, 100, 0.1), habitual("a", 1, 108, 0.7), habitual("a", 2, 300, 1.0),
        habitual("b", 0, 200, 0.5), habitual("b", 1, 210, 0.6), habitual("b", 2, 205, 0.2),
        habitual("none", 0, 50, 0.1), habitual("none", 1, 90, 0.9),  # too far apart
    ]  # fmt: skip
    found = choice.matched_levels(Dataset.from_list(rows), 2, 0.1)
    assert keys(found) == [("a", 0), ("b", 2), ("a", 1), ("b", 1)]
    assert found["band"] == [1, 1, 2, 2]
    assert choice.habits(rows[0]) == pytest.approx(0.1)


def test_matched_levels_of_random_chains_stay_within_the_tolerance():
    rng = np.random.default_rng(1)
    rows = [
        habitual(f"q{i % 12}", i, int(rng.integers(60, 260)), rng.random(), rng.random())
        for i in range(240)
    ]
    found = choice.matched_levels(Dataset.from_list(rows), 3, 0.15).to_list()
    for question in {row["question_id"] for row in found}:
        group = [row for row in found if row["question_id"] == question]
        lengths = [row["tokens"] for row in group]
        assert len(group) == 3 and max(lengths) <= 1.15 * min(lengths)
        assert [r["band"] for r in sorted(group, key=lambda r: r["habits"])] == [1, 2, 3]
    shuffled = Dataset.from_list(rows).shuffle(seed=3)
    assert choice.matched_levels(shuffled, 3, 0.15).to_list() == found


@pytest.mark.parametrize(
    ("bands", "tolerance", "message"),
    [
        (2, 0.1, "within 10% of the same length"),
        (3, 0.1, "no question has 3"),
        (1, 0.1, "bands 1"),
    ],
)
def test_matched_levels_say_what_is_missing(bands, tolerance, message):
    rows = [habitual("a", 0, 100, 0.1), habitual("a", 1, 200, 0.2)]
    with pytest.raises(ValueError, match=message):
        choice.matched_levels(Dataset.from_list(rows), bands, tolerance)


# ---------------------------------------------------------------- rows of a file
def test_graded_rows_keep_their_order_and_get_levels():
    texts = [LAB, BARE, f"{LAB} Perhaps check it.", BARE, "so"]
    rows = [
        {"question": "ab"[i % 2], "solution": t, "answer": "6"} for i, t in enumerate(texts)
    ]
    found = choice.graded(rows, bands=5)
    assert sorted(row["level"] for row in found) == [1, 2, 3, 4, 5]
    # better means a higher level; of the two equal texts the earlier one
    assert found[1]["level"] == found[3]["level"] + 1
    ranked = sorted(found, key=lambda row: row["level"])
    assert [r["score"] for r in ranked] == sorted(r["score"] for r in found)
    assert found[0]["after_answer"] == 0 and found[4]["after_answer"] is None
    inside = choice.graded(rows, bands=3, within="question")
    assert [row["level"] is None for row in inside] == [False, True, False, True, False]
    with pytest.raises(ValueError, match="may be"):
        choice.graded(rows, within="world")


def test_levels_and_control_as_far_as_the_chains_allow():
    def sets(samples):
        rows = [habitual(f"q{q}", s, 100 + s, s / 9) for q in range(12) for s in range(samples)]
        return choice.levels_and_control(Dataset.from_list(rows))

    assert {name: max(found["band"]) for name, found in sets(6).items()} == {
        "levels": 5, "matched": 2,
    }  # fmt: skip
    assert max(sets(3)["levels"]["band"]) == 3
    assert sets(1) == {}
    apart = [habitual("a", 0, 100, 0.1), habitual("a", 1, 200, 0.2)]
    assert list(choice.levels_and_control(Dataset.from_list(apart))) == ["levels"]
