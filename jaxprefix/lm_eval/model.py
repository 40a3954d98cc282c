"""The model class of lm-evaluation-harness, on our engine: log-likelihoods and generated answers of texts.

Tokenization, truncation and scoring follow the harness's own hf backend, so that figures are comparable.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from jaxprefix.errors import InputError
from jaxprefix.inference import engine
from jaxprefix.inference.batching import Request
from jaxprefix.inference.model import Model, open_frozen, open_model
from jaxprefix.io.terminal import progress
from jaxprefix.lm_eval.chat import Turn, render, template_of
from jaxprefix.lm_eval.settings import Settings, read_settings
from jaxprefix.lm_eval.sharing import fit, group_by_prompt
from jaxprefix.runs.base_model import parameter_counts

NO_LIMIT = 2**31 - 1  # a max_length, which open_model reduces to the positions of the model
logger = logging.getLogger(__name__)

# (text of the request if its answer may be cached, ids of the context, ids of the continuation)
Pair = tuple[tuple[str, str] | None, list[int], list[int]]


def open_adapted(directory: Path, mesh: str | None, batch: int, max_length: int = NO_LIMIT) -> Model:
    """The run's adapter on its base, for batches of `batch` rows with at most `max_length` tokens."""
    model, (run,) = open_model([directory], mesh, batch, max_length)
    if not run.run_json["finished"]:
        logger.warning("run %s is not finished: this is step %s of %s", directory, run.step, run.run_json["steps"])
    if model.chat:
        logger.warning("run %s was trained with the chat template; use --apply_chat_template", directory)
    return model


class JaxPrefixLM(TemplateLM):
    """Our model behind the harness's interface, also for `lm_eval.simple_evaluate(model=JaxPrefixLM(model), ...)`."""

    def __init__(self, model: Model, batch: int = 32) -> None:
        super().__init__()
        self.model, self.batch = model, batch
        self._tokenizer = model.base.tokenizer
        self._templated = False  # whether prompts use the chat template

    @classmethod
    def create_from_arg_obj(
        cls, arg_dict: dict[str, Any], additional_config: dict[str, Any] | None = None
    ) -> "JaxPrefixLM":
        """The constructor that the harness's command line calls.

        Args:
            arg_dict: the harness's --model_args, with the mesh.
            additional_config: has the batch size. Its device is ignored.
        """
        batch = int((additional_config or {})["batch_size"])
        options = arg_dict.get("mesh"), batch, arg_dict.get("max_length") or NO_LIMIT
        path = arg_dict.get("path")
        return cls(open_adapted(Path(path), *options) if path else open_frozen(arg_dict["model"], *options), batch)

    @property
    def eot_token_id(self) -> int:
        return self._tokenizer.eos[0]

    @property
    def prefix_token_id(self) -> int:
        """The context of a text without one: the BOS that the tokenizer declares, added or not, or the end token."""
        declared = dict(self._tokenizer.special_tokens).get("bos_token")
        index = None if declared is None else self._tokenizer.backend.id_of(declared)
        return self.eot_token_id if index is None else index

    @property
    def max_length(self) -> int:
        return self.model.max_length

    @property
    def tokenizer_name(self) -> str:
        """The key of this model in the harness's cache of prompts."""
        return f"{self.model.base.name.replace('/', '__')}-{self.model.base.fingerprint[:12]}"

    def get_model_info(self) -> dict[str, str | int]:
        """The description of the model in the results."""
        dtype = jax.tree.leaves(self.model.frozen)[0].dtype
        trainable, total = parameter_counts(self.model.base.config, self.model.adapter)
        info = {"model_num_parameters": total, "model_dtype": str(dtype), "model_sha": self.model.base.fingerprint}
        return info | {
            "adapter": str(self.model.adapter),
            "adapter_num_parameters": trainable,
            "max_length": self.max_length,
        }

    def tok_encode(self, string: str, add_special_tokens: bool | None = None) -> list[int]:  # type: ignore[override]
        """The ids of a text, with BOS exactly once even if the text spells it out; without BOS for False."""
        with_bos = add_special_tokens is not False
        if not self._templated:
            return self._tokenizer.prompt_ids(string) if with_bos else self._tokenizer.encode(string)
        ids = self._tokenizer.backend.encode_template(string)
        bos = self._tokenizer.bos
        return [bos, *ids] if with_bos and bos is not None and ids[:1] != [bos] else ids

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """The model's template if requested; InputError if it has none, or for a template's name."""
        if not chat_template:
            return None
        if isinstance(chat_template, str):
            raise InputError(f"--apply_chat_template {chat_template}: templates have no names here; use the flag alone")
        self._templated = True
        return template_of(self._tokenizer)

    def apply_chat_template(self, chat_history: list[Turn], add_generation_prompt: bool = True) -> str:
        """The text of a conversation."""
        self._templated = True
        return render(self._tokenizer, chat_history, add_generation_prompt)

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Scores continuations given as text, like `_loglikelihood_tokens`."""
        if any(not any(request.args) for request in requests):
            raise InputError("a request of the task has an empty context and an empty continuation; expected some text")
        return super().loglikelihood(requests, disable_tqdm)

    def _loglikelihood_tokens(  # type: ignore[override]
        self, requests: Sequence[Pair], disable_tqdm: bool = False
    ) -> list[tuple[float, bool]]:
        """(Σ log p of the continuation, whether greedy decoding gives it) of each request, in order."""
        pairs = [fit(context, continuation, self.max_length) for _, context, continuation in requests]
        self._warn_cut(sum(len(context) > len(pair[0]) for (_, context, _), pair in zip(requests, pairs, strict=True)))
        groups = group_by_prompt(pairs)
        answers: list[tuple[float, bool]] = [(0.0, False)] * len(requests)
        with progress(disable_tqdm) as bar:
            shown = bar.add_task("loglikelihood", total=len(requests), rate="requests")
            for batch in engine.score(self.model, [group.request for group in groups], self.batch):
                for number, scores in batch:
                    # Scores of the padded choices, which have no pairs, are dropped.
                    choices = zip(groups[number].pair_indices, scores.logprobs, scores.greedy, strict=False)
                    for index, answer in ((i, (total, greedy)) for indices, total, greedy in choices for i in indices):
                        answers[index] = answer
                        if (text := requests[index][0]) is not None:
                            self.cache_hook.add_partial("loglikelihood", text, answer)
                        bar.advance(shown)
        return answers

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Σ log p of each whole text, in disjoint windows, each with as much context as the model can read.

        The harness puts its prefix token before ids that may already begin with BOS, and scores that BOS too.
        """
        windows: list[Pair] = []
        ends: list[int] = []
        for request in requests:
            rolling = get_rolling_token_windows(
                self.tok_encode(request.args[0]), self.prefix_token_id, self.max_length, context_len=1
            )
            windows += [(None, *make_disjoint_window(window)) for window in rolling]
            ends.append(len(windows))
        scores = [total for total, _ in self._loglikelihood_tokens(windows, disable_tqdm)]
        totals = [sum(scores[start:end]) for start, end in zip([0, *ends], ends, strict=False)]
        for request, total in zip(requests, totals, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, total)
        return totals

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """The answer to each request, up to its first stop text, in order."""
        end = self._tokenizer.backend.token_of(self.eot_token_id)
        args: list[tuple[Any, ...]] = [request.args for request in requests]  # (context, generation_kwargs)
        by_settings: dict[Settings, list[int]] = {}
        for index, (_, kwargs) in enumerate(args):
            by_settings.setdefault(read_settings(kwargs, end), []).append(index)
        answers = [""] * len(requests)
        with progress(disable_tqdm) as bar:
            shown = bar.add_task("generate_until", total=len(requests), rate="requests")
            for settings, indices in by_settings.items():
                prompts = self._prompts([args[index][0] for index in indices], settings.max_new_tokens)
                batches = engine.generate(
                    self.model, prompts, self.batch, settings.max_new_tokens, settings.sampling, settings.stop
                )
                for number, text in (answer for batch in batches for answer in batch):
                    answers[indices[number]] = text
                    self.cache_hook.add_partial("generate_until", args[indices[number]], text)
                    bar.advance(shown)
        return answers

    def _prompts(self, contexts: Sequence[str], max_new_tokens: int) -> list[Request]:
        """The contexts, cut from the left so that the answer fits behind them."""
        max_prompt = self.max_length - max_new_tokens
        if max_prompt < 1:
            raise InputError(
                f"answers of {max_new_tokens} tokens leave no room for a prompt in {self.max_length}; "
                "use a smaller --gen_kwargs max_gen_toks=N or a larger --max-length"
            )
        prompts = [self.tok_encode(context) for context in contexts]
        self._warn_cut(sum(len(ids) > max_prompt for ids in prompts))
        return [Request(ids[-max_prompt:]) for ids in prompts]

    def _warn_cut(self, count: int) -> None:
        if count:
            logger.warning("%s contexts are cut from the left to fit %s tokens", f"{count:,}", f"{self.max_length:,}")
