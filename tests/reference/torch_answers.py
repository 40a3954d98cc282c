"""What a torch model says after prompts: greedy answers and likelihoods of choices, prompts of one length at a time.

Nothing is padded on this side: whatever ours does about padding is ours alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile
from typing import Any

import prompts as real
import torch

NEW = 16  # tokens of an answer
NEAR = 1e-4  # tokens whose logits differ by less may change places: a tie


@dataclass(frozen=True)
class Answer:
    """What follows one prompt."""

    prompt: list[int]
    tokens: list[int]  # greedy, before an end token
    choices: tuple[list[int], ...]  # four, of 1 to WIDTH tokens; the last begins as the answer does
    logprobs: list[float]  # of the choices
    margins: list[float]  # by how much each choice's tokens lead their places at least; negative where one does not


class Theirs:
    """A torch model, asked about prompts; its answers end before `ends`."""

    def __init__(self, model: Any, prompts: Sequence[real.Prompt]) -> None:
        self.model, self.prompts = model, prompts
        self.ends: tuple[int, ...] = (real.VOCABULARY,)  # never reached

    def find_end(self) -> int:
        """A token that stands first in many different places of endless answers, and in at most three quarters."""
        free = self._generate([prompt.last(real.LONGEST) for prompt in self.prompts])
        places = {token: [row.index(token) for row in free if token in row] for row in free for token in row}
        often = {token: len(set(found)) for token, found in places.items() if len(found) <= 0.75 * len(free)}
        return max(often, key=lambda token: (often[token], token))

    @cached_property
    def whole(self) -> list[Answer]:
        """After prompts that are all equally long."""
        return self._answers([prompt.last(real.LONGEST) for prompt in self.prompts])

    @cached_property
    def own(self) -> list[Answer]:
        """After prompts of their own lengths."""
        return self._answers([prompt.last(prompt.length) for prompt in self.prompts])

    def _answers(self, asked: list[list[int]]) -> list[Answer]:
        found: dict[int, Answer] = {}
        for length in {len(ids) for ids in asked}:
            places = [place for place, ids in enumerate(asked) if len(ids) == length]
            rows = [asked[place] for place in places]
            texts = self._generate(rows)
            choices = [self._choices(place, text) for place, text in zip(places, texts, strict=True)]
            scored = self._score(rows, choices)
            for place, row, text, own, scores in zip(places, rows, texts, choices, scored, strict=True):
                found[place] = Answer(row, text, own, *scores)
        return [found[place] for place in range(len(asked))]

    def _choices(self, place: int, text: list[int]) -> tuple[list[int], ...]:
        likeliest = (text or [self.ends[0]])[: 1 + place % real.WIDTH]
        return (*map(list, self.prompts[place].pieces), likeliest)

    def _generate(self, rows: list[list[int]]) -> list[list[int]]:
        tokens, ends = torch.tensor(rows), list(self.ends)
        settings = {"max_new_tokens": NEW, "do_sample": False, "eos_token_id": ends, "pad_token_id": ends[0]}
        found = self.model.generate(input_ids=tokens, attention_mask=torch.ones_like(tokens), **settings)
        answers = found[:, tokens.shape[1] :].tolist()
        return [list(takewhile(lambda token: token not in ends, row)) for row in answers]

    def _logits(self, rows: list[list[int]]) -> torch.Tensor:
        """At the last WIDTH + 1 tokens; what is made of them is float64."""
        tokens = torch.tensor(rows)
        with torch.no_grad():
            found = self.model(input_ids=tokens, attention_mask=torch.ones_like(tokens)).logits
        return found[:, -real.WIDTH - 1 :].double()

    def _score(
        self, rows: list[list[int]], choices: list[tuple[list[int], ...]]
    ) -> list[tuple[list[float], list[float]]]:
        """Σ log-softmax of each choice, and its margin; prompt and choice run as one text."""
        pairs = [(row, own) for row, each in zip(rows, choices, strict=True) for own in each]
        texts = [[*row, *own, *[0] * (real.WIDTH - len(own))] for row, own in pairs]
        real_places = torch.tensor([len(own) for _, own in pairs])[:, None] > torch.arange(real.WIDTH)
        logits, targets = self._logits(texts)[:, :-1], torch.tensor(texts)[:, -real.WIDTH :, None]
        chosen = logits.gather(-1, targets)[..., 0]
        others = logits.scatter(-1, targets, -torch.inf).max(-1).values
        sums = ((chosen - logits.logsumexp(-1)) * real_places).sum(-1)
        margins = (chosen - others).masked_fill(~real_places, torch.inf).min(-1).values
        return list(zip(sums.view(len(rows), -1).tolist(), margins.view(len(rows), -1).tolist(), strict=True))

    def tied(self, answer: Answer, found: list[int]) -> bool:
        """Whether the first token of `found` that is not theirs (an end counts) is as likely as theirs."""
        ours, own = ([*tokens, self.ends[0]] for tokens in (found, answer.tokens))
        place = next(number for number, pair in enumerate(zip(ours, own, strict=False)) if pair[0] != pair[1])
        logits = self._logits([[*answer.prompt, *own[:place]]])[0, -1]
        return abs(float(logits[ours[place]] - logits[own[place]])) < NEAR
