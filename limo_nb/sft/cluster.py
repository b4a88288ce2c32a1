"""One run on several machines: what DeepSpeed, torchrun and SLURM need to be told.

The texts are made from the profile's numbers. Every machine runs the same command on the
same folder, which must be on a file system that all of them see: rank 0 writes the log
and the model there, and every rank its part of each checkpoint. Chapter 6 and the
appendix on scaling out.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

PORT = 29500  # torch's customary port for the rendezvous


@dataclass(frozen=True)
class Cluster:
    """The machines of a run: host names, and ranks (GPUs) on each."""

    hosts: tuple[str, ...]
    ranks_a_host: int
    port: int = PORT

    @property
    def ranks(self) -> int:
        """Ranks over all machines."""
        return len(self.hosts) * self.ranks_a_host

    @staticmethod
    def of(
        ranks: int, nodes: int | None = None, hosts: Sequence[str] = (), port: int = PORT
    ) -> Cluster:
        """`ranks` shared out over `nodes` machines; by default eight to a machine.

        Raises ValueError where they cannot be shared, or hosts and nodes differ in number.
        """
        nodes = nodes or len(hosts) or -(-ranks // 8)
        if hosts and len(hosts) != nodes:
            raise ValueError(f"{len(hosts)} hosts are named for {nodes} nodes")
        if ranks % nodes:
            raise ValueError(f"sft.ranks={ranks} is not a multiple of {nodes} nodes")
        names = tuple(hosts) or tuple(f"node-{number}" for number in range(1, nodes + 1))
        return Cluster(names, ranks // nodes, port)


@dataclass(frozen=True)
class SlurmRequest:
    """What a job asks SLURM for; what is None is the partition's or the site's own."""

    gpu: bool = True  # one a rank
    time: str | None = None  # of the whole job, HH:MM:SS
    cpus: int | None = None  # of a machine; None: all of it
    partition: str | None = None
    account: str | None = None

    def lines(self, machines: Cluster) -> str:
        """The job's `#SBATCH` lines."""
        wanted = {
            "nodes": len(machines.hosts), "ntasks-per-node": 1,
            "gpus-per-node": machines.ranks_a_host if self.gpu else None, "time": self.time,
            "cpus-per-task": self.cpus, "partition": self.partition, "account": self.account,
        }  # fmt: skip
        named = [f"--{name}={value}" for name, value in wanted.items() if value is not None]
        # A job that shares its machines names its cores; one that does not has them all.
        named += [] if self.cpus else ["--exclusive"]
        return "".join(f"#SBATCH {option}\n" for option in (*named, "--requeue"))


def launch_scripts(
    folder: Path, machines: Cluster, asked: SlurmRequest | None = None
) -> dict[str, str]:
    """The texts by file name: hostfile, deepspeed.sh, torchrun.sh and job.slurm."""
    hostfile = "".join(f"{host} slots={machines.ranks_a_host}\n" for host in machines.hosts)
    return {
        "hostfile": hostfile,
        "deepspeed.sh": _deepspeed(folder, machines),
        "torchrun.sh": _torchrun(folder, machines),
        "job.slurm": _slurm(folder, machines, asked or SlurmRequest()),
    }


def _deepspeed(folder: Path, machines: Cluster) -> str:
    words = [
        "deepspeed", "--hostfile", folder / "hostfile", "--num_nodes", len(machines.hosts),
        "--master_addr", machines.hosts[0], "--master_port", machines.port,
        "--module", "limo_nb.sft", folder,
    ]  # fmt: skip
    return (
        "#!/bin/sh\n"
        f"# On {machines.hosts[0]} only: DeepSpeed reaches the others by ssh without a\n"
        "# password. Variables for them go into ~/.deepspeed_env, a line each.\n"
        f"exec {shlex.join(map(str, words))}\n"
    )


def _torchrun(folder: Path, machines: Cluster) -> str:
    last, head = len(machines.hosts) - 1, machines.hosts[0]
    command = (
        "torchrun",
        f'--nnodes "${{PET_NNODES:-{len(machines.hosts)}}}"',
        f'--node-rank "${{PET_NODE_RANK:?the number of this machine, 0 to {last}}}"',
        f"--nproc-per-node {machines.ranks_a_host}",
        f'--master-addr "${{MASTER_ADDR:-{head}}}"',
        f'--master-port "${{MASTER_PORT:-{machines.port}}}"',
        f"--module limo_nb.sft {shlex.quote(str(folder))}",
    )
    return (
        "#!/bin/sh\n"
        "# On every machine, with its number in PET_NODE_RANK (0 on the first):\n"
        f"#     PET_NODE_RANK=0 sh {shlex.quote(str(folder / 'torchrun.sh'))}\n"
        "# torchrun reads PET_MASTER_ADDR and PET_MASTER_PORT, and not the two without\n"
        "# PET_ that clusters set: they are passed on as arguments.\n"
        "exec " + " \\\n    ".join(command) + "\n"
    )


def _slurm(folder: Path, machines: Cluster, asked: SlurmRequest) -> str:
    script = shlex.quote(str(folder / "torchrun.sh"))
    return (
        "#!/bin/bash\n"
        "#SBATCH --job-name=limo-sft\n"
        f"{asked.lines(machines)}"
        f"#SBATCH --output={folder / 'slurm-%j.log'}\n"
        "# The first host of the allocation is where the ranks meet. A job that was ended\n"
        "# by its time limit is submitted again and goes on from its last checkpoint.\n"
        "set -euo pipefail\n"
        'MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)\n'
        f"export MASTER_ADDR MASTER_PORT={machines.port} PET_NNODES=$SLURM_NNODES\n"
        "# srun does not take over the job's number of cores by itself (Slurm 22.05).\n"
        'if [ -n "${SLURM_CPUS_PER_TASK:-}" ]; then\n'
        '    export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"\n'
        "fi\n"
        "srun --kill-on-bad-exit=1 --cpu-bind=none "
        f"bash -c 'PET_NODE_RANK=$SLURM_NODEID exec sh \"$0\"' {script}\n"
    )
