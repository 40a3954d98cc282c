"""What the official scripts say of real rows and of perturbed answers, as digests: the tests hold our scores to them.

    python tests/tasks/official.py --squad evaluate-v1.1.py --mlqa mlqa_evaluation_v1.py \\
        --gsm8k grade_school_math/dataset.py --mgsm mgsm_eval.py --data MIRROR

writes official_digests.json beside this file. The scripts: SQuAD's (rajpurkar.github.io/SQuAD-explorer), MLQA's
(github.com/facebookresearch/MLQA), github.com/openai/grade-school-math, github.com/openai/simple-evals. Of them only
the functions that are named below are run.
"""

import argparse
import ast
import hashlib
import json
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from perturbed import ANSWERS, NUMBERS, PERTURBATIONS

DIGESTS = Path(__file__).with_name("official_digests.json")
# By script: data set, configuration and split of the rows, and their language.
SQUAD_ROWS = [(f"google/xquad/xquad.{code}/validation", code) for code in ("ar", "de", "en", "hi", "zh")]
SQUAD_ROWS += [("google-research-datasets/tydiqa/secondary_task/train", "en")]
MLQA_ROWS = [(f"google/xquad/xquad.{code}/validation", code) for code in ("ar", "de", "en", "hi", "zh")]
MLQA_ROWS += [(f"facebook/mlqa/mlqa.{code}.{code}/validation", code) for code in ("de", "en", "zh")]
GSM8K_ROWS = [f"openai/gsm8k/main/{split}" for split in ("train", "test")]
MGSM_ROWS = [(f"juletxara/mgsm/{code}/test", code) for code in ("bn", "de", "en", "sw", "zh")]

Score = Callable[[str, list[str], str], tuple[float, float]]
"""(prediction, references, language) -> F1 and exact match."""


def rows(data: Path, place: str) -> list[dict[str, Any]]:
    with (data / f"{place}.jsonl").open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def digest(values: Iterable[object]) -> str:
    return hashlib.sha256(json.dumps(list(values), ensure_ascii=False).encode()).hexdigest()


def answer_digests(data: Path, places: list[tuple[str, str]], score: Score) -> Iterator[tuple[str, str]]:
    """A digest for each data set, language and perturbation."""
    for place, language in places:
        golds = [row["answers"]["text"] for row in rows(data, place)]
        for name, perturb in PERTURBATIONS.items():
            found = [score(perturb(gold[0], language), gold, language) for gold in golds]
            yield f"{place} {name}", digest([round(float(value), 12) for pair in found for value in pair])


def gsm8k_digests(data: Path, extract: Callable[[str], str]) -> Iterator[tuple[str, str]]:
    """The number of every worked solution."""
    for place in GSM8K_ROWS:
        yield place, digest(extract(row["answer"]) for row in rows(data, place))


def mgsm_digests(data: Path, right: Callable[[str, int, str], bool]) -> Iterator[tuple[str, str]]:
    """Whether (text, number, language) is right, for numbers written in several ways."""
    for place, language in MGSM_ROWS:
        numbers = [row["answer_number"] for row in rows(data, place)]
        for name, write in NUMBERS.items():
            texts = [f"12 + 3 = 15\n{ANSWERS[language]}: {write(number)}" for number in numbers]
            pairs = zip(texts, numbers, strict=True)
            yield f"{place} {name}", digest([bool(right(text, number, language)) for text, number in pairs])


def functions(path: Path, *names: str) -> dict[str, Any]:
    """The functions and constants with these names in a script, without running the rest of it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # old scripts have escapes that Python now warns of
        tree = ast.parse(path.read_text(encoding="utf-8"))
        standard = "import re, string, sys, unicodedata\nfrom collections import Counter\n"
        body = [node for node in tree.body if names_of(node) & set(names)]
        found: dict[str, Any] = {}
        exec(standard + ast.unparse(ast.Module(body, [])), found)
    return {name: found[name] for name in names}


def names_of(node: ast.stmt) -> set[str]:
    if isinstance(node, ast.FunctionDef):
        return {node.name}
    return {each.id for each in node.targets if isinstance(each, ast.Name)} if isinstance(node, ast.Assign) else set()


def main() -> None:
    parser = argparse.ArgumentParser()
    for script in ("squad", "mlqa", "gsm8k", "mgsm", "data"):
        parser.add_argument(f"--{script}", type=Path, required=True)
    given = parser.parse_args()
    shared = ("normalize_answer", "f1_score", "exact_match_score", "metric_max_over_ground_truths")
    squad = functions(given.squad, *shared)
    segments = ("PUNCT", "WHITESPACE_LANGS", "MIXED_SEGMENTATION_LANGS", "whitespace_tokenize", "mixed_segmentation")
    mlqa = functions(given.mlqa, *segments, *shared)
    gsm8k = functions(given.gsm8k, "ANS_RE", "INVALID_ANS", "extract_answer")
    mgsm = functions(given.mgsm, "LANG_TO_ANSWER_PREFIX", "parse_answer", "score_mgsm")

    def squad_score(prediction: str, references: list[str], language: str) -> tuple[float, float]:
        best = squad["metric_max_over_ground_truths"]
        f1, match = squad["f1_score"], squad["exact_match_score"]
        return best(f1, prediction, references), best(match, prediction, references)

    def mlqa_score(prediction: str, references: list[str], language: str) -> tuple[float, float]:
        best = mlqa["metric_max_over_ground_truths"]
        f1, match = mlqa["f1_score"], mlqa["exact_match_score"]
        return best(f1, prediction, references, language), best(match, prediction, references, language)

    def mgsm_right(text: str, number: int, language: str) -> bool:
        found = mgsm["parse_answer"](text, mgsm["LANG_TO_ANSWER_PREFIX"][language])
        return mgsm["score_mgsm"](str(number), found)

    digests = {
        "squad": dict(answer_digests(given.data, SQUAD_ROWS, squad_score)),
        "mlqa": dict(answer_digests(given.data, MLQA_ROWS, mlqa_score)),
        "gsm8k": dict(gsm8k_digests(given.data, gsm8k["extract_answer"])),
        "mgsm": dict(mgsm_digests(given.data, mgsm_right)),
    }
    DIGESTS.write_text(json.dumps(digests, indent=1) + "\n", encoding="utf-8")
    print(f"{sum(map(len, digests.values()))} digests written to {DIGESTS}")


if __name__ == "__main__":
    main()
