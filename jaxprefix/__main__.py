"""jaxprefix COMMAND: the commands of the package under one name. `jaxprefix train` is `python -m jaxprefix.train`."""

import runpy
import sys

COMMANDS = {  # name: its module in this package, and what it does
    "train": ("train", "adapt a frozen model to a task in one language"),
    "evaluate": ("evaluation", "score runs in many languages; also beside, compare and seeds"),
    "generate": ("generate", "answer prompts"),
    "study": ("study", "make the tables of a whole study"),
    "probe": ("probe", "measure representations, and forgetting"),
    "peft": ("peft", "export adapters to PEFT's formats, or import them"),
    "lm-eval": ("lm_eval", "run lm-evaluation-harness"),
}
# The name of a module does too: "evaluation" as in `python -m jaxprefix.evaluation`.
MODULES = {module: module for module, _ in COMMANDS.values()} | {name: module for name, (module, _) in COMMANDS.items()}
USAGE = "usage: jaxprefix COMMAND ..."


def main() -> None:
    """Runs the module of the command as `python -m` does. Nothing else is imported, so that --help is fast."""
    name = "".join(sys.argv[1:2])
    if name in ("", "-h", "--help"):
        print(help_text())
    elif name == "--version":
        from jaxprefix._version import __version__

        print(f"jaxprefix {__version__}")
    elif name in MODULES:
        del sys.argv[1]
        runpy.run_module(f"jaxprefix.{MODULES[name]}", run_name="__main__", alter_sys=True)
    else:
        print(f"error: {name!r} is not a command of jaxprefix; expected {', '.join(COMMANDS)}", file=sys.stderr)
        sys.exit(2)


def help_text() -> str:
    """The commands, with a line about each."""
    lines = [f"  {name:10}{about}" for name, (_, about) in COMMANDS.items()]
    last = "Each has --help, and is also `python -m jaxprefix.MODULE`, such as `python -m jaxprefix.evaluation`."
    return "\n".join([USAGE, "", *lines, "", last])


if __name__ == "__main__":
    main()
