"""The model card (README.md) of an export: what it is, how it was trained and evaluated, and how to load it."""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData

from jaxprefix.errors import InputError
from jaxprefix.io.markdown import table
from jaxprefix.peft.lora import export_note
from jaxprefix.runs.base_model import EMBEDDED_TASK, trainable_line
from jaxprefix.runs.saved import TrainedRun
from jaxprefix.train import metrics

LANGUAGE = re.compile(r"[a-z]{2,3}")
TRAINING = "task split language batch accumulate max_length chat warmup weight_decay clip dtype seed".split()


def card(
    saved: TrainedRun, run: Path, base_model: str | None, peft_type: str | None, repository: str | None = None
) -> str:
    """The card's text.

    Args:
        run: the run directory; its metrics.jsonl and report.json are read if they exist.
        base_model: the hub id of the base; None for a local directory, whose path means nothing to others.
        peft_type: None for a merged checkpoint.
        repository: the repository on the Hub that the card is for; None for a directory.
    """
    local = f"the local model {saved.base.directory.name}" if saved.config.model else "jaxprefix's embedded model"
    base = base_model or local
    parts = [
        _front_matter(saved, base_model, peft_type),
        f"# {saved.config.method} on {base}",
        _description(saved, base, peft_type),
        f"## Settings\n\n{table(('setting', 'value'), _settings(saved), words=(0, 1))}",
        trainable_line(saved.base.config, saved.config.adapter),
    ]
    if (loss := _held_out_loss(run)) is not None:
        parts.append(f"Held-out loss at the end: {loss:.4f}.")
    if scores := _scores(run / "report.json"):
        parts.append(f"## Scores\n\n{scores}")
    parts.append(f"## Use\n\n{_use(saved, base_model, peft_type, repository)}")
    return "\n\n".join(parts) + "\n"


def _front_matter(saved: TrainedRun, base_model: str | None, peft_type: str | None) -> str:
    languages = [part for part in saved.run_json["source"].split(",") if LANGUAGE.fullmatch(part)]
    data = ModelCardData(
        library_name="peft" if peft_type else "transformers",
        pipeline_tag="text-generation",
        base_model=base_model,
        language=languages or None,
        tags=["jaxprefix", *saved.config.method.split("+")],
    )
    return f"---\n{data.to_yaml()}\n---"


def _description(saved: TrainedRun, base: str, peft_type: str | None) -> str:
    form = f"in PEFT's format {peft_type}" if peft_type else "merged into a full checkpoint"
    if saved.step:
        text = f"An adapter that jaxprefix trained on {base} with method `{saved.config.method}`, {form}."
    else:  # an imported adapter has no steps
        text = f"An adapter of {base} with method `{saved.config.method}`, {form}. How it was trained is not recorded."
    note = export_note(saved.params) if peft_type == "LORA" else ""
    return f"{text} {note[0].upper()}{note[1:]}." if note else text


def _settings(saved: TrainedRun) -> Iterable[tuple[str, Any]]:
    values = saved.config.as_json()
    for name in saved.config.method.split("+"):
        for setting, value in values.get(name.replace("-", "_"), {}).items():
            yield f"{name}.{setting}", value
    if saved.step:
        yield "steps", saved.step if saved.step == saved.run_json["steps"] else f"{saved.step}, unfinished"
        if earlier := saved.run_json.get("earlier_steps"):
            yield "earlier numbers of steps", ", ".join(map(str, earlier))
        yield "learning rate", ", ".join(f"{rate:g}" for rate in saved.config.learning_rates.values())
        yield "rows", saved.config.train_file.name if saved.config.train_file else saved.config.task or EMBEDDED_TASK
        yield from ((name.replace("_", "-"), values[name]) for name in TRAINING if values[name] is not None)
    yield from (saved.run_json.get("versions") or {}).items()


def _held_out_loss(run: Path) -> float | None:
    losses = [row["held_out_loss"] for row in metrics.read(run) if row.get("held_out_loss") is not None]
    return losses[-1] if losses else None


def _scores(path: Path) -> str:
    if not path.is_file():
        return ""
    try:
        tasks = json.loads(path.read_text(encoding="utf-8"))["tasks"]
        tables = [
            f"{name}, zero-shot except for the training language:\n\n"
            + table(
                ("language", *task["metrics"], "rows"),
                [
                    (language, *(f"{100 * row[metric]:.1f}" for metric in task["metrics"]), row["n"])
                    for language, row in task["languages"].items()
                ],
            )
            for name, task in tasks.items()
        ]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InputError(f"{path} is not a report; evaluate that run again, or delete the file") from None
    return "\n\n".join(tables)


def _use(saved: TrainedRun, base_model: str | None, peft_type: str | None, repository: str | None) -> str:
    lines = ["```python", "from transformers import AutoModelForCausalLM"]
    if peft_type is None:
        return "\n".join([*lines, "", 'model = AutoModelForCausalLM.from_pretrained("THIS_DIRECTORY")', "```"])
    base = base_model or "BASE_DIRECTORY"
    lines += ["from peft import PeftModel", "", f'base = AutoModelForCausalLM.from_pretrained("{base}")']
    lines += [f'model = PeftModel.from_pretrained(base, "{repository or "THIS_DIRECTORY"}")', "```", ""]
    lines += ["With jaxprefix:", "", "```"]
    lines += [f"hf download {repository} --local-dir adapter"] if repository else []
    model = f" --model {base}" if saved.config.model else ""  # by default the embedded model
    directory = "adapter" if repository else "THIS_DIRECTORY"
    lines += [f"python -m jaxprefix.peft import {directory} runs/imported{model}", "```", ""]
    form = "in the model's chat template" if saved.config.chat else "ended by one newline"
    lines.append(f"A prompt begins as the model's tokenizer begins a text, and is {form}. An answer ends with EOS.")
    return "\n".join(lines)
