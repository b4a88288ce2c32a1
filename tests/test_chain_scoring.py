"""The chain score: the words that count, where they stand, the scale, the dimensions."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from limo_nb.chains import scoring
from limo_nb.chains.scoring import DIMENSIONS, LISTS, Scale, keywords, score

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
    found = [word for name in DIMENSIONS for word in scoring.word_list(name)]
    assert len(found) == len(set(found))
    rules = scoring.chain_rules()
    assert all(rule["reason"] for rule in rules["dimensions"].values())
    for name in (*DIMENSIONS, "backtracks"):
        for group in rules.get(name, rules["dimensions"].get(name))["words"]:
            assert group["why"] and group["en"] and group["zh"]
            assert not any(map(str.isascii, group["zh"])) and all(map(str.isascii, group["en"]))


@pytest.mark.parametrize("name", LISTS)
def test_every_word_of_the_lists_is_found(name):
    for word in scoring.word_list(name):
        text = f"x {word.rstrip('*')} y" if word.isascii() else f"我{word}你"
        start = text.index(word.rstrip("*"))
        hit = (start, start + len(word.rstrip("*")), name)
        assert hit in scoring.occurrences(text), word


PIECES = [word.rstrip("*") for name in LISTS for word in scoring.word_list(name)]
PIECES += ["so far", "so that", "不可能", "checkmate", "the", "x", "3.5", "Wait", "of", "三"]


@given(st.lists(st.tuples(st.sampled_from(PIECES), st.sampled_from([" ", "\n", ".", "-", ""]))))
@settings(max_examples=300, deadline=None)
def test_one_search_for_beginnings_finds_what_each_list_finds(parts):
    text = "".join(piece for pair in parts for piece in pair)
    alone = {
        (*match.span(), name)
        for name, pattern in scoring._patterns().items()
        for match in pattern.finditer(text)
        if match.lastindex is None
    }
    found = scoring.occurrences(text)
    assert set(found) == alone and len(found) == len(alone)
    assert [start for start, _, _ in found] == sorted(start for start, _, _ in found)


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
