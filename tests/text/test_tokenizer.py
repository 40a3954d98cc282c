"""Ids against the libraries that the models were trained with; BOS exactly once; an end token always."""

import datetime
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast
from transformers.utils import chat_template_utils

from jaxprefix.errors import InputError
from jaxprefix.text.tokenizer import load_tokenizer

SENTENCES = [
    "Where was the treaty signed, and who signed it?",
    "The quick brown fox jumps over the lazy dog in 1969.",
    "Wo wurde der Vertrag unterzeichnet, und wer hat ihn unterschrieben?",
    "Grüße aus München: schöne Straßen, große Häuser.",
    "条约是在哪里签署的?谁签署了它?",
    "北京是中华人民共和国的首都。",
    "Где был подписан договор и кто его подписал?",
    "Москва является столицей России.",
    "संधि पर हस्ताक्षर कहाँ किए गए थे और किसने किए?",
    "दिल्ली भारत की राजधानी है।",
]
UNUSUAL = [
    "",
    "  two  spaces \n\tand tabs\n",
    "▁a b",
    "🙂 ᚠ ﬁ ½",
    "</s> is text",
    " leading",
    "Context: x\n\nAnswer:\n",
]
LLAMA3 = {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"}
SPECIAL = ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>", "<|start|>", "<|end|>"]
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|start|>{{ m.role }}<|end|>\n{{ m.content }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant<|end|>\n{% endif %}"
)


@pytest.fixture(scope="session")
def pieces(tmp_path_factory) -> dict[str, Path]:
    """Directories that hold only a tokenizer.model: BPE with Llama 2's settings, unigram with sentencepiece's own."""
    settings: dict[str, dict[str, Any]] = {
        "bpe": {"normalization_rule_name": "identity", "remove_extra_whitespaces": False, "split_digits": True},
        "unigram": {"user_defined_symbols": ["[INST]"]},
    }
    found = {}
    for kind, given in settings.items():
        found[kind] = tmp_path_factory.mktemp(kind)
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(SENTENCES * 3),
            model_prefix=str(found[kind] / "tokenizer"),
            model_type=kind,
            vocab_size=400,
            byte_fallback=True,
            minloglevel=2,
            **given,
        )
    return found


@pytest.fixture
def fast(tmp_path) -> Path:
    """A directory in the manner of Llama 3: a byte-level BPE that puts its BOS in front by itself."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    start = SPECIAL[0]
    tokenizer.post_processor = processors.TemplateProcessing(  # type: ignore[assignment]
        single=f"{start} $A", pair=f"{start} $A {start} $B", special_tokens=[(start, 0)]
    )
    tokenizer.enable_truncation(8)
    tokenizer.enable_padding(pad_id=4, pad_token="<|end|>")
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    change(tmp_path / "tokenizer_config.json", **LLAMA3, tokenizer_class="PreTrainedTokenizerFast")
    change(tmp_path / "config.json", model_type="llama", bos_token_id=0, eos_token_id=1)
    return tmp_path


def change(path: Path, **values: Any) -> None:
    old = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(old | values))


def copy(source: Path, target: Path) -> Path:
    (target / "tokenizer.model").write_bytes((source / "tokenizer.model").read_bytes())
    return target


def refusal(directory: Path) -> str:
    with pytest.raises(InputError) as caught:
        load_tokenizer(directory)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Ids


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_a_tokenizer_model_encodes_as_sentencepiece(kind, pieces):
    ours, theirs = load_tokenizer(pieces[kind]), sentencepiece.SentencePieceProcessor()
    theirs.load(str(pieces[kind] / "tokenizer.model"))
    assert ours.encode_batch(SENTENCES + UNUSUAL) == [theirs.encode_as_ids(text) for text in SENTENCES + UNUSUAL]
    for text in SENTENCES + UNUSUAL:
        assert ours.decode(ours.response_ids(text)) == theirs.decode_ids(theirs.encode_as_ids(text))
    assert (ours.bos, ours.eos, ours.vocabulary_size) == (1, (2,), 400)
    assert all(ours.decode(ours.prompt_ids(text)) == text for text in SENTENCES)
    assert ours.decode([ours.vocabulary_size + 7, *ours.encode("der Vertrag")]) == "der Vertrag"


def test_a_llama_2_model_loses_nothing(pieces):
    ours = load_tokenizer(pieces["bpe"])
    assert all(ours.decode(ours.prompt_ids(text)) == text for text in SENTENCES + [x for x in UNUSUAL if x != "▁a b"])


def test_a_tokenizer_json_encodes_as_transformers(fast):
    ours, theirs = load_tokenizer(fast), PreTrainedTokenizerFast.from_pretrained(fast)
    for text in [*SENTENCES, *UNUSUAL, "<|eot_id|> in a text, and <|begin_of_text|>"]:
        assert ours.encode(text) == theirs.encode(text, add_special_tokens=False)
        assert ours.prompt_ids(text) == theirs.encode(text)
        assert ours.decode(ours.response_ids(text)) == theirs.decode(theirs.encode(text), skip_special_tokens=True)
    assert ours.encode_batch(SENTENCES) == [ours.encode(text) for text in SENTENCES]  # as if alone: no padding
    assert ours.vocabulary_size == len(theirs)
    assert ours.decode([ours.vocabulary_size + 7, *ours.encode("x")]) == "x"


def test_special_tokens_in_a_text(fast, pieces):
    assert load_tokenizer(fast).encode("a<|eot_id|>").count(2) == 1
    piece = load_tokenizer(pieces["bpe"])
    assert 2 not in piece.encode("a</s>") and piece.decode(piece.encode("a</s>")) == "a</s>"


@pytest.mark.parametrize("kind", ["bpe", "unigram", "fast"])
def test_prompt_and_response_are_encoded_apart(kind, pieces, fast):
    tokenizer = load_tokenizer({**pieces, "fast": fast}[kind])
    prompt, response = "Frage: Wo?\n", "München"
    assert tokenizer.response_ids(response) == [*tokenizer.encode(response), tokenizer.eos[0]]
    ids = tokenizer.prompt_ids(prompt) + tokenizer.response_ids(response)
    assert tokenizer.decode(ids[len(tokenizer.prompt_ids(prompt)) :]) == response
    assert [index for index in ids if index == tokenizer.bos] == [tokenizer.bos]


def test_half_a_surrogate_pair_is_refused(fast, pieces):
    for directory in (fast, pieces["bpe"]):
        with pytest.raises(InputError, match="half a surrogate pair: 'a\\\\ud83d'"):
            load_tokenizer(directory).encode_batch(["fine", "a\ud83d"])


# BOS


@pytest.mark.parametrize("kind", ["bpe", "unigram", "fast"])
@pytest.mark.parametrize("times", [0, 1, 2])
def test_bos_occurs_exactly_once(kind, times, pieces, fast):
    tokenizer = load_tokenizer({**pieces, "fast": fast}[kind])
    written = {"fast": "<|begin_of_text|>"}.get(kind, "<s>") * times
    ids = tokenizer.prompt_ids(written + SENTENCES[0])
    assert ids == [tokenizer.bos, *tokenizer.encode(SENTENCES[0])]
    assert tokenizer.bos not in tokenizer.response_ids(SENTENCES[0])


@pytest.mark.parametrize("name", ["PreTrainedTokenizerFast", "LlamaTokenizer", "GPT2Tokenizer"])
@pytest.mark.parametrize("adds", [True, False, None])
@pytest.mark.parametrize("processor", ["bos", "bos and eos", "eos", "bytes", None])
def test_bos_as_transformers(name, adds, processor, fast):
    """Its AutoTokenizer: the post-processor of the file alone decides, whatever the settings and config.json say."""
    templates = {"bos": f"{SPECIAL[0]} $A", "bos and eos": f"{SPECIAL[0]} $A {SPECIAL[2]}", "eos": f"$A {SPECIAL[2]}"}
    ids = [(token, index) for index, token in enumerate(SPECIAL)]
    tokenizer = Tokenizer.from_file(str(fast / "tokenizer.json"))
    if processor in templates:
        tokenizer.post_processor = processors.TemplateProcessing(single=templates[processor], special_tokens=ids)
    else:
        tokenizer.post_processor = processors.ByteLevel()
    tokenizer.save(str(fast / "tokenizer.json"))
    if processor is None:
        change(fast / "tokenizer.json", post_processor=None)
    change(fast / "tokenizer_config.json", tokenizer_class=name, **({} if adds is None else {"add_bos_token": adds}))
    ours, theirs = load_tokenizer(fast), AutoTokenizer.from_pretrained(fast)
    with_end = theirs.encode("Wo? 12")
    assert ours.prompt_ids("Wo? 12") == [index for index in with_end if index != 2]  # prompts have no end token
    assert (ours.bos == 0) == (processor in ("bos", "bos and eos"))


@pytest.mark.parametrize("settings", [{"bos_token": None}, {}, {"bos_token": "<|end|>"}])
@pytest.mark.parametrize("processor", [True, False])
def test_the_declared_bos_decides_nothing(settings, processor, fast):
    """case 05: the files of the tokenizer add no BOS, and config.json has a bos_token_id."""
    (fast / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|eot_id|>"} | settings))
    if not processor:
        change(fast / "tokenizer.json", post_processor=None)
    assert load_tokenizer(fast).prompt_ids("where") == AutoTokenizer.from_pretrained(fast).encode("where")


def test_a_tokenizer_model_starts_with_bos_unless_its_settings_say_no(pieces, tmp_path):
    """LlamaTokenizer documents that default. The file has no post-processor."""
    path = copy(pieces["bpe"], tmp_path) / "tokenizer_config.json"
    for settings in ({}, {"add_bos_token": None}, {"add_bos_token": True}, {"add_bos_token": False}):
        path.write_text(json.dumps({"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>"} | settings))
        assert load_tokenizer(tmp_path).bos == (None if settings.get("add_bos_token") is False else 1)
        if settings.get("add_bos_token") is not None:  # transformers 5 adds none where nothing is said
            assert (AutoTokenizer.from_pretrained(tmp_path).encode("Wo?")[0] == 1) == settings["add_bos_token"]
    path.write_text(json.dumps({"add_bos_token": "no"}))
    assert "add_bos_token is 'no'; expected true or false or null" in refusal(tmp_path)


def test_several_tokens_before_each_text_are_refused(fast):
    tokenizer = Tokenizer.from_file(str(fast / "tokenizer.json"))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|start|> <|end|> $A", special_tokens=[("<|start|>", 3), ("<|end|>", 4)]
    )
    tokenizer.save(str(fast / "tokenizer.json"))
    assert "tokenizer.json puts 2 tokens before each text; expected BOS or none" in refusal(fast)


# EOS and padding


def test_the_end_tokens_and_their_order(fast):
    """case 06: the tokenizer's own, which training teaches, and those of the generation config."""
    assert load_tokenizer(fast).eos == (2, 1)  # and config.json
    change(fast / "generation_config.json", eos_token_id=[1, 4, 2])
    assert load_tokenizer(fast).eos == (2, 1, 4)
    assert load_tokenizer(fast).response_ids("a")[-1] == 2
    change(fast / "generation_config.json", eos_token_id=4)
    assert load_tokenizer(fast).eos == (2, 4)  # not of config.json, as in transformers' GenerationConfig
    change(fast / "generation_config.json", eos_token_id=[])
    assert load_tokenizer(fast).eos == (2,)
    (fast / "generation_config.json").unlink()
    (fast / "config.json").write_text("{}")
    assert load_tokenizer(fast).eos == (2,)
    change(fast / "config.json", eos_token_id=4000)
    assert "eos_token_id 4000 is not an id of the tokenizer" in refusal(fast)
    change(fast / "config.json", eos_token_id=4)
    change(fast / "tokenizer_config.json", eos_token=None)
    assert load_tokenizer(fast).eos == (4,)
    (fast / "config.json").write_text("{}")
    assert "no end token; set eos_token_id in generation_config.json" in refusal(fast)


@pytest.mark.parametrize("settings", [{}, {"added_tokens_decoder": {"4": {"content": "<|end|>", "special": True}}}])
def test_which_file_names_the_end_token(settings, fast):
    """An older special_tokens_map.json has precedence only where tokenizer_config.json does not list its tokens."""
    change(fast / "tokenizer_config.json", **settings)
    change(fast / "special_tokens_map.json", eos_token="<|end|>")
    ours, theirs = load_tokenizer(fast), AutoTokenizer.from_pretrained(fast)
    assert ours.eos[0] == theirs.eos_token_id == (2 if settings else 4)


def test_padding_is_a_valid_id(fast, pieces):
    assert load_tokenizer(fast).pad == 2
    change(fast / "tokenizer_config.json", pad_token="<|end|>")
    assert load_tokenizer(fast).pad == 4
    assert load_tokenizer(pieces["bpe"]).pad == 2


# Chat


def test_the_chat_template_as_transformers_applies_it(fast):
    change(fast / "tokenizer_config.json", chat_template=TEMPLATE)
    ours, theirs = load_tokenizer(fast), PreTrainedTokenizerFast.from_pretrained(fast)
    turns = [{"role": "user", "content": "Wo?\n"}]
    expected = theirs.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
    assert ours.chat("Wo?\n") == expected
    assert expected.count(0) == 1 and expected[0] == 0


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}<|start|>{{ m.role }}\n{{ m.content }}<|end|>{% endfor %}",  # ChatML: no BOS
        "{{ bos_token }}{{ bos_token }}{{ messages[0].content }}",
        "{{ messages[0].content }}{{ date_string }}{{ tools }}",
    ],
)
@pytest.mark.parametrize("processor", [True, False])
def test_a_chat_starts_as_in_transformers(template, processor, fast):
    """The template alone decides about BOS."""
    (fast / "chat_template.jinja").write_text(template)
    if not processor:
        change(fast / "tokenizer.json", post_processor=None)
    theirs = AutoTokenizer.from_pretrained(fast)
    expected = theirs.apply_chat_template([{"role": "user", "content": "Wo?"}], tools=None, return_dict=False)
    assert load_tokenizer(fast).chat("Wo?") == expected


def test_files_that_may_hold_the_template(fast):
    named = [{"name": "tool_use", "template": "no"}, {"name": "default", "template": "listed"}]
    change(fast / "tokenizer_config.json", chat_template=named)
    assert load_tokenizer(fast).chat_template == "listed"
    (fast / "chat_template.jinja").write_text("{{ messages[0].content }} in a file")
    tokenizer = load_tokenizer(fast)
    assert tokenizer.chat("Wo?") == tokenizer.encode("Wo? in a file")


def test_a_template_in_a_json_file(fast):
    """Where transformers' processors keep it. Other files have precedence."""
    (fast / "chat_template.json").write_text('{"chat_template": "in json"}')
    assert load_tokenizer(fast).chat_template == "in json"
    change(fast / "tokenizer_config.json", chat_template="in the settings")
    assert load_tokenizer(fast).chat_template == "in the settings"


def test_named_templates_without_a_default(fast):
    """transformers refuses them too; the message says how to choose."""
    named = [{"name": name, "template": f"{{{{ messages[0].content }}}} {name}"} for name in ("tool_use", "rag")]
    change(fast / "tokenizer_config.json", chat_template=named)
    with pytest.raises(ValueError, match="no default specified"):
        AutoTokenizer.from_pretrained(fast).apply_chat_template([{"role": "user", "content": "Wo?"}])
    with pytest.raises(InputError, match=r"--chat: the model has no default chat template but tool_use, rag; save the"):
        load_tokenizer(fast).chat("Wo?")
    (fast / "chat_template.jinja").write_text(named[1]["template"])
    tokenizer = load_tokenizer(fast)
    assert tokenizer.chat("Wo?") == tokenizer.encode("Wo? rag")


def test_the_date_of_a_chat(fast, monkeypatch):
    """Llama 3.1's way and Llama 3.2's, against transformers on the same day."""
    (fast / "chat_template.jinja").write_text(
        "{% if not date_string is defined %}{% set date_string = '26 Jul 2024' %}{% endif %}{{ date_string }}"
        "{% if strftime_now is defined %}{% set date_string = strftime_now('%A %-d %B %Y %H:%M') %}{% endif %}"
        "{{ date_string }}{{ messages[0].content }}"
    )

    class Later(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.datetime(2027, 1, 2)

    turns, theirs = [{"role": "user", "content": "Wo?"}], AutoTokenizer.from_pretrained(fast)
    ours = replace(load_tokenizer(fast), chat_date=datetime.date(2027, 1, 2))
    other = replace(ours, chat_date=datetime.date(2030, 1, 2))
    with monkeypatch.context() as patch:
        patch.setattr(chat_template_utils, "datetime", Later)
        chat_template_utils._compile_jinja_template.cache_clear()
        expected = theirs.apply_chat_template(turns, return_dict=False)
    assert "Saturday 2 January 2027 00:00" in ours.decode(expected)
    assert ours.chat("Wo?") == expected != other.chat("Wo?")
    assert ours.chat("Wo?") == expected


def test_the_chat_of_a_tokenizer_model(pieces, tmp_path):
    template = "{{ bos_token }}[INST] {{ messages[0].content }} [/INST]{{ eos_token }}ja"
    change(copy(pieces["bpe"], tmp_path) / "tokenizer_config.json", chat_template=template)
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.chat("Wo?") == [1, *tokenizer.encode("[INST] Wo? [/INST]"), 2, *tokenizer.encode("ja")]


def test_chats_that_are_refused(fast):
    with pytest.raises(InputError, match="the model has no chat template"):
        load_tokenizer(fast).chat("Wo?")
    (fast / "chat_template.jinja").write_text("{{ raise_exception('no\nturn') }}")
    with pytest.raises(InputError, match=r"the model's chat template fails: no turn$"):
        load_tokenizer(fast).chat("Wo?")


# Files


def test_missing_and_unreadable_files(tmp_path, fast):
    empty = tmp_path / "empty"
    empty.mkdir()
    assert refusal(empty) == f"{empty} has no tokenizer; expected tokenizer.json, tokenizer.model or tekken.json"
    (empty / "tokenizer.model").write_bytes(b"\x0a\x0e")
    assert "is not a sentencepiece model; give the model's tokenizer.json" in refusal(empty)
    (empty / "tokenizer.json").write_text('{"version": ')
    assert "tokenizer.json cannot be read: " in refusal(empty)
    (fast / "tokenizer_config.json").write_text("{")
    assert "tokenizer_config.json is not JSON" in refusal(fast)
    (fast / "tokenizer_config.json").write_text("[]")
    assert "tokenizer_config.json holds a list; expected an object" in refusal(fast)


def test_tokens_that_the_vocabulary_lacks(fast, pieces, tmp_path):
    change(fast / "tokenizer_config.json", bos_token="<x>")
    assert "names bos_token <x>, which the vocabulary lacks" in refusal(fast)
    change(fast / "tokenizer_config.json", **LLAMA3, added_tokens_decoder={"401": {"content": "<y>"}})
    assert "the tokenizer file lacks the added tokens <y>" in refusal(fast)
    (alpaca := tmp_path / "alpaca").mkdir()
    change(copy(pieces["bpe"], alpaca) / "added_tokens.json", **{"[PAD]": 400})
    assert "the tokenizer file lacks the added tokens [PAD]" in refusal(alpaca)


def test_torch_is_never_imported(fast, pieces):
    change(fast / "tokenizer_config.json", chat_template=TEMPLATE)
    script = f"""if True:
        import sys
        from pathlib import Path
        import jaxprefix.io.hub
        from jaxprefix.text.tokenizer import load_tokenizer
        load_tokenizer(Path({str(fast)!r})).chat("Wo?")
        load_tokenizer(Path({str(pieces["bpe"])!r})).prompt_ids("Wo?")
        assert "transformers" in sys.modules
        assert not {{"torch", "jax"}} & sys.modules.keys()
    """
    subprocess.run([sys.executable, "-c", script], check=True)
