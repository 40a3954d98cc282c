"""python -m jaxprefix.peft export|import: adapters to and from PEFT's formats, or merged into a full checkpoint."""

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro

from jaxprefix.distributed import mesh
from jaxprefix.errors import InputError
from jaxprefix.io import terminal
from jaxprefix.io.atomic import check_new, new_directory
from jaxprefix.io.hub import expanded
from jaxprefix.io.messages import truncate
from jaxprefix.models import weights
from jaxprefix.peft.card import card
from jaxprefix.peft.convert import from_peft, to_peft
from jaxprefix.peft.files import CARD, read_adapter, write_adapter
from jaxprefix.peft.merge import check_mergeable, merge
from jaxprefix.peft.settings import Settings
from jaxprefix.runs.base_model import BaseModel, open_base
from jaxprefix.runs.config import RunConfig
from jaxprefix.runs.saved import TrainedRun, load_run, save_run

UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9}
SHARD = "5GB"


@dataclass(frozen=True)
class Export:
    """Writes a run's adapter in PEFT's form, or with --merge the whole adapted model."""

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """The run directory that training printed."""
    out: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="OUT")]
    """A new directory."""
    merge: bool = False
    """Write a full checkpoint in Hugging Face layout, with lora or full merged into the weights."""
    shard_size: str | None = None
    """The largest file of a merged checkpoint, such as 2GB or 500MB; left out, 5GB. No tensor is split."""


@dataclass(frozen=True)
class Import:
    """Makes a run of an adapter in PEFT's form, ready to be evaluated, asked and exported."""

    adapter: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="PEFT_DIR")]
    """The directory that PEFT's save_pretrained wrote."""
    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="NEW_RUN")]
    """A new run directory."""
    model: str | None = None
    """The adapter's base: a directory or a hub id with an optional @revision. Left out: the embedded default."""
    language: str = "en"
    """The language that the adapter was trained in."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the frozen weights; auto is bfloat16 on accelerators and float32 on CPU."""


Command = (
    Annotated[Export, tyro.conf.subcommand("export", prefix_name=False)]
    | Annotated[Import, tyro.conf.subcommand("import", prefix_name=False)]
)


def main() -> None:
    command = tyro.cli(Command, args=sys.argv[1:], prog="python -m jaxprefix.peft")  # type: ignore[arg-type]
    mesh.configure_platform(None, "cpu")  # nothing here is worth waking an accelerator for, and sums are exact on CPU
    if isinstance(command, Import):
        print(import_adapter(command))
    elif command.merge:
        print(export_merged(command))
    else:
        print(export_adapter(command))


def export_adapter(command: Export) -> str:
    """Writes the adapter; returns the line that says what was written."""
    if command.shard_size is not None:
        raise InputError(f"--shard-size {command.shard_size} is for --merge; an adapter is one small file")
    check_new(command.out)
    saved = _saved(command.run)
    base = saved.base
    settings, tensors = to_peft(saved.config.adapter, saved.params, base.config, lambda name: _projection(base, name))
    name, revision = _names(saved.config.model, base)
    settings |= {"base_model_name_or_path": name, "revision": revision}
    kind = settings["peft_type"]
    write_adapter(
        command.out, settings, tensors, base.fingerprint, card(saved, command.run, _hub_id(saved.config.model), kind)
    )
    if kind == "PREFIX_TUNING" and base.config.window is not None:
        room = base.config.window - settings["num_virtual_tokens"]
        print(f"note: PEFT counts the prefix in the base's sliding window; its numbers differ beyond {room} tokens")
    return f"wrote {command.out}: {kind} on {name}; load it with peft.PeftModel.from_pretrained(base, '{command.out}')"


def export_merged(command: Export) -> str:
    """Writes the full checkpoint; returns the line that says what was written."""
    shard_size = _bytes(SHARD if command.shard_size is None else command.shard_size)
    check_new(command.out)
    saved = _saved(command.run)
    check_mergeable(saved.config.adapter, saved.config.method)
    with new_directory(command.out) as place:
        files, types = merge(saved.config.adapter, saved.params, saved.base, place, shard_size)
        (place / CARD).write_text(card(saved, command.run, _hub_id(saved.config.model), None), encoding="utf-8")
    rounded = ", rounded to the types of the base" if types != ["float32"] else ""
    return (
        f"wrote {command.out}: a full checkpoint, {len(files)} file{'s'[: len(files) > 1]} of "
        f"{' and '.join(types)} weights{rounded}; load it as any Hugging Face model, or with --model {command.out}"
    )


def import_adapter(command: Import) -> str:
    """Writes the run directory; returns the line that says what was written."""
    check_new(command.run)
    settings, tensors, made_for = read_adapter(command.adapter)
    base = open_base(command.model)
    if made_for not in (None, base.fingerprint):
        raise InputError(
            f"{command.adapter} was made for another base (its hash is {truncate(made_for)}), not for {base.name} "
            f"({base.fingerprint}); give its own with --model"
        )
    try:
        adapter, params = from_peft(settings, tensors, base.config)
    except InputError as error:
        hint = "" if command.model else "; the base is the embedded default, --model names another"
        raise InputError(f"{command.adapter}: {error}{hint}") from None
    longest = min(RunConfig.max_length, base.config.max_positions)
    config = RunConfig(model=command.model, dtype=command.dtype, language=command.language, max_length=longest)
    config = config.with_adapter(adapter)
    save_run(command.run, config, base, params, command.language)
    if made_for is None:
        _note_of_base(settings, command.model, base)
    ask = f"python -m jaxprefix.generate {command.run} PROMPT"
    return (
        f"wrote {command.run}: method {config.method} from {settings['peft_type']}, on {base.name}; ask it with {ask}"
    )


def _saved(run: Path) -> TrainedRun:
    saved = load_run(run)
    if not saved.run_json["finished"]:
        print(f"the run is not finished: this is the adapter of step {saved.step} of {saved.run_json['steps']}")
    return saved


def _projection(base: BaseModel, name: str) -> Iterator[np.ndarray]:
    """The base's k_proj or v_proj, [K, H, D] a layer."""
    sizes = base.config
    with weights.opened(base.directory, sizes) as tensors:
        for layer in range(sizes.layers):
            tensor = tensors[f"model.layers.{layer}.{weights.MODULES[name]}{name}.weight"]
            yield tensor[:].reshape(sizes.kv_heads, sizes.head_size, sizes.hidden_size)


def _hub_id(model: str | None) -> str | None:
    """The hub id in `model`, without its revision; None for a directory."""
    return None if model is None or Path(model).expanduser().is_dir() else model.partition("@")[0]


def _names(model: str | None, base: BaseModel) -> tuple[str, str | None]:
    """base_model_name_or_path and revision, as transformers takes them."""
    if (hub_id := _hub_id(model)) is None:
        return str(base.directory.resolve()), None
    return hub_id, (model or "").partition("@")[2] or None


def _note_of_base(settings: Settings, model: str | None, base: BaseModel) -> None:
    named, own = settings.get("base_model_name_or_path"), _names(model, base)[0]
    if named and named != own and expanded(str(named)).absolute() != Path(own):
        print(
            f"note: the adapter names the base {truncate(str(named))}; "
            f"its shapes fit {base.name}, its numbers are for that base"
        )


def _bytes(text: str) -> int:
    """ "20KB" -> 20,000"""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(KB|MB|GB)", text.strip().upper())
    size = round(float(match[1]) * UNITS[match[2]]) if match else 0
    if size < 1:
        raise InputError(f"--shard-size is {text!r}; expected a size such as 5GB, 500MB or 20KB")
    return size


if __name__ == "__main__":
    terminal.run(main)
