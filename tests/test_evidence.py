"""The claim ledger: rules, measured quantities and verdicts agree."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from datasets import Dataset
from graded import results_of

from limo_nb.book import contents
from limo_nb.core import settings
from limo_nb.core.files import write_json
from limo_nb.core.paper import reported
from limo_nb.core.recorded_runs import RecordedRun
from limo_nb.core.runs import Run
from limo_nb.evaluation import RESULTS, accuracies, wilson
from limo_nb.evidence import (
    judging,
    measuring,
    rules,
    show,
    summary,
)
from limo_nb.evidence.judging import (
    CONTRADICTED,
    EQUIVALENT,
    NO_ROOM,
    REPRODUCED,
    SHOWN,
    UNDECIDED,
    UNTESTED,
)
from limo_nb.evidence.measuring import tables_of_records
from limo_nb.evidence.recorded import REAL
from limo_nb.experiments import ablations, differences, elicitation
from limo_nb.lab.world import IN_DOMAIN

CLAIM = {
    "id": "gain",
    "title": "A gain",
    "claim": "It gains.",
    "source": "somebody",
    "chapter": 8,
    "paper": "none",
    "values": {"gain": {"table": "evaluation", "name": "limo", "minus": "base"}},
    "rule": [{"value": "gain", "at_least": 30}],
    "least": {"items": 100, "seeds": 3},
}


def accuracy(name: str, value: float, half: float = 0.03, group: str = "all", **more) -> dict:
    numbers = {"value": value, "low": value - half, "high": value + half}
    return {"name": name, "group": group, **numbers, "items": 400, "seeds": 3, **more}


def verdict(rows: list[dict], small: bool = True, **changes) -> tuple[str, str]:
    (row,) = judging.judge([rules.Claim(**(CLAIM | changes))], {"evaluation": rows}, small)
    return row["verdict"], row["reason"]


@pytest.mark.parametrize(
    ("condition", "low", "high", "outcome"),
    [
        ({"at_least": 30}, 30, 40, True),
        ({"at_least": 30}, 29.9, 40, None),
        ({"at_least": 30}, 10, 30, None),
        ({"at_least": 30}, 10, 29.9, False),
        ({"above": 0}, 0.1, 5, True),
        ({"above": 0}, 0, 5, None),
        ({"above": 0}, -5, 0, False),
        ({"at_most": 10}, -5, 10, True),
        ({"at_most": 10}, -5, 10.1, None),
        ({"at_most": 10}, 10.1, 12, False),
    ],
)
def test_condition_speaks_of_the_whole_interval(condition, low, high, outcome) -> None:
    assert rules.Condition(value="x", **condition).test(low, high) is outcome


@pytest.mark.parametrize(
    ("rows", "expected", "reason"),
    [
        ([accuracy("limo", 0.8), accuracy("base", 0.3)], SHOWN, "50.0"),
        ([accuracy("limo", 0.62), accuracy("base", 0.3)], UNDECIDED, "at least 30"),
        ([accuracy("limo", 0.4), accuracy("base", 0.3)], CONTRADICTED, "10.0"),
        ([accuracy("limo", 0.2), accuracy("base", 0.3)], CONTRADICTED, "−10.0"),
        ([accuracy("limo", 0.8)], UNTESTED, "not measured"),
        ([], UNTESTED, "not measured"),
        ([accuracy("limo", 0.8, group="in domain"), accuracy("base", 0.3)], UNTESTED, "gain"),
        ([accuracy("limo", 0.8, items=99), accuracy("base", 0.3)], UNTESTED, "99 problems"),
        ([accuracy("limo", 0.8, seeds=2), accuracy("base", 0.3)], UNTESTED, "2 fine-tuning"),
        ([accuracy("limo", 0.8), accuracy("base", 0.3, seeds=1)], SHOWN, "50.0"),
        # a paired difference, where there is one, comes before the two sides
        (
            [accuracy("limo", 0.62), accuracy("base", 0.3),
             accuracy("limo", 0.32, 0.01, minus="base")],
            SHOWN, "31.0 to 33.0",
        ),
    ],
)  # fmt: skip
def test_verdict_follows_the_numbers(rows, expected, reason) -> None:
    found, why = verdict(rows)
    assert found == expected and reason in why


def test_real_models_reproduce_rather_than_show() -> None:
    assert verdict([accuracy("limo", 0.8), accuracy("base", 0.3)], small=False)[0] == REPRODUCED


@pytest.mark.parametrize(
    ("low", "high", "rule", "expected"),
    [
        (-4, 3, {"above": 0}, EQUIVALENT),
        (1, 4, {"above": 0}, EQUIVALENT),  # an effect, and too small to matter
        (1, 9, {"above": 0}, SHOWN),
        (-9, 3, {"above": 0}, UNDECIDED),
        (-9, -1, {"above": 0}, CONTRADICTED),
        (-4, -1, {"at_most": 0}, EQUIVALENT),
        (-9, -1, {"at_most": 0}, SHOWN),
        (-4, 4, {"at_least": 30}, CONTRADICTED),  # a bound of size is missed, not met
    ],
)
def test_a_difference_smaller_than_what_matters_is_no_effect(low, high, rule, expected):
    middle = (low + high) / 200
    gap = accuracy("limo", middle, minus="base")
    gap |= {"low": low / 100, "high": high / 100}
    changes = {"effect": 5, "rule": [{"value": "gain", **rule}]}
    assert verdict([gap, accuracy("base", 0.3)], **changes)[0] == expected


@pytest.mark.parametrize(
    ("base", "limo", "rule", "expected"),
    [
        (0.96, 0.97, {"above": 0}, NO_ROOM),
        (0.80, 0.82, {"above": 0}, UNDECIDED),
        (0.80, 0.98, {"at_least": 30}, NO_ROOM),  # 30 points do not fit above 80
        (0.10, 0.98, {"at_least": 30}, SHOWN),
        (0.95, 0.99, {"at_most": 10}, NO_ROOM),  # it could not have been missed
        (0.60, 0.62, {"at_most": 10}, SHOWN),
    ],
)
def test_where_an_effect_does_not_fit_there_is_no_room(base, limo, rule, expected):
    rows = [accuracy("limo", limo, 0.04), accuracy("base", base, 0.04)]
    found, reason = verdict(rows, effect=5, rule=[{"value": "gain", **rule}])
    assert found == expected
    assert (f"above {100 * base:.1f}" in reason) == (expected == NO_ROOM)


# ---------------------------------------------------------------- what was published
def test_a_published_score_has_the_interval_of_its_problems() -> None:
    row = measuring.published_score("LIMO v3", "aime")
    assert (row["value"], row["items"]) == (0.633, 30)
    assert (row["low"], row["high"]) == wilson(0.633 * 30, 30)
    mean = measuring.published_score("LIMO v3", "all")
    assert 100 * mean["value"] == pytest.approx(
        reported()["results"]["average"]["LIMO v3"], abs=0.05
    )
    assert mean["high"] - mean["low"] < (row["high"] - row["low"]) / 3
    path = measuring.published_score("ablations.model_size.72B.math", "math")
    assert (path["value"], path["items"]) == (0.948, 500)
    assert measuring.published_score("fine_tuning.batch_size.paper", "exact")["value"] == 64


@pytest.mark.parametrize(
    ("name", "group", "message"),
    [
        ("nobody", "all", "no 'nobody'"),
        ("results.average", "aime", "no number at 'results.average', but dict"),
        ("LIMO v3", "nothing", "'nothing' is not in list"),
        ("results.models.LIMO v3.0", "nothing", "no benchmark 'nothing'"),
    ],
)
def test_what_was_not_published_is_named(name: str, group: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        measuring.published_score(name, group)


def test_published_claims_are_decided_by_problems_and_not_by_points(repository: Path) -> None:
    """Thirty problems do not separate 57.1 from 44.6; ten benchmarks separate 78.1 and 61.1."""
    known = [c for c in ledger(repository) if c.rests_on == "published numbers"]
    found = {row["id"]: row["verdict"] for row in judging.judge(known, {})}
    assert len(found) >= 25 and UNTESTED not in found.values()
    assert found["over-o1-aime"] == UNDECIDED and found["over-o1"] == SHOWN
    assert found["generalisation-headline"] == CONTRADICTED
    assert found["published-sizes-math"] == EQUIVALENT
    assert found["two-scores"] == CONTRADICTED
    assert {row["by"] for row in judging.judge(known, {})} == {judging.PUBLISHED}


def test_the_ledger_is_whole(repository: Path) -> None:
    known = ledger(repository)
    assert len(known) >= 40
    for claim in known:
        assert claim.source and claim.published, claim.id
        assert claim.untested or all(c.value in claim.values for c in claim.rule), claim.id


@pytest.mark.parametrize(("rows", "expected"), [(20, SHOWN), (500, UNTESTED)])
def test_claim_presupposes_its_design(rows: int, expected: str) -> None:
    claim = rules.Claim(
        **CLAIM
        | {
            "values": {
                **CLAIM["values"],
                "share": {"table": "sets", "name": "limo", "over": "bulk", "unit": "percent"},
            },
            "requires": [{"value": "share", "at_most": 2}],
        }
    )
    evaluation = [accuracy("limo", 0.8), accuracy("base", 0.3)]
    sets = [measuring.exact_row("limo", rows), measuring.exact_row("bulk", 1000)]
    (row,) = judging.judge([claim], {"evaluation": evaluation, "sets": sets})
    assert row["verdict"] == expected
    assert row["measured"]["share"]["value"] == pytest.approx(rows / 10)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rule": [{"value": "other", "above": 0}]}, "unknown values: other"),
        ({"rule": [{"value": "gain", "above": 0, "at_most": 3}]}, "exactly one"),
        ({"rule": [{"value": "gain"}]}, "exactly one"),
        ({"rule": []}, "untested"),
        ({"untested": "no time"}, "untested"),
        ({"rule": [{"value": "gain", "above": "__import__('os')"}]}, "valid number"),
        ({"wrong": 1}, "wrong"),
    ],
)
def test_faulty_ledger_is_named(tmp_path: Path, changes: dict, message: str) -> None:
    path = tmp_path / "claims.yml"
    row = {key: value for key, value in CLAIM.items() if key != "least"} | changes
    path.write_text(yaml.safe_dump({"least": CLAIM["least"], "claims": [row]}))
    with pytest.raises(ValueError, match="claim 'gain'") as error:
        rules.load_ledger(path)
    assert message in str(error.value)


# ---------------------------------------------------------------- this book's ledger
def ledger(repository: Path) -> list[rules.Claim]:
    return rules.load_ledger(repository / "book" / "claims.yml")


def test_ledger_has_the_thresholds_that_were_asked_for(repository: Path) -> None:
    bounds = {c.id: [condition.says for condition in c.rule] for c in ledger(repository)}
    assert bounds["in-domain"] == ["at least 30"]
    assert bounds["out-of-domain"] == bounds["less-is-more"] == ["at least 20"]
    (few,) = [c for c in ledger(repository) if c.id == "less-is-more"]
    assert [condition.says for condition in few.requires] == ["at most 2"]


def test_the_book_s_profile_is_large_enough_for_every_verdict(repository: Path) -> None:
    mini = settings.load_profile("mini")
    tables = {
        "evaluation": (mini.evaluation.items * len(IN_DOMAIN), mini.sft.seeds),
        "ablations": (mini.evaluation.items * len(IN_DOMAIN), mini.ablations.seeds),
    }
    for claim in ledger(repository):
        for quantity in claim.values.values() if claim.rests_on == "a run" else ():
            items, seeds = tables.get(quantity.table, (None, ()))
            if items is not None:
                assert items >= claim.least.items and len(seeds) >= claim.least.seeds, claim.id


def test_claims_about_a_record_are_judged_by_its_tables_alone() -> None:
    changes = {
        "record": "real",
        "prediction": "A gain.",
        "predicted": "0123abc",
        "expects": {"verdict": "reproduced", "low": 35},
    }
    claim = rules.Claim(**(CLAIM | changes))
    here = {"evaluation": [accuracy("limo", 0.9), accuracy("base", 0.1)]}
    there = {"evaluation": [accuracy("limo", 0.5), accuracy("base", 0.1)]}
    (row,) = judging.judge([claim], here, records={"real": there})
    assert row["measured"]["gain"]["value"] == pytest.approx(40)
    assert (row["verdict"], row["by"], row["held"]) == (REPRODUCED, judging.REAL, True)
    for other in ({"verdict": "shown"}, {"verdict": "reproduced", "high": 39}):
        failed = rules.Claim(**(CLAIM | changes | {"expects": other}))
        (row,) = judging.judge([failed], here, records={"real": there})
        assert row["held"] is False
    (row,) = judging.judge([claim], here, records={"real": there})
    (row,) = judging.judge([claim], here)
    assert row["verdict"] == UNTESTED
    assert row["reason"] == "not measured in the record real: gain"
    with pytest.raises(ValueError, match="about a recorded run has a prediction"):
        rules.Claim(**(CLAIM | {"record": "real"}))


def test_paper_s_figures_come_from_its_tables(repository: Path) -> None:
    said = {claim.id: claim.published for claim in ledger(repository)}
    assert not any("{" in text for text in said.values())
    average = reported()["results"]["average"]
    gain = average["LIMO v3"] - average["NuminaMath-100k"]
    assert f"{gain:+.1f}" in said["less-is-more"]
    assert str(reported()["ablations"]["sample_count"]["aime"][0]) in said["few-samples"]


def test_wrong_path_into_the_paper_s_figures_is_named() -> None:
    with pytest.raises(ValueError, match="no 'ablations.nothing.aime' .at 'nothing'"):
        rules._figure("ablations.nothing.aime")


def test_claims_link_to_sections_that_are_there(repository: Path) -> None:
    pages = {c.number: c.name for c in contents.chapters(repository)}
    linked = [claim for claim in ledger(repository) if claim.section]
    assert len(linked) >= 20
    for claim in linked:
        text = (repository / "book" / "text" / f"{pages[claim.chapter]}.md").read_text()
        assert f"\n## {claim.section}\n" in text, claim.id
    html = show.ledger_html(linked)
    assert 'href="09-ablations.html#few-rows-or-full-chains"' in html


def test_stored_verdict_that_disagrees_with_its_numbers_is_found(repository: Path) -> None:
    known = ledger(repository)
    rows = judging.judge(known, made_up())
    assert judging.disagreements(known, rows) == []
    rows = json.loads(json.dumps(rows))  # as they are stored
    assert judging.disagreements(known, rows) == []
    (row,) = [row for row in rows if row["id"] == "in-domain"]
    assert row["verdict"] == SHOWN
    row["measured"]["gain"]["low"] = 12.0
    assert judging.disagreements(known, rows) == [
        "in-domain: stored 'shown', its numbers say 'undecided'"
    ]
    row["id"] = "renamed"
    assert len(judging.disagreements(known, rows)) == 2


def made_up() -> dict[str, list[dict]]:
    """Tables in which every claim of the ledger that can be tested comes out true."""
    groups = ("all", "in domain", "out of domain")
    levels = {"base": 0.2, "poor": 0.15, "bulk": 0.2, "random": 0.6, "limo": 0.8,
              "poor-limo": 0.15}  # fmt: skip
    small = {"quality-L5": 0.8, "quality-L1": 0.4, "questions-hard": 0.8,
            "questions-easy": 0.6, "rows-half": 0.78, "bulk-tokens": 0.25, "limo": 0.8,
            "base": 0.2, "random": 0.6, "few-answers": 0.2, "few-short": 0.5, "many-full": 0.8,
            "chosen-first": 0.7, "shuffled": 0.2, "wrong": 0.8, "no-checks": 0.8,
            "skipped-50": 0.4}  # fmt: skip
    return {
        "elicitation": [
            accuracy("base textbook", 0.8, group="many steps", seeds=1),
            accuracy("base chat", 0.2, group="many steps", seeds=1),
        ],
        "evaluation": [accuracy(n, v, group=g) for n, v in levels.items() for g in groups],
        "ablations": [accuracy(n, v) for n, v in small.items()],
        "lengths": [
            accuracy("limo", 120, 9, group="out of domain"),
            accuracy("base", 6, 1, group="out of domain"),
        ],
        "sets": [measuring.exact_row("limo", 100), measuring.exact_row("bulk", 5000)],
    }


def test_every_testable_claim_is_shown_by_tables_that_show_it(repository: Path) -> None:
    claims = [c for c in ledger(repository) if c.rests_on == "a run"]
    assert len(claims) == 20
    assert {row["verdict"] for row in judging.judge(claims, made_up())} == {SHOWN}


def test_derived_figures_of_the_paper_are_the_differences_of_the_others() -> None:
    hard = reported()["ablations"]["question_quality"]
    simple = hard["advanced"]["aime"] - hard["gain_of_advanced_over_simple"]["aime"]
    assert reported()["derived"]["simple_questions_aime"] == pytest.approx(simple)
    backbone = reported()["ablations"]["backbone"]
    for name, gap in backbone["gap_v3"].items():
        new, old = (backbone[m][name] for m in ("Qwen2.5-32B-Instruct", "Qwen1.5-32B-Chat"))
        assert gap == pytest.approx(new - old)


# ---------------------------------------------------------------- what a run left
@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("LIMO_NB_RUNS", str(tmp_path))
    return Run("smoke")


def leave(run: Run, stage: str, **files) -> None:
    def write(folder: Path) -> None:
        for name, content in files.items():
            if isinstance(content, Dataset):
                content.to_parquet(str(folder / f"{name}.parquet"))
            else:
                write_json(folder / f"{name}.json", content)

    run.make(stage, write)


def table(**accuracies: float) -> list[dict]:
    return [
        {"model": name, "group": "all", "accuracy": value, "low": value - 0.03,
         "high": value + 0.03, "items": 400, "samples": 400, "seeds": 3, "unverifiable": 0}
        for name, value in accuracies.items()
    ]  # fmt: skip


SHARES = {"base": 0.1, "poor": 0.1, "bulk": 0.1, "random": 0.5, "limo": 0.95,
          "poor-limo": 0.1}  # fmt: skip
SMALL = {"quality-L5": 0.9, "quality-L1": 0.3, "questions-hard": 0.9, "questions-easy": 0.5,
         "rows-8": 0.9, "rows-32": 0.95, "bulk-tokens": 0.1, "few-answers": 0.1,
         "few-short": 0.5, "many-full": 0.9, "chosen-first": 0.9, "random-best": 0.6,
         "shuffled": 0.1, "wrong": 0.9, "no-checks": 0.9, "skipped-50": 0.3}  # fmt: skip
HOMES = [f"in {n}" for n in range(4)] + [f"out {n}" for n in range(6)]  # benchmarks


def graded(rng: np.random.Generator, share: float, tokens: int) -> Dataset:
    """Answers to 25 items of each benchmark, about this share of them right."""
    found = results_of({name: [[bool(x)] for x in rng.random(25) < share] for name in HOMES})
    rows = [{**row, "tokens": tokens} for row in found]
    return Dataset.from_list(rows, features=RESULTS)


def leave_results(
    run: Run, stage: str, results: dict[str, list[Dataset]], pairs, **others: list[Dataset]
) -> None:
    """The answers of `results`, which may be paired with those of `others`."""
    tables = {
        f"results-{name}-{number}": table
        for name, by_seed in results.items()
        for number, table in enumerate(by_seed)
    }
    told = differences.paired(results | others, pairs)
    leave(run, stage, table=accuracies(results), differences=told, **tables)


@pytest.fixture
def full_run(run: Run) -> Run:
    """A run whose stages are made up of answers, by the functions of the real ones."""
    rng = np.random.default_rng(3)
    models = {
        name: [graded(rng, share, 100 if name == "limo" else 5)
               for _ in range(1 if name in ("base", "poor") else 3)]
        for name, share in SHARES.items()
    }  # fmt: skip
    pairs = [("limo", other) for other in ("base", "bulk", "random", "poor-limo")]
    leave_results(run, "evaluation", models, [*pairs, ("poor-limo", "poor")])
    small = {name: [graded(rng, share, 9) for _ in range(3)] for name, share in SMALL.items()}
    headline = {name: models[name] for name in ablations.EVALUATED}
    leave_results(run, "ablations", small, ablations.contrasts(SMALL), **headline)
    rows = Dataset.from_list([{"question": str(n)} for n in range(64)])
    bulk = Dataset.from_list([{"question": str(n)} for n in range(3200)])
    leave(run, "models/sets", limo=rows, random=rows, bulk=bulk)
    asked = [
        {"model": "base", "format": shape, "benchmark": "b", "level": 6, "id": str(item),
         "in_domain": True, "sample": 0, "correct": bool(right), "tokens": 3, "finished": True}
        for shape, share in (("chat", 0.1), ("textbook", 0.8))
        for item, right in enumerate(rng.random(120) < share)
    ]  # fmt: skip
    answers = Dataset.from_list(asked)
    tables = {"table": elicitation.estimates(answers), "differences": elicitation.gaps(answers)}
    leave(run, "elicitation", **tables)
    return run


def stored_verdicts(run: Run, claims: list[rules.Claim]) -> list[dict]:
    """As chapter 10 does: judged, written, and read again."""

    def write(folder: Path) -> None:
        write_json(folder / "claims.json", judging.judge(claims, measuring.tables(run)))

    made = [stage for stage in measuring.STAGES if not stage.startswith("study/")]
    stages = [run.load(stage) for stage in ("models/sets", *made)]
    return run.make("claims", write, inputs=stages).json("claims.json")


def test_a_run_s_verdicts_are_those_of_its_answers(full_run: Run, repository: Path) -> None:
    claims = ledger(repository)
    rows = stored_verdicts(full_run, claims)
    assert judging.disagreements(claims, rows) == []
    verdicts = {row["id"]: (row["verdict"], row["reason"]) for row in rows}
    untested = [name for name, (verdict, _) in verdicts.items() if verdict == UNTESTED]
    assert untested == [c.id for c in claims if c.untested or c.record], verdicts
    assert verdicts["in-domain"][0] == verdicts["out-of-domain"][0] == SHOWN


def test_the_page_in_short_has_the_verdicts_of_the_run(full_run: Run, repository: Path) -> None:
    without = summary.summary_page(repository, full_run.profile.name)
    assert "has not been run" in without
    rows = {row["id"]: row for row in stored_verdicts(full_run, ledger(repository))}
    text = summary.summary_page(repository, full_run.profile.name)
    for name in (*summary.OF_RUN, *summary.OF_PAPERS):
        (line,) = [line for line in text.splitlines() if f"**{rows[name]['title']}.**" in line]
        assert f"| {rows[name]['verdict']} |" in line
        for found in rows[name]["measured"].values():
            assert found is None or judging.interval_told(found) in line
    assert f"Of {len(rows)} claims" in text and "&#" not in text


def test_every_run_that_is_here_agrees_with_the_ledger(repository: Path) -> None:
    """Of chapter 10, where this machine has run it; the run above is always there."""
    for pointer in sorted((repository / "runs").glob("*/claims/current-*")):
        key = json.loads(pointer.read_text())["key"]
        rows = json.loads((pointer.parent / key / "claims.json").read_text())
        assert judging.disagreements(ledger(repository), rows) == [], pointer


def test_tables_of_an_empty_run_are_empty(run: Run) -> None:
    assert measuring.tables(run) == {}


def test_tables_are_read_from_what_chapters_left(run: Run) -> None:
    answers = {
        f"results-limo-{number}": Dataset.from_list(
            [{"id": f"q{item}", "in_domain": item % 2 == 0, "correct": True,
              "tokens": 10 * (item % 2) + seed} for item in range(6)]
        )
        for number, seed in enumerate((1, 3))
    }  # fmt: skip
    pair = {"model": "limo", "against": "base", "group": "all", "value": 0.5, "low": 0.4,
            "high": 0.6, "items": 400, "seeds": 3}  # fmt: skip
    leave(run, "evaluation", table=table(limo=0.8, base=0.3), differences=[pair], **answers)
    rows = Dataset.from_list([{"question": str(n)} for n in range(10)])
    leave(run, "models/sets", limo=rows, bulk=rows)
    small = {f"rows-{n}": n / 20 for n in (2, 4, 8)}
    leave(run, "ablations", table=table(**small))

    found = measuring.tables(run)
    assert [row["value"] for row in found["sets"]] == [10, 10]
    assert [r["value"] for r in found["ablations"] if r["name"] == "rows-half"] == [0.2]
    lengths = {row["group"]: row for row in found["lengths"]}
    assert lengths["in domain"]["value"] == 2 and lengths["out of domain"]["value"] == 12
    assert lengths["all"]["items"] == 6 and lengths["all"]["seeds"] == 2
    quantity = rules.ClaimQuantity(table="evaluation", name="limo", minus="base")
    measured = measuring.measure_quantity(quantity, found)
    assert measured["paired"] and (measured["low"], measured["high"]) == (40, 60)


def test_difference_of_independent_sides_is_as_wide_as_both() -> None:
    quantity = rules.ClaimQuantity(table="t", name="a", minus="b")
    sides = [accuracy("a", 0.7, 0.03), accuracy("b", 0.2, 0.04)]
    found = measuring.measure_quantity(quantity, {"t": sides})
    assert (found["value"], found["low"], found["high"]) == pytest.approx((50, 45, 55))


def test_ledger_table_escapes_and_shows_verdicts(repository: Path) -> None:
    known = ledger(repository)
    rows = judging.judge(known, made_up())
    html = show.ledger_html(known, rows)
    assert html.count("<tr id=") == len(known)
    assert html.count("<b>shown</b>") == show.tally(rows)[SHOWN]
    evil = rules.Claim(**CLAIM | {"title": "<script>"})
    assert "<script>" not in show.ledger_html([evil])


def test_margins_are_drawn_where_something_was_measured(repository: Path) -> None:
    known = ledger(repository)
    of_runs = [claim for claim in known if claim.rests_on == "a run"]
    assert show.margins(of_runs, judging.judge(of_runs, {}), "nothing") is None
    figure = show.margins(known, judging.judge(known, made_up()), "All claims held")
    assert len(figure.axes[0].get_yticklabels()) >= 10


# ------------------------------------------------------------------ the record of a real model
def test_the_real_model_s_record_decides_what_was_predicted_of_it(repository: Path) -> None:
    """Every claim about it has its numbers, and no verdict disagrees with them."""
    own = [claim for claim in rules.load_ledger() if claim.record == REAL]
    rows = judging.judge(own, {}, False, tables_of_records(repository))
    assert len(rows) == len(own) == 6 and not judging.disagreements(own, rows)
    for claim, row in zip(own, rows, strict=True):
        assert claim.prediction and judging.measured_told(row)
        assert row["verdict"] in (
            "reproduced",
            "contradicted",
            "undecided",
            "no effect of size",
        )
    facts = RecordedRun(REAL, repository).facts
    assert facts["profile"]["name"] == REAL and facts["hours"] > 0 and facts["hardware"]
