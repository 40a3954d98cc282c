"""The model class that lm-evaluation-harness asks: its text in, our engine's likelihoods and answers out.

The order of the tokens, what is cut and what is scored follow the harness's own hf backend, so that figures compare.
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
from jaxprefix.lm_eval.sharing import fit, share
from jaxprefix.runs.base_model import parameter_counts

LONGEST = 2**31 - 1  # tokens: cut to what the model has positions for
logger = logging.getLogger(__name__)

# The text of the request where its answer may be cached, the context's ids and the continuation's.
Pair = tuple[tuple[str, str] | None, list[int], list[int]]


def open_adapted(directory: Path, mesh: str | None, batch: int, max_length: int = LONGEST) -> Model:
    """The run's adapter on its base, for `batch` rows of at most `max_length` tokens at a time."""
    model, (run,) = open_model([directory], mesh, batch, max_length)
    if not run.run_json["finished"]:
        logger.warning("run %s is not finished: this is step %s of %s", directory, run.step, run.run_json["steps"])
    if model.chat:
        logger.warning("run %s was trained in the chat template: --apply_chat_template asks in it", directory)
    return model


class JaxPrefixLM(TemplateLM):
    """An opened model as the harness sees it; also for `lm_eval.simple_evaluate(model=JaxPrefixLM(model), ...)`."""

    def __init__(self, model: Model, batch: int = 32) -> None:
        """`batch` rows are run at a time."""
        super().__init__()
        self.model, self.batch = model, batch
        self._tokenizer = model.base.tokenizer
        self._templated = False  # whether prompts come in the chat template

    @classmethod
    def create_from_arg_obj(
        cls, arg_dict: dict[str, Any], additional_config: dict[str, Any] | None = None
    ) -> "JaxPrefixLM":
        """What the harness's command line calls: `arg_dict` is its --model_args, of which `additional_config` has the
        batch size; the device in it is not ours, a mesh is.
        """
        batch = int((additional_config or {})["batch_size"])
        own = arg_dict.get("mesh"), batch, arg_dict.get("max_length") or LONGEST
        path = arg_dict.get("path")
        return cls(open_adapted(Path(path), *own) if path else open_frozen(arg_dict["model"], *own), batch)

    @property
    def eot_token_id(self) -> int:
        return self._tokenizer.eos[0]

    @property
    def prefix_token_id(self) -> int:
        """What stands before a text without a context: BOS, or the end token where the model has no BOS."""
        return self.eot_token_id if self._tokenizer.bos is None else self._tokenizer.bos

    @property
    def max_length(self) -> int:
        return self.model.max_length

    @property
    def tokenizer_name(self) -> str:
        """Tells cached prompts of one model from those of another."""
        return f"{self.model.base.name.replace('/', '__')}-{self.model.base.fingerprint[:12]}"

    def get_model_info(self) -> dict[str, Any]:
        """What the results say of the model."""
        dtype = jax.tree.leaves(self.model.frozen)[0].dtype
        own, total = parameter_counts(self.model.base.config, self.model.adapter)
        info = {"model_num_parameters": total, "model_dtype": str(dtype), "model_sha": self.model.base.fingerprint}
        return info | {"adapter": str(self.model.adapter), "adapter_num_parameters": own, "max_length": self.max_length}

    def tok_encode(self, string: str, add_special_tokens: bool | None = None) -> list[int]:  # type: ignore[override]
        """The ids of a text: with BOS exactly once, also where the text is written with it; without for False."""
        start = add_special_tokens is not False
        if not self._templated:
            return self._tokenizer.prompt_ids(string) if start else self._tokenizer.encode(string)
        ids = self._tokenizer.backend.encode_template(string)
        bos = self._tokenizer.bos
        return [bos, *ids] if start and bos is not None and ids[:1] != [bos] else ids

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """The model's template where one is asked for; InputError where there is none, or none of that name."""
        if not chat_template:
            return None
        if isinstance(chat_template, str):
            raise InputError(
                f"--apply_chat_template {chat_template}: templates have no names here; give the flag alone"
            )
        self._templated = True
        return template_of(self._tokenizer)

    def apply_chat_template(self, chat_history: list[Turn], add_generation_prompt: bool = True) -> str:
        """The text of a conversation."""
        self._templated = True
        return render(self._tokenizer, chat_history, add_generation_prompt)

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """As `_loglikelihood_tokens`, of texts."""
        if any(not any(request.args) for request in requests):
            raise InputError("a continuation of the task, and what stands before it, is empty; expected some text")
        return super().loglikelihood(requests, disable_tqdm)

    def _loglikelihood_tokens(  # type: ignore[override]
        self, requests: Sequence[Pair], disable_tqdm: bool = False
    ) -> list[tuple[float, bool]]:
        """(Σ log p of the continuation, whether it is the likeliest, token by token) of each request, in order."""
        pairs = [fit(context, continuation, self.max_length) for _, context, continuation in requests]
        self._tell_cut(sum(len(context) > len(pair[0]) for (_, context, _), pair in zip(requests, pairs, strict=True)))
        shared = share(pairs)
        found: list[tuple[float, bool]] = [(0.0, False)] * len(requests)
        with progress(disable_tqdm) as bar:
            shown = bar.add_task("loglikelihood", total=len(requests), rate="requests")
            for part in engine.score(self.model, [each.asked for each in shared], self.batch):
                for number, scores in part:
                    each = zip(shared[number].places, scores.logprobs, scores.greedy, strict=False)
                    for place, answer in ((place, (total, best)) for places, total, best in each for place in places):
                        found[place] = answer
                        if (text := requests[place][0]) is not None:
                            self.cache_hook.add_partial("loglikelihood", text, answer)
                        bar.advance(shown)
        return found

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Σ log p of each whole text, in windows of the model's length, each with as much before it as fits.

        The harness puts its prefix token before ids that may begin with BOS already, and scores that one too.
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
        found = [sum(scores[start:end]) for start, end in zip([0, *ends], ends, strict=False)]
        for request, total in zip(requests, found, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, total)
        return found

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """The answer to each request, up to the first of its stop texts, in order."""
        end = self._tokenizer.backend.token_of(self.eot_token_id)
        given: list[tuple[Any, ...]] = [request.args for request in requests]  # context and generation_kwargs
        alike: dict[Settings, list[int]] = {}
        for place, (_, settings) in enumerate(given):
            alike.setdefault(read_settings(settings, end), []).append(place)
        found = [""] * len(requests)
        with progress(disable_tqdm) as bar:
            shown = bar.add_task("generate_until", total=len(requests), rate="requests")
            for settings, places in alike.items():
                asked = self._prompts([given[place][0] for place in places], settings.longest)
                parts = engine.generate(
                    self.model, asked, self.batch, settings.longest, settings.sampling, settings.stop
                )
                for number, text in (answer for part in parts for answer in part):
                    found[places[number]] = text
                    self.cache_hook.add_partial("generate_until", given[places[number]], text)
                    bar.advance(shown)
        return found

    def _prompts(self, contexts: Sequence[str], longest: int) -> list[Request]:
        """Their ends, as far as an answer of `longest` tokens leaves room."""
        room = self.max_length - longest
        if room < 1:
            raise InputError(
                f"answers of {longest} tokens leave no room for a prompt in {self.max_length}; "
                "choose a smaller --gen_kwargs max_gen_toks=N or a larger --max-length"
            )
        whole = [self.tok_encode(context) for context in contexts]
        self._tell_cut(sum(len(ids) > room for ids in whole))
        return [Request(ids[-room:]) for ids in whole]

    def _tell_cut(self, count: int) -> None:
        if count:
            logger.warning("%s contexts are cut from the left to fit %s tokens", f"{count:,}", f"{self.max_length:,}")
