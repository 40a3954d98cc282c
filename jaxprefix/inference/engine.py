"""Token rows in, what the model says of them out: choices scored over a shared prompt, or answers generated."""

import hashlib
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import jax
import numpy as np

from jaxprefix.inference.batching import Bucket, Request, plan_buckets
from jaxprefix.inference.model import Model
from jaxprefix.models.decode import PrefillBatch
from jaxprefix.models.decoder import Batch
from jaxprefix.models.hooks import NEVER
from jaxprefix.models.sampling import GREEDY, Sampling

PREFILL_SHARE = (
    8  # an eighth of the batch enters at a time: a larger share waits longer, a smaller one is prefilled slowly
)
STEPS_BETWEEN_STOPS = 8  # tokens between two looks at the text for what ends it
STEPS_OF_A_PIECE = 2  # tokens that a person waits for
SHORTEST_STREAM = 64  # tokens that a person's prompts are padded to, and powers of two above


@dataclass(frozen=True)
class Scores:
    """Of each choice: Σ log p of its tokens, and whether each of them is the likeliest at its place."""

    logprobs: list[float]
    greedy: list[bool]


def score(
    model: Model, requests: Sequence[Request], batch_size: int, buckets: Sequence[Bucket] | None = None
) -> Iterator[list[tuple[int, Scores]]]:
    """(place in `asked`, scores of its choices), a batch of at most `size` at a time.

    `parts` are those of `plan(asked, size)` that are wanted; None is all.
    """
    for part in plan_buckets(requests, batch_size) if buckets is None else buckets:
        rows = [requests[place] for place in part.indices]
        tokens = np.full((part.choices, batch_size, part.choice_len), model.base.tokenizer.pad, np.int32)
        lengths = np.zeros((part.choices, batch_size), np.int32)
        for row, each in enumerate(rows):
            for choice, ids in enumerate(each.choices):
                tokens[choice, row, : len(ids)], lengths[choice, row] = ids, len(ids)
        candidates = model.shard(tokens, 1), model.shard(lengths, 1)
        batch, chosen = _prompts(model, rows, part.prompt_len, batch_size), _adapters(model, rows, batch_size)
        logprobs, greedy = jax.device_get(model.score_choices(model.params, model.frozen, batch, chosen, *candidates))
        found = [Scores(sums.tolist(), best.tolist()) for sums, best in zip(logprobs.T, greedy.T, strict=True)]
        yield list(zip(part.indices, found, strict=False))


def _prompts(model: Model, rows: Sequence[Request], time: int, size: int) -> Batch:
    """Right-padded to `[size, time]`; a row without a prompt repeats the first one."""
    tokens = np.full((size, time), model.base.tokenizer.pad, np.int32)
    positions = np.full((size, time), NEVER, np.int32)
    for row in range(size):
        ids = rows[row if row < len(rows) else 0].prompt
        tokens[row, : len(ids)], positions[row, : len(ids)] = ids, np.arange(len(ids))
    return Batch(model.shard(tokens), model.shard(positions), right_padded=True)


def _adapters(model: Model, rows: Sequence[Request], size: int) -> jax.Array | None:
    """Which adapter each row of a batch takes; None where there is one for all."""
    chosen = [each.adapter for each in rows] + [rows[0].adapter] * (size - len(rows))
    return model.shard(np.array(chosen, np.int32)) if model.multi_adapter else None


def generate(
    model: Model,
    requests: Sequence[Request],
    batch_size: int,
    max_new_tokens: int,
    sampling: Sampling = GREEDY,
    stop: Sequence[str] = (),
    buckets: Sequence[Bucket] | None = None,
) -> Iterator[list[tuple[int, str]]]:
    """(place in `asked`, its answer of at most `longest` tokens), as answers end, `size` rows at a time.

    An answer ends before an end token or the first of the texts `stop`, which may straddle tokens. Drawn answers depend
    on the prompt, on how often it was asked before, and on the seed alone.
    """
    seeds = _seeds(requests, sampling.seed)
    steps = min(STEPS_BETWEEN_STOPS, max_new_tokens) if stop else max_new_tokens
    for part in plan_buckets(requests, batch_size) if buckets is None else buckets:
        rows = _Rows(model, requests, seeds, part, batch_size, max_new_tokens)
        for texts in rows.steps(sampling, stop, steps):
            if ended := [(place, text) for place, text, done in texts if done]:
                yield ended


def stream(
    model: Model, request: Request, max_new_tokens: int, sampling: Sampling, stop: Sequence[str] = ()
) -> Iterator[str]:
    """The answer to one prompt in pieces, as it is written; prompts of about the same length share what is compiled."""
    time = max(SHORTEST_STREAM, 1 << (len(request.prompt) - 1).bit_length())
    size, seeds = model.mesh.shape["data"], _seeds([request], sampling.seed)
    rows = _Rows(model, [request], seeds, Bucket((0,), time), size, max_new_tokens)
    held = max(map(len, stop), default=1) - 1  # characters that may yet be the beginning of what ends the answer
    shown = 0
    for texts in rows.steps(sampling, stop, min(STEPS_OF_A_PIECE, max_new_tokens)):
        for _, text, done in texts:
            # Half a character, of which the other half is still to come, is decoded as U+FFFD.
            ready = text if done else text.rstrip("\ufffd")
            upto = len(ready) if done else len(ready) - held
            if upto > shown:
                yield ready[shown:upto]
                shown = upto


def _seeds(asked: Sequence[Request], seed: int) -> list[int]:
    before: Counter[tuple[int, ...]] = Counter()
    found = []
    for each in asked:
        key = (each.adapter, *each.prompt)
        text = f"{seed} {before[key]} {each.prompt}"
        found.append(int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big"))
        before[key] += 1
    return found


class _Rows:
    """A part's rows on their way through a batch that is kept full."""

    def __init__(
        self, model: Model, asked: Sequence[Request], seeds: Sequence[int], part: Bucket, size: int, longest: int
    ) -> None:
        self.model, self.asked, self.seeds, self.part = model, asked, seeds, part
        self.size, self.longest = size, longest
        devices = model.mesh.shape["data"]
        self.entering = -(-size // (PREFILL_SHARE * devices)) * devices  # prompts that enter at a time
        self.waiting = deque(part.indices)
        self.held: list[int | None] = [None] * size  # what each row answers

    def steps(self, sampling: Sampling, stop: Sequence[str], steps: int) -> Iterator[list[tuple[int, str, bool]]]:
        """(place, text so far, whether it has ended) of the rows, every `steps` tokens or as rows end."""
        model, state = self.model, None
        stopped = np.zeros(self.size, bool)
        while self.waiting or any(place is not None for place in self.held):
            prompts, entering = self._enter()
            if state is None:
                state = model.init_state(model.params, model.frozen, prompts, entering, self.longest)
            filling = bool(self.waiting) and None in self.held  # the next tokens are not worth their time yet
            few = self.size - self.entering if self.waiting else 0
            chosen = _adapters(model, [self.asked[place or 0] for place in self.held], self.size)
            state = model.step(
                *(model.params, model.frozen, state, prompts, entering, chosen, sampling),
                *(model.shard(stopped), np.int32(few), np.int32(0 if filling else steps)),
            )
            texts, stopped = self._texts(*jax.device_get((state.tokens, state.counts, state.done)), stop)
            yield texts

    def _enter(self) -> tuple[PrefillBatch, jax.Array | None]:
        """The next prompts for the free rows, and their adapters."""
        free = [row for row, place in enumerate(self.held) if place is None]
        source, entering = np.full(self.size, -1, np.int32), []
        for row in free[: min(self.entering, len(self.waiting))]:
            self.held[row] = place = self.waiting.popleft()
            source[row] = len(entering)
            entering.append(place)
        rows = [self.asked[place] for place in entering or self.part.indices[:1]]
        seeds = np.zeros(self.entering, np.uint32)
        seeds[: len(entering)] = [self.seeds[place] for place in entering]
        batch = _prompts(self.model, rows, self.part.prompt_len, self.entering)
        prompts = PrefillBatch(batch, self.model.shard(seeds), self.model.shard(source))
        return prompts, _adapters(self.model, rows, self.entering)

    def _texts(
        self, tokens: np.ndarray, counts: np.ndarray, done: np.ndarray, stop: Sequence[str]
    ) -> tuple[list[tuple[int, str, bool]], np.ndarray]:
        """What the rows say, and which of them `stop` has ended; rows whose answers have ended become free."""
        texts, stopped = [], np.zeros(self.size, bool)
        for row, place in enumerate(self.held):
            if place is None:
                continue
            text = self.model.base.tokenizer.decode(tokens[row, : counts[row]].tolist())
            cut = min((text.find(end) for end in stop if end in text), default=None)
            ended = bool(done[row]) or cut is not None
            texts.append((place, text[:cut], ended))
            if ended:
                self.held[row], stopped[row] = None, True
        return texts, stopped
