"""Every language of the embedded world has all words, agrees in case, gender and class, and says nothing twice."""

import re

import pytest

from jaxprefix.babel import world
from jaxprefix.babel.language import ANIMALS, COLOURS, FOODS, KINDS, NUMBERS, OBJECTS, PEOPLE, PLACES, VALUES
from jaxprefix.babel.languages import ALL
from jaxprefix.babel.world import Fact

# Written out by hand, so that a form in the wrong case, gender or class is seen.
GOLDEN = {
    "en": [
        ("location anna school", "Anna is at school.", "Where is Anna?", "at school"),
        ("possession tom umbrella red", "Tom has a red umbrella.", "What does Tom have?", "a red umbrella"),
        ("liking eva cat", "Eva likes cats.", "What does Eva like?", "cats"),
        ("eating omar apple", "Omar is eating an apple.", "What is Omar eating?", "an apple"),
        ("age nina ten", "Nina is ten years old.", "How old is Nina?", "ten years old"),
    ],
    "de": [
        ("location anna kitchen", "Anna ist in der Küche.", "Wo ist Anna?", "in der Küche"),
        ("location max farm", "Max ist auf dem Bauernhof.", "Wo ist Max?", "auf dem Bauernhof"),
        ("possession tom ball red", "Tom hat einen roten Ball.", "Was hat Tom?", "einen roten Ball"),
        ("possession tom bag white", "Tom hat eine weiße Tasche.", "Was hat Tom?", "eine weiße Tasche"),
        ("possession tom book black", "Tom hat ein schwarzes Buch.", "Was hat Tom?", "ein schwarzes Buch"),
        ("liking eva bird", "Eva mag Vögel.", "Was mag Eva?", "Vögel"),
        ("eating omar apple", "Omar isst einen Apfel.", "Was isst Omar?", "einen Apfel"),
        ("age nina five", "Nina ist fünf Jahre alt.", "Wie alt ist Nina?", "fünf Jahre alt"),
    ],
    "es": [
        ("location anna garden", "Anna está en el jardín.", "¿Dónde está Anna?", "en el jardín"),
        ("possession tom key yellow", "Tom tiene una llave amarilla.", "¿Qué tiene Tom?", "una llave amarilla"),
        ("possession tom umbrella red", "Tom tiene un paraguas rojo.", "¿Qué tiene Tom?", "un paraguas rojo"),
        ("liking eva cow", "A Eva le gustan las vacas.", "¿Qué le gusta a Eva?", "las vacas"),
        ("eating omar egg", "Omar come un huevo.", "¿Qué come Omar?", "un huevo"),
        ("age nina eight", "Nina tiene ocho años.", "¿Cuántos años tiene Nina?", "ocho años"),
    ],
    "fr": [
        ("location oscar school", "Oscar est à l'école.", "Où est Oscar ?", "à l'école"),
        ("possession tom box white", "Tom possède une boîte blanche.", "Que possède Tom ?", "une boîte blanche"),
        ("possession tom bag green", "Tom possède un sac vert.", "Que possède Tom ?", "un sac vert"),
        ("liking eva horse", "Eva aime les chevaux.", "Qu'aime Eva ?", "les chevaux"),
        ("eating anna bread", "Anna mange du pain.", "Que mange Anna ?", "du pain"),
        ("age anna seven", "Anna a sept ans.", "Quel âge a Anna ?", "sept ans"),
    ],
    "ru": [
        ("location anna kitchen", "Анна на кухне.", "Где Анна?", "на кухне"),
        ("possession anna ball red", "У Анны есть красный мяч.", "Что есть у Анны?", "красный мяч"),
        ("possession daniel book blue", "У Даниэля есть синяя книга.", "Что есть у Даниэля?", "синяя книга"),
        ("liking julia cat", "Юлия любит кошек.", "Кого любит Юлия?", "кошек"),
        ("eating ivan fish", "Иван ест рыбу.", "Что ест Иван?", "рыбу"),
        ("age olga six", "Ольге шесть лет.", "Сколько лет Ольге?", "шесть лет"),
    ],
    "zh": [
        ("location anna kitchen", "安娜在厨房里。", "安娜在哪里？", "在厨房里"),
        ("possession tom book red", "汤姆有一本红色的书。", "汤姆有什么？", "一本红色的书"),
        ("possession tom knife black", "汤姆有一把黑色的刀。", "汤姆有什么？", "一把黑色的刀"),
        ("liking eva cat", "伊娃喜欢猫。", "伊娃喜欢什么？", "猫"),
        ("eating omar apple", "奥马尔在吃苹果。", "奥马尔在吃什么？", "苹果"),
        ("age nina nine", "尼娜九岁。", "尼娜几岁？", "九岁"),
    ],
    "sw": [
        ("location anna kitchen", "Anna yuko jikoni.", "Anna yuko wapi?", "jikoni"),
        ("possession tom ball red", "Tom ana mpira mwekundu.", "Tom ana nini?", "mpira mwekundu"),
        ("possession tom book black", "Tom ana kitabu cheusi.", "Tom ana nini?", "kitabu cheusi"),
        ("possession tom shirt white", "Tom ana shati jeupe.", "Tom ana nini?", "shati jeupe"),
        ("possession tom hat blue", "Tom ana kofia ya bluu.", "Tom ana nini?", "kofia ya bluu"),
        ("possession tom key green", "Tom ana ufunguo wa kijani.", "Tom ana nini?", "ufunguo wa kijani"),
        ("liking eva cow", "Eva anapenda ng'ombe.", "Eva anapenda nini?", "ng'ombe"),
        ("eating omar rice", "Omar anakula wali.", "Omar anakula nini?", "wali"),
        ("age nina eight", "Nina ana miaka minane.", "Nina ana miaka mingapi?", "miaka minane"),
    ],
    "tr": [
        ("location anna kitchen", "Anna mutfakta.", "Anna nerede?", "mutfakta"),
        ("possession robert ball red", "Robert'te kırmızı bir top var.", "Robert'te ne var?", "kırmızı bir top"),
        ("possession david bowl grey", "David'de gri bir kâse var.", "David'de ne var?", "gri bir kâse"),
        ("liking eva horse", "Eva atları seviyor.", "Eva neyi seviyor?", "atları"),
        ("eating omar apple", "Omar elma yiyor.", "Omar ne yiyor?", "elma"),
        ("age nina six", "Nina altı yaşında.", "Nina kaç yaşında?", "altı yaşında"),
    ],
}


def all_facts():
    for kind in KINDS:
        for value in VALUES[kind]:
            for person in PEOPLE:
                for colour in COLOURS if kind == "possession" else ("",):
                    yield Fact(kind, person, value, colour)


@pytest.mark.parametrize("code", world.LANGUAGES)
def test_sentences_written_by_hand(code):
    language = world.find_language(code)
    assert {concepts.split()[0] for concepts, *_ in GOLDEN[code]} == set(KINDS)
    for concepts, statement, question, answer in GOLDEN[code]:
        fact = Fact(*concepts.split())  # kind, person, value, perhaps a colour
        said = (world.statement(language, fact), world.question(language, fact), world.answer(language, fact))
        assert said == (statement, question, answer)


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


def test_vocabulary_is_small():
    # Words for those who write them apart, characters for Chinese; each wants to be one token or two of the tokenizer.
    words = {}
    for language in ALL:
        text = " ".join(say(language, fact) for fact in all_facts() for say in (world.statement, world.question))
        words[language.code] = set(re.findall(r"\w+" if language.space else r"\w", text))
    assert {code: len(found) for code, found in words.items()} == {
        **{"en": 110, "de": 126, "es": 115, "fr": 119, "ru": 157, "zh": 155, "sw": 114, "tr": 105}
    }
    assert len(set.union(*words.values())) < 900
