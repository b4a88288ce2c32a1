"""Engines beside the default one: a server in a process of its own, and a local Ray."""

import base64
import json
import subprocess
import sys
import threading
import traceback
import warnings
from collections import Counter
from pathlib import Path

import httpx
import pytest
from test_cli import limo_nb as command
from test_inference import SYSTEM, chat_prompt, made, problems, stored
from tiny import tiny_model

from limo_nb import lab
from limo_nb.core.settings import (
    ChatSettings,
    EngineSettings,
    Sampling,
)
from limo_nb.inference import (
    Completion,
    EngineFailed,
    Refused,
    complete,
    load_tokenizer,
    open_engine,
    prompt_ids,
    shared_store,
    token_counter,
)
from limo_nb.inference.base import in_flight
from limo_nb.inference.base import too_long as says_too_long
from limo_nb.inference.templates import DEFAULT_CHAT

GREEDY = Sampling(max_new_tokens=20)
SERVER = Path(__file__).with_name("openai_server.py")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(tiny_model(tmp_path_factory.mktemp("tiny")))


@pytest.fixture(scope="module")
def items():
    rows = problems(10, seed=3)
    asked = [(f"p{i}", chat_prompt(row["question"], SYSTEM)) for i, row in enumerate(rows)]
    return [*asked, ("raw", "Exercise.")]


@pytest.fixture(scope="module")
def server(model):
    """The address of a server that runs in a process of its own."""
    process = subprocess.Popen(
        [sys.executable, SERVER, model], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    process.kill()
    process.communicate()


@pytest.fixture
def serve(server, monkeypatch):
    """Gives the server a fault; returns a function that says what it answered since."""

    def start(fault="", **how):
        httpx.post(f"{server}/fault", json={"fault": fault, **how}).raise_for_status()
        monkeypatch.setenv("OPENAI_BASE_URL", f"{server}/v1")
        return lambda: httpx.get(server).json()

    return start


def asked_of_server(model, items, store, sampling=GREEDY, chat=DEFAULT_CHAT, **how):
    from limo_nb.inference.openai_engine import OpenAIEngine

    settings = EngineSettings(kind="openai", batch_size=8, chat=chat)
    with OpenAIEngine(settings, model, **how) as engine:
        return complete(engine, items, sampling, store).to_list()


# ------------------------------------------------------------------------------- openai
def test_a_server_gives_the_same_records(model, items, serve, tmp_path):
    """Greedy and drawn: this server seeds each row as the default engine does."""
    log = serve()
    drawn = Sampling(samples=2, temperature=0.7, top_p=0.9, max_new_tokens=20)
    for sampling in (GREEDY, drawn):
        here = made(model, items, tmp_path / "here.db", sampling)
        there = asked_of_server(model, items, tmp_path / "there.db", sampling)
        assert [(r["id"], r["sample"]) for r in here] == [(r["id"], r["sample"]) for r in there]
        if sampling is GREEDY:
            assert here == there
    assert len(log()) == 3 * len(items)
    assert max(line["flying"] for line in log()) > 1  # they are asked at the same time


@pytest.mark.parametrize("fault", ["429", "500", "503", "drop", "stall"])
def test_what_passes_is_tried_again(model, items, serve, tmp_path, fault):
    log, asked = serve(fault), items[:4]
    how = {"seconds": 1.0} if fault == "stall" else {}
    rows = asked_of_server(model, asked, tmp_path / "s.db", retries=4, **how)
    assert rows == made(model, asked, tmp_path / "here.db", GREEDY)
    failed = [line for line in log() if line["status"] != 200 or line["prompt"] == "too late"]
    answered = [line for line in log() if line not in failed]
    assert len(answered) == 4
    if fault != "stall":  # the late answers may still be on their way
        assert Counter(str(line["status"]) for line in failed) == {fault: 4}


def test_a_system_prompt_that_the_server_refuses_stands_before_the_question(
    model, serve, tmp_path
):
    log = serve("no system")
    asked = [("a", chat_prompt("What is 1 + 1?", SYSTEM)), ("b", chat_prompt("2 + 2?", None))]
    rows = asked_of_server(model, asked, tmp_path / "s.db")
    done = {line["prompt"][0]["content"] for line in log() if line["status"] == 200}
    assert done == {f"{SYSTEM}\n\nWhat is 1 + 1?", "2 + 2?"} and len(rows) == 2


def test_the_server_gets_the_arguments_of_its_template_and_else_none(model, serve, tmp_path):
    log, asked = serve(), [("a", chat_prompt("What is 1 + 1?", SYSTEM))]
    asked_of_server(model, asked, tmp_path / "s.db")
    chat = ChatSettings(thinking="off", arguments={"reasoning_effort": "low"})
    asked_of_server(model, asked, tmp_path / "s.db", chat=chat)  # another key: asked again
    said = {"enable_thinking": False, "thinking": False, "reasoning_effort": "low"}
    assert [line["template"] for line in log()] == [None, said]


def test_a_bad_request_is_not_tried_again(model, items, serve, tmp_path):
    """It is named, and what was answered is kept."""
    log, store = serve(), tmp_path / "s.db"
    asked = [*items[:6], ("bad", "This is refused.")]
    told = r"refused a request with 400: .*this prompt.* begins 'This is refused"
    with pytest.raises(EngineFailed, match=told):
        asked_of_server(model, asked, store)
    assert Counter(line["status"] for line in log()) == {200: 6, 400: 1}
    assert len(stored(store)) == 6
    asked_of_server(model, items[:6], store)
    assert len(log()) == 7


def test_an_answer_without_choices_is_told(model, items, serve, tmp_path):
    serve("empty")
    with pytest.raises(EngineFailed, match="without any choice: .*the backend is gone"):
        asked_of_server(model, items[:1], tmp_path / "s.db")


@pytest.fixture
def too_long(model):
    """An item of more tokens than the others have."""
    return "long", chat_prompt("What is 1 + 1? " * 40, SYSTEM)


def window_of(model, items):
    return max(len(prompt_ids(load_tokenizer(model), prompt)) for _, prompt in items)


def test_a_prompt_that_is_too_long_is_named_and_left_empty(
    model, items, too_long, serve, tmp_path
):
    """All others are answered; the next run asks it again, and fails no more than this."""
    log, store = serve(window=window_of(model, items)), tmp_path / "s.db"
    asked = [*items[:3], too_long, *items[3:]]
    for attempts in (1, 2):
        with pytest.warns(UserWarning, match=r"left empty.* long: .*maximum context length"):
            rows = asked_of_server(model, asked, store)
        assert [row["id"] for row in rows] == [name for name, _ in asked]
        empty = {"text": "", "tokens": 0, "finished": False}
        assert rows[3] == {"id": "long", "sample": 0, **empty}
        others = [row for row in rows if row["id"] != "long"]
        assert others == made(model, items, tmp_path / "here.db", GREEDY)
        assert len(stored(store)) == len(items)
        assert Counter(line["status"] for line in log()) == {200: len(items), 400: attempts}
    serve()  # a server with a larger window
    rows = asked_of_server(model, asked, store)
    assert rows[3]["tokens"] > 0 and len(stored(store)) == len(asked)


def test_where_every_prompt_is_too_long_the_server_is_at_fault(
    model, too_long, serve, tmp_path
):
    serve(window=10)
    with pytest.raises(EngineFailed, match="every prompt was refused.* long: .*context length"):
        asked_of_server(model, [too_long], tmp_path / "s.db")


def test_two_that_share_a_store_do_not_wait_for_what_is_refused(
    model, items, too_long, serve, tmp_path
):
    """One row at a time: each claims a prompt that is refused, and wants the other's."""
    serve(window=window_of(model, items))
    other = ("other", chat_prompt("What is 2 + 2? " * 40, SYSTEM))

    def ask(item):
        with open_engine(EngineSettings(kind="openai", batch_size=1), model) as engine:
            return complete(engine, [item, too_long, other], GREEDY, tmp_path / "s.db")

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = list(in_flight(items[:2], lambda item: [ask(item)], 2))
    assert [[n > 0 for n in table["tokens"]] for table in found] == [[True, False, False]] * 2


@pytest.mark.parametrize(
    ("said", "want"),
    [
        ("This model's maximum context length is 512 tokens. However, you requested 700", True),
        (
            "The decoder prompt (length 5951) is longer than the maximum model length",
            True,
        ),
        ("request (9412 tokens) exceeds the available context size (8192 tokens)", True),
        ("prompt is too long: 210000 tokens > 200000 maximum", True),
        ("The input token count (9) exceeds the maximum number of tokens allowed (8).", True),
        ("`inputs` must have less than 1024 tokens. Given: 2000", True),
        ('{"error": {"code": "context_length_exceeded"}}', True),
        ("this prompt is refused", False),
        ("Unsupported parameter: 'seed' is not supported with this model.", False),
        ("temperature must be non-negative, got -1.0.", False),
    ],
)
def test_what_servers_say_of_a_prompt_that_is_too_long(said, want):
    assert says_too_long(said) is want


def test_tokens_are_counted_where_the_server_does_not_report_them(
    model, items, serve, tmp_path
):
    serve(silent=True)
    rows, count = asked_of_server(model, items, tmp_path / "s.db"), token_counter(model)
    known = made(model, items, tmp_path / "here.db", GREEDY)
    assert [row["text"] for row in rows] == [row["text"] for row in known]
    assert all(row["tokens"] == count(row["text"]) > 0 for row in rows if row["text"])


def test_tokens_that_cannot_be_counted_are_not_invented(items, serve, tmp_path):
    serve(silent=True)
    with pytest.raises(EngineFailed, match="does not report how many tokens.* no tokenizer"):
        asked_of_server("a-name", items[:1], tmp_path / "s.db")


def test_no_secret_of_the_address_is_recorded_or_shown(server, serve, items, tmp_path):
    """User, password and query are sent; identity, store and messages are without them."""
    log, plain = serve(), f"{server}/v1"
    secret = plain.replace("http://", "http://me:pass%40word@") + "?token=hidden"
    settings = EngineSettings(kind="openai")
    with open_engine(settings, "a-name", secret) as engine:
        name = shared_store(tmp_path, engine).name
        complete(engine, items[:1], GREEDY, tmp_path / "s.db")
        assert engine.identity == {"kind": "openai", "model": f"a-name at {plain}"}
        with pytest.raises(EngineFailed) as refused:
            complete(engine, [("bad", "This is refused.")], GREEDY, tmp_path / "s.db")
        trace = "".join(traceback.format_exception(refused.value))
    with open_engine(settings, "a-name", plain) as engine:
        assert shared_store(tmp_path, engine).name == name
    sent = log()[0]
    assert base64.b64decode(sent["authorization"].removeprefix("Basic ")) == b"me:pass@word"
    assert sent["path"].endswith("?token=hidden")
    assert plain in str(refused.value) and "pass" not in trace and "me:" not in trace
    assert "hidden" not in str(refused.value)


def test_the_command_tells_what_the_server_said(model, serve, tmp_path):
    """In one line of its own, without a traceback."""
    serve()
    (tmp_path / "p.jsonl").write_text(json.dumps({"question": "This is refused."}))
    engine = ("--profile", "smoke", "--override", "engine.kind=openai")
    done = command(tmp_path, "sample", "p.jsonl", "--model", model, *engine)
    assert done.returncode == 1 and 'File "' not in done.stderr
    told = done.stderr.splitlines()[-1]
    assert (
        told.startswith("limo-nb: http://127.0.0.1:") and "refused a request with 400" in told
    )


def test_a_server_that_is_not_there_is_named(model, items, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    with pytest.raises(EngineFailed, match="127.0.0.1:9.* in 1 attempts: is the server up"):
        asked_of_server(model, items, tmp_path / "s.db", retries=0)


def test_the_address_of_the_server_is_asked_for(model, monkeypatch):
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(ValueError, match="export OPENAI_BASE_URL="):
        open_engine(EngineSettings(kind="openai"), model)


def test_weights_that_are_known_count_and_not_the_address(model, monkeypatch):
    found = []
    for base in ("http://127.0.0.1:1/v1", "http://127.0.0.1:2/v1"):
        monkeypatch.setenv("OPENAI_BASE_URL", base)
        for name in (model, "a-name"):
            with open_engine(EngineSettings(kind="openai"), name) as engine:
                found.append(engine.identity["model"])
    known, named, known_too, named_too = found
    assert known == known_too and named != named_too and "a-name" in named


def test_a_chain_that_the_server_took_out_is_put_back(model):
    from openai.types.chat import ChatCompletion

    message = {"role": "assistant", "content": "So 4.", "reasoning_content": "2+2=4\n"}
    reply = ChatCompletion.model_validate(
        {
            "id": "x", "object": "chat.completion", "created": 0, "model": "m",
            "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
            "usage": {"completion_tokens": 9, "prompt_tokens": 1, "total_tokens": 10},
        }
    )  # fmt: skip
    settings = EngineSettings(kind="openai")
    with open_engine(settings, model, "http://127.0.0.1:9/v1") as engine:
        made = engine._completion(reply.choices[0], reply.usage)
    assert made == ("<think>\n2+2=4\n</think>\n\nSo 4.", 8, True)


# ------------------------------------------------------------------------- concurrency
def test_work_is_taken_when_there_is_room():
    taken = []

    def work():
        for piece in range(6):
            taken.append(piece)
            yield piece

    results = in_flight(work(), lambda piece: [piece * piece], 2)
    first = next(results)
    assert first in (0, 1) and len(taken) <= 4
    assert {first, *results} == {0, 1, 4, 9, 16, 25}


def test_what_a_piece_yields_comes_at_once_and_silence_has_a_sign(monkeypatch):
    """The second half of a piece waits until its first has been handed out."""
    monkeypatch.setattr("limo_nb.inference.base.TICK_SECONDS", 0.01)
    seen = threading.Event()

    def halves(piece):
        yield piece, 1
        assert seen.wait(10)
        yield piece, 2

    found = []
    for result in in_flight(["a"], halves, 2, tick=lambda running: ("working", running)):
        found.append(result)
        if result == ("working", 1):
            seen.set()
    assert found[0] == ("a", 1) and found[-1] == ("a", 2) and ("working", 1) in found


def test_after_a_failure_nothing_new_is_taken_and_the_rest_is_handed_out():
    taken, kept = [], []

    def work():
        for piece in range(100):
            taken.append(piece)
            yield piece

    def do(piece):
        if piece == 3:
            raise KeyError("three")
        yield piece

    with pytest.raises(KeyError, match="three"):
        for result in in_flight(work(), do, 2):
            kept.append(result)
    assert len(taken) < 10 and set(kept) == set(taken) - {3}


# ---------------------------------------------------------------------------------- ray
def test_an_actor_passes_on_what_is_refused(model, items, too_long, serve):
    """What Ray carries is JSON: a refused prompt and an answered one come back as they were."""
    ray_engine = pytest.importorskip("limo_nb.inference.ray_engine", reason="no ray")
    serve(window=window_of(model, items))
    settings = EngineSettings(kind="openai").model_dump()
    actor = ray_engine.Actor(settings, model, None, GREEDY.model_dump())
    batch = [("01", items[0][1]), ("02", too_long[1])]
    (made_there,) = actor({"batch": [json.dumps(batch)]})["made"]
    rows = {key: ray_engine._row(values) for key, values in json.loads(made_there)}
    assert isinstance(rows["01"], Completion) and rows["01"].tokens > 0
    assert isinstance(rows["02"], Refused) and "maximum context length" in rows["02"].why


@pytest.mark.slow
def test_ray_leaves_a_refused_prompt_empty(model, items, too_long, serve, tmp_path):
    pytest.importorskip("ray", reason="ray is not installed: pip install 'limo-nb[ray]'")
    serve(window=window_of(model, items))
    settings = EngineSettings(kind="ray", over="openai", workers=1, batch_size=2)
    with (
        open_engine(settings, model) as engine,
        pytest.warns(UserWarning, match="left empty.* long: .*maximum context length"),
    ):
        rows = complete(engine, [*items[:3], too_long], GREEDY, tmp_path / "s.db")
    assert [bool(tokens) for tokens in rows["tokens"]] == [True, True, True, False]
    assert len(stored(tmp_path / "s.db")) == 3


@pytest.mark.slow
def test_two_actors_make_the_rows_of_the_engine_below(tmp_path):
    """Ray Data over the lab's weak solver; both actors take part, and it resumes."""
    pytest.importorskip("ray", reason="ray is not installed: pip install 'limo-nb[ray]'")
    rows = lab.pool(40, seed=2)
    asked = [(row["id"], chat_prompt(row["question"], SYSTEM)) for row in rows]
    drawn = Sampling(samples=2, temperature=0.7, max_new_tokens=24, seed=1)
    settings = {"dtype": "float32", "batch_size": 8}
    pooled = EngineSettings(kind="ray", over="transformers", workers=2, **settings)
    store = tmp_path / "ray.db"
    with open_engine(pooled, "lab:weak") as engine:
        complete(engine, asked[:8], drawn, store)
        early = stored(store)
        found = complete(engine, asked, drawn, store)
        assert len(engine.actors) >= 2
    assert len(early) == 16 and early < stored(store) and len(stored(store)) == 80
    with open_engine(EngineSettings(**settings), "lab:weak") as engine:
        alone = complete(engine, asked, drawn, tmp_path / "alone.db")
        again = complete(engine, asked, drawn, store)  # and they share a store
    assert found.to_list() == alone.to_list() == again.to_list()
    assert len(stored(store)) == 80
