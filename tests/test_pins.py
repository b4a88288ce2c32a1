"""The lock file of first fetches: entries of several processes, and a damaged file."""

import json
import subprocess
import sys

import pytest

from limo_nb.core.pins import (
    lock_file,
    locked,
    pin,
)
from limo_nb.evaluation import benchmarks
from limo_nb.problems import sources

COMMIT = "0123456789abcdef0123456789abcdef01234567"
KEEP = """
import sys
from limo_nb.core.pins import pin
print("ready", flush=True)
sys.stdin.readline()
for number in range(25):
    pin(sys.argv[1], f"{sys.argv[2]}-{number}", {"revision": sys.argv[2]})
    print(pin(sys.argv[1], f"one-{number}", {"revision": sys.argv[2]})["revision"])
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("LIMO_NB_RUNS", str(tmp_path / "new" / "runs"))


def test_processes_that_fetch_at_once_lose_nothing():
    """Each has names of its own, and names for which only the first one counts."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", KEEP, part, name],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for part, name in (("pools", "a"), ("pools", "b"), ("benchmarks", "c"))
    ]  # fmt: skip
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    told = [process.communicate()[0].split() for process in processes]
    assert [len(lines) for lines in told] == [25, 25, 25]
    pools = locked("pools")
    assert {f"{name}-{n}" for name in ("a", "b", "one") for n in range(25)} == set(pools)
    assert len(locked("benchmarks")) == 50
    assert told[0] == told[1] == [pools[f"one-{n}"]["revision"] for n in range(25)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"pools": {', "is not valid JSON .*: mend or delete it"),
        (b"\xff\xfe", "is not valid JSON .*: mend or delete it"),
        (b"[]", "is no lock file"),
        (b'{"pools": []}', "is no lock file"),
        (b'{"benchmarks": {"aime": "abc"}}', "is no lock file"),
    ],
)
@pytest.mark.parametrize(
    "use",
    [
        lambda: sources.pinned("some/pool", COMMIT),
        lambda: benchmarks.load_benchmark("aime25_1"),
        lambda: pin("pools", "some/pool", {"revision": COMMIT}),
    ],
)
def test_a_damaged_file_is_named_and_left_alone(monkeypatch, content, message, use):
    monkeypatch.delenv("LIMO_NB_DATA", raising=False)
    lock_file().parent.mkdir()
    lock_file().write_bytes(content)
    with pytest.raises(ValueError, match=rf"limo-nb\.lock\.json {message}"):
        use()
    assert lock_file().read_bytes() == content


def test_the_first_entry_stays():
    first = pin("pools", "some/pool", {"revision": "1"})
    assert pin("pools", "some/pool", {"revision": "2"}) == first
    assert json.loads(lock_file().read_text()) == {"pools": {"some/pool": first}}
    assert len(first["fetched"]) == 10 and locked("benchmarks") == {}
