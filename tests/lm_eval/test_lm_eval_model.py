"""Between the harness and the engine: tokens, chats, settings, shared prompts and the cache."""

import json
from dataclasses import replace
from pathlib import Path

import harness
import numpy as np
import pytest
import sentencepiece
import small
from hypothesis import given, settings
from hypothesis import strategies as some
from lm_eval.api.instance import Instance
from lm_eval.api.model import CachingLM
from lm_eval.models.huggingface import HFLM

from jaxprefix.errors import InputError
from jaxprefix.inference import engine
from jaxprefix.inference.model import open_frozen
from jaxprefix.lm_eval.model import NO_LIMIT, JaxPrefixLM
from jaxprefix.lm_eval.settings import Settings, read_settings
from jaxprefix.lm_eval.sharing import MAX_CHOICES, fit, group_by_prompt
from jaxprefix.models.sampling import Sampling
from jaxprefix.text.tokenizer import load_tokenizer

TEMPLATE = (
    "{{ bos_token }}{% for turn in messages %}"
    "{% if turn.role == 'system' and loop.index0 > 0 %}{{ raise_exception('system prompts come first') }}{% endif %}"
    "<{{ turn.role }}>{{ turn.content | trim }}</s>\n{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)
REFUSING = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + TEMPLATE
TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": " What is red? "},
    {"role": "assistant", "content": "a boat"},
    {"role": "user", "content": "<s> Grün? "},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    texts = [row["prompt"] for row in small.rows(35)]
    return harness.write_model(tmp_path_factory.mktemp("lm") / "model", texts, max_position_embeddings=128)


def ours(folder: Path, batch: int = 4) -> JaxPrefixLM:
    return JaxPrefixLM(open_frozen(str(folder), "1x1", batch, NO_LIMIT), batch)


def theirs(folder: Path) -> HFLM:
    return HFLM(pretrained=str(folder), device="cpu", dtype="float32")


def score(model: CachingLM | JaxPrefixLM, pairs: list[tuple[str, str]]) -> list[tuple[float, bool]]:
    return model.loglikelihood([Instance("loglikelihood", {}, pair, number) for number, pair in enumerate(pairs)])


@pytest.mark.filterwarnings("ignore")
def test_tokens_are_those_of_the_hf_backend(folder: Path):
    one, other = ours(folder), theirs(folder)
    for text in ("", "a lamp", " Grüße\n", "<s>a lamp", "<s> <s>a", "a </s> lamp"):
        assert one.tok_encode(text) == other.tok_encode(text)
        assert one.tok_encode(text, add_special_tokens=False) == other.tok_encode(text, add_special_tokens=False)
    for name in ("eot_token_id", "prefix_token_id", "max_length"):
        assert getattr(one, name) == getattr(other, name)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("adds", [True, False])
@pytest.mark.parametrize("declared", ["<s>", None])
def test_special_tokens_are_those_of_the_hf_backend(folder: Path, tmp_path: Path, adds: bool, declared: str | None):
    """A declared BOS starts texts without a context, whether or not the tokenizer adds it."""
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer if adds else tokenizer | {"post_processor": None}))
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings | {"bos_token": declared}))
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [5, 1]}')
    one, other = ours(tmp_path), theirs(tmp_path)
    assert one.tok_encode("a lamp") == other.tok_encode("a lamp")
    assert (one.eot_token_id, one.prefix_token_id) == (other.eot_token_id, other.prefix_token_id)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("template", [TEMPLATE, REFUSING])
def test_chats_are_those_of_the_hf_backend(folder: Path, tmp_path: Path, template: str):
    for file in folder.iterdir():
        (tmp_path / file.name).symlink_to(file)
    (tmp_path / "chat_template.jinja").write_text(template)
    one, other = ours(tmp_path), theirs(tmp_path)
    assert one.chat_template(True) == template == other.chat_template(True)
    for turns, answer in ((TALK, True), (TALK[1:], True), (TALK[:3], False)):
        text = one.apply_chat_template(turns, add_generation_prompt=answer)
        assert text == other.apply_chat_template(turns, add_generation_prompt=answer)
        assert one.tok_encode(text) == other.tok_encode(text)


def test_a_template_that_refuses_every_chat(folder: Path):
    model = ours(folder)
    model._tokenizer = replace(model._tokenizer, chat_template="{{ raise_exception('roles must\nalternate') }}")
    with pytest.raises(InputError, match="chat template fails: roles must alternate"):
        model.apply_chat_template(TALK)


def test_a_model_without_a_chat_template(folder: Path):
    with pytest.raises(InputError, match="the model has no chat template"):
        ours(folder).chat_template(True)
    with pytest.raises(InputError, match="the model has no chat template"):
        ours(folder).apply_chat_template(TALK)
    with pytest.raises(InputError, match="--apply_chat_template rag: templates have no names here"):
        ours(folder).chat_template("rag")


def test_a_tokenizer_model_reads_special_tokens_in_chats_only(folder: Path, tmp_path: Path):
    texts = [row["prompt"] for row in small.rows(35)]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts), model_prefix=str(tmp_path / "tokenizer"), vocab_size=45, minloglevel=2
    )
    (tmp_path / "config.json").write_text('{"eos_token_id": 2, "bos_token_id": 1}')
    model = ours(folder)
    model._tokenizer = load_tokenizer(tmp_path)
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model"))
    assert model.tok_encode("boat</s>") == [1, *pieces.encode("boat</s>")]
    model._templated = True
    assert model.tok_encode("<s>boat</s>") == model.tok_encode("boat</s>") == [1, *pieces.encode("boat"), 2]
    assert model.tok_encode("boat</s>", add_special_tokens=False) == [*pieces.encode("boat"), 2]


TOKENS = some.lists(some.integers(0, 3), min_size=1, max_size=4).map(tuple)


@settings(max_examples=60, deadline=None)
@given(some.lists(some.tuples(TOKENS, TOKENS), max_size=40))
def test_every_request_is_answered_once_by_its_own_prompt_and_continuation(pairs: list):
    answered = []
    for group in group_by_prompt([(list(prompt), list(continuation)) for prompt, continuation in pairs]):
        request = group.request
        assert len(request.choices) in (1, 2, 4, 8)
        assert len(group.pair_indices) <= len(request.choices) <= MAX_CHOICES
        for choice, indices in zip(request.choices, group.pair_indices, strict=False):
            answered += indices
            assert all(pairs[index] == (tuple(request.prompt), tuple(choice)) for index in indices)
    assert sorted(answered) == list(range(len(pairs)))


def test_choices_share_a_prompt_that_is_longer_than_they_are():
    letters = [([1, 2, 3], [choice]) for choice in (7, 8, 9, 7)]
    assert [group.pair_indices for group in group_by_prompt(letters)] == [((0, 3), (1,), (2,))]
    sentences = [([0], [choice, 5, 5]) for choice in (7, 8, 9)]
    assert [group.pair_indices for group in group_by_prompt(sentences)] == [((0,),), ((1,),), ((2,),)]


@given(some.integers(1, 9), some.integers(1, 9), some.integers(1, 9))
def test_long_prompts_keep_the_end_as_in_the_hf_backend(before: int, after: int, longest: int):
    """It gives the model the last `longest` + 1 ids, without the last one."""
    context, continuation = list(range(before)), list(range(50, 50 + after))
    if after > longest:
        with pytest.raises(InputError, match=f"a continuation has {after} tokens, the model reads {longest}"):
            fit(context, continuation, longest)
        return
    found = fit(context, continuation, longest)
    assert found[1] == continuation and [*found[0], *found[1]][:-1] == (context + continuation)[-(longest + 1) :][:-1]


def test_answers_are_cached_as_they_arrive(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pairs = [("The boat is", " red"), ("", "The lamp"), ("The boat is", " green"), ("The lamp is", " x")]
    texts = [Instance("loglikelihood_rolling", {}, (text,), 0) for text in ("The bird " * 90, "")]
    asked = [Instance("generate_until", {}, (text, {"until": ["\n"], "max_gen_toks": 4}), 0) for text in ("a", "b")]
    model = CachingLM(ours(folder), str(tmp_path / "answers.db"))
    found = score(model, pairs), model.loglikelihood_rolling(texts), model.generate_until(asked)
    assert found[1][0] < min(total for total, _ in found[0]) < found[1][1] < 0
    for name in ("score", "generate"):
        monkeypatch.setattr(engine, name, lambda *_: pytest.fail("asked again"))
    assert score(model, pairs[::-1]) == found[0][::-1]
    assert (model.loglikelihood_rolling(texts), model.generate_until(asked)) == found[1:]


def test_answers_before_an_interruption_are_cached(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    score_all = engine.score

    def few(*arguments: object):
        yield next(score_all(*arguments))  # type: ignore[arg-type]
        raise KeyboardInterrupt

    model = CachingLM(ours(folder, batch=2), str(tmp_path / "answers.db"))
    pairs = [("The boat is", f" {colour}") for colour in small.COLOURS] + [("The lamp", " is"), ("A stone", " is")]
    monkeypatch.setattr(engine, "score", few)
    with pytest.raises(KeyboardInterrupt):
        score(model, pairs)
    assert 0 < len(model.dbdict) < len(pairs)


def test_a_continuation_of_nothing(folder: Path):
    for pair in (("The boat", ""), ("", "")):
        with pytest.raises(InputError, match="expected some text"):
            score(ours(folder), [("The boat", " is"), pair])


def test_settings_as_the_harness_writes_them():
    stop = ("\n", "</s>")
    assert read_settings({"until": "\n", "max_new_tokens": 7}, "</s>") == Settings(7, Sampling(), stop)
    assert read_settings({"until": ["", "\n"], "do_sample": False, "temperature": 0.0}, "</s>").stop == stop
    assert read_settings({"top_p": 0.9, "num_beams": 1}, None) == Settings(256, Sampling(), ())
    drawn = {"do_sample": True, "temperature": 0.5, "top_k": 9, "top_p": 0.9, "seed": 3, "until": None}
    assert read_settings(drawn, None).sampling == Sampling(0.5, 9, 0.9, 3)


REFUSED = {
    "generation setting 'repetition_penalty' is not supported; expected until": {"repetition_penalty": 1.2},
    "temperature is 'hot'; expected a number": {"do_sample": True, "temperature": "hot"},
    "num_beams is 4; beam search is not supported": {"num_beams": 4},
    "max_gen_toks is 0; expected at least 1": {"max_gen_toks": 0},
    "do_sample needs a temperature above 0": {"do_sample": True},
    "top-p is 2.0; expected a share": {"do_sample": True, "temperature": 1.0, "top_p": 2.0},
}


@pytest.mark.parametrize("message", REFUSED)
def test_invalid_settings(message: str):
    with pytest.raises(InputError, match=message):
        read_settings(REFUSED[message], None)


def test_an_answer_length_that_leaves_no_room_for_a_prompt(folder: Path):
    asked = [Instance("generate_until", {}, ("a", {"until": []}), 0)]
    with pytest.raises(InputError, match="answers of 256 tokens leave no room for a prompt in 128"):
        ours(folder).generate_until(asked)


def test_a_mesh_that_does_not_divide_the_batch(folder: Path):
    with pytest.raises(InputError, match="--batch 4 cannot be divided among 3 data devices; choose a multiple of 3"):
        open_frozen(str(folder), "3x1", 4, NO_LIMIT)


@pytest.mark.slow
def test_meshes_give_the_same_answers(folder: Path):
    pairs = [("The boat is", " red"), ("The boat is", " green"), ("", "The lamp is"), ("A stone", " is white")]
    one = score(ours(folder), pairs)
    other = score(JaxPrefixLM(open_frozen(str(folder), "2x2", 4, NO_LIMIT), 4), pairs)
    np.testing.assert_allclose(harness.likelihoods(one), harness.likelihoods(other), atol=1e-4)
    assert harness.likeliest(one) == harness.likeliest(other)
