"""Scores of choices after a shared prompt, and generated answers, for requests of token ids."""

import hashlib
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import jax
import numpy as np

from jaxprefix.distributed import processes
from jaxprefix.inference.batching import Bucket, CacheKey, Request, plan_buckets
from jaxprefix.inference.model import Model
from jaxprefix.models.decode import PrefillBatch, SharedPrompt
from jaxprefix.models.decoder import Batch
from jaxprefix.models.hooks import Cache
from jaxprefix.models.sampling import GREEDY, Sampling

PREFILL_SHARE = 8  # an eighth of the batch is prefilled at a time: a larger share waits longer, a smaller one is slow
STEPS_BETWEEN_STOPS = 8  # tokens between two searches of the text for a stop
STEPS_PER_PIECE = 2  # tokens between two pieces of a stream
MIN_STREAM_LEN = 64  # tokens; a streamed prompt is padded to this, or to a larger power of two


@dataclass(frozen=True)
class Scores:
    """For each choice: Σ log p of its tokens, and whether it is the greedy answer."""

    logprobs: list[float]
    greedy: list[bool]


def score(
    model: Model, requests: Sequence[Request], batch_size: int, buckets: Sequence[Bucket] | None = None
) -> Iterator[list[tuple[int, Scores]]]:
    """(index of a request, scores of its choices), for at most `batch_size` requests at a time.

    `buckets` selects some of `plan_buckets(requests, batch_size)`; None is all.
    """
    shared_prompts = _SharedPrompts(model)
    _, params = model.inference_form
    for bucket in plan_buckets(requests, batch_size) if buckets is None else buckets:
        rows = [requests[index] for index in bucket.indices]
        tokens = np.full((batch_size, bucket.choices_len), model.base.tokenizer.pad, np.int32)
        lengths = np.zeros((batch_size, bucket.choices), np.int32)
        for row, request in enumerate(rows):
            tokens[row, : request.choices_len] = list(chain.from_iterable(request.choices))
            lengths[row] = list(map(len, request.choices))
        choices = model.shard(tokens), model.shard(lengths)
        batch = prompt_batch(model, rows, bucket.prompt_len, batch_size)
        adapters = _adapter_ids(model, rows, batch_size)
        shared = shared_prompts.of(rows, bucket.shared_len, batch_size)
        logprobs, greedy = processes.fetch(
            model.programs.score_choices(params, model.frozen, batch, adapters, *choices, shared)
        )
        scores = [Scores(sums.tolist(), best.tolist()) for sums, best in zip(logprobs, greedy, strict=True)]
        yield list(zip(bucket.indices, scores, strict=False))


def prompt_batch(model: Model, rows: Sequence[Request], time: int, size: int) -> Batch:
    """The rests of the prompts, right-padded to `[size, time]`. Rows without a prompt repeat the first one."""
    tokens = np.full((size, time), model.base.tokenizer.pad, np.int32)
    lengths = np.zeros(size, np.int32)
    for row in range(size):
        ids = rows[row if row < len(rows) else 0].rest
        tokens[row, : len(ids)], lengths[row] = ids, len(ids)
    return Batch.right_padded(model.shard(tokens), model.shard(lengths))


def _adapter_ids(model: Model, rows: Sequence[Request], size: int) -> jax.Array | None:
    """The adapter of each row of a batch; None if the model has only one."""
    adapters = [request.adapter for request in rows] + [rows[0].adapter] * (size - len(rows))
    return model.shard(np.array(adapters, np.int32)) if model.multi_adapter else None


class _SharedPrompts:
    """Computes the caches of shared prompts, and keeps the last one: buckets with the same follow each other."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.key: CacheKey | None = None
        self.cache: tuple[Cache, ...] = ()

    def of(self, rows: Sequence[Request], length: int, size: int) -> SharedPrompt | None:
        """The shared prompt of the rows, padded to `length` ids, for a batch of `size`; None if they have none."""
        if not length:
            return None
        if rows[0].cache_key != self.key:
            self.key, self.cache = rows[0].cache_key, self._computed(rows[0], length)
        lengths = np.full(size, rows[0].shared, np.int32)
        lengths[: len(rows)] = [request.shared for request in rows]
        return SharedPrompt(self.cache, self.model.shard(lengths))

    def _computed(self, request: Request, length: int) -> tuple[Cache, ...]:
        model, devices = self.model, self.model.mesh.shape["data"]  # one row per device: a row cannot be divided
        prompt = [Request(list(request.shared_prompt), adapter=request.adapter)]
        batch, adapters = prompt_batch(model, prompt, length, devices), _adapter_ids(model, prompt, devices)
        return model.programs.prefill_shared(model.inference_form[1], model.frozen, batch, adapters)


def generate(
    model: Model,
    requests: Sequence[Request],
    batch_size: int,
    max_new_tokens: int,
    sampling: Sampling = GREEDY,
    stop: Sequence[str] = (),
    buckets: Sequence[Bucket] | None = None,
) -> Iterator[list[tuple[int, str]]]:
    """(index of a request, its answer of at most `max_new_tokens` tokens), as answers end, `batch_size` rows at a time.

    An answer ends before an end token or the first occurrence of a text in `stop`, which may straddle tokens. A sampled
    answer depends only on the adapter, the prompt, the number of earlier requests that equal it in both, and the seed.
    """
    seeds = _seeds(requests, sampling.seed)
    steps = min(STEPS_BETWEEN_STOPS, max_new_tokens) if stop else max_new_tokens
    shared_prompts = _SharedPrompts(model)
    for bucket in plan_buckets(requests, batch_size) if buckets is None else buckets:
        batch = _DecodeBatch(shared_prompts, requests, seeds, bucket, batch_size, max_new_tokens)
        for texts in batch.steps(sampling, stop, steps):
            if finished := [(index, text) for index, text, done in texts if done]:
                yield finished


def stream(
    model: Model, request: Request, max_new_tokens: int, sampling: Sampling, stop: Sequence[str] = ()
) -> Iterator[str]:
    """The answer to one prompt in pieces. Prompts of similar length use the same compiled programs."""
    time = max(MIN_STREAM_LEN, 1 << (len(request.prompt) - 1).bit_length())
    size, seeds = model.mesh.shape["data"], _seeds([request], sampling.seed)
    batch = _DecodeBatch(_SharedPrompts(model), [request], seeds, Bucket((0,), time), size, max_new_tokens)
    withheld = max(map(len, stop), default=1) - 1  # last characters, which may be the beginning of a stop
    shown = 0
    for texts in batch.steps(sampling, stop, min(STEPS_PER_PIECE, max_new_tokens)):
        for _, text, done in texts:
            # An incomplete character is decoded as U+FFFD until its other bytes arrive.
            complete = text if done else text.rstrip("\ufffd")
            end = len(complete) if done else len(complete) - withheld
            if end > shown:
                yield complete[shown:end]
                shown = end


def _seeds(requests: Sequence[Request], seed: int) -> list[int]:
    """A seed for each request, from `seed`, its prompt, and the number of earlier requests that equal it."""
    earlier: Counter[tuple[int, ...]] = Counter()
    seeds = []
    for request in requests:
        key = (request.adapter, *request.prompt)
        text = f"{seed} {earlier[key]} {request.prompt}"
        seeds.append(int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big"))
        earlier[key] += 1
    return seeds


class _DecodeBatch:
    """A batch that generates the answers of a bucket. When an answer ends, its row takes the next request."""

    def __init__(
        self,
        shared_prompts: _SharedPrompts,
        requests: Sequence[Request],
        seeds: Sequence[int],
        bucket: Bucket,
        size: int,
        max_new_tokens: int,
    ) -> None:
        self.model, self.shared_prompts = shared_prompts.model, shared_prompts
        self.requests, self.seeds, self.bucket = requests, seeds, bucket
        self.size, self.max_new_tokens = size, max_new_tokens
        devices = self.model.mesh.shape["data"]
        self.prefill_size = -(-size // (PREFILL_SHARE * devices)) * devices  # prompts that enter at a time
        self.waiting = deque(bucket.indices)
        self.active: list[int | None] = [None] * size  # the index of the request in each row

    def steps(self, sampling: Sampling, stop: Sequence[str], steps: int) -> Iterator[list[tuple[int, str, bool]]]:
        """(index of a request, its text so far, whether it has ended), every `steps` tokens or when rows end."""
        model, state = self.model, None
        _, params = model.inference_form
        stopped = np.zeros(self.size, bool)
        while self.waiting or any(index is not None for index in self.active):
            prompts, prompt_adapters = self._next_prompts()
            if state is None:
                state = model.programs.init_state(params, model.frozen, prompts, prompt_adapters, self.max_new_tokens)
            filling = bool(self.waiting) and None in self.active  # fill the free rows before the next tokens
            min_active = self.size - self.prefill_size if self.waiting else 0
            row_adapters = _adapter_ids(model, [self.requests[index or 0] for index in self.active], self.size)
            state = model.programs.step(
                *(params, model.frozen, state, prompts, prompt_adapters, row_adapters, sampling),
                *(model.shard(stopped), np.int32(min_active), np.int32(0 if filling else steps)),
            )
            texts, stopped = self._read_texts(*processes.fetch((state.tokens, state.counts, state.done)), stop)
            yield texts

    def _next_prompts(self) -> tuple[PrefillBatch, jax.Array | None]:
        """The next prompts for the free rows, and their adapters."""
        free = [row for row, index in enumerate(self.active) if index is None]
        source, entering = np.full(self.size, -1, np.int32), []
        for row in free[: min(self.prefill_size, len(self.waiting))]:
            self.active[row] = index = self.waiting.popleft()
            source[row] = len(entering)
            entering.append(index)
        rows = [self.requests[index] for index in entering or self.bucket.indices[:1]]
        seeds = np.zeros(self.prefill_size, np.uint32)
        seeds[: len(entering)] = [self.seeds[index] for index in entering]
        batch = prompt_batch(self.model, rows, self.bucket.prompt_len, self.prefill_size)
        shared = self.shared_prompts.of(rows, self.bucket.shared_len, self.prefill_size)
        prompts = PrefillBatch(batch, self.model.shard(seeds), self.model.shard(source), shared)
        return prompts, _adapter_ids(self.model, rows, self.prefill_size)

    def _read_texts(
        self, tokens: np.ndarray, counts: np.ndarray, done: np.ndarray, stop: Sequence[str]
    ) -> tuple[list[tuple[int, str, bool]], np.ndarray]:
        """The texts of the active rows, and which rows have ended. Rows that have ended become free."""
        texts, ended_rows = [], np.zeros(self.size, bool)
        for row, index in enumerate(self.active):
            if index is None:
                continue
            text = self.model.base.tokenizer.decode(tokens[row, : counts[row]].tolist())
            cut = min((text.find(end) for end in stop if end in text), default=None)
            ended = bool(done[row]) or cut is not None
            texts.append((index, text[:cut], ended))
            if ended:
                self.active[row], ended_rows[row] = None, True
        return texts, ended_rows
