"""Texts as they are compared: what a normal form ignores and keeps, and what words are."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from limo_nb.problems import normalise, words

SAME = [
    ("Find  $x$\n", "find x"),
    (r"Is $\dfrac{1}{2}$ big?", r"is \(\frac{1}{2}\)  big?"),
    (r"$\tfrac12 + \frac 3 4$", r"$\frac{1}{2} + \frac{3}{4}$"),
    (r"$\left( a , b \right)$", "(a,b)"),
    (r"$\bigl( a \Bigr)$", "(a)"),
    (r"a\,b\!c \quad d", "a b c d"),
    (r"a \hspace{1em} b\\ c", r"a b\\c"),
    (r"costs \$5, 20\% of it", "costs $5, 20% of it"),
    ("Ｆｉｎｄ\u200b x", "find x"),
    ("$m_{}$", "m"),
]
DIFFERENT = [
    ("1 4/5", "14/5"),
    ("a b", "ab"),
    (r"\frac12", r"\leftarrow 12"),
    ("-1", "1"),
    (r"a \parallel b", "a allel b"),
    (r"\text{ if } x", "x"),
    (r"x \kern y", "x y"),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_what_normalise_ignores(one, other):
    assert normalise(one) == normalise(other)


@pytest.mark.parametrize(
    "space",
    r"""\quad \enskip \space \thinspace \medspace \thickspace \negthinspace \negmedspace
    \negthickspace \hfill \hfil \hss \vfill \vfil \vss \noindent \indent \par \newline
    \linebreak \nobreak \allowbreak \smallskip \medskip \bigskip \hspace{1em} \hspace*{1em}
    \vspace{-2pt} \vspace*{1ex} \mspace{3mu} \hskip1mm \vskip-1.5em \mskip.5mu \kern+3pt
    \mkern3mu \hskip1em\relax \text{} \mbox{} \, \; \: \! \> ~""".split()
    + [r"\hskip 1 mm", r"\kern - 3. pt", r"\text{ }", "\\text {\n}", "\\ ", r"\HSKIP 1MM"],
)
def test_a_space_in_latex_is_a_space(space):
    assert normalise(rf"2{space} x{space}+y") == "2 x+y"


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_what_normalise_keeps(one, other):
    assert normalise(one) != normalise(other)


ALPHABET = "ab C12$~_{}()+=,.\\\n frac\u200b已"


@given(st.text(ALPHABET, max_size=30))
@settings(max_examples=300, deadline=None)
def test_spaces_and_case_never_count(text):
    normal = normalise(text)
    assert normalise(f" {text}\n ") == normal
    assert normalise(text.replace(" ", " \n ")) == normal
    assert words(text.upper()) == words(text)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("已知 x=2，求y", ["已", "知", "x", "2", "求", "y"]),
        ("2x and 2 x", ["2", "x", "and", "2", "x"]),
        (r"$\dfrac{1}{2}$", ["1", "2"]),
        (r"$\sin\alpha\beta \\ y$", ["sin", "α", "β", "y"]),
        (r"\begin{array}{c|c} a & b \end{array}", ["a", "b"]),
        ("?!", []),
    ],
)
def test_words(text, found):
    assert words(text) == found
