"""What a chat template writes around a question and its reply, learnt by rendering it.

A template is a program in Jinja, and every family of models has another one. None is named
here: marks of the private use area are rendered in the place of the texts, and what stands
around the marks is the template's. So one rule serves all, in training and in inference:
the prompt is what the template writes up to where the model begins, the reply is what it
writes from there. Chapter 6.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from functools import wraps
from typing import Any, NamedTuple, TypeVar
from weakref import WeakKeyDictionary

from jinja2 import TemplateError

from limo_nb.core.settings import ChatSettings
from limo_nb.grading.extraction import MARK, closing_mark, opens

DEFAULT_CHAT = ChatSettings()
# The variables with which templates are told to think or not: Qwen3, GLM, Nemotron, Gemma 4;
# DeepSeek V3.1, Granite. A template ignores those that it does not know.
SWITCHES = ("enable_thinking", "thinking")
# What templates call the thought of a message, for the same reason all of them.
THOUGHT_KEYS = ("reasoning_content", "reasoning", "thinking")
BETWEEN_SYSTEM_AND_QUESTION = "\n\n"  # in one turn, as Gemma 3 writes them
WRITTEN = re.compile("\ue000([a-z0-9]+)\ue001")  # a mark, and the name of its text
PAD = "\n \n"  # around a mark, to see what a template cuts off at the ends of a text
CUTS: tuple[Callable[[str], str], ...] = (
    str, str.strip, str.lstrip, str.rstrip,
    lambda text: text.strip("\n"), lambda text: text.lstrip("\n"),
    lambda text: text.rstrip("\n"),
)  # fmt: skip

# A turn of a conversation: its role, and the names of the texts that are its content.
Turns = tuple[tuple[str, tuple[str, ...]], ...]


Result = TypeVar("Result")


def per_tokenizer(make: Callable[..., Result]) -> Callable[..., Result]:
    """`make(tokenizer, …)`, once for each template and arguments while the tokenizer lives."""
    kept: WeakKeyDictionary[Any, dict[Any, Result]] = WeakKeyDictionary()

    @wraps(make)
    def found(tokenizer: Any, *given: Any, **named: Any) -> Result:
        own = kept.setdefault(tokenizer, {})
        key = (str(tokenizer.chat_template), given, *named.items())
        if key not in own:
            own[key] = make(tokenizer, *given, **named)
        return own[key]

    return found


class Slot(NamedTuple):
    """Where a template writes a text, and what it cuts off at the text's ends."""

    name: str
    cut: Callable[[str], str]


Layout = tuple[str | Slot, ...]  # what the template writes, and the places of texts in it


def ask_turns(system: bool = True) -> Turns:
    """The turns of a question, with a system prompt or without."""
    return (*([("system", ("0",))] if system else []), ("user", ("1",)))


def arguments(chat: ChatSettings) -> dict[str, Any]:
    """The variables that a template gets from `chat`, without the date."""
    switched = {} if chat.thinking == "auto" else dict.fromkeys(SWITCHES, chat.thinking == "on")
    return switched | chat.arguments


# ------------------------------------------------------------------------- rendering
def render(
    tokenizer: Any, messages: list[dict[str, str]], chat: ChatSettings, ask: bool
) -> str:
    """`messages` as text; with `ask`, the beginning of the reply behind them.

    The date that a template may write is that of `chat`. Raises ValueError that says what
    the template refuses, and where there is no template.
    """
    if not tokenizer.chat_template:
        raise ValueError(
            f"the tokenizer of {tokenizer.name_or_path or 'this model'} has no chat template: "
            "name an instruction-tuned model, or put a chat_template.jinja into its folder"
        )
    try:
        return tokenizer.apply_chat_template(
            messages, chat_template=_dated(tokenizer.get_chat_template(), chat.date),
            tokenize=False, add_generation_prompt=ask, **arguments(chat),
        )  # fmt: skip
    except (TemplateError, TypeError) as error:
        roles = ", ".join(message["role"] for message in messages)
        raise ValueError(f"the chat template refuses the turns {roles}: {error}") from error


def _dated(template: str, day: str) -> str:
    """`template` with a `strftime_now` of its own, for which it is always `day`.

    The library's asks the clock, and it takes no function from outside.
    """
    if "strftime_now" not in template:
        return template
    today = date.fromisoformat(day)
    value = "format"
    for letter in "YmdbBHMyajAIpS":
        value += f"|replace('%{letter}','{today.strftime(f'%{letter}')}')"
    macro = "{% macro strftime_now(format) -%}{{ " + value + " }}{%- endmacro %}"
    # The empty string keeps a line end with which the template may begin.
    return macro + "{{ '' }}" + template


def _marked(turns: Turns, texts: Mapping[str, str] | None = None) -> list[dict[str, str]]:
    """The messages of `turns`, with marks for all texts but those given."""
    known = texts or {}

    def text(name: str) -> str:
        return known.get(name, f"\ue000{name}\ue001")

    messages = []
    for role, names in turns:
        said = [name for name in names if name != "thought"]
        content = BETWEEN_SYSTEM_AND_QUESTION.join(map(text, said))
        thought = dict.fromkeys(THOUGHT_KEYS, text("thought")) if "thought" in names else {}
        messages.append({"role": role, "content": content, **thought})
    return messages


@per_tokenizer
def bare(tokenizer: Any, turns: Turns, chat: ChatSettings, ask: bool = True) -> str:
    """The rendering of `turns` with marks for its texts (see `render`)."""
    return render(tokenizer, _marked(turns), chat, ask)


def _layout(tokenizer: Any, turns: Turns, chat: ChatSettings, ask: bool) -> Layout:
    """The rendering of `turns`. Raises ValueError where a text is left out or changed."""
    text = bare(tokenizer, turns, chat, ask)
    slots = {}
    for role, names in turns:
        for name in names:
            mark = f"\ue000{name}\ue001"
            if text.count(mark) != 1:
                raise ValueError(
                    f"the chat template writes the text of the {role} turn {text.count(mark)} "
                    "times, and not once: it may be one for images, whose texts are lists of "
                    "parts"
                )
            padded = {name: f"{PAD}{mark}{PAD}"}
            shown = render(tokenizer, _marked(turns, padded), chat, ask)
            fits = (cut for cut in CUTS if shown == text.replace(mark, cut(padded[name])))
            cut = next(fits, None)
            if cut is None:
                raise ValueError(f"the chat template rewrites the text of the {role} turn")
            slots[name] = Slot(name, cut)
    parts = WRITTEN.split(text)  # texts of the template and names, in turn
    return tuple(slots[part] if place % 2 else part for place, part in enumerate(parts))


# ------------------------------------------------------------------------- the question
@per_tokenizer
def prompt_layout(tokenizer: Any, turns: Turns, chat: ChatSettings) -> Layout:
    """What the template writes for `turns` up to where the model begins."""
    return _layout(tokenizer, turns, chat, ask=True)


def system_place(tokenizer: Any, chat: ChatSettings = DEFAULT_CHAT) -> str:
    """Where a system prompt goes: "system", its own turn, or "user", before the question.

    The second where the template refuses the role, as Gemma's does, or leaves its text out.
    """
    try:
        return "system" if "\ue0000\ue001" in bare(tokenizer, ask_turns(), chat) else "user"
    except ValueError:
        bare(tokenizer, ask_turns(system=False), chat)  # raises where it is not the role
        return "user"


# ------------------------------------------------------------------------- the reply
@dataclass(frozen=True)
class Reply:
    """What is written behind a prompt: `plain`, and `thinking` where there is a place for it.

    `thinking` has the slots "thought" and "answer", `plain` has "answer". Both end with
    `end`, which begins with the token that ends a reply.
    """

    plain: Layout
    thinking: Layout | None
    end: str
    chains_think: bool  # whether a chain that does not say where it ends is a thought
    thought_is_over: bool  # whether the prompt has ended one, and none can follow


@per_tokenizer
def reply(tokenizer: Any, turns: Turns, chat: ChatSettings = DEFAULT_CHAT) -> Reply:
    """How a reply to `turns` is written."""
    end = _end(tokenizer, turns, chat)
    plain = _behind(tokenizer, turns, chat, ("answer",))
    thinking = _behind(tokenizer, turns, chat, ("thought", "answer"))
    last = _last_mark(bare(tokenizer, turns, chat))
    if last and opens(last[0]):  # the model begins inside a thought
        # The template may forget it when the turn is over; then it is closed as it was opened.
        closed = last[1] + closing_mark(last[0][0]) + "\n\n"
        thinking = thinking or (Slot("thought", str.strip), closed, Slot("answer", str.strip))
        empty = tuple(part for part in thinking if isinstance(part, str) or part[0] == "answer")
        plain = plain or empty
    return Reply(
        plain=(*(plain or (Slot("answer", str),)), end),
        thinking=(*thinking, end) if thinking else None,
        end=end,
        chains_think=_chains_think(tokenizer, turns, chat, bool(thinking)),
        thought_is_over=last is not None and not opens(last[0]),
    )


def _behind(
    tokenizer: Any, turns: Turns, chat: ChatSettings, names: tuple[str, ...]
) -> Layout | None:
    """What a whole conversation has behind its prompt, up to the end of the answer.

    None where it does not begin with the prompt or leaves a text out: templates drop the
    thoughts of a turn that is over, and some what they have opened themselves.
    """
    prompt = bare(tokenizer, turns, chat)
    try:
        whole = _layout(tokenizer, (*turns, ("assistant", names)), chat, ask=False)
    except ValueError:
        return None
    text = "".join(p if isinstance(p, str) else f"\ue000{p.name}\ue001" for p in whole)
    if not text.startswith(prompt):
        return None
    rest = WRITTEN.split(text.removeprefix(prompt))[:-1]
    slots = {part.name: part for part in whole if isinstance(part, Slot)}
    found = tuple(slots[part] if place % 2 else part for place, part in enumerate(rest))
    return found if tuple(p.name for p in found if isinstance(p, Slot)) == names else None


def _last_mark(prompt: str) -> tuple[re.Match, str] | None:
    """The last mark of a thought behind the last text of `prompt`, and what follows it."""
    tail = WRITTEN.split(prompt)[-1]
    marks = [*MARK.finditer(tail)]
    return (marks[-1], tail[marks[-1].end() :]) if marks else None


def _end(tokenizer: Any, turns: Turns, chat: ChatSettings) -> str:
    """What stands behind an answer, with the token that ends it.

    Where the template writes none (GLM-4's), it is the one that begins the next turn, at
    which such models stop; where there is none either, the tokenizer's end token.
    """
    said = (*turns, ("assistant", ("answer",)))
    _, mark, end = bare(tokenizer, said, chat, ask=False).rpartition("\ue000answer\ue001")
    if not mark:
        raise ValueError(
            "the chat template leaves out the text of a reply: it may be one for images, "
            "whose texts are lists of parts"
        )
    if _first_token(tokenizer, end):
        return end
    try:
        more = bare(tokenizer, (*said, ("user", ("next",))), chat, ask=False)
    except ValueError:  # it knows no second question
        more = ""
    between = more.partition("\ue000answer\ue001")[2].partition("\ue000next\ue001")[0]
    token = _first_token(tokenizer, between)
    return between[: between.index(token)] + token if token else end + tokenizer.eos_token


def _first_token(tokenizer: Any, text: str) -> str:
    """The first added token that is spelled in `text`, or nothing."""
    places = {text.find(token): token for token in added_tokens(tokenizer) if token in text}
    return places[min(places)] if places else ""


def _chains_think(tokenizer: Any, turns: Turns, chat: ChatSettings, place: bool) -> bool:
    """Whether a chain is a thought. With `thinking: auto`, what the template itself does.

    That is thinking where it has a `place` for it, unless it asks for thoughts only when
    told to: then its prompt is the one with thinking switched off.
    """
    if chat.thinking != "auto":
        return chat.thinking == "on"
    default, on, off = (
        bare(tokenizer, turns, chat.model_copy(update={"thinking": thinking}))
        for thinking in ("auto", "on", "off")
    )
    return place and not (default == off != on)


# ------------------------------------------------------------------------- its tokens
@per_tokenizer
def added_tokens(tokenizer: Any) -> frozenset[str]:
    """The spellings that the tokenizer takes for one token wherever they occur."""
    added = (str(token) for token in tokenizer.added_tokens_decoder.values())
    return frozenset(added) | frozenset(tokenizer.all_special_tokens)


def template_texts(tokenizer: Any) -> Iterable[str]:
    """What the template writes in a conversation, asked and whole, with a second question."""
    place = system_place(tokenizer)
    ask = ask_turns(place == "system")
    said = (*ask, ("assistant", ("answer",)))
    yield bare(tokenizer, ask, DEFAULT_CHAT)
    for turns in (said, (*said, ("user", ("next",)))):
        try:
            yield bare(tokenizer, turns, DEFAULT_CHAT, ask=False)
        except ValueError:  # a template's own refusal
            continue


@per_tokenizer
def thought_tokens(tokenizer: Any) -> frozenset[str]:
    """The special tokens with which the template marks a thought, where it does so."""
    if not tokenizer.chat_template:
        return frozenset()
    chat = ChatSettings(thinking="on")
    ask = ask_turns(system_place(tokenizer, chat) == "system")
    form = reply(tokenizer, ask, chat)
    marks = "".join(part for part in (form.thinking or ())[:-1] if isinstance(part, str))
    special = {str(t) for t in tokenizer.added_tokens_decoder.values() if t.special}
    return frozenset(token for token in special if token in marks)


def end_token_id(tokenizer: Any, chat: ChatSettings = DEFAULT_CHAT) -> int | None:
    """The token with which the template ends a reply; None where it has none."""
    ask = ask_turns(system_place(tokenizer, chat) == "system")
    token = _first_token(tokenizer, _end(tokenizer, ask, chat))
    return tokenizer.convert_tokens_to_ids(token) if token else None
