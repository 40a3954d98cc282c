"""Configurations that people have: what differs between them, and the published numbers of parameters.

Written from the model cards and papers, in the form that the Hub's files have. A number is the Hub's exact count (tied
heads once); a text is the rounded count of a model card.
"""

from typing import Any

Config = dict[str, Any]


def llama(vocabulary: int, hidden: int, feed_forward: int, layers: int, heads: int, kv: int = 0, **more: Any) -> Config:
    """A Llama of these sizes with 10,000 as rope_theta; `kv` 0 is as many key/value heads as heads."""
    values: Config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "hidden_size": hidden,
        "intermediate_size": feed_forward,
        "max_position_embeddings": 4096,
        "num_attention_heads": heads,
        "num_hidden_layers": layers,
        "num_key_value_heads": kv or heads,
        "rms_norm_eps": 1e-5,
        "rope_scaling": None,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "vocab_size": vocabulary,
    }
    return {name: value for name, value in (values | more).items() if value != "left out"}


def mistral(vocabulary: int, hidden: int, feed_forward: int, layers: int, heads: int, kv: int, **more: Any) -> Config:
    kind = {"architectures": ["MistralForCausalLM"], "model_type": "mistral", "sliding_window": None}
    return llama(vocabulary, hidden, feed_forward, layers, heads, kv, **(kind | more))


def qwen(generation: str, *sizes: int, **more: Any) -> Config:
    kind = {"architectures": [f"Qwen{generation}ForCausalLM"], "model_type": f"qwen{generation}", "rope_theta": 1e6}
    return llama(*sizes, **(kind | {"use_sliding_window": False, "rms_norm_eps": 1e-6} | more))


def gemma(*sizes: int, **more: Any) -> Config:
    """As transformers 4 wrote it."""
    kind = {
        "architectures": ["Gemma3ForCausalLM"],
        "model_type": "gemma3_text",
        "attention_bias": False,
        "attn_logit_softcapping": None,
        "final_logit_softcapping": None,
        "head_dim": 256,
        "hidden_act": "left out",
        "hidden_activation": "gelu_pytorch_tanh",
        "max_position_embeddings": 32768,
        "query_pre_attn_scalar": 256,
        "rms_norm_eps": 1e-6,
        "rope_local_base_freq": 10000.0,
        "rope_theta": 1000000.0,
        "tie_word_embeddings": "left out",
        "cache_implementation": "hybrid",
    }
    return llama(*sizes, **(kind | more))


def other(architecture: str, model_type: str, **more: Any) -> Config:
    """Another family, of whose sizes nothing is read."""
    return llama(32000, 4096, 11008, 32, 32, architectures=[architecture], model_type=model_type, **more)


def llama3(factor: float) -> Config:
    low_and_high = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
    return {
        "rope_theta": 500000.0,
        "rope_scaling": {"rope_type": "llama3", "factor": factor, **low_and_high},
        "max_position_embeddings": 131072,
        "attention_bias": False,
        "mlp_bias": False,
    }


OLD: Any = {"rope_theta": "left out", "torch_dtype": "float16"}  # of Llama 2's time
SMOL = {"tie_word_embeddings": True, "rope_interleaved": False, "is_llama_config": True, "transformers.js_config": {}}

QWEN25 = {"sliding_window": 32768, "max_position_embeddings": 32768}
QWEN3 = {"head_dim": 128, "attention_bias": False, "sliding_window": None, "max_window_layers": 28}
GEMMA3_270M = {
    "sliding_window": 512,
    "_sliding_window_pattern": 6,
    "use_bidirectional_attention": False,
    "layer_types": [("sliding" if (layer + 1) % 6 else "full") + "_attention" for layer in range(18)],
}

YARN = {"type": "yarn", "factor": 16.0, "original_max_position_embeddings": 4096, "finetuned": True}
MAP = {"AutoModelForCausalLM": "modeling_llama_yarn.LlamaForCausalLM"}

LOADED: dict[str, tuple[Config, int | str]] = {
    # Llama and its descendants
    "Llama 2 7B": (llama(32000, 4096, 11008, 32, 32, **OLD), 6_738_415_616),
    "Llama 2 13B": (llama(32000, 5120, 13824, 40, 40, **OLD), 13_015_864_320),
    "Llama 2 70B": (llama(32000, 8192, 28672, 80, 64, 8, **OLD), 68_976_648_192),
    "Yarn Llama 2 7B": (llama(32000, 4096, 11008, 32, 32, rope_scaling=YARN, auto_map=MAP), 6_738_415_616),
    "Llama 3 8B": (llama(128256, 4096, 14336, 32, 32, 8, rope_theta=5e5), 8_030_261_248),
    "Llama 3 70B": (llama(128256, 8192, 28672, 80, 64, 8, rope_theta=5e5), 70_553_706_496),
    "Llama 3.1 405B": (llama(128256, 16384, 53248, 126, 128, 8, **llama3(8.0)), 405_853_388_800),
    "Hermes 3 8B": (llama(128256, 4096, 14336, 32, 32, 8, **llama3(8.0), num_beams=1), 8_030_261_248),
    "Lugha-Llama 8B": (llama(128256, 4096, 14336, 32, 32, 8, **llama3(8.0)), "8.03B"),
    "Swallow 7B": (llama(43176, 4096, 11008, 32, 32), "6.83B"),
    "vicuna 7B v1.5": (llama(32000, 4096, 11008, 32, 32, **OLD, max_sequence_length=4096), 6_738_415_616),
    "vicuna 7B v1.5 16k": (
        llama(32000, 4096, 11008, 32, 32, rope_theta="left out", rope_scaling={"type": "linear", "factor": 4.0}),
        6_738_415_616,
    ),
    "tulu 2 7B": (llama(32001, 4096, 11008, 32, 32, **OLD), 6_738_423_808),
    "llemma 7B": (llama(32016, 4096, 11008, 32, 32, **OLD), 6_738_546_688),
    "CodeLlama 7B": (llama(32016, 4096, 11008, 32, 32, rope_theta=1000000), 6_738_546_688),
    "CodeLlama 34B": (llama(32000, 8192, 22016, 48, 64, 8, rope_theta=1000000), 33_743_970_304),
    "Amber 7B": (llama(32000, 4096, 11008, 32, 32, **OLD), 6_738_415_616),
    "ALLaM 7B": (llama(64000, 4096, 11008, 32, 32), 7_000_559_616),
    "OpenHathi 7B": (llama(48064, 4096, 11008, 32, 32, **OLD), "6.87B"),
    "OpenLLaMA 3B": (llama(32000, 3200, 8640, 26, 32, **OLD), 3_426_473_600),
    "TinyLlama 1.1B": (llama(32000, 2048, 5632, 22, 32, 4), 1_100_048_384),
    "Sheared LLaMA 1.3B": (llama(32000, 2048, 5504, 24, 16, **OLD), 1_345_423_360),
    "Sheared LLaMA 2.7B": (llama(32000, 2560, 6912, 32, 20, **OLD), "2.7B"),
    "llama-68m": (llama(32000, 768, 3072, 2, 12, **OLD), 68_030_208),
    "llama-160m": (llama(32000, 768, 3072, 12, 12, **OLD), 162_417_408),
    "SmolLM2 135M": (llama(49152, 576, 1536, 30, 9, 3, rope_theta=100000, **SMOL), 134_515_008),
    "SmolLM2 360M": (llama(49152, 960, 2560, 32, 15, 5, rope_theta=100000, **SMOL), 361_821_120),
    "SmolLM2 1.7B": (llama(49152, 2048, 8192, 24, 32, 32, rope_theta=130000, **SMOL), 1_711_376_384),
    "Yi 6B": (llama(64000, 4096, 11008, 32, 32, 4, rope_theta=5e6), 6_061_035_520),
    "Yi 34B": (llama(64000, 7168, 20480, 60, 56, 8, rope_theta=5e6), 34_388_917_248),
    "DeepSeek LLM 7B": (llama(102400, 4096, 11008, 30, 32), 6_910_365_696),
    "DeepSeek Coder 1.3B": (
        llama(32256, 2048, 5504, 24, 16, rope_theta=100000, rope_scaling={"factor": 4.0, "type": "linear"}),
        1_346_471_936,
    ),
    "SOLAR 10.7B": (llama(32000, 4096, 14336, 48, 32, 8), 10_731_524_096),
    # multilingual Llamas
    "EuroLLM 1.7B": (llama(128000, 2048, 5632, 24, 16, 8), "1.657B"),
    "EuroLLM 9B": (llama(128000, 4096, 12288, 42, 32, 8), "9.15B"),
    "Salamandra 2B": (llama(256000, 2048, 5440, 24, 16, num_layers=24), 2_253_490_176),
    "Salamandra 7B": (llama(256000, 4096, 11008, 32, 32, 8), 7_768_117_248),
    "Lucie 7B": (llama(65024, 4096, 12288, 32, 32, 8, rope_theta=2e7), 6_706_958_336),
    "TowerInstruct 7B": (llama(32007, 4096, 11008, 32, 32), "6.74B"),
    "Viking 7B": (llama(131072, 4096, 11008, 32, 32, untie_embeddings_and_output_weights=True), "7.55B"),
    "Falcon3 1B": (llama(131072, 2048, 8192, 18, 8, 4, head_dim=256, rope_theta=1000042), 1_669_408_768),
    "Falcon3 7B": (llama(131072, 3072, 23040, 28, 12, 4, head_dim=256, rope_theta=1000042), 7_455_550_464),
    "Falcon3 10B": (llama(131072, 3072, 23040, 40, 12, 4, head_dim=256, rope_theta=1000042), "10.3B"),
    # Mistral and its descendants
    "Mistral 7B v0.1": (mistral(32000, 4096, 14336, 32, 32, 8, sliding_window=4096), 7_241_732_096),
    "Zephyr 7B": (mistral(32000, 4096, 14336, 32, 32, 8, sliding_window=4096, pretraining_tp=1), 7_241_732_096),
    "OpenHermes 2.5": (mistral(32002, 4096, 14336, 32, 32, 8, sliding_window=4096), 7_241_748_480),
    "Occiglot 7B": (mistral(32000, 4096, 14336, 32, 32, 8, sliding_window=4096), 7_241_732_096),
    "SeaLLM 7B v2": (mistral(48384, 4096, 14336, 32, 32, 8, rope_theta=1e6), "7.38B"),
    "Mistral Nemo 12B": (mistral(131072, 5120, 14336, 40, 32, 8, head_dim=128, rope_theta=1e6), 12_247_782_400),
    "Ministral 8B 2410": (
        mistral(131072, 4096, 12288, 36, 32, 8, head_dim=128, rope_theta=1e8, sliding_window=32768),
        8_019_808_256,
    ),
    "Mistral Small 22B": (mistral(32768, 6144, 16384, 56, 48, 8, head_dim=128, rope_theta=1e6), 22_247_282_688),
    "Mistral Large 123B": (mistral(32768, 12288, 28672, 88, 96, 8, rope_theta=1e6), 122_610_069_504),
    "Minerva 1B": (mistral(32768, 2048, 7168, 16, 16, 4, sliding_window=2048), "1.01B"),
    "Minerva 3B": (mistral(32768, 2560, 8960, 32, 32, 8, sliding_window=2048), "2.89B"),
    "Minerva 7B": (mistral(51200, 4096, 14336, 32, 32, 8), "7.4B"),
    # other families
    "Qwen2.5 0.5B": (
        qwen("2", 151936, 896, 4864, 24, 14, 2, **QWEN25, tie_word_embeddings=True, max_window_layers=21),
        494_032_768,
    ),
    "Qwen2.5 7B": (qwen("2", 152064, 3584, 18944, 28, 28, 4, **QWEN25, max_window_layers=28), 7_615_616_512),
    "Qwen3 0.6B": (qwen("3", 151936, 1024, 3072, 28, 16, 8, **QWEN3, tie_word_embeddings=True), 596_049_920),
    "Qwen3 8B": (qwen("3", 151936, 4096, 12288, 36, 32, 8, **QWEN3), 8_190_735_360),
    "SmolLM3 3B": (
        llama(
            128256,
            2048,
            11008,
            36,
            16,
            4,
            architectures=["SmolLM3ForCausalLM"],
            model_type="smollm3",
            rope_theta=5000000.0,
            rms_norm_eps=1e-6,
            max_position_embeddings=65536,
            no_rope_layer_interval=4,
            no_rope_layers=[int((layer + 1) % 4 != 0) for layer in range(36)],
            use_sliding_window=False,
            sliding_window=None,
            layer_types=["full_attention"] * 36,
            max_window_layers=28,
            tie_word_embeddings="left out",
        ),
        3_075_098_624,
    ),
    "Apertus 8B": (
        llama(
            131072,
            4096,
            21504,
            32,
            32,
            8,
            architectures=["ApertusForCausalLM"],
            model_type="apertus",
            **(llama3(8.0) | {"rope_theta": 12000000.0, "max_position_embeddings": 65536}),
            hidden_act="xielu",
            qk_norm=True,
            post_norm=False,
        ),
        8_053_338_176,
    ),
    "Gemma 3 270M": (gemma(262144, 640, 2048, 18, 4, 1, **GEMMA3_270M), 268_098_176),
    "Gemma 3 1B": (gemma(262144, 1152, 6912, 26, 4, 1, sliding_window=512, sliding_window_pattern=6), 999_885_952),
    "Bielik 11B v2": (mistral(32128, 4096, 14336, 50, 32, 8, rope_theta=1e6), 11_168_796_672),
}

BITSANDBYTES = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}

# Why each is refused, as the message says it.
REFUSED: dict[str, tuple[Config, str]] = {
    "Llama 3.1 8B, NF4": (
        llama(128256, 4096, 14336, 32, 32, 8, **llama3(8.0), quantization_config=BITSANDBYTES),
        "quantization_config of 'bitsandbytes'",
    ),
    "Mistral 7B, AWQ": (
        mistral(32000, 4096, 14336, 32, 32, 8, quantization_config={"quant_method": "awq", "bits": 4}),
        "quantization_config of 'awq'",
    ),
    "Llama 2 7B, GPTQ": (
        llama(32000, 4096, 11008, 32, 32, quantization_config={"quant_method": "gptq", "bits": 4}),
        "quantization_config of 'gptq'",
    ),
    "Llama 3.1 405B, FP8": (
        llama(128256, 16384, 53248, 126, 128, 8, quantization_config={"quant_method": "fbgemm_fp8"}),
        "quantization_config of 'fbgemm_fp8'",
    ),
    "Granite 3B Code": (
        llama(49152, 2560, 10240, 32, 32, attention_bias=True, mlp_bias=True, tie_word_embeddings=True),
        "2 problems: (1) attention_bias is true; models with biases are not supported (2) mlp_bias is true",
    ),
    **{
        f"{name} ({architecture})": (other(architecture, kind, **more), f"architecture ['{architecture}'] is not")
        for name, architecture, kind, more in (
            ("Gemma 2B", "GemmaForCausalLM", "gemma", {"hidden_activation": "gelu_pytorch_tanh"}),
            ("Gemma 2 9B, Tower-Plus", "Gemma2ForCausalLM", "gemma2", {"final_logit_softcapping": 30.0}),
            ("Granite 3.3 8B", "GraniteForCausalLM", "granite", {"embedding_multiplier": 12.0}),
            ("Ministral 3 8B", "Mistral3ForConditionalGeneration", "mistral3", {"text_config": {}}),
            ("OLMo 2 7B", "Olmo2ForCausalLM", "olmo2", {}),
            ("Aya 23 8B", "CohereForCausalLM", "cohere", {"logit_scale": 0.0625}),
            ("Command R7B", "Cohere2ForCausalLM", "cohere2", {"layer_switch": 4}),
            ("Mixtral 8x7B", "MixtralForCausalLM", "mixtral", {"num_local_experts": 8}),
            ("Phi 3.5 mini", "Phi3ForCausalLM", "phi3", {"rope_scaling": {"type": "longrope"}}),
            ("Falcon 7B", "FalconForCausalLM", "falcon", {}),
            ("BLOOM 7B", "BloomForCausalLM", "bloom", {}),
            ("Pythia 6.9B", "GPTNeoXForCausalLM", "gpt_neox", {}),
            ("XGLM 7.5B", "XGLMForCausalLM", "xglm", {}),
            ("mT0 XXL", "MT5ForConditionalGeneration", "mt5", {"is_encoder_decoder": True}),
            ("InternLM2 7B", "InternLM2ForCausalLM", "internlm2", {"auto_map": {}}),
            ("Llama 4 Scout", "Llama4ForConditionalGeneration", "llama4", {"text_config": {}}),
        )
    },
}
