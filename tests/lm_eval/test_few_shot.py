"""Few-shot prompts are lm-evaluation-harness's, token for token, for the same texts and examples in the same order."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import harness
import pytest
import small
from lm_eval.tasks import TaskManager

from jaxprefix import tasks
from jaxprefix.evaluation.questions import questions
from jaxprefix.inference.model import Model, open_frozen
from jaxprefix.lm_eval.model import NO_LIMIT, JaxPrefixLM
from jaxprefix.tasks.task import Example

pytestmark = [small.needs_rows, pytest.mark.filterwarnings("ignore")]

SHOTS, ASKED = 3, 4
# A benchmark, its language, and where its examples come from.
GENERATED = ("mgsm", "de"), ("gsm8k", "en", "train")
CHOSEN = ("xnli", "sw"), ("mnli", "en", "validation_matched")
TEMPLATE = "{{ bos_token }}{% for turn in messages %}<{{ turn.role }}>{{ turn.content }}</s>{% endfor %}"
TEMPLATE += "{% if add_generation_prompt %}<assistant>{% endif %}"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    directory = harness.write_model(tmp_path_factory.mktemp("few") / "model", harness.real_texts(), vocab_size=2048)
    (directory / "chat_template.jinja").write_text(TEMPLATE)
    return open_frozen(str(directory), "1x1", 4, NO_LIMIT)


def examples(name: str, language: str, split: str, count: int) -> list[Example]:
    task = tasks.find(name)
    rows = task.load(language, split, small.MIRROR)[: 2 * count]
    return [example for row in rows if (example := task.example(row, language))][:count]


def harness_ids(model: Model, directory: Path, shots: list[Example], asked: list[Example], **options: Any) -> list:
    """The ids that the harness's backends score or continue: prompts, or prompts with each choice."""
    files = {}
    for split, part in (("train", shots or asked), ("test", asked)):
        rows = [
            {"prompt": row.prompt, "response": row.response, "choices": row.choices, "number": number}
            for number, row in enumerate(part)
        ]
        files[split] = str(small.write_rows(directory / f"{split}.jsonl", rows))
    config: dict[str, Any] = {
        "task": "few",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": files, "cache_dir": str(directory / "cache")},
        "training_split": "train",
        "test_split": "test",
        "fewshot_config": {"sampler": "first_n"},
        "doc_to_text": "{{prompt}}",
        "target_delimiter": "",
    }
    if asked[0].choices:
        config |= {"output_type": "multiple_choice", "doc_to_choice": "{{choices}}"}
        config |= {"doc_to_target": "{{choices.index(response)}}"}
    else:
        config |= {"output_type": "generate_until", "doc_to_target": "{{response}}"}
    (directory / "few.yaml").write_text(json.dumps(config))
    manager = TaskManager(include_path=str(directory), include_defaults=False)
    task: Any = manager.load(["few"])["tasks"]["few"]
    task.set_config("num_fewshot", len(shots))
    lm = JaxPrefixLM(model)
    if options:
        options |= {"chat_template": lm.apply_chat_template, "tokenizer_name": "few"}
    task.build_all_requests(**options)
    pairs = [instance.args for instance in task.instances]
    if not asked[0].choices:
        return [lm.tok_encode(context) for context, _ in pairs]
    return [[*prompt, *choice] for prompt, choice in (lm._encode_pair(*pair) for pair in pairs)]


def our_ids(model: Model, benchmark: tuple[str, str], shots: list[Example], asked: list[Example]) -> list:
    drawn = {benchmark: tuple(shots)} if shots else {}
    rows = questions(replace(model, max_length=10_000), tasks.find(benchmark[0]), asked, drawn)
    assert [row.shots_used for row in rows] == [len(shots)] * len(asked)
    if not asked[0].choices:
        return [row.request.prompt for row in rows]
    return [row.request.prompt + choice for row in rows for choice in row.request.choices]


@pytest.mark.parametrize(("benchmark", "origin"), [GENERATED, CHOSEN], ids=["generated", "chosen"])
@pytest.mark.parametrize("count", [0, SHOTS])
def test_prompts(model: Model, tmp_path: Path, benchmark: tuple, origin: tuple, count: int):
    shots, asked = examples(*origin, count), examples(*benchmark, "test", ASKED)
    ours = our_ids(model, benchmark, shots, asked)
    assert ours == harness_ids(model, tmp_path, shots, asked)
    assert len(ours) == ASKED * max(1, len(asked[0].choices))
    assert (
        model.base.tokenizer.decode(ours[0]).count("Solution:" if benchmark[0] == "mgsm" else "Premise:") == count + 1
    )


def test_earlier_turns_of_a_chat(model: Model, tmp_path: Path):
    shots, asked = examples(*GENERATED[1], SHOTS), examples(*GENERATED[0], "test", ASKED)
    ours = our_ids(replace(model, chat=True), GENERATED[0], shots, asked)
    assert ours == harness_ids(model, tmp_path, shots, asked, apply_chat_template=True, fewshot_as_multiturn=True)
    assert len(ours) == ASKED
