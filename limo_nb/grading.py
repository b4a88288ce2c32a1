"""Verdicts: is the final answer of a response the reference? (chapter 8; paper, section 4)

math-verify decides equivalence. Ours is what stands around it: which span is the answer,
what is text and compared as text, numbers compared exactly, and isolation. Model text
reaches a parser only in worker processes with a hard time and memory limit, and never
`eval` or sympy's `parse_expr`: of math-verify only the LaTeX extraction is used.

Nothing here imports torch, so that a worker starts in a fraction of a second.
"""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import subprocess
import sys
import tempfile
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from pebble import ProcessExpired, ProcessPool

from limo_nb.progress import progress

CHUNK = 8  # comparisons a worker is handed at once
MEMORY = 2 << 30  # bytes of address space of a worker
PATIENCE = 60  # the limit on the clock, as a multiple of that on processor time
LONGEST = 2000  # characters of an answer that is handed to math-verify
PROGRESS_FROM = 500  # comparisons from which a progress bar is shown


Pair = tuple[str, str]  # a cleaned reference and a cleaned answer
Finding = tuple[bool | None, str]  # a verdict and its reason


@dataclass(frozen=True)
class Verdict:
    """True, False, or None where it could not be decided; with the answer that was read."""

    correct: bool | None
    answer: str | None  # cleaned; None where the response has no answer
    reason: str


# ---------------------------------------------------------------- which span is the answer
BRACES = re.compile(r"(?P<box>\\?(?:boxed|fbox)\s*\{)|\\[\\{}]|(?P<open>\{)|(?P<close>\})")
BLANK = r"(?:[\s$]|\\q?quad\b|\\[,;: ])*"
JOINED = re.compile(
    rf"{BLANK}(?:[,;]|\\?&|,?{BLANK}(?:\\text\{{)?\s*(?:and|or|和|或)\s*\}}?){BLANK}"
)
LINE_MARK = re.compile(r"^(?:####|A:)[ \t]*(?=\S)", re.MULTILINE)
PHRASE = re.compile(
    r"(?:\banswer\**(?:\s*(?:is|:|=)\s*)+|答案(?:是|为|：|:)\s*)\**(?=\S)", re.IGNORECASE
)
MATHS = re.compile(
    r"\$\$(?P<a>[^$]+)\$\$|\\\[(?P<b>.+?)\\\]|(?<![\\$])\$(?P<c>[^$\n]+)\$|\\\((?P<d>.+?)\\\)",
    re.DOTALL,
)
SENTENCE_END = re.compile(r"(?<![A-Z]\b)[.。](?:\s|\**$)|\s+I hope\b|<\|")
TAIL = 4000  # characters at the end of a response in which an unboxed answer is sought


def final_answer(response: str) -> str | None:
    """The span of `response` that states its answer, None where there is none.

    It is read after the last `</think>`; a response that never closes its `<think>` has
    no answer. The last complete box counts; then "#### 18" or "A: 18" lines; then "the
    answer is …"; then the last formula.
    """
    head, closed, tail = response.rpartition("</think>")
    if not closed and "<think>" in response:
        return None
    tail = tail.replace(r"\begin{boxed}", r"\boxed{").replace(r"\end{boxed}", "}")
    boxed = _boxed(tail)
    return (_said(tail[-TAIL:]) if boxed is None else boxed) or None


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
        return None
    parts = [boxes.pop()]
    while boxes and JOINED.fullmatch(text, boxes[-1][2] + 1, parts[0][0]):
        parts.insert(0, boxes.pop())
    contents = dict.fromkeys(text[start:end].strip() for _, start, end in parts)
    return ", ".join(contents)


def _said(text: str) -> str | None:
    """The answer that is announced in words, else the last formula."""
    found = [*LINE_MARK.finditer(text)] or [*PHRASE.finditer(text)]
    if found:
        said = text[found[-1].end() :].lstrip()
        formula = MATHS.match(said)
        if formula:
            return _content(formula)
        said = SENTENCE_END.split(said.partition("\n")[0])[0]
        said = said.rpartition(" is ")[2].strip(" *")  # "Final answer: the sum is 34"
        formula = MATHS.search(said)
        return (_content(formula) if formula else said) or None
    formulas = [*MATHS.finditer(text)]
    return _content(formulas[-1]) if formulas else None


def _content(formula: re.Match) -> str:
    return next(group for group in formula.groups() if group is not None).strip()


# ---------------------------------------------------------------- the canonical text
SYMBOLS = str.maketrans(
    {
        "∞": r"\infty ", "π": r"\pi ", "√": r"\sqrt ", "×": r"\times ", "·": r"\cdot ",
        "÷": "/", "−": "-", "–": "-", "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ",
        "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ", "±": r"\pm ", "°": r"^\circ ",
        "≈": r"\approx ", "²": "^2", "³": "^3", "⁴": "^4", "⅓": r" \frac{1}{3}",
        "½": r" \frac{1}{2}", "¼": r" \frac{1}{4}", "¾": r" \frac{3}{4}",
    }
)  # fmt: skip
INVISIBLE = re.compile("[\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff\u00ad]")
REWRITES: tuple[tuple[re.Pattern, str], ...] = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\\[()\[\]]|(?<!\\)\$", " "),
        (r"\\\$|\\(?:left|right|bigl?|bigr?|Bigl?|Bigr?|displaystyle)(?![a-zA-Z])", ""),
        (r"(\d)\{,\}(?=\d)|(\d),\\!\s*(?=\d)", r"\1\2,"),
        (r"\\!", ""),
        (r"(?<!\\)\\[,;: ]|\\q?quad(?![a-zA-Z])|~|&nbsp;", " "),
        (r"\\[dtc]frac(?![a-zA-Z])", r"\\frac"),
        (r"^\s*\{\s*\\colou?r\{[^{}]*\}(.*)\}\s*$", r"\1"),
        (r"\\(?:text)?colou?r\{[^{}]*\}", ""),
        (r"\\mathrm\{~?([a-z])\}", r" \1"),
        (r"\\%", "%"),
        (r"\\leq(?![a-zA-Z])", r"\\le"),
        (r"\\geq(?![a-zA-Z])", r"\\ge"),
        (r"\^\{\\circ\}|\\degree(?![a-zA-Z])", r"^\\circ"),
        (r"^\s*(?:\\approx(?![a-zA-Z])|=|:)\s*", ""),
        (r"\s+", " "),
    )
)
WRAPPER = re.compile(
    r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mathsf|mathit|mbox|bm|boldsymbol|boxed|fbox)"
    r"\s*(?=\{)"
)
PREAMBLE = re.compile(r"^(?:the )?(?:final )?answer(?: is|:)\s*", re.IGNORECASE)
STOPS = " .。;；,"
AROUND_SIGNS = re.compile(r"\s*([^\w\s\\])\s*")


def clean(text: str) -> str:
    """`text` in the form in which answers are compared.

    Unicode signs become LaTeX; delimiters, spacing, colours, wrappers around the whole
    and final full stops go; braces around the whole are a set if they hold a list.
    """
    text = unicodedata.normalize("NFKC", INVISIBLE.sub("", text).translate(SYMBOLS))
    for pattern, replacement in REWRITES:
        text = pattern.sub(replacement, text)
    text = PREAMBLE.sub("", _unwrap(text.strip().rstrip(STOPS)))
    return AROUND_SIGNS.sub(r"\1", text).strip().rstrip(STOPS)


def _unwrap(text: str) -> str:
    while True:
        wrapper = WRAPPER.match(text)
        start = wrapper.end() if wrapper else 0
        if not text[start:].startswith("{") or _closing(text, start) != len(text) - 1:
            return text
        inner = text[start + 1 : -1].strip().rstrip(STOPS)
        if not wrapper and re.search(r",|\\mid|\|", inner):
            return rf"\{{{inner}\}}"
        text = inner


def _closing(text: str, start: int) -> int:
    """The index of the brace that closes the one at `start`, -1 where there is none."""
    depth = 0
    for match in BRACES.finditer(text, start):
        depth += bool(match["box"] or match["open"]) - bool(match["close"])
        if depth == 0 and match["close"]:
            return match.start()
    return -1


# ---------------------------------------------------------------- what needs no worker
LETTER = re.compile(r"\(?([A-Z])\)?[.:]?")
OPTION = re.compile(
    r"(?:option|choice|answer|选项?)?\s*\(?(?P<letter>[A-Z])\)?(?:[.:、)}].*)?", re.IGNORECASE
)
OPTION_TEXT = re.compile(r"\(?(?P<letter>[A-H])\)?[.、:]\s*(?P<text>\S.*)")
CJK = re.compile("[\u3400-\u9fff]")
WORDS = re.compile(r"[A-Za-z][A-Za-z .,'-]*")
ASSIGNED = re.compile(r"(?:\\?[A-Za-z]+(?:_\{?\w+\}?)?|\([A-Za-z](?:,[A-Za-z])+\))(?:=|\\in )")


def settle(reference: str, answer: str) -> bool | None:
    """The verdict of rules that need no algebra, None where math-verify must decide.

    Both arguments are cleaned. The kind of the reference decides how it is compared.
    """
    if not answer:
        return False
    if answer == reference:
        return True
    for rule in (_as_choice, _as_text, _as_number, _as_list):
        verdict = rule(reference, answer)
        if verdict is not None:
            return verdict
    return None


def _as_choice(reference: str, answer: str) -> bool | None:
    """A reference such as "C": the one letter that the answer names."""
    wanted = LETTER.fullmatch(reference)
    if not wanted:
        return None
    text = re.sub(r"\\(?:text|mathrm|textbf|mathbf)\s*\{([^{}]*)\}", r"\1", answer)
    named = OPTION.fullmatch(text)
    return bool(named) and named["letter"] == wanted[1]


def _as_text(reference: str, answer: str) -> bool | None:
    """Words, and sequences such as "B A C D", as text in order; case does not count.

    math-verify would read them as products, which commute.
    """
    if not is_text(reference):
        return None
    return _folded(reference) == _folded(answer)


def is_text(reference: str) -> bool:
    """Chinese, words of three letters or more, or letters with spaces between them."""
    if CJK.search(reference):
        return True
    if not WORDS.fullmatch(reference):
        return False
    return bool(re.search(r"[A-Za-z]{3}|^[A-Z](?:[ ,]+[A-Z])+$", reference))


def _folded(text: str) -> str:
    text = re.sub(r"\\(?:text|mathrm|textbf|mbox)\s*\{([^{}]*)\}", r"\1", text)
    if CJK.search(text):
        return re.sub(r"\s", "", text)
    return " ".join(re.findall(r"[^\W_]+|[^\w\s,.]", text.casefold()))


NUMBER = re.compile(
    r"(?P<sign>[+-]?)(?:(?P<decimal>(?:\d{1,3}(?:[ ,]\d{3})+|\d+)?(?:\.\d*)?)"
    r"(?:e(?P<e>[+-]?\d{1,3})|\s*(?:\\times|\\cdot|\*)\s*10\^\{?(?P<power>[+-]?\d{1,3})\}?)?"
    r"|10\^\{?(?P<ten>[+-]?\d{1,3})\}?"
    r"|(?:(?P<whole>\d+)(?:\s+|\+|(?=\\)))?"
    r"(?:\\frac\s*(?:\{(?P<top>[+-]?\d+)\}\s*\{(?P<bottom>\d+)\}|(?P<t>\d)\s*(?P<b>\d))"
    r"|(?P<n>\d+)/(?P<m>\d+)))"
    r"(?P<after>%|\s*percent(?:age)?|\^\\circ)?",
    re.IGNORECASE,
)
UNIT = re.compile(
    r"\s*(?:\\(?:text|mathrm|mbox|textrm)\s*\{(?P<unit>[^{}\d]*)\}(?:\^\{?[23]\}?)?"
    r"|(?P<chinese>[\u3400-\u9fff]{1,4}))$"
)
HEDGE = re.compile(r"\b(?:or|and|not)\b|[,;]")


@dataclass(frozen=True)
class Number:
    """A number as it was written."""

    value: Fraction
    exact: bool  # no decimal point: 1/3, not 0.333
    percent: bool
    unit: str


def number(text: str) -> Number | None:
    """The number that `text` writes, None where it is none.

    Decimals, thousands, scientific notation, fractions, mixed numbers; a unit, degrees
    or a percent sign may follow. Exponents have at most three digits.
    """
    unit = UNIT.search(text)
    name = (unit["unit"] or unit["chinese"] or "").strip() if unit else ""
    if HEDGE.search(name):
        return None
    match = NUMBER.fullmatch(text[: unit.start()] if unit else text)
    value = _value(match) if match and re.search(r"\d", text) else None
    if value is None or len(text) > 400:
        return None
    value = -value if match["sign"] == "-" else value
    exact = "." not in text and not match["e"] and not match["power"]
    after = (match["after"] or "").strip().lower()
    percent = after.startswith(("%", "percent"))
    return Number(value, exact, percent, name)


def _value(match: re.Match) -> Fraction | None:
    if match["decimal"]:
        digits = re.sub("[ ,]", "", match["decimal"])
        if digits == ".":
            return None
        return Fraction(digits) * Fraction(10) ** int(match["e"] or match["power"] or 0)
    if match["ten"]:
        return Fraction(10) ** int(match["ten"])
    top, bottom = next(
        (
            (match[a], match[b])
            for a, b in (("top", "bottom"), ("t", "b"), ("n", "m"))
            if match[a]
        ),
        ("", ""),
    )
    if not top or int(bottom) == 0:
        return None
    return int(match["whole"] or 0) + Fraction(int(top), int(bottom))


def _as_number(reference: str, answer: str) -> bool | None:
    """Two numbers, compared exactly; "x = 5" counts as 5 where only one has the name."""
    reference, answer = _values(reference, answer)
    one, other = number(reference), number(answer)
    if one and not other:
        return False if is_text(answer) or _elements(answer) else None
    if not one or not other:
        return None
    same = one.value == other.value
    if one.percent != other.percent:  # both 10 and 0.1 are said for 10%
        share, plain = (one, other) if one.percent else (other, one)
        same = plain.value in (share.value, share.value / 100)
    if same:
        return True if one.unit == other.unit or not (one.unit and other.unit) else None
    rounded = one.exact != other.exact  # 1/3 against 0.333333 is math-verify's business
    return None if rounded or "," in reference + answer else False


def _values(reference: str, answer: str) -> tuple[str, str]:
    """Both without a leading "x=" that only one has, or that both have alike."""
    one, other = ASSIGNED.match(reference), ASSIGNED.match(answer)
    if one and other and one[0] != other[0]:
        return reference, answer
    return reference[one.end() if one else 0 :], answer[other.end() if other else 0 :]


def _as_list(reference: str, answer: str) -> bool | None:
    """Numbers in brackets keep their order, bare lists and sets do not."""
    reference, answer = _values(reference, answer)
    one, other = _elements(reference), _elements(answer)
    if one and not other:
        return False if number(answer) or is_text(answer) else None
    if not one or not other:
        return None
    (shape, wanted), (found_shape, found) = one, other
    listed = shape == "[]" and (len(wanted) > 2 or wanted[0] > wanted[1])  # no interval
    if shape in ("()", "[]", "(]", "[)") and not listed:
        if found_shape not in (shape, ""):
            return None
        return wanted == found
    return None if found_shape in ("(]", "[)") else sorted(wanted) == sorted(found)


def _elements(text: str) -> tuple[str, list[Fraction]] | None:
    """The brackets ("" for none, "{}" for a set) and numbers of a list of two or more."""
    shape, inner = "", text
    if text[:1] + text[-1:] in ("()", "[]", "(]", "[)"):
        shape, inner = text[0] + text[-1], text[1:-1]
    elif text.startswith(r"\{") and text.endswith(r"\}"):
        shape, inner = "{}", text[2:-2]
    parts = re.split(r",|;|\\text\{ ?(?:and|or) ?\}|\b(?:and|or)\b", inner)
    numbers = [number(part.strip()) for part in parts]
    if len(numbers) < 2 or not all(numbers):
        return None
    return shape, [n.value for n in numbers]


# ---------------------------------------------------------------- what math-verify decides
def _start_worker() -> None:
    """Limit this worker's memory."""
    logging.getLogger("math_verify").setLevel(logging.CRITICAL)
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    except (ImportError, ValueError, OSError):
        pass  # not everywhere; the time limit holds regardless


def _judge(pairs: list[Pair], seconds: float) -> list[Finding]:
    """math-verify's verdicts on cleaned (reference, answer) pairs; runs in a worker.

    The system ends the worker when one comparison takes more than `seconds` of processor
    time, also inside C code. Time on the clock would depend on what else is running.
    """
    found: list[Finding] = []
    for pair in pairs:
        signal.setitimer(signal.ITIMER_PROF, seconds)
        try:
            found.append(_equivalent(*pair))
        except MemoryError:
            found.append((None, "out of memory"))
    signal.setitimer(signal.ITIMER_PROF, 0)
    return found


def _equivalent(reference: str, answer: str) -> Finding:
    from math_verify import verify

    if _is_identity(reference):
        return _same_sides(reference.split("="), answer.split("=")), "side by side"
    wanted = _parse(reference)
    if not wanted:
        return None, "reference not understood"
    found = _parse(answer)
    if not found:
        return False, "answer not understood"
    # The pool's limit stands in for math-verify's alarm: it also ends C code.
    same = verify(wanted, found, timeout_seconds=None, allow_set_relation_comp=True)
    return same, "equivalent" if same else "not equivalent"


def _same_sides(sides: list[str], others: list[str]) -> bool:
    """Whether two identities say the same; sympy would take both for True."""
    if len(sides) != len(others):
        return False
    return any(
        all(_equivalent(*pair)[0] for pair in zip(sides, order, strict=True))
        for order in (others, others[::-1])
    )


def _is_identity(text: str) -> bool:
    """An equation without unknowns, such as 360 = 2^3 * 3^2 * 5."""
    return "=" in text and not re.search(r"[A-Za-z<>!]", re.sub(r"\\[a-z]+", "", text))


def _parse(text: str) -> list:
    """The sympy objects of one LaTeX formula, [] where it is not understood."""
    from math_verify import LatexExtractionConfig, parse

    boxed = rf"\boxed{{{text}}}"
    if _closing(boxed, 0) != len(boxed) - 1:  # unbalanced
        return []
    config = LatexExtractionConfig(boxed_match_priority=0)
    return parse(boxed, [config], fallback_mode="no_fallback", parsing_timeout=None)


def _compare(pairs: list[Pair], workers: int, seconds: float) -> list[Finding]:
    """math-verify's verdicts on `pairs`, in order; see `grade_many`.

    The workers are forked by a helper process of its own, which has neither this
    process's memory (torch, a kernel) nor its threads nor its main module, so that one
    that had to be killed is replaced in milliseconds, wherever this is called from.
    """
    found: dict[Pair, Finding] = {}
    shown = len(pairs) >= PROGRESS_FROM
    bar = progress(len(pairs), "answers", "grading") if shown else nullcontext()
    with bar, _helper({"pairs": pairs, "workers": workers, "seconds": seconds}) as lines:
        for line in lines:
            for pair, finding in json.loads(line):
                found[tuple(pair)] = tuple(finding)
                if shown:
                    bar.update()
    return [found[pair] for pair in pairs]


@contextmanager
def _helper(request: dict[str, Any]) -> Iterator[Iterable[str]]:
    """Start `serve` in a clean process; the lines that it answers to `request`.

    Raises RuntimeError with its last words if it fails. It and its workers are ended
    when the caller is interrupted.
    """
    # -P: a file of the current folder must not stand in for a module.
    command = [sys.executable, "-P", "-c", "from limo_nb.grading import serve; serve()"]
    here = str(Path(__file__).parent.parent)
    path = os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")]))
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True,
            encoding="utf-8", env={**os.environ, "PYTHONPATH": path}, start_new_session=True,
        )  # fmt: skip
        try:
            json.dump(request, process.stdin)
            process.stdin.close()
            yield process.stdout
            if process.wait():
                errors.seek(0)
                raise RuntimeError(f"the grading process failed:\n{errors.read()[-2000:]}")
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            process.stdout.close()


def serve() -> None:
    """The helper process: read a request from stdin, write findings as JSON lines."""
    import math_verify  # noqa: F401  (before the fork: workers have it at once)

    request = json.load(sys.stdin)
    pairs = [tuple(pair) for pair in request["pairs"]]
    chunks = [pairs[start : start + CHUNK] for start in range(0, len(pairs), CHUNK)]
    count = min(request["workers"], len(chunks))
    pool = ProcessPool(max_workers=count, initializer=_start_worker)
    failed = _run(pool, chunks, request["seconds"])
    # What shared a chunk with a comparison that hung is repeated one by one.
    singles = [[pair] for chunk, _ in failed for pair in chunk]
    for chunk, reason in _run(pool, singles, request["seconds"]):
        _answer(chunk, [(None, reason)])
    pool.stop()
    pool.join()


def _answer(chunk: list[Pair], findings: list[Finding]) -> None:
    print(json.dumps(list(zip(chunk, findings, strict=True))), flush=True)


def _run(
    pool: ProcessPool, chunks: list[list[Pair]], seconds: float
) -> list[tuple[list[Pair], str]]:
    """Judge `chunks` and answer; the chunks that were not finished, with the reason."""
    patience = PATIENCE * seconds  # on the clock, for a worker that waits and does not work
    futures = [pool.schedule(_judge, (chunk, seconds), timeout=patience) for chunk in chunks]
    failed = []
    for future, chunk in zip(futures, chunks, strict=True):
        try:
            _answer(chunk, future.result())
        except TimeoutError:
            failed.append((chunk, "out of time"))
        except ProcessExpired as end:
            slow = end.exitcode == -signal.SIGPROF
            failed.append((chunk, "out of time" if slow else "worker died"))
    return failed


# ---------------------------------------------------------------- the interface
def grade(reference: str, response: str) -> Verdict:
    """The verdict on one response; see `grade_many`."""
    return grade_many([reference], [response], workers=1)[0]


def grade_many(
    references: Sequence[str],
    responses: Sequence[str],
    workers: int = 2,
    seconds: float = 5.0,
) -> list[Verdict]:
    """The verdicts on `responses`, in order; none takes more than `seconds` to compare.

    Most answers are settled by text and exact numbers in this process. The others go to
    `workers` processes; one that needs more than `seconds` of processor time is killed,
    and its verdict is None. Works from scripts, notebook cells and threads.
    """
    if len(references) != len(responses):
        raise ValueError(f"{len(references)} references for {len(responses)} responses")
    verdicts: list[Verdict | None] = []
    waiting: dict[int, Pair] = {}
    for index, (reference, response) in enumerate(zip(references, responses, strict=True)):
        verdict, pair = _first_look(reference, response)
        verdicts.append(verdict)
        if pair:
            waiting[index] = pair
    if waiting:
        pairs = list(dict.fromkeys(waiting.values()))  # each comparison is made once
        found = dict(zip(pairs, _compare(pairs, workers, seconds), strict=True))
        for index, pair in waiting.items():
            correct, reason = found[pair]
            verdicts[index] = Verdict(correct, pair[1], reason)
    return verdicts


def _first_look(reference: str, response: str) -> tuple[Verdict | None, Pair | None]:
    """A verdict, or the cleaned pair that math-verify must compare."""
    if not reference.strip():
        return Verdict(None, None, "no reference"), None
    span = final_answer(response)
    if span is None:
        return Verdict(False, None, "no answer"), None
    if len(span) > LONGEST and len(span) > 2 * len(reference):
        return Verdict(None, span[:LONGEST], f"answer of {len(span)} characters"), None
    answer, wanted = clean(span), _target(clean(reference), clean(span))
    settled = settle(wanted, answer)
    if settled is None:
        return None, (wanted, answer)
    return Verdict(settled, answer, "same" if settled else "different"), None


def _target(reference: str, answer: str) -> str:
    """Of a reference "C. text" the part that the answer is to be compared with."""
    option = OPTION_TEXT.fullmatch(reference)
    if not option:
        return reference
    named = OPTION.fullmatch(answer)
    return option["letter"] if named and named["letter"].isupper() else clean(option["text"])
