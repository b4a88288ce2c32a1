"""Will it fit, how long, what does it cost? Answered before anything is started.

Memory of each GPU by part, host memory of a node, seconds a step and GPU-hours, from the
shape of a model and the settings of a run. GB are 10⁹ bytes. Model states follow
DeepSpeed's own estimators (stages 2 and 3), which the tests compare; stages 0 and 1 are
derived in the same way. What stage 3 holds beyond them while the optimiser steps was read
in its code; the tests compare the sum with the live tensors of a run. Activations and
logits are counted from the tensors that the layers of transformers keep for the backward
pass; the tests compare them with a run on a CPU. No GPU has measured them: `UNMEASURED`
says so wherever they are shown. On a CPU all ranks and all parts are in the memory of the
host; the tests compare the sum with what a process came to. Chapter 6.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from limo_nb.inference.shapes import Shape, shape_of
from limo_nb.sft.passes import pass_limit, rows_a_pass

if TYPE_CHECKING:
    from limo_nb.core.settings import SftSettings

GB = 10**9
BUFFER = 1.5  # DeepSpeed's factor for buffers in host memory
# Elements of the buffer in which DeepSpeed reduces gradients: its own default, and less where
# it would be as large as the model in the memory that all ranks share.
BUCKET = 5 * 10**8
CPU_BUCKET = 5 * 10**7
SUB_GROUP = 10**9  # DeepSpeed's sub_group_size: weights that the optimiser steps at once
PERSISTENT = 100_000  # DeepSpeed's stage3_param_persistence_threshold
UNMEASURED = (
    "activations, logits and times are computed, not measured on a GPU; fragments of the "
    "allocator and the CUDA context come on top"
)
PROCESS = int(0.7 * GB)  # of a rank on a CPU: an interpreter with torch and transformers
Offload = Literal["none", "optimizer", "all"]


@dataclass(frozen=True)
class Setup:
    """A run to be judged; `gpus` is over all nodes, lengths are in tokens.

    With `cpu` the ranks are processes, of which `gpus` is the number and `gpu_memory` what
    they have together. Without `deepspeed` there is one rank, and HF's Trainer alone.
    """

    model: str
    shape: Shape
    gpus: int
    gpu_memory: float  # GB of one GPU
    tokens: int  # the limit of a row
    zero: int = 3
    offload: Offload = "none"
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    checkpointing: bool = True
    liger: bool = False
    packing: bool = False
    gpus_per_node: int = 8
    rows: int = 800
    batch_size: int = 64  # rows a step, over all GPUs
    epochs: int = 15
    mean_tokens: int = 0  # of a row; 0: as long as the limit, which bounds the time
    tflops: float = 312.0  # a GPU's peak in bf16: an A100's
    mfu: float = 0.35  # the share of it that is reached: a statement, not a measurement
    cpu: bool = False
    deepspeed: bool = True
    optimizer: Literal["adamw_torch", "adafactor"] = "adamw_torch"
    lora_rank: int = 0  # 0: all weights are trained
    eager: bool = False  # attention that keeps its scores

    @property
    def trained(self) -> int:
        """Parameters that have gradients."""
        if not self.lora_rank:
            return self.shape.parameters
        shape = self.shape
        ends = (
            2 * (shape.hidden + shape.queries)  # queries, output
            + 2 * (shape.hidden + shape.keys)  # keys, values
            + 3 * (shape.hidden + shape.intermediate)
        )
        return shape.layers * self.lora_rank * ends


@dataclass(frozen=True)
class Plan:
    """What a `Setup` takes. Bytes are of one GPU; host bytes are of one node.

    `peak` is less than the sum of the parts: a layer that is computed again, the logits
    and what the optimiser's step adds are never there at the same time.
    """

    setup: Setup
    weights: int
    gradients: int
    optimiser: int
    gathered: int  # under stage 3: weights and gradients of the layer at work
    buffers: int  # of communication
    kept: int  # activations that a forward pass leaves for the backward pass
    again: int  # of the layer at work: its gradients, and what is computed again
    logits: int
    step: int  # copies of gradients while the optimiser steps
    host: int
    step_seconds: float
    steps: int

    @property
    def states(self) -> int:
        """Weights, gradients and optimiser, and what stage 3 gathers of them."""
        return self.weights + self.gradients + self.optimiser + self.gathered

    @property
    def activations(self) -> int:
        """Those kept, and those of the layer that is computed again."""
        return self.kept + self.again

    @property
    def peak(self) -> int:
        """The most that is there at once: in the backward pass, or as the optimiser steps."""
        passing = self.kept + max(self.again, self.logits)
        return self.states + self.buffers + max(passing, self.step - self.gathered)

    @property
    def whole(self) -> int:
        """What must be there: the peak of a GPU, or on a CPU that of all ranks together."""
        return sum(self.needs().values())

    def needs(self) -> dict[str, int]:
        """Bytes by part, of which `whole` is the sum."""
        parts = {name: int(size * GB) for name, size in self.stacked().items()}
        if not self.setup.cpu:
            return parts
        parts = {name: size * self.setup.gpus for name, size in parts.items()}
        return {"processes": PROCESS * self.setup.gpus, **parts}

    @property
    def fits(self) -> bool:
        """Whether that is within the GPU's memory, or the host's."""
        return self.whole <= self.setup.gpu_memory * GB

    @property
    def gpu_hours(self) -> float:
        """Of the whole run."""
        return self.steps * self.step_seconds * self.setup.gpus / 3600

    def parts(self) -> dict[str, float]:
        """GB by part, in the order in which a picture stacks them."""
        states = ("weights", "gradients", "optimiser", "gathered")
        names = (*states, "buffers", "activations", "logits", "step")
        return {name: getattr(self, name) / GB for name in names}

    def stacked(self) -> dict[str, float]:
        """GB by part, of which each later one is what it adds: they sum to the peak."""
        parts = self.parts()
        made = {name: parts[name] for name in ("weights", "gradients", "optimiser")}
        made["gathered, buffers"] = parts["gathered"] + parts["buffers"]
        level = 0
        for name, total in (
            ("activations", self.activations),
            ("logits", self.kept + self.logits),
            ("step", self.step - self.gathered),
        ):
            made[name] = max(0, total - level) / GB
            level = max(level, total)
        return made

    def row(self) -> dict[str, Any]:
        """One row of a table, for people and for `--json`."""
        return {
            **{
                name: value
                for name, value in asdict(self.setup).items()
                if name not in ("shape", "rows", "batch_size", "epochs", "mean_tokens")
            },
            "parameters": self.setup.shape.parameters,
            "per_gpu_gb": {name: round(value, 3) for name, value in self.parts().items()},
            "peak_gb": round(self.peak / GB, 3),
            "fits": self.fits,
            "host_gb_a_node": round(self.host / GB, 3),
            "step_seconds": round(self.step_seconds, 2),
            "steps": self.steps,
            "gpu_hours": round(self.gpu_hours, 1),
        }


def setup_of(
    settings: SftSettings, model: str, gpus: int, gpu_memory: float, rows: int, **changes: Any
) -> Setup:
    """The run of a profile's `settings` on `rows` rows; `changes` are other fields.

    A batch that the GPUs cannot share is rounded up.
    """
    batch = -(-settings.batch_size // gpus) * gpus
    standard = {
        "tokens": settings.max_tokens, "zero": settings.zero_stage,
        # The GPUs that are planned for need not be here to be measured.
        "dtype": "bfloat16" if settings.dtype == "auto" else settings.dtype,
        "checkpointing": settings.gradient_checkpointing, "liger": settings.liger,
        "packing": settings.packing is True, "epochs": settings.epochs, "batch_size": batch,
    }  # fmt: skip
    return Setup(
        model=model, shape=shape_of(model), gpus=gpus, gpu_memory=gpu_memory, rows=rows,
        **{**standard, **changes},
    )  # fmt: skip


# ------------------------------------------------------------------------ model states
def persistent(shape: Shape) -> int:
    """Parameters that stage 3 leaves whole on every GPU; in a small model these are most.

    To gather them anew would cost more than their memory.
    """
    return sum(count * size for count, size in shape.tensors if size <= PERSISTENT)


def states(setup: Setup) -> tuple[int, int, int, int]:
    """(weights, gradients, optimiser, gathered) in bytes of one GPU.

    In bf16, as DeepSpeed counts: 2 for a weight, 2 for its gradient and 4 for that in 32
    bits, 4 + 8 for Adam's copy of the weight and its two averages. In fp32 the 2s are 4s,
    and without ZeRO neither copy is made.
    Stage 1 divides the optimiser's part among the GPUs, stage 2 also gradients, stage 3
    also weights; there gradients before their copy exist for the layer at work only, whose
    weights and gradients are "gathered". What is offloaded is in host memory. Weights
    without gradients, beside adapters, have their own type and nothing else.
    """
    if not setup.deepspeed:
        return _plain_states(setup)
    shape, zero, offload = setup.shape, setup.zero, setup.offload
    half, parameters, trained = setup.dtype == "bfloat16", shape.parameters, setup.trained
    size = 2 if half else 4
    since = [1.0 if zero < stage else 1 / setup.gpus for stage in (1, 2, 3)]
    weights = (parameters + (trained if setup.lora_rank else 0)) * size * since[2]
    gradients = trained * 4 * since[0] if half or zero else 0
    gradients += trained * size * since[1] if zero < 3 else 0
    optimiser = trained * (8 + (4 if half or zero else 0)) * since[0]
    if offload != "none":
        optimiser = gradients = 0
    if offload == "all":
        weights = 0
    gathered = 0
    if zero == 3:
        weights += persistent(shape) * size
        gathered = 2 * size * shape.largest_layer
    return int(weights), int(gradients), int(optimiser), gathered


def _plain_states(setup: Setup) -> tuple[int, int, int, int]:
    """The same without DeepSpeed: weights in 32 bits, of which autocast makes copies in 16.

    Adafactor's sums of rows and columns are nothing beside the rest.
    """
    parameters, trained = setup.shape.parameters, setup.trained
    size = 2 if setup.dtype == "bfloat16" else 4
    weights = 4 * parameters + (2 * parameters if size == 2 else 0)
    if setup.lora_rank:
        weights = size * parameters + 4 * trained
    optimiser = 0 if setup.optimizer == "adafactor" else 8 * trained
    return weights, 4 * trained, optimiser, 0


def step_bytes(setup: Setup) -> int:
    """Bytes by which it exceeds `states`, less "gathered", as the optimiser steps.

    DeepSpeed 0.19 keeps the gradients of a rank's part in one flat buffer, in the type of
    the weights. For the step it copies those of one sub-group after the other into 32
    bits (`_prepare_fp32_grad_for_sub_group` of its stage 3); the buffer stays. Its
    estimator counts 4 bytes for both together. By then nothing is gathered any more, the
    weights that are otherwise left whole included, and the activations are gone.

    Without DeepSpeed the optimiser works on one tensor after the other, with two of its
    size, or three, beside it; and when the model is written, safetensors holds a copy of all
    weights, while there are no gradients.
    """
    shape = setup.shape
    if not setup.deepspeed:
        largest = shape.largest_layer if not setup.lora_rank else 0
        beside = (3 if setup.optimizer == "adafactor" else 2) * 4 * largest
        size = 2 if setup.lora_rank and setup.dtype == "bfloat16" else 4
        return max(beside, size * shape.parameters - 4 * setup.trained)
    if setup.zero < 3 or setup.offload != "none":
        return 0
    part, size = shape.parameters / setup.gpus, 2 if setup.dtype == "bfloat16" else 4
    copied = 4 * min(part, SUB_GROUP) + (size - 4) * part
    return int(max(0, copied - size * persistent(shape)))


def host_bytes(setup: Setup) -> int:
    """Memory of one node, by the formulas of DeepSpeed's estimators.

    Without offload it is what loading takes: under stage 3 the largest layer on every
    rank, below it the whole model in 32 bits on every rank.
    """
    shape, here = setup.shape, min(setup.gpus, setup.gpus_per_node)
    nodes = math.ceil(setup.gpus / setup.gpus_per_node)
    if setup.offload == "none":
        loaded = shape.largest_layer if setup.zero == 3 else shape.parameters
        return int(loaded * 4 * here * BUFFER)
    if setup.zero < 3:
        return int(shape.parameters * max(4 * setup.gpus, 16) * BUFFER)
    return int(shape.parameters * (18 if setup.offload == "all" else 16) / nodes * BUFFER)


# ------------------------------------------------------------- what a forward pass keeps
def kept_bytes(shape: Shape, dtype: str) -> int:
    """Bytes a token that the forward pass of one layer leaves for its backward pass.

    Counted on transformers' decoder layer with an attention that keeps no scores: both
    norms keep their input in 32 bits and what they scaled; the projections their inputs;
    attention queries, keys, values and its result; the gated layer four of its width.
    """
    size = 2 if dtype == "bfloat16" else 4
    norms = 2 * (4 + size) * shape.hidden
    projections = 2 * size * shape.hidden
    attention = size * (2 * shape.queries + 2 * shape.keys)
    return norms + projections + attention + 4 * size * shape.intermediate


def working_bytes(shape: Shape, dtype: str) -> int:
    """Bytes a token that the backward pass of one layer adds: gradients of its width."""
    return 3 * (2 if dtype == "bfloat16" else 4) * shape.intermediate


def logit_bytes(shape: Shape, tokens: int, dtype: str, liger: bool) -> int:
    """Bytes of the logits of `tokens` at their peak, in the backward pass of the loss.

    The logits, their copy in 32 bits after the softmax, and two gradients of that: 14
    bytes each in bf16, 16 in fp32. Liger's fused loss makes them in chunks and keeps the
    gradient of the output layer instead.
    """
    size = 2 if dtype == "bfloat16" else 4
    if not liger:
        return (size + 12) * shape.vocabulary * tokens
    chunks = math.ceil(shape.vocabulary / shape.hidden)
    chunk = 2 ** math.ceil(math.log2(max(1, math.ceil(tokens / chunks))))
    return (size + 4) * chunk * shape.vocabulary + size * shape.embedding


def bytes_a_token(shape: Shape, dtype: str, checkpointing: bool) -> int:
    """What a pass takes for each of its tokens: activations that are kept, and logits."""
    kept = (2 if dtype == "bfloat16" else 4) * shape.hidden
    kept = kept if checkpointing else kept_bytes(shape, dtype)
    return shape.layers * kept + logit_bytes(shape, 1, dtype, liger=False)


def tokens_a_pass(setup: Setup) -> int:
    """Tokens of the largest forward pass of a rank, as the trainer cuts a step."""
    each = bytes_a_token(setup.shape, setup.dtype, setup.checkpointing) if setup.cpu else None
    limit = pass_limit(each, alone=not setup.deepspeed)
    if setup.packing:
        return max(limit, setup.tokens)
    share = max(1, setup.batch_size // setup.gpus)
    return rows_a_pass(share, setup.tokens, limit) * setup.tokens


def plan(setup: Setup) -> Plan:
    """What `setup` takes. Raises ValueError for a combination that DeepSpeed has not."""
    if setup.offload == "all" and setup.zero < 3 or setup.offload != "none" and not setup.zero:
        raise ValueError(
            f"offload {setup.offload!r} needs ZeRO stage {3 if setup.offload == 'all' else 1}"
            f"{'' if setup.offload == 'all' else ' or more'}, not {setup.zero}"
        )
    shape, tokens = setup.shape, tokens_a_pass(setup)
    layer = kept_bytes(shape, setup.dtype) * tokens
    working = working_bytes(shape, setup.dtype) * tokens
    # Scores of every token with those of its row, in 32 bits; twice more as they go back.
    scores = 4 * shape.heads * setup.tokens * tokens if setup.eager else 0
    size = 2 if setup.dtype == "bfloat16" else 4
    kept = size * shape.hidden * tokens if setup.checkpointing else layer + scores
    again = working + (layer + 3 * scores if setup.checkpointing else 2 * scores)
    # The gradient of the output layer, before it is added to those of other passes.
    added = size * shape.embedding if setup.trained == shape.parameters else 0
    bucket = CPU_BUCKET if setup.cpu else BUCKET
    return Plan(
        setup, *states(setup),
        buffers=bucket * size if setup.zero > 1 and setup.deepspeed else 0,
        kept=shape.layers * kept, again=again,
        logits=logit_bytes(shape, tokens, setup.dtype, setup.liger)
        + (0 if setup.deepspeed else added),
        step=step_bytes(setup),
        host=host_bytes(setup), step_seconds=_step_seconds(setup),
        steps=setup.epochs * math.ceil(setup.rows / setup.batch_size),
    )  # fmt: skip


def _step_seconds(setup: Setup) -> float:
    """Seconds of one optimiser step at the stated MFU, offload not counted.

    Packed rows cost their own tokens. Rows that are not packed cost, in every pass, as
    much as the longest on any rank, for which the others wait: at most the limit.
    """
    mean = setup.mean_tokens or setup.tokens
    computed = mean if setup.packing else setup.tokens
    flops = setup.batch_size * computed * setup.shape.flops_a_token(computed)
    return flops / (setup.gpus * setup.tflops * 1e12 * setup.mfu)


def alternatives(setup: Setup) -> list[Plan]:
    """`setup` as it is, then with Liger kernels and with more offload, each a plan."""
    offloads: Sequence[Offload] = ("none", "optimizer", "all") if setup.zero == 3 else ("none",)
    if setup.zero in (1, 2):
        offloads = ("none", "optimizer")
    setups = [replace(setup, offload=o, liger=k) for o in offloads for k in (False, True)]
    return [plan(setup), *(plan(other) for other in setups if other != setup)]


def changes(setup: Setup) -> str:
    """What `alternatives` changed, in words; empty for nothing."""
    offload = {"none": "", "optimizer": "optimiser offloaded", "all": "all offloaded"}
    return ", ".join(filter(None, (offload[setup.offload], "Liger" * setup.liger)))


def label(setup: Setup) -> str:
    """A short name of a setup, for a table's row or a picture's bar."""
    words = (f"{setup.gpus} × {setup.gpu_memory:g} GB", f"ZeRO-{setup.zero}", changes(setup))
    return ", ".join(filter(None, words))
