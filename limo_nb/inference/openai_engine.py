"""Any server that speaks OpenAI's protocol: vLLM, SGLang, TensorRT-LLM, hosted models."""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property, partial
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import openai

from limo_nb.core.settings import (
    EngineSettings,
    Sampling,
)
from limo_nb.inference.base import (
    Ask,
    Batch,
    Completion,
    EngineFailed,
    Made,
    Refused,
    Underway,
    in_flight,
    public_address,
    too_long,
)
from limo_nb.inference.chat import Prompt, before_the_question
from limo_nb.inference.identity import model_digest
from limo_nb.inference.models import token_counter
from limo_nb.inference.templates import arguments

CONCURRENT = 256  # requests in flight, at most; a server batches what it has
RETRIES = 10  # about a minute with the client's backoff: 0.5 s, doubled, at most 8 s
SECONDS = 3600.0  # for one answer: a long chain on a busy server
# Gemma's template, in the words in which vLLM and llama.cpp hand them on.
NO_SYSTEM = re.compile(r"system role (is )?not supported", re.IGNORECASE)
REFUSALS = (400, 413, 422)  # statuses with which servers answer a prompt that is too long


class OpenAIEngine:
    """Asks a server, `batch_size` requests at a time, each kept when it is answered.

    `base_url`, else `OPENAI_BASE_URL`, names it (`http://host:8000/v1`); `OPENAI_API_KEY`
    is sent if set. The client tries again, with growing pauses or those that the server
    asks for, after a time-out, a lost connection, 408, 409, 429 and 5xx. A prompt that is
    too long is `Refused`; any other refusal is an error at once. The server applies its own
    chat template, with the date of its clock and the arguments of `settings.chat`, and
    decides whether control tokens in a question are text; where it refuses a system prompt,
    this stands before the question. What it
    reports as `completion_tokens` has the end token in it, as with vLLM; where it reports
    nothing, tokens are counted with the tokenizer of `model`.
    """

    def __init__(
        self, settings: EngineSettings, model: str, base_url: str | None = None,
        retries: int = RETRIES, seconds: float = SECONDS,
    ) -> None:  # fmt: skip
        base_url = base_url or os.environ.get("OPENAI_BASE_URL", "")
        if not base_url:
            raise ValueError(
                "engine.kind is openai: set OPENAI_BASE_URL to the server's address, "
                "for example `export OPENAI_BASE_URL=http://localhost:8000/v1`"
            )
        self.name, self.batch_size = model, settings.batch_size
        self._counting = threading.Lock()
        self._connect(base_url, retries, seconds)
        self.identity = {
            "kind": "openai", "model": _served(model, self.server), **settings.chat.identity,
        }  # fmt: skip
        self._template = arguments(settings.chat)

    def _connect(self, base_url: str, retries: int, seconds: float) -> None:
        self.server = public_address(base_url)
        self._client = client_of(base_url, max_retries=retries, timeout=seconds)

    def __enter__(self) -> OpenAIEngine:
        return self

    def __exit__(self, *exception: object) -> None:
        self._client.close()

    def length(self, prompt: Prompt) -> int:
        """Characters of `prompt`: the server's tokenizer is not known."""
        return (
            len(prompt) if isinstance(prompt, str) else sum(len(m["content"]) for m in prompt)
        )

    def run(self, batches: Iterable[Batch], sampling: Sampling) -> Iterator[Made | Underway]:
        """Rows as the server answers them, in any order."""
        asks = (ask for batch in batches for ask in batch)

        def answer(ask: Ask) -> Iterator[Made | Underway]:
            yield [(ask.key, self._ask(ask, sampling))]

        # How far an answer is a server tells only while it streams, a message a token.
        yield from in_flight(asks, answer, self.slots, lambda rows: Underway(rows, 0))

    @property
    def slots(self) -> int:
        """Requests in flight at the same time."""
        return min(CONCURRENT, self.batch_size)

    def _ask(self, ask: Ask, sampling: Sampling) -> Completion | Refused:
        try:
            choice, usage = self._reply(ask, sampling)
        except openai.APIStatusError as error:
            said = error.response.text[:500]
            if error.status_code in REFUSALS and too_long(said):
                return Refused(said)
            raise EngineFailed(
                f"{self.server} refused a request with {error.status_code}: {said} "
                f"(its prompt begins {_beginning(ask.prompt)!r})"
            ) from error
        except openai.APIConnectionError as error:
            raise EngineFailed(
                f"{self.server} did not answer ({error}) in {self._client.max_retries + 1} "
                "attempts: is the server up? What has arrived is kept; run again"
            ) from error
        return self._completion(choice, usage)

    def _reply(self, ask: Ask, sampling: Sampling) -> tuple[Any, Any]:
        """The choice that the server made, and the usage that it reports or None."""
        given: dict[str, Any] = {
            "model": self.name, "seed": ask.seed, "temperature": sampling.temperature,
            "top_p": sampling.top_p, "max_tokens": sampling.max_new_tokens,
        }  # fmt: skip
        if isinstance(ask.prompt, str):
            raw = self._client.completions.create(prompt=ask.prompt, **given)
            return self._only(raw), raw.usage
        if self._template:  # vLLM, SGLang and llama.cpp hand them to the chat template
            given |= {"extra_body": {"chat_template_kwargs": self._template}}
        ask_chat = partial(self._client.chat.completions.create, **given)
        try:
            chat = ask_chat(messages=ask.prompt)
        except openai.BadRequestError as error:
            if not NO_SYSTEM.search(error.response.text):
                raise
            chat = ask_chat(messages=before_the_question(ask.prompt))
        return self._only(chat), chat.usage

    def _only(self, reply: Any) -> Any:
        """The one choice of `reply`; some servers put an error where choices should be."""
        if not reply.choices:
            said = json.dumps(reply.model_dump(exclude_none=True), default=str)[:500]
            raise EngineFailed(
                f"{self.server} answered without any choice: {said}. What has arrived is kept; "
                "look at the server's log, and run again"
            )
        return reply.choices[0]

    def _completion(self, choice: Any, usage: Any) -> Completion:
        message = getattr(choice, "message", None)
        text = _thought(message) + ((message.content if message else choice.text) or "")
        finished = choice.finish_reason == "stop"
        if usage is None or usage.completion_tokens is None:
            return Completion(text, self._count(text), finished)
        return Completion(text, max(0, usage.completion_tokens - finished), finished)

    def _count(self, text: str) -> int:
        with self._counting:  # tokenizers are not made for several threads
            return self._counter(text)

    @cached_property
    def _counter(self) -> Callable[[str], int]:
        try:
            return token_counter(self.name)
        except ValueError as error:
            raise EngineFailed(
                f"{self.server} does not report how many tokens an answer has, and they "
                f"cannot be counted: {error}"
            ) from error


def client_of(base_url: str, **options: Any) -> openai.OpenAI:
    """A client of the server at `base_url`; user and password go into no message of it."""
    parts = urlsplit(base_url)
    user = (unquote(parts.username or ""), unquote(parts.password or ""))
    return openai.OpenAI(
        base_url=public_address(base_url),
        default_query=dict(parse_qsl(parts.query)),
        http_client=openai.DefaultHttpxClient(auth=user) if any(user) else None,
        api_key=os.environ.get("OPENAI_API_KEY", "none"),
        **options,
    )


def _beginning(prompt: Prompt) -> str:
    text = prompt if isinstance(prompt, str) else prompt[-1]["content"]
    return text[:60]


def _thought(message: Any) -> str:
    """The chain that a server with a reasoning parser took out of the answer."""
    found = getattr(message, "reasoning_content", None) or getattr(message, "reasoning", None)
    return f"<think>\n{found.strip()}\n</think>\n\n" if found else ""


def _served(model: str, server: str) -> str:
    """What identifies the served weights: their digest where it can be known.

    Another server may serve other weights under the same name, so its address is part of
    what a mere name says.
    """
    try:
        return model_digest(model)
    except ValueError:
        return f"{model} at {server}"
