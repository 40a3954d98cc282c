"""python -m jaxprefix.babel: makes the embedded default's model anew."""

import sys

import tyro

from jaxprefix import terminal
from jaxprefix.babel.pretrain import Pretrain, pretrain


def main() -> None:
    if sys.argv[1:2] not in (["pretrain"], ["--help"]):
        raise ValueError(f"{' '.join(sys.argv[1:2]) or 'nothing'} is no command; expected pretrain")
    pretrain(
        tyro.cli(
            Pretrain,
            args=sys.argv[2:] or (["--help"] if sys.argv[1] == "--help" else []),
            prog="python -m jaxprefix.babel pretrain",
        )
    )


if __name__ == "__main__":
    terminal.run(main)
