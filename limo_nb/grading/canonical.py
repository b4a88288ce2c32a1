r"""The form in which answers are compared: one spelling for what LaTeX and Unicode write.

Text only: nothing here parses or evaluates. Every rewrite carries the example that tests
it; their order matters where one makes what the next one reads. Chapter 8.
"""

from __future__ import annotations

import re
import unicodedata

from limo_nb.grading.rewriting import Rewrite, rewritten

# ---------------------------------------------------------------- signs of Unicode


def _halves(sign: str) -> str:
    """A sign such as ¾ as {3}{4}."""
    return "{{{}}}{{{}}}".format(*unicodedata.normalize("NFKC", sign).split("⁄"))


SYMBOLS = str.maketrans(
    {
        "∞": r"\infty ", "π": r"\pi ", "√": r"\sqrt ", "×": r"\times ", "·": r"\cdot ",
        "÷": "/", "⁄": "/", "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "≡": r"\equiv ",
        "⩽": r"\le ", "⩾": r"\ge ", "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ",
        "±": r"\pm ", "∓": r"\mp ", "≈": r"\approx ", "∠": r"\angle ", "△": r"\triangle ",
        "∅": r"\emptyset ", "⋅": r"\cdot ", "∙": r"\cdot ", "、": ", ", "∶": ":",
        "℃": r"^\circ C", "℉": r"^\circ F", "Ω": r"\Omega ", "\u2126": r"\Omega ", "µ": r"\mu ",
        "⌊": r"\lfloor ", "⌋": r"\rfloor ", "⌈": r"\lceil ", "⌉": r"\rceil ", "⊥": r"\perp ",
        "ⁿ": "^{n}", "ⁱ": "^{i}", "ₙ": "_{n}", "ᵢ": "_{i}", "ₖ": "_{k}",
        "′": "'", "″": "''", "’": "'", "∣": r"\mid ", "∖": r"\setminus ", "∘": r"\circ ",
        "→": r"\to ", "∫": r"\int ", "∑": r"\sum ", "∏": r"\prod ", "⊙": r"\odot ",
    }
    | dict(zip("αβγδεζηθκλμνξρστφχψωΓΔΘΛΞΠΣΦΨ", (rf"\{name} " for name in (
        "alpha beta gamma delta epsilon zeta eta theta kappa lambda mu nu xi rho sigma tau phi"
        " chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi").split()), strict=True))
    | {sign: rf"\mathbb{{{letter}}}" for sign, letter in zip("ℝℕℤℚℂ", "RNZQC", strict=True)}
    | dict.fromkeys("−–‐‑—﹣", "-")
    | dict.fromkeys("°º˚", r"^\circ ")
    | {sign: rf" \frac{_halves(sign)}" for sign in "¼½¾⅐⅑⅒⅓⅔⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞"}
    | {chr(ord("①") + n): f"({n + 1})" for n in range(20)}
)  # fmt: skip
RADICAL = re.compile(r"√\s*(\d+(?:\.\d+)?|[A-Za-zπ])")
RAISED = re.compile("[⁺⁻]?[⁰¹²³⁴-⁹]+|(?P<low>[₀-₉]+)")
INVISIBLE = re.compile("[\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff\u00ad]")
REPEATING = re.compile(
    r"(?<![\d.])(\d{0,9})\.(\d{0,9})\\(?:overline|bar|dot)\s*(?:\{(\d{1,9})\}|(\d))"
)
RECURRING = re.compile(r"(?<![\d.])(\d{0,9})\.(\d{0,4}?)(\d{1,3})\3{2,}(?:\.{3}|…|\\[cl]?dots)")
FUNCTIONS = "arcsin|arccos|arctan|sinh|cosh|tanh|sin|cos|tan|cot|sec|csc|ln|log|exp|sqrt|pi"
FONTS = "bf|rm|it|sf|tt|em|bfseries|itshape|tiny|small|normalsize|large|Large|LARGE|huge|Huge"

# ---------------------------------------------------------------- control characters
# What "\b", "\f", "\t" and the like leave of \boxed, \frac, \text in a string of code.
LOST = {"\a": "a", "\b": "b", "\f": "f", "\v": "v", "\t": "t", "\r": "r"}
AFTER_T = "imes|ext|heta|an|au|frac|riangle|o(?![a-z])|op(?![a-z])"
AFTER_R = "ight|ho|angle|ceil|floor|m(?![a-z])"
ESCAPED = re.compile(rf"[\a\b\f\v](?=[A-Za-z])|\t(?={AFTER_T})|\r(?={AFTER_R})")


def unescaped(text: str) -> str:
    r"""`text` with the commands whose backslash became a control character: \f of \frac."""
    return ESCAPED.sub(lambda match: "\\" + LOST[match[0]], text)


# ---------------------------------------------------------------- rewrites
GROUP3 = r"(?=\d{3}(?!\d))"
HALVES = {
    "nonnegative": r"[0,\infty)", "positive": r"(0,\infty)",
    "nonpositive": r"(-\infty,0]", "negative": r"(-\infty,0)",
}  # fmt: skip
REWRITES: tuple[Rewrite, ...] = (
    Rewrite("roman with a group", r"\\rm\s*(?=\{)", r"\\mathrm", r"\rm{m}", r"\mathrm{m}"),
    Rewrite(
        "roman in a group",
        r"\{\s*\\rm\s+([A-Za-z]{2,})\}",
        r"\\mathrm{\1}",
        r"{\rm cm}",
        r"\mathrm{cm}",
    ),
    Rewrite("fonts", rf"\\(?:{FONTS})(?![a-zA-Z])\s*", "", r"\bf 12", "12"),
    Rewrite(
        "end of proof",
        r"(?:\\?\s)*\\(?:blacksquare|qed|checkmark)(?![a-zA-Z])",
        "",
        r"12 \checkmark",
        "12",
    ),
    Rewrite(
        "number and word in one box",
        r"^\s*\\text\s*\{\s*(\d[\d.,/]*)\s+([A-Za-z][A-Za-z ]*)\}\s*$",
        r"\1\\text{\2}",
        r"\text{12 cats}",
        r"12\text{cats}",
    ),
    Rewrite(
        "reals in words",
        r"^\s*(?:\\text\s*\{\s*)?(?:the set of )?all (?:the )?real(?: number)?s\.?\s*\}?\s*$"
        r"|^\s*(?:全体|任意|一切)?实数集?\s*$",
        r"\\mathbb{R}",
        "all real numbers",
        r"\mathbb{R}",
    ),
    Rewrite(
        "half lines in words",
        r"^\s*(?:\\text\s*\{\s*)?(?:the set of )?all (?P<kind>non-?negative|positive|"
        r"non-?positive|negative) real(?: number)?s\.?\s*\}?\s*$",
        lambda m: HALVES[m["kind"].replace("-", "")],
        "all positive reals",
        r"(0,\infty)",
    ),
    Rewrite(
        "empty set",
        r"\\varnothing(?![a-zA-Z])|^\s*\\\{\s*\\\}\s*$",
        r"\\emptyset ",
        r"\varnothing",
        r"\emptyset ",
    ),
    Rewrite("plus or minus", r"\+/-|(?:^|(?<=[=,(]))\s*\+-", r"\\pm ", "+/-3", r"\pm 3"),
    Rewrite("x for times", r"(?<=\d)\s*x\s*(?=10\^)", r"\\times ", "2 x 10^5", r"2\times 10^5"),
    Rewrite("mixed number in Chinese", r"(?<=\d)又(?=\d|\\[dt]?frac)", " ", "2又1/3", "2 1/3"),
    Rewrite("delimiters", r"\\[()\[\]](?!\d*(?:pt|em|ex|mm)\])|(?<!\\)\$", " ", "$x$", " x "),
    Rewrite(
        "line feeds with space", r"\\\\\[\d*(?:pt|em|ex|mm)\]", r"\\\\", r"1\\[4pt]2", r"1\\2"
    ),
    Rewrite(
        "currency and size",
        r"\\\$|[€£¥]|\\(?:left|middle|right|bigl?|bigr?|Bigl?|Bigr?|biggl?|biggr?"
        r"|displaystyle|mathstrut|limits)(?![a-zA-Z])",
        "",
        r"\left(1\right)",
        "(1)",
    ),
    Rewrite(
        "explicit thousands",
        rf"(?<=\d)\s*(?:\{{\s*,\s*\}}|,\\!|\\,)\s*{GROUP3}",
        "",
        r"10{,}000",
        "10000",
    ),
    Rewrite("other thousands", rf"(?<=\d)['_]{GROUP3}", "", "1'000", "1000"),
    Rewrite("decimal comma in braces", r"(?<=\d)\{,\}(?=\d)", ".", "3{,}5", "3.5"),
    Rewrite("negative space", r"\\!", "", r"3\!:\!30", "3:30"),
    Rewrite("spaces", r"(?<!\\)\\[,;: ]|\\q?quad(?![a-zA-Z])|~|&nbsp;", " ", r"1\, x", "1  x"),
    Rewrite(
        "one fraction",
        r"\\(?:[dtc]|nice|s)frac(?![a-zA-Z])",
        r"\\frac",
        r"\dfrac12",
        r"\frac12",
    ),
    Rewrite(
        "fraction without backslash",
        r"(?<![\\a-zA-Z])[dt]?frac(?=\s*\{)",
        r"\\frac",
        "frac{1}{2}",
        r"\frac{1}{2}",
    ),
    Rewrite(
        "names of modules", r"(?<![\w.\\])(?:np|math)\.(?=[a-z])", "", "np.sin(1)", "sin(1)"
    ),
    Rewrite(
        "functions without backslash",
        rf"(?<![\\a-zA-Z])({FUNCTIONS})(?=\s*[\d({{^_\\]|\s+[a-z](?![a-z])|$)",
        r"\\\1",
        "sin(x)",
        r"\sin(x)",
    ),
    Rewrite(
        "operators by name",
        r"\\operatorname\*?\{([a-z]+)\}",
        r"\\\1",
        r"\operatorname{lcm}",
        r"\lcm",
    ),
    Rewrite(
        "color of the whole",
        r"^\s*\{\s*\\colou?r\{[^{}]*\}(.*)\}\s*$",
        r"\1",
        r"{\color{red}1}",
        "1",
    ),
    Rewrite("color", r"\\(?:text)?colou?r\{[^{}]*\}", "", r"\textcolor{red}{1}", "{1}"),
    Rewrite("upright constants", r"\\mathrm\{~?\s*([ide])\}", r" \1", r"1-\mathrm{i}", "1- i"),
    Rewrite(
        "quantity macros",
        r"\\(?:SI|qty)\s*\{([^{}]*)\}\s*\{\\?([^{}]*)\}",
        r"\1\\text{ \2}",
        r"\SI{15}{\meter}",
        r"15\text{ meter}",
    ),
    Rewrite(
        "percent",
        r"\\(?:text|mathrm)\{\s*(?:%|\\%|percent(?:age)?|pct)\s*\}|\\%",
        "%",
        r"5\text{ percent}",
        "5%",
    ),
    Rewrite(
        "degrees in words",
        r"\\(?:text|mathrm)\{\s*(?:degrees?|°)\s*\}",
        r"^\\circ",
        r"90\text{ degrees}",
        r"90^\circ",
    ),
    Rewrite(
        "colon",
        r"\\colon(?![a-z])|\\text\s*\{\s*:\s*\}|\\mathrel\{:\}",
        ":",
        r"3\text{:}2",
        "3:2",
    ),
    Rewrite("at most", r"\\leq(?:slant|q)?(?![a-zA-Z])|<=|=<", r"\\le ", "x<=3", r"x\le 3"),
    Rewrite(
        "at least", r"\\geq(?:slant|q)?(?![a-zA-Z])|>=", r"\\ge ", r"x\geqslant 3", r"x\ge  3"
    ),
    Rewrite("unequal", r"\\neq(?![a-zA-Z])|!=|\\not\s*=", r"\\ne ", "x!=3", r"x\ne 3"),
    Rewrite(
        "without",
        r"\\backslash(?![a-zA-Z])",
        r"\\setminus ",
        r"R\backslash A",
        r"R\setminus  A",
    ),
    Rewrite("less", r"\\lt(?![a-zA-Z])", "<", r"x\lt 3", "x< 3"),
    Rewrite("greater", r"\\gt(?![a-zA-Z])", ">", r"x\gt 3", "x> 3"),
    Rewrite(
        "overright arrows",
        r"\\overrightarrow\s*(?=\{)",
        r"\\vec",
        r"\overrightarrow{AB}",
        r"\vec{AB}",
    ),
    Rewrite(
        "modulo",
        r"\\pmod\s*(?:\{([^{}]*)\}|(\d+|[a-z]))|\(?\\(?:b?mod|(?:mathrm|text|operatorname)\s*"
        r"\{\s*mod\s*\})\s*(?:\{([^{}]*)\}|(\d+|[a-z]))\)?",
        lambda m: rf"\mod{{{next(filter(None, m.groups()), '').strip()}}}",
        r"1\pmod 4",
        r"1\mod{4}",
    ),
    Rewrite("power of a program", r"\*\*", "^", "x**2", "x^2"),
    Rewrite("point behind a whole number", r"(?<=\d)\.(?![\d.])", "", "42.", "42"),
    Rewrite("Chinese decimal point", r"(?<=\d)。(?=\d)", ".", "0。5", "0.5"),
    Rewrite(
        "degrees",
        r"\^\{\s*\\circ\s*\}|\\degree(?![a-zA-Z])",
        r"^\\circ",
        r"90^{\circ}",
        r"90^\circ",
    ),
    Rewrite("primes", r"\^\{?\\prime\}?|\^\{?'\}?", "'", r"y^{\prime}", "y'"),
    Rewrite(
        "signs before the answer",
        r"^\s*(?:\\(?:approx|therefore|quad|implies|Rightarrow)(?![a-zA-Z])|=|:)\s*",
        "",
        "= 42",
        "42",
    ),
    Rewrite(
        "French open intervals", r"^\s*\]([^\[\]]*,[^\[\]]*)\[\s*$", r"(\1)", "]0,1[", "(0,1)"
    ),
    Rewrite(
        "French intervals open at the left",
        r"^\s*\]([^\[\]]*,[^\[\]]*)\]\s*$",
        r"(\1]",
        "]0,1]",
        "(0,1]",
    ),
    Rewrite(
        "French intervals open at the right",
        r"^\s*\[([^\[\]]*,[^\[\]]*)\[\s*$",
        r"[\1)",
        "[0,1[",
        "[0,1)",
    ),
    Rewrite("one space", r"\s+", " ", "1   x", "1 x"),
)
WRAPPER = re.compile(
    r"\\(?:text|textbf|textit|textrm|textnormal|textsf|texttt|mathrm|mathbf|mathsf|mathtt|mathit"
    r"|mbox|bm"
    r"|boldsymbol|boxed|fbox|framebox|underline|emph)\s*(?=\{)"
)
STYLED = re.compile(
    r"\\(?:text|mathrm|textbf|textit|textrm|textsf|texttt|mathbf|mathtt|mbox|textnormal)"
    r"\s*\{([^{}]*)\}"
)
MARKDOWN = re.compile(r"^(\*\*|__|`)(.+)\1$")
PREAMBLE = re.compile(
    r"^(?:\\text(?:bf|it)?\s?\{)?(?:(?:the )?(?:final )?answer(?: is|:)\s*\}?"
    r"|(?:therefore|thus|hence|so),?(?= ))\s*",
    re.IGNORECASE,
)
STOPS = " .。;；,"
AROUND_SIGNS = re.compile(r"\s*([^\w\s\\\x00])\s*")
LISTED = re.compile(r"(?<=\d),\s+(?=\d{3}(?!\d))")
BRACES = re.compile(
    r"(?P<box>\\?(?:boxed|fbox|framebox)\s*\{)|\\[\\{}]|(?P<open>\{)|(?P<close>\})"
)


PLAIN = re.compile(r"-?[1-9][0-9]{0,14}(?:\.[0-9]{1,14})?|0")


def clean(text: str) -> str:
    """`text` in the form in which answers are compared.

    Unicode signs become LaTeX; delimiters, spacing, colours, wrappers around the whole
    and final full stops go; braces around {x | x < 1} are a set's. A blank behind a comma
    stays where it tells a list from thousands.
    """
    if PLAIN.fullmatch(text):  # most answers: none of what follows would change them
        return text
    text = RADICAL.sub(r"\\sqrt{\1}", unescaped(text))
    text = RAISED.sub(_lowered, INVISIBLE.sub("", text)).translate(SYMBOLS)
    text = REPEATING.sub(_repeating, RECURRING.sub(_repeating, text))
    text = MARKDOWN.sub(r"\2", unicodedata.normalize("NFKC", text).strip())
    text = rewritten(text, REWRITES)
    text = PREAMBLE.sub("", unwrap(text.strip().rstrip(STOPS)))
    text = AROUND_SIGNS.sub(r"\1", LISTED.sub(",\x00", thousands(text)))
    return text.replace(",\x00", ", ").strip().rstrip(STOPS)


RUN = re.compile(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?!\d|,\d)")
ITEM_BEFORE = re.compile(r"(?:^|[(\[,]|\\\{|^\{)\s*[+-]?$")
ITEM_AFTER = re.compile(r"\s*(?:$|[)\],]|\\?\})")


def thousands(text: str) -> str:
    """`text` without the commas that group digits, where their surroundings tell.

    In (1,234) they part a pair, and 1,234 alone stays as it is, since the other answer
    tells. In 1,000x or "1,000, 2,000" they group digits.
    """
    found = [(run, _is_item(text, run)) for run in RUN.finditer(text)]
    items = sum(item for _, item in found)
    listed = re.search(r",\s", text) is not None
    for run, item in found[::-1]:
        if not item or (listed and (items > 1 or run[0].endswith("000"))):
            text = text[: run.start()] + run[0].replace(",", "") + text[run.end() :]
    return text


def _is_item(text: str, run: re.Match) -> bool:
    """Whether a run of digits and commas stands alone, or alone between separators."""
    before, after = text[: run.start()], text[run.end() :]
    return bool(ITEM_BEFORE.search(before) and ITEM_AFTER.match(after))


def _lowered(match: re.Match) -> str:
    """Unicode's raised or lowered digits as TeX writes them."""
    digits = unicodedata.normalize("NFKC", match[0]).replace("−", "-")
    sign = "_" if match["low"] else "^"
    return sign + (digits if len(digits) == 1 else f"{{{digits}}}")


def _repeating(match: re.Match) -> str:
    r"""The fraction that a repeating decimal is: 0.1\overline{6} is 15/90."""
    start, period = match[1] + match[2], next(filter(None, match.groups()[2:]))
    bottom = (10 ** len(period) - 1) * 10 ** len(match[2])
    return f"\\frac{{{int(start + period) - int(start or 0)}}}{{{bottom}}}"


def unwrap(text: str) -> str:
    """`text` without styles and braces around the whole.

    A set {x | x < 1} and a Python mapping {'x': 1} keep them.
    """
    while True:
        wrapper = WRAPPER.match(text)
        start = wrapper.end() if wrapper else 0
        if not text[start:].startswith("{") or closing(text, start) != len(text) - 1:
            return text
        inner = text[start + 1 : -1].strip().rstrip(STOPS)
        if not wrapper and re.search(r"\\mid|\||^'", inner):  # TeX does not show others
            return rf"\{{{inner}\}}"
        text = inner


def closing(text: str, start: int) -> int:
    """The index of the brace that closes the one at `start`, -1 where there is none."""
    depth = 0
    for match in BRACES.finditer(text, start):
        depth += bool(match["box"] or match["open"]) - bool(match["close"])
        if depth == 0 and match["close"]:
            return match.start()
    return -1
