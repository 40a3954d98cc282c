"""The interface for notebooks and scripts.

model = load_model("meta-llama/Llama-3.2-1B")
model.set_adapter(PrefixTuning(length=10))
model.train([("Say the colour of the sky.", "blue"), ...], epochs=2)
model.generate("Say the colour of the sky.")
model.evaluate("xquad", languages=["de", "hi"], limit=50)
model.save("runs/colours")
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from numbers import Integral
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args, overload

import jax
import jax.numpy as jnp
import numpy as np

from jaxprefix.distributed import mesh as meshes
from jaxprefix.errors import InputError
from jaxprefix.evaluation.evaluate import evaluate_model
from jaxprefix.evaluation.result import EvaluationResult
from jaxprefix.evaluation.settings import Evaluation
from jaxprefix.inference.answer import answers
from jaxprefix.inference.model import Model
from jaxprefix.io.messages import short_repr
from jaxprefix.models import adapter_init, sharding
from jaxprefix.models.adapters import Adapter, NoAdapter, add
from jaxprefix.models.hooks import Frozen, Params
from jaxprefix.models.layers import split, stack
from jaxprefix.models.sampling import GREEDY, Sampling
from jaxprefix.peft.exchange import export_adapter
from jaxprefix.peft.push import push
from jaxprefix.runs.base_model import init_token_ids, load_weights, max_text_tokens, open_base, trainable_line
from jaxprefix.runs.config import Dtype, RunConfig
from jaxprefix.runs.saved import load_run, save_run, stack_adapters
from jaxprefix.tasks.encoding import encode
from jaxprefix.tasks.user_rows import pair
from jaxprefix.train.batches import Plan, check_batch
from jaxprefix.train.metrics import StepMetrics
from jaxprefix.train.programs import TrainPrograms
from jaxprefix.train.trainer import Cadence, fit


def load_model(model: str | None = None, mesh: str | None = None, dtype: Dtype = "auto") -> "LanguageModel":
    """Loads a frozen model: a directory, a Hub id, or (None) the tiny model in the package.

    Args:
        model: as on the command line, such as "meta-llama/Llama-3.2-1B" or "models/my-llama".
        mesh: "DATAxMODEL", such as "4x2". None is all devices × 1.
        dtype: the dtype of the frozen weights: "auto" (bfloat16 on accelerators, float32 on CPU), "float32",
            "bfloat16" or "int8" (quantized projections, the rest as with "auto").

    Raises:
        InputError: the model, the mesh or the dtype cannot be used.
    """
    return LanguageModel(model, mesh, dtype)


class LanguageModel:
    """A frozen Llama or Mistral with at most one adapter: the last one that was set or loaded."""

    def __init__(self, model: str | None, mesh: str | None, dtype: Dtype) -> None:
        if dtype not in get_args(Dtype):
            raise InputError(f"dtype is {short_repr(dtype)}; expected auto, float32, bfloat16 or int8")
        self.base = open_base(model)
        self.mesh = meshes.make_mesh(mesh)
        self._frozen = load_weights(self.base, self.mesh, dtype)
        self.config = RunConfig(model=model, method="none", mesh=mesh, dtype=dtype)
        self.names: list[str] = []  # the names of several adapters that were loaded together
        self.source = "en"  # the language of the training data
        self._replace_adapter(NoAdapter(), {})

    @property
    def frozen(self) -> Frozen:
        """The weights, stacked over layers as training reads them. They are converted if a model answered before."""
        self._model = None  # it reads the other form, and only one form is kept
        self._convert_layers(stack)
        return self._frozen | {"layers": dict(self._frozen["layers"])}

    def _convert_layers(self, form: Callable[[Any], Any]) -> None:
        """Converts the weights of the layers in place to a form of layers.py, one at a time to save memory."""
        layers = self._frozen["layers"]
        shardings = sharding.param_shardings(self.mesh, {name: jax.eval_shape(form, layers[name]) for name in layers})
        if jax.tree.structure(shardings) == jax.tree.structure(layers):
            return
        for name in shardings:
            layers[name] = jax.jit(form, out_shardings=shardings[name])(layers.pop(name))

    def set_adapter(self, *adapters: Adapter, seed: int = 0, params: Params | None = None) -> None:
        """Replaces the adapter with a newly initialised one, or with the sum of several, and prints its size.

        Unsaved parameters are lost. `params` are used instead of initial ones, such as those of your own training loop.
        """
        adapter = add(*adapters)
        line = trainable_line(self.base.config, adapter)
        tokens = init_token_ids(self.base.tokenizer, seed)

        def init(frozen: Frozen) -> Params:
            return adapter_init.init_params(adapter, jax.random.key(seed), self.base.config, frozen, tokens)

        config = replace(self.config.with_adapter(adapter), seed=seed)
        config.check()
        like = adapter_init.abstract_params(adapter, self.base.config)
        shardings = sharding.param_shardings(self.mesh, like)
        if params is None:
            chosen = jax.jit(meshes.with_mesh(self.mesh, init), out_shardings=shardings)(self.frozen)
        else:
            _check_params(params, like)
            copies = jax.tree.map(lambda value, leaf: jnp.array(value, leaf.dtype), params, like)
            chosen = jax.device_put(copies, shardings)
        self.config, self.source = config, "en"
        self._replace_adapter(adapter, chosen)
        print(line)

    def train(
        self,
        rows: Iterable[tuple[str, str]],
        *,
        steps: int | None = None,
        epochs: float | None = None,
        batch: int = 16,
        lr: float | None = None,
        max_length: int = 512,
        quiet: bool = False,
    ) -> list[float]:
        """Trains the adapter on (prompt, response) pairs and returns the loss of every step.

        Args:
            rows: the pairs. The loss covers only the responses.
            steps: optimizer steps. Give `steps` or `epochs`; the default is 2 epochs.
            epochs: passes over the rows.
            batch: rows per step, or all rows if there are fewer.
            lr: the peak learning rate. None is the default of the method.
            max_length: the maximum number of tokens per row.
            quiet: show no progress.

        Raises:
            InputError: no adapter to train, no rows, rows that are not pairs or too long, or an impossible setting.
        """
        if isinstance(self.adapter, NoAdapter) or self.names:
            current = f"{len(self.names)} adapters" if self.names else "no adapter"
            raise InputError(f"the model has {current}; set one to train, such as model.set_adapter(PrefixTuning())")
        config = replace(self.config, steps=steps, epochs=epochs, batch=batch, lr=lr, max_length=max_length)
        config.check()
        check_batch(config, self.mesh)
        longest = max_text_tokens(self.base.config, self.adapter, max_length)
        if isinstance(rows, str) or not isinstance(rows, Iterable):
            raise InputError(f"rows are {short_repr(rows)}; expected a list of pairs (prompt, response)")
        encoded = [encode(self.base.tokenizer, pair(number, row), longest) for number, row in enumerate(rows)]
        if not encoded:
            raise InputError("there are no rows to train on; expected at least one pair (prompt, response)")
        fitting = [row for row in encoded if row]
        if len(fitting) < len(encoded):
            why = f"max_length {max_length}, and the model has {self.base.config.max_positions} positions"
            raise InputError(
                f"{len(encoded) - len(fitting)} of {len(encoded)} rows are longer than {longest} tokens ({why}); "
                "shorten them or leave them out"
            )
        losses = self._fit(config, Plan(config, fitting), quiet)
        self.config = config
        return losses

    def _fit(self, config: RunConfig, plan: Plan, quiet: bool) -> list[float]:
        tokenizer, rows = self.base.tokenizer, list[Mapping[str, float]]()
        tokens = init_token_ids(tokenizer, config.seed)
        programs = TrainPrograms(config, self.base.config, self.mesh, self.frozen, tokens, plan.steps)
        state, ended = fit(
            programs.init(self.frozen, self.params),
            plan.batches(0, tokenizer.pad),
            programs,
            self.frozen,
            StepMetrics(programs.learning_rate, config.on_nan, rows.append),
            Cadence(config.log_every, config.eval_every, config.save_every, plan.steps),
            quiet=quiet,
        )
        self._replace_adapter(self.adapter, state.params)  # an early end keeps the parameters
        if ended:
            raise ended
        return [row["loss"] for row in rows]

    @overload
    def generate(
        self,
        prompts: str,
        *,
        max_new_tokens: int = 64,
        batch: int = 8,
        adapters: str | None = None,
        sampling: Sampling = GREEDY,
        stop: Sequence[str] = (),
    ) -> str: ...

    @overload
    def generate(
        self,
        prompts: list[str],
        *,
        max_new_tokens: int = 64,
        batch: int = 8,
        adapters: str | Sequence[str] | None = None,
        sampling: Sampling = GREEDY,
        stop: Sequence[str] = (),
    ) -> list[str]: ...

    def generate(
        self,
        prompts: str | list[str],
        *,
        max_new_tokens: int = 64,
        batch: int = 8,
        adapters: str | Sequence[str] | None = None,
        sampling: Sampling = GREEDY,
        stop: Sequence[str] = (),
    ) -> str | list[str]:
        """Answers a prompt, or several in batches.

        Args:
            prompts: one prompt, or a list.
            max_new_tokens: the maximum length of an answer.
            batch: the number of prompts per batch.
            adapters: if several adapters were loaded together, the name of one, or a name for each prompt.
            sampling: such as Sampling(temperature=0.7, top_p=0.9, seed=1). The default is greedy.
            stop: texts that end an answer and are not part of it.

        Raises:
            InputError: a prompt that is not text or is too long, or an impossible setting.
        """
        if isinstance(prompts, str):
            settings: dict[str, Any] = {"max_new_tokens": max_new_tokens, "batch": batch, "adapters": adapters}
            return self.generate([prompts], **settings, sampling=sampling, stop=stop)[0]
        _check_texts("prompts", prompts, "a text or a list of texts")
        _check_texts("stop", stop, "a list of texts")
        if "" in stop:
            raise InputError(f"stop is {short_repr(stop)}; an empty text would end every answer, leave it out")
        _check_number("max_new_tokens", max_new_tokens)
        _check_number("batch", batch)
        if not isinstance(sampling, Sampling):
            raise InputError(f"sampling is {short_repr(sampling)}; expected one such as Sampling(temperature=0.7)")
        if not prompts:
            return []
        adapter_ids, batch = self._adapter_ids(adapters, len(prompts)), self._divisible(batch)
        return answers(self._inference_model(), prompts, adapter_ids, max_new_tokens, batch, sampling, stop)

    def evaluate(
        self,
        task: str | None = None,
        languages: str | Sequence[str] | None = None,
        *,
        limit: int | None = None,
        settings: Evaluation | None = None,
        quiet: bool = False,
    ) -> EvaluationResult:
        """Scores the model with its adapter, or the frozen model without one, in many languages.

        The result shows itself as tables in a notebook. Nothing is written: to keep the answers, `save` the adapter and
        evaluate its directory with `jaxprefix.evaluation.evaluate`.

        Args:
            task: a benchmark, or several, comma-separated. None is those of the task that the adapter was trained on.
            languages: codes, such as ["de", "hi"]. None is all languages of the task.
            limit: rows per language. None is all.
            settings: all other settings, such as Evaluation(shots=4, data="mirror").
            quiet: show no progress.

        Raises:
            InputError: an unknown task or language, or settings that cannot be used.
        """
        if self.names:
            raise InputError(f"the model has {len(self.names)} adapters; load the one to evaluate")
        settings = settings or Evaluation()
        for name in ("output", "mesh", "platform"):
            if (value := getattr(settings, name)) is not None:
                raise InputError(f"{name} is {value}, which a model in memory does not use; leave it out")
        if not isinstance(languages, str | None):
            _check_texts("languages", languages, "a text, such as 'de', or a list")
            languages = ",".join(languages)
        chosen = {"task": task, "languages": languages, "limit": limit}
        settings = replace(settings, **{name: value for name, value in chosen.items() if value is not None})
        settings.check()
        length = max_text_tokens(self.base.config, self.adapter, settings.max_length or self.config.max_length)
        settings = replace(settings, batch=self._divisible(settings.batch))
        model = replace(self._inference_model(), max_length=length)
        return evaluate_model(model, self.config, self.source, settings, quiet)

    def _divisible(self, batch: int) -> int:
        """The batch, or the next larger one that the mesh can divide among its devices."""
        data = self.mesh.shape["data"]
        return -(-batch // data) * data

    def save(self, directory: str | Path, language: str | None = None) -> None:
        """Saves the adapter as a run, which can be loaded, evaluated and exported. Nothing is overwritten.

        `language` is the language of the training data, for reports. None is that of the loaded run, or English.
        """
        self._run = self._save(Path(directory), language)

    def _save(self, directory: Path, language: str | None = None) -> Path:
        if isinstance(self.adapter, NoAdapter) or self.names:
            raise InputError(f"the model has {len(self.names) or 'no'} adapters; set or load the one to save")
        save_run(directory, self.config, self.base, self.params, language or self.source)
        return directory.absolute()

    def export_peft(self, directory: str | Path, language: str | None = None) -> None:
        """Writes the adapter in PEFT's format into a new directory, and prints how to load it there.

        `language` is the language of the training data, for the model card. None is as in `save`.
        """
        with TemporaryDirectory(prefix="jaxprefix-export-") as folder:
            print(export_adapter(self._save(Path(folder) / "run", language), Path(directory)))

    def push_to_hub(self, repository: str, public: bool = False) -> str:
        """Pushes the adapter to the Hugging Face Hub in PEFT's format, and returns a line with its address.

        A new repository is private unless `public`. The model card has the scores of an adapter that was saved or
        loaded and evaluated. The token is that of `hf auth login`, or HF_TOKEN.

        Args:
            repository: such as "my-name/my-adapter".

        Raises:
            InputError: PEFT has no type for the adapter, the repository is public and `public` is False, or the Hub
                refuses or cannot be reached. The same call completes an interrupted push.
        """
        with TemporaryDirectory(prefix="jaxprefix-push-") as folder:
            return push(self._run or self._save(Path(folder) / "run"), repository, public)

    def load(self, *directories: str | Path) -> None:
        """Replaces the adapter with that of a run, or with those of several runs of the same method.

        The names of the directories select between several (see `generate`).
        """
        if not directories:
            raise InputError("nothing to load; expected the directory of a run")
        names = [Path(directory).name for directory in directories]
        if len(set(names)) < len(names):
            raise InputError(f"adapters need different directory names, given {', '.join(names)}")
        runs = [load_run(Path(directory), self.mesh, self.base) for directory in directories]
        adapter, params = stack_adapters(runs, self._frozen)
        self.base = runs[0].base  # with the date of its chat template
        self.config = replace(runs[0].config, mesh=self.config.mesh, dtype=self.config.dtype)
        self.source = runs[0].run_json["source"]
        self._replace_adapter(adapter, params, names if len(names) > 1 else [])
        self._run = Path(directories[0]).absolute() if len(names) == 1 else None

    def __str__(self) -> str:
        return f"{self.base.name} with {self.adapter}, {trainable_line(self.base.config, self.adapter)}"

    def _replace_adapter(self, adapter: Adapter, params: Params, names: Sequence[str] = ()) -> None:
        self.adapter, self.params, self.names = adapter, params, list(names)
        self._run: Path | None = None  # the directory of the run with this adapter
        self._model: Model | None = None

    def _inference_model(self) -> Model:
        if self._model is None:
            self._convert_layers(split)
            longest = max_text_tokens(self.base.config, self.adapter, self.base.config.max_positions)
            several, options = bool(self.names), (self.mesh, longest, self.config.chat)
            self._model = Model(self.base, self.adapter, self.params, self._frozen, *options, multi_adapter=several)
        return self._model

    def _adapter_ids(self, adapters: str | Sequence[str] | None, count: int) -> list[int]:
        if not self.names and adapters is None:
            return [0] * count
        names = [adapters] * count if isinstance(adapters, str) else adapters
        if isinstance(names, list | tuple) and len(names) == count and all(name in self.names for name in names):
            return [self.names.index(name) for name in names]
        known = ", ".join(self.names) or "none: load several runs together"
        raise InputError(f"adapters={short_repr(adapters)} for {count} prompts; expected one per prompt, of {known}")


def _check_params(params: Params, like: Params) -> None:
    actual, expected = (
        {jax.tree_util.keystr(path): np.shape(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
        for tree in (params, like)
    )
    for name in sorted(actual.keys() | expected):
        if actual.get(name) != expected.get(name):
            raise InputError(f"params{name} has the shape {actual.get(name)}; expected {expected.get(name)}")


def _check_texts(name: str, value: object, expected: str) -> None:
    if not isinstance(value, list | tuple):
        raise InputError(f"{name} is {short_repr(value)}; expected {expected}")
    for index, text in enumerate(value):
        if not isinstance(text, str):
            raise InputError(f"{name}[{index}] is {short_repr(text)}; expected a text")


def _check_number(name: str, value: object) -> None:
    if not isinstance(value, Integral) or value < 1:
        raise InputError(f"{name} is {short_repr(value)}; expected a whole number of at least 1")
