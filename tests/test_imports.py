"""The directions of imports, checked in the syntax trees of all files."""

import ast
from pathlib import Path

import pytest

import jaxprefix

ROOT = Path(jaxprefix.__file__).parent
# From the top floor down. A module imports its own room and rooms on lower floors, never one above or beside it.
FLOORS = (
    ("jaxprefix", "__main__"),
    ("api", "generate", "lm_eval", "babel", "study"),
    ("probe", "peft"),
    ("train",),
    ("evaluation",),
    ("inference",),
    ("runs", "tasks"),
    ("models", "text"),
    ("io",),
    ("distributed",),
    ("_version", "errors"),
)
FLOOR = {room: len(FLOORS) - number for number, rooms in enumerate(FLOORS) for room in rooms}


# They read, check and quote files of any content, so they import nothing about it.
STRICT = tuple(f"jaxprefix.io.{name}" for name in ("strict_json", "values", "messages"))


def module(path: Path) -> str:
    """ "models/decoder.py" -> "jaxprefix.models.decoder" """
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module(path): path for path in sorted(ROOT.rglob("*.py"))}


def imported(path: Path) -> set[str]:
    """Every module that a file imports, anywhere in it; `from a import b` is a.b where that is a module, else a."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{path} imports relatively"
            whole = {f"{node.module}.{name.name}" for name in node.names}
            found |= {name if name in FILES else node.module for name in whole}
    return found


IMPORTS = {name: imported(path) for name, path in FILES.items()}


def within(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(package + ".") for package in packages)


def of(*packages: str) -> list[str]:
    """The modules in these packages."""
    found = [name for name in FILES if within(name, *(f"jaxprefix.{package}" for package in packages))]
    assert found, f"no file in {packages}"
    return found


def own(name: str) -> set[str]:
    """The modules of this package that a module imports."""
    return {other for other in IMPORTS[name] if within(other, "jaxprefix")}


def violations(modules: list[str], *forbidden: str) -> list[str]:
    return [
        f"{name} imports {other}" for name in modules for other in sorted(IMPORTS[name]) if within(other, *forbidden)
    ]


def room(name: str) -> str:
    """ "jaxprefix.models.decoder" -> "models"; the package itself is a room."""
    return name.split(".")[1] if "." in name else name


def test_the_files_are_found():
    assert {room(name) for name in FILES} == set(FLOOR)
    assert "jaxprefix.models.hooks" in IMPORTS["jaxprefix.models.decoder"]  # `from a import b` of names
    assert "jaxprefix.models.decoder" in IMPORTS["jaxprefix.models.weights"]  # and of modules


def test_imports_run_down():
    upward = [
        f"{name} imports {other}"
        for name in FILES
        for other in sorted(own(name))
        if room(other) != room(name) and FLOOR[room(other)] >= FLOOR[room(name)]
    ]
    assert upward == []


def test_the_root_holds_few_modules():
    assert len(list(ROOT.glob("*.py"))) <= 8


@pytest.mark.parametrize("package", ["torch", "torchvision", "peft"])
def test_nothing_at_run_time_imports_torch(package: str):
    assert violations(list(FILES), package) == []


def test_only_the_fast_tokenizer_of_transformers_is_imported():
    """Its Auto classes import torch where it is installed."""
    users = {name for name in FILES if any(within(other, "transformers") for other in IMPORTS[name])}
    assert users == {"jaxprefix.text.chat_template", "jaxprefix.text.tiktoken"}
    for user in users:
        for node in ast.walk(ast.parse(FILES[user].read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and within(node.module or "", "transformers"):
                assert not [name.name for name in node.names if name.name.startswith("Auto")]


def test_only_its_own_room_knows_the_harness():
    """It is an extra, and most installations lack it; the command says so before it imports anything of it."""
    users = {name for name in FILES if any(within(other, "lm_eval") for other in IMPORTS[name])}
    assert users and {name for name in users if not within(name, "jaxprefix.lm_eval")} == set()
    top = ast.parse(FILES["jaxprefix.lm_eval.__main__"].read_text()).body
    names = [node.module or "" for node in top if isinstance(node, ast.ImportFrom)]
    assert names and not [name for name in names if within(name, "lm_eval", "jaxprefix.lm_eval")]


def test_training_reaches_evaluation_only_in_its_command():
    """`train --evaluate` evaluates afterwards."""
    assert {line.split()[0] for line in violations(of("train"), "jaxprefix.evaluation")} == {"jaxprefix.train.__main__"}


def test_nothing_builds_on_a_command():
    imports = {other for name in FILES for other in own(name)}
    assert [other for other in imports if other.endswith(".__main__") or other == "jaxprefix.generate"] == []
    assert {name for name in FILES if "jaxprefix.api" in own(name)} == {"jaxprefix"}


def test_the_embedded_world_is_imported_only_when_needed():
    users = {name for name in FILES if any(within(other, "jaxprefix.tasks.babel") for other in IMPORTS[name])}
    assert {name for name in users if not within(name, "jaxprefix.tasks.babel", "jaxprefix.babel")} == {
        "jaxprefix.tasks"
    }
    top = [node for node in ast.parse(FILES["jaxprefix.tasks"].read_text()).body if isinstance(node, ast.ImportFrom)]
    assert top and not [node.module for node in top if within(node.module or "", "jaxprefix.tasks.babel")]


def test_mathematics_imports_no_files_devices_or_commands():
    """models/ but for what reads a checkpoint's files, config.py, which reads one, and what the processor is."""
    files = ("weights", "checkpoint_files", "loading", "stored", "config", "processor")
    reading = {f"jaxprefix.models.{name}" for name in files}
    pure = [name for name in of("models") if name not in reading]
    assert violations(pure, "optax", "orbax", "safetensors", "tyro", "pathlib", "json", "os") == []
    assert [
        f"{name} imports {other}"
        for name in of("models")
        for other in own(name)
        if not within(other, "jaxprefix.models", "jaxprefix.errors") and other not in STRICT
    ] == []


def test_strict_reading_knows_nothing_of_what_is_read():
    for name in ("strict_json", "values"):
        assert own(f"jaxprefix.io.{name}") == {"jaxprefix.io.messages", "jaxprefix.errors"}
    assert own("jaxprefix.io.messages") == set()


def test_hooks_know_shapes_only():
    assert own("jaxprefix.models.hooks") <= {"jaxprefix.errors"}
    assert own("jaxprefix.models.layers") == {"jaxprefix.models.hooks"}
    reading = {f"jaxprefix.models.{name}" for name in ("config_keys", "config_rope", "families")}
    assert own("jaxprefix.models.config") == {*STRICT, *reading, "jaxprefix.errors"}
    assert own("jaxprefix.models.parameters") == {"jaxprefix.models.config"}


def test_the_decoder_knows_no_method():
    known = {"jaxprefix.errors"} | {
        f"jaxprefix.models.{name}"
        for name in ("config", "parameters", "hooks", "layers", "attention", "sharding", "int8", "products")
    }
    assert own("jaxprefix.models.block") <= known
    assert own("jaxprefix.models.scan") <= known
    assert own("jaxprefix.models.decoder") <= known | {"jaxprefix.models.block", "jaxprefix.models.scan"}
    rooms = [f"jaxprefix.models.{name}" for name in ("block", "scan", "decoder")]
    assert violations(rooms, "optax") == []


# The package itself lists them all, and a sum knows what it is made of by the protocol alone.
SHARED = ("jaxprefix.models.adapters", "jaxprefix.models.adapters.slots")
METHODS = [name for name in of("models.adapters") if name not in SHARED]


@pytest.mark.parametrize("name", METHODS)
def test_a_method_knows_neither_the_decoder_nor_another_method(name: str):
    known = {"jaxprefix.errors"} | {
        f"jaxprefix.models.{name}"
        for name in ("config", "parameters", "hooks", "layers", "adapters.adapter", "adapters.slots", "adapters.sum")
    }
    assert own(name) <= known
    assert violations([name], "optax", "flax.linen") == []


def test_the_step_knows_no_mesh_and_no_files():
    forbidden = ("jaxprefix.distributed", "jaxprefix.runs", "pathlib", "tyro", "orbax")
    assert violations(["jaxprefix.train.step"], *forbidden) == []


def test_checkpoints_know_no_mathematics():
    models = {name for name in own("jaxprefix.runs.checkpoint") if within(name, "jaxprefix.models")}
    assert models <= {"jaxprefix.models.hooks"}  # the types of trees


def test_tasks_and_tokenizers_know_no_jax():
    modules = [*of("tasks", "text"), "jaxprefix.io.hub"]
    assert violations(modules, "jax", "jaxlib", "flax", "optax", "jaxtyping", "jaxprefix.models") == []


def test_no_file_makes_an_array_when_it_is_imported():
    """It would initialize JAX before a command has chosen the platform and the number of emulated devices."""
    for name, path in FILES.items():
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
                made = ast.unparse(node.value)
                assert not any(call in made for call in ("jnp.", "jax.random", "jax.device")), f"{name}: {made}"
