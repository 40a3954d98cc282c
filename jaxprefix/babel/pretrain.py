"""Makes the embedded model: trains a tokenizer, then a randomly initialized Llama on the text of the world.

Pretraining uses the trainer of everything else, with `--method full` on the task babel-text. The result is a directory
in Hugging Face layout (bfloat16) that transformers loads too.
"""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

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
SAVE_EVERY = 250  # steps between checkpoints
# Words, numbers and runs of other signs. Chinese and Japanese put no spaces between words, so each Han character is a
# piece, and each run of one kind of kana.
PIECES = (
    r"\p{Han}|\p{Hiragana}+| ?[\p{Katakana}ー]+| ?\p{N}+"
    r"| ?(?:(?![\p{Han}\p{Hiragana}\p{Katakana}ー])[\p{L}\p{M}\u200c\u200d])+| ?[^\s\p{L}\p{M}\p{N}]+|\s+"
)
# A Llama of 3.6M parameters with grouped-query attention. Its sizes are divisible by 8, for small meshes.
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
    """Pretrains the embedded model from scratch and writes it in Hugging Face layout."""

    output: Path = Path("runs/babel-model")
    """A new directory for the model; jaxprefix/babel/model was made like this."""
    work: Path = Path("runs/babel-pretrain")
    """The run directory of the pretraining. The same command again resumes it."""
    skew: float = SKEW
    """The ratio of a language's text to that of a language one resource class below; with 1 all have the same amount,
    except for English, which always has twice as much."""
    steps: int = 5400
    batch: int = 64
    lr: float = 1.5e-3
    quiet: bool = False


def pretrain(settings: Pretrain) -> None:
    """Trains the tokenizer and the model; the same settings give the same model."""
    shares(settings.skew)  # raises for an invalid skew before anything is written
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
        eval_every=SAVE_EVERY,
        save_every=SAVE_EVERY,
    )
    run = train(config, settings.work, settings.quiet)
    base = open_base(str(start))
    params = Checkpoints(run).restore_adapter(jax.eval_shape(lambda: decoder.init(jax.random.key(0), base.config)))
    with new_directory(settings.output) as directory:
        for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
            shutil.copy(start / name, directory / name)
        weights.save(jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params), base.config, directory)
        curve = [json.dumps(row) + "\n" for row in read(run) if row["step"] % 50 == 0]
        (directory / "pretraining.jsonl").write_text("".join(curve), encoding="utf-8")
    print(f"model: {settings.output}")


def write_random(directory: Path) -> None:
    """Writes a randomly initialized model with a trained tokenizer."""
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
    weights.save(jax.tree.map_with_path(_rescale, decoder.init(jax.random.key(0), config)), config, directory)


def _rescale(path: tuple[jax.tree_util.KeyEntry, ...], leaf: jax.Array) -> jax.Array:
    """Gives a matrix the standard deviation of `initializer_range` instead of the decoder's 0.02.

    With 0.02 a model of this width needs thousands of steps more to learn attention.
    """
    return leaf if "norm" in jax.tree_util.keystr(path) else leaf * (CONFIG["initializer_range"] / 0.02)


def train_tokenizer() -> Tokenizer:
    """Trains byte-level BPE on text in which all languages have the same weight."""
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
    documents = islice(lessons(seed=1, weights=dict.fromkeys(LANGUAGES, 1.0)), TOKENIZER_DOCUMENTS)
    return (lesson.given + lesson.told for lesson in documents)
