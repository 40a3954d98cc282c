"""The embedded world: facts about people, told and asked for in every language of the package, and how they are drawn.

Instances for training, validation and test have nothing in common, whatever the seeds.
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
"""The share of all instances that is kept for validation, and as much again for test."""
TRUE, FALSE, UNKNOWN = range(3)
"""What a passage says of a claim, in the order of `Language.verdicts`."""

_BY_CODE = {language.code: language for language in ALL}


@dataclass(frozen=True, order=True)
class Fact:
    """What is said of one person, in concepts; a colour only with a possession."""

    kind: Kind
    person: str
    value: str
    colour: str = ""


@dataclass(frozen=True)
class Instance:
    """Facts about different people, and what is asked about: one of them, a claim, or two whose amounts are added."""

    facts: tuple[Fact, ...]
    asked: tuple[Fact, ...]

    @property
    def key(self) -> tuple[tuple[Fact, ...], tuple[Fact, ...]]:
        """Equal for instances that differ in their order alone."""
        return tuple(sorted(self.facts)), tuple(sorted(self.asked))

    @property
    def split(self) -> str:
        """The only split that may hold this instance, by its concepts: order and language do not matter."""
        digest = hashlib.sha256(repr(self.key).encode()).digest()
        place = int.from_bytes(digest[:4], "big") / 2**32
        return "test" if place < HELD_OUT else "validation" if place < 2 * HELD_OUT else "train"


def find_language(code: str) -> Language:
    """The language of that code; InputError that names them all."""
    if code not in _BY_CODE:
        raise InputError(f"the embedded world has no language {code!r}; it has {', '.join(LANGUAGES)}")
    return _BY_CODE[code]


def answer(language: Language, fact: Fact) -> str:
    """The short answer, a stretch of the statement: "in the kitchen"."""
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
    """The statements of some facts, in their order."""
    return language.space.join(statement(language, fact) for fact in facts)


def total(facts: Sequence[Fact]) -> Fact:
    """What people have together, as a fact of money whose answer can be said."""
    return Fact("money", facts[0].person, str(sum(int(fact.value) for fact in facts)))


def verdict(facts: Sequence[Fact], claim: Fact) -> int:
    """What the facts say of a claim: TRUE, FALSE or UNKNOWN. Who likes cats may also like dogs; nobody is twice."""
    if claim in facts:
        return TRUE
    told = any(fact.person == claim.person and fact.kind == claim.kind for fact in facts)
    return FALSE if told and claim.kind in EXCLUSIVE else UNKNOWN


def draw_facts(random: Random, count: int, kinds: int = 2) -> tuple[Fact, ...]:
    """Facts about different people, no two of which say the same; count is from `kinds` to 6.

    Of few kinds, so that the kind of a question seldom tells its answer: the person does.
    """
    some: list[Kind] = random.sample(KINDS, kinds)
    drawn: list[Kind] = [*some, *random.choices(some, k=count - kinds)]
    random.shuffle(drawn)
    people = random.sample(PEOPLE, count)
    values = {kind: iter(random.sample(VALUES[kind], drawn.count(kind))) for kind in some}
    return tuple(
        Fact(kind, person, next(values[kind]), _colour(random, kind))
        for kind, person in zip(drawn, people, strict=True)
    )


def draw_amounts(random: Random, count: int) -> tuple[Fact, ...]:
    """What so many people have in euros; some may have the same."""
    return tuple(Fact("money", person, random.choice(VALUES["money"])) for person in random.sample(PEOPLE, count))


def draw_claim(random: Random, facts: Sequence[Fact], wanted: int) -> Fact | None:
    """A claim about one of the people of which the facts say `wanted`; None where there is none.

    Where somebody else has one of that kind, half of the false and unknown ones take it: words alone do not tell.
    """
    if wanted == TRUE:
        return random.choice(facts)
    exclusive = [fact for fact in facts if fact.kind in EXCLUSIVE]
    if wanted == FALSE and not exclusive:
        return None
    about = random.choice(exclusive if wanted == FALSE else facts)
    kinds: list[Kind] = [about.kind] if wanted == FALSE else [kind for kind in KINDS if kind != about.kind]
    told = [fact for fact in facts if fact is not about and fact.kind in kinds]
    if told and random.random() < 0.5:
        taken = random.choice(told)
        return Fact(taken.kind, about.person, taken.value, taken.colour)
    kind = random.choice(kinds)
    values = [value for value in VALUES[kind] if (kind, value) != (about.kind, about.value)]
    return Fact(kind, about.person, random.choice(values), _colour(random, kind))


def instances(split: str, name: str, draw: Callable[[Random], Instance]) -> Iterator[Instance]:
    """Endlessly many instances that belong to the split, each once, the same for the same name and split.

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
