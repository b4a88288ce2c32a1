"""Which span of a response is its answer, and the form in which answers are compared.

Text only: nothing here parses or evaluates. Chapter 8; paper, section 4.
"""

from __future__ import annotations

import re
import unicodedata

# ---------------------------------------------------------------- which span is the answer
BRACES = re.compile(r"(?P<box>\\?(?:boxed|fbox)\s*\{)|\\[\\{}]|(?P<open>\{)|(?P<close>\})")
BARE_BOX = re.compile(r"\\(?:boxed|fbox)\s+([^\s{}$\\]+)")  # TeX allows \boxed 5
BLANKS = re.compile(r"(?:[\s$]|\\q?quad\b|\\[,;: ])+")
JOINED = re.compile(  # one blank stands for several
    r" ?(?:[,;、，；]|\\?&|,? ?(?:\\text ?\{)? ?(?:and|or|和|或) ?\}?) ?"
    r"(?:[A-Za-z](?:_\{?\w{1,3}\}?)? ?= ?)?"
)
BETWEEN = 40  # characters between two boxes of a list
TAGGED = re.compile(r"<answer>([^<]*)</answer>")
LINE_MARK = re.compile(r"^(?:####|A:)[ \t]*(?=\S)", re.MULTILINE)
PHRASE = re.compile(
    r"(?:\b(?:answer|(?:option|choice)(?=\**\s+is\b))\**(?:\s*(?:is|:|=)\s*)+"
    r"|(?:答案|选项)(?:应?选|是|为|：|:)\s*"
    r"|[故应]选[：:]?\s*(?=[（(]?[A-H]))\**(?=\S)",
    re.IGNORECASE,
)
# "(B) because A is wrong": of what follows "the answer is", the option.
CHOSEN = re.compile(
    r"\**(?:[（(]([A-J])[)）]|([A-J])(?=\**(?:[.．。,，;；]|$| because\b| since\b)))"
)
MATHS = re.compile(
    r"\$\$(?P<a>[^$]+)\$\$|\\\[(?P<b>.+?)\\\]|(?<![\\$])\$(?P<c>[^$\n]+)\$|\\\((?P<d>.+?)\\\)",
    re.DOTALL,
)
SENTENCE_END = re.compile(r"(?<![A-Z]\b)[.。](?:\s|\**$)|\s+I hope\b|<\|")
QUANTITY = r"[$€£¥]?[+-]?(?:\d[\d,]*(?:\.\d+)?|\.\d+)(?:/\d+)?"
LAST_WORDS = re.compile(
    rf"(?:\b(?:is|are|by|equals?)|['’]s|=)\s+(?P<said>{QUANTITY}\s?(?:%|[^\s\d.,;]{{0,6}}))$"
)
CONCLUSION = re.compile(
    r"^(?:(?:therefore|thus|hence|so)\b|因此|所以|故|综上|总之)", re.IGNORECASE
)
LONE_LETTER = re.compile(r"\**\(?([A-J])\)?\.?\**")
TAIL = 4000  # characters at the end of a response in which an unboxed answer is sought


def final_answer(response: str, boxed_only: bool = False) -> str | None:
    r"""The span of `response` that states its answer, None where there is none.

    It is read after the last `</think>`; a response that never closes its `<think>` has
    no answer. The last complete box counts, and neighbouring boxes that form a list. Only
    where there is no box, and unless `boxed_only`, a stated answer does: "#### 18" or
    "A: 18" lines, "the answer is …", the last formula, a closing sentence.
    """
    _, closed, tail = response.rpartition("</think>")
    if not closed and "<think>" in response:
        return None
    tail = tail.replace(r"\begin{boxed}", r"\boxed{").replace(r"\end{boxed}", "}")
    boxed = _boxed(tail)
    if boxed is None and not boxed_only:
        return _said(tail[-TAIL:]) or None
    return boxed or None


def _boxed(text: str) -> str | None:
    """The content of the last complete box, None without one.

    Boxes that a comma or "and" joins are a list.
    """
    stack, boxes = [], []
    for match in BRACES.finditer(text):  # one pass, whatever the nesting
        if match["box"] or match["open"]:
            stack.append(match if match["box"] else None)
        elif match["close"] and stack:
            opening = stack.pop()
            if opening:
                while boxes and boxes[-1][0] > opening.start():
                    boxes.pop()  # inside this one
                boxes.append((opening.start(), opening.end(), match.start()))
    if not boxes:
        bare = BARE_BOX.findall(text)
        return bare[-1].rstrip(".,;") if bare else None
    parts = [boxes.pop()]
    while boxes and _are_joined(text[boxes[-1][2] + 1 : parts[0][0]]):
        parts.insert(0, boxes.pop())
    contents = dict.fromkeys(text[start:end].strip() for _, start, end in parts)
    return ", ".join(contents)


def _are_joined(between: str) -> bool:
    """Whether what stands between two boxes makes them a list; blanks first become one."""
    between = BLANKS.sub(" ", between)
    return len(between) <= BETWEEN and bool(JOINED.fullmatch(between))


def _said(text: str) -> str | None:
    """The answer that is announced in words, else the last formula, else the last words."""
    tagged = TAGGED.findall(text)
    if tagged:
        return tagged[-1].strip()
    found = [*LINE_MARK.finditer(text)] or [*PHRASE.finditer(text)]
    if found:
        return _announced(text[found[-1].end() :].lstrip())
    closing = _closing_sentence(text)
    formulas = [*MATHS.finditer(text)]
    if CONCLUSION.match(closing) or not formulas:
        quantities = re.findall(rf"{QUANTITY}%?", closing)
        last, letter = LAST_WORDS.search(closing), LONE_LETTER.fullmatch(closing)
        if last or letter:
            return last["said"] if last else letter[1]
        if CONCLUSION.match(closing) and len(quantities) == 1 and "$" not in closing:
            return quantities[0]
    return _content(formulas[-1]) if formulas else None


def _announced(said: str) -> str | None:
    """What follows "the answer is": a formula, or the rest of the sentence."""
    formula = MATHS.match(said)
    if formula:
        return _content(formula)
    chosen = CHOSEN.match(said.partition("\n")[0])
    if chosen:
        return chosen[1] or chosen[2]
    said = SENTENCE_END.split(said.partition("\n")[0])[0]
    said = said.rpartition(" is ")[2].strip(" *")  # "Final answer: the sum is 34"
    formula = MATHS.search(said)
    if formula:
        return _content(formula)
    quantities = re.findall(rf"(?<!\S){QUANTITY}(?!\S)", said)
    prose = len(re.findall(r"[A-Za-z]{2,}", said)) >= 4 and "\\" not in said
    return quantities[0] if prose and len(quantities) == 1 else said or None


def _closing_sentence(text: str) -> str:
    lines = [line.strip() for line in re.split(r"\n|<\|", text) if line.strip(" *")]
    if not lines:
        return ""
    line = re.sub(r"\s+I hope\b.*", "", next((x for x in lines[::-1] if " " in x), lines[-1]))
    if LONE_LETTER.fullmatch(lines[-1]):
        return lines[-1]
    sentences = [s for s in re.split(r"(?<=[.。!])\s+|\$\$\s+|\\\]\s+", line) if s]
    return sentences[-1].rstrip(" .。!*") if sentences else ""


def _content(formula: re.Match) -> str:
    return next(group for group in formula.groups() if group is not None).strip()


# ---------------------------------------------------------------- the canonical text


def _halves(sign: str) -> str:
    """A sign such as ¾ as {3}{4}."""
    return "{{{}}}{{{}}}".format(*unicodedata.normalize("NFKC", sign).split("⁄"))


SYMBOLS = str.maketrans(
    {
        "∞": r"\infty ", "π": r"\pi ", "√": r"\sqrt ", "×": r"\times ", "·": r"\cdot ",
        "÷": "/", "⁄": "/", "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ",
        "⩽": r"\le ", "⩾": r"\ge ", "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ",
        "±": r"\pm ", "≈": r"\approx ", "∠": r"\angle ", "ℝ": r"\mathbb{R}",
        "∅": r"\emptyset ", "α": r"\alpha ", "β": r"\beta ", "θ": r"\theta ", "⋅": r"\cdot ",
        "、": ", ", "∶": ":", "℃": r"^\circ C",
    }
    | dict.fromkeys("−–‐‑—", "-")
    | dict.fromkeys("°º˚", r"^\circ ")
    | {sign: rf" \frac{_halves(sign)}" for sign in "¼½¾⅐⅑⅒⅓⅔⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞"}
)  # fmt: skip
RAISED = re.compile("[⁺⁻]?[⁰¹²³⁴-⁹]+|(?P<low>[₀-₉]+)")
INVISIBLE = re.compile("[\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff\u00ad]")
FUNCTIONS = "arcsin|arccos|arctan|sinh|cosh|tanh|sin|cos|tan|cot|sec|csc|ln|log|exp|sqrt|pi"
FONTS = "bf|rm|it|sf|tt|em|bfseries|itshape|tiny|small|normalsize|large|Large|LARGE|huge|Huge"
REPEATING = re.compile(r"(?<![\d.])(\d{0,9})\.(\d{0,9})\\(?:overline|bar|dot)\s*\{(\d{1,9})\}")
REWRITES: tuple[tuple[re.Pattern, str], ...] = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\\rm\s*(?=\{)", r"\\mathrm"),
        (r"\{\s*\\rm\s+([A-Za-z]{2,})\}", r"\\mathrm{\1}"),
        (rf"\\(?:{FONTS})(?![a-zA-Z])\s*", ""),
        (r"\s*\\(?:blacksquare|qed)(?![a-zA-Z])", ""),
        (r"^\s*\\text\s*\{\s*(\d[\d.,/]*)\s+([A-Za-z][A-Za-z ]*)\}\s*$", r"\1\\text{\2}"),
        (
            r"^\s*(?:\\text\s*\{\s*)?(?:the set of )?all real(?: number)?s\.?\s*\}?\s*$"
            r"|^\s*(?:全体|任意|一切)?实数集?\s*$",
            r"\\mathbb{R}",
        ),
        (r"\\varnothing(?![a-zA-Z])|^\s*\\\{\s*\\\}\s*$", r"\\emptyset "),
        (r"\+/-|(?:^|(?<=[=,(]))\s*\+-", r"\\pm "),
        (r"(?<=\d)\s*x\s*(?=10\^)", r"\\times "),
        (r"(?<=\d)又(?=\d|\\[dt]?frac)", " "),
        (r"\\[()\[\]](?!\d*(?:pt|em|ex|mm)\])|(?<!\\)\$", " "),
        (r"\\\\\[\d*(?:pt|em|ex|mm)\]", r"\\\\"),
        (
            r"\\\$|[€£¥]|\\(?:left|middle|right|bigl?|bigr?|Bigl?|Bigr?|displaystyle|mathstrut|limits)"
            r"(?![a-zA-Z])",
            "",
        ),
        (r"(\d)\s*\{\s*,\s*\}\s*(?=\d)|(\d),\\!\s*(?=\d)|(\d)\\,(?=\d{3}(?!\d))", r"\1\2\3,"),
        (r"\\!", ""),
        (r"(?<!\\)\\[,;: ]|\\q?quad(?![a-zA-Z])|~|&nbsp;", " "),
        (r"\\[dtc]frac(?![a-zA-Z])", r"\\frac"),
        (r"(?<![\\a-zA-Z])[dt]?frac(?=\s*\{)", r"\\frac"),
        (r"(?<![\w.\\])(?:np|math)\.(?=[a-z])", ""),
        (rf"(?<![\\a-zA-Z])({FUNCTIONS})(?=\s*[\d({{^_\\]|\s+[a-z](?![a-z])|$)", r"\\\1"),
        (r"\\operatorname\*?\{([a-z]+)\}", r"\\\1"),
        (r"^\s*\{\s*\\colou?r\{[^{}]*\}(.*)\}\s*$", r"\1"),
        (r"\\(?:text)?colou?r\{[^{}]*\}", ""),
        (r"\\mathrm\{~?\s*([a-z])\}", r" \1"),
        (r"\\(?:text|mathrm)\{\s*(?:%|percent(?:age)?|pct)\s*\}|\\%", "%"),
        (r"\\(?:text|mathrm)\{\s*(?:degrees?|°)\s*\}", r"^\\circ"),
        (r"\\leq(?:slant)?(?![a-zA-Z])|<=|=<", r"\\le "),
        (r"\\geq(?:slant)?(?![a-zA-Z])|>=", r"\\ge "),
        (r"\\neq(?![a-zA-Z])|!=|\\not\s*=", r"\\ne "),
        (r"\\backslash(?![a-zA-Z])", r"\\setminus "),
        (r"\\lt(?![a-zA-Z])", "<"),
        (r"\\gt(?![a-zA-Z])", ">"),
        (r"\*\*", "^"),
        (r"(?<=\d)\.(?![\d.])", ""),
        (r"(?<=\d)。(?=\d)", "."),
        (r"\^\{\s*\\circ\s*\}|\\degree(?![a-zA-Z])", r"^\\circ"),
        (r"\^\{?\\prime\}?", "'"),
        (r"^\s*(?:\\(?:approx|therefore|quad)(?![a-zA-Z])|=|:)\s*", ""),
        (r"^\s*\]([^\[\]]*,[^\[\]]*)\[\s*$", r"(\1)"),
        (r"^\s*\]([^\[\]]*,[^\[\]]*)\]\s*$", r"(\1]"),
        (r"^\s*\[([^\[\]]*,[^\[\]]*)\[\s*$", r"[\1)"),
        (r"\s+", " "),
    )
)
WRAPPER = re.compile(
    r"\\(?:text|textbf|textit|textrm|textnormal|textsf|texttt|mathrm|mathbf|mathsf|mathtt|mathit"
    r"|mbox|bm"
    r"|boldsymbol|boxed|fbox|underline|emph)\s*(?=\{)"
)
STYLED = re.compile(
    r"\\(?:text|mathrm|textbf|textit|textrm|textsf|texttt|mathbf|mathtt|mbox|textnormal)"
    r"\s*\{([^{}]*)\}"
)
MARKDOWN = re.compile(r"^(\*\*|__|`)(.+)\1$")
PREAMBLE = re.compile(
    r"^(?:\\text\s?\{)?(?:(?:the )?(?:final )?answer(?: is|:)\s*\}?"
    r"|(?:therefore|thus|hence|so),?(?= ))\s*",
    re.IGNORECASE,
)
STOPS = " .。;；,"
AROUND_SIGNS = re.compile(r"\s*([^\w\s\\])\s*")


def clean(text: str) -> str:
    """`text` in the form in which answers are compared.

    Unicode signs become LaTeX; delimiters, spacing, colours, wrappers around the whole
    and final full stops go; braces around {x | x < 1} are a set's.
    """
    text = RAISED.sub(_lowered, INVISIBLE.sub("", text)).translate(SYMBOLS)
    text = REPEATING.sub(_repeating, unicodedata.normalize("NFKC", text))
    text = MARKDOWN.sub(r"\2", text.strip())
    for pattern, replacement in REWRITES:
        text = pattern.sub(replacement, text)
    text = PREAMBLE.sub("", unwrap(text.strip().rstrip(STOPS)))
    return AROUND_SIGNS.sub(r"\1", text).strip().rstrip(STOPS)


def _lowered(match: re.Match) -> str:
    """Unicode's raised or lowered digits as TeX writes them."""
    digits = unicodedata.normalize("NFKC", match[0]).replace("−", "-")
    sign = "_" if match["low"] else "^"
    return sign + (digits if len(digits) == 1 else f"{{{digits}}}")


def _repeating(match: re.Match) -> str:
    """The fraction that a repeating decimal is: 0.1\\overline{6} is 15/90."""
    start, period = match[1] + match[2], match[3]
    bottom = (10 ** len(period) - 1) * 10 ** len(match[2])
    return f"\\frac{{{int(start + period) - int(start or 0)}}}{{{bottom}}}"


def unwrap(text: str) -> str:
    """`text` without styles and braces around the whole; a set {x | x < 1} and a Python
    mapping {'x': 1} keep them."""
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
