"""Golden prompts: the literal text that each task puts to the model. Changing one changes what every score means."""

import pytest

from jaxprefix.tasks import TASKS
from jaxprefix.tasks.mnli import MNLI
from jaxprefix.tasks.squad import SQUAD
from jaxprefix.tasks.task import Row, Task
from jaxprefix.tasks.tydiqa import TYDIQA
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
        (XQUAD, "ar", "بُنيت الطاحونة عام 1871.", "متى بُنيت الطاحونة؟", ["عام 1871"]),
    ],
)
def test_questions_about_a_passage(task: Task, language: str, passage: str, question: str, answers: list[str]):
    row = {"id": "r7", "context": f" {passage}\n", "question": f"{question} ", "answers": {"text": answers}}
    example = task.example(row, language)
    assert example is not None
    assert example.prompt == QUESTION_PROMPT.format(passage, question)
    assert example.context == passage  # what may be cut is the passage, all of it and no more
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


@pytest.mark.parametrize(
    ("task", "row", "complaint"),
    [
        (SQUAD, {"id": "q1", "context": "c", "answers": {"text": ["a"]}}, "row 'q1' has no text in column 'question'"),
        (SQUAD, {"id": "q1", "context": "c", "question": "q"}, "row 'q1' has no answers"),
        (SQUAD, {"id": "q1", "context": "c", "question": "q", "answers": "a"}, "found 'a'"),
        (XNLI, {"id": "3", "premise": "p", "hypothesis": "h", "label": 7}, "row '3' has label 7"),
        (XNLI, {"id": "3", "premise": "p", "hypothesis": "h"}, "row '3' has label None"),
        (XNLI, {"id": "3", "premise": "p", "hypothesis": None, "label": 1}, "no text in column 'hypothesis'"),
    ],
)
def test_a_row_of_another_form_is_refused_by_name(task: Task, row: Row, complaint: str):
    with pytest.raises(ValueError, match=complaint) as error:
        task.example(row, "en")
    assert "\n" not in str(error.value)


def test_generated_answers_and_choices_are_told_apart():
    for task in TASKS:
        assert (task.max_new_tokens == 0) == (task.metrics == ("accuracy",))
