"""Parallel texts of the tasks, on real rows where a mirror has them."""

from pathlib import Path
from typing import Any

import pytest
import small

from jaxprefix import tasks
from jaxprefix.errors import InputError
from jaxprefix.probe.settings import Probe
from jaxprefix.probe.texts import parallel_texts


def test_the_embedded_world_is_the_default_for_its_model():
    texts = parallel_texts(Probe(languages="sw,de", limit=12), is_embedded=True, data=None)
    assert texts.languages == ("en", "sw", "de") and texts.pivot == "en" and texts.count == 12
    assert len({*texts.by_language["de"]} | {*texts.by_language["sw"]}) == 24


def test_a_higher_limit_adds_sentences():
    few, many = (
        parallel_texts(Probe(languages="de", limit=limit, texts="babel-nli"), True, None).by_language["de"]
        for limit in (10, 30)
    )
    assert set(few) < set(many) and len(many) == 30


@small.needs_rows
@pytest.mark.parametrize(
    ("name", "languages", "column"),
    [("xquad", "de,zh", "context"), ("xnli", "sw", "premise"), ("belebele", "deu_Latn", "flores_passage")],
)
def test_texts_that_several_rows_share_are_taken_once(name: str, languages: str, column: str):
    """And they are parallel: sentence i of each language comes from the same row."""
    texts = parallel_texts(Probe(texts=name, languages=languages, limit=40), False, small.MIRROR)
    task = tasks.find(name)
    rows = {code: task.load(code, task.split, small.MIRROR) for code in texts.languages}
    number = {row[column].strip(): index for index, row in reversed(list(enumerate(rows[texts.pivot])))}
    indices = [number[text] for text in texts.by_language[texts.pivot]]
    assert len(set(indices)) == texts.count == 40
    for code in texts.languages:
        assert list(texts.by_language[code]) == [rows[code][index][column].strip() for index in indices]


def flores(folder: Path, count: int = 10) -> Path:
    """A mirror with a few invented sentences."""
    for config, word in (("eng_Latn", "word"), ("deu_Latn", "Wort"), ("cmn_Hans", "字")):
        path = folder / "openlanguagedata" / "flores_plus" / config / "devtest.jsonl"
        path.parent.mkdir(parents=True)
        small.write_rows(path, [{"id": number, "text": f"{word} {number}"} for number in range(count)])
    return folder


def test_flores_has_english_as_the_source_of_its_translations(tmp_path: Path):
    texts = parallel_texts(Probe(languages="de,zho_Hans"), False, flores(tmp_path))
    assert texts.name == "flores" and texts.languages == ("eng_Latn", "deu_Latn", "zho_Hans")
    assert sorted(texts.by_language["eng_Latn"]) == [f"word {number}" for number in range(10)]
    pairs = zip(texts.by_language["eng_Latn"], texts.by_language["zho_Hans"], strict=True)
    assert all(english.replace("word", "字") == chinese for english, chinese in pairs)


def rows(*languages: str) -> list[dict[str, Any]]:
    return [{"id": n, "language": code, "text": f"{code} {n}"} for code in languages for n in range(9)]


def test_ids_of_a_file_match_its_texts_in_any_order(tmp_path: Path):
    path = small.write_rows(tmp_path / "mine.jsonl", rows("en") + rows("de")[::-1])
    texts = parallel_texts(Probe(text_file=path), False, None)
    assert [text.split()[1] for text in texts.by_language["en"]] == [
        text.split()[1] for text in texts.by_language["de"]
    ]


WRONG = {
    "an id twice": (rows("en", "de") + rows("de")[:1], "the id '0' occurs twice in de"),
    "a blank text": ([{"language": "de", "text": " "}], "'text' is blank"),
    "other ids": (
        [*rows("en", "de")[:-1], {"id": "x", "language": "de", "text": "y"}],
        "9 texts in de, 9 in en; expected the same texts, with the same ids",
    ),
    "no pivot": (rows("de", "fr"), "--pivot: .* has no language 'en'; it has de, fr"),
    "one language": (rows("en"), "en is one language; give at least two"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_file_is_refused(name: str, tmp_path: Path):
    content, expected = WRONG[name]
    path = small.write_rows(tmp_path / "mine.jsonl", content)
    with pytest.raises(InputError, match=expected):
        parallel_texts(Probe(text_file=path), False, None)


def test_an_unknown_source_is_refused():
    with pytest.raises(InputError, match="--texts 'wikipedia' is unknown; expected flores, belebele"):
        parallel_texts(Probe(texts="wikipedia"), False, None)
