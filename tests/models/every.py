"""Every method in its forms, and sums of methods, small enough for any tiny decoder with three or more layers."""

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

ALL_SEVEN = "q,k,v,o,gate,up,down"
SOFT = SoftPrompt(3, start="random")

SINGLE: dict[str, Adapter] = {
    "prefix": PrefixTuning(4, "1:3"),
    "prefix kv": PrefixTuning(4, "all", "kv"),
    "prefix split": PrefixTuning(4, "top:2", softmax="split"),
    "prefix mlp": PrefixTuning(4, "top:2", "kv", mlp=5),
    "llama-adapter": LlamaAdapter(4, "1:3"),
    "llama-adapter of layers": LlamaAdapter(4, "top:2", gate="layer", activation="identity"),
    "soft-prompt": SOFT,
    "lora": LoRA(2, targets=ALL_SEVEN),
    "dora": LoRA(2, targets=ALL_SEVEN, dora=True),
    "pfeiffer": BottleneckAdapter(3),
    "houlsby": BottleneckAdapter(3, "houlsby"),
    "ia3": IA3(),
}
SUMS: dict[str, Adapter] = {
    "prefix+lora": Sum((("prefix", PrefixTuning(4, "1:3")), ("lora", LoRA(2)))),
    "prefix+dora": Sum((("prefix", PrefixTuning(4, "1:3")), ("lora", LoRA(2, dora=True)))),
    "soft-prompt+prefix": Sum((("soft-prompt", SOFT), ("prefix", PrefixTuning(4, "1:3", "kv")))),
    "llama-adapter+lora": Sum((("llama-adapter", LlamaAdapter(4, "top:2")), ("lora", LoRA(2, targets="o,down")))),
    "ia3+lora": Sum((("ia3", IA3()), ("lora", LoRA(2)))),
    "bottleneck+soft-prompt": Sum((("bottleneck", BottleneckAdapter(3, "houlsby")), ("soft-prompt", SOFT))),
}
ALL_AT_ONCE = Sum(
    (
        ("soft-prompt", SOFT),
        ("prefix", PrefixTuning(4, "1:3")),
        ("llama-adapter", LlamaAdapter(4, "top:2")),
        ("lora", LoRA(2, targets=ALL_SEVEN)),
        ("bottleneck", BottleneckAdapter(3, "houlsby")),
        ("ia3", IA3(ALL_SEVEN)),
    )
)
LEARN: dict[str, Adapter] = SINGLE | SUMS | {"full": FullFineTuning()}  # methods with parameters
METHODS: dict[str, Adapter] = {"none": NoAdapter()} | LEARN
