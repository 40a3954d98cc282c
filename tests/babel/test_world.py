"""The embedded world repeats from its seeds, and keeps what it tests out of what it teaches."""

import hashlib
import re
from collections import Counter
from itertools import islice

import pytest

from jaxprefix.babel import task, world
from jaxprefix.babel.language import COLOURS, KINDS, PEOPLE, VALUES
from jaxprefix.babel.languages import ALL
from jaxprefix.babel.world import Fact, Instance

SAMPLE = tuple(islice(world.documents(0), 4000))


def all_facts():
    for kind in KINDS:
        for value in VALUES[kind]:
            for person in PEOPLE:
                for colour in COLOURS if kind == "possession" else ("",):
                    yield Fact(kind, person, value, colour)


def test_documents_repeat_and_differ_by_seed():
    assert list(islice(world.documents(0), 200)) == list(SAMPLE[:200])
    assert len(set(SAMPLE[:200]) & set(islice(world.documents(1), 200))) < 20  # the few about passages repeat
    # The very text, so that no release of Python and no change here alters what the shipped model has read unnoticed.
    text = "\n\n".join(SAMPLE[:100])
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "b347d6b2417d440e"


def test_rows_repeat_and_agree_across_languages():
    for split in world.SPLITS:
        english = world.rows("en", split, 20)
        assert english == world.rows("en", split, 40)[:20]
        assert [row["id"] for row in world.rows("sw", split, 20)] == [row["id"] for row in english]
    for place, instance in enumerate(islice(world.instances("test"), 20)):
        for language in ALL:
            assert world.rows(language.code, "test", 20)[place] == {
                "id": f"test-{place}",
                "passage": language.space.join(world.statement(language, fact) for fact in instance.facts),
                "question": world.question(language, instance.asked),
                "answer": world.answer(language, instance.asked),
            }


def test_rows_ask_about_one_of_several_people():
    kinds, alike = Counter(), 0
    for instance in islice(world.instances("test"), 200):
        assert len(instance.facts) in (3, 4) and instance.asked in instance.facts
        assert len({fact.person for fact in instance.facts}) == len(instance.facts)
        assert len({(fact.kind, fact.value) for fact in instance.facts}) == len(instance.facts)
        assert len({fact.kind for fact in instance.facts}) == 2
        kinds[instance.asked.kind] += 1
        alike += sum(fact.kind == instance.asked.kind for fact in instance.facts) > 1
    assert min(kinds[kind] for kind in KINDS) > 20
    assert alike > 100  # of 200: where one must read whom the question is about
    for code in world.LANGUAGES:
        assert all(row["answer"] in row["passage"] for row in world.rows(code, "test", 200))


@pytest.fixture
def crowded(monkeypatch):
    """A world with so little in it, and most of that held out, that whatever is not kept apart soon meets by chance."""
    monkeypatch.setattr(world, "HELD_OUT", 0.3)
    monkeypatch.setattr(world, "PEOPLE", PEOPLE[:4])
    monkeypatch.setattr(world, "VALUES", {kind: values[:3] for kind, values in VALUES.items()})
    monkeypatch.setattr(world, "COLOURS", COLOURS[:1])


def test_splits_share_no_instance(crowded):
    train, validation, test = (
        {(frozenset(instance.facts), instance.asked) for instance in islice(world.instances(split), 3000)}
        for split in world.SPLITS
    )
    assert len(train) == len(validation) == len(test) == 3000
    assert not train & validation and not train & test and not validation & test


def test_order_of_the_facts_does_not_move_an_instance():
    for instance in islice(world.instances("test"), 100):
        assert Instance(instance.facts[::-1], instance.asked).split == "test"


def test_documents_hold_nothing_that_is_tested(crowded):
    """Law of the world: read back from the text alone, no passage of the documents asks what a held-out row asks."""
    english = world.find_language("en")
    told, asked = {}, {}
    for fact in all_facts():
        told[world.statement(english, fact)] = fact
        asked[world.question(english, fact)] = (fact.kind, fact.person)
    splits = Counter()
    for document in islice(world.documents(0, {"en": 1.0}), 4000):
        sentences = [sentence.strip() for sentence in re.findall(r"[^.?\n–]+[.?]", document)]
        questions = [sentence for sentence in sentences if sentence in asked]
        if not questions:  # about passages
            continue
        facts = tuple(told[sentence] for sentence in sentences[: sentences.index(questions[0])])
        for subject in (asked[sentence] for sentence in questions):
            (fact,) = (fact for fact in facts if (fact.kind, fact.person) == subject)
            splits[Instance(facts, fact).split] += 1
    assert set(splits) == {"train"} and splits["train"] > 3000


def test_documents_come_in_every_kind():
    assert any(re.search(r"\. Where is (\w+)\? \1 is (in|at|on) ", document) for document in SAMPLE)
    assert any(re.search(r"\nWhere is \w+\? – (in|at|on) ", document) for document in SAMPLE)
    assert any(re.search(r"。(\w+)在哪里？\1在\w+。", document) for document in SAMPLE)
    assert any(re.search(r"\n\w+在哪里？——在", document) for document in SAMPLE)
    assert any(re.search(r"(\w+) has a .+\.\n\1 hat ein", document) for document in SAMPLE)
    assert any("Read the passage" in document for document in SAMPLE)


def test_documents_know_the_words_of_the_prompt_but_not_its_form():
    example = task.BABEL_QA.example(world.rows("en", "train", 1)[0], "en")
    instruction = example.before.partition("\n")[0]
    words = set(re.findall(r"\w+", "\n".join(SAMPLE)))
    assert set(re.findall(r"\w+", example.before + "Question Answer")) <= words
    for form in (instruction, "Passage:\n", "Answer:\n", "\nPassage:", "\nQuestion:", "\nAnswer:"):
        assert not any(form in document for document in SAMPLE)


@pytest.mark.parametrize("weights", [world.WEIGHTS, {"sw": 3, "zh": 1}])
def test_documents_follow_the_weights(weights):
    # Which language says a thing: of the few things that two say alike, the last; too few to matter.
    language_of = {
        say(language, fact): language.code
        for language in ALL
        for fact in all_facts()
        for say in (world.statement, world.question, world.answer)
    }
    counts = Counter()
    for document in islice(world.documents(3, weights), 6000):
        first = re.match(r".+?(?:[.。?？]|$)", document.partition("\n")[0])[0]
        counts[language_of.get(first, "about" if "en" in weights else "none")] += 1
    counts["en"] += (about := counts.pop("about", 0))
    for code, weight in weights.items():
        assert counts.pop(code) / 6000 == pytest.approx(weight / sum(weights.values()), abs=0.02), code
    assert not +counts  # nothing is in another language
    assert about == pytest.approx(6000 * weights.get("en", 0) * world.ABOUT_ENGLISH, rel=0.2)


def test_default_weights_are_a_skew_over_all_languages():
    assert set(world.WEIGHTS) == set(world.LANGUAGES) and world.LANGUAGES[0] == "en"
    assert sum(world.WEIGHTS.values()) == pytest.approx(1)
    assert max(world.WEIGHTS.values()) == world.WEIGHTS["en"] > 5 * min(world.WEIGHTS.values())


def test_a_weight_of_zero_leaves_a_language_out():
    assert not re.search("[а-я]", "".join(islice(world.documents(0, {"en": 1, "ru": 0}), 300)))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: world.documents(0, {"xx": 1}), "no language 'xx'; it has en, de"),
        (lambda: world.documents(0, {"en": -1}), "weight of language 'en' is -1; expected 0 or more"),
        (lambda: world.documents(0, {"en": 0}), "no language has a weight above 0"),
        (lambda: world.rows("xx", "test", 1), "no language 'xx'; it has en, de"),
        (lambda: world.rows("en", "dev", 1), "no split 'dev'; it has train, validation, test"),
        (lambda: task.BABEL_QA.load("xx", "test", None), "babel-qa has no language 'xx'"),
        (lambda: task.BABEL_QA.load("en", "dev", None), "babel-qa has no split 'dev'; it has train, validation, test"),
    ],
)
def test_what_is_unknown_is_refused_by_name(call, message):
    with pytest.raises(ValueError, match=re.escape(message)) as refused:
        call()
    assert "\n" not in str(refused.value)


def test_task_prompts_and_scores():
    qa = task.BABEL_QA
    (row, *_), size = qa.load("de", qa.split, None), len(qa.load("de", qa.split, None))
    assert size == 100 and len(qa.load("en", "train", None)) == 2000 and len(qa.load("en", "validation", None)) == 200
    example = qa.example(row, "de")
    assert example.prompt == (
        "Read the passage and answer with a few words from it.\n"
        "Passage: Julia hat eine braune Schüssel. Robert isst eine Banane. Victor hat ein graues Messer.\n"
        "Question: Was hat Victor?\n"
        "Answer:\n"
    )
    assert (example.id, example.language, example.response) == ("test-0", "de", "ein graues Messer")
    assert qa.score(qa.answer("ein graues Messer\nWas hat Julia?"), example) == {"f1": 1.0, "em": 1.0}
    assert qa.score("ein graues", example) == {"f1": pytest.approx(0.8), "em": 0.0}
    assert tuple(qa.score("", example)) == qa.metrics
    assert qa in task.TASKS
