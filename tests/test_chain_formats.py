"""Formats of training rows: round trips, what other tools read, and broken rows by name."""

import json
import subprocess
import sys

import pytest
from datasets import Dataset
from hub import Hub
from hypothesis import given, settings
from hypothesis import strategies as st
from test_cli import limo_nb as command

from limo_nb import (
    inference,
    lab,
)
from limo_nb.chains import formats
from limo_nb.core.settings import SYSTEM_PROMPT
from limo_nb.problems.reading import read_chains

FORMATS = sorted(name for name, form in formats.FORMATS.items() if not form.by_reward)
ROWS = [
    {"question": "What is 2*3?", "solution": "1) 2*3=6.\nSo \\boxed{6}", "answer": "6"},
    {"question": "三加四？", "solution": "因此答案是 \\boxed{七}\u2028<b>", "answer": "七"},
    {"question": 'A "quoted"\nline\\', "solution": "Check: $x_1$. \\boxed{(1,2]}",
     "answer": "(1,2]", "level": 3, "subject": "dial"},
]  # fmt: skip


def written(rows, folder, to="limo", suffix=".jsonl"):
    file = folder / f"rows-{to}{suffix}"
    formats.write_rows(formats.convert(rows, to, "Think."), file)
    return file


def row_of(record):
    found = read_chains([("here", record)])
    assert not found.broken
    (row,) = found.rows
    return row


# ---------------------------------------------------------------- round trips
@pytest.mark.parametrize("to", FORMATS)
@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".parquet"])
def test_round_trip_through_a_file(to, suffix, tmp_path):
    rows = ROWS[:2] if suffix == ".parquet" else ROWS  # its rows share their columns
    back = formats.read_rows(written(rows, tmp_path, to, suffix)).rows
    prompt = {} if to == "limo" else {"system": "Think."}
    assert back == [{**row, **prompt} for row in rows]


@pytest.mark.parametrize("first", FORMATS)
@pytest.mark.parametrize("second", FORMATS)
def test_every_format_becomes_every_other(first, second, tmp_path):
    once = formats.read_rows(written(ROWS, tmp_path, first)).rows
    direct = formats.convert(ROWS, second, "Think.")
    assert formats.convert(once, second, "Think.") == direct


TEXT = st.text(min_size=1).filter(lambda text: any(map(str.isalnum, text)))


@settings(deadline=None, max_examples=60)
@given(TEXT, TEXT, st.text(min_size=1), st.sampled_from(FORMATS))
def test_any_text_survives(question, solution, answer, to):
    row = {"question": question, "solution": solution, "answer": answer}
    (record,) = formats.convert([row], to, "")
    back = row_of(json.loads(json.dumps(record)))
    assert back == row


def test_a_rows_own_prompt_goes_before_the_argument():
    (record,) = formats.convert([{**ROWS[0], "system": "Mine."}], "alpaca", "Other.")
    assert record["system"] == "Mine."


def test_answer_is_read_from_the_solution_where_no_column_has_it():
    row = row_of({"instruction": "2*3?", "input": "Now.", "output": "\\boxed{6}"})
    assert row == {"question": "2*3?\nNow.", "solution": "\\boxed{6}", "answer": "6"}


@pytest.mark.parametrize(
    ("record", "want"),
    [
        ({"problem": "q", "solution": "s", "answer": "4"}, ("q", "s", "4")),
        ({"prompt": "q", "text": "s", "ground_truth": "4"}, ("q", "s", "4")),
        ({"question": "q", "answer": "", "text": "\\boxed{4}"}, ("q", "\\boxed{4}", "4")),
        ({"question": "q", "solution": "s", "text": "t", "answer": "4"}, ("q", "s", "4")),
        ({"problem": "p", "solution": "x", "answer": "4", "messages":
          [{"role": "user", "content": "q"}, {"role": "assistant", "content": "s"}]},
         ("q", "s", "4")),  # the question of the reply that is trained on
    ],
)  # fmt: skip
def test_other_usual_names_are_read(record, want):
    row = row_of({**record, "finished": False})
    assert (row["question"], row["solution"], row["answer"]) == want
    assert row["finished"] is False


# ---------------------------------------------------------------- what other tools read
def llama_factory(record, entry):
    """(system, user, assistant) as LLaMA-Factory's alpaca and ShareGPT converters read them.

    Written after their description (0.9.2): named columns only; a prompt that is not
    mapped is not seen; with a system tag, the first turn may be the prompt.
    """
    columns, tags = entry["columns"], entry.get("tags", {})
    system = record[columns["system"]] if "system" in columns else ""
    if entry.get("formatting", "alpaca") == "alpaca":
        asked = [record[columns[name]] for name in ("prompt", "query")]
        return system, "\n".join(part for part in asked if part), record[columns["response"]]
    turns = list(record[columns["messages"]])
    if turns[0][tags["role_tag"]] == tags.get("system_tag", "system"):
        system = turns.pop(0)[tags["content_tag"]]
    assert [t[tags["role_tag"]] for t in turns] == [tags["user_tag"], tags["assistant_tag"]]
    return system, *(turn[tags["content_tag"]] for turn in turns)


@pytest.mark.parametrize("to", ["alpaca", "sharegpt", "messages"])
def test_llama_factory_sees_prompt_question_and_solution(to, tmp_path):
    file = written(ROWS, tmp_path, to, ".json")
    info = formats.dataset_info(file, to, "mine")
    entry = json.loads(info.read_text())["mine"]
    assert entry["file_name"] == file.name and info.parent == file.parent
    for row, record in zip(ROWS, json.loads(file.read_text()), strict=True):
        seen = llama_factory(record, entry)
        assert seen == ("Think.", row["question"], row["solution"])


def test_alpaca_entry_maps_the_system_column():
    """LLaMA-Factory's alpaca reader ignores a column that is not mapped (LIMO issues 6, 11)."""
    assert formats.llama_factory_entry("alpaca", formats.Path("a.json"))["columns"] == {
        "prompt": "instruction", "query": "input", "response": "output", "system": "system",
    }  # fmt: skip


def test_entries_of_others_stay_and_a_broken_file_is_named(tmp_path):
    info = tmp_path / "dataset_info.json"
    info.write_text('{"theirs": {"file_name": "t.json"}}')
    for _ in range(2):
        formats.dataset_info(tmp_path / "a.json", "alpaca", "mine")
    assert list(json.loads(info.read_text())) == ["theirs", "mine"]
    info.write_text("{")
    with pytest.raises(ValueError, match="dataset_info.json: not valid JSON"):
        formats.dataset_info(tmp_path / "a.json", "alpaca", "mine")
    with pytest.raises(ValueError, match="no system prompt"):
        formats.dataset_info(tmp_path / "a.json", "limo", "mine")


def test_messages_are_the_conversation_that_is_trained_on_here():
    """TRL applies the chat template to `messages`; ours is asked for the same text."""
    tokenizer = inference.load_tokenizer(str(lab.model_path("foundation")))
    for record, row in zip(formats.convert(ROWS, "messages", SYSTEM_PROMPT), ROWS, strict=True):
        theirs = tokenizer.apply_chat_template(record["messages"], tokenize=False)
        asked = inference.chat_prompt(row["question"], SYSTEM_PROMPT)
        ours = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
        assert theirs.startswith(ours + row["solution"])
        assert [set(turn) for turn in record["messages"]] == [{"role", "content"}] * 3


def test_trl_reads_prompt_and_completion():
    """Its own functions see a conversation, and make the text that is trained on here."""
    from trl import apply_chat_template, is_conversational

    tokenizer = inference.load_tokenizer(str(lab.model_path("foundation")))
    for record, row in zip(formats.convert(ROWS, "trl", SYSTEM_PROMPT), ROWS, strict=True):
        assert is_conversational(record)
        theirs = apply_chat_template(
            {n: record[n] for n in ("prompt", "completion")}, tokenizer
        )
        asked = inference.chat_prompt(row["question"], SYSTEM_PROMPT)
        ours = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
        assert theirs["prompt"] == ours and theirs["completion"].startswith(row["solution"])


def test_verl_gets_the_columns_of_its_documentation(tmp_path):
    """A reference is wanted and no chain; the columns are those of its data sets."""
    file = tmp_path / "rl.jsonl"
    file.write_text(json.dumps({"problem": "2*3?", "final_answer": 6, "level": 2}) + "\n")
    rows = formats.read_rows(file, by_reward=True).rows
    formats.write_rows(formats.convert(rows, "verl", "Think."), tmp_path / "rl.parquet")
    (record,) = Dataset.from_parquet(str(tmp_path / "rl.parquet")).to_list()
    turns = [{"content": "Think.", "role": "system"}, {"content": "2*3?", "role": "user"}]
    assert record == {
        "data_source": "limo-nb", "prompt": turns, "ability": "math", "answer": 6, "level": 2,
        "reward_model": {"style": "rule", "ground_truth": "6"},
        "extra_info": {"split": "train", "index": 0},
    }  # fmt: skip
    (back,) = formats.read_rows(tmp_path / "rl.parquet", by_reward=True).rows
    assert (back["question"], back["answer"]) == ("2*3?", "6")
    file.write_text('{"problem": "2*3?"}\n')
    with pytest.raises(ValueError, match="no answer"):
        formats.read_rows(file, by_reward=True)


def test_open_r1_s_reward_judges_answers_by_the_solution(tmp_path):
    from trl.rewards import accuracy_reward

    file, out = tmp_path / "rl.jsonl", tmp_path / "rl.parquet"
    file.write_text('{"problem": "1/2 of 3?", "final_answer": "\\\\frac32"}\n')
    rows = formats.read_rows(file, by_reward=True).rows
    formats.write_rows(formats.convert(rows, "open-r1", "Think."), out)
    (record,) = Dataset.from_parquet(str(out)).to_list()
    assert record["problem"] == "1/2 of 3?" and record["solution"] == r"\boxed{\frac32}"
    assert [turn["role"] for turn in record["prompt"]] == ["system", "user"]
    said = [[{"role": "assistant", "content": rf"It is \boxed{{{x}}}."}] for x in ("1.5", "2")]
    assert accuracy_reward(said, [record["solution"]] * 2) == [1.0, 0.0]


# ---------------------------------------------------------------- broken rows
BROKEN = [
    ('{"question": "q"}', "no chain (found: question)"),
    ('{"question": "q", "solution": null}', "no chain (found: question, solution)"),
    ('{"question": "q", "solution": " … "}', "the chain has no words"),
    ('{"question": "q", "solution": 7}', "no chain (found: question, solution)"),
    ('{"instruction": "q", "output": "s", "history": [["a", "b"]]}', "has a history"),
    ('{"conversations": [{"from": "human", "value": "q"}]}', "no chain (found: conversat"),
    ('{"conversations": [{"from": "gpt", "value": "q"}, {"from": "human", "value": "s"}]}',
     "found the turns assistant, user"),
    ('{"messages": [{"role": "user"}]}', "no question (found: messages)"),
    ('{"messages": "hello"}', "no chain (found: messages)"),
    ('{"messages": []}', "no question (found: messages)"),
    ("[1]", "expected a mapping, found list"),
    ('{"question": "q", "solut', "not valid JSON"),
]  # fmt: skip
GOOD = json.dumps(ROWS[0])


@pytest.mark.parametrize(("line", "message"), BROKEN)
def test_a_broken_row_is_named_by_file_and_line(line, message, tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text(f"{GOOD}\n\n{line}\n{GOOD}\n")
    with pytest.raises(ValueError, match="1 broken rows") as error:
        formats.read_rows(file)
    assert f"{file}, line 3: " in str(error.value) and message in str(error.value)
    assert str(error.value).count(str(file)) == 2  # the head and the place, not more
    broken = []
    assert formats.read_rows(file, broken).rows == [ROWS[0], ROWS[0]]
    assert len(broken) == 1 and message in broken[0]


def test_nothing_left_is_an_error(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text("{}\n" * 7)
    with pytest.raises(ValueError, match="7 broken rows") as error:
        formats.read_rows(file, [])
    assert str(error.value).count("line") == 5  # the first five are enough to see why
    file.write_text("")
    with pytest.raises(ValueError, match="has no rows"):
        formats.read_rows(file, [])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: formats.convert(ROWS, "csv", ""), "no format 'csv'; there are limo"),
        (lambda: formats.convert([{"question": "q"}], "limo", ""), "row 1: no solution"),
        (lambda: formats.convert([{**ROWS[0], "input": "x"}], "alpaca", ""), "'input' has a"),
        (
            lambda: formats.write_rows([], formats.Path("rows.txt")),
            "rows are written to .jsonl",
        ),
    ],
)
def test_what_is_wrong_is_said(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# ---------------------------------------------------------------- data sets by name
def test_a_folder_of_a_data_sets_name_goes_before_the_hub(tmp_path):
    for number, part in enumerate((ROWS[:1], ROWS[1:])):
        folder = tmp_path / "GAIR" / "LIMO"
        folder.mkdir(parents=True, exist_ok=True)
        formats.write_rows(part, folder / f"part-{number}.jsonl")
    done = command(tmp_path, "score", "GAIR/LIMO", "--json")
    assert done.returncode == 0 and json.loads(done.stdout)["chains"] == 3, done.stderr
    done = command(tmp_path, "convert", "GAIR/LIMO", "o.jsonl", "--to", "limo", "--rows", "2")
    assert done.returncode == 0 and (tmp_path / "o.jsonl").read_text().count("\n") == 2


def test_rows_of_the_hub_are_streamed_as_far_as_they_are_wanted(tmp_path):
    with Hub() as server:
        done = subprocess.run(
            [sys.executable, "-m", "limo_nb", "show", "a/set:train", "--rows", "7", "--json"],
            cwd=tmp_path, env=server.environment(tmp_path), capture_output=True, text=True,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert list(found["read"].values()) == [7] and found["first"]["answer"] == "0"
    assert (tmp_path / "limo-nb.lock.json").exists()


def test_without_network_the_way_out_is_said(tmp_path):
    done = command(tmp_path, "score", "GAIR/LIMO-v2")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "GAIR/LIMO-v2 is no file here, and as a data set of the Hub" in done.stderr
    assert "HF_ENDPOINT" in done.stderr and "into a folder GAIR/LIMO-v2" in done.stderr


# ---------------------------------------------------------------- as commands
def test_convert_and_score_as_commands(tmp_path):
    written(ROWS, tmp_path, "limo")
    done = command(tmp_path, "convert", "rows-limo.jsonl", "out/a.json", "--to", "alpaca",
                   "--register", "mine", "--json")  # fmt: skip
    report = json.loads(done.stdout)
    assert done.returncode == 0 and report["rows"] == 3 and report["broken"] == []
    record = json.loads((tmp_path / "out/a.json").read_text())[0]
    assert record["system"] == SYSTEM_PROMPT and record["output"] == ROWS[0]["solution"]
    assert "mine" in json.loads((tmp_path / report["dataset_info"]).read_text())

    with (tmp_path / "out/a.json").open("a") as file:
        file.write(" ")
    done = command(tmp_path, "score", "out/a.json", "--bands", "3", "--json")
    found = json.loads(done.stdout)
    assert done.returncode == 0 and len(found["rows"]) == 3
    assert sorted(row["level"] for row in found["rows"]) == [1, 2, 3]
    assert all({"score", "length", "verification", "exploration", "granularity", "steps",
                "after_answer"} <= row.keys() for row in found["rows"])  # fmt: skip


def test_score_counts_tokens_by_the_tokenizer_that_is_named(tmp_path):
    chain = "12 + 3 = 15. The answer is \\boxed{15}. Check: 15 - 3 = 12."
    row = {"question": "What is 12 + 3?", "solution": chain, "answer": "15"}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row))
    shares = []
    for options in ((), ("--tokenizer", "lab:foundation")):
        done = command(tmp_path, "score", "rows.jsonl", "--json", *options)
        assert done.returncode == 0, done.stderr
        shares.append(json.loads(done.stdout)["rows"][0]["after_answer"])
    assert 0 < shares[0] < 1 and 0 < shares[1] < 1 and shares[0] != shares[1]
    done = command(tmp_path, "score", "rows.jsonl", "--tokenizer", "lab:foundation")
    assert "share of the tokens of lab:foundation" in done.stdout
    (tmp_path / "empty").mkdir()
    for missing in ("no-such-folder", "empty"):
        done = command(tmp_path, "score", "rows.jsonl", "--tokenizer", missing)
        assert done.returncode == 1 and f"no tokenizer at '{missing}'" in done.stderr
        assert 'File "' not in done.stderr


def test_commands_name_broken_rows_and_go_on_if_told_to(tmp_path):
    (tmp_path / "rows.jsonl").write_text(f"{GOOD}\n{{}}\n")
    done = command(tmp_path, "score", "rows.jsonl")
    assert done.returncode == 1 and "rows.jsonl, line 2" in done.stderr
    assert 'File "' not in done.stderr
    done = command(tmp_path, "score", "rows.jsonl", "--skip-broken", "--out", "scored.jsonl")
    assert done.returncode == 0 and "left out: rows.jsonl, line 2" in done.stderr
    (row,) = formats.read_rows(tmp_path / "scored.jsonl").rows
    assert row["question"] == ROWS[0]["question"] and row["band"] is None
    assert "level" not in row  # that would be the problem's
    done = command(tmp_path, "convert", "rows.jsonl", "o.json", "--to", "limo", "--register",
                   "x", "--skip-broken")  # fmt: skip
    assert done.returncode == 1 and not (tmp_path / "o.json").exists()
