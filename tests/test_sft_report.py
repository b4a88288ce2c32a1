"""Tables and sentences of chapter 6, from logs and settings with known contents."""

from __future__ import annotations

import json

import pytest

from limo_nb.book import sft_report
from limo_nb.core import settings
from limo_nb.sft import Encoded, planner
from limo_nb.sft.encoding import IGNORED


def rows_of(losses):
    return [{"loss": loss, "tokens_per_second": 10.0 * loss} for loss in losses]


LOGS = {
    ("limo", 1): rows_of([2.0, 1.0]), ("limo", 2): rows_of([4.0, 2.0]),
    ("poor-limo", 1): rows_of([5.0, 3.0]),
}  # fmt: skip


def test_published_has_both_batch_sizes_and_how_the_epoch_was_chosen():
    paper, mini = settings.load_profile("paper"), settings.load_profile("mini")
    table = sft_report.published(paper, mini)
    said, ours, here = (table[name] for name in table.columns)
    assert said["rows a step"] == "64 (paper) or 32 (authors)"
    assert ours["rows a step"] == "64 or 32 (authors)"
    assert here["rows a step"] == str(mini.sft.batch_size)
    assert said["evaluated model"] == "epoch 9, the best on the test sets"
    assert ours["evaluated model"] == "the best on held-out questions"
    assert here["evaluated model"] == "the last"
    for name in ("epochs", "learning rate", "schedule", "warm-up", "token limit", "ZeRO stage"):
        assert said[name] == ours[name], name


def test_the_title_says_what_fits():
    paper = settings.load_profile("paper")
    big = planner.setup_of(paper.sft, paper.models.base, 8, 80, 800)
    assert big.batch_size == 64 and big.tokens == 16_384 and big.zero == 3
    title = sft_report.memory_finding(planner.alternatives(big))
    assert "8 × 80 GB do with optimiser offloaded and 786 GB of host memory" in title
    whole = planner.alternatives(planner.setup_of(paper.sft, paper.models.base, 32, 80, 800))
    assert sft_report.memory_finding(whole).endswith(
        "fits 32 × 80 GB at 16,384 tokens as it is"
    )
    small = planner.setup_of(paper.sft, paper.models.base, 6, 24, 800)
    assert small.batch_size == 66  # 64 cannot be shared by six
    models = ("Qwen/Qwen2.5-3B-Instruct", "Qwen/Qwen2.5-72B-Instruct")
    fits, none = sft_report.fitting(models, small)
    assert (fits["model"], fits["fits"]) == ("Qwen2.5-3B-Instruct", "Liger")
    assert none["fits"] == "in no way shown" and not none["host, GB"]


def test_stacked_parts_sum_to_the_peak():
    paper = settings.load_profile("paper")
    for plan in planner.alternatives(
        planner.setup_of(paper.sft, paper.models.base, 8, 80, 800)
    ):
        assert sum(plan.stacked().values()) == pytest.approx(plan.peak / planner.GB)
    tiny = planner.setup_of(
        settings.load_profile("mini").sft,
        "Qwen/Qwen2.5-0.5B-Instruct",
        1,
        80,
        8,
        tokens=8,
        batch_size=1,
    )
    assert planner.plan(tiny).stacked()["step"] > 0  # short rows: the optimiser's step is more


def test_curves_and_their_reading():
    done, series = sft_report.loss_curves(LOGS)
    assert done == [50, 100]
    assert series["limo"] == [(3.0, 2.0, 4.0), (1.5, 1.0, 2.0)]
    assert "at 3.00 nats" in sft_report.first_step(LOGS, "limo", "poor-limo")
    assert "at 5.00, further from them" in sft_report.first_step(LOGS, "limo", "poor-limo")
    assert "no further from them" in sft_report.first_step(LOGS, "poor-limo", "limo")
    slope = sft_report.slope([(2.0, 0, 0), (1.9, 0, 0)])
    assert slope == "bulk's hardly falls, from 2.00 to 1.90 between its ends"
    assert sft_report.slope([(2.0, 0, 0), (1.0, 0, 0)]).startswith("bulk's falls, from 2.00")


def test_what_runs_took(tmp_path):
    trained = {}
    for (arm, seed), log in LOGS.items():
        folder = trained[arm, seed] = tmp_path / f"{arm}-{seed}"
        folder.mkdir()
        (folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in log))
        done = {"rows": 8, "steps": 2, "seconds": 60.0 * seed, "peak_memory_gib": seed / 2}
        (folder / "done.json").write_text(json.dumps(done))
    table = sft_report.over_seeds(trained)
    assert table.loc["limo", "last loss"] == "1.50 (1.00 to 2.00)"
    assert table.loc["poor-limo", "training (s)"] == "60 (60 to 60)"
    said = sft_report.cost(trained, 300.0)
    assert said.startswith(
        "3 models in 5.0 minutes, of which 4.0 were training, with at most 1.0"
    )


def test_answers_stand_beside_each_other_escaped():
    items = [{"question": "<1", "answer": "2"}, {"question": "b", "answer": "3"}]
    html = sft_report.answers_html(items, {"base": ["", "x"], "limo": ["y", "z"]})
    assert "&lt;1 [2]" in html and "(nothing)" in html
    assert html.count('class="limo-pair"') == 2


def test_losses_by_part_take_mean_and_range_of_the_runs() -> None:
    logs = [[{"loss": loss} for loss in run] for run in ([4, 2, 1, 1], [2, 2, 3, 1])]
    assert sft_report.losses_by_part(logs, 2) == [(2.5, 2.0, 3.0), (1.5, 1.0, 2.0)]
    with pytest.raises(ValueError, match="4 steps cannot be cut into 5"):
        sft_report.losses_by_part(logs, 5)


def test_summary_reads_what_a_run_left(tmp_path) -> None:
    steps = [{"step": n, "loss": 3.0 / n, "tokens_per_second": 10.0 * n, "seconds": n}
             for n in (1, 2, 3)]  # fmt: skip
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in steps))
    done = {"rows": 7, "steps": 3, "seconds": 3, "peak_memory_gib": 0.5}
    (tmp_path / "done.json").write_text(json.dumps(done))
    row = sft_report.run_summary(tmp_path)
    assert (row["first loss"], row["last loss"], row["tokens/s"]) == (3.0, 1.0, 30.0)
    assert (row["training (s)"], row["GiB a rank"]) == (3, 0.5)


class Letters:
    """The least of a tokenizer: a token is a character."""

    def decode(self, ids: list[int]) -> str:
        return "".join(map(chr, ids))


def test_rows_of_several_tokenizers_stand_side_by_side_under_their_names() -> None:
    row = Encoded([ord("a"), ord("b")], [IGNORED, ord("b")])
    html = sft_report.token_pair_html({"one": (Letters(), row), "<two>": (Letters(), row)})
    assert html.count('class="limo-tokens') == 2 == html.count('class="limo-learnt"')
    assert html.index("one") < html.index("&lt;two&gt;") and html.count("<style>") == 1


def test_token_picture_escapes_and_marks_what_carries_loss() -> None:
    row = Encoded(list(map(ord, "<a\n")), [IGNORED, ord("a"), ord("\n")])
    html = sft_report.tokens_html(Letters(), row)
    assert "&lt;" in html and "<a" not in html and "↵" in html
    assert html.count('class="limo-learnt"') == 2 and html.count('class="limo-context"') == 1
