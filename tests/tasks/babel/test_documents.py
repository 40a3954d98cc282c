"""The text that the embedded model was pretrained on: every kind of document, in the stated shares, and no test
questions.
"""

import hashlib
import re
from collections import Counter
from itertools import islice, takewhile

import pytest

from jaxprefix.errors import InputError
from jaxprefix.tasks.babel import BABEL_CHOICE, BABEL_MATH, BABEL_NLI, BABEL_QA, BABEL_TEXT, documents, text, world
from jaxprefix.tasks.babel.language import COLOURS, KINDS, PEOPLE, VALUES
from jaxprefix.tasks.babel.languages import ALL
from jaxprefix.tasks.babel.world import Fact, Instance
from jaxprefix.tasks.languages import find_language


def texts(count, weights=None, seed=0):
    lessons = islice(documents.lessons(seed, weights or documents.shares()), count)
    return [lesson.given + lesson.told for lesson in lessons]


SAMPLE = texts(4000)


def all_facts():
    for kind in KINDS:
        for value in VALUES[kind]:
            for person in PEOPLE:
                for colour in COLOURS if kind == "possession" else ("",):
                    yield Fact(kind, person, value, colour)


def test_documents_repeat_and_differ_by_seed():
    assert texts(200) == SAMPLE[:200]
    assert len(set(SAMPLE[:200]) & set(texts(200, seed=1))) < 20  # the few about passages repeat
    # The very text, so that no release of Python and no change here alters what the shipped model has read unnoticed.
    assert hashlib.sha256("\n\n".join(SAMPLE[:100]).encode()).hexdigest()[:16] == "5a3115803893ec11"


@pytest.fixture
def crowded(monkeypatch):
    """A world so small, mostly held out, that splits which are not kept apart would soon meet by chance."""
    monkeypatch.setattr(world, "HELD_OUT", 0.2)
    monkeypatch.setattr(world, "PEOPLE", PEOPLE[:5])
    monkeypatch.setattr(world, "VALUES", {kind: values[:5] for kind, values in VALUES.items()})
    monkeypatch.setattr(world, "COLOURS", COLOURS[:1])


def test_documents_contain_no_test_questions(crowded):
    """Read back from the text alone, no document asks about its passage what a held-out row asks."""
    english = world.find_language("en")
    told = {world.statement(english, fact): fact for fact in all_facts()}
    asked = {world.question(english, fact): (fact.kind, fact.person) for fact in all_facts()}
    sums = {
        world.sum_question(english, Fact("money", one, "2"), Fact("money", other, "2")): {one, other}
        for one in PEOPLE
        for other in PEOPLE
        if one != other
    }
    rows = {f"{fact.person.title()} {world.answer(english, fact)}": fact for fact in all_facts()}
    splits = Counter()
    for document in texts(4000, {"en": 1.0}):
        table = [rows.get(re.sub(r": | – ", " ", line)) for line in document.split("\n")]
        if all(table):
            facts = tuple(table[: len(table) // 3])
            splits.update(("table", Instance(facts, (fact,)).split) for fact in facts)
        lines = [line for line in document.split("\n") if line not in documents.ABOUT]
        sentences = re.findall(r"[A-Z][^.?\n]+[.?]", lines[0] if lines else "")
        facts = tuple(told[each] for each in takewhile(told.__contains__, sentences))
        for sentence in re.findall(r"[A-Z][^.?\n]+[.?]", document):
            if sentence in asked:
                about = tuple(fact for fact in facts if (fact.kind, fact.person) == asked[sentence])
                splits["question", Instance(facts, about).split if about else "train"] += 1
            if sentence in sums:
                about = tuple(fact for fact in facts if fact.person in sums[sentence])
                splits["sum", Instance(facts, about).split] += 1
            if sentence in told and re.search(rf"{re.escape(sentence)}\W+(?:true|false|unknown)(?:\n|$)", document):
                splits["claim", Instance(facts, (told[sentence],)).split] += 1
    assert {split for _, split in splits} == {"train"}
    assert min(splits[asked, "train"] for asked in ("question", "sum", "claim", "table")) > 300


def test_documents_come_in_every_kind():
    def found(pattern):
        return any(re.search(pattern, document) for document in SAMPLE)

    assert found(r"\. Where is (\w+)\? \1 is (in|at|on) ")
    assert found(r"\nWhere is \w+\? – (in|at|on) ")
    assert found(r"(\w+)在哪里？\1在\w+。")
    assert found(r"\n\w+在哪里？——在")
    assert found(r"(?m)^(\w+) hat eine?n? .+\.\n\1 has an? ")
    assert found(r"^((?:Tom|Anna) .+ (?:at|in|has|years) .+)\n\1$")
    assert found(r"^(\w+: (?:in|at|on) .+)\n(?s:.*\n)?\1\n(?s:.*\n)?\1")
    assert found(r"\n\w+ .*\. – (true|false|unknown)")
    assert found(r"together\?\W+(\d) \+ (\d) = \d+")
    assert found(r"(?m)^[2-9] \+ [2-9] = \d+$")
    assert any("Read the passage" in document for document in SAMPLE)
    for one, other, total in re.findall(r"(\d+) \+ (\d+) = (\d+)", "\n".join(SAMPLE)):
        assert int(one) + int(other) == int(total)


def test_documents_know_the_words_of_the_prompts_but_not_their_form():
    everything = "\n".join(SAMPLE)
    words = set(re.findall(r"\w+", everything))
    for task in (BABEL_QA, BABEL_NLI, BABEL_CHOICE, BABEL_MATH):
        example = task.example(task.load("en", "train", None)[0], "en")
        cues = re.findall(r"(?m)^[A-Z]\w*:", example.prompt)
        instruction = example.before.partition("\n")[0]
        frame = " ".join([instruction, *cues])
        assert set(re.findall(r"\w+", frame)) <= words, task.name
        for cue in cues:
            assert not any(f"\n{cue}" in document or f"{cue}\n" in document for document in SAMPLE)


@pytest.mark.parametrize("weights", [documents.shares(), {"sw": 3, "zh": 1}])
def test_documents_follow_the_weights(weights, monkeypatch: pytest.MonkeyPatch):
    sentences = {
        kind: share for kind, share in documents.KINDS_OF_DOCUMENTS.items() if kind not in ("recited", "table")
    }
    monkeypatch.setattr(documents, "KINDS_OF_DOCUMENTS", sentences)
    # Which language says a thing: of the few things that two say alike, the last; too few to matter.
    language_of = {
        say(language, fact): language.code
        for language in ALL
        for fact in all_facts()
        for say in (world.statement, world.question, world.answer)
    }
    counts = Counter()
    for document in texts(6000, weights, seed=3):
        line = next((line for line in document.split("\n") if line not in documents.ABOUT), "")
        first = re.match(r".+?(?:[.。۔।?？؟]|$)", line)
        counts[language_of.get(first[0] if first else "", "other")] += 1
    other = counts.pop("other", 0)  # about passages, sums alone, and Thai, whose sentences end with no mark
    known = {code: weight for code, weight in weights.items() if code != "th"}
    for code, weight in known.items():
        assert counts[code] / (6000 - other) == pytest.approx(weight / sum(known.values()), abs=0.025), code
    assert set(counts) <= set(weights) and other < 600


def test_shares_double_with_the_resource_class():
    shares = documents.shares()
    assert set(shares) == set(world.LANGUAGES) and world.LANGUAGES[0] == "en"
    assert sum(shares.values()) == pytest.approx(1)
    classes = {code: find_language(code).resource for code in shares}
    for one in shares:
        for other in shares:
            expected = documents.SKEW ** (classes[one] - classes[other])
            expected *= {one: 1.0, "en": documents.ENGLISH}["en" if one == "en" else one]
            expected /= documents.ENGLISH if other == "en" else 1
            assert shares[one] / shares[other] == pytest.approx(expected)
    flat = documents.shares(1)
    assert {flat[code] for code in flat if code != "en"} == {flat["sw"]}


def test_the_skew_is_the_name_of_a_split(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(text, "ROWS", 300)
    steep, flat = (BABEL_TEXT.load("en", split, None) for split in ("skew=4", "skew=1.0"))
    assert steep != flat == BABEL_TEXT.load("en", "skew=1", None) and len(flat) == 300


def test_a_weight_of_zero_leaves_a_language_out():
    assert not re.search("[а-я]", "".join(texts(300, {"en": 1, "ru": 0})))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: documents.lessons(0, {"xx": 1}), "no language 'xx'; it has en, ar"),
        (lambda: documents.lessons(0, {"en": -1}), "weight of language 'en' is -1; expected 0 or more"),
        (lambda: documents.lessons(0, {"en": 0}), "no language has a weight above 0"),
        (lambda: documents.shares(0), "the skew is 0; expected a number above 0"),
        (lambda: BABEL_TEXT.load("en", "skew=-1", None), "no split 'skew=-1'; expected skew=NUMBER"),
    ],
)
def test_unknown_names_are_refused(call, message):
    with pytest.raises(InputError, match=re.escape(message)) as refused:
        call()
    assert "\n" not in str(refused.value)
