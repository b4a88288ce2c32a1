"""The commands of fine-tuning, as a reader types them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny import problems, tiny_model
from typer.testing import CliRunner

from limo_nb.cli import sft  # noqa: F401  (registers its commands)
from limo_nb.cli.base import app
from limo_nb.core.settings import SYSTEM_PROMPT
from limo_nb.inference import load_tokenizer
from limo_nb.sft.encoding import IGNORED
from limo_nb.sft.launch import held


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return str(tiny_model(tmp_path_factory.mktemp("tiny")))


@pytest.fixture
def file(tmp_path) -> Path:
    rows = [{"id": f"r{n}", **row} for n, row in enumerate(problems(4))]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def call(*words: object, fails: bool = False):
    """(standard output, standard error, the exception's text) of one command."""
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert bool(done.exit_code) == fails, (done.output, done.exception)
    return done.stdout, done.stderr, str(done.exception)


def test_encode_prints_ids_and_labels_of_each_row(file, model):
    out, _, _ = call("encode", file, "--model", model, "--json")
    made, tokenizer = json.loads(out), load_tokenizer(model)
    assert made["system"] == SYSTEM_PROMPT and not made["over_length"]
    assert [row["id"] for row in made["rows"]] == ["r0", "r1", "r2", "r3"]
    for row, source in zip(made["rows"], problems(4), strict=True):
        learnt = [label for label in row["labels"] if label != IGNORED]
        assert tokenizer.decode(learnt) == source["solution"] + "<|im_end|>\n"
        assert len(row["ids"]) == len(row["labels"]) and row["ids"][-len(learnt) :] == learnt
    plain, _, _ = call("encode", file, "--model", model)
    assert "row 3: " in plain and str(made["rows"][3]["ids"]) in plain.replace("\n", "")


@pytest.mark.parametrize(("how", "left"), [("cut", 4), ("drop", 3)])
def test_encode_tells_rows_over_the_limit(file, model, how, left):
    lengths = _lengths(file, model)
    limit = max(lengths) - 1
    words = ("--max-tokens", limit, "--over-length", how, "--json")
    out, err, _ = call("encode", file, "--model", model, *words)
    made, longest = json.loads(out), lengths.index(max(lengths))
    (long,) = made["over_length"]
    assert (long["row"], long["id"], long["over"]) == (longest, f"r{longest}", 1)
    assert len(made["rows"]) == left and "1 rows are over" in err
    assert made["dropped"] == ([longest] if how == "drop" else [])


def _lengths(file, model) -> list[int]:
    out, _, _ = call("encode", file, "--model", model, "--json")
    return [len(row["ids"]) for row in json.loads(out)["rows"]]


def test_a_corrupt_row_is_named_by_its_line(file, model):
    file.write_text(file.read_text() + '{"question": "q"}\nnot json\n')
    for command in ("encode", "sft"):
        _, _, message = call(command, file, "--model", model, fails=True)
        assert (
            "line 5: no chain (found: question)" in message and "line 6: not valid" in message
        )


def test_sft_prepares_a_folder_for_other_machines(file, model, tmp_path):
    words = ("sft", file, "--model", model, "--profile", "smoke", "--folder", tmp_path / "run")
    out, _, _ = call(*words, "--prepare", "--json")
    found = json.loads(out)
    job = json.loads((tmp_path / "run" / "job.json").read_text())
    assert found["key"] == job["key"] and found["ranks"] == 2 and job["model"] == model
    assert len((tmp_path / "run" / "rows.jsonl").read_text().splitlines()) == 4


def test_a_thought_that_stands_apart_goes_the_same_way(file, model, tmp_path):
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    rows[0] |= {"reasoning": "Hm.", "solution": "So \\boxed{1}"}
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    out, err, _ = call("encode", file, "--model", model, "--json")
    made, tokenizer = json.loads(out), load_tokenizer(model)
    assert "<think>\nHm.\n</think>\n\nSo \\boxed{1}" in tokenizer.decode(made["rows"][0]["ids"])
    assert made["manner"] in err and "3 chains written as text, 1 thought left in" in err
    words = ("sft", file, "--model", model, "--profile", "smoke", "--folder", tmp_path / "run")
    call(*words, "--prepare")
    kept = [json.loads(line) for line in (tmp_path / "run/rows.jsonl").read_text().splitlines()]
    assert kept[0] == {"question": rows[0]["question"],
                       "solution": "<think>\nHm.\n</think>\n\nSo \\boxed{1}"}  # fmt: skip
    _, _, message = call(
        "encode", file, "--model", model, "--override", "chat.thinking=off", fails=True
    )
    assert "it has a thought, and chat.thinking is off" in message


def test_launch_reads_the_prepared_folder(file, model, tmp_path):
    folder = tmp_path / "run"
    words = ("launch", folder, "--hosts", "a,b,c,d")
    folder.mkdir()
    _, _, message = call(*words, fails=True)
    assert f"{folder} has no job.json: `limo-nb sft FILE --prepare` writes it" in message
    size = ("--ranks", 32, "--batch-size", 64, "--max-tokens", 300)
    call("sft", file, "--model", model, "--prepare", "--folder", folder, *size)
    prepared = sorted(folder.iterdir())
    shown, err, _ = call(*words, "--print")
    assert "a slots=8\nb slots=8" in shown and "PET_NODE_RANK" in shown
    assert (
        "gpus-per-node" in shown
        and "gpus-per-node" not in call(*words, "--no-gpu", "--print")[0]
    )
    assert "64 rows a step, 2 on each rank" in err and sorted(folder.iterdir()) == prepared
    call(*words)
    files = json.loads(call(*words, "--json")[0])["files"]
    assert files == {
        path.name: path.read_text() for path in set(folder.iterdir()) - {*prepared}
    }
    _, message, _ = call("sft", file, "--model", model, "--ranks", 0, fails=True)
    assert "Invalid value for '--ranks'" in message
    words = ("sft", file, "--model", model, "--prepare", "--ranks", 32, "--batch-size", 33)
    _, _, message = call(*words, "--folder", tmp_path / "other", fails=True)
    assert "sft.batch_size=33 is not a multiple of sft.ranks=32" in message


def test_settings_come_from_options_then_a_file_then_a_profile(file, model, tmp_path):
    (tmp_path / "run.yaml").write_text("epochs: 7\nlearning_rate: 2.0e-4\n")
    words = ("sft", file, "--model", model, "--prepare", "--folder", tmp_path / "run")
    call(*words, "--config", tmp_path / "run.yaml", "--epochs", 5, "--lora", 4)
    own = json.loads((tmp_path / "run" / "job.json").read_text())["settings"]
    assert (own["epochs"], own["learning_rate"], own["ranks"]) == (5, 2e-4, 1)
    assert own["lora"] == {"rank": 4, "alpha": 8.0, "dropout": 0.0}
    (tmp_path / "run.yaml").write_text("epoch: 7\n")
    _, _, message = call(*words, "--config", tmp_path / "run.yaml", fails=True)
    assert "run.yaml is not valid:\n  epoch: Extra inputs are not permitted" in message


def test_two_do_not_train_in_one_folder(tmp_path):
    with held([tmp_path]), pytest.raises(RuntimeError, match="another process trains in"):
        with held([tmp_path]):
            pass


def test_plan_as_table_and_json():
    words = ("plan", "--model", "Qwen2.5-32B-Instruct", "--gpus", 8, "--gpu-memory", 80)
    out, _, _ = call(*words, "--zero", 3, "--tokens", 16384, "--offload", "all", "--json")
    made = json.loads(out)
    assert made["fits"] and made["host_gb_a_node"] > 800 and made["parameters"] > 32e9
    assert set(made["per_gpu_gb"]) >= {"weights", "gradients", "optimiser", "logits"}
    assert "not measured on a GPU" in made["note"] and len(made["alternatives"]) == 5
    table, _, _ = call(*words)
    assert "ZeRO-3" in table and "32.76 billion parameters" in table
    _, message, _ = call(*words, "--offload", "some", fails=True)
    assert "'some' is not one of 'none', 'optimizer', 'all'" in message


@pytest.mark.slow
def test_sft_trains_what_a_file_holds(file, model, tmp_path):
    words = ("sft", file, "--model", model, "--profile", "smoke", "--folder", tmp_path / "run")
    out, err, _ = call(*words, "--json")
    made = json.loads(out)
    assert made["rows"] == 4 and (Path(made["model"]) / "model.safetensors").exists()
    assert "ZeRO stage 3" in err
    again, err, _ = call(*words, "--json")
    assert json.loads(again) == made and "unchanged" in err


def test_held_out_rows_are_measured_and_not_trained_on(file, model, tmp_path):
    other, folder = tmp_path / "other.jsonl", tmp_path / "run"
    rows = [{"question": f"{n}+{n}?", "solution": f"It is {2 * n}.", "answer": str(2 * n)}
            for n in range(30, 33)]  # fmt: skip
    other.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ("sft", file, "--model", model, "--profile", "smoke", "--ranks", 1,
             "--epochs", 2, "--learning-rate", 0.01, "--folder", folder)  # fmt: skip
    _, _, error = call(*words, "--evaluate", file, fails=True)
    assert "are trained on, too" in error
    told, _, _ = call(*words, "--evaluate", other)
    losses = [json.loads(line) for line in (folder / "held-out.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in losses] == [0, 1, 2]
    assert losses[0]["loss"] != losses[2]["loss"] and losses[0]["loss"] > 0
    done = json.loads((folder / "done.json").read_text())
    assert done["held_out"] == losses and done["rows"] == len(file.read_text().splitlines())
    assert "held-out loss (nats a token), before and after every epoch: " in told
