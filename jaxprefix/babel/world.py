"""The embedded world as text: facts about people, told and asked for in every language of the package.

Its documents teach a small model each language, and to answer from a passage in that language, but never in the form
in which the task asks: that form is what an adapter learns, in English alone. The documents and the rows of validation
and test have no instance in common, whatever the seeds.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from random import Random
from types import MappingProxyType

from jaxprefix.babel.language import COLOURS, KINDS, PEOPLE, VALUES, Kind, Language
from jaxprefix.babel.languages import ALL

LANGUAGES = tuple(language.code for language in ALL)
SPLITS = ("train", "validation", "test")

WEIGHTS: Mapping[str, float] = MappingProxyType(
    {"en": 0.25, "de": 0.16, "es": 0.16, "fr": 0.14, "ru": 0.11, "zh": 0.09, "tr": 0.06, "sw": 0.03}
)
"""The share of documents in each language, from high resource to low; our choice."""

PARALLEL = 0.15
"""The share of documents that say the same in two languages, line by line."""
RETOLD = 0.3
"""The share of documents that tell a passage twice, in another order; the others ask and answer questions about one.

Whoever is named the second time can be looked up, and looking up is what a model this small is slowest to learn.
"""
DIALOGUE = 0.5
"""The share of passages whose questions get short answers; the others get whole sentences."""
ABOUT_ENGLISH = 0.2
"""The share of English documents that use the words of instructions."""
HELD_OUT = 0.05
"""The share of all instances that is kept for validation, and as much again for test."""

_BY_CODE = {language.code: language for language in ALL}

# The words of the task's prompt in other sentences: the model knows them, but has never seen an answer follow them.
_ABOUT = (
    "Read the passage and answer the question.",
    "Read the question and answer with a few words from the passage.",
    "Answer it with words from the passage.",
    "Read it and answer with a few words.",
    "The answer is a few words from it.",
    "The passage is short and the question is about it.",
    "A question is about the passage.",
    "The words of the answer are in the passage.",
    "Passage: a few words to read.",
    "Question: what is the passage about?",
    "Answer: the last of the three.",
    "Passage, question and answer are words.",
)


@dataclass(frozen=True)
class Lesson:
    """A document in two parts: what could not be foretold (a passage; may be empty), and what follows from it."""

    given: str
    told: str


@dataclass(frozen=True, order=True)
class Fact:
    """What is said of one person, in concepts; a colour only with a possession."""

    kind: Kind
    person: str
    value: str
    colour: str = ""


@dataclass(frozen=True)
class Instance:
    """Facts about different people, and the one among them that is asked for."""

    facts: tuple[Fact, ...]
    asked: Fact

    @property
    def split(self) -> str:
        """The only split that may hold this instance, by its concepts: order and language do not matter."""
        digest = hashlib.sha256(repr((sorted(self.facts), self.asked)).encode()).digest()
        place = int.from_bytes(digest[:4], "big") / 2**32
        return "test" if place < HELD_OUT else "validation" if place < 2 * HELD_OUT else "train"


def find_language(code: str) -> Language:
    """The language of that code; ValueError that names them all."""
    if code not in _BY_CODE:
        raise ValueError(f"the embedded world has no language {code!r}; it has {', '.join(LANGUAGES)}")
    return _BY_CODE[code]


def answer(language: Language, fact: Fact) -> str:
    """The short answer, a stretch of the statement: "in the kitchen"."""
    return language.patterns[fact.kind].answer.format(value=_value(language, fact))


def statement(language: Language, fact: Fact) -> str:
    """ "Anna is in the kitchen." """
    return language.patterns[fact.kind].statement.format(answer=answer(language, fact), **_names(language, fact))


def question(language: Language, fact: Fact) -> str:
    """ "Where is Anna?" """
    return language.patterns[fact.kind].question.format(**_names(language, fact))


def passage(language: Language, facts: tuple[Fact, ...]) -> str:
    """The statements of some facts, in their order."""
    return language.space.join(statement(language, fact) for fact in facts)


def documents(seed: int, weights: Mapping[str, float] = WEIGHTS) -> Iterator[str]:
    """The text of `lessons`."""
    return (lesson.given + lesson.told for lesson in lessons(seed, weights))


def lessons(seed: int, weights: Mapping[str, float] = WEIGHTS) -> Iterator[Lesson]:
    """Endless documents to pretrain on, the same for the same seed; each ends without a line break.

    Args:
        seed: any number.
        weights: language -> its share of the documents; need not sum to 1. A document in two languages counts for
            the first, and the second is drawn by the same weights.

    Raises:
        ValueError: an unknown language, a negative weight, or no positive one.
    """
    # Checked at the call and not at the first document: hence two functions.
    for code, weight in weights.items():
        find_language(code)
        if weight < 0:
            raise ValueError(f"the weight of language {code!r} is {weight}; expected 0 or more")
    if not any(weights.values()):
        raise ValueError("no language has a weight above 0; give at least one")
    return _lessons(Random(f"documents {seed}"), {code: weight for code, weight in weights.items() if weight})


def rows(language: str, split: str, count: int) -> list[dict[str, str]]:
    """The first `count` questions of a split: {"id", "passage", "question", "answer"}.

    Rows with the same id say the same in every language. ValueError for an unknown language or split.
    """
    words = find_language(language)
    if split not in SPLITS:
        raise ValueError(f"the embedded world has no split {split!r}; it has {', '.join(SPLITS)}")
    return [
        {
            "id": f"{split}-{place}",
            "passage": passage(words, instance.facts),
            "question": question(words, instance.asked),
            "answer": answer(words, instance.asked),
        }
        for place, instance in enumerate(islice(instances(split), count))
    ]


def instances(split: str) -> Iterator[Instance]:
    """Endlessly many instances of three or four facts that belong to the split, each once, always the same."""
    random = Random(f"rows {split}")
    seen = set()
    while True:
        facts = _draw_facts(random, random.choice((3, 4)))
        instance = Instance(facts, random.choice(facts))
        key = (frozenset(instance.facts), instance.asked)
        if instance.split == split and key not in seen:
            seen.add(key)
            yield instance


def _value(language: Language, fact: Fact) -> str:
    if fact.kind == "possession":
        agreement, phrase = language.objects[fact.value]
        return phrase.format(colour=language.colours[agreement][fact.colour])
    words = {
        "location": language.places,
        "liking": language.animals,
        "eating": language.foods,
        "age": language.numbers,
    }
    return words[fact.kind][fact.value]


def _names(language: Language, fact: Fact) -> dict[str, str]:
    return {form: names[fact.person] for form, names in language.people.items()}


def _draw_facts(random: Random, count: int) -> tuple[Fact, ...]:
    """Facts about different people, no two of which say the same; count is from 2 to 6.

    Of two kinds only, so that the kind of a question seldom tells its answer: the person does.
    """
    first, second = random.sample(KINDS, 2)
    kinds: list[Kind] = [first, second, *random.choices((first, second), k=count - 2)]
    random.shuffle(kinds)
    people = random.sample(PEOPLE, count)
    values = {kind: iter(random.sample(VALUES[kind], kinds.count(kind))) for kind in (first, second)}
    return tuple(
        Fact(kind, person, next(values[kind]), random.choice(COLOURS) if kind == "possession" else "")
        for kind, person in zip(kinds, people, strict=True)
    )


def _lessons(random: Random, weights: Mapping[str, float]) -> Iterator[Lesson]:
    while True:
        language = _draw_language(random, weights)
        if language.code == "en" and random.random() < ABOUT_ENGLISH:
            yield Lesson("", " ".join(random.sample(_ABOUT, 3)))
            continue
        others = {code: weight for code, weight in weights.items() if code != language.code}
        other = _draw_language(random, others) if others else language
        kind = random.random()
        if kind < PARALLEL and others:
            yield _parallel(random, language, other)
        elif kind < PARALLEL + RETOLD:
            yield _retold(random, language, random.choice((language, other)))
        else:
            yield _conversation(random, language)


def _draw_language(random: Random, weights: Mapping[str, float]) -> Language:
    return _BY_CODE[random.choices(tuple(weights), tuple(weights.values()))[0]]


def _conversation(random: Random, language: Language) -> Lesson:
    """A passage and a question about each of its facts: answered by sentences, or shortly in dialogue."""
    while True:
        facts = _draw_facts(random, random.choice((2, 3, 4)))
        asked = random.sample(facts, len(facts))
        if all(Instance(facts, fact).split == "train" for fact in asked):
            break
    if random.random() < DIALOGUE:
        exchanges = (question(language, fact) + language.dash + answer(language, fact) for fact in asked)
        return Lesson(passage(language, facts), "".join(f"\n{exchange}" for exchange in exchanges))
    sentences = (say(language, fact) for fact in asked for say in (question, statement))
    return Lesson(passage(language, facts), "".join(language.space + sentence for sentence in sentences))


def _retold(random: Random, first: Language, second: Language) -> Lesson:
    """A passage, and the same facts in another order, in the same or another language."""
    facts = _draw_facts(random, random.choice((2, 3, 4)))
    return Lesson(passage(first, facts), "\n" + passage(second, tuple(random.sample(facts, len(facts)))))


def _parallel(random: Random, first: Language, second: Language) -> Lesson:
    """Four things said in one language and, each on the next line, in the other.

    Statements, questions and bare phrases stand on lines of their own, so their first words are known without a space.
    """
    lines = []
    for fact in _draw_facts(random, 4):
        say = random.choice((statement, question, answer))
        lines += [say(first, fact), say(second, fact)]
    return Lesson("", "\n".join(lines))
