"""What the embedded world speaks of, its concepts, and what a language needs in order to speak of them.

A language is plain data: for every concept the words in the very form that the pattern around it wants (case, article,
agreement), so that no rule of grammar is written in code.
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
# From five on, Russian years take one form; up to ten, Swahili numbers are one word.
NUMBERS = ("five", "six", "seven", "eight", "nine", "ten")
# Written in digits. The euro takes one form after all of them in every language here, and after their sums.
EUROS = tuple(str(number) for number in range(2, 10))

# Of these, two different values of one person contradict each other; one may like cats and dogs.
EXCLUSIVE: tuple[Kind, ...] = ("location", "age", "money")

VALUES: Mapping[Kind, tuple[str, ...]] = {
    "location": PLACES,
    "possession": OBJECTS,
    "liking": ANIMALS,
    "eating": FOODS,
    "age": NUMBERS,
    "money": EUROS,
}
"""What a fact of each kind can say of a person."""

LATIN_NAMES = {person: person.capitalize() for person in PEOPLE}


@dataclass(frozen=True)
class Pattern:
    """How one kind of fact is told and asked for.

    The fields are `{value}`, `{answer}` and every form of a person's name that the language has, `{name}` at least.
    """

    statement: str
    """Has `{answer}` in it, so that a short answer is always a stretch of the statement."""
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
    """With the preposition or ending that says "in" or "at"."""
    objects: Mapping[str, tuple[str, str]]
    """The class that colours agree with, and the noun phrase around a `{colour}`."""
    colours: Mapping[str, Mapping[str, str]]
    """Class -> colour -> text."""
    animals: Mapping[str, str]
    """All of a kind, as one likes them."""
    foods: Mapping[str, str]
    """As one eats them."""
    numbers: Mapping[str, str]
    """As they count years."""
    together: str
    """Asks how many euros two people have together: `{name}`, or another form, and `{other_name}` of the second."""
    verdicts: tuple[str, str, str]
    """What is said of a statement: that it is true, that it is false, that nobody can tell."""
    space: str = field(default=" ", kw_only=True)
    """What stands between two sentences."""
    dash: str = field(default=" – ", kw_only=True)
    """What stands between a question and a short answer in dialogue."""
