"""The concepts of the embedded world, and the words that a language needs to express them.

A language is plain data. Every concept has its words in the form that the surrounding pattern needs (case, article,
agreement), so that the code has no rules of grammar.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

Kind = Literal["location", "possession", "liking", "eating", "age", "money"]
KINDS: tuple[Kind, ...] = get_args(Kind)

PEOPLE = (
    *("anna", "maria", "sara", "laura", "nina", "eva", "julia", "sofia", "emma", "clara", "olga", "amina"),
    *("tom", "david", "adam", "martin", "victor", "daniel", "robert", "max", "oscar", "ivan", "omar", "hassan"),
)
PLACES = (
    *("kitchen", "garden", "school", "market", "farm", "library", "station", "hospital"),
    *("hotel", "room", "office", "forest", "village", "shop", "city", "beach"),
)
OBJECTS = (
    *("ball", "book", "pen", "bag", "hat", "cup", "key", "phone", "lamp", "box"),
    *("umbrella", "knife", "spoon", "plate", "shirt", "jacket", "basket", "bottle", "chair", "bowl"),
)
COLOURS = ("red", "blue", "green", "yellow", "black", "white", "brown", "grey")
ANIMALS = ("cat", "dog", "horse", "bird", "cow", "goat", "rabbit", "elephant", "lion", "giraffe")
FOODS = ("apple", "banana", "orange", "egg", "bread", "rice", "fish", "cheese")
# From five on, the Russian word for years has one form. Up to ten, Swahili numbers are one word.
NUMBERS = ("five", "six", "seven", "eight", "nine", "ten")
# Written in digits. In every language here the euro has one form after all of these numbers and their sums.
EUROS = tuple(str(number) for number in range(2, 10))

# Two different values of one person contradict each other in these kinds only; one may like cats and dogs.
EXCLUSIVE: tuple[Kind, ...] = ("location", "age", "money")

VALUES: Mapping[Kind, tuple[str, ...]] = {
    "location": PLACES,
    "possession": OBJECTS,
    "liking": ANIMALS,
    "eating": FOODS,
    "age": NUMBERS,
    "money": EUROS,
}
"""The possible values of a fact, by kind."""

LATIN_NAMES = {person: person.capitalize() for person in PEOPLE}


@dataclass(frozen=True)
class Pattern:
    """The sentences for one kind of fact: a statement, a question and an answer.

    The fields are `{value}`, `{answer}` and every form of a person's name in the language, at least `{name}`.
    """

    statement: str
    """Contains `{answer}`, so that a short answer is always a span of the statement."""
    question: str
    answer: str = "{value}"


@dataclass(frozen=True)
class Language:
    """The words of one language, by concept."""

    code: str
    patterns: Mapping[Kind, Pattern]
    people: Mapping[str, Mapping[str, str]]
    """Form of the name ("name", "genitive") -> person -> text."""
    places: Mapping[str, str]
    """With the preposition or ending for "in" or "at"."""
    objects: Mapping[str, tuple[str, str]]
    """The class for the agreement of colours, and the noun phrase with a `{colour}`."""
    colours: Mapping[str, Mapping[str, str]]
    """Class -> colour -> text."""
    animals: Mapping[str, str]
    """The animals in general, as the object of "likes"."""
    foods: Mapping[str, str]
    """As the object of "eats"."""
    numbers: Mapping[str, str]
    """In the form that counts years."""
    together: str
    """Asks how many euros two people have together: `{name}` (or another form) and `{other_name}`."""
    verdicts: tuple[str, str, str]
    """The words for a statement that is true, false or unknown."""
    space: str = field(default=" ", kw_only=True)
    """The separator of sentences."""
    dash: str = field(default=" – ", kw_only=True)
    """The separator of a question and its short answer."""
