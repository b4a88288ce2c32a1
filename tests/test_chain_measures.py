"""What chains contain: roles of sentences, steps, repetition, scripts, ends, first answers."""

import pytest
from test_chain_scoring import BARE, LAB

from limo_nb.chains import measures, scoring
from limo_nb.chains.measures import measure_chain, role


# ---------------------------------------------------------------- sentences
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
    found = measure_chain(LAB)
    assert (found.steps, found.checks, found.backtracks) == (3, 2, 2)
    assert not found.truncated and found.mixing == 0 and found.after_answer is None
    assert measure_chain(BARE).steps == 3 and measure_chain(BARE).checks == 0


def test_steps_of_a_chain_without_labels_are_its_equations():
    text = (
        "We have x = 3. Then x + 1 = 4, so y = 4. Case 1) is void. It follows: z = 5.\nw = 6."
    )
    assert measure_chain(text).steps == 4


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
    assert measure_chain(LAB, finished=False).truncated
    assert not measure_chain("and so", finished=True).truncated


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
    share = measure_chain(text.replace(" and", ".\nand"), place).after_answer
    assert share == pytest.approx(6 / scoring.count_words(text))


def test_sentences_split_chinese_and_keep_list_labels():
    assert measures.sentences("2. 先算。再检查。\n3.5 is kept. Done") == [
        "2. 先算。", "再检查。", "3.5 is kept.", "Done",
    ]  # fmt: skip


# ---------------------------------------------------------------- many at once
def test_chains_read_in_parts_are_as_those_read_one_by_one(monkeypatch):
    texts = [f"1) 2+{n}={n + 2}. Check: right.\nThe answer is {n + 2}. Done." for n in range(7)]
    asked = (texts, ["2"] * 7, [None, True, False] * 2 + [None])
    whole = measures.assess(*asked)
    monkeypatch.setattr(measures, "IN_PARTS_FROM", 5)
    monkeypatch.setattr(measures, "PART", 3)
    assert measures.assess(*asked) == whole
    assert [own.measures.after_answer for own in whole[0]] == [1 / 11, *[None] * 6]


def test_a_phrase_over_the_end_of_a_line_is_in_neither_sentence():
    reading = scoring.Reading("So let me\ntry 2+2=4. Let me try again.")
    places = [(m.start(), m.end()) for m in measures.SENTENCE.finditer(reading.text)]
    words = measures._within(reading.occurrences, places)
    assert [[name for _, _, name in own] for own in words] == [
        ["granularity"], [], ["exploration"]
    ]  # fmt: skip
