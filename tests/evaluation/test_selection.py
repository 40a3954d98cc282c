"""Which rows --limit takes: from all parts of a file, the same questions in every language, and always the same."""

import pytest
import small

from jaxprefix import tasks
from jaxprefix.errors import InputError
from jaxprefix.evaluation.selection import select_languages, spread
from jaxprefix.tasks.task import Example


def examples(ids):
    return [Example(id, "de", "", "", "?\n", "yes") for id in ids]


def test_a_lower_limit_is_part_of_a_higher_one_in_the_order_of_the_file():
    rows = examples(str(number) for number in range(1000))
    assert spread(rows, None) == rows == spread(rows, 2000)
    before: list[Example] = []
    for limit in (1, 10, 100, 999):
        selected = spread(rows, limit)
        assert len(selected) == limit and set(before) <= set(selected)
        assert selected == [row for row in rows if row in set(selected)]
        before = selected
    # Evaluations that were begun must find their rows again: these may never change.
    assert [row.id for row in spread(rows, 5)] == ["61", "341", "793", "798", "988"]


def test_languages_share_questions_whatever_the_order_and_the_rest_of_their_files():
    """As in MLQA, where each language has other questions beside those that they share."""
    one, other = examples(map(str, range(600))), examples(map(str, reversed(range(300, 900))))
    first, second = ({row.id for row in spread(rows, 300)} for rows in (one, other))
    assert len(first & second) > 130  # of about 150 in each that the other file has


@small.needs_rows
def test_real_rows_come_from_all_of_the_file():
    """A hundred of XQuAD: the same ids in each language, from most of its passages."""
    task = tasks.find("xquad")
    found = {}
    for code in ("de", "zh"):
        rows = [task.example(row, code) for row in task.load(code, "validation", small.MIRROR)]
        found[code] = [row for row in rows if row]
    selected = {code: spread(rows, 100) for code, rows in found.items()}
    ids = [row.id for row in selected["de"]]
    assert ids == [row.id for row in selected["zh"]] and len(set(ids)) == 100
    places = [index for index, row in enumerate(found["de"]) if row.id in ids]
    counts = [sum(start <= place < start + 119 for place in places) for start in range(0, 1190, 119)]
    assert sum(counts) == 100 and 2 <= min(counts) and max(counts) <= 20  # about ten in each tenth
    assert len({row.shared for row in selected["de"]}) > 70 > 25 > len({row.shared for row in found["de"][:100]})


def test_languages_by_their_text_for_pretraining():
    """Figures of FineWeb2: Swahili 570 million words, Thai 25 and Hindi 11 billion; English is not part of it."""
    xnli = tasks.find("xnli")
    assert select_languages(xnli, "under-600M") == ("sw",) and select_languages(xnli, "under-570M,de") == ("sw", "de")
    assert select_languages(xnli, "en,under-12B") == ("en", "hi", "sw", "ur")
    assert len(select_languages(tasks.find("belebele"), "under-5.9M")) == 11
    with pytest.raises(InputError, match="--languages under-569M: no language of xnli has so few words; choose"):
        select_languages(xnli, "under-569M")
    with pytest.raises(InputError, match="has no language 'under-1'; it has"):
        select_languages(xnli, "under-1")
