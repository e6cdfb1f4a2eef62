"""The command: `python -m jaxhash`, also installed as `jaxhash`."""

import argparse
import sys
from collections.abc import Sequence
from typing import NoReturn

from jaxhash.datasets import IDX_SETS, PACKAGED_SETS

try:
    from jaxhash.demo import run_demo
except ModuleNotFoundError as error:
    if error.name is None or error.name.split(".")[0] != "matplotlib":
        raise
    run_demo = None  # type: ignore[assignment]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command line; returns its exit status: 0, 2 after an error, 130 after Ctrl-C."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except KeyboardInterrupt:
        print("jaxhash: interrupted", file=sys.stderr)
        return 130
    except (ValueError, TypeError, OSError, ArithmeticError, ImportError) as error:
        print(f"jaxhash: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as every other error does."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"jaxhash: error: {' '.join(message.split())} (see {self.prog} --help)\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="jaxhash", description="Semantic hashing: learn binary codes and search them.")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    demo = commands.add_parser("demo", help="learn, index and search real digits, and show it all on one page")
    demo.add_argument(
        "--dataset",
        choices=(*IDX_SETS, *PACKAGED_SETS),
        help="by default mnist, or mnist-5k where full MNIST can't be had",
    )
    demo.add_argument(
        "--data-dir", metavar="DIR", help="folder of IDX files; by default $JAXHASH_DATA, then the network"
    )
    demo.add_argument("--epochs", type=int, metavar="N", help="by default what makes about 2,000 steps")
    demo.add_argument("--bits", type=int, metavar="B", help="length of a code; by default 0.4 images on each code")
    demo.add_argument("--output", default="jaxhash-demo", metavar="DIR", help="folder for the results (%(default)s)")
    demo.set_defaults(run=_demo)
    return parser


def _demo(options: argparse.Namespace) -> None:
    if run_demo is None:
        raise ImportError("the demo needs matplotlib and its data sets: pip install 'jaxhash[demo]'")
    run_demo(options.dataset, options.data_dir, options.epochs, options.bits, options.output)


if __name__ == "__main__":
    sys.exit(main())
