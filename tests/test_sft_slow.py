"""Fine-tuning that is killed, interrupted or broken."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from tiny import problems, tiny_model

from limo_nb.core.settings import SftSettings
from limo_nb.sft import Task, fine_tune, fine_tune_here, fine_tune_many, read_log

pytestmark = pytest.mark.slow
SETTINGS = SftSettings(
    epochs=10, batch_size=4, learning_rate=3e-3, max_tokens=512, ranks=2, dtype="float32"
)
STEPS = 30

SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_sft_slow import train
train({model!r}, Path({folder!r}))
"""


def train(model: str, folder: Path) -> Path:
    """Ten epochs of ten rows with a checkpoint after every step."""
    task = Task(Dataset.from_list(problems(10)), model, SETTINGS, 1, "S", folder)
    return fine_tune_many([task], checkpoint_seconds=0)[0]


def ranks_of(folder: Path) -> list[psutil.Process]:
    """Processes that train `folder`."""
    found = []
    for process in psutil.process_iter():
        try:
            words = process.cmdline()
        except psutil.Error:
            continue
        if str(folder) in words and "limo_nb.sft" in words:
            found.append(process)
    return found


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(tiny_model(tmp_path_factory.mktemp("tiny")))


@pytest.fixture(scope="module")
def whole(model, tmp_path_factory):
    return train(model, tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT], ids=["kill", "interrupt"])
def test_stopped_and_run_again(model, whole, tmp_path, how, capsys):
    """No rank outlives its cell; the run goes on from a checkpoint to the same weights."""
    script = SCRIPT.format(tests=os.path.dirname(__file__), model=model, folder=str(tmp_path))
    process = subprocess.Popen([sys.executable, "-c", script], start_new_session=True)
    deadline = time.monotonic() + 900
    while len(read_log(tmp_path / "log.jsonl")) < 5 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert ranks_of(tmp_path)
    process.send_signal(how)
    assert process.wait(timeout=60) != 0
    deadline = time.monotonic() + 20
    while ranks_of(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not ranks_of(tmp_path)
    before = read_log(tmp_path / "log.jsonl")
    assert 5 <= len(before) < STEPS and not (tmp_path / "done.json").exists()

    resumed = train(model, tmp_path)
    after = read_log(tmp_path / "log.jsonl")
    assert after[:4] == before[:4]  # not done again
    assert_equal(resumed, whole)


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("whom", ["rank", "launcher"])
def test_killed_at_a_random_point(model, whole, tmp_path, whom, seed):
    """Kill −9 of a rank or of deepspeed's launcher: no rank is left, and the same weights."""
    rng = random.Random(f"{whom} {seed}")
    after, moment = rng.randrange(2, STEPS - 10), rng.uniform(0.0, 0.3)
    killer = threading.Thread(target=_kill, args=(tmp_path, whom, after, moment, rng))
    killer.start()
    with pytest.raises(RuntimeError, match="run the same again to continue"):
        train(model, tmp_path)
    killer.join()
    assert not ranks_of(tmp_path) and not (tmp_path / "done.json").exists()
    # One more that was left half written, with the highest number of all.
    (tmp_path / "checkpoints" / f"checkpoint-{STEPS - 1}").mkdir(parents=True, exist_ok=True)
    done = len(read_log(tmp_path / "log.jsonl"))
    kept = [row["seconds"] for row in read_log(tmp_path / "log.jsonl")][: done - 2]
    resumed = train(model, tmp_path)
    assert_equal(resumed, whole)
    # All but the last steps before the kill are those of the first run, not done again.
    assert [row["seconds"] for row in read_log(tmp_path / "log.jsonl")][: len(kept)] == kept


def _kill(folder: Path, whom: str, after: int, moment: float, rng: random.Random) -> None:
    """Wait for step `after` and `moment` seconds more, then kill a rank or the launcher."""
    deadline = time.monotonic() + 900
    while len(read_log(folder / "log.jsonl")) < after and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(moment)
    found = ranks_of(folder)
    is_rank = [process for process in found if "RANK" in process.environ()]
    launchers = [process for process in found if "RANK" not in process.environ()]
    rng.choice(is_rank if whom == "rank" else launchers).kill()


def assert_equal(resumed: Path, whole: Path) -> None:
    """The same losses and, bit for bit, the same weights."""
    logs = [read_log(model.parent / "log.jsonl") for model in (resumed, whole)]
    assert [row["step"] for row in logs[0]] == list(range(1, STEPS + 1))
    assert [r["loss"] for r in logs[0]] == [r["loss"] for r in logs[1]]
    a, b = (load_file(model / "model.safetensors") for model in (resumed, whole))
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.skipif(
    subprocess.run(["sh", "-c", "unshare -Urm true"], capture_output=True).returncode != 0,
    reason="a small disk is mounted in a namespace of its own, which needs unshare -Urm",
)
@pytest.mark.parametrize("size", ["500k", "1100k", "1500k"])
def test_a_disk_that_is_full_in_earnest(model, tmp_path, size):
    """A checkpoint that does not fit: no room even for the message of the rank."""
    small = tmp_path / "small"
    small.mkdir()
    folder = small / "run"
    script = SCRIPT.format(tests=os.path.dirname(__file__), model=model, folder=str(folder))
    mount = 'mount -t tmpfs -o size="$0" none "$1" && shift && exec "$@"'
    command = ["unshare", "-Urm", "sh", "-c", mount, size, str(small), sys.executable, "-c"]
    done = subprocess.run([*command, script], capture_output=True, text=True, timeout=600)
    assert done.returncode and f"the disk that holds {folder} is full" in done.stderr
    assert not ranks_of(folder)


def test_a_failing_rank_tells_why(model, tmp_path):
    broken = tiny_model(tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"not a model")
    rows = Dataset.from_list(problems(4))
    with pytest.raises(RuntimeError, match=r"rank[01] said:(.|\n)*SafetensorError") as failure:
        fine_tune(rows, str(broken), SETTINGS, 1, "S", tmp_path / "run")
    assert "console.log" in str(failure.value)
    assert not ranks_of(tmp_path / "run")


@pytest.mark.parametrize(
    ("change", "tolerance"),
    [
        ({"zero_stage": 0}, 1e-4),
        ({"zero_stage": 2}, 1e-4),
        ({"dtype": "bfloat16"}, 0.05),
        ({"gradient_checkpointing": True}, 1e-4),
        ({"packing": True}, 1e-4),
    ],
    ids=lambda value: str(value),
)
def test_other_settings_train_as_one_process_does(model, tmp_path, change, tolerance):
    settings = SETTINGS.model_copy(update={"epochs": 2, **change})
    rows = Dataset.from_list(problems(10))
    fine_tune(rows, model, settings, 1, "S", tmp_path / "ranks")
    fine_tune_here(rows, model, settings, 1, "S", tmp_path / "here")
    many, one = (read_log(tmp_path / name / "log.jsonl") for name in ("ranks", "here"))
    losses = [row["loss"] for row in one]
    assert [row["loss"] for row in many] == pytest.approx(losses, abs=tolerance)
    assert json.loads((tmp_path / "ranks" / "done.json").read_text())["ranks"] == 2
