"""Every language of the embedded world has all words, agrees in case, gender and class, and says nothing twice."""

import re
import unicodedata
from itertools import permutations
from pathlib import Path

import pytest

from jaxprefix.tasks.babel import world
from jaxprefix.tasks.babel.language import ANIMALS, COLOURS, FOODS, KINDS, NUMBERS, OBJECTS, PEOPLE, PLACES, VALUES
from jaxprefix.tasks.babel.languages import ALL
from jaxprefix.tasks.babel.world import Fact
from jaxprefix.tasks.languages import find_language

# Written by hand, so that a form in the wrong case, gender or class is noticed: code, concepts, sentences.
LINES = (Path(__file__).parent / "sentences.tsv").read_text(encoding="utf-8").splitlines()[1:]
SENTENCES = [tuple(line.split("\t")) for line in LINES]


def all_facts():
    for kind in KINDS:
        for value in VALUES[kind]:
            for person in PEOPLE:
                for colour in COLOURS if kind == "possession" else ("",):
                    yield Fact(kind, person, value, colour)


@pytest.mark.parametrize("code", world.LANGUAGES)
def test_sentences_written_by_hand(code):
    language, kinds = world.find_language(code), set()
    for _, concepts, statement, question, answer in (line for line in SENTENCES if line[0] == code):
        kind, *rest = concepts.split()
        kinds.add(kind)
        if kind == "together":
            one, other = (Fact("money", person, "5") for person in rest)
            assert world.sum_question(language, one, other) == question
        else:
            fact = Fact(kind, *rest)  # person, value, perhaps a colour
            said = (world.statement(language, fact), world.question(language, fact), world.answer(language, fact))
            assert said == (statement, question, answer)
    assert kinds == {*KINDS, "together"}


def test_turkish_locative_follows_vowel_harmony():
    names = world.find_language("tr").people
    for person in PEOPLE:
        name = names["name"][person]
        last_vowel = re.findall("[aıouAIOUeiöüEİÖÜ]", name)[-1].lower()
        ending = ("t" if name[-1] in "fstkçşhpx" else "d") + ("e" if last_vowel in "eiöü" else "a")
        assert names["locative"][person] == f"{name}'{ending}"


def test_russian_names_decline_by_their_endings():
    names = world.find_language("ru").people
    for person in PEOPLE:
        name = names["name"][person]
        if name.endswith("ия"):
            expected = (name[:-1] + "и", name[:-1] + "и")
        elif name.endswith("а"):
            expected = (name[:-1] + ("и" if name[-2] in "гкх" else "ы"), name[:-1] + "е")
        elif name.endswith("ь"):
            expected = (name[:-1] + "я", name[:-1] + "ю")
        else:
            expected = (name + "а", name + "у")
        assert (names["genitive"][person], names["dative"][person]) == expected


@pytest.mark.parametrize(
    ("code", "article"),
    [
        ("de", {"m": "einen", "f": "eine", "n": "ein"}),
        ("es", {"m": "un", "f": "una"}),
        ("fr", {"m": "un", "f": "une"}),
    ],
)
def test_articles_agree_as_colours_do(code, article):
    for gender, phrase in world.find_language(code).objects.values():
        assert phrase.split()[0] == article[gender]


@pytest.mark.parametrize("language", ALL, ids=lambda language: language.code)
def test_every_concept_has_words_of_its_own(language):
    assert language.patterns.keys() == set(KINDS)
    tables = {
        **{f"people {form}": (names, PEOPLE) for form, names in language.people.items()},
        **{f"colours {agreement}": (colours, COLOURS) for agreement, colours in language.colours.items()},
        "places": (language.places, PLACES),
        "objects": (language.objects, OBJECTS),
        "animals": (language.animals, ANIMALS),
        "foods": (language.foods, FOODS),
        "numbers": (language.numbers, NUMBERS),
    }
    for name, (words, concepts) in tables.items():
        assert tuple(words) == concepts, name
        if name.startswith("people ") and name != "people name":  # verbs have a form for women and one for men
            assert 1 < len(set(words.values())), name
        else:
            assert len(set(words.values())) == len(concepts), name
    assert {agreement for agreement, _ in language.objects.values()} == language.colours.keys()


@pytest.mark.parametrize("language", ALL, ids=lambda language: language.code)
def test_whatever_is_said_is_clean_and_unambiguous(language):
    statements = set()
    for fact in all_facts():
        statement, question, answer = (say(language, fact) for say in (world.statement, world.question, world.answer))
        assert answer in statement
        # In Chinese a horse is also the first sign of Martin; elsewhere no question gives its answer away.
        assert answer not in question or language.code == "zh"
        for text in (statement, question, answer):
            assert text == text.strip() and "  " not in text and not re.search(r"[{}\n]", text)
            assert language.space or " " not in text
        statements.add(statement)
    assert len(statements) == len(list(all_facts()))


@pytest.mark.parametrize("language", ALL, ids=lambda language: language.code)
def test_sums_and_verdicts_are_clean_and_unambiguous(language):
    pairs = [(Fact("money", one, "5"), Fact("money", other, "5")) for one, other in permutations(PEOPLE, 2)]
    questions = [world.sum_question(language, *pair) for pair in pairs]
    assert len(set(questions)) == len(pairs)
    for text in (*questions, *language.verdicts):
        assert text == text.strip() and "  " not in text and not re.search(r"[{}\n]", text)
    # None begins another: the first token that differs decides.
    assert not [one for one, other in permutations(language.verdicts, 2) if other.startswith(one)]


def test_every_script_is_its_own():
    """No letter of another script occurs, such as a Latin a in a Russian word."""
    known = {"Hans": "CJK", "Jpan": "CJK|HIRAGANA|KATAKANA", "Hang": "HANGUL", "Latn": "LATIN", "Cyrl": "CYRILLIC"}
    known |= {"Grek": "GREEK", "Arab": "ARABIC", "Deva": "DEVANAGARI", "Beng": "BENGALI", "Telu": "TELUGU"}
    known |= {"Thai": "THAI"}
    for language in ALL:
        own = known[find_language(language.code).script]
        said = (say(language, fact) for fact in all_facts() for say in (world.statement, world.question))
        letters = {letter for letter in set("".join(said)) if unicodedata.category(letter).startswith("L")}
        assert [letter for letter in letters if not re.match(own, unicodedata.name(letter))] == [], language.code
