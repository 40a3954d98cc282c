"""--engine ray: workers on a Ray cluster share the cells of a study.

A Ray task is a worker, not a cell: it does one cell after another, as a process of the plain command does. Ray ends the
process of a task that had accelerators, and with it the base and its compiled programs. The locks of the directory
divide the cells among the workers. Ray starts a lost worker again, which finds in the directory what is left.
"""

import importlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jaxprefix.distributed import mesh as meshes
from jaxprefix.errors import InputError
from jaxprefix.io.messages import one_line
from jaxprefix.io.terminal import Stopped, progress
from jaxprefix.runs.loaded import Loaded
from jaxprefix.study.folder import Folder
from jaxprefix.study.plan import Plan
from jaxprefix.study.work import Unit, describe, open_runs, outcome_of, units, work

RETRIES = 5  # of a lost worker
POLL = 2.0  # seconds between two looks at the directory
LOCAL = {"include_dashboard": False, "object_store_memory": 100 * 2**20}  # bytes; files carry what the workers share
RESOURCES = {"cuda": "GPU", "tpu": "TPU", "cpu": "CPU"}  # Ray's names

Nodes = Sequence[Mapping[str, Any]]  # as `ray.nodes` describes them


def work_on_ray(plan: Plan, folder: Folder, only: str | None = None, retry: bool = False, quiet: bool = False) -> None:
    """As `work`, by as many workers as the cluster has accelerators for.

    Raises:
        InputError: Ray is not installed, the cluster is too small for a cell, or as for `work`.
    """
    ray = _ray()
    pending = open_runs(plan, folder, only, retry, Loaded())
    if not pending:
        return
    with _cluster(ray):
        needs, count = workers(ray.nodes(), folder, len({unit.cell.run for unit in pending}))
        each = ", ".join(f"{name}={value}" for name, value in needs.items())
        print(f"Ray: {count} workers, each with {each}", flush=True)
        task = ray.remote(max_retries=RETRIES, max_calls=1, **needs)(_work)
        tasks = [task.remote(plan, folder, only, Path.cwd()) for _ in range(count)]
        with progress(quiet) as bar:
            total = len(units(plan, only))
            shown = bar.add_task("cells", total=total, completed=total - len(pending), rate="")
            while tasks:
                ended, tasks = ray.wait(tasks, timeout=POLL)
                pending = _show_done(pending, folder, total)
                bar.update(shown, completed=total - len(pending))
                for one in ended:
                    _check(ray, one)


def workers(nodes: Nodes, folder: Folder, runs: int) -> tuple[dict[str, Any], int]:
    """The resources of a worker, as options of a Ray task, and the number of workers, at most one for each run.

    InputError if no node has the devices of the mesh.
    """
    available = [node["Resources"] for node in nodes if node["Alive"]]
    names = [RESOURCES[folder.platform]] if folder.platform else list(RESOURCES.values())
    name = next((name for name in names if any(node.get(name) for node in available)), names[-1])
    data, model = meshes.parse_mesh(folder.mesh or "1x1")
    needed, found = data * model, [int(node.get(name, 0)) for node in available]
    if needed > (most := max(found, default=0)):
        raise InputError(
            f"a cell with --mesh {data}x{model} needs {needed} of {name} on one node, but the largest node of the Ray "
            f"cluster has {most}; choose a smaller --mesh, another --platform or a larger cluster"
        )
    count = min(sum(size // needed for size in found), runs)
    options = {"GPU": {"num_cpus": 0, "num_gpus": needed}, "TPU": {"num_cpus": 0, "resources": {"TPU": needed}}}
    return options.get(name, {"num_cpus": needed}), count


def _ray() -> Any:
    try:
        return importlib.import_module("ray")
    except ImportError:
        raise InputError("--engine ray needs an extra: pip install 'jaxprefix[ray]'") from None


@contextmanager
def _cluster(ray: Any) -> Iterator[None]:
    """Connects to the cluster of RAY_ADDRESS or the one that runs on this machine, or starts a local one."""
    try:
        _connect(ray)
        yield
    finally:
        ray.shutdown()


def _connect(ray: Any) -> None:
    options = {"log_to_driver": False, "logging_level": "ERROR"}
    address = os.environ.get("RAY_ADDRESS")
    try:
        ray.init(address=address or "auto", **options)
        return
    except ConnectionError as error:
        if address:
            raise InputError(f"no Ray cluster at RAY_ADDRESS {address} ({one_line(error)}); correct it") from None
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a local cluster sends nothing
    try:
        ray.init(address="local", **LOCAL, **options)
    except Exception as error:  # Ray raises no kind of its own
        raise InputError(
            f"Ray could not start a local cluster ({one_line(error)}); start one with `ray start --head`, "
            "or leave --engine out"
        ) from error


def _work(plan: Plan, folder: Folder, only: str | None, directory: Path) -> str | None:
    """The task of a worker. Returns the message of an InputError, which would lose its type on the way."""
    try:
        os.chdir(directory)
    except OSError as error:
        return f"a worker cannot use {directory} ({error.strerror}); the nodes of the cluster need a shared file system"
    try:
        meshes.configure_platform(folder.mesh, folder.platform)
        work(plan, folder, only, quiet=True)
    except InputError as error:
        return str(error)
    except Stopped:
        os._exit(1)  # its state is saved, and Ray starts the worker again
    return None


def _show_done(pending: Sequence[Unit], folder: Folder, total: int) -> list[Unit]:
    """Prints a line for each unit that is done now, and returns the others."""
    left, done = [], []
    for unit in pending:
        (left if outcome_of(unit, folder) is None else done).append(unit)
    for number, unit in enumerate(done, total - len(pending) + 1):
        if folder.state(unit.cell, unit.stage) is not None:  # the choice of another learning rate leaves some out
            print(f"{number} of {total}: {unit}: {describe(unit, folder)}", flush=True)
    return left


def _check(ray: Any, task: Any) -> None:
    """InputError if a worker has ended with one, or was lost too often."""
    try:
        message = ray.get(task)
    except ray.exceptions.RayTaskError:  # a bug, with its traceback
        raise
    except ray.exceptions.RayError as error:
        message = (
            f"a worker was lost {RETRIES + 1} times ({one_line(error)}); what is done is kept: "
            "run the same command to resume"
        )
    if message:
        raise InputError(message)
