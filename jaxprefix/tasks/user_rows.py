"""A file of the user's as a task: rows {"prompt", "response"}, optionally with "language", "id" and "choices"."""

from pathlib import Path

from jaxprefix.errors import InputError
from jaxprefix.io.messages import short_repr, truncate
from jaxprefix.io.rows import Row as LocatedRow
from jaxprefix.io.rows import read_rows, split_name
from jaxprefix.tasks.columns import row_error
from jaxprefix.tasks.metrics import first_line, score_choice, score_generated
from jaxprefix.tasks.task import Example, Row, Task, check_languages

SPLIT = "file"  # the only split of a file
# Answers may have as many tokens as the longest response has bytes (no tokenizer makes more), within these bounds.
SHORTEST_ANSWER, LONGEST_ANSWER = 32, 256


def own_rows_task(path: Path) -> Task:
    """Reads a file of rows as a task that has its name. InputError, with file and row, for a wrong row.

    Rows with choices are scored by the most likely choice, others by the generated text. A file has one kind only.
    The default language is English, and the default id of a row is its number.
    """
    rows = [_checked(row, number) for number, row in enumerate(read_rows(path), start=1)]
    by_choice = bool(rows[0]["choices"])
    for row in rows:
        if bool(row["choices"]) != by_choice:
            raise row_error(row, 'expected "choices" in every row or in none; row 1 differs')
    longest = max(len(row["response"].encode()) for row in rows)
    cut = not by_choice and any("\n" in row["response"] for row in rows)

    def load(language: str, split: str, data: Path | None) -> list[Row]:
        check_languages(task, (language,))
        if split != SPLIT:
            raise InputError(f"{path} has no split {split!r}; a file of rows is read whole, leave the split out")
        return [row for row in rows if row["language"] == language]

    task = Task(
        name=split_name(path)[0],
        languages=tuple(dict.fromkeys(row["language"] for row in rows)),
        split=SPLIT,
        load=load,
        example=_example,
        metrics=("accuracy",) if by_choice else ("f1", "em"),
        score=score_choice if by_choice else score_generated,
        max_new_tokens=0 if by_choice else min(max(longest, SHORTEST_ANSWER), LONGEST_ANSWER),
        answer=str if by_choice else first_line,
        train_split=SPLIT,
        note="Some responses have several lines; only their first lines are compared." if cut else "",
    )
    return task


def prompt_end(prompt: str) -> str:
    """The prompt, ending with a newline, so that no token spans prompt and response."""
    return prompt.removesuffix("\n") + "\n"


def _checked(row: LocatedRow, number: int) -> Row:
    """The row with all columns, after a check of their types; `number` counts from 1."""
    # A missing value is None in a Parquet file and "" in a CSV file.
    present = {"language": "en"} | {column: value for column, value in row.items() if value not in (None, "")}
    for column in ("prompt", "response", "language"):
        if column not in present:
            columns = truncate(", ".join(map(str, row)), 80)
            what = f'"{column}" is empty' if column in row else f'no "{column}" in {columns}'
            raise row_error(row, f'{what}; a row needs {{"prompt", "response"}}')
        if not isinstance(present[column], str) or not present[column].strip():
            raise row_error(row, f'"{column}" is {short_repr(present[column])}; expected text')
    response = present["response"].strip()
    choices = present.get("choices", ())
    if not isinstance(choices, list | tuple) or not all(
        isinstance(choice, str) and choice.strip() for choice in choices
    ):
        raise row_error(row, f'"choices" is {short_repr(choices)}; expected a list of texts that are not blank')
    choices = tuple(choice.strip() for choice in choices)
    if choices and (response not in choices or len(set(choices)) < max(2, len(choices))):
        problem = f'"choices" is {short_repr(list(choices))}'
        raise row_error(row, f"{problem}; expected two or more different texts, one of them the response")
    columns = {
        "id": str(present.get("id", number)),
        "language": present["language"].strip(),
        "prompt": present["prompt"],
        "response": response,
        "choices": choices,
    }
    return LocatedRow(columns, row.source, row.number)


def pair(number: int, row: object) -> Example:
    """(prompt, response) as an example. InputError, with the row's number from 0, for anything else."""
    if not isinstance(row, tuple | list) or len(row) != 2 or not all(isinstance(x, str) and x.strip() for x in row):
        raise InputError(
            f"row {number} is {short_repr(row)}; expected (prompt, response), two texts that are not blank"
        )
    return _example({"id": str(number), "prompt": row[0], "response": row[1], "choices": ()}, "en")


def _example(row: Row, language: str) -> Example:
    """The whole prompt is in `after`, which is never cut and ends with a newline."""
    return Example(
        id=row["id"],
        language=language,
        before="",
        context="",
        after=prompt_end(row["prompt"]),
        response=row["response"],
        references=() if row["choices"] else (first_line(row["response"]),),
        choices=row["choices"],
    )
