"""python -m jaxprefix.peft export|import|push: converts adapters to and from PEFT's formats, and publishes them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from jaxprefix.distributed import mesh
from jaxprefix.errors import InputError
from jaxprefix.io import terminal
from jaxprefix.io.arguments import read_arguments
from jaxprefix.peft.exchange import SHARD_SIZE, export_adapter, export_merged, export_prompt_embeds, import_adapter
from jaxprefix.peft.push import push


@dataclass(frozen=True)
class Export:
    """Writes a run's adapter in PEFT's format, or the whole adapted model with --merge."""

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """The run directory that training printed."""
    out: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="OUT")]
    """A new directory."""
    merge: bool = False
    """Merge lora or full into the weights and write a full checkpoint in Hugging Face layout."""
    cartridge: bool = False
    """Write a prefix as PEFT's CARTRIDGE, not as PREFIX_TUNING."""
    prompt_embeds: bool = False
    """Write a soft prompt, the base's embedding and its tokenizer for clients of vLLM's prompt_embeds."""
    shard_size: str | None = None
    """The size of the largest file of a merged checkpoint, such as 2GB or 500MB; by default 5GB. No tensor is split."""


@dataclass(frozen=True)
class Import:
    """Makes a run from an adapter in PEFT's format. The run can be evaluated, prompted and exported."""

    adapter: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="PEFT_DIR")]
    """The directory that PEFT's save_pretrained wrote."""
    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="NEW_RUN")]
    """A new run directory."""
    model: str | None = None
    """The adapter's base: a directory or a hub id with an optional @revision. By default the embedded model."""
    language: str = "en"
    """The language that the adapter was trained in."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Dtype of the frozen weights; auto is bfloat16 on accelerators and float32 on CPU."""


@dataclass(frozen=True)
class Push:
    """Pushes a run's adapter in PEFT's format to the Hugging Face Hub, with a model card and its scores.

    Log in first with `hf auth login`, or set HF_TOKEN. All files are in one commit: a push that fails changes none of
    them, and the same command completes it.
    """

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """The run directory that training printed."""
    repository: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="ORG/NAME")]
    """The model repository. It is created, as a private one, if it does not exist."""
    public: bool = False
    """Let everyone see a new repository, and push to one that is public already."""


Command = (
    Annotated[Export, tyro.conf.subcommand("export", prefix_name=False)]
    | Annotated[Import, tyro.conf.subcommand("import", prefix_name=False)]
    | Annotated[Push, tyro.conf.subcommand("push", prefix_name=False)]
)


def main() -> None:
    command = read_arguments(Command, "python -m jaxprefix.peft")
    mesh.configure_platform(None, "cpu")  # the work is too small for an accelerator, and sums are exact on CPU
    if isinstance(command, Import):
        print(import_adapter(command.adapter, command.run, command.model, command.language, command.dtype))
    elif isinstance(command, Push):
        print(push(command.run, command.repository, command.public))
    else:
        print(_export(command))


def _export(command: Export) -> str:
    chosen = {"merge": command.merge, "cartridge": command.cartridge, "prompt-embeds": command.prompt_embeds}
    forms = [name for name, is_chosen in chosen.items() if is_chosen]
    if len(forms) > 1:
        raise InputError(f"--{forms[0]} and --{forms[1]} exclude each other; give one")
    if command.shard_size is not None and not command.merge:
        raise InputError(f"--shard-size {command.shard_size} is for --merge; an adapter is one small file")
    if command.merge:
        return export_merged(command.run, command.out, SHARD_SIZE if command.shard_size is None else command.shard_size)
    if command.prompt_embeds:
        return export_prompt_embeds(command.run, command.out)
    return export_adapter(command.run, command.out, command.cartridge)


if __name__ == "__main__":
    terminal.run(main)
