"""bottleneck equals x + up(silu(down(x))) on the output of each block, with the parameters of that block (law 9)."""

from typing import Any

import expected
import naive
import pytest
import tiny

from jaxprefix.models.adapters import BottleneckAdapter

SEAMS = {"pfeiffer": ("after_feed_forward",), "houlsby": ("after_attention", "after_feed_forward")}


@pytest.mark.parametrize("placement", SEAMS)
def test_is_the_formula(placement: Any):
    adapter = BottleneckAdapter(5, placement)
    params = tiny.noisy(adapter)
    assert tuple(sorted(params)) == SEAMS[placement]
    extras = {}
    for layer in range(tiny.CONFIG.layers):
        blocks = {seam: expected.residual(part["down"][layer], part["up"][layer]) for seam, part in params.items()}
        extras[layer] = naive.Extras(**blocks)
    expected.assert_naive(tiny.adapted(adapter, params), extras)
