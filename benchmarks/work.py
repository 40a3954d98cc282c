"""What is timed: the 124.7M Llama with random weights, and prompts of real Belebele and XQuAD rows."""

import json
from dataclasses import dataclass
from pathlib import Path

import jax
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from jaxprefix.io.rows import read_rows
from jaxprefix.models import decoder, weights
from jaxprefix.models.config import DecoderConfig

# Untied, three query heads a key head: 124.7 million parameters.
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
BATCH = 16  # rows at a time, on both sides
NEW_TOKENS = 64  # of the longest answer
SPREAD = 3  # times the usual weights of the layers: without it random weights soon repeat themselves
GENERATION, EQUAL, SCORING = "generation", "generation of equal lengths", "scoring"
TIMES = {GENERATION: 128, EQUAL: 128, SCORING: 256}  # tokens that a prompt keeps, its end
ENDS = tuple(range(2, SIZES["vocab_size"], 32))  # a token in 32 ends an answer: lengths vary, as real answers' do
NO_ENDS = (2**30,)


@dataclass(frozen=True)
class Question:
    """A prompt, and four candidates where the answer is chosen."""

    prompt: str
    choices: tuple[str, ...] = ()


def questions(work: str, data: Path, count: int) -> list[Question]:
    """The `count` questions of a work, or twice as many where answers are generated: batches fill again and again."""
    return belebele(data, count) if work == SCORING else xquad(data, 2 * count)


def xquad(data: Path, count: int) -> list[Question]:
    """The first questions of each language in turn, with their passages."""
    found = []
    for language in LANGUAGES:
        rows = read_rows(data / "google" / "xquad" / f"xquad.{language}" / "validation.jsonl")
        found += [f"{row['context']}\nQuestion: {row['question']}\nAnswer:\n" for row in rows[: -(-count // 5)]]
    return [Question(prompt) for prompt in found[:count]]


def belebele(data: Path, count: int) -> list[Question]:
    """Passages and questions in English and German, with the four answers' texts as candidates."""
    found = []
    for language in ("eng_Latn", "deu_Latn"):
        rows = read_rows(data / "facebook" / "belebele" / language / "test.jsonl")
        for row in rows[: -(-count // 2)]:
            choices = tuple(row[f"mc_answer{number}"] for number in (1, 2, 3, 4))
            found.append(Question(f"{row['flores_passage']}\nQuestion: {row['question']}\nAnswer:\n", choices))
    return found[:count]


def write_model(directory: Path, data: Path, sizes: dict | None = None) -> Path:
    """The model in Hugging Face layout, with a tokenizer of its vocabulary's size."""
    values = SIZES | (sizes or {})
    config = DecoderConfig.parse(values)
    directory.mkdir(parents=True, exist_ok=True)
    frozen = jax.jit(decoder.init, static_argnums=1)(jax.random.key(0), config)
    frozen["layers"] = {name: leaf if "norm" in name else SPREAD * leaf for name, leaf in frozen["layers"].items()}
    weights.save(frozen, config, directory)
    (directory / "config.json").write_text(json.dumps(values))
    write_tokenizer(directory, data, config.vocabulary_size)
    return directory


def write_tokenizer(directory: Path, data: Path, vocabulary: int) -> None:
    """A byte-level BPE of so many tokens, trained on the rows."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = [each.prompt for each in (*xquad(data, 2000), *belebele(data, 1800))]
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.save(str(directory / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"}
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))
