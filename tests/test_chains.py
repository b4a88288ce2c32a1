"""Chain quality: words, scores, choosing, levels, and the coloured view."""

import re
from html.parser import HTMLParser

import pytest
from datasets import Dataset

from limo_nb import chains
from limo_nb.chains import DIMENSIONS, Scale, features, keywords, role, score

LAB = (
    "1) 2*3=6. Check: 2*3=6, right.\n"
    "Perhaps 3*7=1? That is not this step. Since 2) is minus 2: 2) 6-2=4.\n"
    "3) 4-8=9. Check: 4-8=6, so not 9. 3) 4-8=6.\n"
    "Therefore the answer is \\boxed{6}"
)
BARE = "1) 2*3=6.\n2) 6-2=4.\n3) 4-8=6.\nAnswer: \\boxed{6}"


# ---------------------------------------------------------------- words
def test_weights_are_the_published_ones():
    assert chains.weights() == {
        "length": 0.30, "verification": 0.20, "exploration": 0.25, "granularity": 0.25,
    }  # fmt: skip


def test_no_word_stands_twice():
    words = [w for d in chains.settings()["dimensions"].values() for w in d["words"]]
    assert len(words) == len(set(words))
    assert all(d["reason"] for d in chains.settings()["dimensions"].values())


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
    [("three plain words", 3), ("it's 3.5 and 12", 4), ("答案是三", 4), ("x=2+3", 3), ("…", 0)],
)
def test_count_words(text, words):
    assert chains.count_words(text) == words


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
    result = chains.ChainScore(length=1, verification=0.5, exploration=0.2, granularity=0)
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


def test_features_of_a_lab_chain():
    assert features(LAB) == chains.Features(steps=3, checks=2, backtracks=2)
    assert features(BARE) == chains.Features(steps=3, checks=0, backtracks=0)


def test_steps_of_a_chain_without_labels_are_its_equations():
    text = (
        "We have x = 3. Then x + 1 = 4, so y = 4. Case 1) is void. It follows: z = 5.\nw = 6."
    )
    assert features(text).steps == 4


def test_sentences_split_chinese_and_keep_list_labels():
    assert chains.SENTENCE.findall("2. 先算。再检查。\n3.5 is kept. Done") == [
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


def test_sees_right_compares_within_questions():
    scale = Scale(length=40, verification=10, exploration=10, granularity=10)

    def tried(name, text, correct, finished=True):
        return {"id": name, "text": text, "correct": correct, "finished": finished}

    rows = [
        tried("a", LAB, True), tried("a", BARE, False),  # the right one scores higher
        tried("b", BARE, True), tried("b", LAB, None),  # unverifiable is not right
        tried("c", BARE, True), tried("c", BARE, False),  # a tie
        tried("d", LAB, True), tried("d", BARE, False, finished=False),  # no pair
        tried("e", LAB, True),
    ]  # fmt: skip
    found = chains.sees_right(Dataset.from_list(rows), scale)
    assert found == {"a": 1.0, "b": 0.0, "c": 0.5}


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
    found = chains.collect(problems("a", "b"), attempts)
    assert list(zip(found["question_id"], found["sample"], strict=True)) == [("a", 0), ("b", 0)]
    row = found[0]
    assert row["question"] == "What is a?" and row["solution"] == BARE and row["level"] == 3
    assert row["score"] == score(BARE, Scale.of([BARE, LAB])).total
    assert {*DIMENSIONS, "steps", "checks", "backtracks", "tokens", "answer"} <= row.keys()


def test_collect_is_independent_of_order():
    rows = [attempt(n, s, t) for n in "ab" for s, t in enumerate((LAB, BARE))]
    one = chains.collect(problems("a", "b"), Dataset.from_list(rows))
    other = chains.collect(problems("b", "a"), Dataset.from_list(rows[::-1]))
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
        chains.collect(problems("a"), Dataset.from_list(rows))


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
    assert keys(chains.best_per_question(found)) == [("c", 0), ("a", 2), ("b", 0)]
    assert keys(chains.best_rows(found, 2)) == [("c", 0), ("a", 2)]
    assert len(chains.best_rows(found, 10)) == 3
    shuffled = found.shuffle(seed=1)
    assert chains.best_rows(shuffled, 3).to_list() == chains.best_rows(found, 3).to_list()


def test_levels_take_one_chain_of_every_question_for_every_band():
    rows = [("a", s, s / 10, 50) for s in range(9)] + [("b", s, s / 20, 50) for s in range(5)]
    found = chains.levels(table(*rows, ("few", 0, 0.9, 50)), bands=5)
    assert keys(found) == [(q, s) for i in range(5) for q, s in (("a", 2 * i), ("b", i))]
    assert found["band"] == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]


def test_levels_of_the_pool_have_equal_sizes_and_rising_scores():
    found = chains.levels(
        table(*[(f"q{i}", 0, (i * 7 % 20) / 20, 5) for i in range(20)]), 4, "pool"
    )
    by_band = [[r["score"] for r in found if r["band"] == band] for band in (1, 2, 3, 4)]
    assert [len(scores) for scores in by_band] == [5, 5, 5, 5]
    assert all(max(a) < min(b) for a, b in zip(by_band, by_band[1:], strict=False))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda t: chains.best_rows(t, 0), "n is 0"),
        (lambda t: chains.best_rows(t.select([]), 1), "no chains"),
        (lambda t: chains.levels(t, 5), "no question has 5"),
        (lambda t: chains.levels(t, 1), "at least two bands"),
        (lambda t: chains.levels(t, 5, "pool"), "cannot fill"),
        (lambda t: chains.levels(t, 5, "world"), "may be"),
    ],
)
def test_choosing_says_what_is_wrong(call, message):
    with pytest.raises(ValueError, match=message):
        call(table(("a", 0, 0.5, 9), ("a", 1, 0.6, 9)))


# ---------------------------------------------------------------- showing
class Reader(HTMLParser):
    """The tags and the text of HTML, style left out; checks that tags are closed."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.open, self.text = [], [], ""
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text += data


NASTY = "Check <script>alert(\"1\")</script> & <img src=x onerror=alert(1)> 'a' $x_1$ \\(y\\)."


def test_html_shows_exactly_the_text():
    for text in (LAB, BARE, NASTY, "检查。\n\n  因此 \\boxed{三}\n"):
        assert Reader(chains.to_html(text, legend=False)).text == text


def test_html_escapes_everything():
    page = Reader(chains.to_html(NASTY, title="<b onclick=x>"))
    assert {tag for tag, _ in page.tags} == {"style", "div", "span", "u"}
    assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)
    assert "<b onclick=x>" in page.text


def test_html_colours_roles_and_underlines_words():
    html = chains.to_html(LAB)
    for name in ("step", "check", "exploration", "answer"):
        assert f'<span class="limo-{name}">' in html.split("limo-legend")[-2]
    assert '<u title="verification">Check</u>' in html
    assert '<u title="granularity">Since</u>' in html
    legend = html.split('class="limo-legend"')[1]
    assert all(says in legend for says, _, _ in chains.ROLES.values())


def luminance(colour):
    """Relative luminance of #rgb or #rrggbb (WCAG 2)."""
    digits = colour[1:] if len(colour) == 7 else "".join(2 * d for d in colour[1:])
    parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_html_has_contrast_in_light_and_dark():
    html = chains.to_html(BARE)
    light, dark = re.findall(
        r"color:(#[0-9a-f]{6})", re.sub(r"border-color[^;}]*|background:[^;}]*", "", html)
    )
    for _, on_light, on_dark in chains.ROLES.values():
        for ink, ground in ((light, on_light), (dark, on_dark)):
            a, b = sorted((luminance(ink), luminance(ground)))
            assert (b + 0.05) / (a + 0.05) >= 7, (ink, ground)
    assert all(f"{where} .limo-step" in html for where in chains.DARK)
    assert "http" not in html  # needs nothing from elsewhere


def test_side_by_side_has_both_and_one_style():
    html = chains.side_by_side(LAB, BARE, ("A & B", "C"))
    page = Reader(html)
    assert html.count("<style>") == 1 and html.count('class="limo-chain"') == 2
    assert "A & B" in page.text and LAB in page.text and BARE in page.text


def test_empty_chain_cannot_be_shown():
    with pytest.raises(ValueError, match="empty chain"):
        chains.to_html(" \n")
