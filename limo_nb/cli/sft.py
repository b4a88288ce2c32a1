"""Fine-tuning from a terminal: encode rows, train on them, on several machines, or plan."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from limo_nb.cli.base import (
    AsJson,
    Columns,
    Continued,
    File,
    Force,
    Model,
    Overrides,
    Profile,
    Replace,
    Rows,
    SkipBroken,
    app,
    emit,
    if_there,
    name_broken,
    parse_overrides,
    rows_from,
    rows_to,
    tell,
    there,
)
from limo_nb.core import settings
from limo_nb.core.settings import OverLength, SftSettings
from limo_nb.sft.planner import Offload

if TYPE_CHECKING:
    from datasets import Dataset

    from limo_nb.sft import Plan

Variant = Annotated[
    str | None, typer.Option("--variant", help="A variant of the profile's settings.")
]
System = Annotated[
    str | None, typer.Option("--system", help="System prompt; else the profile's.")
]


def _settings(
    profile: str, override: list[str] | None, version: str | None = None
) -> tuple[SftSettings, settings.Profile]:
    """(settings of fine-tuning, the whole profile)."""
    whole = settings.load_profile(profile, parse_overrides(override))
    return (whole.sft.version(version) if version else whole.sft), whole


def suited(model: str) -> str:
    """The profile whose settings suit `model`: those of the lab are no measure for others."""
    return "mini" if model.startswith("lab:") else "small"


def _changed(own: SftSettings, config: Path | None, options: dict[str, Any]) -> SftSettings:
    """`own` with what a YAML file says, and then with the options that were given."""
    import yaml

    said = yaml.safe_load(config.read_text("utf-8")) if config else {}
    if not isinstance(said, dict):
        raise ValueError(f"{config}: expected a mapping such as `epochs: 3`")
    said |= {name: value for name, value in options.items() if value is not None}
    known = own.model_dump() | said
    return settings.checked(SftSettings, f"the settings of {config or 'this run'}", known)


@contextmanager
def _chatter(as_json: bool) -> Iterator[None]:
    """With `--json`, what the stages print goes to standard error."""
    with redirect_stdout(sys.stderr if as_json else sys.stdout):
        yield


def _read(
    file: Path, columns: list[str] | None, most: int | None, skip_broken: bool
) -> tuple[list[dict[str, Any]], list[str]]:
    """(the rows of `file` to train on, their places); how they were read is told on stderr."""
    from limo_nb.problems.dialects import parse_columns
    from limo_nb.sft import encoding

    broken: list[str] | None = [] if skip_broken else None
    with rows_from(file, most) as given:
        found = encoding.read_training_rows(given, parse_columns(columns), broken)
    name_broken(broken or [])
    for line in found.told():
        tell(line)
    return found.rows, found.places


@app.command(epilog="Example: limo-nb encode rows.jsonl -m lab:foundation --out tokens.jsonl")
def encode(
    file: File,
    model: Model,
    profile: Profile = "mini",
    system: System = None,
    max_tokens: Annotated[int | None, typer.Option(min=8, help="Else the profile's.")] = None,
    over_length: Annotated[OverLength | None, typer.Option(help="Rows over it.")] = None,
    columns: Columns = None,
    most: Rows = None,
    out: Annotated[
        Path | None, typer.Option(help="Rows of ids and labels; else they are printed.")
    ] = None,
    replace: Replace = False,
    skip_broken: SkipBroken = False,
    override: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Token ids and labels of each row, and which rows are over the limit."""
    from limo_nb.core import records
    from limo_nb.inference import DEFAULT_SYSTEM, load_tokenizer
    from limo_nb.sft import encoding

    if out is not None:
        out = rows_to(file, out, records.WRITTEN, replace, as_json)
    own, whole = _settings(profile, override)
    limit, how = max_tokens or own.max_tokens, over_length or own.over_length
    prompt = whole.system_prompt if system is None else system
    rows, places = _read(file, columns, most, skip_broken)
    encoded = encoding.encode(rows, load_tokenizer(model), prompt, limit, how, places, own.chat)
    tell(encoded.manner)
    if encoded.over:
        tell(encoding.over_length_report(encoded, limit))
    gone = set(encoded.dropped)
    numbers = [number for number in range(len(rows)) if number not in gone]
    made: list[dict[str, Any]] = [
        {"row": number, "id": rows[number].get("id"), "ids": row.ids, "labels": row.labels}
        for number, row in zip(numbers, encoded.rows, strict=True)
    ]
    document = {
        "model": model, "system": prompt or DEFAULT_SYSTEM, "max_tokens": limit, "rows": made,
        "over_length": [asdict(row) for row in encoded.over], "dropped": encoded.dropped,
        "manner": encoded.manner,
    }  # fmt: skip
    if out is not None:
        records.write_records(made, out)
        document |= {"rows": len(made), "out": str(out)}
        emit(document, as_json, [f"{len(made)} rows of ids and labels: {out}"], out)
        return
    emit(document, as_json, _encoded_shown(made))


def _encoded_shown(rows: Iterable[dict[str, Any]]) -> Iterator[str]:
    from limo_nb.sft import IGNORED

    for row in rows:
        learnt = sum(label != IGNORED for label in row["labels"])
        yield f"row {row['row']}: {len(row['ids'])} tokens, {learnt} with loss"
        yield f"  ids    {row['ids']}\n  labels {row['labels']}"


@app.command(
    cls=Continued,
    epilog="Example: limo-nb sft rows.jsonl -m lab:foundation --epochs 4 --folder tuned",
)
def sft(
    file: File,
    model: Model,
    profile: Annotated[
        str | None,
        typer.Option("--profile", "-p", help="A profile or YAML file; none: what suits MODEL."),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(callback=if_there, help="YAML with settings of this run: epochs, lora, …"),
    ] = None,
    learning_rate: Annotated[float | None, typer.Option(min=0)] = None,
    epochs: Annotated[int | None, typer.Option(min=1)] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Rows a step.")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=8, help="Of a row.")] = None,
    ranks: Annotated[int | None, typer.Option(min=1, help="Processes, or GPUs.")] = None,
    lora: Annotated[
        int | None, typer.Option(min=1, help="Train adapters of this rank; weights stay.")
    ] = None,
    held_out: Annotated[
        Path | None,
        typer.Option(
            "--evaluate",
            callback=if_there,
            help="Rows that are not trained on; their loss is told after every epoch.",
        ),
    ] = None,
    report_to: Annotated[
        str | None, typer.Option(help="Where losses go too: tensorboard, wandb, …")
    ] = None,
    folder: Annotated[
        Path | None, typer.Option(help="For checkpoints and the result; runs/sft/FILE.")
    ] = None,
    seed: int = 1,
    variant: Variant = None,
    system: System = None,
    prepare: Annotated[
        bool, typer.Option("--prepare", help="Write the folder only, for `limo-nb launch`.")
    ] = False,
    force: Force = False,
    columns: Columns = None,
    most: Rows = None,
    skip_broken: SkipBroken = False,
    override: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Fine-tune MODEL on the rows of FILE; a run that was killed is continued."""
    from datasets import Dataset

    from limo_nb import sft as room
    from limo_nb.inference import absolute_name
    from limo_nb.sft import encoding

    own, whole = _settings(profile or suited(model), override, variant)
    options = {
        "learning_rate": learning_rate, "epochs": epochs, "batch_size": batch_size,
        "max_tokens": max_tokens, "ranks": ranks, "report_to": report_to,
        "lora": {"rank": lora, "alpha": 2 * lora} if lora else None,
        "force": force or None,
    }  # fmt: skip
    own = _changed(own, config, options)
    rows, _ = _read(file, columns, most, skip_broken)
    folder = folder or Path("runs/sft") / file.stem
    # The ranks of other machines start elsewhere: a relative name would not be found.
    base = absolute_name(model)
    texts = [{name: row[name] for name in encoding.COLUMNS} for row in rows]
    prompt = whole.system_prompt if system is None else system
    kept = _held_out(held_out, columns, {row["question"] for row in rows})
    task = room.Task(Dataset.from_list(texts), base, own, seed, prompt, folder, kept)
    with _chatter(as_json):
        if prepare:
            room.rank_share(own, own.ranks)
            job = room.prepare(task)
            found = {"folder": str(folder), "key": job.key, "ranks": own.ranks}
            lines = [f"{folder} is ready for {own.ranks} ranks: see `limo-nb launch --print`"]
        else:
            made = room.fine_tune_many([task])[0]
            found = {"model": str(made), **json.loads((folder / "done.json").read_text())}
            lines = [f"the model is in {made}", *_losses(folder)]
            if own.keep_epochs:
                lines += [f"it is the last epoch's; each epoch's is in {folder / 'epochs'}"]
    emit(found, as_json, lines)


def _held_out(
    file: Path | None, columns: list[str] | None, trained: set[str]
) -> Dataset | None:
    """The rows of `file`, none of whose questions is among those that are `trained` on."""
    from datasets import Dataset

    from limo_nb.sft import encoding

    if file is None:
        return None
    rows, _ = _read(file, columns, None, False)
    both = [row["question"] for row in rows if row["question"] in trained]
    if both:
        raise ValueError(
            f"{len(both)} questions of {file} are trained on, too, e.g. {both[0][:60]!r}: "
            "rows that are held out must be others"
        )
    return Dataset.from_list([{name: row[name] for name in encoding.COLUMNS} for row in rows])


def _losses(folder: Path) -> Iterator[str]:
    """What the held-out rows lost, before training and after every epoch."""
    from limo_nb.sft.job import HELD_OUT_LOG, read_log

    rows = read_log(folder / HELD_OUT_LOG)
    if rows:
        told = ", ".join(f"{row['loss']:.3f}" for row in rows)
        least = min(rows, key=lambda row: row["loss"])
        yield (
            f"held-out loss (nats a token), before and after every epoch: {told}; least after "
            f"epoch {least['epoch']}"
        )


@app.command(epilog="Example: limo-nb launch tuned --print")
def launch(
    folder: Annotated[
        Path,
        typer.Argument(
            callback=there, help="Made by `limo-nb sft --prepare`, on a shared disk."
        ),
    ] = Path("runs/sft/rows"),
    nodes: Annotated[
        int | None, typer.Option(min=1, help="Machines; else eight ranks each.")
    ] = None,
    hosts: Annotated[str | None, typer.Option(help="Their names: a,b,c,d.")] = None,
    port: Annotated[int, typer.Option(min=1, max=65535)] = 29500,
    gpu: Annotated[bool, typer.Option(help="Ask SLURM for a GPU a rank.")] = True,
    time: Annotated[
        str | None, typer.Option(help="SLURM's limit, HH:MM:SS; else the partition's.")
    ] = None,
    cpus: Annotated[
        int | None, typer.Option(min=1, help="Cores of a machine; else all (--exclusive).")
    ] = None,
    partition: Annotated[str | None, typer.Option(help="SLURM's partition.")] = None,
    account: Annotated[str | None, typer.Option(help="SLURM's account.")] = None,
    print_: Annotated[
        bool, typer.Option("--print", help="Print the texts and write nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """A prepared run on several machines: hostfile; scripts for deepspeed, torchrun, SLURM."""
    from limo_nb.core.files import write_atomic
    from limo_nb.sft import cluster, rank_share
    from limo_nb.sft.job import TrainingJob

    if not (folder / "job.json").is_file():
        raise ValueError(f"{folder} has no job.json: `limo-nb sft FILE --prepare` writes it")
    own = TrainingJob.load(folder).settings
    share = rank_share(own, own.ranks)
    names = [name.strip() for name in (hosts or "").split(",") if name.strip()]
    machines = cluster.Cluster.of(own.ranks, nodes, names, port)
    asked = cluster.SlurmRequest(gpu, time, cpus, partition, account)
    texts = cluster.launch_scripts(folder.absolute(), machines, asked)
    if not as_json:
        tell(
            f"{len(machines.hosts)} machines with {machines.ranks_a_host} ranks each; "
            f"{own.batch_size} rows a step, {share} on each rank"
        )
    lines = [f"# ---- {name}\n{text}" for name, text in texts.items()]
    if not (print_ or as_json):
        for name, text in texts.items():
            write_atomic(folder / name, text)
        lines = [f"written: {folder / name}" for name in texts]
    emit({"ranks": machines.ranks, "files": texts}, as_json, lines)


@app.command(epilog="Example: limo-nb plan --model Qwen2.5-7B --gpus 8 --zero 3")
def plan(
    model: Annotated[str, typer.Option(help="A model's name, folder or GGUF file.")],
    gpus: Annotated[int, typer.Option(min=1, help="Over all nodes.")] = 8,
    gpu_memory: Annotated[float, typer.Option(min=1, help="GB of one GPU.")] = 80.0,
    zero: Annotated[int, typer.Option(min=0, max=3, help="ZeRO stage.")] = 3,
    tokens: Annotated[int | None, typer.Option(min=8, help="Limit of a row.")] = None,
    offload: Annotated[Offload, typer.Option(help="To host memory.")] = "none",
    packing: Annotated[bool, typer.Option(help="Rows of a pass in one sequence.")] = False,
    liger: Annotated[bool, typer.Option(help="Fused loss, no whole logits.")] = False,
    checkpointing: Annotated[bool, typer.Option(help="Layers are computed again.")] = True,
    gpus_per_node: Annotated[int, typer.Option(min=1)] = 8,
    rows: Annotated[int | None, typer.Option(min=1, help="Else the profile's.")] = None,
    mean_tokens: Annotated[int, typer.Option(min=0, help="Of a packed row; 0: the limit.")] = 0,
    tflops: Annotated[
        float, typer.Option(min=1, help="A GPU's peak in bf16; A100: 312.")
    ] = 312.0,
    mfu: Annotated[float, typer.Option(min=0.01, max=1, help="The share reached.")] = 0.35,
    profile: Profile = "paper",
    variant: Variant = None,
    override: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Memory by part, host memory, time and GPU-hours of a run, before it is started."""
    from limo_nb.sft import planner

    if mean_tokens and not packing:
        raise ValueError(
            "--mean-tokens says what packed rows cost, so give --packing with it: where rows "
            "are not packed, each pass costs as much as the longest row on any rank"
        )
    own, whole = _settings(profile, override, variant)
    setup = planner.setup_of(
        own, model, gpus, gpu_memory, rows or whole.chains.rows,
        tokens=tokens or own.max_tokens, zero=zero, offload=offload,
        checkpointing=checkpointing, liger=liger,
        packing=packing, gpus_per_node=gpus_per_node, mean_tokens=mean_tokens, tflops=tflops,
        mfu=mfu,
    )  # fmt: skip
    plans = planner.alternatives(setup)
    others = [other.row() for other in plans[1:]]
    document = {**plans[0].row(), "note": planner.UNMEASURED, "alternatives": others}
    emit(document, as_json, _plans_shown(plans))


def _plans_shown(plans: list[Plan]) -> Iterator[Table | str]:
    from limo_nb.book import sft_report
    from limo_nb.sft import planner

    setup = plans[0].setup
    yield (
        f"{setup.model}: {setup.shape.parameters / 1e9:.2f} billion parameters, rows of up to "
        f"{setup.tokens:,} tokens, {setup.batch_size} a step, {setup.rows} rows, "
        f"{setup.epochs} epochs, {plans[0].steps} steps"
    )
    shown = sft_report.memory_rows(plans)
    names = [str(row.pop("setup")).split(", ", 2) for row in shown]
    title = "GB of one GPU, " + ", ".join(names[0][:2])
    table = Table("", *(name[2] if name[2:] else "as it is" for name in names), title=title)
    table.columns[0].no_wrap = True
    for part in shown[0]:
        table.add_row(part, *(_cell(row[part]) for row in shown))
    yield table
    yield (
        f"time at {setup.mfu:.0%} of {setup.tflops:g} TFLOP/s, a stated share; "
        + planner.UNMEASURED
    )


def _cell(value: Any) -> str:
    return f"{value:,.1f}" if isinstance(value, float) else str(value)
