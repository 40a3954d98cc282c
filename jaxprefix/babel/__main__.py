"""python -m jaxprefix.babel pretrain|study: pretrains the embedded model, or trains every method on every task."""

import sys

import tyro

from jaxprefix.babel.pretrain import Pretrain, pretrain
from jaxprefix.babel.study import Study, study
from jaxprefix.errors import InputError
from jaxprefix.io import terminal

PROGRAM = "python -m jaxprefix.babel"
COMMANDS = "pretrain makes the embedded model again; study trains every method on every task of its world"


def main() -> None:
    name, arguments = "".join(sys.argv[1:2]), sys.argv[2:]
    if name in ("--help", "-h"):
        print(f"usage: {PROGRAM} pretrain|study [flags]\n{COMMANDS}; each has --help")
    elif name == "pretrain":
        pretrain(tyro.cli(Pretrain, args=arguments, prog=f"{PROGRAM} pretrain"))
    elif name == "study":
        study(tyro.cli(Study, args=arguments, prog=f"{PROGRAM} study"))
    else:
        raise InputError(f"{name!r} is not a command of {PROGRAM}; expected pretrain or study: {COMMANDS}")


if __name__ == "__main__":
    terminal.run(main)
