"""The embedded world: random facts about people, with statements and questions about them in every language.

Training, validation and test never share an instance, whatever the seeds.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from random import Random

from jaxprefix.errors import InputError
from jaxprefix.tasks.babel.language import COLOURS, EXCLUSIVE, KINDS, PEOPLE, VALUES, Kind, Language
from jaxprefix.tasks.babel.languages import ALL

LANGUAGES = tuple(language.code for language in ALL)
SPLITS = ("train", "validation", "test")
HELD_OUT = 0.05
"""The share of all instances for validation, and also for test."""
TRUE, FALSE, UNKNOWN = range(3)
"""Verdicts on a claim, in the order of `Language.verdicts`."""

_BY_CODE = {language.code: language for language in ALL}


@dataclass(frozen=True, order=True)
class Fact:
    """A fact about one person, in concepts. Only possessions have a colour."""

    kind: Kind
    person: str
    value: str
    colour: str = ""


@dataclass(frozen=True)
class Instance:
    """Facts about different people, and the subject of the question: one of the facts, a claim, or two amounts to add.

    Field names are a part of `repr`, from which splits and the order of options are computed.
    """

    facts: tuple[Fact, ...]
    asked: tuple[Fact, ...]

    @property
    def key(self) -> tuple[tuple[Fact, ...], tuple[Fact, ...]]:
        """Equal for instances that differ only in order."""
        return tuple(sorted(self.facts)), tuple(sorted(self.asked))

    @property
    def split(self) -> str:
        """The only split that may have this instance, whatever its order and language."""
        digest = hashlib.sha256(repr(self.key).encode()).digest()
        uniform = int.from_bytes(digest[:4], "big") / 2**32
        return "test" if uniform < HELD_OUT else "validation" if uniform < 2 * HELD_OUT else "train"


def find_language(code: str) -> Language:
    """The language with this code. InputError, with all codes, if there is none."""
    if code not in _BY_CODE:
        raise InputError(f"the embedded world has no language {code!r}; it has {', '.join(LANGUAGES)}")
    return _BY_CODE[code]


def answer(language: Language, fact: Fact) -> str:
    """The short answer, a span of the statement: "in the kitchen"."""
    return language.patterns[fact.kind].answer.format(value=_value(language, fact))


def statement(language: Language, fact: Fact) -> str:
    """ "Anna is in the kitchen." """
    return language.patterns[fact.kind].statement.format(answer=answer(language, fact), **_forms(language, fact))


def question(language: Language, fact: Fact) -> str:
    """ "Where is Anna?" """
    return language.patterns[fact.kind].question.format(**_forms(language, fact))


def sum_question(language: Language, one: Fact, other: Fact) -> str:
    """ "How many euros do Anna and Tom have together?" """
    others = {f"other_{form}": text for form, text in _forms(language, other).items()}
    return language.together.format(**_forms(language, one), **others)


def passage(language: Language, facts: Sequence[Fact]) -> str:
    """The statements of the facts, in order."""
    return language.space.join(statement(language, fact) for fact in facts)


def total(facts: Sequence[Fact]) -> Fact:
    """The sum of amounts, as a fact about the first person."""
    return Fact("money", facts[0].person, str(sum(int(fact.value) for fact in facts)))


def verdict(facts: Sequence[Fact], claim: Fact) -> int:
    """TRUE, FALSE or UNKNOWN. One may like cats and dogs, but is in one place only."""
    if claim in facts:
        return TRUE
    told = any(fact.person == claim.person and fact.kind == claim.kind for fact in facts)
    return FALSE if told and claim.kind in EXCLUSIVE else UNKNOWN


def draw_facts(random: Random, count: int, kinds: int = 2) -> tuple[Fact, ...]:
    """Facts about different people, all with different values; `count` is from `kinds` to 6.

    There are few kinds, so that a question can seldom be answered by its kind alone, without the person.
    """
    distinct: list[Kind] = random.sample(KINDS, kinds)
    sampled: list[Kind] = [*distinct, *random.choices(distinct, k=count - kinds)]
    random.shuffle(sampled)
    people = random.sample(PEOPLE, count)
    values = {kind: iter(random.sample(VALUES[kind], sampled.count(kind))) for kind in distinct}
    return tuple(
        Fact(kind, person, next(values[kind]), _colour(random, kind))
        for kind, person in zip(sampled, people, strict=True)
    )


def draw_amounts(random: Random, count: int) -> tuple[Fact, ...]:
    """The amounts of `count` people in euros. Amounts may be equal."""
    return tuple(Fact("money", person, random.choice(VALUES["money"])) for person in random.sample(PEOPLE, count))


def draw_claim(random: Random, facts: Sequence[Fact], target: int) -> Fact | None:
    """A claim about one of the people for which the verdict is `target`; None if there is none.

    If another person has a fact of the same kind, half of the false and unknown claims use its value, so that words in
    common with the passage do not give the verdict away.
    """
    if target == TRUE:
        return random.choice(facts)
    exclusive = [fact for fact in facts if fact.kind in EXCLUSIVE]
    if target == FALSE and not exclusive:
        return None
    original = random.choice(exclusive if target == FALSE else facts)
    kinds: list[Kind] = [original.kind] if target == FALSE else [kind for kind in KINDS if kind != original.kind]
    others = [fact for fact in facts if fact is not original and fact.kind in kinds]
    if others and random.random() < 0.5:
        other = random.choice(others)
        return Fact(other.kind, original.person, other.value, other.colour)
    kind = random.choice(kinds)
    values = [value for value in VALUES[kind] if (kind, value) != (original.kind, original.value)]
    return Fact(kind, original.person, random.choice(values), _colour(random, kind))


def instances(split: str, name: str, draw: Callable[[Random], Instance]) -> Iterator[Instance]:
    """An endless iterator of different instances of the split, the same for the same name and split.

    InputError for an unknown split.
    """
    if split not in SPLITS:
        raise InputError(f"the embedded world has no split {split!r}; it has {', '.join(SPLITS)}")
    return _instances(split, Random(f"{name} {split}"), draw)


def _instances(split: str, random: Random, draw: Callable[[Random], Instance]) -> Iterator[Instance]:
    seen = set()
    while True:
        instance = draw(random)
        if instance.split == split and instance.key not in seen:
            seen.add(instance.key)
            yield instance


def _colour(random: Random, kind: Kind) -> str:
    return random.choice(COLOURS) if kind == "possession" else ""


def _value(language: Language, fact: Fact) -> str:
    if fact.kind == "possession":
        agreement, phrase = language.objects[fact.value]
        return phrase.format(colour=language.colours[agreement][fact.colour])
    if fact.kind == "money":
        return fact.value
    words = {
        "location": language.places,
        "liking": language.animals,
        "eating": language.foods,
        "age": language.numbers,
    }
    return words[fact.kind][fact.value]


def _forms(language: Language, fact: Fact) -> dict[str, str]:
    return {form: names[fact.person] for form, names in language.people.items()}
