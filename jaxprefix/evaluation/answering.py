"""Asks what was not answered yet, in a plan that is fixed beforehand, and keeps every answer as it comes."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jaxprefix.evaluation import predictions
from jaxprefix.evaluation.predictions import Answers, description, same_question
from jaxprefix.evaluation.questions import Question, predict
from jaxprefix.inference.batching import Asked, Part, plan
from jaxprefix.inference.model import Model
from jaxprefix.io.terminal import progress
from jaxprefix.models.sampling import Sampling
from jaxprefix.tasks.task import Task


@dataclass(frozen=True)
class Place:
    """Where the answers of one of the model's adapters are kept, and what each row says of where it comes from."""

    directory: Path
    origin: dict[str, Any]


@dataclass(frozen=True)
class New:
    """A question of a task, put to one of the adapters."""

    task: Task
    question: Question
    adapter: int

    @property
    def key(self) -> tuple:
        return same_question(description(self.task, self.question.example))

    @property
    def asked(self) -> Asked:
        return replace(self.question.asked, adapter=self.adapter)


def answer(
    model: Model,
    asked: Mapping[str, tuple[Task, Sequence[Question]]],
    places: Sequence[Place],
    size: int,
    sampling: Sampling,
    quiet: bool,
) -> list[Answers]:
    """For each adapter what it has answered, now and before.

    Where the same was asked before and interrupted, its plan goes on: parts that were answered whole are kept, others
    are asked again whole, so that the answers are those of an uninterrupted evaluation, bit for bit.
    """
    held = [predictions.read(place.directory, place.origin) for place in places]
    new = _new(asked, held)
    before = [predictions.unfinished(place.directory, place.origin) for place in places]
    if any(name not in (None, _name(new, size, model)) for name, _ in before) or len({name for name, _ in before}) > 1:
        # Another evaluation was interrupted: its answers are kept, and its plan is given up.
        for place, own, (_, rows) in zip(places, held, before, strict=True):
            own |= rows
            predictions.write(place.directory, own.values())
        new, before = _new(asked, held), [(None, {}) for _ in places]
    if not any(new.values()):
        return held
    found: list[Answers] = [{} for _ in places]
    wanted = {name: _wanted(rows, size, [rows for _, rows in before], found) for name, rows in new.items()}
    for place, kept in zip(places, found, strict=True):
        predictions.begin(place.directory, _name(new, size, model), kept.values())
    for name, rows in new.items():
        _ask(model, rows, wanted[name], places, found, size, sampling, quiet)
    return [own | rows for own, rows in zip(held, found, strict=True)]


def _new(asked: Mapping[str, tuple[Task, Sequence[Question]]], held: Sequence[Answers]) -> dict[str, list[New]]:
    return {
        name: [
            each
            for adapter, own in enumerate(held)
            for question in questions
            if (each := New(task, question, adapter)).key not in own
        ]
        for name, (task, questions) in asked.items()
    }


def _name(new: Mapping[str, Sequence[New]], size: int, model: Model) -> str:
    """Of the plan: equal for what would be done in equal batches."""
    rows = [(each.key, each.asked) for part in new.values() for each in part]
    return hashlib.sha256(repr((rows, size, dict(model.mesh.shape))).encode()).hexdigest()[:16]


def _wanted(rows: Sequence[New], size: int, before: Sequence[Answers], found: Sequence[Answers]) -> list[Part]:
    """The parts that were not answered whole before; what was answered in the others goes to `found`."""
    wanted = []
    for part in plan([each.asked for each in rows], size):
        own = [rows[place] for place in part.places]
        if all(each.key in before[each.adapter] for each in own):
            for each in own:
                found[each.adapter][each.key] = before[each.adapter][each.key]
        else:
            wanted.append(part)
    return wanted


def _ask(
    model: Model,
    rows: Sequence[New],
    parts: Sequence[Part],
    places: Sequence[Place],
    found: Sequence[Answers],
    size: int,
    sampling: Sampling,
    quiet: bool,
) -> None:
    """Adds what is answered of one task to `found` and to the files, as it comes."""
    if not parts:
        return
    task, asked = rows[0].task, [(each.question, each.asked) for each in rows]
    todo = sum(len(part.places) for part in parts)
    with progress(quiet) as bar:
        shown = bar.add_task(task.name, total=len(rows), completed=len(rows) - todo, rate="rows")
        for answered in predict(model, task, asked, size, sampling, parts):
            by_adapter: dict[int, list[dict[str, Any]]] = {}
            for place, row in answered:
                adapter = rows[place].adapter
                own = row | places[adapter].origin
                found[adapter][same_question(own)] = own
                by_adapter.setdefault(adapter, []).append(own)
            for adapter, own in by_adapter.items():
                predictions.append(places[adapter].directory, own)
            bar.update(shown, advance=len(answered))
