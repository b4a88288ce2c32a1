"""Budget forcing: a chain that is made to go on, or to conclude (s1; chapter 7).

A model decides by its end token how long it thinks. Muennighoff et al. (s1, 2025, section
3.1) take the decision out of its hands at test time: to lengthen a chain, what would end it
is left out, "Wait" is put in its place, and the model writes on; to end one, the beginning
of the final answer is put where the budget is spent. Both are text that an engine
continues, so any engine can do it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from datasets import Dataset

from limo_nb.core.settings import ChatSettings, Sampling
from limo_nb.grading.extraction import MARK, TURN_ENDS, opens
from limo_nb.inference.base import CompletionRow, Engine
from limo_nb.inference.chat import Prompt, plain_ids, prompt_ids, prompt_text
from limo_nb.inference.models import load_tokenizer
from limo_nb.inference.request import complete
from limo_nb.inference.templates import DEFAULT_CHAT

WAIT = "\nWait,"  # instead of the conclusion
CLOSING = "\nTherefore the answer is \\boxed{"  # where the budget is spent
ANSWER_TOKENS = 24  # that the answer in the box may take


def without_conclusion(text: str) -> str:
    r"""`text` up to its conclusion: to the end of its thought, else to its last box's line."""
    marks = [*MARK.finditer(text)]
    ends = [mark for mark in marks if not opens(mark)]
    # A thought comes first; what else has such marks is a word of the text.
    if ends and not (opens(marks[0]) and text[: marks[0].start()].strip()):
        return TURN_ENDS.sub("", text[: ends[-1].start()]).rstrip()
    return before_last_box(text)


def before_last_box(text: str) -> str:
    r"""`text` up to the line of its last box; all of it where it has none."""
    place = text.rfind("\\boxed")
    return (text if place < 0 else text[: text.rfind("\n", 0, place) + 1]).rstrip()


class BudgetForcer:
    """Continues answers of `model`, through `engine`, from where they are cut.

    Tables of answers have the columns of `CompletionRow`; `chat` is that of the engine.
    """

    def __init__(
        self, engine: Engine, model: str, store: Path, chat: ChatSettings = DEFAULT_CHAT
    ) -> None:
        self.engine, self.store, self.chat = engine, store, chat
        self.tokenizer = load_tokenizer(model)

    def lengthened(
        self, asked: Sequence[tuple[str, Prompt]], answers: Dataset, max_new_tokens: int
    ) -> Dataset:
        """`answers` (one for each of `asked`, in order), with "Wait" for their conclusions.

        Each may go on for `max_new_tokens`. Those that were cut off have no conclusion; they
        are left as they are.
        """
        ended = [place for place, done in enumerate(answers["finished"]) if done]
        return self._written_on(
            asked, answers, ended, lambda text: without_conclusion(text) + WAIT, max_new_tokens
        )

    def concluded(
        self, asked: Sequence[tuple[str, Prompt]], answers: Dataset, limit: int
    ) -> Dataset:
        """`answers` under a limit of `limit` tokens, concluded where they were not done.

        The conclusion comes on top of the limit, at most `ANSWER_TOKENS` and the words that
        begin it.
        """
        open_ = [place for place, tokens in enumerate(answers["tokens"]) if tokens >= limit]

        def shortened(text: str) -> str:
            ids = plain_ids(self.tokenizer, text)[:limit]
            return self.tokenizer.decode(ids).rstrip() + CLOSING

        return self._written_on(asked, answers, open_, shortened, ANSWER_TOKENS)

    def _written_on(
        self, asked: Sequence[tuple[str, Prompt]], answers: Dataset, places: list[int],
        prefix: Callable[[str], str], max_new_tokens: int,
    ) -> Dataset:  # fmt: skip
        """`answers`, those at `places` replaced by prefix(text) and its continuation."""
        rows = [{name: row[name] for name in CompletionRow.__annotations__} for row in answers]
        if not places:
            return Dataset.from_list(rows)
        begun = {place: prefix(rows[place]["text"]) for place in places}
        items = [(asked[p][0], self._raw(asked[p][1]) + begun[p]) for p in places]
        limit = Sampling(max_new_tokens=max_new_tokens)
        made = complete(self.engine, items, limit, self.store, "on")
        for place, more in zip(places, made, strict=True):
            rows[place] |= {
                "text": begun[place] + more["text"],
                "tokens": len(plain_ids(self.tokenizer, begun[place])) + more["tokens"],
                "finished": more["finished"],
            }
        return Dataset.from_list(rows)

    def _raw(self, prompt: Prompt) -> str:
        """The conversation as the text that the model reads."""
        if isinstance(prompt, str):
            return prompt
        text = prompt_text(self.tokenizer, prompt, self.chat)
        ids = prompt_ids(self.tokenizer, prompt, self.chat)
        # Some tokenizers put the first token before raw text, and the template has it too.
        for raw in (text, text.removeprefix(self.tokenizer.bos_token or "")):
            if self.tokenizer(raw)["input_ids"] == ids:
                return raw
        raise ValueError("a question that spells a control token cannot be continued")
