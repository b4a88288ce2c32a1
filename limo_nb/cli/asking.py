"""How a model is asked and where its answer ends: what `limo-nb doctor --model` tells."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from limo_nb.cli.checks import Finding
from limo_nb.core.settings import ChatSettings

QUESTION = "What is 1 + 1?"
# What generation configs set of how tokens are drawn; the rest shapes no distribution.
SHAPING = {
    "temperature", "top_k", "top_p", "min_p", "top_h", "typical_p", "epsilon_cutoff",
    "eta_cutoff", "repetition_penalty", "encoder_repetition_penalty", "presence_penalty",
    "frequency_penalty", "no_repeat_ngram_size", "length_penalty",
    "exponential_decay_length_penalty", "num_beams", "penalty_alpha", "guidance_scale",
    "bad_words_ids", "suppress_tokens", "begin_suppress_tokens", "sequence_bias",
}  # fmt: skip


def findings(model: str, system: str, chat: ChatSettings) -> Iterator[Finding]:
    """Line by line, what is asked of `model`, and how. Raises ValueError without a model."""
    from limo_nb.inference.models import load_tokenizer

    tokenizer = load_tokenizer(model)
    if tokenizer.chat_template:
        yield from _asked(tokenizer, system, chat)
    else:
        yield Finding(
            "chat template", "absent: the tokenizer of a base model", False,
            "name an instruction-tuned model, or put a chat_template.jinja into its folder",
        )  # fmt: skip
    yield from _ends(model, tokenizer)
    yield from _defaults(model)


def _asked(tokenizer: Any, system: str, chat: ChatSettings) -> Iterator[Finding]:
    from limo_nb.inference import chat_prompt, prompt_text

    try:
        text = prompt_text(tokenizer, chat_prompt(QUESTION, system), chat)
    except ValueError as error:
        yield Finding("prompt", str(error), False, "a model with a template for text")
        return
    yield Finding("prompt", repr(text))
    yield Finding("system prompt", _system(tokenizer, chat))
    yield Finding("thinking", _thinking(tokenizer, chat))
    if "strftime_now" in tokenizer.get_chat_template():
        yield Finding("date", f"the template writes today's; it gets chat.date, {chat.date}")


def _system(tokenizer: Any, chat: ChatSettings) -> str:
    from limo_nb.inference import DEFAULT_SYSTEM
    from limo_nb.inference.templates import ask_turns, bare, system_place

    if system_place(tokenizer, chat) == "user":
        return (
            "stands before the question, in its turn: the template has no turn for it; "
            "without one, nothing stands there"
        )
    told = f"a turn of its own; an empty one is {DEFAULT_SYSTEM!r}"
    before, _, behind = bare(tokenizer, ask_turns(), chat).partition("\ue0000\ue001")
    silent = bare(tokenizer, ask_turns(system=False), chat)
    if not (silent.startswith(before) and silent.endswith(behind)):
        return f"{told}; without one the template would write no such turn"
    own = silent[len(before) : -len(behind)]
    return f"{told}, and not what the template would write: {own!r}"


def _thinking(tokenizer: Any, chat: ChatSettings) -> str:
    from limo_nb.inference.templates import ask_turns, bare, reply, system_place

    turns = ask_turns(system_place(tokenizer, chat) == "system")
    form = reply(tokenizer, turns, chat)
    ways = [chat.model_copy(update={"thinking": way}) for way in ("on", "off")]
    on, off = (bare(tokenizer, turns, way) for way in ways)
    if form.thinking:
        marks = [part for part in form.thinking[:-1] if isinstance(part, str)]
        place = "thoughts stand between " + " and ".join(map(repr, marks))
    else:
        place = "the template has no place for thoughts"
    chains = "thoughts" if form.chains_think else "text"
    switch = "changes the prompt" if on != off else "leaves the prompt as it is"
    return (
        f"{place}; with chat.thinking={chat.thinking} a chain that marks none is written as "
        f"{chains}; switching it on or off {switch}"
    )


def _ends(model: str, tokenizer: Any) -> Iterator[Finding]:
    from limo_nb.inference.models import generation_config, stop_token_ids
    from limo_nb.inference.templates import end_token_id

    found = generation_config(model).eos_token_id
    named = {
        "the template's end": end_token_id(tokenizer) if tokenizer.chat_template else None,
        "the tokenizer's end": tokenizer.eos_token_id,
        "padding": tokenizer.pad_token_id,
    }
    configured = found if isinstance(found, list) else [found]
    told = []
    for stop in stop_token_ids(model, tokenizer):
        sources = [name for name, token in named.items() if token == stop]
        sources += ["generation config"] if stop in configured else []
        told.append(f"{tokenizer.convert_ids_to_tokens(stop)} ({', '.join(sources)})")
    yield Finding("stop tokens", ", ".join(told))


def _defaults(model: str) -> Iterator[Finding]:
    from limo_nb.inference.models import context_length, generation_config

    length = context_length(model)
    yield Finding("context", f"{length:,} tokens" if length else "the model names no limit")
    brought = {
        name: value
        for name, value in generation_config(model).to_diff_dict().items()
        if name in SHAPING
    }
    told = ", ".join(f"{name} {value}" for name, value in sorted(brought.items()))
    note = "not applied: the profile's values are all that shapes an answer"
    yield Finding("decoding defaults", f"{told} ({note})" if told else "none of its own")
