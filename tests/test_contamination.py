"""What repeats a benchmark item: short ones, formulas in Unicode, common phrases, shares."""

import pytest
from datasets import Dataset
from test_cleaning import SHARED, pool_of, real

from limo_nb.evaluation import benchmarks
from limo_nb.problems import SHARES, cleaning, count_catches, real_pool, recorded_catches, words
from limo_nb.problems.contamination import LEAST_BITS, Decontaminator
from limo_nb.problems.information import _reference, information, reference_of

# ---------------------------------------------------------------- short items inside
SHORT = (
    r"Evaluate $\log_2 64$.", r"Compute $\arcsin\left(-\frac{1}{2}\right)$.", "Solve for $x$.",
    "What is the value of $x$?", "计算 $155\\times\\frac{113}{156}$", "求值。",
    "How many prime factors does 2310 have?",
)  # fmt: skip
INSIDE = [  # question, the item that it holds
    (r"Evaluate $\log_2 64$. Justify.", 0),
    (r"First: evaluate $\log_{2}64$", 0),
    ("Please evaluate log₂64 and then rest.", 0),
    (r"Evaluate $\log_2 65$. Justify.", None),
    (r"Evaluate $\log_3 64$. Justify.", None),
    (r"Now compute $\arcsin(-\tfrac12)$ in radians.", 1),
    ("Now compute arcsin(−½) in radians.", 1),
    (r"Now compute $\arcsin\frac12$ in radians.", None),  # a sign makes it another
    ("Let $2x = 6$. Solve for $x$.", None),  # common property
    ("If $2x = 6$, what is the value of $x$ and of $y$?", None),
    (r"请计算 $155 \times \frac{113}{156}$，谢谢", 4),
    ("求值。请写出过程", None),
    ("How many prime factors does 2310 have? List them.", 6),
    ("How many prime factors does 2311 have? List them.", None),
    ("How many prime factors has 2310? List them.", None),
]


@pytest.mark.parametrize(("question", "item"), INSIDE)
def test_a_short_item_is_found_inside_if_it_says_enough(question, item):
    found = Decontaminator(SHORT).match(question)
    assert (found and found.item) == item
    if found:
        assert found.reason == "holds the whole question"
        assert found.quoted == 1 and 0 < found.overlap < 1
        assert words(found.passage) == words(SHORT[item])


@pytest.mark.parametrize("item", range(len(SHORT)))
def test_a_short_item_as_a_whole_falls_whatever_it_says(item):
    found = Decontaminator(SHORT).match(SHORT[item].upper().replace(" ", "  "))
    assert (found.item, found.reason) == (item, "shares the whole question")
    assert (found.overlap, found.quoted) == (1, 1)


@pytest.mark.parametrize(
    ("question", "falls"),
    [("What is $3 - 5$?", False), ("What is $3+5$ ?", True), ("What is 35?", False)],
)
def test_signs_tell_short_items_apart(question, falls):
    assert (Decontaminator(("What is 3 + 5?",)).match(question) is not None) == falls


COMMONPLACE = ["solve for x", "what is the value of x", "how many are there", "prove that"]
TELLING = ["evaluate log 2 64", "simplify 242 3", "how many prime factors does 2310 have"]


def test_information_tells_a_request_from_an_exercise():
    assert max(information(words(text)) for text in COMMONPLACE) < LEAST_BITS
    assert min(information(words(text)) for text in TELLING) > LEAST_BITS
    assert information([]) == 0
    longer = information(words(TELLING[0] + " now"))
    assert longer > information(words(TELLING[0]))


def test_the_reference_is_counted_without_numbers_and_rare_words():
    rows = [["find", "x", "7"], ["find", "x", "8"], ["find", "y"]]
    made = reference_of(rows, 2)
    assert made == {"words": 8, "least": 2, "counts": {"find": 3, "find x": 2, "x": 2}}
    counts, total, least = _reference()
    assert least == 50 and min(counts.values()) >= least and total > 10**5
    assert not any(character.isdigit() for text in counts for character in text)
    for text in counts:  # a pair's first word has a count, and a larger one
        first, _, second = text.partition(" ")
        assert not second or counts[first] >= counts[text]


# ---------------------------------------------------------------- formulas in Unicode
UNICODE = [
    (r"$x^{2}+10^{12} \leq \sqrt{\pi}$", "x² + 10¹² ≤ √π"),
    (r"$\frac12 a_{10} \cdot b_n$", "½a₁₀·bₙ"),
    (r"$3\frac{3}{4}$", "3¾"),
    (r"$\sum_{k=1}^{n} \alpha_k \beta$", "∑ₖ₌₁ⁿ αₖβ"),
    (r"$\angle ABC = 45^\circ$", "∠ABC = 45°"),
    (r"$\mathbb{R} \to \mathbb{Z}, \Delta \neq \varepsilon$", "ℝ → ℤ, Δ ≠ ε"),
    (r"$\sin\theta - \cos^{2}\phi$", "sinθ − cos²ϕ"),
    (r"$\lfloor x \rfloor \times \infty, \sqrt[3]{5}$", "⌊x⌋ × ∞, ∛5"),
    (r"$\vec{a} \in A \cup B$", "a⃗ ∈ A ∪ B"),
]


@pytest.mark.parametrize(("latex", "typed"), UNICODE)
def test_latex_and_unicode_are_the_same_words(latex, typed):
    assert words(latex) == words(typed)


@pytest.mark.parametrize(
    ("one", "other"),
    [("10²", "102"), ("x₁₂", "x₁2"), (r"\alpha", r"\beta"), ("3½", "31/2"), ("sin x", "cos x")],
)
def test_other_formulas_are_other_words(one, other):
    assert words(one) != words(other)


# ---------------------------------------------------------------- common phrases
REQUEST = "give the answer as a fraction in lowest terms and explain each of your steps to me"
OPENINGS = (
    "A ladder of four metres leans on a wall whose foot is one metre away, where it slips",
    "One drop of rain falls from a cloud at noon and meets another one half a mile below it",
    "The king's horse walks around a square yard while its rider counts the stones he sees",
)
EXAM = tuple(f"{opening}; {REQUEST}" for opening in OPENINGS)
STEM = "the ladder with twelve rungs leans on the old brick wall behind our house at noon"


@pytest.mark.parametrize(("common", "falls"), [(0, True), (2, False), (3, False), (4, True)])
def test_a_request_that_items_share_is_no_evidence(common, falls):
    innocent = f"Count the sheep on the hill; {REQUEST}"
    assert (Decontaminator(EXAM, common=common).match(innocent) is not None) == falls
    assert Decontaminator(EXAM, common=common).match(f"Well: {EXAM[1]}").item == 1


@pytest.mark.parametrize(("items", "falls"), [(3, True), (9, True), (10, False), (40, False)])
def test_a_request_longer_than_the_questions_is_common_where_many_have_it(items, falls):
    exam = tuple(f"Is {n} a prime? {REQUEST}" for n in range(items))
    decontaminator = Decontaminator(exam)
    assert (decontaminator.match(f"Count the sheep. {REQUEST}") is not None) == falls
    assert decontaminator.match(f"Well, {exam[2].lower()}").item == 2


@pytest.mark.parametrize("count", [2, 3, 5])
def test_versions_of_one_item_do_not_make_it_common(count):
    """Nor the same exam named twice, nor the parts of one long question."""
    versions = tuple(f"{STEM}; part {'abcde'[n]}: how high?" for n in range(count))
    for items in (versions, (f"{STEM}.",) * count):
        assert Decontaminator(items).match(f"So {STEM} today") is not None


# ---------------------------------------------------------------- shares and passages
def test_the_passage_is_the_longest_that_both_have():
    text = " ".join(f"w{chr(97 + n)}" for n in range(26))
    first, second = text[: 3 * 8 - 1], text[3 * 10 : 3 * 20 - 1]
    found = Decontaminator((text,), ngram=6).match(f"{first} other {second}")
    assert found.passage == second
    assert found.overlap == pytest.approx(8 / 14) and found.quoted == pytest.approx(8 / 21)


def test_the_doubtful_come_first():
    item = " ".join(f"w{chr(97 + n)}" for n in range(26))
    part = item[: 3 * 13 - 1]
    other = "and so on with other words that nobody else would ever think of in this place"
    pool = pool_of(item, f"{part} {other}", f"{item} {other}", f"{part} once more")
    report = cleaning.decontaminate(pool, pool_of(item)).doubtful_first()
    assert [row["id"] for row in report] == ["p1", "p3", "p2", "p0"]
    assert list(report[0]) == [
        "id", "reason", "counterpart", "overlap", "quoted", "passage",
    ]  # fmt: skip


# ---------------------------------------------------------------- the prefilter
def test_the_prefilter_lets_nothing_pass_that_may_fall():
    questions = [question for question, _ in INSIDE] + list(SHORT)
    questions += [f"Count the sheep; {REQUEST}", *EXAM, "", "?"]
    for items in (SHORT, EXAM, SHORT + EXAM):
        decontaminator = Decontaminator(items)
        suspects = decontaminator.prefilter().suspects([words(q) for q in questions])
        matches = [decontaminator.match(question) is not None for question in questions]
        assert all(suspect >= match for suspect, match in zip(suspects, matches, strict=True))
        assert any(matches) and not suspects.all()


def test_a_run_over_the_end_of_a_text_is_no_suspect():
    prefilter = Decontaminator((SHORT[6],)).prefilter()
    split = words(SHORT[6])
    assert prefilter.suspects([split[:3], [], split[3:]]).tolist() == [False] * 3
    assert prefilter.suspects([["x"], [], ["a", *split]]).tolist() == [False, False, True]


# ---------------------------------------------------------------- real data
@pytest.fixture(scope="module")
def items():
    return benchmarks.real_benchmarks(SHARED)


@real
@pytest.mark.parametrize("way", ["{} Justify.", "First of all: {}", "Explain this. {} Why?"])
def test_short_items_of_the_benchmarks_are_found_inside(items, way):
    decontaminator = Decontaminator(tuple(items["question"]))
    short = [q for q in items["question"] if 0 < len(words(q)) < 13]
    found = [decontaminator.match(way.format(question)) for question in short]
    assert len(short) > 90 and sum(match is not None for match in found) >= 0.98 * len(short)


@real
def test_the_exact_decision_agrees_with_the_prefilter_on_real_problems(items):
    decontaminator = Decontaminator(tuple(items["question"]))
    some = real_pool(SHARED).select(range(0, 15922, 8))["question"]
    suspects = decontaminator.prefilter().suspects([words(question) for question in some])
    matches = [decontaminator.match(question) is not None for question in some]
    assert all(suspect >= match for suspect, match in zip(suspects, matches, strict=True))
    assert sum(matches) > 5 and sum(suspects) < 0.02 * len(some)


# ---------------------------------------------------------------- figures
def test_catches_count_every_problem_that_falls():
    pool = pool_of(*EXAM, f"Count the sheep; {REQUEST}", "Nothing of it.")
    items = pool_of(*EXAM)
    rows = count_catches(pool, items, (13,))
    for phrases, common, count in (("counted", 0, 4), ("left out", 2, 3)):
        fell = cleaning.decontaminate(pool, items, 13, common=common).dropped
        own = [row["problems"] for row in rows if row["phrases"] == phrases]
        assert sum(own) == len(fell) == count and len(own) == len(SHARES)


def test_recorded_figures_are_figures_only():
    made = recorded_catches()
    table = Dataset.from_list(made["catches"]).to_pandas()
    assert set(table["n"]) == {8, 13} and set(table["share"]) == set(SHARES)
    fall = table.groupby(["n", "phrases"])["problems"].sum()
    assert fall[8, "counted"] > fall[8, "left out"] > fall[13, "left out"] > 0
    rows = made["paraphrases"]
    assert [row["recall"] for row in rows] == sorted((r["recall"] for r in rows), reverse=True)
    assert all(isinstance(value, (int, float)) for row in rows for value in row.values())
