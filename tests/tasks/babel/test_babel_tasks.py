"""The four tasks: their exact prompts, correct and wrong answers, and rows that agree across languages."""

import pytest

from jaxprefix.errors import InputError
from jaxprefix.tasks.babel import BABEL_CHOICE, BABEL_MATH, BABEL_NLI, BABEL_QA, TASKS
from jaxprefix.tasks.babel.choice import OPTIONS
from jaxprefix.tasks.babel.world import LANGUAGES

FOUR = (BABEL_QA, BABEL_NLI, BABEL_CHOICE, BABEL_MATH)
EACH = pytest.mark.parametrize("task", FOUR, ids=lambda task: task.name)
PROMPTS = {
    "babel-qa": "Read the passage and answer with a few words from it.\n"
    "Passage: {passage}\nQuestion: {question}\nAnswer:\n",
    "babel-nli": "Does the premise say it? Answer true, false or unknown.\n"
    "Premise: {premise}\nHypothesis: {hypothesis}\nAnswer:\n",
    "babel-choice": "Read the passage and choose.\nPassage: {passage}\nQuestion: {question}\nAnswer:\n",
    "babel-math": "Solve the problem and end with the answer.\nProblem: {problem}\nSolution:\n",
}


@EACH
def test_rows_and_prompts(task):
    assert {split: len(task.load("de", split, None)) for split in ("train", "validation", "test")} == {
        **{"train": 4000, "validation": 200, "test": 100}
    }
    for row in task.load("de", "test", None)[:10]:
        example = task.example(row, "de")
        assert example.prompt == PROMPTS[task.name].format(**row)
        assert (example.id, example.language) == (row["id"], "de")


def place_of_the_answer(row):
    return [row[name] for name in OPTIONS].index(row["answer"])


@EACH
def test_rows_of_one_id_say_the_same_in_every_language(task):
    """Everything that does not depend on the language is equal, and the correct choice has the same index."""
    english = task.load("en", "test", None)
    for code in LANGUAGES:
        rows = task.load(code, "test", None)
        assert [row["id"] for row in rows] == [row["id"] for row in english]
        for name in ("label", "solution", "number"):
            assert [row.get(name) for row in rows] == [row.get(name) for row in english]
        if task is BABEL_CHOICE:
            assert [place_of_the_answer(row) for row in rows] == [place_of_the_answer(row) for row in english]
        if code != "en":
            assert not {task.example(row, code).prompt for row in rows} & {
                task.example(row, "en").prompt for row in english
            }


@EACH
def test_the_right_answer_scores_all_and_another_less(task):
    for row in task.load("sw", "test", None)[:20]:
        example = task.example(row, "sw")
        assert set(task.score(task.answer(example.response), example).values()) == {1.0}
        wrong = next(each for each in example.choices if each != example.response) if example.choices else "99"
        assert set(task.score(task.answer(wrong), example).values()) == {0.0}
        assert tuple(task.score(task.answer(""), example)) == task.metrics


def test_qa_takes_the_first_line():
    example = BABEL_QA.example(BABEL_QA.load("en", "test", None)[0], "en")
    assert BABEL_QA.score(BABEL_QA.answer(f"{example.response}\nAnna is there."), example) == {"f1": 1.0, "em": 1.0}


def test_sums_are_shown_before_their_number():
    example = BABEL_MATH.example(BABEL_MATH.load("en", "test", None)[0], "en")
    one, plus, other, equals, total, *rest = example.response.split()
    assert (plus, equals, rest) == ("+", "=", ["The", "answer", "is", f"{total}."])
    assert int(one) + int(other) == int(total)


@EACH
def test_questions_of_evaluation_are_not_trained_on(task):
    assert task.eval_tasks == (task.name,) and "test" in task.forbidden_splits and task in TASKS


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_unknown_names_are_refused(task):
    with pytest.raises(InputError, match=rf"^task {task.name} has no language 'xx'; it has en"):
        task.load("xx", task.train_split, None)
    with pytest.raises(InputError, match=rf"^task {task.name} has no split 'dev'; (it has|expected) "):
        task.load("en", "dev", None)
