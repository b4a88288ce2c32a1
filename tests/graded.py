"""Made-up tables of graded answers."""

from datasets import Dataset

from limo_nb.evaluation import RESULTS


def results_of(scores: dict[str, list[list[bool | None]]]) -> Dataset:
    """Rows of results: benchmark → items → samples; "in…" are in domain."""
    rows = [
        {"benchmark": name, "in_domain": name.startswith("in"), "level": 5,
         "id": f"{name}-{item}", "sample": sample, "correct": correct,
         "answer": str(correct), "reason": "", "text": "", "tokens": 3, "finished": True}
        for name, items in scores.items()
        for item, samples in enumerate(items)
        for sample, correct in enumerate(samples)
    ]  # fmt: skip
    return Dataset.from_list(rows, features=RESULTS)


def greedy(right: int, count: int, name: str = "in") -> Dataset:
    """One sample for each of `count` items, the first `right` of them correct."""
    return results_of({name: [[item < right] for item in range(count)]})


def answers(lengths: list[int], correct: list[bool | None]) -> Dataset:
    """Rows of one benchmark: an item for each length in tokens and verdict."""
    rows = [
        {"benchmark": "b", "in_domain": True, "level": 1, "id": str(number), "sample": 0,
         "correct": right, "answer": "1", "reason": "same", "text": "", "tokens": tokens,
         "finished": True}
        for number, (tokens, right) in enumerate(zip(lengths, correct, strict=True))
    ]  # fmt: skip
    return Dataset.from_list(rows, features=RESULTS)


def samples(answers: str, item: str) -> list[dict]:
    """Rows of RESULTS: one sample a letter, "a" is right, "-" is no answer."""
    return [
        {"benchmark": "b", "in_domain": True, "level": 1, "id": item, "sample": place,
         "correct": letter == "a", "answer": None if letter == "-" else letter,
         "reason": "", "text": "", "tokens": 1, "finished": True}
        for place, letter in enumerate(answers)
    ]  # fmt: skip
