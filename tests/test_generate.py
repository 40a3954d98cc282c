"""python -m jaxprefix.generate: its output can be parsed, and a person at the terminal can correct a prompt."""

import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import small
import torch
from transformers import LlamaForCausalLM

from jaxprefix import PrefixTuning, generate, load_model
from jaxprefix.errors import InputError
from jaxprefix.text.tokenizer import load_tokenizer

LONG = "boat " * 200
Ask = Callable[..., tuple[str, str]]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two prefixes of one base that answer differently; prompts of 128 tokens at most."""
    folder = tmp_path_factory.mktemp("runs")
    base = load_model(str(small.write_model(folder / "model", scale=5, max_position_embeddings=128)), mesh="1x1")
    for seed, name in enumerate(("red", "blue")):
        base.set_adapter(PrefixTuning(length=4, layers="all", std=2.0), seed=seed)
        base.save(folder / name)
    return folder / "red", folder / "blue"


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Ask:
    """The command with these arguments: what it writes to stdout and stderr."""

    def run(*arguments: object) -> tuple[str, str]:
        monkeypatch.setattr(sys, "argv", ["generate", *map(str, arguments), "--max-new-tokens", "5"])
        capsys.readouterr()
        generate.main()
        return tuple(capsys.readouterr())  # type: ignore[return-value]

    return run


def typed(monkeypatch: pytest.MonkeyPatch, *prompts: str) -> None:
    """A person at a terminal, who ends with Ctrl-D."""
    waiting = iter(prompts)

    def read(_: str) -> str:
        for prompt in waiting:
            return prompt
        raise EOFError

    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", read)


def test_a_prompt_that_is_too_long_is_refused_and_the_next_one_answered(
    runs: tuple[Path, Path], ask: Ask, monkeypatch: pytest.MonkeyPatch
):
    alone = ask(runs[0], "Who?")[0]
    typed(monkeypatch, LONG, "Who?")
    said, errors = ask(runs[0])
    assert said == alone
    (line,) = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert "the run takes 128; shorten 'boat boat" in line
    typed(monkeypatch, LONG, "Who?")
    both, errors = ask(f"{runs[0]},{runs[1]}")
    assert both == "".join(f"{run}: {ask(run, 'Who?')[0]}" for run in runs) and errors.count("error: ") == 1


def test_a_prompt_of_the_command_line_or_of_a_file_ends_it(runs: tuple[Path, Path], ask: Ask, tmp_path: Path):
    file = tmp_path / "prompts.txt"
    file.write_text(f"Who?\n{LONG}\n")
    for arguments in ((LONG,), ("--file", file)):
        with pytest.raises(InputError, match="the run takes 128; shorten 'boat boat"):
            ask(runs[0], *arguments)


def test_an_existing_file_is_not_overwritten(runs: tuple[Path, Path], ask: Ask, tmp_path: Path):
    ask(runs[0], "Who?", "--output", tmp_path / "new" / "answers.jsonl")
    written = (tmp_path / "new" / "answers.jsonl").read_text()
    with pytest.raises(InputError, match=r"answers.jsonl already exists; give a new file"):
        ask(runs[0], "Where?", "--output", tmp_path / "new" / "answers.jsonl")
    assert (tmp_path / "new" / "answers.jsonl").read_text() == written and '"prompt": "Who?"' in written


@pytest.mark.slow
def test_each_of_several_prompts_is_printed_before_its_answer(runs: tuple[Path, Path], ask: Ask, tmp_path: Path):
    prompts = ["Who is there?", "What colour?\nOf a boat."]
    file = small.write_rows(tmp_path / "rows.jsonl", [{"prompt": prompt} for prompt in prompts])
    one, other = ([ask(run, prompt)[0] for prompt in prompts] for run in runs)
    assert one != other
    shown = "> Who is there?\n", "> What colour?\n> Of a boat.\n"
    assert ask(runs[0], "--file", file)[0] == shown[0] + one[0] + shown[1] + one[1]
    said = [f"{before}{runs[0]}: {a}{runs[1]}: {b}" for before, a, b in zip(shown, one, other, strict=True)]
    assert ask(f"{runs[0]},{runs[1]}", "--file", file)[0] == "".join(said)


@pytest.mark.slow
def test_a_single_prompt_is_not_printed_again(runs: tuple[Path, Path], ask: Ask, tmp_path: Path):
    file = tmp_path / "prompts.txt"
    file.write_text("Who?\n")
    assert ask(runs[0], "--file", file) == ask(runs[0], "Who?")


def test_a_base_answers_without_a_run(runs: tuple[Path, Path], ask: Ask, tmp_path: Path):
    """It continues the prompt as it is typed, as transformers does. A run's prompts end with a newline."""
    base = runs[0].parent / "model"
    expected = transformers_answer(base, "Who?")
    assert expected not in (transformers_answer(base, "Who?\n"), load_run_answer(runs[0]))
    assert ask("--model", base, "Who?")[0] == f"{expected}\n"
    assert ask("Who?", "--model", base)[0] == f"{expected}\n"
    ask("--model", base, "Who?", "--output", tmp_path / "answers.jsonl")
    row = json.loads((tmp_path / "answers.jsonl").read_text(encoding="utf-8"))
    assert row == {"run": str(base), "prompt": "Who?", "answer": expected}


def transformers_answer(base: Path, prompt: str) -> str:
    tokenizer = load_tokenizer(base)
    ids = torch.tensor([tokenizer.prompt_ids(prompt)])
    model = LlamaForCausalLM.from_pretrained(base, dtype=torch.float32)
    settings = {"max_new_tokens": 5, "do_sample": False, "eos_token_id": list(tokenizer.eos), "pad_token_id": 0}
    tokens = model.generate(ids, attention_mask=torch.ones_like(ids), **settings)[0, ids.shape[1] :].tolist()
    return tokenizer.decode([token for token in tokens if token not in tokenizer.eos])


def load_run_answer(run: Path) -> str:
    model = load_model(str(run.parent / "model"), mesh="1x1")
    model.load(run)
    return model.generate("Who?", max_new_tokens=5)


def test_a_base_answers_a_chat(runs: tuple[Path, Path], ask: Ask, tmp_path: Path):
    base = shutil.copytree(runs[0].parent / "model", tmp_path / "model")
    settings = json.loads((base / "tokenizer_config.json").read_text())
    template = "{% for message in messages %}{{ message.role }}: {{ message.content }}. boat {% endfor %}"
    (base / "tokenizer_config.json").write_text(json.dumps(settings | {"chat_template": template}))
    assert ask("--model", base, "Who?", "--chat")[0] != ask("--model", base, "Who?")[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "expected a run directory, or --model MODEL"),
        (("--model", "m", "runs/red", "Who?"), "both a run, runs/red, and --model m"),
        (("runs/red", "Who?", "--chat"), "--chat is for --model"),
        (("--model", "m", "Who?", "--file", "x"), "both a prompt and --file x"),
        (("--model", "no/such/directory", "Who?"), "no such model directory: no/such/directory"),
    ],
)
def test_what_cannot_be_asked_of_a_base(arguments: tuple[str, ...], message: str, ask: Ask):
    with pytest.raises(InputError, match=re.escape(message)):
        ask(*arguments)
