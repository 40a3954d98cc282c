"""The benchmarks, one file each, and the way to one by its name."""

from jaxprefix.errors import InputError
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


def _known() -> dict[str, Task]:
    # Here and not above: the embedded world builds on this room.
    from jaxprefix.tasks.babel import TASKS as EMBEDDED

    return {task.name: task for task in (*TASKS, *EMBEDDED)}


def names() -> tuple[str, ...]:
    """The names of all tasks."""
    return tuple(_known())


def training() -> tuple[str, ...]:
    """The names of the benchmarks that can be trained on."""
    return tuple(task.name for task in TASKS if task.eval_tasks)


def find(name: str) -> Task:
    """The task of that name, a benchmark or one of the embedded world; InputError that names them all."""
    known = _known()
    if name not in known:
        training = ", ".join(task.name for task in known.values() if task.eval_tasks)
        measured = (task for task in known.values() if not task.eval_tasks or task.name in task.eval_tasks)
        evaluation = ", ".join(task.name for task in measured)
        raise InputError(f"no task {name!r}; for training: {training}; for evaluation: {evaluation}")
    return known[name]
