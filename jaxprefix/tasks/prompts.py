"""What the model is told: one English instruction a kind of question, around text in whatever language the row has.

Training and evaluation sets of one kind share one function here, so what is learnt is what is asked.
"""

from collections.abc import Mapping

from jaxprefix.tasks.task import Example, Row, text_of

# In the order of the labels 0, 1, 2 of MNLI and XNLI.
NLI_CHOICES = ("entailment", "neutral", "contradiction")
# MNLI marks by -1 the pairs on which its annotators did not agree.
_NLI_ANSWERS = {"0": NLI_CHOICES[0], "1": NLI_CHOICES[1], "2": NLI_CHOICES[2], "-1": None}


def passage_question(row: Row, language: str) -> Example | None:
    """A question whose answer is a stretch of a passage, from a row in SQuAD's form; None where no answer is given.

    The row: {"id", "context", "question", "answers": {"text": [...]}}. ValueError for any other form.
    """
    answers = row.get("answers")
    if not isinstance(answers, Mapping) or "text" not in answers:
        raise ValueError(f'row {row.get("id")!r} has no answers: expected {{"text": [...]}}, found {answers!r}')
    references = tuple(answer.strip() for answer in answers["text"] if answer.strip())
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
    )


def premise_hypothesis(row: Row, language: str) -> Example | None:
    """A pair of sentences whose relation is one of three, from a row in MNLI's form; None for its label -1.

    The row: {"id", "premise", "hypothesis", "label"}. Both sentences stand after the context, where nothing is cut:
    half a premise entails something else. ValueError for any other form.
    """
    label = str(row.get("label"))  # a number, or its digits where the mirror is a CSV file
    if label not in _NLI_ANSWERS:
        raise ValueError(f"row {row.get('id')!r} has label {row.get('label')!r}; expected one of 0, 1, 2 or -1")
    response = _NLI_ANSWERS[label]
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
    )
