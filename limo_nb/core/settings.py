"""What to run: profiles, validated and frozen.

A profile is one YAML file in `limo_nb/core/profiles/`. A chapter's `parameters` cell names it
and may override any field; nothing that a profile says is said again in a chapter.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from importlib import resources
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from limo_nb.core.precision import Dtype

# The prompt that LIMO's README names for training and inference.
SYSTEM_PROMPT = "Please reason step by step, and put your final answer within \\boxed{}."


class Frozen(BaseModel):
    """A validated, immutable group of settings; unknown fields are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


Settings = TypeVar("Settings", bound=Frozen)


class Models(Frozen):
    """Each is `lab:NAME`, a local folder, a GGUF file, or a Hub id, optionally `ID@REVISION`.

    A GGUF file is `FILE.gguf`, `FOLDER#FILE.gguf` or `ID#FILE.gguf`.
    """

    base: str  # the foundation that is fine-tuned
    poor: str  # a backbone of the same size that saw less reasoning
    weak: str  # the short-chain solver of the coarse filter
    strong: str  # the reasoner of the fine filter, and the teacher


EngineKind = Literal["transformers", "vllm", "openai", "llamacpp", "ray"]


class ChatSettings(Frozen):
    """How chat templates are asked to write a conversation, in training and inference alike.

    A profile's field `chat` is that of its engine and of its fine-tuning (chapter 6).
    """

    thinking: Literal["auto", "on", "off"] = "auto"  # auto: what a template itself does
    # More variables of the template, e.g. {reasoning_effort: high}.
    arguments: dict[str, Any] = Field(default_factory=dict)
    # What a template takes for today: else a prompt would be another one every day. It is
    # the date that Llama 3.1's template has for its default.
    date: str = "2024-07-26"

    @field_validator("thinking", mode="before")
    @classmethod
    def _as_yaml_reads_it(cls, value: Any) -> Any:
        """YAML takes on and off for true and false."""
        return ("off", "on")[value] if isinstance(value, bool) else value

    @field_validator("date")
    @classmethod
    def _is_a_date(cls, value: str) -> str:
        return date.fromisoformat(value).isoformat()

    def __hash__(self) -> int:  # the mapping has no hash of its own
        return hash(self.model_dump_json())

    @property
    def identity(self) -> dict[str, str]:
        """What completions depend on because of it: nothing where all is as by default."""
        return {} if self == ChatSettings() else {"chat": self.model_dump_json()}


class EngineSettings(Frozen):
    """How completions are made."""

    kind: EngineKind = "transformers"
    over: Literal["transformers", "vllm", "openai"] = "vllm"  # what each actor holds (ray)
    # Processes (transformers), actors (ray). auto: one for each GPU; on a CPU one of one
    # thread for each core where the model is small, else one that has all cores.
    workers: int | Literal["auto"] = "auto"
    batch_size: int = Field(128, ge=1)  # prompts in one batch: rows computed at once
    dtype: Dtype = "auto"  # see inference.decoding_precision
    chat: ChatSettings = ChatSettings()  # in a profile, set by its `chat`
    force: bool = False  # start although memory is estimated not to be enough
    # What becomes of a question that leaves no room for an answer in the model's context.
    over_long: Literal["skip", "cut"] = "skip"

    @field_validator("workers")
    @classmethod
    def _some_worker(cls, workers: int | str) -> int | str:
        if isinstance(workers, int) and workers < 1:
            raise ValueError("workers is 1 or more, or auto")
        return workers


class Sampling(Frozen):
    """Decoding parameters; `temperature` 0 means greedy."""

    samples: int = Field(1, ge=1)
    temperature: float = Field(0.0, ge=0.0)
    top_p: float = Field(1.0, gt=0.0, le=1.0)
    max_new_tokens: int = Field(256, ge=1)
    seed: int = 0

    @model_validator(mode="after")
    def _samples_differ(self) -> Sampling:
        if self.samples > 1 and self.temperature == 0:
            raise ValueError("several samples at temperature 0 would all be the same")
        return self


Normalisation = Literal["full", "case", "none"]  # see problems.text.FORMS


class PoolSettings(Frozen):
    """Where problems come from and when two are the same (chapter 3)."""

    source: str  # "lab", "gym", a local file or folder, or a Hub data set
    size: int = Field(ge=1)  # problems taken from the source
    seed: int = 0
    ngram: int = Field(13, ge=2)  # words that a contaminated problem shares
    characters: int = Field(13, ge=2)  # the same for a benchmark item in Chinese
    # The least share of the n-grams of the problem, or of the item; 0: one is enough.
    threshold: float = Field(0.0, ge=0.0, le=1.0)
    common: int = Field(2, ge=0)  # unlike items whose phrases are no evidence; 0: all are
    normalisation: Normalisation = "full"  # of the texts that are searched for n-grams
    near_duplicate: float = Field(0.9, gt=0.0, le=1.0)  # Jaccard of word 3-shingles
    # Our column: the source's field, for a file or data set that sources.yaml does not know.
    fields: dict[str, str] = Field(default_factory=dict)
    # For "gym": families of reasoning-gym, each with values of its own configuration, or with
    # a `level` of its curriculum from 1 (none: those in domain of problems/gym.yaml).
    families: dict[str, dict[str, Any]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _families_are_drawn(self) -> PoolSettings:
        if self.families and self.source != "gym":
            raise ValueError(
                f"families are those of source gym, and the source is {self.source!r}"
            )
        return self


class FilterSettings(Frozen):
    """A filter by solving: keep questions with `keep[0]..keep[1]` right (chapter 4)."""

    sampling: Sampling
    keep: tuple[int, int]
    stop_every: int | None = Field(None, ge=1)  # attempts between two looks; none: no stop
    never_stopped: int = Field(200, ge=0)  # questions with all attempts, for distributions


class ChainSettings(Frozen):
    """How many questions get chains, and how many chains are kept (chapters 4, 5)."""

    questions: int = Field(ge=1)  # balanced selection from the survivors
    embeddings: str | None = None  # the model that compares questions; none: TF-IDF
    rows: int = Field(ge=1)  # the best (question, chain) pairs: the training set
    sampling: Sampling  # of each teacher
    teachers: tuple[str, ...] = ()  # none: the strong model

    @property
    def every_sample(self) -> FilterSettings:
        """For `selection.solve`: chains are wanted from all samples, whatever comes."""
        return FilterSettings(sampling=self.sampling, keep=(0, self.sampling.samples))


OverLength = Literal["cut", "drop"]  # of a row over the limit of tokens


class LoraSettings(Frozen):
    """Small matrices beside frozen weights; they alone are trained (needs `peft`)."""

    rank: int = Field(16, ge=1)
    alpha: float = Field(32, gt=0)  # what they add is scaled by alpha / rank
    dropout: float = Field(0.0, ge=0.0, lt=1.0)


class SftSettings(Frozen):
    """Fine-tuning (chapter 6); batch is global, lengths are in tokens."""

    epochs: int = Field(ge=1)
    batch_size: int = Field(ge=1)  # rows per optimiser step over all ranks
    learning_rate: float = Field(gt=0)
    scheduler: str = "cosine"
    warmup_ratio: float = 0.0
    weight_decay: float = 0.0
    max_tokens: int = Field(ge=8)
    zero_stage: Literal[0, 1, 2, 3] = 3
    ranks: int = Field(2, ge=1)
    offload: bool = False
    dtype: Dtype = "auto"  # see precision.settle; bfloat16 keeps 32-bit weights too
    gradient_checkpointing: bool = False
    attention: Literal["auto", "sdpa", "eager", "flash_attention_2"] = "auto"
    chat: ChatSettings = ChatSettings()  # in a profile, set by its `chat`
    over_length: OverLength = "cut"  # of rows over max_tokens
    packing: bool | Literal["auto"] = "auto"  # auto: where FlashAttention 2 is used
    liger: bool = False  # fused kernels: the logits are never held as a whole
    # As transformers names them. Adafactor keeps sums of rows and columns in place of Adam's
    # two averages: half of the memory, and another update.
    optimizer: Literal["adamw_torch", "adafactor"] = "adamw_torch"
    lora: LoraSettings | None = None  # none: all weights are trained
    force: bool = False  # start although memory is estimated not to be enough
    report_to: str = "none"  # where transformers sends losses: tensorboard, wandb, …
    keep_epochs: bool = False  # the model after every epoch, and not the last alone
    # Share of the selected questions that no arm trains on: they decide which epoch is used.
    held_out: float = Field(0.0, ge=0.0, lt=1.0)
    # Other values that sources name for the same run, e.g. {authors: {batch_size: 32}}.
    versions: dict[str, dict[str, Any]] = Field(default_factory=dict)
    seeds: tuple[int, ...] = (1, 2, 3)
    bulk_factor: int = Field(50, ge=1)  # rows of the bulk arm per LIMO row

    @model_validator(mode="after")
    def _there_are_epochs_to_choose_from(self) -> SftSettings:
        if self.held_out and not self.keep_epochs:
            raise ValueError("held_out chooses among epochs: set keep_epochs to true as well")
        return self

    @model_validator(mode="after")
    def _adapters_are_no_epoch_s_model(self) -> SftSettings:
        if self.lora and self.keep_epochs:
            raise ValueError("keep_epochs keeps whole models, and a checkpoint of lora is none")
        return self

    @model_validator(mode="after")
    def _versions_are_valid(self) -> SftSettings:
        for name in self.versions:
            self.version(name)
        return self

    def version(self, name: str) -> SftSettings:
        """These settings with the values of `versions[name]`; it has no versions itself."""
        if name not in self.versions:
            known = ", ".join(self.versions) or "none"
            raise ValueError(f"these settings have no version {name!r}; there are: {known}")
        return SftSettings(**self.model_dump(exclude={"versions"}) | self.versions[name])


class EvaluationSettings(Frozen):
    """Benchmarks and decoding (chapter 8)."""

    benchmarks: tuple[str, ...]
    items: int = Field(ge=1)  # at most this many per benchmark
    sampling: Sampling
    votes: Sampling  # several samples per item, for majority voting (chapters 7, 11)
    # At most this many per benchmark where many ways of asking are compared (chapters 7, 11);
    # None: a tenth of `items`.
    compared_items: int | None = Field(None, ge=1)
    # Ways to ask the untrained base besides the chat (`experiments.asking`): baselines.
    baselines: tuple[Literal["few-shot", "prefill", "textbook"], ...] = ()
    # Problems of the lab's ladder, for each family and number of steps (chapter 2).
    ladder: int = Field(6, ge=1)


class AblationSettings(Frozen):
    """The small arms of chapter 9; each is trained once per seed."""

    arms: tuple[str, ...]  # names of `experiments.ARMS`
    sizes: tuple[int, ...]  # numbers of rows
    rows: int = Field(ge=1)  # at most, of the arms that are levels of chains or questions
    asked: int = Field(ge=1)  # questions drawn from the pool for the arms that want others
    samples: int = Field(ge=1)  # chains of each of them
    seeds: tuple[int, ...] = (1, 2, 3)
    doses: tuple[int, ...] = ()  # millions of tokens that the lab's foundations have read
    dose_sets: tuple[str, ...] = ("limo",)  # training sets that each dose is tuned on
    dose_seeds: tuple[int, ...] = (1,)  # of their fine-tuning


class StudySettings(Frozen):
    """The wide comparisons behind chapter 9 (`experiments.study`).

    A group without its values is not made; the chapter then draws what was recorded of it.
    """

    seeds: tuple[int, ...] = (1, 2, 3)  # of fine-tuning
    rich: tuple[str, ...] = ()  # foundations that differ in the pretraining seed
    poor: tuple[str, ...] = ()  # poor backbones, likewise, in the same order
    sizes: tuple[str, ...] = ()  # foundations that differ in width
    teachers: tuple[str, ...] = ()  # besides those of the rows
    epochs: tuple[int, ...] = ()  # passes over limo's rows
    rows: tuple[int, ...] = ()  # numbers of random rows
    draws: int = Field(3, ge=1)  # of each number
    ranks: tuple[int, ...] = ()  # of LoRA's matrices
    lora_rate: float = Field(3.0e-3, gt=0)  # learning rate with LoRA
    pass_at: int = Field(0, ge=0)  # samples a problem, of foundations of several doses
    # Learning rates that are tried for every arm on held-out problems of the pool.
    rates: tuple[float, ...] = ()
    held_out: int = Field(60, ge=1)  # of these problems, at most


class Profile(Frozen):
    """Everything that a run depends on; see `limo_nb/core/profiles/*.yaml`.

    `chat` (see `ChatSettings`) is given once and kept where it is used: in `engine` and
    `sft`, which must agree, since training is to see what inference shows.
    """

    name: str
    purpose: str
    system_prompt: str = SYSTEM_PROMPT
    models: Models
    engine: EngineSettings
    pool: PoolSettings
    coarse: FilterSettings
    fine: FilterSettings
    chains: ChainSettings
    sft: SftSettings
    evaluation: EvaluationSettings
    ablations: AblationSettings
    study: StudySettings = StudySettings()

    @model_validator(mode="before")
    @classmethod
    def _chat_is_given_once(cls, values: Any) -> Any:
        if not isinstance(values, Mapping) or "chat" not in values:
            return values
        given = {name: value for name, value in values.items() if name != "chat"}
        for part in ("engine", "sft"):
            if isinstance(given.get(part), Mapping):
                given[part] = {"chat": values["chat"], **given[part]}
        return given

    @model_validator(mode="after")
    def _training_sees_what_inference_shows(self) -> Profile:
        if self.engine.chat != self.sft.chat:
            raise ValueError("engine.chat and sft.chat differ: set `chat`, which is both")
        return self

    @property
    def teachers(self) -> tuple[str, ...]:
        """The models that chains are sampled from (chapter 5)."""
        return self.chains.teachers or (self.models.strong,)

    def only(self, *sections: str) -> Profile:
        """Nothing but `sections` of this profile: what a stage declares that it reads.

        Reading another is an AttributeError that names both. Raises ValueError where the
        profile has no such section.
        """
        unknown = [name for name in sections if name not in Profile.model_fields]
        if unknown:
            known = ", ".join(Profile.model_fields)
            raise ValueError(f"a profile has no section {unknown[0]!r}; there are {known}")
        part = Part.model_construct(**{name: getattr(self, name) for name in sections})
        for name in set(part.__dict__) - set(sections):  # pydantic's defaults
            del part.__dict__[name]
        return part


class Part(Profile):
    """Some sections of a profile; made by `Profile.only`."""

    def __getattr__(self, name: str) -> Any:
        if name in Profile.model_fields:
            declared = ", ".join(sorted(self.model_fields_set)) or "nothing"
            raise AttributeError(
                f"the section {name!r} of the profile was not declared, only {declared}: "
                f"add it to `reads`"
            )
        return super().__getattr__(name)  # type: ignore[misc] # pydantic hides its own


def profile_names() -> list[str]:
    """The profiles that the package brings."""
    files = resources.files("limo_nb.core").joinpath("profiles").iterdir()
    return sorted(Path(f.name).stem for f in files if f.name.endswith(".yaml"))


def load_profile(name: str, overrides: Mapping[str, Any] | None = None) -> Profile:
    """Profile `name` (or a path to a YAML file) with nested or dotted `overrides`.

    Raises ValueError that names the profile, the field and what it may be.
    """
    path = resources.files("limo_nb.core").joinpath("profiles", f"{name}.yaml")
    if not path.is_file():
        path = Path(name)
        if not path.is_file():
            raise ValueError(f"no profile {name!r}; there are {', '.join(profile_names())}")
    raw = yaml.safe_load(path.read_text())
    for key, value in (overrides or {}).items():
        _merge(raw, key.split("."), value)
    return checked(Profile, f"profile {name!r}", raw)


def checked(kind: type[Settings], name: str, values: Mapping[str, Any]) -> Settings:
    """Settings of class `kind`; ValueError that names `name`, the field and what it may be."""
    try:
        return kind(**values)
    except ValidationError as error:
        told = "\n".join(f"  {_fault(fault)}" for fault in error.errors())
        raise ValueError(f"{name} is not valid:\n{told}") from None


def _fault(fault: Mapping[str, Any]) -> str:
    """What pydantic found, without its own words around a validator's."""
    place, told = ".".join(map(str, fault["loc"])), fault["msg"].removeprefix("Value error, ")
    return f"{place}: {told}" if place else told  # none: of several fields together


def _merge(raw: dict, keys: list[str], value: Any) -> None:
    """Set `raw[k1][k2]… = value`; mappings are merged, other values replaced."""
    *path, last = keys
    for key in path:
        raw = raw.setdefault(key, {})
    if isinstance(value, Mapping) and isinstance(raw.get(last), dict):
        for key, inner in value.items():
            _merge(raw[last], [key], inner)
    else:
        raw[last] = value
