"""A safetensors file and the index of shards with any content; no file outside the directory is read."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest
import small
from mutation import changes, content, document, text, written
from safetensors.numpy import save, save_file
from strict import fuzz, returns_or_says_why

from jaxprefix.models import weights
from jaxprefix.models.config import DecoderConfig

pytestmark = pytest.mark.usefixtures("little_memory")

SIZES = {"vocab_size": 8, "hidden_size": 8, "intermediate_size": 4, "num_hidden_layers": 2, "head_dim": 2}
CONFIG = DecoderConfig.parse(small.SIZES | SIZES)
SHAPES = weights.disk_shapes(CONFIG)
TENSORS = {name: np.ones(shape, np.float32) for name, shape in SHAPES.items()}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch):
    """The shapes of the configuration, computed once and not for every case."""
    monkeypatch.setattr(weights, "disk_shapes", lambda config: SHAPES)


def _read(directory: Path) -> None:
    weights.fingerprint(directory, CONFIG)
    with weights.opened(directory, CONFIG) as tensors:
        for tensor in tensors.values():
            assert tensor[:].nbytes <= 4 * 8 * 8


def test_the_header_of_safetensors(place: Path):
    valid = save(TENSORS, metadata={"format": "pt"})
    size = struct.unpack_from("<Q", valid)[0]
    header, data, path = json.loads(valid[8 : 8 + size]), valid[8 + size :], place / weights.SINGLE

    def make(recipe: bytes) -> bytes:
        found, way = changes(recipe), recipe[-1] % 4
        if way == 0:  # any byte of the file
            return content(valid, found)
        inside = len(found) - (way == 1)  # the last change is of bytes, of the length's too
        made = text(document(header, found[:inside]))
        return content(struct.pack("<Q", len(made)) + made + data, found[inside:])

    def holds(found: bytes) -> bool:
        path.write_bytes(found)
        return returns_or_says_why(lambda: _read(place), place)

    assert holds(valid)
    fuzz(make, holds)


def test_the_index_of_shards(place: Path):
    """A whole model is outside the directory: an index that led there would be read without an error."""
    (model := place / "model").mkdir()
    save_file(TENSORS, place / "outside.safetensors")
    names = sorted(TENSORS)
    shards = {"model-1.safetensors": names[:9], "model-2.safetensors": names[9:]}
    for file, held in shards.items():
        save_file({name: TENSORS[name] for name in held}, model / file)
    places = {name: file for file, held in shards.items() for name in held}
    path = model / weights.INDEX

    def holds(found: bytes) -> bool:
        path.write_bytes(found)
        returned = returns_or_says_why(lambda: _read(model), model)
        assert not returned or all("/" not in name for name in json.loads(found)["weight_map"].values())
        return returned

    fuzz(written({"metadata": {"total_size": 1024}, "weight_map": places}), holds)
