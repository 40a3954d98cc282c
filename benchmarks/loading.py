"""python -m benchmarks.loading DIRECTORY [GIGABYTES]: how fast a checkpoint loads from disk, and the peak memory.

Writes a random checkpoint into DIRECTORY if it has none. Drops the page cache before each measurement, which needs
root. The rate of the disk is measured by reading the same files in blocks of 8 MiB.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

import ml_dtypes
import numpy as np

from jaxprefix.models import weights
from jaxprefix.models.config import DecoderConfig

SIZES = {
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 32768,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "max_position_embeddings": 4096,
}
LAYER = 61e6  # parameters in a layer
BLOCK = 2**23

LOAD = """
import resource, sys, time
from pathlib import Path
import jax
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)
import numpy as np
from jaxprefix.distributed import mesh as meshes
from jaxprefix.runs.base_model import frozen_shapes
from jaxprefix.models import loading, sharding
from jaxprefix.models.config import DecoderConfig

directory, mesh = Path(sys.argv[1]), meshes.make_mesh(sys.argv[2])
config = DecoderConfig.read(directory)
shapes = frozen_shapes(config, "bfloat16", on_cpu=False)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
began = time.monotonic()
frozen = loading.load(directory, config, shapes, sharding.param_shardings(mesh, shapes))
jax.block_until_ready(frozen)
seconds = time.monotonic() - began
print(seconds, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


def main() -> None:
    directory, gigabytes = Path(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 3.0
    if not (directory / "config.json").is_file():
        write(directory, round(gigabytes * 1e9 / 2 / LAYER))
    files = sorted(directory.glob("*.safetensors"))
    size = sum(path.stat().st_size for path in files)
    config = DecoderConfig.read(directory)
    leaf = 2 * config.layers * config.intermediate_size * config.hidden_size
    rates = []
    for _ in range(3):
        drop_caches()
        rates.append(size / read_time(files))
    print(
        f"{size / 1e9:.2f} GB in {len(files)} files; the disk: {', '.join(f'{rate / 1e9:.2f}' for rate in rates)} GB/s"
    )
    for mesh in ("1x1", "4x2"):
        drop_caches()
        done = subprocess.run([sys.executable, "-c", LOAD, directory, mesh], capture_output=True, text=True, check=True)
        seconds, peak = map(float, done.stdout.split()[-2:])
        share = size / seconds / sorted(rates)[1]
        print(
            f"{mesh}: {seconds:.1f} s, {size / seconds / 1e9:.2f} GB/s, {share:.0%} of the disk's rate; peak memory "
            f"{peak / 1e9:.2f} GB, weights and the largest stacked leaf are {(size + leaf) / 1e9:.2f} GB"
        )


def write(directory: Path, layers: int) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    config = DecoderConfig.parse(SIZES | {"num_hidden_layers": layers})
    shapes, random = weights.disk_shapes(config), np.random.default_rng(0)
    block = (0.02 * random.standard_normal(2**24, np.float32)).astype(ml_dtypes.bfloat16)
    sizes = {name: 2 * int(np.prod(shape)) for name, shape in shapes.items()}

    def read(name: str) -> np.ndarray:
        return np.resize(block, shapes[name])

    weights.write(sizes, read, directory, shard_size=10**9)
    (directory / "config.json").write_text(json.dumps(SIZES | {"num_hidden_layers": layers}))


def drop_caches() -> None:
    subprocess.run(["sync"], check=True)
    try:
        Path("/proc/sys/vm/drop_caches").write_text("3\n")
    except OSError as error:
        sys.exit(f"error: could not drop the page cache ({error.strerror}); run this as root, outside a container")


def read_time(files: list[Path]) -> float:
    began = time.monotonic()
    for path in files:
        with path.open("rb", buffering=0) as file:
            while file.read(BLOCK):
                pass
    return time.monotonic() - began


if __name__ == "__main__":
    main()
