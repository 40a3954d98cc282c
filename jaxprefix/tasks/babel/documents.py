"""The pretraining text of the embedded model: documents that teach it each language and how questions are answered.

The documents have many formats, but never the prompt format of the tasks, which an adapter learns in English only. The
documents never share an instance with the validation and test rows, whatever the seeds.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from random import Random
from types import MappingProxyType

from jaxprefix.errors import InputError
from jaxprefix.tasks import languages as real
from jaxprefix.tasks.babel import world
from jaxprefix.tasks.babel.language import Language
from jaxprefix.tasks.babel.world import LANGUAGES, Fact, Instance, answer, find_language, passage, question, statement

SKEW = 2.0
"""The ratio of text between languages of adjacent resource classes (Joshi et al. 2020, arXiv:2004.09095)."""
ENGLISH = 2.0
"""The ratio of text between English and the other languages of its class."""

KINDS_OF_DOCUMENTS: Mapping[str, float] = MappingProxyType(
    {
        "parallel": 0.04,
        "recited": 0.14,
        "table": 0.14,
        "retold": 0.08,
        "conversation": 0.20,
        "verdicts": 0.32,
        "sums": 0.08,
    }
)
"""The share of each kind; see the functions of these names."""
ABOUT_ENGLISH = 0.1
"""The share of English documents that consist of sentences from `ABOUT`."""
PREFACED = 0.1
"""The share of documents about a passage that begin with a sentence from `ABOUT`."""
FOREIGN = 0.25
"""The share of documents about a passage with questions in another language."""

SEPARATORS = ("\n", "\n", ": ", " → ", " = ")
"""Separators of a question and its answer, besides the dash of the language."""

# The words of the tasks' prompts in other sentences: the model knows the words, but no answer ever follows them.
ABOUT = (
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
    "Read the passage and choose.",
    "Choose the answer to the question.",
    "Choose an answer from the passage.",
    "Does the premise say it? It is true, false or unknown.",
    "Answer true, false or unknown.",
    "True, false and unknown are words.",
    "A premise and a hypothesis are short.",
    "Premise: the hypothesis is about it.",
    "Hypothesis: the premise is about it.",
    "Solve the problem and end with the answer.",
    "Problem: a solution is short.",
    "Solution: the problem is solved.",
    "The answer is 7. The answer is 12. The answer is 15.",
)


@dataclass(frozen=True)
class Lesson:
    """A document in two parts: `given` cannot be predicted (a passage, or nothing), and `told` follows from it."""

    given: str
    told: str


def shares(skew: float = SKEW) -> dict[str, float]:
    """The share of documents in each language: times `skew` per resource class, and times `ENGLISH` for English.

    A skew of 1 treats all languages except English alike. InputError unless the skew is between 0 and 100.
    """
    if not 0 < skew < 100:
        raise InputError(f"the skew is {skew}; expected a number above 0 and below 100, such as {SKEW}")
    weights = {code: skew ** _resource(code) * (ENGLISH if code == "en" else 1) for code in LANGUAGES}
    return {code: weight / sum(weights.values()) for code, weight in weights.items()}


def _resource(code: str) -> int:
    language = real.find_language(code)
    assert language is not None and language.resource is not None, code
    return language.resource


def lessons(seed: int, weights: Mapping[str, float]) -> Iterator[Lesson]:
    """An endless iterator of documents, the same for the same seed. None ends with a line break.

    Args:
        seed: any number.
        weights: language -> its share of the documents; they need not sum to 1. A document in two languages counts
            for the first; the second is sampled with the same weights.

    Raises:
        InputError: an unknown language, a negative weight, or no positive weight.
    """
    # `_lessons` is a separate function, so that errors are raised by the call and not at the first document.
    for code, weight in weights.items():
        find_language(code)
        if weight < 0:
            raise InputError(f"the weight of language {code!r} is {weight}; expected 0 or more")
    if not any(weights.values()):
        raise InputError("no language has a weight above 0; give at least one")
    return _lessons(Random(f"documents {seed}"), {code: weight for code, weight in weights.items() if weight})


def _lessons(random: Random, weights: Mapping[str, float]) -> Iterator[Lesson]:
    others = {code: {other: share for other, share in weights.items() if other != code} for code in weights}
    names, probabilities = tuple(KINDS_OF_DOCUMENTS), tuple(KINDS_OF_DOCUMENTS.values())
    while True:
        first = _draw_language(random, weights)
        if first.code == "en" and random.random() < ABOUT_ENGLISH:
            yield Lesson("", " ".join(random.sample(ABOUT, 3)))
            continue
        second = _draw_language(random, others[first.code]) if others[first.code] else first
        kind = random.choices(names, probabilities)[0]
        if kind in WORD_DOCUMENTS:
            yield WORD_DOCUMENTS[kind](random, first, second)
            continue
        target = second if random.random() < (0.5 if kind == "retold" else FOREIGN) else first
        lesson = PASSAGE_DOCUMENTS[kind](random, first, target)
        preface = f"{random.choice(ABOUT)}\n" if random.random() < PREFACED else ""
        yield Lesson(preface + lesson.given, lesson.told)


def _draw_language(random: Random, weights: Mapping[str, float]) -> Language:
    return find_language(random.choices(tuple(weights), tuple(weights.values()))[0])


def parallel(random: Random, first: Language, second: Language) -> Lesson:
    """Four statements, questions or answers in one language, each followed by a line with the other language.

    Each starts a line, so the model also learns its first word without a preceding space.
    """
    lines = []
    for fact in world.draw_facts(random, 4):
        say = random.choice((statement, question, answer))
        lines += [say(first, fact), say(second, fact)]
    return Lesson("", "\n".join(lines))


def recited(random: Random, language: Language, _: Language) -> Lesson:
    """Names and answers in random order, then the same line again.

    The repetition trains induction heads (Olsson et al. 2022, arXiv:2209.11895), which every other lookup builds on.
    """
    phrases = [_name(language, person) for person in random.sample(world.PEOPLE, min(12, len(world.PEOPLE)))]
    phrases += [answer(language, fact) for fact in world.draw_facts(random, 4)]
    line = " ".join(random.sample(phrases, random.randint(len(phrases) // 2, len(phrases))))
    return Lesson(line, f"\n{line}")


def table(random: Random, language: Language, _: Language) -> Lesson:
    """Lines with a name and an answer, three times, each time in another order."""
    facts = _taught_facts(lambda: world.draw_facts(random, random.choice((2, 3, 4)), kinds=1))
    separator = random.choice((" ", " ", language.space, ": ", language.dash))
    lines = [f"{_name(language, fact.person)}{separator}{answer(language, fact)}" for fact in facts]
    first, second, third = ("\n".join(random.sample(lines, len(lines))) for _ in range(3))
    return Lesson(first, f"\n{second}\n{third}")


def _name(language: Language, person: str) -> str:
    return language.people["name"][person]


def retold(random: Random, source: Language, target: Language) -> Lesson:
    """A passage, and the same facts in another order, in the same or another language.

    It trains looking up a person in the passage, which a small model learns slowly.
    """
    facts = world.draw_facts(random, random.choice((2, 3, 4)), random.choice((1, 2)))
    return Lesson(passage(source, facts), "\n" + passage(target, random.sample(facts, len(facts))))


def conversation(random: Random, source: Language, target: Language) -> Lesson:
    """A passage and a question about each of its facts, all with short answers or all with whole sentences."""
    facts = _taught_facts(lambda: world.draw_facts(random, random.choice((2, 3, 4)), random.choice((1, 1, 2))))
    shuffled = random.sample(facts, len(facts))
    if random.random() < 0.25:
        sentences = (say(target, fact) for fact in shuffled for say in (question, statement))
        return Lesson(passage(source, facts), "".join(target.space + sentence for sentence in sentences))
    reply, separator = random.choice((answer, answer, statement)), _separator(random, target)
    lines = [f"{question(target, fact)}{separator}{reply(target, fact)}" for fact in shuffled]
    return Lesson(passage(source, facts), "\n" + "\n".join(lines))


def verdicts(random: Random, source: Language, target: Language) -> Lesson:
    """A passage and the verdicts on a few claims."""
    while True:
        count = random.choice((1, 2, 2, 3))
        facts = world.draw_facts(random, count, kinds=min(count, 2))
        sampled = [world.draw_claim(random, facts, random.randrange(3)) for _ in range(4)]
        claims = list(dict.fromkeys(claim for claim in sampled if claim))
        if claims and all(_is_taught(facts, claim) for claim in claims):
            break
    separator = _separator(random, target)
    lines = [f"{statement(target, claim)}{separator}{target.verdicts[world.verdict(facts, claim)]}" for claim in claims]
    return Lesson(passage(source, facts), "\n" + "\n".join(lines))


def sums(random: Random, source: Language, target: Language) -> Lesson:
    """The amounts of three people and of pairs of them, as a sum, an amount, or both; or a list of sums."""
    if random.random() < 0.2:
        pairs = [(random.randrange(2, 10), random.randrange(2, 10)) for _ in range(6)]
        return Lesson("", "\n".join(f"{one} + {other} = {one + other}" for one, other in pairs))
    while True:
        facts = world.draw_amounts(random, 3)
        pairs = [random.sample(pair, 2) for pair in combinations(facts, 2)]
        if all(_is_taught(facts, *pair) for pair in pairs):
            break
    separator, reply = _separator(random, target), random.choice(("{sum}", "{sum}", "{amount}", "{sum}. {amount}"))
    lines = []
    for one, other in random.sample(pairs, 3):
        total = world.total((one, other))
        text = reply.format(sum=f"{one.value} + {other.value} = {total.value}", amount=answer(target, total))
        lines.append(f"{world.sum_question(target, one, other)}{separator}{text}")
    return Lesson(passage(source, facts), "\n" + "\n".join(lines))


WORD_DOCUMENTS = {"parallel": parallel, "recited": recited, "table": table}
PASSAGE_DOCUMENTS = {"retold": retold, "conversation": conversation, "verdicts": verdicts, "sums": sums}


def _is_taught(facts: Sequence[Fact], *subjects: Fact) -> bool:
    """Whether a document may have this question: its instance belongs to the training split."""
    return Instance(tuple(facts), subjects).split == "train"


def _taught_facts(draw: Callable[[], tuple[Fact, ...]]) -> tuple[Fact, ...]:
    """Facts for which a document may have a question about each."""
    while True:
        facts = draw()
        if all(_is_taught(facts, fact) for fact in facts):
            return facts


def _separator(random: Random, target: Language) -> str:
    return random.choice((target.dash, target.dash, *SEPARATORS))
