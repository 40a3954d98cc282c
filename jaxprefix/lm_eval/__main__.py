"""python -m jaxprefix.lm_eval run: the command line of lm-evaluation-harness, with our models and tasks."""

import json
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Literal

import tyro

from jaxprefix.distributed import mesh
from jaxprefix.errors import InputError
from jaxprefix.io import terminal
from jaxprefix.io.arguments import read_arguments
from jaxprefix.io.rows import ENDINGS
from jaxprefix.runs.directory import read_run

NAME = "jaxprefix"  # the harness's name of our models
REFUSED = {  # options of the harness, with what to do
    "--model_args": "use --adapter or --model",
    "-a": "use --adapter or --model",
    "--device": "use --platform and --mesh",
    "--max_batch_size": "use --batch",
    "--trust_remote_code": "no code of a model or data set is run",
}


@dataclass(frozen=True)
class Command:
    """Evaluates a trained run or a base model on tasks of lm-evaluation-harness.

    All other options are those of the harness: --tasks, --limit, --num_fewshot, --output_path, --log_samples,
    --include_path, --apply_chat_template, --gen_kwargs, ... (`lm-eval run --help`).
    `python -m jaxprefix.lm_eval ls tasks` lists the tasks, including ours: jaxprefix_xquad.
    """

    adapter: Path | None = None
    """The run directory that training printed; it names its base."""
    model: Annotated[str | None, tyro.conf.arg(aliases=["-M"])] = None
    """A base model without an adapter: a directory in Hugging Face layout or a hub id with an optional @revision."""
    data: Path | None = None
    """A local mirror of the hub, DATASET/CONFIG/SPLIT.{jsonl,json,parquet,csv,tsv}. The belebele, mgsm, xcopa, xnli and
    jaxprefix_xquad tasks read their rows there if the mirror has them."""
    batch: Annotated[int, tyro.conf.arg(aliases=["-b", "--batch-size"])] = 32
    """Batch size."""
    max_length: int | None = None
    """Most tokens of a prompt with its answer; by default all positions of the model."""
    mesh: str | None = None
    """DATAxMODEL, such as 4x2; by default all devices x 1."""
    platform: Literal["cpu", "cuda", "tpu"] | None = None
    """The platform; cpu emulates any mesh."""

    def check(self) -> None:
        """InputError if the settings are invalid."""
        if (self.adapter is None) == (self.model is None):
            both = f"both --adapter {self.adapter} and --model {self.model}" if self.adapter else "neither"
            raise InputError(f"expected either --adapter RUN or --model MODEL, given {both}; a run names its own base")
        for name in ("batch", "max_length"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise InputError(f"--{name.replace('_', '-')} is {getattr(self, name)}; expected at least 1")


def main() -> None:
    if find_spec("lm_eval") is None:
        raise InputError("jaxprefix.lm_eval needs an extra: pip install 'jaxprefix[lm-eval]'")
    arguments = sys.argv[1:]
    if arguments[:1] in (["ls"], ["validate"]):
        return _harness(arguments, None)
    arguments = arguments[1:] if arguments[:1] == ["run"] else arguments
    command, others = read_arguments(Command, "python -m jaxprefix.lm_eval run", arguments, return_unknown_args=True)
    for flag in (argument.partition("=")[0] for argument in others):
        if flag in REFUSED:
            raise InputError(f"{flag} is for other models of the harness; {REFUSED[flag]}")
    command.check()
    if command.adapter:
        read_run(command.adapter)  # an invalid run fails now, not after the harness has read its tasks
    if emulated := mesh.configure_platform(command.mesh, command.platform):
        print(emulated)
    # The harness names results after "path" or "model".
    source = {"path": str(command.adapter)} if command.adapter else {"model": command.model}
    settings = json.dumps(source | {"mesh": command.mesh, "max_length": command.max_length})
    ours = ["--model", NAME, "--model_args", settings, "--batch_size", str(command.batch)]
    _harness(["run", *ours, *others], command.data)


def _harness(arguments: Sequence[str], data: Path | None) -> None:
    """Runs the harness with these arguments; InputError for mistakes of the user."""
    import lm_eval.utils
    from lm_eval._cli import HarnessCLI
    from lm_eval.api.registry import register_model

    from jaxprefix.lm_eval.mirror import TASKS, write_tasks
    from jaxprefix.lm_eval.model import JaxPrefixLM

    register_model(NAME)(JaxPrefixLM)

    # If torch is installed, the harness would seed it and look up its version.
    lm_eval.utils.is_torch_available = lambda: False
    lm_eval.utils.setup_logging()
    command = HarnessCLI()
    sys.argv[1:] = arguments
    options = command.parse_args()
    with TemporaryDirectory(prefix="jaxprefix-tasks-") as mirrored:
        if data is not None:
            print(f"--data {data}: {write_tasks(data, Path(mirrored))} tasks read their rows there")
            logging.getLogger("lm_eval.tasks._index").setLevel(logging.ERROR)  # it warns of each replaced task
        # The last of several tasks with one name wins: the user's own.
        user_tasks = _user_tasks(options.include_path, getattr(options, "config", None))
        options.include_path = [str(TASKS), mirrored, *user_tasks]
        try:
            command.execute(options)
        except ValueError as error:
            if not _raised_by_the_harness(error):
                raise
            raise InputError(str(error)) from error
        except OSError as error:
            raise InputError(f"{error}{_data_hint(error, data)}") from error
        except ModuleNotFoundError as error:
            raise InputError(f"a task needs a missing package: {error} (for XQuAD use jaxprefix_xquad)") from error


def _data_hint(error: OSError, data: Path | None) -> str:
    """What to do if a data set could not be loaded; empty for an error that names its file."""
    if error.filename is not None:
        return ""
    if data is None:
        return "; to read rows from a local mirror, use --data DIR"
    return f"; --data {data} has no such rows, expected {data}/DATASET/CONFIG/SPLIT.{{{','.join(ENDINGS)}}}"


def _user_tasks(include_path: str | None, config: str | None) -> list[str]:
    """The directory of the user's own tasks, from the command line or from the harness's --config file."""
    from lm_eval.config.evaluate_config import EvaluatorConfig

    if include_path is None and config is not None and Path(config).is_file():
        include_path = EvaluatorConfig.load_yaml_config(config).get("include_path")
    return [include_path] if include_path else []


def _raised_by_the_harness(error: ValueError) -> bool:
    traceback = error.__traceback__
    while traceback and traceback.tb_next:
        traceback = traceback.tb_next
    assert traceback, "a caught error has a traceback"
    return traceback.tb_frame.f_globals["__name__"].partition(".")[0] == "lm_eval"


if __name__ == "__main__":
    terminal.run(main)
