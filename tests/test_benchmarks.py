"""Both measured sides do the same work: a benchmark of unequal answers would say nothing."""

from pathlib import Path

import pytest
import small

from benchmarks import evaluation, ours, peer
from benchmarks.work import write_model

TINY = {"vocab_size": 1000, "hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2, "head_dim": 4}


@small.needs_rows
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.filterwarnings("ignore:Position ids are not supported:UserWarning")
def test_both_sides_say_the_same(tmp_path: Path):
    """With a soft prompt, whose own positions PEFT's logits have as well."""
    method = "soft-prompt"
    base = write_model(tmp_path / "model", small.MIRROR, TINY)
    run, exported = evaluation.write_adapters(tmp_path, base, method, evaluation.METHODS[method])
    for work in evaluation.TARGETS:
        one = ours.main(work, run, small.MIRROR, 6, 1)
        other = peer.main(work, str(base), str(exported), small.MIRROR, 6, 1)
        evaluation.agreement(work, one["answers"], other["answers"])
        assert one["compilations"] == one["buckets"]
        with pytest.raises(AssertionError):
            evaluation.agreement(work, one["answers"][::-1], other["answers"])
