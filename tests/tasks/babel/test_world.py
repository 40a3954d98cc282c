"""The embedded world is reproducible from its seeds, samples its questions evenly, and keeps its splits apart."""

import re
from collections import Counter
from itertools import islice
from random import Random

import pytest

from jaxprefix.errors import InputError
from jaxprefix.tasks.babel import choice, math, nli, qa, world
from jaxprefix.tasks.babel.language import COLOURS, EXCLUSIVE, KINDS, PEOPLE, VALUES
from jaxprefix.tasks.babel.world import FALSE, TRUE, UNKNOWN, Fact, Instance

DRAWS = {"babel-qa": qa.draw, "babel-nli": nli.draw, "babel-choice": choice.draw, "babel-math": math.draw}


def some(name: str, split: str, count: int) -> list[Instance]:
    return list(islice(world.instances(split, name, DRAWS[name]), count))


@pytest.mark.parametrize("name", DRAWS)
def test_instances_repeat_and_differ_by_split_and_task(name: str):
    found = some(name, "test", 50)
    assert found == some(name, "test", 60)[:50]
    assert not {each.key for each in found} & {each.key for each in some(name, "train", 500)}
    assert all(each.split == "test" for each in found)
    assert len({each.key for each in found}) == 50


@pytest.fixture
def crowded(monkeypatch):
    """A world so small, mostly held out, that splits which are not kept apart would soon meet by chance."""
    monkeypatch.setattr(world, "HELD_OUT", 0.3)
    monkeypatch.setattr(world, "PEOPLE", PEOPLE[:5])
    monkeypatch.setattr(world, "VALUES", {kind: values[:5] for kind, values in VALUES.items()})
    monkeypatch.setattr(world, "COLOURS", COLOURS[:1])


@pytest.mark.parametrize("name", DRAWS)
def test_splits_share_no_instance(crowded, name: str):
    train, validation, test = ({each.key for each in some(name, split, 200)} for split in world.SPLITS)
    assert len(train) == len(validation) == len(test) == 200
    assert not train & validation and not train & test and not validation & test


def test_order_does_not_move_an_instance():
    for instance in some("babel-math", "test", 100):
        assert Instance(instance.facts[::-1], instance.asked[::-1]).split == "test"


def test_questions_ask_about_one_of_several_people():
    kinds, alike = Counter(), 0
    for instance in some("babel-qa", "test", 300):
        (asked,) = instance.asked
        assert len(instance.facts) in (3, 4) and asked in instance.facts
        assert len({fact.person for fact in instance.facts}) == len(instance.facts)
        assert len({(fact.kind, fact.value) for fact in instance.facts}) == len(instance.facts)
        assert len({fact.kind for fact in instance.facts}) == 2
        kinds[asked.kind] += 1
        alike += sum(fact.kind == asked.kind for fact in instance.facts) > 1
    assert min(kinds[kind] for kind in KINDS) > 30
    assert alike > 150  # where one must read whom the question is about


def test_verdicts_follow_from_the_facts():
    anna, tom = Fact("location", "anna", "kitchen"), Fact("liking", "tom", "cat")
    expected = {
        anna: TRUE,
        Fact("location", "anna", "garden"): FALSE,
        Fact("location", "tom", "kitchen"): UNKNOWN,  # nothing is said of where Tom is
        Fact("liking", "tom", "dog"): UNKNOWN,  # he may like both
        Fact("liking", "anna", "cat"): UNKNOWN,
        Fact("age", "anna", "six"): UNKNOWN,
    }
    assert {claim: world.verdict((anna, tom), claim) for claim in expected} == expected


def test_claims_are_even_and_words_alone_do_not_tell():
    verdicts, borrowed = Counter(), Counter()
    for instance in some("babel-nli", "test", 600):
        (claim,) = instance.asked
        found = world.verdict(instance.facts, claim)
        verdicts[found] += 1
        assert found != FALSE or claim.kind in EXCLUSIVE
        assert claim.person in {fact.person for fact in instance.facts}
        others = {(fact.kind, fact.value) for fact in instance.facts if fact.person != claim.person}
        borrowed[found] += (claim.kind, claim.value) in others
        # One who likes cats may like dogs too: such claims would be unknown, and are not made.
        kinds = {(fact.kind, fact.person) for fact in instance.facts}
        assert found != UNKNOWN or (claim.kind, claim.person) not in kinds
    assert all(160 < verdicts[each] < 240 for each in (TRUE, FALSE, UNKNOWN))
    assert borrowed[TRUE] == 0 and min(borrowed[FALSE], borrowed[UNKNOWN]) > 25


def test_an_impossible_claim_is_none():
    assert world.draw_claim(Random(0), (Fact("liking", "tom", "cat"), Fact("eating", "anna", "fish")), FALSE) is None


def test_all_options_occur_in_the_passage():
    places = Counter()
    for instance in some("babel-choice", "test", 400):
        assert len(instance.facts) == 4 and len({fact.kind for fact in instance.facts}) == 1
        row = choice.say(world.find_language("en"), instance)
        options = [row[name] for name in choice.OPTIONS]
        assert sorted(options) == sorted(world.answer(world.find_language("en"), fact) for fact in instance.facts)
        assert row["answer"] == world.answer(world.find_language("en"), instance.asked[0])
        places[options.index(row["answer"])] += 1
    assert min(places.values()) > 70 and len(places) == 4


def test_sums_are_of_two_of_three():
    for instance in some("babel-math", "test", 100):
        assert len(instance.facts) == 3 and set(instance.asked) < set(instance.facts)
        numbers = {fact.person: int(fact.value) for fact in instance.facts}
        one, other = (numbers[fact.person] for fact in instance.asked)
        assert world.total(instance.asked).value == str(one + other)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: world.find_language("xx"), "no language 'xx'; it has en, ar"),
        (lambda: world.instances("dev", "babel-qa", qa.draw), "no split 'dev'; it has train, validation, test"),
    ],
)
def test_unknown_names_are_refused(call, message):
    with pytest.raises(InputError, match=re.escape(message)) as refused:
        call()
    assert "\n" not in str(refused.value)
