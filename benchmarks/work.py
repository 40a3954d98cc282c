"""The measured work: a Llama of 124.7M parameters with random weights, and prompts of Belebele and XQuAD."""

import json
from dataclasses import dataclass
from pathlib import Path

import jax
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, processors, trainers

from jaxprefix.io.rows import read_rows
from jaxprefix.models import decoder, weights
from jaxprefix.models.config import DecoderConfig

# Untied embeddings, three query heads per key head: 124.7 million parameters.
SIZES = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 32_000,
    "hidden_size": 768,
    "intermediate_size": 2048,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "num_key_value_heads": 4,
    "head_dim": 64,
    "max_position_embeddings": 2048,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "rope_theta": 10_000.0,
    "tie_word_embeddings": False,
    "bos_token_id": 0,
    "eos_token_id": 1,
}
LANGUAGES = ("ar", "de", "en", "hi", "zh")
BATCH = 16  # on both sides
NEW_TOKENS = 64  # of the longest answer
SCALE = 3  # of the layers' weights: with the usual scale, generated tokens soon repeat
GENERATION, EQUAL, SCORING = "generation", "generation of equal lengths", "scoring"
TIMES = {GENERATION: 128, EQUAL: 128, SCORING: 256}  # prompts are cut from the left to this many tokens
ENDS = tuple(range(2, SIZES["vocab_size"], 32))  # one token in 32 ends an answer, so lengths vary as for real answers
NO_ENDS = (2**30,)


@dataclass(frozen=True)
class Question:
    """A prompt, with four choices in scoring."""

    prompt: str
    choices: tuple[str, ...] = ()


def questions(work: str, data: Path, count: int) -> list[Question]:
    """`count` questions for scoring, or twice as many for generation, where the batch refills finished rows."""
    return belebele(data, count) if work == SCORING else xquad(data, 2 * count)


def xquad(data: Path, count: int) -> list[Question]:
    """The first questions of each language, with their passages."""
    prompts = []
    for language in LANGUAGES:
        rows = read_rows(data / "google" / "xquad" / f"xquad.{language}" / "validation.jsonl")
        prompts += [f"{row['context']}\nQuestion: {row['question']}\nAnswer:\n" for row in rows[: -(-count // 5)]]
    return [Question(prompt) for prompt in prompts[:count]]


def belebele(data: Path, count: int) -> list[Question]:
    """Questions in English and German with their passages; the four answers are the choices."""
    result = []
    for language in ("eng_Latn", "deu_Latn"):
        rows = read_rows(data / "facebook" / "belebele" / language / "test.jsonl")
        for row in rows[: -(-count // 2)]:
            choices = tuple(row[f"mc_answer{number}"] for number in (1, 2, 3, 4))
            result.append(Question(f"{row['flores_passage']}\nQuestion: {row['question']}\nAnswer:\n", choices))
    return result[:count]


def write_model(directory: Path, data: Path, sizes: dict | None = None) -> Path:
    """Writes the model in Hugging Face layout, with a tokenizer of the same vocabulary size."""
    values = SIZES | (sizes or {})
    config = DecoderConfig.parse(values)
    directory.mkdir(parents=True, exist_ok=True)
    frozen = jax.jit(decoder.init, static_argnums=1)(jax.random.key(0), config)
    frozen["layers"] = {name: leaf if "norm" in name else SCALE * leaf for name, leaf in frozen["layers"].items()}
    weights.save(frozen, config, directory)
    (directory / "config.json").write_text(json.dumps(values))
    write_tokenizer(directory, data, config.vocabulary_size)
    return directory


def write_tokenizer(directory: Path, data: Path, vocabulary: int) -> None:
    """Trains a byte-level BPE with `vocabulary` tokens on the rows, and writes it."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = [question.prompt for question in (*xquad(data, 2000), *belebele(data, 1800))]
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    tokenizer.save(str(directory / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"}
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))
