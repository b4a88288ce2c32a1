"""What is known of the machine; and that the rooms can be imported on every system."""

from __future__ import annotations

import subprocess
import sys

import pytest

from limo_nb.core import machine

# No module of these is on Windows.
ELSEWHERE = """\
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name in ("fcntl", "resource"):
            raise ImportError(f"{name} is not on this system")

for name in ("fcntl", "resource"):
    sys.modules.pop(name, None)
sys.meta_path.insert(0, Refuse())
"""


@pytest.mark.parametrize("name", ["runs", "files", "machine", "pins"])
def test_core_is_imported_without_what_only_unix_has(name: str) -> None:
    done(f"{ELSEWHERE}import limo_nb\nlimo_nb.Run\nimport limo_nb.core.{name}")


def test_memory_is_not_a_number_without_what_only_unix_has() -> None:
    code = "from limo_nb.core.machine import peak_memory_gib; print(peak_memory_gib())"
    assert done(ELSEWHERE + code).strip() == "nan"
    assert 0.005 < float(done(code)) < 4


def done(code: str) -> str:
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    return process.stdout


def test_hardware_names_processor_cores_memory_and_accelerators() -> None:
    parts = machine.hardware().split(", ")
    assert "cores" in parts[1] and "GiB" in parts[2]
    assert parts[-1] == "no GPU" or "×" in parts[-1]
