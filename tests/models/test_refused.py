"""A method refuses invalid settings in one line that names what was given and expected (law 8)."""

from typing import Any

import jax
import jax.numpy as jnp
import pytest
import tiny

from jaxprefix.errors import InputError
from jaxprefix.models import adapter_init
from jaxprefix.models.adapters import (
    IA3,
    Adapter,
    BottleneckAdapter,
    FullFineTuning,
    LlamaAdapter,
    LoRA,
    NoAdapter,
    PrefixTuning,
    SoftPrompt,
    Sum,
)

CONFIG, FROZEN, KEY = tiny.CONFIG, tiny.FROZEN, jax.random.key(0)
ROWS = jnp.zeros(2, jnp.int32)
NAN = float("nan")
odd: Any = "odd"


def from_text(adapter: Adapter, length: int) -> Any:
    """Starts the adapter from a text of another length."""
    prompt = adapter_init.encode_prompt(CONFIG, FROZEN, jnp.zeros(length, jnp.int32))
    return adapter.init(KEY, CONFIG, FROZEN, lambda *_: prompt)


def together(*members: Any) -> Any:
    """Binds the sum of these methods."""
    return adapter_init.abstract_params(Sum(tuple((member.method, member) for member in members)), CONFIG)


SPLIT = PrefixTuning(layers="all", softmax="split")
REFUSED = [
    (lambda: PrefixTuning(length=0), "prefix length is 0; expected at least 1"),
    (lambda: PrefixTuning(source=odd), "prefix source is 'odd'; expected hidden or kv"),
    (lambda: PrefixTuning(softmax=odd), "prefix softmax is 'odd'; expected joint or split"),
    (lambda: PrefixTuning(std=-1.0), "prefix std is -1.0; expected 0 or more"),
    (lambda: PrefixTuning(std=NAN), "prefix std is nan"),
    (lambda: PrefixTuning(std=float("inf")), "prefix std is inf"),
    (lambda: LoRA(alpha=NAN), "lora alpha is nan; expected a finite number"),
    (lambda: PrefixTuning(mlp=-1), "prefix mlp is -1"),
    (lambda: PrefixTuning(start="odd"), "prefix start is 'odd'; expected random, vocabulary or text:SOME WORDS"),
    (lambda: PrefixTuning(start="text: "), "prefix start is 'text: '"),
    (lambda: PrefixTuning(mlp=4, start="text:words"), "prefix mlp 4 has fewer units than the 10 virtual"),
    (lambda: PrefixTuning(mlp=4), "expected at least 10, or the start random"),
    (lambda: LlamaAdapter(length=0), "llama-adapter length is 0"),
    (lambda: LlamaAdapter(gate=odd), "llama-adapter gate is 'odd'; expected head or layer"),
    (lambda: LlamaAdapter(activation=odd), "llama-adapter activation is 'odd'; expected tanh or identity"),
    (lambda: LlamaAdapter(std=-0.1), "llama-adapter std is -0.1"),
    (lambda: LlamaAdapter(std=NAN), "llama-adapter std is nan"),
    (lambda: LlamaAdapter(start="words"), "llama-adapter start is 'words'"),
    (lambda: SoftPrompt(length=0), "soft-prompt length is 0"),
    (lambda: SoftPrompt(std=-1.0), "soft-prompt std is -1.0"),
    (lambda: SoftPrompt(std=NAN), "soft-prompt std is nan"),
    (lambda: SoftPrompt(start=""), "soft-prompt start is ''"),
    (lambda: BottleneckAdapter(size=0), "bottleneck size is 0"),
    (lambda: BottleneckAdapter(placement=odd), "bottleneck placement is 'odd'; expected pfeiffer or houlsby"),
    (lambda: LoRA(rank=0), "lora rank is 0"),
    (lambda: LoRA(dropout=1.0), "lora dropout is 1.0"),
    (lambda: LoRA(dropout=NAN), "lora dropout is nan"),
    (lambda: LoRA(targets="q,x"), "lora targets are 'q,x'; expected some of q,k,v,o,gate,up,down"),
    (lambda: LoRA(targets="q,q"), "lora targets are 'q,q'"),
    (lambda: IA3("k,x"), "ia3 targets are 'k,x'; expected some of q,k,v,o,gate,up,down, each once"),
    (lambda: IA3("k,k"), "ia3 targets are 'k,k'"),
    (lambda: IA3(""), "ia3 targets are ''"),
    (lambda: LoRA(targets=""), "lora targets are ''"),
    (lambda: PrefixTuning(layers="top:5").init(KEY, CONFIG, FROZEN), "layers 'top:5' of a model of 4;"),
    (lambda: PrefixTuning(layers="2:5", mlp=12).init(KEY, CONFIG, FROZEN), "layers '2:5' of a model of 4;"),
    (lambda: LlamaAdapter(layers="2:5").init(KEY, CONFIG, FROZEN), "layers '2:5' of a model of 4;"),
    (lambda: LlamaAdapter(layers="3:3").init(KEY, CONFIG, FROZEN), "layers '3:3' of a model of 4;"),
    (
        lambda: PrefixTuning(start="vocabulary").init(KEY, CONFIG, FROZEN),
        "prefix starts from 'vocabulary': init needs a prompt of 10 tokens, given None",
    ),
    (lambda: SoftPrompt().init(KEY, CONFIG, FROZEN), "soft-prompt starts from 'vocabulary': init needs a prompt of 10"),
    (lambda: from_text(PrefixTuning(4, start="text:words"), 3), "init needs a prompt of 4 tokens, given 3"),
    (lambda: from_text(LlamaAdapter(4, start="text:words"), 5), "init needs a prompt of 4 tokens, given 5"),
    (lambda: from_text(SoftPrompt(4), 3), "soft-prompt starts from 'vocabulary': init needs a prompt of 4 tokens, giv"),
    (lambda: together(PrefixTuning(), NoAdapter()), "none cannot be part of a sum"),
    (lambda: together(FullFineTuning(), LoRA()), "full cannot be part of a sum"),
    (lambda: together(LoRA(), LoRA(rank=2)), "'lora+lora': a method can be in a sum only once"),
    (lambda: together(LlamaAdapter(), SPLIT), "use the decoder's seam 'gated'; at most one may"),
    (lambda: FullFineTuning().bind(CONFIG, {}, FROZEN, adapter_ids=ROWS), "all weights cannot differ between the rows"),
]


@pytest.mark.parametrize(("make", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_refused(make: Any, message: str):
    with pytest.raises(InputError) as raised:
        make()
    assert message in str(raised.value) and "\n" not in str(raised.value)


def test_a_joint_prefix_can_be_added_to_a_llama_adapter():
    """They use two seams; what is refused above is one seam used twice."""
    assert set(together(LlamaAdapter(), PrefixTuning())) == {"llama-adapter", "prefix"}
