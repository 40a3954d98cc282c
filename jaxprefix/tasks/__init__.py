"""The benchmarks, one file each, and the lookup by name."""

from jaxprefix.errors import InputError
from jaxprefix.io.messages import similar
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

TASKS = (
    SQUAD,
    TYDIQA,
    MNLI,
    BELEBELE_MIX,
    GSM8K,
    XQUAD,
    XNLI,
    BELEBELE,
    MGSM,
    XCOPA,
    MLQA,
    XLSUM,
    FLORES,
)


def _by_name() -> dict[str, Task]:
    # Imported late: the tasks of the embedded world import modules of this package.
    from jaxprefix.tasks.babel import TASKS as EMBEDDED

    return {task.name: task for task in (*TASKS, *EMBEDDED)}


def names() -> tuple[str, ...]:
    """The names of all tasks."""
    return tuple(_by_name())


def training() -> tuple[str, ...]:
    """The names of the benchmarks with training data."""
    return tuple(task.name for task in TASKS if task.eval_tasks)


def training_tasks(benchmark: str) -> list[Task]:
    """The tasks with training data for a benchmark, such as squad and tydiqa for xquad."""
    return [task for task in _by_name().values() if benchmark in task.eval_tasks]


def find(name: str) -> Task:
    """A benchmark, or a task of the embedded world. InputError, with all names, if the name is unknown."""
    tasks = _by_name()
    if name not in tasks:
        training = ", ".join(task.name for task in tasks.values() if task.eval_tasks)
        evaluated = (task for task in tasks.values() if not task.eval_tasks or task.name in task.eval_tasks)
        evaluation = ", ".join(task.name for task in evaluated)
        raise InputError(
            f"no task {name!r}; for training: {training}; for evaluation: {evaluation}{similar(name, tasks)}"
        )
    return tasks[name]
