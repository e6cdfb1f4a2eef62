"""The command: `python -m jaxhash`, also installed as `jaxhash`.

A command imports what it needs when it runs. So help is immediate, a missing extra matters only to commands that need
it, and Ctrl-C during imports ends the command as it does later.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

# The extra that installs a package which only some commands need.
EXTRA_OF = {"PIL": "images", "scipy": "images", "matplotlib": "demo", "mlxtend": "demo", "sklearn": "demo"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command line; returns its exit status: 0, 2 after an error, 130 after Ctrl-C."""
    if hasattr(sys.stdout, "reconfigure"):  # names of files go out as the bytes that they are
        sys.stdout.reconfigure(encoding=sys.getfilesystemencoding(), errors=sys.getfilesystemencodeerrors())
    if hasattr(sys.stderr, "reconfigure"):
        sys.stderr.reconfigure(errors="backslashreplace")
    try:
        options = _make_parser().parse_args(arguments)
        options.run(options)
        sys.stdout.flush()
    except KeyboardInterrupt:
        _print_last_line("interrupted")
        return 130
    except BrokenPipeError:  # the reader of the output, such as head, has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        if package not in EXTRA_OF:
            raise
        _print_last_line(f"error: this needs {package}: pip install 'jaxhash[{EXTRA_OF[package]}]'")
        return 2
    except (ValueError, TypeError, OSError, ArithmeticError, ImportError, MemoryError) as error:
        _print_last_line(f"error: {_clean(error)}")
        return 2
    return 0


def _print_last_line(message: str) -> None:
    """Prints a last line to stderr, over the status line on a terminal."""
    print(("\r\033[K" if sys.stderr.isatty() else "") + f"jaxhash: {message}", file=sys.stderr)


def _clean(error: Exception | str) -> str:
    from jaxhash.cli.terminal import describe_error

    return describe_error(error)


class _Version(argparse.Action):
    """Prints the version, which is read only now."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any, **__: Any) -> NoReturn:
        from importlib.metadata import PackageNotFoundError, version

        try:
            print(f"jaxhash {version('jaxhash')}")
        except PackageNotFoundError:
            parser.error("not installed, so there is no version: pip install .")
        parser.exit()


class _Parser(argparse.ArgumentParser):
    """Reports errors in one line, as the commands do."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"jaxhash: error: {_clean(message)} (see {self.prog} --help)\n")


def _make_parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="jaxhash", description="Semantic hashing: learn binary codes and search them.")
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_build(commands.add_parser("build", help="learn codes of a folder of images or of vectors, and index them"))
    _add_query(commands.add_parser("query", help="find the items most like an image or a vector"))
    _add_duplicates(commands.add_parser("duplicates", help="group items that are nearly the same"))
    info = commands.add_parser("info", help="describe a file")
    info.add_argument("file", metavar="FILE", help="any file that jaxhash has saved")
    info.set_defaults(run=_run_info)
    _add_explore(commands.add_parser("explore", help="write a page to search a file by clicks"))
    _add_demo(commands.add_parser("demo", help="learn, index and search real digits, and show it all on one page"))
    return parser


def _add_build(build: argparse.ArgumentParser) -> None:
    build.description = (
        "Learns codes of all images in a folder and its sub-folders, or of the vectors in a .npy file [n, d], and "
        "saves them with the model. If FILE exists, only new and changed items are encoded, by its model. Links are "
        "not followed."
    )
    build.add_argument("source", metavar="SOURCE", help="a folder of images (PNG, JPEG, WebP, GIF, BMP, TIFF), or .npy")
    build.add_argument("-o", "--output", required=True, metavar="FILE", help="the file for model, codes and paths")
    build.add_argument(
        "--bits", type=int, metavar="B", help="length of a code; by default 0.4 items on each code, 64 for duplicates"
    )
    build.add_argument("--side", type=int, metavar="N", help="images are learned at NxN pixels; by default 32")
    build.add_argument(
        "--for",
        dest="purpose",
        choices=("similar", "duplicates"),
        help="the images that codes find: similar ones (the default), or duplicates, even cropped or mirrored",
    )
    _add_embedder(build)
    build.add_argument(
        "--epochs", type=int, metavar="N", help="passes over the items in training; by default by their number"
    )
    build.add_argument("--retrain", action="store_true", help="train anew and replace FILE, if build has made it")
    build.add_argument(
        "--strict", action="store_true", help="stop at a file that is no image; hidden files are skipped"
    )
    build.set_defaults(run=_run_build)


def _add_embedder(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--embedder",
        metavar="MODULE:FUNCTION",
        help="a function of yours from images uint8 [n, side, side, 3] to vectors [n, d], such as a trained network; "
        "side is 224 by default; give it again to query and to update",
    )


def _add_query(query: argparse.ArgumentParser) -> None:
    query.description = (
        "Prints the items nearest to each ITEM: the distance in bits, a tab, and the path (or row). They are ranked by "
        "weighted distance: bits of which the model is sure count more. With --radius they are ranked by bits."
    )
    query.add_argument("file", metavar="FILE", help="a collection that build has made")
    query.add_argument("items", metavar="ITEM", nargs="+", help="an image; of vectors, the number of a row, or a .npy")
    reach = query.add_mutually_exclusive_group()
    reach.add_argument("-k", type=int, metavar="K", help="number of items to find; by default 10")
    reach.add_argument("--radius", type=int, metavar="R", help="find all items that differ in at most R bits")
    query.add_argument("--gallery", metavar="OUT", help="show results on a page, OUT.html, or in a picture, OUT.png")
    _add_embedder(query)
    _add_null(query)
    query.set_defaults(run=_run_query)


def _add_null(command: argparse.ArgumentParser) -> None:
    command.add_argument("--null", action="store_true", help="end lines in NUL characters, for xargs -0")


def _add_duplicates(duplicates: argparse.ArgumentParser) -> None:
    duplicates.description = (
        "Prints groups of items, the largest first, with an empty line after each. Each item is within R bits of "
        "another of its group. Build images with --for duplicates, and vectors with --bits 64 or more: other codes "
        "make many items equal that are only alike. Items that are gone or have changed are left out."
    )
    duplicates.add_argument("file", metavar="FILE", help="a collection that build has made")
    duplicates.add_argument("--radius", type=int, required=True, metavar="R", help="0 groups only equal codes")
    duplicates.add_argument(
        "--keep",
        action="store_true",
        help="print the items to delete instead, one a line: each is within R bits of an earlier item that stays",
    )
    _add_null(duplicates)
    duplicates.set_defaults(run=_run_duplicates)


def _add_explore(explore: argparse.ArgumentParser) -> None:
    explore.description = (
        "Writes one page that needs no server: click on an item to see the nearest ones, compare codes bit by bit, "
        "find duplicates. Pictures are read from the source as it is now."
    )
    explore.add_argument("file", metavar="FILE", help="a collection that build has made, a retriever or an index")
    explore.add_argument("-o", "--output", required=True, metavar="PAGE", help="the page to write, such as page.html")
    explore.add_argument(
        "--dataset", metavar="NAME", help="the data set whose training images a retriever or an index holds"
    )
    explore.add_argument("--data-dir", metavar="DIR", help="folder of its files; by default $JAXHASH_DATA")
    explore.add_argument("--limit", type=int, metavar="N", help="show the first N items; needed for more than 20,000")
    explore.set_defaults(run=_run_explore)


def _add_demo(demo: argparse.ArgumentParser) -> None:
    demo.description = (
        "Trains two models, one to reconstruct images as the source post does, one to retrieve them, and writes a "
        "report of their results and times: under two minutes on two cores by default."
    )
    demo.add_argument(
        "--dataset",
        default="mnist-5k",
        metavar="NAME",
        help="mnist, fashion-mnist, cifar-10, mnist-5k or digits (%(default)s)",
    )
    demo.add_argument(
        "--data-dir", metavar="DIR", help="folder of the data set's files; by default $JAXHASH_DATA, then the network"
    )
    demo.add_argument(
        "--epochs", type=int, metavar="N", help="of each model; by default as many as make about 500 steps"
    )
    demo.add_argument("--bits", type=int, metavar="B", help="length of a code; by default 0.4 images on each code")
    demo.add_argument("--output", default="jaxhash-demo", metavar="DIR", help="folder for the results (%(default)s)")
    demo.set_defaults(run=_run_demo)


def _run_build(options: argparse.Namespace) -> None:
    from jaxhash.cli.build import run_build
    from jaxhash.cli.build_checks import BuildOptions

    wanted = BuildOptions(
        options.bits,
        options.side,
        options.epochs,
        options.retrain,
        options.strict,
        options.embedder,
        options.purpose,
    )
    run_build(options.source, options.output, wanted)


def _run_query(options: argparse.Namespace) -> None:
    from jaxhash.cli.query import run_query

    run_query(
        options.file,
        options.items,
        k=options.k,
        radius=options.radius,
        output=options.gallery,
        embedder=options.embedder,
        null=options.null,
    )


def _run_duplicates(options: argparse.Namespace) -> None:
    from jaxhash.cli.duplicates import run_deduplicate, run_duplicates

    (run_deduplicate if options.keep else run_duplicates)(options.file, options.radius, null=options.null)


def _run_info(options: argparse.Namespace) -> None:
    from jaxhash.cli.query import run_info

    run_info(options.file)


def _run_explore(options: argparse.Namespace) -> None:
    from jaxhash.cli.explore import run_explore

    run_explore(options.file, options.output, dataset=options.dataset, data_dir=options.data_dir, limit=options.limit)


def _run_demo(options: argparse.Namespace) -> None:
    from jaxhash.cli.demo import run_demo

    run_demo(options.dataset, options.data_dir, options.epochs, options.bits, options.output)


if __name__ == "__main__":
    sys.exit(main())
