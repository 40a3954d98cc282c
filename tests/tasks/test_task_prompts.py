"""Golden prompts: the literal prompt of each task. A change to one changes the meaning of every score."""

import pytest

from jaxprefix.tasks import TASKS
from jaxprefix.tasks.belebele import BELEBELE
from jaxprefix.tasks.belebele_mix import BELEBELE_MIX
from jaxprefix.tasks.flores import FLORES
from jaxprefix.tasks.gsm8k import GSM8K
from jaxprefix.tasks.mgsm import MGSM
from jaxprefix.tasks.mlqa import MLQA
from jaxprefix.tasks.mnli import MNLI
from jaxprefix.tasks.squad import SQUAD
from jaxprefix.tasks.task import Task
from jaxprefix.tasks.tydiqa import TYDIQA
from jaxprefix.tasks.xcopa import XCOPA
from jaxprefix.tasks.xlsum import XLSUM
from jaxprefix.tasks.xnli import XNLI
from jaxprefix.tasks.xquad import XQUAD

QUESTION_PROMPT = """\
Answer the question with words copied from the passage. Write the answer alone, on one line.

Passage: {}

Question: {}
Answer:
"""
PAIR_PROMPT = """\
Does the premise entail the hypothesis, contradict it, or neither? \
Answer with one word: entailment, neutral or contradiction.

Premise: {}
Hypothesis: {}
Answer:
"""
LABELS = ("entailment", "neutral", "contradiction")


@pytest.mark.parametrize(
    ("task", "language", "passage", "question", "answers"),
    [
        (SQUAD, "en", "The mill was built in 1871.", "When was the mill built?", ["1871", "in 1871"]),
        (TYDIQA, "en", "The mill was built in 1871.", "When was the mill built?", ["1871"]),
        (XQUAD, "de", "Die Mühle wurde 1871 gebaut.", "Wann wurde die Mühle gebaut?", ["1871"]),
        (XQUAD, "zh", "磨坊建于1871年。", "磨坊是什么时候建的？", ["1871年"]),
        (MLQA, "hi", "चक्की 1871 में बनी।", "चक्की कब बनी?", ["1871"]),
        (TYDIQA, "fi", "Mylly rakennettiin 1871.", "Milloin mylly rakennettiin?", ["1871"]),
        (XQUAD, "ar", "بُنيت الطاحونة عام 1871.", "متى بُنيت الطاحونة؟", ["عام 1871"]),
    ],
)
def test_questions_about_a_passage(task: Task, language: str, passage: str, question: str, answers: list[str]):
    row = {"id": "r7", "context": f" {passage}\n", "question": f"{question} ", "answers": {"text": answers}}
    example = task.example(row, language)
    assert example is not None
    assert example.prompt == QUESTION_PROMPT.format(passage, question)
    assert example.context == passage  # the passage may be cut, and nothing else
    assert example.response == answers[0]
    assert example.references == tuple(answers)
    assert (example.id, example.language, example.choices) == ("r7", language, ())


@pytest.mark.parametrize("label", [0, 1, 2, "2"])
@pytest.mark.parametrize(
    ("task", "language", "premise", "hypothesis"),
    [
        (MNLI, "en", "A dog runs.", "An animal moves."),
        (XNLI, "sw", "Mbwa anakimbia.", "Mnyama anasonga."),
        (XNLI, "zh", "狗在跑。", "动物在动。"),
    ],
)
def test_pairs_of_sentences(task: Task, language: str, premise: str, hypothesis: str, label: int | str):
    row = {"id": "4", "premise": f"{premise} ", "hypothesis": f" {hypothesis}", "label": label}
    example = task.example(row, language)
    assert example is not None
    assert example.prompt == PAIR_PROMPT.format(premise, hypothesis)
    assert example.context == ""  # neither sentence may be cut
    assert example.response == LABELS[int(label)]
    assert example.choices == LABELS
    assert (example.id, example.language, example.references) == ("4", language, ())


def test_rows_without_an_answer_give_no_example():
    assert XQUAD.example({"id": "1", "context": "c", "question": "q", "answers": {"text": []}}, "de") is None
    assert TYDIQA.example({"id": "1", "context": "c", "question": "q", "answers": {"text": [" "]}}, "en") is None
    assert MNLI.example({"id": "1", "premise": "p", "hypothesis": "h", "label": -1}, "en") is None


def test_options_of_a_passage():
    """Belebele and its training set have the same prompt, from their own columns."""
    passage, question, options = "Die Mühle wurde 1871 gebaut.", "Wann?", ["1817", "1871", "1781", "2x"]
    row = {"id": "4", "flores_passage": f"{passage} ", "question": f" {question}", "correct_answer_num": "2"}
    row |= {f"mc_answer{number}": f"{option} " for number, option in enumerate(options, start=1)}
    mixed = {"id": "4", "passage": passage, "question": question, "correct_answer_num": "2.0"}
    mixed |= {f"answer{number}": option for number, option in enumerate(options, start=1)}
    for task, given, language in ((BELEBELE, row, "deu_Latn"), (BELEBELE_MIX, mixed, "en")):
        example = task.example(given, language)
        assert example is not None
        assert example.prompt == (
            "Read the passage and answer the question with the letter of the right answer: A, B, C or D.\n\n"
            "Passage: Die Mühle wurde 1871 gebaut.\n\nQuestion: Wann?\nA: 1817\nB: 1871\nC: 1781\nD: 2x\nAnswer:\n"
        )
        assert (example.context, example.response, example.choices) == (passage, "B", ("A", "B", "C", "D"))
        assert (example.id, example.language) == ("4", language)
    assert BELEBELE.example({**row, "correct_answer_num": 4}, "deu_Latn").response == "D"


@pytest.mark.parametrize(
    ("task", "row", "language", "response", "number"),
    [
        (
            GSM8K,
            {
                "question": "How many? ",
                "answer": "He has 48/2 = <<48/2=24>>24.\nThen 24*45=<<24*45=1080>>1,080.\n#### 1,080",
            },
            "en",
            "He has 48/2 = 24.\nThen 24*45=1,080.\nThe answer is 1,080.",
            "1,080",
        ),
        (MGSM, {"question": " কত?", "answer": None, "answer_number": 18}, "bn", "The answer is 18.", "18"),
        (MGSM, {"question": "多少？", "answer": "", "answer_number": "18"}, "zh", "The answer is 18.", "18"),
    ],
)
def test_problems_of_arithmetic(task: Task, row: dict, language: str, response: str, number: str):
    example = task.example({"id": "0", **row}, language)
    assert example is not None
    assert example.prompt == (
        "Solve the problem step by step. End with a line that says: The answer is NUMBER.\n\n"
        f"Problem: {row['question'].strip()}\nSolution:\n"
    )
    assert example.context == ""  # nothing of a problem may be cut
    assert (example.response, example.references, example.choices) == (response, (number,), ())
    assert task.answer(example.response) == number  # the training response is what the parser reads
    # A model that continues with another problem is stopped there.
    assert example.after.startswith(task.stop[0].lstrip("\n"))


@pytest.mark.parametrize("asked", ["cause", "effect"])
@pytest.mark.parametrize("label", [0, 1])
def test_causes_and_effects(asked: str, label: int):
    row = {
        "id": "9",
        "premise": "Mwanaume alifungua bomba. ",
        "choice1": "Choo kilijaa.",
        "choice2": " Maji yalitiririka.",
    }
    example = XCOPA.example({**row, "question": asked, "label": label}, "sw")
    assert example is not None
    assert example.prompt == (
        f"What is the {asked} of what the premise says? Answer with one sentence in the language of the premise.\n\n"
        f"Premise: Mwanaume alifungua bomba.\n{asked.capitalize()}:\n"
    )
    assert example.choices == ("Choo kilijaa.", "Maji yalitiririka.")
    assert (example.response, example.context, example.language) == (example.choices[label], "", "sw")


def test_summaries():
    example = XLSUM.example({"id": "x-1", "text": " Habari ndefu.\nMbili.", "summary": "Habari\nfupi. "}, "sw")
    assert example is not None
    assert example.prompt == (
        "Summarise the article in one sentence, in the language of the article.\n\n"
        "Article: Habari ndefu.\nMbili.\n\nSummary:\n"
    )
    assert example.context == "Habari ndefu.\nMbili."
    assert (example.id, example.response, example.references) == ("x-1", "Habari fupi.", ("Habari fupi.",))


@pytest.mark.parametrize(
    ("language", "name"), [("deu_Latn", "German"), ("zho_Hant", "Chinese (Traditional)"), ("quy_Latn", "Quechua")]
)
def test_translations(language: str, name: str):
    example = FLORES.example({"id": "7", "english": "Good day. ", "text": " Guten Tag."}, language)
    assert example is not None
    assert example.prompt == (
        f"Translate the sentence into {name}. Write the translation alone, on one line.\n\n"
        "Sentence: Good day.\nTranslation:\n"
    )
    assert (example.context, example.response, example.references) == ("", "Guten Tag.", ("Guten Tag.",))


def test_generated_answers_and_choices_are_told_apart():
    for task in TASKS:
        assert (task.max_new_tokens == 0) == (task.metrics == ("accuracy",))


def test_a_generated_answer_of_nothing_is_a_parse_failure():
    for task in TASKS:
        if task.max_new_tokens:
            assert task.answer("") == task.answer(" \n") == ""
