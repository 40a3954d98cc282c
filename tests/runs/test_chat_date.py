"""A chat template that writes the current date: each run has one date, whatever the day."""

import json
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest
import small

from jaxprefix.errors import InputError
from jaxprefix.runs import saved
from jaxprefix.runs.config import RunConfig
from jaxprefix.runs.directory import read_run
from jaxprefix.runs.saved import load_run, stack_adapters
from jaxprefix.train.loop import train

TEMPLATE = '{{ bos_token }}{% set now = strftime_now("%d %b %Y") %}[{{ now }}] {{ messages[0].content }}'


def today(monkeypatch: pytest.MonkeyPatch, *day: int) -> None:
    class Clock(date):
        @classmethod
        def today(cls) -> date:
            return date(*day)

    monkeypatch.setattr(saved, "date", Clock)


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    """A run that trains nothing, which takes no time."""
    model = small.write_model(tmp_path / "model")
    (model / "chat_template.jinja").write_text(TEMPLATE)
    rows = small.write_rows(tmp_path / "rows.jsonl", small.rows(9))
    return replace(small.configuration(model, rows, method="none"), chat=True)


def prompt(directory: Path) -> str:
    tokenizer = load_run(directory).base.tokenizer
    return tokenizer.decode(tokenizer.chat("Hi"))


def test_a_run_keeps_its_date(config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    """case 07: later evaluations, the same command, and a repetition from run.json render the same prompt."""
    today(monkeypatch, 2026, 2, 28)
    first = train(config, tmp_path / "first")
    assert "the chat template writes the date 2026-02-28; run.json keeps it" in capsys.readouterr().out
    today(monkeypatch, 2026, 3, 1)
    assert prompt(first) == "[28 Feb 2026] Hi"
    train(config, first)
    assert read_run(first)["config"]["chat_date"] == "2026-02-28" and prompt(first) == "[28 Feb 2026] Hi"
    repeated = train(RunConfig.from_json(read_run(first)["config"]), tmp_path / "repeated")
    assert prompt(repeated) == "[28 Feb 2026] Hi"
    other = train(config, tmp_path / "other")
    assert prompt(other) == "[01 Mar 2026] Hi"
    with pytest.raises(InputError, match="same --chat-date: found 2026-02-28 and 2026-03-01"):
        stack_adapters([load_run(first), load_run(other)], {})


def test_a_given_date(config: RunConfig, tmp_path: Path):
    directory = train(replace(config, chat_date="1999-12-31"), tmp_path / "run")
    assert prompt(directory) == "[31 Dec 1999] Hi"
    with pytest.raises(InputError, match="its chat-date is '1999-12-31', given '2000-01-01'"):
        train(replace(config, chat_date="2000-01-01"), directory)


def test_a_run_of_an_earlier_build_has_the_date_of_that_build(config: RunConfig, tmp_path: Path):
    directory = train(config, tmp_path / "run")
    values = json.loads((directory / "run.json").read_text())
    del values["config"]["chat_date"]
    (directory / "run.json").write_text(json.dumps(values))
    assert prompt(directory) == "[26 Jul 2024] Hi"
    train(config, directory)
    assert prompt(directory) == "[26 Jul 2024] Hi"


@pytest.mark.parametrize("chat, template", [(False, TEMPLATE), (True, "{{ messages[0].content }}")])
def test_no_date_where_none_is_written(chat: bool, template: str, config: RunConfig, tmp_path: Path):
    (tmp_path / "model" / "chat_template.jinja").write_text(template)
    directory = train(replace(config, chat=chat), tmp_path / "run")
    assert read_run(directory)["config"]["chat_date"] is None


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"chat_date": "today"}, "--chat-date is 'today'; expected a date such as 2024-07-26"),
        ({"chat_date": "2024-07-26", "chat": False}, "--chat-date 2024-07-26 belongs to --chat"),
    ],
)
def test_a_date_that_cannot_be(changes: dict, message: str, config: RunConfig):
    with pytest.raises(InputError, match=message):
        replace(config, **changes).check()
