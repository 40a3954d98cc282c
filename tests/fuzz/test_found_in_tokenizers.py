"""Faults that fuzzing found in the readers of tokenizers, chat templates and PEFT's adapters, each by its name."""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import sentencepiece
import small
from safetensors.numpy import save_file
from strict import ends
from test_found_in_settings import DEEP, refused

from jaxprefix.errors import InputError
from jaxprefix.models import decoder
from jaxprefix.models.adapters import LoRA
from jaxprefix.models.config import DecoderConfig
from jaxprefix.peft import exchange
from jaxprefix.peft.convert import from_peft, to_peft
from jaxprefix.peft.files import CONFIG, WEIGHTS, read_adapter
from jaxprefix.text import chat_template
from jaxprefix.text.tokenizer import load_tokenizer

pytestmark = pytest.mark.usefixtures("little_memory")


@pytest.fixture
def model(place: Path) -> Path:
    small.bpe([row["prompt"] for row in small.rows(9)], 280).save(str(place / "tokenizer.json"))
    (place / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<s>", "eos_token": "</s>"}))
    return place


SETTINGS: dict[str, tuple[str, Any, str]] = {
    "a token that is a number": ("tokenizer_config.json", {"eos_token": 5}, "eos_token is 5"),
    "a token whose content is a list": ("special_tokens_map.json", {"unk_token": {"content": []}}, "unk_token is {"),
    "add_bos_token is a text": ("tokenizer_config.json", {"add_bos_token": "no"}, "add_bos_token is 'no'"),
    "an added token without an id": (
        "tokenizer_config.json",
        {"added_tokens_decoder": {"9" * 5000: {"content": "<s>"}}},
        "added_tokens_decoder has the key '999",
    ),
    "added tokens in a list": ("tokenizer_config.json", {"added_tokens_decoder": ["<s>"]}, "added_tokens_decoder is ["),
    "an added token without content": (
        "tokenizer_config.json",
        {"added_tokens_decoder": {"0": {"id": 0}}},
        "added_tokens_decoder has {'id': 0}",
    ),
    "eos_token_id is negative": ("config.json", {"eos_token_id": -1}, "eos_token_id -1 is not an id of the tokenizer"),
    "eos_token_id is beyond 32 bits": ("config.json", {"eos_token_id": [2**40]}, "eos_token_id 1099511627776 is not"),
    "eos_token_id is true": ("config.json", {"eos_token_id": True}, "eos_token_id True is not an id"),
    "eos_token_id is a text": ("config.json", {"eos_token_id": "12"}, "eos_token_id '12' is not an id"),
    "a template that is a number": (
        "tokenizer_config.json",
        {"chat_template": 5},
        "chat_template is 5; expected a text",
    ),
    "templates without names": ("tokenizer_config.json", {"chat_template": [{}]}, "expected objects with name and "),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_the_settings_of_a_tokenizer(name: str, model: Path):
    file, found, expected = SETTINGS[name]
    (model / file).write_text(json.dumps({"eos_token": "</s>", "eos_token_id": 1} | found))
    if file != "tokenizer_config.json":
        (model / "tokenizer_config.json").unlink()
    refused(lambda: load_tokenizer(model), model, expected)


def test_deep_settings_of_a_tokenizer(model: Path):
    (model / "tokenizer_config.json").write_text(DEEP)
    refused(lambda: load_tokenizer(model), model / "tokenizer_config.json", "nested deeper than 100 levels")


def change(model: Path, **parts: Any) -> None:
    path = model / "tokenizer.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps(values | {"model": values["model"] | parts, "added_tokens": []}))


def test_a_tokenizer_that_panics(model: Path):
    """The library's arithmetic overflows. It raises no Exception, so that no handler would turn it into a line."""
    change(model, continuing_subword_prefix="x" * 9)
    refused(lambda: load_tokenizer(model), model / "tokenizer.json", "cannot be read: ")


def test_a_tokenizer_that_fails_on_a_text(model: Path):
    change(model, type="WordLevel", unk_token="<none>")
    tokenizer = load_tokenizer(model)
    refused(lambda: tokenizer.encode("a text"), model / "tokenizer.json", "fails on a text: WordLevel error")


@pytest.mark.parametrize("token", ["a" * 200_000, '"' * 200_000, "\\" * 200_000, "é" * 200_000])
def test_a_token_that_ends_the_process(token: str, model: Path):
    """The library frees the trie of a unigram model by recursion, as deep as a token is long: a crash, not even a
    panic.
    """
    vocabulary = [["<s>", 0.0], ["</s>", -1.0], [token, -2.0]]
    values = {"version": "1.0", "added_tokens": [], "model": {"unk_id": 0, "vocab": vocabulary}}
    (model / "tokenizer.json").write_text(json.dumps(values))
    expected = "a token of the vocabulary has 200000 characters; expected at most 1000"
    refused(lambda: load_tokenizer(model), model / "tokenizer.json", expected)


def test_a_long_text_that_is_not_a_token_does_no_harm(model: Path):
    """Unigrams keep a table of their normaliser's in one long text."""
    path = model / "tokenizer.json"
    path.write_text(
        json.dumps(json.loads(path.read_text()) | {"normalizer": {"type": "Prepend", "prepend": "x" * 2000}})
    )
    assert load_tokenizer(model).bos == 0


def test_a_tokenizer_of_no_tokens(model: Path):
    change(model, vocab={}, merges=[])
    (model / "tokenizer_config.json").write_text("{}")
    (model / "config.json").write_text('{"eos_token_id": 0}')
    refused(lambda: load_tokenizer(model), model, "eos_token_id 0 is not an id of the tokenizer (0..-1)")


def test_a_piece_that_is_not_text(place: Path):
    path = place / "tokenizer.model"
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(row["prompt"] for row in small.rows(99)),
        model_prefix=str(place / "tokenizer"),
        vocab_size=58,
        minloglevel=2,
    )
    path.write_bytes(path.read_bytes().replace(b"<unk>", b"<\xff\xffk>"))
    refused(lambda: load_tokenizer(place), path, "is not a sentencepiece model; give the model's tokenizer.json")


def test_a_template_that_is_not_text(model: Path):
    (model / "chat_template.jinja").write_bytes(b"\xff")
    refused(lambda: load_tokenizer(model), model / "chat_template.jinja", "is not a text in UTF-8")


def test_a_template_of_megabytes(model: Path):
    (model / "chat_template.jinja").write_text("x" * 2_000_000)
    refused(lambda: load_tokenizer(model), model / "chat_template.jinja", "has 2000000 characters; expected at most")


TURNS = [{"role": "user", "content": "hello"}]
TEMPLATES = {
    "{{ 1 // 0 }}": "integer division or modulo by zero",
    "{{ messages + 1 }}": "can only concatenate list",
    "{{ 'x'.encode('idna').decode('nothing') }}": "unknown encoding",
    "{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}": "recursion",
    "{{ '%d' % 'x' }}": "format: a real number is required",
    "{{ 'x' * 10 ** 11 }}": "MemoryError",
    "{{ 'x' * 2000000 }}": "it expands the turns to 2000000 characters",
    "{% for": "unexpected",
    "{{ ''.__class__.__base__.__subclasses__() }}": "access to attribute '__class__'",
    "{{ messages.append(messages[0]) }}": "access to attribute 'append'",  # a loop over it would have no end
    "{{ range(100001) | length }}": "Range too big",
    r"{{ '\ud800' }}": "not valid Unicode, half a surrogate pair",
}


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_template_that_fails(template: str):
    refused(
        lambda: chat_template.render(template, TURNS, {}), Path("the model's chat template fails"), TEMPLATES[template]
    )


CONFIG_OF_BASE = DecoderConfig.parse(small.SIZES)
ADAPTERS: dict[str, tuple[dict[str, Any], str]] = {
    "a pattern that is none": ({"target_modules": "("}, "a pattern that cannot be matched: missing )"),
    "a pattern that takes for ever": (
        {"target_modules": r"(?:(?:(?:(?:[a-z._0-9]*)*)*)*[^!]?)*!\1?"},
        "a pattern that cannot be matched",
    ),
    "a pattern that fills the memory": ({"target_modules": "(a{9999}){9999}"}, "more than 10000 repetitions"),
    "a long pattern": ({"target_modules": "a|" * 5000}, "a pattern of 10000 characters; expected at most 2000"),
    "targets that are a number": ({"target_modules": 5}, "target_modules is 5; expected names of modules"),
    "targets that are an object": ({"exclude_modules": {"q_proj": 1}}, "exclude_modules is {'q_proj': 1}; expected"),
    "targets that are lists": ({"target_modules": [["q_proj"]]}, "target_modules is [['q_proj']]; expected names"),
    "a rank beyond floats": ({"r": 10**400}, "; expected at most 1048576"),
    "an alpha beyond floats": ({"lora_alpha": 10**400}, "; expected a number"),
    "a long value": ({"use_dora": ["x" * 99] * 99}, "use_dora is ['xxx"),
    "a long unknown key": ({"x" * 9999: 1}, "(value 1); it could change the numbers"),
}


@pytest.mark.parametrize("name", ADAPTERS)
def test_an_adapter_of_peft(name: str):
    changed, expected = ADAPTERS[name]
    settings, tensors = lora()

    def read() -> None:
        try:
            from_peft(settings | changed, tensors, CONFIG_OF_BASE)
        except InputError as error:
            raise InputError(str(error)) from None  # as the command does, which names the directory

    with ends(), pytest.raises(InputError) as raised:
        read()
    message = str(raised.value)
    assert expected in message and len(message) < 800 and message.isprintable()


def lora() -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    sizes = decoder.shapes(CONFIG_OF_BASE)
    params = LoRA(targets="q").init(jax.random.key(0), CONFIG_OF_BASE, sizes)
    return to_peft(LoRA(targets="q"), params, CONFIG_OF_BASE, lambda _: [])


def test_a_deep_adapter_config(place: Path):
    (place / CONFIG).write_text(DEEP)
    refused(lambda: read_adapter(place), place / CONFIG, "nested deeper than 100 levels")


def test_a_tensor_name_of_lines(place: Path):
    (place / CONFIG).write_text("{}")
    save_file({"a\n\x1b[2J": np.zeros(2, np.int32)}, place / WEIGHTS)
    refused(lambda: read_adapter(place), place / WEIGHTS, r"tensor a\n\x1b[2J is I32; expected one of F32")


def test_the_base_is_a_home_directory_of_an_unknown_user(place: Path, capsys: pytest.CaptureFixture[str]):
    """The name is only printed: no file of that name is looked for."""
    base = exchange.open_base(None)
    exchange.note_other_base({"base_model_name_or_path": "~nobody-of-that-name\n\x1b[2J" + "x" * 999}, None, base)
    said = capsys.readouterr().out
    assert said.startswith(r"note: the adapter names the base ~nobody-of-that-name\n\x1b[2Jxxx") and len(said) < 400
