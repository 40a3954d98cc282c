"""The benchmarks: names, languages, training and evaluation tasks, refusals, and rows."""

import json
import subprocess
import sys
import types
from pathlib import Path

import pytest
import small

from jaxprefix.errors import InputError
from jaxprefix.tasks import TASKS, find, mnli, training
from jaxprefix.tasks.belebele import BELEBELE
from jaxprefix.tasks.belebele_mix import BELEBELE_MIX
from jaxprefix.tasks.flores import FLORES
from jaxprefix.tasks.gsm8k import GSM8K
from jaxprefix.tasks.mgsm import MGSM
from jaxprefix.tasks.mlqa import MLQA
from jaxprefix.tasks.mnli import MNLI
from jaxprefix.tasks.squad import SQUAD
from jaxprefix.tasks.task import Example, check_languages
from jaxprefix.tasks.tydiqa import TYDIQA
from jaxprefix.tasks.xcopa import XCOPA
from jaxprefix.tasks.xlsum import XLSUM
from jaxprefix.tasks.xnli import XNLI
from jaxprefix.tasks.xquad import XQUAD


def write_mirror(root: Path, place: str, rows: list[dict]) -> Path:
    """A local mirror with one split of one set."""
    file = root / f"{place}.jsonl"
    file.parent.mkdir(parents=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return root


@pytest.fixture
def embedded(monkeypatch: pytest.MonkeyPatch) -> str:
    """Replaces the embedded world, which other tests cover, by one task."""
    module = types.ModuleType("jaxprefix.tasks.babel")
    vars(module)["TASKS"] = (types.SimpleNamespace(name="babel", eval_tasks=("babel",)),)
    monkeypatch.setitem(sys.modules, "jaxprefix.tasks.babel", module)
    return "babel"


def test_every_task_is_found_by_its_name(embedded: str):
    for task in TASKS:
        assert find(task.name) is task
    assert find(embedded).name == embedded


def test_an_unknown_task_is_refused_with_the_known_ones(embedded: str):
    with pytest.raises(InputError) as error:
        find("xqad")
    assert str(error.value) == (
        "no task 'xqad'; for training: squad, tydiqa, mnli, belebele-mix, gsm8k, xnli, xcopa, mlqa, xlsum, flores, "
        "babel; for evaluation: tydiqa, xquad, xnli, belebele, mgsm, xcopa, mlqa, xlsum, flores, babel; "
        "did you mean xquad?"
    )


def test_training_tasks_are_evaluated_by_tasks_with_the_same_metrics():
    for task in TASKS:
        for measured in map(find, task.eval_tasks):
            assert measured.metrics == task.metrics
            assert measured.max_new_tokens == task.max_new_tokens and measured.stop == task.stop
    expected = {"squad": ("xquad",), "mnli": ("xnli",), "belebele-mix": ("belebele",), "gsm8k": ("mgsm",)}
    assert {name: find(name).eval_tasks for name in expected} == expected
    assert training() == tuple(task.name for task in TASKS if task.eval_tasks)


def test_a_task_scores_the_metrics_that_it_names():
    for task in TASKS:
        example = Example("1", task.languages[0], "", "", "?\n", "18", references=("18",), choices=("18", "2"))
        scores = task.score("18", example)
        scores |= task.score_text("The answer is 18.", example) if task.score_text else {}
        assert tuple(scores) == task.metrics
        assert all(value == pytest.approx(1) or name == "rouge2" for name, value in scores.items())
        if task.corpus_metrics:
            assert set(task.corpus_metrics(["a b c d"], [["a b c d"]])) == set(task.metrics)


def test_languages_are_those_of_the_published_sets():
    assert XQUAD.languages == tuple("ar de el en es hi ro ru th tr vi zh".split())
    assert XNLI.languages == tuple("ar bg de el en es fr hi ru sw th tr ur vi zh".split())
    assert MGSM.languages == tuple("bn de en es fr ja ru sw te th zh".split())
    assert XCOPA.languages == tuple("et ht id it qu sw ta th tr vi zh".split())
    assert MLQA.languages == tuple("ar de en es hi vi zh".split())
    assert TYDIQA.languages == tuple("ar bn en fi id ko ru sw te".split())
    assert (len(BELEBELE.languages), len(XLSUM.languages), len(FLORES.languages)) == (122, 45, 120)
    assert SQUAD.languages == MNLI.languages == GSM8K.languages == BELEBELE_MIX.languages == ("en",)


def test_an_unknown_language_is_refused_with_those_of_the_task():
    check_languages(XQUAD, XQUAD.languages)
    with pytest.raises(InputError) as error:
        check_languages(XQUAD, ("de", "sw", "xx"))
    assert str(error.value) == (
        "task xquad has no language 'sw', 'xx'; it has ar, de, el, en, es, hi, ro, ru, th, tr, vi, zh"
    )


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_loading_refuses_an_unknown_language_before_it_looks_for_rows(task, tmp_path: Path):
    with pytest.raises(InputError, match=f"task {task.name} has no language 'xx'"):
        task.load("xx", task.split, tmp_path)


def test_what_evaluation_reads_is_never_trained_on():
    for task in TASKS:
        assert task.train_split not in task.forbidden_splits
        if task.eval_tasks and task.name in task.eval_tasks:
            assert set(task.forbidden_splits) == {task.split}
    assert "XQuAD" in SQUAD.forbidden_splits["validation"] and "MGSM" in GSM8K.forbidden_splits["test"]


@small.needs_rows
def test_xquads_note_is_true_of_its_rows():
    assert "92% of the answers in zh" in XQUAD.note
    file = small.MIRROR / "google" / "xquad" / "xquad.zh" / "validation.jsonl"
    with file.open(encoding="utf-8") as lines:
        golds = [json.loads(line)["answers"]["text"][0] for line in lines]
    assert round(100 * sum(len(gold.split()) == 1 for gold in golds) / len(golds)) == 92


def test_mnli_samples_only_what_is_larger_and_always_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(mnli, "SAMPLED_ROWS", 20)
    rows = [{"premise": f"p{place}", "hypothesis": "h", "label": 0} for place in range(50)]
    large = write_mirror(tmp_path / "large", "nyu-mll/multi_nli/default/train", rows)
    small = write_mirror(tmp_path / "small", "nyu-mll/multi_nli/default/train", rows[:20])
    sampled = MNLI.load("en", "train", large)
    assert len({row["id"] for row in sampled}) == 20
    assert sampled == MNLI.load("en", "train", large)
    assert [row["id"] for row in sampled] != [str(place) for place in range(20)]
    assert all(row["premise"] == f"p{row['id']}" for row in sampled)  # an id is the place in the whole split
    assert [row["premise"] for row in MNLI.load("en", "train", small)] == [f"p{place}" for place in range(20)]


def test_the_studys_sample_has_100_000_rows():
    assert mnli.SAMPLED_ROWS == 100_000


def test_tydiqa_keeps_one_language_and_says_where_there_is_none(tmp_path: Path):
    def row(name: str) -> dict:
        return {"id": name, "context": "c", "question": "q", "answers": {"text": ["c"]}}

    place = "google-research-datasets/tydiqa/secondary_task/train"
    mixed = write_mirror(tmp_path / "mixed", place, [row("arabic-1"), row("english-1"), row("korean-1")])
    assert [row["id"] for row in TYDIQA.load("en", "train", mixed)] == ["english-1"]
    assert [row["id"] for row in TYDIQA.load("ko", "train", mixed)] == ["korean-1"]
    foreign = write_mirror(tmp_path / "foreign", place, [row("russian-1"), row("arabic-1")])
    with pytest.raises(InputError) as error:
        TYDIQA.load("en", "train", foreign)
    line = "none of its 2 rows has an id that begins with 'english-'; choose a language that it has (ar, ru)"
    assert str(error.value) == f"{foreign / place}.jsonl: {line}"
    unknown = write_mirror(tmp_path / "unknown", place, [row("1")])
    with pytest.raises(InputError, match=r"\(none of tydiqa\)"):
        TYDIQA.load("en", "train", unknown)


def test_flores_pairs_its_sentences_with_the_english_ones_by_id(tmp_path: Path):
    root = tmp_path / "mirror"
    rows = {"eng_Latn": [(2, "two"), (1, "one")], "deu_Latn": [(1, "eins"), (2, "zwei")], "cmn_Hans": [(2, "二")]}
    for config, pairs in rows.items():
        sentences = [{"id": number, "text": text} for number, text in pairs]
        write_mirror(root, f"openlanguagedata/flores_plus/{config}/devtest", sentences)
    german = FLORES.load("deu_Latn", "devtest", root)
    assert [(row["id"], row["english"], row["text"]) for row in german] == [("1", "one", "eins"), ("2", "two", "zwei")]
    # FLORES+ has new codes for what FLORES-200 and Belebele call zho_Hans.
    assert [row["english"] for row in FLORES.load("zho_Hans", "devtest", root)] == ["two"]


@small.needs_rows
@pytest.mark.parametrize(
    ("task", "language", "split", "count"),
    [
        (TYDIQA, "en", "train", 3696),
        (XQUAD, "de", "validation", 1190),
        (XQUAD, "hi", "validation", 1190),
        (XQUAD, "zh", "validation", 1190),
        (XNLI, "de", "test", 5010),
        (XNLI, "sw", "test", 5010),
        (MNLI, "en", "validation_matched", 9815),
        (BELEBELE, "deu_Latn", "test", 900),
        (BELEBELE, "eng_Latn", "test", 900),
        (GSM8K, "en", "train", 7473),
        (GSM8K, "en", "test", 1319),
        (MGSM, "bn", "test", 250),
        (MGSM, "zh", "test", 250),
        (XCOPA, "it", "test", 500),
        (XCOPA, "sw", "validation", 100),
        (MLQA, "de", "validation", 512),
        (MLQA, "zh", "validation", 504),
    ],
)
def test_every_real_row_becomes_an_example(task, language: str, split: str, count: int):
    rows = task.load(language, split, small.MIRROR)
    examples = [task.example(row, language) for row in rows]
    assert len(examples) == count
    for row, example in zip(rows, examples, strict=True):
        assert example.prompt.endswith(("Answer:\n", "Solution:\n", "Cause:\n", "Effect:\n"))
        assert example.response == example.response.strip() != ""
        if task not in (GSM8K, MGSM):
            assert example.response in (example.choices or example.references)
        assert example.context in row.get("context", row.get("flores_passage", ""))
        # The training response is a correct answer by every metric.
        assert set(task.score(task.answer(example.response), example).values()) == {1.0}
    if task in (XQUAD, XNLI):
        assert len({example.id for example in examples}) == count


@small.needs_rows
def test_xnli_ids_name_the_same_pair_in_every_language():
    german, swahili = (XNLI.load(language, "test", small.MIRROR) for language in ("de", "sw"))
    assert [(row["id"], row["label"]) for row in german] == [(row["id"], row["label"]) for row in swahili]


def test_the_room_imports_neither_jax_nor_torch_nor_the_embedded_world():
    look = (
        "import sys, jaxprefix.tasks, jaxprefix.tasks.user_rows; "
        "print([m for m in ('jax', 'torch', 'jaxprefix.tasks.babel') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
