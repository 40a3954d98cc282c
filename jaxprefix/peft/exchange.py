"""Export of a run to PEFT's format or to a full checkpoint, and import of a PEFT adapter as a run."""

import re
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxprefix.errors import InputError
from jaxprefix.io.atomic import check_new, new_directory
from jaxprefix.io.hub import expanded
from jaxprefix.io.messages import shell, truncate
from jaxprefix.models import weights
from jaxprefix.models.adapters import LoRA, slots
from jaxprefix.models.parameters import weights_of
from jaxprefix.peft import lora, prompt_embeds
from jaxprefix.peft.card import card
from jaxprefix.peft.convert import from_peft, to_peft
from jaxprefix.peft.files import CARD, read_adapter, write_adapter
from jaxprefix.peft.merge import check_mergeable, merge
from jaxprefix.peft.settings import Settings
from jaxprefix.runs.base_model import BaseModel, open_base
from jaxprefix.runs.config import Dtype, RunConfig
from jaxprefix.runs.saved import TrainedRun, load_run, save_run

UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9}
SHARD_SIZE = "5GB"


def export_adapter(run: Path, out: Path, cartridge: bool = False, repository: str | None = None) -> str:
    """Writes the adapter of `run` into `out`, a new directory, and returns a line that describes it.

    Args:
        cartridge: write a prefix as CARTRIDGE, not as PREFIX_TUNING.
        repository: the repository on the Hub that the files are for. They have no path of this machine then.
    """
    check_new(out)
    saved = _load(run)
    base, hub_id = saved.base, _hub_id(saved.config.model, saved.base)
    adapter, project = saved.config.adapter, partial(_project, base)
    settings, tensors = to_peft(adapter, saved.params, base.config, project, cartridge)
    name, revision = _names(saved.config.model, base)
    settings |= {"base_model_name_or_path": hub_id if repository else name, "revision": revision}
    peft_type = settings["peft_type"]
    write_adapter(out, settings, tensors, base.fingerprint, card(saved, run, hub_id, peft_type, repository))
    if peft_type in ("PREFIX_TUNING", "CARTRIDGE") and base.config.window is not None:
        text_length = base.config.window - settings["num_virtual_tokens"]
        print(
            "note: PEFT counts the prefix as part of the base's sliding window, so its numbers differ beyond "
            f"{text_length} tokens"
        )
    if peft_type == "LORA" and (note := lora.export_note(saved.params)):
        print(f"note: {note}")
    return f"wrote {out}: {peft_type} on {name}; load it with peft.PeftModel.from_pretrained(base, {str(out)!r})"


def export_merged(run: Path, out: Path, shard_size: str = SHARD_SIZE) -> str:
    """Writes the adapted model as a full checkpoint into `out`, and returns a line that describes it.

    Args:
        shard_size: the size of the largest file of weights, such as "5GB".
    """
    num_bytes = _bytes(shard_size)
    check_new(out)
    saved = _load(run)
    check_mergeable(saved.config.adapter, saved.config.method)
    with new_directory(out) as directory:
        files, dtypes = merge(saved.config.adapter, saved.params, saved.base, directory, num_bytes)
        (directory / CARD).write_text(card(saved, run, _hub_id(saved.config.model, saved.base), None), encoding="utf-8")
    rounded = ", rounded to the types of the base" if dtypes != ["float32"] else ""
    return (
        f"wrote {out}: a full checkpoint, {len(files)} file{'s'[: len(files) > 1]} of "
        f"{' and '.join(dtypes)} weights{rounded}; load it like any Hugging Face model, or with --model {shell(out)}"
    )


def export_prompt_embeds(run: Path, out: Path) -> str:
    """Writes what a client of vLLM needs to send a soft prompt into `out`, and returns a line that describes it."""
    check_new(out)
    saved = _load(run)
    prompt_embeds.check(saved)
    name, _ = _names(saved.config.model, saved.base)
    with new_directory(out) as directory:
        prompt_embeds.write(saved, name, directory)
    return (
        f"wrote {out}: a soft prompt and the embedding of {name}; docs/vllm_client.py sends prompts with them to vLLM"
    )


def import_adapter(
    adapter: Path, run: Path, model: str | None = None, language: str = "en", dtype: Dtype = "auto"
) -> str:
    """Writes a run directory `run` with the PEFT adapter in the directory `adapter`, and returns a line about it.

    Args:
        model: the base of the adapter; None is the embedded default.
        language: the language in which the adapter was trained.
    """
    check_new(run)
    settings, tensors, fingerprint = read_adapter(adapter)
    base = open_base(model)
    if fingerprint not in (None, base.fingerprint):
        raise InputError(
            f"{adapter} was made for another base (its hash is {truncate(fingerprint)}), not for {base.name} "
            f"({base.fingerprint}); name its base with --model"
        )
    try:
        method, params = from_peft(settings, tensors, base.config)
    except InputError as error:
        hint = "" if model else "; the base is the embedded default, --model names another"
        raise InputError(f"{adapter}: {error}{hint}") from None
    max_length = min(RunConfig.max_length, base.config.max_positions)
    config = RunConfig(model=model, dtype=dtype, language=language, max_length=max_length).with_adapter(method)
    save_run(run, config, base, params, language)
    if isinstance(method, LoRA) and (note := lora.import_note(settings, tensors, base.config)):
        print(f"note: {note}")
    if fingerprint is None:
        note_other_base(settings, model, base)
    return (
        f"wrote {run}: method {config.method} from {settings['peft_type']}, on {base.name}; "
        f"try it with python -m jaxprefix.generate {shell(run)} PROMPT"
    )


def note_other_base(settings: Settings, model: str | None, base: BaseModel) -> None:
    """Prints a note if the adapter names another base than the one it is imported for."""
    named, name = settings.get("base_model_name_or_path"), _names(model, base)[0]
    if named and named != name and expanded(str(named)).absolute() != Path(name):
        print(
            f"note: the adapter names the base {truncate(str(named))}; its shapes fit {base.name}, "
            "but it was trained on the base that it names"
        )


def _load(run: Path) -> TrainedRun:
    saved = load_run(run)
    if not saved.run_json["finished"]:
        print(f"the run is not finished: this is the adapter of step {saved.step} of {saved.run_json['steps']}")
    return saved


def _project(base: BaseModel, hidden: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The keys and values [L, P, K, H] of vectors [L, P, D]. One layer of the base is in memory at a time."""
    config, results = base.config, []
    rows = [row for row in weights_of(config).values() if row.name in slots.KV_WEIGHTS]
    with weights.opened(base.directory, config) as tensors:
        for layer, vectors in enumerate(hidden):
            read = {row.name: tensors[row.keys(config)[layer]][:].astype(np.float32) for row in rows}
            layers = {row.name: jnp.asarray(read[row.name]).reshape(1, *row.shape(config)) for row in rows}
            scaled = slots.scaled(config, layers, jnp.asarray(vectors[None]))
            results.append(jax.device_get(slots.project_kv(config, layers, scaled)))
    keys, values = (np.concatenate(part) for part in zip(*results, strict=True))
    return keys, values


def _hub_id(model: str | None, base: BaseModel) -> str | None:
    """The hub id in `model`, without its revision; None for a directory."""
    return None if model is None or base.path else model.partition("@")[0]


def _names(model: str | None, base: BaseModel) -> tuple[str, str | None]:
    """base_model_name_or_path and revision, in the form that transformers takes."""
    if (hub_id := _hub_id(model, base)) is None:
        return str(base.directory.resolve()), None
    return hub_id, (model or "").partition("@")[2] or None


def _bytes(text: str) -> int:
    """The number of bytes in a size: "20KB" is 20,000."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(KB|MB|GB)", text.strip().upper())
    size = round(float(match[1]) * UNITS[match[2]]) if match else 0
    if size < 1:
        raise InputError(f"--shard-size is {text!r}; expected a size such as 5GB, 500MB or 20KB")
    return size
