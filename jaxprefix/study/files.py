"""The files of a study's tables: Markdown, CSV and LaTeX, beside study.json."""

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jaxprefix.evaluation.report.cells import Cells
from jaxprefix.evaluation.report.files import json_text
from jaxprefix.io.atomic import write_atomically
from jaxprefix.io.markdown import escape, table
from jaxprefix.study.folder import Folder
from jaxprefix.study.mechanism import ProbeFigures
from jaxprefix.study.plan import Plan
from jaxprefix.study.rows import labels_of, rate_of
from jaxprefix.study.specification import Table

Results = Mapping[str, Any]  # the content of study.json
Tables = Mapping[str, Mapping[str, Cells]]  # a table's name -> its parts, by title

ABOUT = (
    "Scores are in percent, gaps and differences in points. *others* is the unweighted mean of the languages other "
    "than the training language, with its 95% interval over questions; *sd* is over seeds. *- baseline* is the "
    "difference of that mean, with sign-flip tests and Holm's correction over the rows; a star is below 0.05."
)
ASYMMETRY = (
    "toward is the mean gain in a language from training in the others, from the mean gain of the others from training "
    "in it; their difference is the asymmetry."
)
MECHANISM = (
    "A probe's figure is the mean of its layers, where it has layers, and of all languages. The correlation is "
    "Spearman's, over the languages other than the training language, with its 95% interval from a bootstrap over them."
)
LATEX = str.maketrans(
    {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "–": "--"}
    | {letter: f"\\{letter}" for letter in "&%$#_{}"}
)


def write(plan: Plan, folder: Folder, results: Results, tables: Tables, pictures: Mapping[str, Sequence[str]]) -> None:
    """Writes study.json, study.md, study.csv and study.tex, and replaces older ones."""
    texts = {
        "study.json": json_text(results),
        "study.md": markdown(plan, results, tables, pictures),
        "study.csv": comma_separated(results),
        "study.tex": latex(plan, tables),
    }
    for name, text in texts.items():
        write_atomically(folder.root / name, text.encode())


def markdown(plan: Plan, results: Results, tables: Tables, pictures: Mapping[str, Sequence[str]]) -> str:
    """Every table with its notes and pictures, and what the figures depend on."""
    specification = plan.specification
    text = [f"# {escape(specification.name)}", "", escape(specification.about), "", ABOUT, ""]
    for part in specification.tables:
        text += [f"## {escape(_heading(part))}", ""]
        for title, cells in tables[part.name].items():
            rows = [line for section in cells.sections for line in section]
            text += [f"**{escape(title)}**", "", table(cells.header, rows, cells.closing), ""]
        text += [line for name in pictures[part.name] for line in (f"![{escape(part.name)}]({name})", "")]
        text += [line for note in notes(part, results) for line in (f"- {escape(note)}",)] + [""]
    text += ["## What the figures depend on", ""]
    text += [f"- {what}: {escape(values)}" for what, values in origins(results)]
    return "\n".join(text) + "\n"


def origins(results: Results) -> Iterator[tuple[str, str]]:
    """What the figures depend on: the versions of packages, and hashes of the models and the questions."""
    parts = {
        task: [f"{name} {value}" for name, value in part.items() if value] for task, part in results["data"].items()
    }
    data = {task: " ".join(part) for task, part in parts.items()}
    for what, found in (("versions", results["versions"]), ("models", results["models"]), ("data", data)):
        yield what, "; ".join(f"{name} {value}" for name, value in sorted(found.items())) or "none yet"


def comma_separated(results: Results) -> str:
    """A line for each figure of each row: its settings and seeds, its value and its interval.

    Scores are in percent. Figures of probes and their correlations are not, because losses and counts are among them.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow("table row lr seeds task metric figure value low high".split())
    for name, part in results["tables"].items():
        for row in part["rows"]:
            settings = "; ".join(f"{axis}={value}" for axis, value in row["labels"].items())
            seeds = " ".join(map(str, row["seeds"]))
            for task, figures in row["tasks"].items():
                for figure, estimate in [*figures["means"].items(), *figures["languages"].items()]:
                    values = [_percent(estimate[key]) for key in ("value", "low", "high")]
                    writer.writerow([name, settings, rate_of(row), seeds, task, figures["metric"], figure, *values])
            for line in _probe_lines(row["probes"]):
                writer.writerow([name, settings, rate_of(row), seeds, *line])
    return text.getvalue()


def _probe_lines(probes: Mapping[str, ProbeFigures]) -> Iterator[list[Any]]:
    """The task, the name of the probe, the figure, its value and its interval."""
    for probe, figures in probes.items():
        for figure, value in [("mean", figures["mean"]), *figures["languages"].items()]:
            yield ["", probe, figure, f"{value:.6f}", "", ""]
        for task, estimate in figures["gap"].items():
            if estimate:
                ends = [f"{estimate[key]:.6f}" for key in ("value", "low", "high")]
                yield [task, probe, "correlation with the gap", *ends]


def latex(plan: Plan, tables: Tables) -> str:
    """Every table as a tabular of booktabs, after a comment with its title."""
    text = ["% needs \\usepackage{booktabs}"]
    for part in plan.specification.tables:
        for title, cells in tables[part.name].items():
            text += ["", f"% {_heading(part)}: {title}", *tabular(cells)]
    return "\n".join(text) + "\n"


def tabular(cells: Cells) -> list[str]:
    """The lines of one tabular. Columns of figures are right-aligned."""
    lines = [line for section in cells.sections for line in section]
    kinds = ["r" if all(_is_figure(line[column]) for line in lines) else "l" for column in range(len(cells.header))]
    rows = [" & ".join(map(_latex_text, line)) + r" \\" for line in lines]
    header = " & ".join(map(_latex_text, cells.header)) + r" \\"
    start = [rf"\begin{{tabular}}{{{''.join(kinds)}}}", r"\toprule", header, r"\midrule"]
    return [*start, *rows, r"\bottomrule", r"\end{tabular}"]


def notes(table: Table, results: Results) -> Iterator[str]:
    """What a reader of a table should know: its note, the learning rates that were tried, failures and gaps."""
    if table.note:
        yield table.note
    if table.kind == "parameters":
        return
    if table.kind == "matrix":
        yield ASYMMETRY
    found = results["tables"][table.name]["rows"]
    if any(row["probes"] for row in found):
        yield MECHANISM
    for row in found:
        name = ", ".join(labels_of(row, list(row["labels"]))) or "the only row"
        if row["tried"]:
            by = "held-out loss" if table.select == "loss" else "score in the training language"
            tried = ", ".join(
                f"{rate}: {'failed' if value is None else f'{value:.4f}'}" for rate, value in row["tried"].items()
            )
            yield f"{name}: learning rate by {by} of {tried}; chosen {rate_of(row)}."
        if row["failed"]:
            yield f"{name}: failed: {row['failed']}"
        elif not row["tasks"]:
            yield f"{name}: not done."
    missing: dict[tuple[str, str], str] = {}
    for row in found:
        for cell in row["cells"]:
            for task, languages in results["cells"][cell]["missing"].items():
                missing |= {(task, language): why for language, why in languages.items()}
    by_reason: dict[tuple[str, str], list[str]] = {}
    for (task, language), why in missing.items():
        by_reason.setdefault((task, why.replace(language, "LANGUAGE")), []).append(language)
    for (task, why), languages in by_reason.items():
        yield f"{task} without {', '.join(languages)}: {why}"


def _heading(part: Table) -> str:
    return f"{part.name}: {part.title}" if part.title else part.name


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.4f}"


def _is_figure(text: str) -> bool:
    return re.fullmatch(r"[-+–\d.,*]*", text) is not None


def _latex_text(text: str) -> str:
    return text.translate(LATEX)
