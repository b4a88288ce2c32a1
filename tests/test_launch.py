"""Several machines: what the scripts say, and what they do."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from tiny import problems, tiny_model

from limo_nb.core.settings import SftSettings, load_profile
from limo_nb.sft import Task, cluster, fine_tune, prepare, read_log
from limo_nb.sft.launch import _typed, launch_command

# Stands in for a program: it prints its arguments, a line each.
ECHO = '#!/bin/sh\nfor word in "$@"; do printf \'%s\\n\' "$word"; done\n'


def programs(folder: Path, **texts: str) -> dict[str, str]:
    """The environment in which the named programs are the given scripts."""
    folder.mkdir(exist_ok=True)
    for name, text in texts.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    kept = {n: v for n, v in os.environ.items() if not n.startswith(("PET_", "MASTER_"))}
    return {**kept, "PATH": f"{folder}:{os.environ['PATH']}"}


def written(folder: Path, machines: cluster.Cluster) -> Path:
    folder.mkdir(exist_ok=True)
    for name, text in cluster.launch_scripts(folder, machines).items():
        (folder / name).write_text(text)
    return folder


def options(output: str) -> dict[str, str]:
    words = output.splitlines()
    return {a: b for a, b in zip(words, [*words[1:], ""], strict=True) if a.startswith("--")}


@pytest.mark.parametrize(
    ("ranks", "nodes", "hosts", "each"),
    [(32, None, (), 8), (32, 2, (), 16), (6, None, (), 6), (4, None, ("a", "b"), 2)],
)
def test_ranks_are_shared_among_machines(ranks, nodes, hosts, each):
    machines = cluster.Cluster.of(ranks, nodes, hosts)
    assert machines.ranks_a_host == each and machines.ranks == ranks


@pytest.mark.parametrize(
    ("ranks", "nodes", "hosts", "message"),
    [(9, 2, (), "sft.ranks=9 is not a multiple of 2 nodes"),
     (8, 2, ("a",), "1 hosts are named for 2 nodes")],
)  # fmt: skip
def test_machines_that_cannot_share(ranks, nodes, hosts, message):
    with pytest.raises(ValueError, match=message):
        cluster.Cluster.of(ranks, nodes, hosts)


def test_the_paper_s_hostfile_is_one_that_deepspeed_reads(tmp_path):
    from deepspeed.launcher.runner import fetch_hostfile

    machines = cluster.Cluster.of(load_profile("paper").sft.ranks, hosts=["a", "b", "c", "d"])
    folder = written(tmp_path / "run", machines)
    assert dict(fetch_hostfile(str(folder / "hostfile"))) == dict.fromkeys("abcd", 8)


def test_deepspeed_script(tmp_path):
    folder = written(tmp_path / "a run", cluster.Cluster.of(32))
    env = programs(tmp_path / "bin", deepspeed=ECHO)
    done = subprocess.run(
        ["sh", folder / "deepspeed.sh"], env=env, capture_output=True, text=True, check=True
    )
    said = options(done.stdout)
    assert said["--hostfile"] == str(folder / "hostfile")
    assert (said["--num_nodes"], said["--master_addr"]) == ("4", "node-1")
    assert said["--module"] == "limo_nb.sft" and done.stdout.endswith(f"{folder}\n")


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({}, ("4", "3", "node-1", "29500")),
        ({"PET_NNODES": "2", "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "777"},
         ("2", "3", "10.0.0.1", "777")),
    ],
)  # fmt: skip
def test_torchrun_script_passes_the_variables_on(tmp_path, given, wanted):
    folder = written(tmp_path / "a run", cluster.Cluster.of(32))
    env = programs(tmp_path / "bin", torchrun=ECHO) | {"PET_NODE_RANK": "3"} | given
    done = subprocess.run(
        ["sh", folder / "torchrun.sh"], env=env, capture_output=True, text=True, check=True
    )
    said = options(done.stdout)
    names = ("--nnodes", "--node-rank", "--master-addr", "--master-port")
    assert tuple(said[name] for name in names) == wanted
    assert said["--nproc-per-node"] == "8" and done.stdout.endswith(f"{folder}\n")


@pytest.mark.parametrize(
    ("asked", "lines", "absent"),
    [(cluster.SlurmRequest(), ["--gpus-per-node=8", "--exclusive", "--requeue"], "--time"),
     (cluster.SlurmRequest(False, "02:00:00", 16, "long", "ours"),
      ["--time=02:00:00", "--cpus-per-task=16", "--partition=long", "--account=ours"],
      "--gpus-per-node"),
     (cluster.SlurmRequest(cpus=4), ["--cpus-per-task=4"], "--exclusive")],
)  # fmt: skip
def test_a_slurm_job_asks_for_what_it_was_told(asked, lines, absent):
    text = cluster.launch_scripts(Path("run"), cluster.Cluster.of(32), asked)["job.slurm"]
    wanted = [line.removeprefix("#SBATCH ") for line in text.splitlines() if "#SBATCH" in line]
    assert set(lines) <= set(wanted) and "--nodes=4" in wanted
    assert not any(line.startswith(absent) for line in wanted)


def test_torchrun_script_wants_the_number_of_the_machine(tmp_path):
    folder = written(tmp_path / "run", cluster.Cluster.of(32))
    env = programs(tmp_path / "bin", torchrun=ECHO)
    done = subprocess.run(
        ["sh", folder / "torchrun.sh"], env=env, capture_output=True, text=True
    )
    assert done.returncode and "the number of this machine, 0 to 3" in done.stderr


@pytest.mark.skipif(not shutil.which("bash"), reason="SLURM scripts are for bash")
def test_slurm_script_starts_torchrun_on_every_node(tmp_path):
    folder = written(tmp_path / "run", cluster.Cluster.of(32))
    scontrol = "#!/bin/sh\nprintf 'gpu7\\ngpu8\\n'\n"
    # Two tasks, as srun would start them on two nodes.
    srun = (
        '#!/bin/sh\nwhile [ "${1#--}" != "$1" ]; do shift; done\n'
        'for node in 0 1; do SLURM_NODEID=$node "$@"; echo "--end"; echo; done\n'
    )
    env = programs(tmp_path / "bin", torchrun=ECHO, srun=srun, scontrol=scontrol)
    env |= {"SLURM_JOB_NODELIST": "gpu[7-8]", "SLURM_NNODES": "2"}
    done = subprocess.run(
        ["bash", folder / "job.slurm"], env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    for node, part in enumerate(done.stdout.split("--end\n")[:2]):
        said = options(part)
        assert (said["--nnodes"], said["--node-rank"]) == ("2", str(node))
        assert (said["--master-addr"], said["--master-port"]) == ("gpu7", "29500")
    assert "#SBATCH --gpus-per-node=8" in (folder / "job.slurm").read_text()


@pytest.mark.parametrize(
    ("folders", "short"),
    [
        (["runs/a b/limo-1"], False),
        (["runs/a b/limo-1", "runs/a b/limo-2", "runs/a b/bulk-1"], True),
        (["runs/x/limo-1", "runs/y/limo-1"], False),
        (["runs/limo 1", "runs/limo,2"], False),
    ],
)
def test_the_printed_command_is_the_one_that_runs(folders, short):
    paths = [Path(folder) for folder in folders]
    extra, command = launch_command(paths, 2)
    typed = _typed(extra, command, paths)
    assert ("{" in typed) == short
    words = typed.split(" deepspeed ")[1]
    shown = subprocess.run(
        ["bash", "-c", f"printf '%s\\n' {words}"], capture_output=True, text=True, check=True
    )
    assert shown.stdout.splitlines() == command[1:]


# --------------------------------------------------------------------------- two launchers
def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.slow
def test_two_launchers_train_as_one_host_does(tmp_path):
    """ZeRO-3 over two launchers with a rank each, started by the script for torchrun."""
    settings = SftSettings(
        epochs=2,
        batch_size=4,
        learning_rate=3e-3,
        max_tokens=512,
        ranks=2,
        zero_stage=3,
        dtype="float32",
    )
    rows, model = Dataset.from_list(problems(10)), str(tiny_model(tmp_path / "tiny"))
    fine_tune(rows, model, settings, 1, "S", tmp_path / "one")
    folder = tmp_path / "two"
    prepare(Task(rows, model, settings, 1, "S", folder))
    written(folder, cluster.Cluster.of(2, 2, ["127.0.0.1", "127.0.0.1"], free_port()))
    torchrun = f'#!/bin/sh\nexec {sys.executable} -m torch.distributed.run "$@"\n'
    env = programs(tmp_path / "bin", torchrun=torchrun) | {
        "PYTHONPATH": str(Path(cluster.__file__).parents[2]), "DS_ACCELERATOR": "cpu",
        "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo",
    }  # fmt: skip
    started = [
        subprocess.Popen(
            ["sh", folder / "torchrun.sh"], env=env | {"PET_NODE_RANK": str(node)},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for node in (0, 1)
    ]  # fmt: skip
    outputs = [process.communicate(timeout=600)[0] for process in started]
    assert [process.returncode for process in started] == [0, 0], outputs
    one, two = (read_log(tmp_path / name / "log.jsonl") for name in ("one", "two"))
    assert [row["loss"] for row in two] == [row["loss"] for row in one] and len(one) == 6
    done = json.loads((folder / "done.json").read_text())
    assert done["ranks"] == 2 and done["choices"].startswith("ZeRO stage 3")
    a, b = (load_file(tmp_path / n / "model" / "model.safetensors") for n in ("one", "two"))
    assert all(torch.equal(a[name], b[name]) for name in a)
