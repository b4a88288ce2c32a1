r"""Which span of a response is its answer: named rules, the surest first.

Text only: nothing here parses or evaluates. Every rule carries the example that tests it.
Chapter 8; paper, section 4.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass

from limo_nb.grading.canonical import BRACES, unescaped

TAIL = 4000  # characters at the end in which an answer that nothing announces is sought

# ---------------------------------------------------------------- what is shown
REASONING = "think|thinking|thoughts?|reason|reasoning|analysis|scratchpad|reflection|reflect"
MARK = re.compile(
    rf"<(?P<a>/?)\s*(?:\w+:)?(?:{REASONING})\s*>|<\|(?P<b>/?)(?:{REASONING})\|>"
    rf"|[◁⟨](?P<c>/?)(?:{REASONING})[▷⟩]|\[(?P<d>/?)(?-i:THINK)\]"
    r"|<\|(?:begin|(?P<e>end))_of_(?:thought|think|thinking|reasoning)\|>"
    r"|<\|channel\|>\s*(?:analysis|commentary|(?P<f>final))\b(?:<\|message\|>)?"
    r"|<\|channel>thought\b|(?P<g><channel\|>)"
    r"|<\|(?:START|(?P<h>END))_THINKING\|>",
    re.IGNORECASE,
)
# Between two channels: the end of a thought and the beginning of what is shown.
TURN_ENDS = re.compile(r"\s*<\|end\|>\s*<\|start\|>assistant\s*$")
ENDS = re.compile(r"(?:</s>|<\|[^|<>]{0,40}\|>|<(?:eos|end_of_turn|im_end)>)$")


def shown(response: str) -> str | None:
    """What a reader is shown: the text behind the reasoning, None where that never ends."""
    start, is_open = 0, False
    for mark in MARK.finditer(response):
        is_open = opens(mark)
        start = start if is_open else mark.end()
    return None if is_open else _ended(response[start:])


def opens(mark: re.Match) -> bool:
    """Whether this `MARK` begins a thought; the others end one."""
    return not any(mark.groupdict().values())


def closing_mark(mark: str) -> str:
    """The mark that ends the thought which `mark` begins: `</think>` for `<think>`."""
    if mark.startswith("<|channel>"):
        return "<channel|>"
    for begin, end in (("begin", "end"), ("START", "END")):
        if begin in mark:
            return mark.replace(begin, end)
    return re.sub(r"^(<\|?|[◁⟨\[])", r"\1/", mark)


def split_thought(response: str) -> tuple[str | None, str]:
    """(thought, what is shown) of a response whose thought comes first; (None, all) else.

    A thought may lack its beginning, which some templates write for the model. Raises
    ValueError where it does not end, or where marks of thoughts follow it.
    """
    marks = [*MARK.finditer(response)]
    if not marks or (opens(marks[0]) and response[: marks[0].start()].strip()):
        return None, response
    start = marks.pop(0).end() if opens(marks[0]) else 0
    if not marks:
        raise ValueError("its thought does not end")
    if marks[1:] or opens(marks[0]):
        raise ValueError("its thought ends more than once, or another begins in it")
    thought = TURN_ENDS.sub("", response[start : marks[0].start()])
    return thought, _ended(response[marks[0].end() :])


def _ended(text: str) -> str:
    """`text` without blanks and tokens that end a turn behind it."""
    text = text.rstrip()
    while ENDS.search(text[-60:]):
        text = text[:-60] + ENDS.sub("", text[-60:]).rstrip()
    return text


# ---------------------------------------------------------------- boxes
BARE_BOX = re.compile(  # TeX allows \boxed 5
    r"\\(?:boxed|fbox)\s+(?P<said>[+-]?\d[\d.,/]*|[A-Za-z](?![A-Za-z])|\\[a-z]+(?![a-z{]))"
)
UNFINISHED = re.compile(r"\\(?:boxed|fbox|framebox)\s*\{")
MENTION = re.compile(
    r"(?:\s+(?:in|into|inside|with|within|using))?(?:\s+(?:a|an|the))?\s*\\(?:boxed|fbox)"
    r"(?:\s*\{\s*\}|(?!\s*\{))(?:\s+(?:form|format|notation|environment|command)\b)?"
)
BLANKS = re.compile(r"(?:[\s$]|\\q?quad\b|\\[,;: ])+")
JOINED = re.compile(  # one blank stands for several
    r" ?(?:[,;、，；]|\\?&|,? ?(?:\\text ?\{)? ?(?:and|or|和|或) ?\}?) ?"
    r"(?:[A-Za-z](?:_\{?\w{1,3}\}?)? ?= ?)?"
)
ITEMS = re.compile(r"[\s$.]*\n\s*(?:[-*•]|\(?[a-z0-9]{1,2}[.)])[ \t]*\$*[ \t]*")
BETWEEN = 40  # characters between two boxes of a list


def in_boxes(text: str) -> str | None:
    """The content of the last complete box; boxes that a comma or "and" joins are a list."""
    boxes = [box for box in _boxes(text) if text[box[1] : box[2]].strip()]
    if not boxes:
        bare = [match["said"] for match in BARE_BOX.finditer(text)]
        return bare[-1].rstrip(".,;") if bare else None
    parts = [boxes.pop()]
    while boxes and _are_joined(text[boxes[-1][2] + 1 : parts[0][0]]):
        parts.insert(0, boxes.pop())
    contents = dict.fromkeys(text[start:end].strip() for _, start, end in parts)
    return ", ".join(contents)


def _boxes(text: str) -> list[tuple[int, int, int]]:
    """Where the outermost complete boxes begin, and where their content begins and ends."""
    stack: list[re.Match | None] = []
    boxes: list[tuple[int, int, int]] = []
    for match in BRACES.finditer(text):  # one pass, whatever the nesting
        if match["box"] or match["open"]:
            stack.append(match if match["box"] else None)
        elif match["close"] and stack:
            opening = stack.pop()
            if opening:
                while boxes and boxes[-1][0] > opening.start():
                    boxes.pop()  # inside this one
                boxes.append((opening.start(), opening.end(), match.start()))
    return boxes


def _are_joined(between: str) -> bool:
    """Whether what stands between two boxes makes them a list; blanks first become one."""
    if len(between) <= BETWEEN and ITEMS.fullmatch(between):
        return True
    between = BLANKS.sub(" ", between)
    return len(between) <= BETWEEN and bool(JOINED.fullmatch(between))


def behind_box(text: str) -> str | None:
    """An option or a formula that is called the (final) answer behind the last box."""
    boxes = _boxes(text)
    if not boxes:
        return None
    behind = text[boxes[-1][2] :]
    letters = [*LETTER_LINE.finditer(behind)]
    if letters:
        return letters[-1]["said"]
    stated = [*FINAL.finditer(behind)]
    formula = MATHS.match(behind, stated[-1].end()) if stated else None
    return _content(formula) if formula and r"\box" not in formula[0] else None


# ---------------------------------------------------------------- forms for programs
KEY = re.compile(
    r"[\"'](?:final[_ ]?answer|answer|ans|result|solution)[\"']\s*:\s*", re.IGNORECASE
)
TAGGED = re.compile(
    r"<(?P<tag>answer|final_?answer|solution|final|result)>(?P<said>.*?)(?:</(?P=tag)>|\Z)",
    re.IGNORECASE | re.DOTALL,
)
HTML = re.compile(r"</?(?:b|i|u|strong|em|p|span|code|br|div)\s*/?>", re.IGNORECASE)


def in_json(text: str) -> str | None:
    """The value of the last key that is called answer, result or solution."""
    found = [*KEY.finditer(text)]
    if not found or "{" not in text:
        return None
    try:
        value, _ = json.JSONDecoder().raw_decode(text, found[-1].end())
    except (ValueError, RecursionError):
        return None
    if isinstance(value, list):
        value = ", ".join(map(str, value))
    return None if value is None or isinstance(value, dict) else unescaped(str(value)).strip()


def in_tags(text: str) -> str | None:
    """The content of the last <answer>, which may say more than the answer."""
    found = [*TAGGED.finditer(text)]
    if not found:
        return None
    inner = HTML.sub("", found[-1]["said"]).strip()
    if "\n" in inner or PHRASE.search(inner):
        return said(inner) or inner
    return inner


# ---------------------------------------------------------------- announced answers
LINE_MARK = re.compile(r"^(?:####|A:)[ \t*]*(?=\S)", re.MULTILINE)
LINK = (
    r"(?:\s*(?:is|are|was|:|：|=|→|⇒|-(?!\d)|[–—]|must be|should be|will be|would be|equals?"
    r"|comes? out (?:to|as)|turns out to be|becomes)(?![a-z])\s*(?:therefore|thus|then)?\s*)+"
)
PHRASE = re.compile(
    rf"(?:\banswer\**{LINK}|\b(?:option|choice)\**(?=\s+is\b){LINK}"
    r"|(?:答案|选项)(?:应?选|是|为|：|:)\s*"
    r"|[故应]选[：:]?\s*(?=[（(]?[A-H]))[\s*_\"“`]*(?=\S)",
    re.IGNORECASE,
)
LETTER_LINE = re.compile(
    r"^[ \t*#>]*(?:final )?answer\**\s*[:：][ *]*\(?(?P<said>[A-J])\)?[.* ]*$",
    re.IGNORECASE | re.MULTILINE,
)
FINAL = re.compile(rf"\bfinal answer\**{LINK}", re.IGNORECASE)
HEADING = re.compile(
    r"^[ \t#>*_✅]*(?:\\(?:textbf|textit|section\*?|subsection\*?)\s*\{)?"
    r"(?:(?:the )?(?:final |correct )?answer|(?:最终)?答案)[ \t}*_:：.-]*\n[\s*_]*(?=\S)",
    re.IGNORECASE | re.MULTILINE,
)
BEFORE = re.compile(
    r"(?:^|(?<=[\s*(]))(?P<said>[^\s*()]{1,40})[*)]*\s+is\s+(?:the|my)\s+"
    r"(?:(?:correct|final|right|best)\s+)*(?:answer|option|choice)\b",
    re.IGNORECASE,
)
# "(B) because A is wrong": of what follows "the answer is", the option.
CHOSEN = re.compile(
    r"[\s*_\[]*(?:[（(]([A-J])[)）]|([A-J])"
    r"(?=[*\]]*(?:[.．。,，;；:：](?!\d)|\s*$|\s+(?:because|since|as|and not)\b)))"
)
MATHS = re.compile(
    r"\$\$(?P<a>[^$]+)\$\$|\\\[(?P<b>.+?)\\\]|(?<![\\$])\$(?P<c>[^$\n]+)\$|\\\((?P<d>.+?)\\\)",
    re.DOTALL,
)
SENTENCE_END = re.compile(r"(?<![A-Z]\b)[.。](?:\s|\**$)|\s+I hope\b|<\||</s>")
REMARK = re.compile(
    r"\s*\((?:[a-z]+ ?){1,4}\)$|,?\s+(?:and |but )?not\b.*$|,\s+(?:which|where|as|because)\b.*$"
)
QUANTITY = r"[$€£¥]?[+-]?(?:\d(?:[\d,]*\d)?(?:\.\d+)?|\.\d+)(?:/\d+)?"


def on_line(text: str) -> str | None:
    """What follows #### or A: at the start of a line."""
    found = [*LINE_MARK.finditer(text)]
    return announced(text[found[-1].end() :].lstrip()) if found else None


def in_phrase(text: str) -> str | None:
    """What follows "the answer is", or a heading that says so; the last one counts."""
    ends = [m.end() for m in PHRASE.finditer(text)] + [m.end() for m in HEADING.finditer(text)]
    places = sorted(set(ends))
    before = [*BEFORE.finditer(text)]
    if before and (not places or before[-1].end() >= places[-1]):
        return before[-1]["said"].strip('*"`')
    for place in places[:-3:-1]:
        found = announced(text[place:].lstrip())
        if found:
            return found
    return None


def announced(text: str) -> str | None:
    """What follows "the answer is": a formula, an option, or the rest of the sentence."""
    formula = MATHS.match(text)
    if formula:
        return _content(formula)
    line = text.partition("\n")[0]
    chosen = CHOSEN.match(line)
    if chosen:
        return chosen[1] or chosen[2]
    line = SENTENCE_END.split(line)[0]
    line = line.rpartition(" is ")[2].strip(' *"`”_')  # "Final answer: the sum is 34"
    formula = MATHS.search(line)
    if formula:
        return _content(formula)
    line = REMARK.sub("", line).strip(" *")
    quantities = re.findall(rf"(?<!\S){QUANTITY}(?!\S)", line)
    prose = len(re.findall(r"[A-Za-z]{2,}", line)) >= 4 and "\\" not in line
    return quantities[0] if prose and len(quantities) == 1 else line or None


def _content(formula: re.Match) -> str:
    return next(group for group in formula.groups() if group is not None).strip()


# ---------------------------------------------------------------- what nothing announces
CONCLUSION = re.compile(
    r"^(?:(?:therefore|thus|hence|so)\b|因此|所以|故|综上|总之)", re.IGNORECASE
)
PREMISE = re.compile(
    r"^(?:if|suppose|assume|let|since|when|for|using|first|consider|case|step|note)\b",
    re.IGNORECASE,
)
LAST_WORDS = re.compile(
    rf"(?:\b(?:is|are|by|equals?)(?:\s+(?:therefore|thus|then|exactly|only|just))?|['’]s|=)\s+"
    rf"(?P<said>{QUANTITY}\s?(?:%|[^\s\d.,;=+*/-]{{0,6}}))$"
)
RESULT = re.compile(  # of a calculation, with or without the names of things in it
    rf"(?:[\d)%.]|\d [a-z ]{{0,30}}[a-z]{{3}})\s*=\s*(?P<said>{QUANTITY}%?)(?!\s*[*/+=-])"
)
VERB = re.compile(
    r"\b(?:is|are|was|were|be|get|gets|gives?|yields?|obtains?|has|have|needs?|takes?|costs?|"
    r"earns?|makes?|finds?|found|equals?|becomes?|leaves?|total(?:s|ing)?)"
    r"(?:\s+(?:therefore|thus|then|exactly|only|just|now))?\s+"
    rf"(?P<said>{QUANTITY}%?)(?![\d.]*\d)(?P<more>\s+(?:or|to|and)\s+{QUANTITY})?"
)
LABEL = re.compile(
    r"\b(?:step|case|part|equation|option|statement|problem|example|theorem|lemma|line|figure"
    r"|section|condition|question|way|method|mod|modulo|by|than|not|from|of)\s*\(?$",
    re.IGNORECASE,
)
LETTER_SAID = re.compile(
    r"(?i:\b(?:option|choice|choose|chose|pick|select|go(?:ing)? with|letter)\b"
    r"(?:\s+(?:is|would be|must be))?\s*[:：-]?\s*|选[项择]?\s*[:：]?\s*"
    r"|\b(?:so|thus|therefore|hence)\b,?\s*(?:it is |it's )?)"
    r"[*\[(（]*(?P<said>[A-J])(?![A-Za-z'’])[*\])）]*"
    r"(?!\s+(?:fails?|cannot|can't|does|do|is (?:wrong|false|incorrect|not|im)|and|or))"
    r"(?!\s+(?!is\b|it\b|because\b|since\b)[a-z])"
)
LETTER_RIGHT = re.compile(
    r"^[*(（【]*(?P<said>[A-J])[*)）】]*\s*(?:选?项)?\s*"
    r"(?:正确|is (?:the )?(?:correct|right|true))"
)
LONE_LETTER = re.compile(r"[\[*(（【]*(?P<said>[A-J])[\])*）】.。]*")
EXPLAINED = re.compile(
    r"^[\[*(]*(?P<said>[A-J])[\])*.]*\s*\n+\s*\**(?:explanation|reason(?:ing)?|because|解析|理由)\b",
    re.IGNORECASE | re.MULTILINE,
)
SPOKEN = re.compile(r" |[\u3400-\u9fff]")
NONE_EXISTS = re.compile(
    r"(?:^|[,;]\s*)(?:(?:therefore|thus|hence|so|and),? )*(?:there (?:is|are|exists?) )?"
    r"no\b[^.,]{0,30}"
    r"\b(?:solutions?|exists?)\b[^.]{0,20}$|^无解$",
    re.IGNORECASE,
)
LONE_VALUE = re.compile(
    r"^[\s>*_→⇒∴=#-]*(?:(?:so|thus|hence|therefore|and)?,?\s*(?:the )?"
    r"(?:final )?(?:total|result|solution|value|sum|ans|output)\s*[:：=]\s*)?[*\s]*"
    rf"(?:[A-Za-z]\s*=\s*)?(?P<said>{QUANTITY}(?:\s?%|(?:\s[a-zA-Z²³]+){{0,2}}))[*\s.]*$",
    re.IGNORECASE,
)


def explained_letter(text: str) -> str | None:
    """A lone letter above its explanation."""
    found = EXPLAINED.search(text)
    return found["said"].upper() if found else None


def lone_value(text: str) -> str | None:
    """A number alone on the last line."""
    lines = [line for line in text.split("\n") if line.strip(" *>#-")]
    found = LONE_VALUE.match(lines[-1]) if lines and len(lines[-1]) < 80 else None
    return found["said"].strip() if found else None


def in_closing(text: str) -> str | None:
    """What the last sentence concludes: a formula, a letter, a number."""
    sentence = closing_sentence(text)
    if NONE_EXISTS.search(sentence):
        return "no solution"
    formulas = [*MATHS.finditer(sentence)]
    behind = _counts(sentence[formulas[-1].end() :].replace("*", "")) if formulas else None
    if behind:
        return behind
    if formulas:
        return (
            None if CONCLUSION.match(sentence) and _counts(sentence) else _content(formulas[-1])
        )
    plain = sentence.replace("*", "")
    letter = LONE_LETTER.fullmatch(sentence) or LETTER_RIGHT.match(sentence)
    letters = (
        [letter, *LETTER_SAID.finditer(plain)] if letter else [*LETTER_SAID.finditer(plain)]
    )
    if letters:
        return letters[-1]["said"]
    return _counts(plain)


def _counts(sentence: str) -> str | None:
    """The number that a sentence states."""
    if UNFINISHED.search(sentence):
        return None
    if PREMISE.match(sentence):  # "Since n = 3, she pays 5 + 7 = 12 dollars"
        sentence = sentence.partition(",")[2]
    worked_out = [*RESULT.finditer(sentence)]
    if worked_out:
        return worked_out[-1]["said"]
    last = LAST_WORDS.search(sentence)
    if last:
        return last["said"]
    stated = [*VERB.finditer(sentence)]
    if stated:
        return stated[-1]["said"] + (stated[-1]["more"] or "")
    quantities = [*re.finditer(rf"(?<![\w.]){QUANTITY}%?", sentence)]
    if len(quantities) != 1 or "$" in sentence:
        return None
    return None if LABEL.search(sentence[: quantities[0].start()]) else quantities[0][0]


def last_formula(text: str) -> str | None:
    """The last formula of the text."""
    formulas = [*MATHS.finditer(text)]
    return _content(formulas[-1]) if formulas else None


def closing_sentence(text: str) -> str:
    """The last sentence that is not about hope."""
    lines = [line.strip() for line in re.split(r"\n|<\|", text) if line.strip(" *")]
    if not lines:
        return ""
    line = re.sub(
        r"\s+I hope\b.*", "", next((x for x in lines[::-1] if SPOKEN.search(x)), lines[-1])
    )
    if LONE_LETTER.fullmatch(lines[-1]):
        return lines[-1]
    sentences = [s for s in re.split(r"(?<=[.。!])\s+|\$\$\s+|\\\]\s+", line) if s]
    return sentences[-1].rstrip(" .。!*") if sentences else ""


# ---------------------------------------------------------------- the rules
@dataclass(frozen=True)
class Rule:
    """A way in which answers are given, and a response whose answer it finds."""

    name: str
    find: Callable[[str], str | None]
    example: str
    answer: str
    everywhere: bool = True  # or in the tail alone


BOXED = (
    Rule(
        "an answer called final behind the box",
        behind_box,
        "So \\boxed{E>0}.\n\n**Answer: C**",
        "C",
    ),
    Rule("boxes", in_boxes, r"It is \boxed{5}.", "5"),
)
SAID = (
    Rule("a key of JSON", in_json, '{"steps": [6], "answer": 42}', "42"),
    Rule("tags", in_tags, "<answer>x < 5</answer>", "x < 5"),
    Rule("a marked line", on_line, "It is so.\n#### 1,200", "1,200"),
    Rule("a phrase or heading", in_phrase, "We add.\n\n**Final Answer**\n\n42", "42"),
    Rule(
        "a letter and its explanation",
        explained_letter,
        "B\n\nExplanation: A is too big.",
        "B",
        False,
    ),
    Rule("a number alone", lone_value, "We add.\n\n**17 km**", "17 km", False),
    Rule("a closing sentence", in_closing, "First $a=3$. She has 42 apples left.", "42", False),
    Rule("the last formula", last_formula, "So $x=1$. This was to be shown.", "x=1", False),
)


def final_answer(response: str, boxed_only: bool = False) -> str | None:
    r"""The span of `response` that states its answer, None where there is none.

    It is read behind the reasoning; a response whose reasoning never ends has no answer.
    The last complete box counts, and neighbouring boxes that form a list. Only where there
    is no box, and unless `boxed_only`, a stated answer does: JSON, tags, "#### 18" lines,
    "the answer is …", a heading, a number alone, a closing sentence, the last formula.
    """
    text = shown(unescaped(response))
    if text is None:
        return None
    text = text.replace(r"\begin{boxed}", r"\boxed{").replace(r"\end{boxed}", "}")
    for rule in BOXED[boxed_only:]:
        found = rule.find(text)
        if found:
            return found
    return None if boxed_only else said(MENTION.sub(" ", text))


def said(text: str) -> str | None:
    """The answer that stands in no box, by the first rule that finds one."""
    tail = text[-TAIL:]
    for rule in SAID:
        found = rule.find(text if rule.everywhere else tail)
        if found and found.strip():
            return found.strip()
    return None
