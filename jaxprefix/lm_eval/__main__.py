"""python -m jaxprefix.lm_eval run: lm-evaluation-harness's own command line, with our models and tasks in it."""

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
from jaxprefix.io.rows import ENDINGS
from jaxprefix.runs.directory import read_run

NAME = "jaxprefix"  # of our models, among the harness's
REFUSED = {  # of the harness's options: what says the same here
    "--model_args": "--adapter or --model",
    "-a": "--adapter or --model",
    "--device": "--platform and --mesh",
    "--max_batch_size": "--batch",
    "--trust_remote_code": "nothing: no code of a model or data set is run",
}


@dataclass(frozen=True)
class Command:
    """Asks a trained run, or a base model, the tasks of lm-evaluation-harness.

    Every other option is the harness's own: --tasks, --limit, --num_fewshot, --output_path, --log_samples,
    --include_path, --apply_chat_template, --gen_kwargs, ... (`lm-eval run --help`).
    `python -m jaxprefix.lm_eval ls tasks` lists the tasks, ours among them: jaxprefix_xquad.
    """

    adapter: Path | None = None
    """The run directory that training printed; it names its base."""
    model: Annotated[str | None, tyro.conf.arg(aliases=["-M"])] = None
    """In its place a base model alone: a directory in Hugging Face layout, or a hub id with an optional @revision."""
    data: Path | None = None
    """A local mirror of the hub, DATASET/CONFIG/SPLIT.{jsonl,json,parquet,csv}, for the belebele, mgsm, xcopa, xnli and
    jaxprefix_xquad tasks that it holds."""
    batch: Annotated[int, tyro.conf.arg(aliases=["-b", "--batch-size"])] = 32
    """Rows at a time."""
    max_length: int | None = None
    """Tokens of prompt and answer; left out, all the positions of the model."""
    mesh: str | None = None
    """DATAxMODEL, such as 4x2; left out, all devices x 1."""
    platform: Literal["cpu", "cuda", "tpu"] | None = None
    """Where to run; cpu emulates any mesh."""

    def check(self) -> None:
        """InputError, in one line, for settings that cannot be."""
        if (self.adapter is None) == (self.model is None):
            both = f"both --adapter {self.adapter} and --model {self.model}" if self.adapter else "neither"
            raise InputError(f"expected --adapter RUN or --model MODEL, given {both}; a run names its own base")
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
    command, others = tyro.cli(
        Command, args=arguments, prog="python -m jaxprefix.lm_eval run", return_unknown_args=True
    )
    for flag in (argument.partition("=")[0] for argument in others):
        if flag in REFUSED:
            raise InputError(f"{flag} is for other models of the harness; here it is {REFUSED[flag]}")
    command.check()
    if command.adapter:
        read_run(command.adapter)  # what is no run is said at once, not after the harness has read its tasks
    if emulated := mesh.configure_platform(command.mesh, command.platform):
        print(emulated)
    # The harness names results after "path" or "model".
    who = {"path": str(command.adapter)} if command.adapter else {"model": command.model}
    settings = json.dumps(who | {"mesh": command.mesh, "max_length": command.max_length})
    ours = ["--model", NAME, "--model_args", settings, "--batch_size", str(command.batch)]
    _harness(["run", *ours, *others], command.data)


def _harness(arguments: Sequence[str], data: Path | None) -> None:
    """The harness's command with these arguments; InputError for what the user can mend."""
    import lm_eval.utils
    from lm_eval._cli import HarnessCLI
    from lm_eval.api.registry import register_model

    from jaxprefix.lm_eval.mirror import OWN, write_tasks
    from jaxprefix.lm_eval.model import JaxPrefixLM

    register_model(NAME)(JaxPrefixLM)

    # Where torch is installed the harness would seed it and ask for its version.
    lm_eval.utils.is_torch_available = lambda: False
    lm_eval.utils.setup_logging()
    command = HarnessCLI()
    sys.argv[1:] = arguments
    asked = command.parse_args()
    with TemporaryDirectory(prefix="jaxprefix-tasks-") as local:
        if data is not None:
            print(f"--data {data}: {write_tasks(data, Path(local))} tasks read their rows there")
            logging.getLogger("lm_eval.tasks._index").setLevel(logging.ERROR)  # it warns of each of them
        # Of tasks with one name the last is taken: the user's.
        asked.include_path = [str(OWN), local, *_user_tasks(asked.include_path, getattr(asked, "config", None))]
        try:
            command.execute(asked)
        except ValueError as error:
            if not _raised_by_the_harness(error):
                raise
            raise InputError(str(error)) from error
        except OSError as error:
            raise InputError(f"{error}{_about_rows(error, data)}") from error
        except ModuleNotFoundError as error:
            raise InputError(f"a task needs what is not installed: {error} (XQuAD is here jaxprefix_xquad)") from error


def _about_rows(error: OSError, data: Path | None) -> str:
    """What to do where a data set cannot be had; nothing where the error is of a file, which it names."""
    if error.filename is not None:
        return ""
    if data is None:
        return "; rows can be read from a local mirror: --data DIR"
    return f"; --data {data} holds no such rows, expected {data}/DATASET/CONFIG/SPLIT.{{{','.join(ENDINGS)}}}"


def _user_tasks(given: str | None, config: str | None) -> list[str]:
    """The folder of the user's own tasks, from the command line or from the harness's --config file."""
    from lm_eval.config.evaluate_config import EvaluatorConfig

    if given is None and config is not None and Path(config).is_file():
        given = EvaluatorConfig.load_yaml_config(config).get("include_path")
    return [given] if given else []


def _raised_by_the_harness(error: ValueError) -> bool:
    place = error.__traceback__
    while place and place.tb_next:
        place = place.tb_next
    assert place, "an error that was caught has a traceback"
    return place.tb_frame.f_globals["__name__"].partition(".")[0] == "lm_eval"


if __name__ == "__main__":
    terminal.run(main)
