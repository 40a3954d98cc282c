"""Makes the embedded default's model: a tokenizer, a random Llama, and `full` training on the world's text.

There is one trainer: pretraining is `--method full` on the task babel-text. The result is a directory in Hugging Face
layout (bfloat16) that transformers loads as it is.
"""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from jaxprefix.io.atomic import check_new, new_directory
from jaxprefix.models import decoder, weights
from jaxprefix.models.config import DecoderConfig
from jaxprefix.runs.base_model import open_base
from jaxprefix.runs.checkpoint import Checkpoints
from jaxprefix.runs.config import RunConfig
from jaxprefix.tasks.babel.documents import SKEW, lessons, shares
from jaxprefix.tasks.babel.text import BABEL_TEXT, split_of
from jaxprefix.tasks.babel.world import LANGUAGES
from jaxprefix.train.loop import train
from jaxprefix.train.metrics import read

TOKENIZER_DOCUMENTS = 40_000
EVERY = 250  # steps between checkpoints
# Words of letters with their marks, numbers and runs of other signs; Han sign by sign, kana in runs of one kind, since
# Chinese and Japanese put no spaces between words.
PIECES = (
    r"\p{Han}|\p{Hiragana}+| ?[\p{Katakana}ー]+| ?\p{N}+"
    r"| ?(?:(?![\p{Han}\p{Hiragana}\p{Katakana}ー])[\p{L}\p{M}\u200c\u200d])+| ?[^\s\p{L}\p{M}\p{N}]+|\s+"
)
# A Llama of 3.6M parameters with grouped-query attention; its sizes divide by 8, so that any small mesh fits.
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 6144,
    "hidden_size": 192,
    "intermediate_size": 512,
    "num_hidden_layers": 6,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 24,
    "hidden_act": "silu",
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
    "initializer_range": 0.05,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "torch_dtype": "bfloat16",
}


@dataclass(frozen=True)
class Pretrain:
    """Pretrains the embedded default's model from nothing and writes it in Hugging Face layout."""

    output: Path = Path("runs/babel-model")
    """Where the model goes, a new directory; jaxprefix/babel/model is such a one."""
    work: Path = Path("runs/babel-pretrain")
    """The run directory of the pretraining; run again to go on after a stop."""
    skew: float = SKEW
    """How much more text a language has than one of the resource class below it; 1 treats all alike but English."""
    steps: int = 5400
    batch: int = 64
    lr: float = 1.5e-3
    quiet: bool = False


def pretrain(settings: Pretrain) -> None:
    """Trains the tokenizer and the model; the same settings give the same model."""
    shares(settings.skew)  # refuses what cannot be, before anything is written
    check_new(settings.output)
    start = settings.work.with_name(f"{settings.work.name}-start")
    if not start.exists():
        write_random(start)
    config = RunConfig(
        model=str(start),
        method="full",
        task=BABEL_TEXT.name,
        split=split_of(settings.skew),
        steps=settings.steps,
        batch=settings.batch,
        max_length=128,
        lr=settings.lr,
        warmup=0.05,
        dtype="float32",
        eval_every=EVERY,
        save_every=EVERY,
    )
    run = train(config, settings.work, settings.quiet)
    base = open_base(str(start))
    learnt = Checkpoints(run).restore_adapter(jax.eval_shape(lambda: decoder.init(jax.random.key(0), base.config)))
    with new_directory(settings.output) as place:
        for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
            shutil.copy(start / name, place / name)
        weights.save(jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), learnt), base.config, place)
        curve = [json.dumps(row) + "\n" for row in read(run) if row["step"] % 50 == 0]
        (place / "pretraining.jsonl").write_text("".join(curve), encoding="utf-8")
    print(f"model: {settings.output}")


def write_random(directory: Path) -> None:
    """The untrained model and its trained tokenizer."""
    directory.mkdir(parents=True)
    train_tokenizer().save(str(directory / "tokenizer.json"))
    (directory / "config.json").write_text(json.dumps(CONFIG, indent=2) + "\n", encoding="utf-8")
    names = {
        "bos_token": "<s>",
        "eos_token": "</s>",
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_bos_token": True,
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(names, indent=2) + "\n", encoding="utf-8")
    config = DecoderConfig.read(directory)
    weights.save(jax.tree.map_with_path(_widened, decoder.init(jax.random.key(0), config)), config, directory)


def _widened(path: Any, leaf: jax.Array) -> jax.Array:
    """As wide as the configuration says, where the decoder draws all matrices with 0.02: so narrow a model would be
    thousands of steps late to look anything up."""
    return leaf if "norm" in jax.tree_util.keystr(path) else leaf * (CONFIG["initializer_range"] / 0.02)


def train_tokenizer() -> Tokenizer:
    """Byte-level BPE over text in which every language has the same weight."""
    tokenizer = Tokenizer(models.BPE())
    pieces = pre_tokenizers.Split(Regex(PIECES), "isolated")
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pieces, to_bytes])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    trainer = trainers.BpeTrainer(
        vocab_size=CONFIG["vocab_size"],
        special_tokens=["<s>", "</s>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_text(), trainer)
    return tokenizer


def _text() -> Iterator[str]:
    found = islice(lessons(seed=1, weights=dict.fromkeys(LANGUAGES, 1.0)), TOKENIZER_DOCUMENTS)
    return (lesson.given + lesson.told for lesson in found)
