"""One batch with several adapters: with `adapter_ids`, each row has the output of its own adapter alone."""

from typing import Any

import every
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from jaxprefix.models.adapters import Adapter, LlamaAdapter, PrefixTuning, SoftPrompt, Sum

PREFIXES = {
    f"{source} {softmax} mlp {mlp}": PrefixTuning(3, "1:3", source, softmax, mlp=mlp)
    for source in ("hidden", "kv")
    for softmax in ("joint", "split")
    for mlp in (0, 5)
}
GATED = {f"gate of a {gate}": LlamaAdapter(3, "top:3", gate) for gate in ("head", "layer")}
SOFT = every.SOFT
SUMS: dict[str, Adapter] = {
    "prefix+soft-prompt": Sum((("prefix", PrefixTuning(3, "top:1")), ("soft-prompt", SOFT))),
    "prefix+llama-adapter": Sum((("prefix", PrefixTuning(3, "all")), ("llama-adapter", LlamaAdapter(2)))),
    "all three": Sum(
        (("soft-prompt", SOFT), ("prefix", PrefixTuning(3, "1:3", "kv", mlp=5)), ("llama-adapter", LlamaAdapter(2)))
    ),
}
CASES: dict[str, Adapter] = PREFIXES | GATED | {"soft-prompt": SoftPrompt(3, start="random")} | SUMS


@pytest.mark.parametrize("name", CASES)
def test_each_row_has_its_own_adapter(name: str):
    adapter: Any = CASES[name]
    several = tiny.several(adapter, 3)
    found = tiny.adapted(adapter, tiny.together(several), adapter_ids=jnp.array([2, 0]))
    for row, chosen in enumerate((2, 0)):
        real = tiny.REAL[row]
        alone = tiny.adapted(adapter, several[chosen])[row]
        np.testing.assert_allclose(found[row][real], alone[real], rtol=0, atol=5e-5)
        for other in {0, 1, 2} - {chosen}:
            assert np.abs(tiny.adapted(adapter, several[other])[row] - alone)[real].max() > 0.1
