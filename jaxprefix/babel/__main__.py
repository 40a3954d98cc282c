"""python -m jaxprefix.babel pretrain: pretrains the embedded model."""

import sys

from jaxprefix.babel.pretrain import Pretrain, pretrain
from jaxprefix.errors import InputError
from jaxprefix.io import terminal
from jaxprefix.io.arguments import read_arguments

PROGRAM = "python -m jaxprefix.babel"
COMMANDS = "pretrain makes the embedded model again"


def main() -> None:
    name, arguments = "".join(sys.argv[1:2]), sys.argv[2:]
    if name in ("--help", "-h"):
        print(f"usage: {PROGRAM} pretrain [flags]\n{COMMANDS}; it has --help")
    elif name == "pretrain":
        pretrain(read_arguments(Pretrain, f"{PROGRAM} pretrain", arguments))
    else:
        raise InputError(f"{name!r} is not a command of {PROGRAM}; expected pretrain: {COMMANDS}")


if __name__ == "__main__":
    terminal.run(main)
