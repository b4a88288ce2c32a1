"""Any server that speaks OpenAI's protocol: vLLM, SGLang, TensorRT-LLM, hosted models."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any

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
    in_flight,
)
from limo_nb.inference.chat import Prompt
from limo_nb.inference.models import model_digest

CONCURRENT = 256  # requests in flight, at most; a server batches what it has
RETRIES = 10  # about a minute with the client's backoff: 0.5 s, doubled, at most 8 s
SECONDS = 3600.0  # for one answer: a long chain on a busy server


class OpenAIEngine:
    """Asks a server, `batch_size` requests at a time, each kept when it is answered.

    `OPENAI_BASE_URL` names it (`http://host:8000/v1`), `OPENAI_API_KEY` is sent if set.
    The client tries again, with growing pauses or those that the server asks for, after
    a time-out, a lost connection, 408, 409, 429 and 5xx; any other refusal is an error
    at once. The server applies its own chat template, and decides whether control tokens
    in a question are text. What it reports as `completion_tokens` has the end token in
    it, as with vLLM.
    """

    def __init__(
        self, settings: EngineSettings, model: str,
        retries: int = RETRIES, seconds: float = SECONDS,
    ):  # fmt: skip
        self.base = os.environ.get("OPENAI_BASE_URL", "")
        if not self.base:
            raise ValueError(
                "engine.kind is openai: set OPENAI_BASE_URL to the server's address, "
                "for example `export OPENAI_BASE_URL=http://localhost:8000/v1`"
            )
        self.name, self.batch_size = model, settings.batch_size
        self.identity = {"kind": "openai", "model": _served(model, self.base)}
        key = os.environ.get("OPENAI_API_KEY", "none")
        self._client = openai.OpenAI(
            base_url=self.base, api_key=key, max_retries=retries, timeout=seconds
        )

    def __enter__(self) -> OpenAIEngine:
        return self

    def __exit__(self, *exception: object) -> None:
        self._client.close()

    def length(self, prompt: Prompt) -> int:
        return (
            len(prompt) if isinstance(prompt, str) else sum(len(m["content"]) for m in prompt)
        )

    def run(self, batches: Iterable[Batch], sampling: Sampling) -> Iterator[Made]:
        asks = (ask for batch in batches for ask in batch)
        slots = min(CONCURRENT, self.batch_size)
        yield from in_flight(asks, lambda ask: [(ask.key, self._ask(ask, sampling))], slots)

    def _ask(self, ask: Ask, sampling: Sampling) -> Completion:
        given = {
            "model": self.name, "seed": ask.seed, "temperature": sampling.temperature,
            "top_p": sampling.top_p, "max_tokens": sampling.max_new_tokens,
        }  # fmt: skip
        try:
            if isinstance(ask.prompt, str):
                reply = self._client.completions.create(prompt=ask.prompt, **given)
            else:
                reply = self._client.chat.completions.create(messages=ask.prompt, **given)
        except openai.APIStatusError as error:
            raise EngineFailed(
                f"{self.base} refused a request with {error.status_code}: "
                f"{error.response.text[:500]}"
            ) from error
        except openai.APIConnectionError as error:
            raise EngineFailed(
                f"{self.base} did not answer ({error}) in {self._client.max_retries + 1} "
                "attempts: is the server up? What has arrived is kept; run again"
            ) from error
        return _completion(reply)


def _completion(reply: Any) -> Completion:
    choice = reply.choices[0]
    text = choice.message.content if hasattr(choice, "message") else choice.text
    finished = choice.finish_reason == "stop"
    return Completion(
        _thought(choice) + (text or ""), reply.usage.completion_tokens - finished, finished
    )


def _thought(choice: Any) -> str:
    """The chain that a server with a reasoning parser took out of the answer."""
    message = getattr(choice, "message", None)
    found = getattr(message, "reasoning_content", None) or getattr(message, "reasoning", None)
    return f"<think>\n{found.strip()}\n</think>\n\n" if found else ""


def _served(model: str, base: str) -> str:
    """What identifies the served weights: their digest where it can be known.

    Another server may serve other weights under the same name, so its address is part of
    what a mere name says.
    """
    try:
        return model_digest(model)
    except ValueError:
        return f"{model} at {base}"
