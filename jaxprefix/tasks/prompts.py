"""The prompts: one English instruction for each kind of question, around text in the language of the row.

Training and evaluation sets of the same kind share a function here, so evaluation uses the prompt of training.
"""

from collections.abc import Mapping

from jaxprefix.tasks.columns import filled_text_of, one_of, row_error, text_of, value_of
from jaxprefix.tasks.task import Example, Row

# In the order of the labels 0, 1, 2 of MNLI and XNLI.
NLI_CHOICES = ("entailment", "neutral", "contradiction")
# MNLI marks pairs on which its annotators did not agree with -1.
_NLI_ANSWERS = {"0": NLI_CHOICES[0], "1": NLI_CHOICES[1], "2": NLI_CHOICES[2], "-1": None}
LETTERS = ("A", "B", "C", "D")
_LETTER_ANSWERS = dict(zip("1234", LETTERS, strict=True))
NEXT_PROBLEM = "\nProblem:"


def passage_question(row: Row, language: str) -> Example | None:
    """A question that a span of a passage answers, from a row in the format of SQuAD; None if it has no answer.

    The row: {"id", "context", "question", "answers": {"text": [...]}}. InputError for any other format.
    """
    answers = value_of(row, "answers")
    texts = answers.get("text") if isinstance(answers, Mapping) else None
    if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
        raise row_error(row, f"'answers' is {answers!r:.60}; expected {{\"text\": [...]}}")
    references = tuple(text.strip() for text in texts if text.strip())
    if not references:
        return None
    return Example(
        id=text_of(row, "id"),
        language=language,
        before="Answer the question with words copied from the passage. "
        "Write the answer alone, on one line.\n\nPassage: ",
        context=text_of(row, "context"),
        after=f"\n\nQuestion: {text_of(row, 'question')}\nAnswer:\n",
        response=references[0],
        references=references,
        shared=text_of(row, "context"),
    )


def premise_hypothesis(row: Row, language: str) -> Example | None:
    """A pair of sentences with one of three relations, from a row in the format of MNLI; None for the label -1.

    The row: {"id", "premise", "hypothesis", "label"}. Both sentences come after the context and are
    never cut: half a premise would entail something else. InputError for any other format.
    """
    response = one_of(row, "label", _NLI_ANSWERS)
    if response is None:
        return None
    return Example(
        id=text_of(row, "id"),
        language=language,
        before="Does the premise entail the hypothesis, contradict it, or neither? "
        "Answer with one word: entailment, neutral or contradiction.\n\n",
        context="",
        after=f"Premise: {text_of(row, 'premise')}\nHypothesis: {text_of(row, 'hypothesis')}\nAnswer:\n",
        response=response,
        choices=NLI_CHOICES,
        shared=text_of(row, "premise"),
    )


def passage_options(row: Row, language: str, passage: str, option: str) -> Example:
    """A question about a passage with four answers, labelled with letters.

    The row: {"id", `passage`, "question", `option` + "1" to "4", "correct_answer_num": "1" to "4"}. The letters are
    scored: they have equal length, and the prompt contains the answers. InputError for any other format.
    """
    options = "\n".join(
        f"{letter}: {filled_text_of(row, f'{option}{number}')}" for number, letter in enumerate(LETTERS, start=1)
    )
    return Example(
        id=text_of(row, "id"),
        language=language,
        before="Read the passage and answer the question with the letter of the right answer: A, B, C or D.\n\n"
        "Passage: ",
        context=text_of(row, passage),
        after=f"\n\nQuestion: {text_of(row, 'question')}\n{options}\nAnswer:\n",
        response=one_of(row, "correct_answer_num", _LETTER_ANSWERS),
        choices=LETTERS,
        shared=text_of(row, passage),
    )


def word_problem(row: Row, language: str, solution: str, number: str) -> Example:
    """An arithmetic problem, solved in words. The last line of the answer gives the number. Nothing is cut.

    The row: {"id", "question"}. `solution` is the part of the response before that line; "" for none.
    """
    return Example(
        id=text_of(row, "id"),
        language=language,
        before="Solve the problem step by step. End with a line that says: The answer is NUMBER.\n\n",
        context="",
        after=f"Problem: {text_of(row, 'question')}\nSolution:\n",
        response=f"{solution}\nThe answer is {number}.".lstrip("\n"),
        references=(number,),
    )
