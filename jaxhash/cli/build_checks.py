"""The options of the command `build`, and its checks before any work: of options, source and existing collection."""

import os
from pathlib import Path
from typing import NamedTuple

from jaxhash.cli.collection import MAX_SIDE, Collection
from jaxhash.cli.embedder import check_embedding
from jaxhash.cli.images import check_pillow
from jaxhash.cli.sources import Items
from jaxhash.core.checks import check_integer, check_num_bits


class BuildOptions(NamedTuple):
    """The options of the command; `None` stands for a choice by the number of items."""

    num_bits: int | None = None
    side: int | None = None
    epochs: int | None = None
    retrain: bool = False  # whether to replace a collection, not to update it
    strict: bool = False  # whether a file that is no image is an error
    embedder: str | None = None  # package.module:function, which makes vectors of images
    purpose: str | None = None  # one of PURPOSES


def check_options(options: BuildOptions) -> None:
    """Raises `ValueError` or `TypeError` for options that are out of range or don't go together."""
    if options.num_bits is not None:
        check_num_bits(options.num_bits)
    if options.side is not None:
        check_integer("side", options.side, 1, MAX_SIDE)
    if options.epochs is not None:
        check_integer("epochs", options.epochs, 1)
    if options.purpose == "duplicates" and options.embedder is not None:
        raise ValueError(
            "--for duplicates learns from pixels, and codes of vectors keep the nearest: choose --embedder or --for"
        )


def check_source(source: str, options: BuildOptions) -> bool:
    """Returns whether a source is a folder of images; raises unless it is one or a `.npy` file."""
    if Path(source).is_dir():
        check_pillow()
        return True
    if not Path(source).exists():
        raise FileNotFoundError(f"{source}: no such file or folder")
    if not source.lower().endswith(".npy"):
        raise ValueError(f"{source}: expected a folder of images, or vectors in a .npy file")
    for name, value in (("--embedder", options.embedder), ("--for", options.purpose)):
        if value is not None:
            raise ValueError(f"{name} is for a folder of images, and {source} holds vectors")
    return False


def check_matches(old: Collection, holds_images: bool, options: BuildOptions, output: str) -> None:
    """Raises unless a collection holds items of the kind and has the settings asked for."""
    kinds = {True: "images", False: "vectors"}
    num_bits = old.retriever.model.num_bits
    if old.holds_images != holds_images:
        raise ValueError(
            f"{output} holds {kinds[old.holds_images]}, not {kinds[holds_images]}; --retrain makes it anew"
        )
    check_embedding(output, old.embedding, options.embedder)
    if options.purpose not in (None, old.purpose):
        names = {"similar": "similar images", "duplicates": "duplicates"}
        raise ValueError(
            f"{output} was built for {names[old.purpose]}, not for {names[options.purpose]}; try --retrain"
        )
    if options.num_bits not in (None, num_bits):
        raise ValueError(f"{output} has codes of {num_bits} bits, not {options.num_bits}; try --retrain")
    if holds_images and options.side not in (None, old.side):
        raise ValueError(f"{output} takes images at {old.side} pixels a side, not {options.side}; try --retrain")


def is_moved(old: Collection, source: str) -> bool:
    """Returns whether a source is elsewhere than the one that a collection was built of."""
    return os.path.realpath(source) != os.path.realpath(old.source)


def check_moved(old: Collection, items: Items, source: str, output: str) -> None:
    """Raises if a collection was built of another source, unless half of its items are in this one, as in a copy."""
    if not is_moved(old, source):
        return
    there = set(map(bytes, items.digests.astype("<u4")))
    kept = sum(digest in there for digest in old.known_digests.values())
    if 2 * kept < len(old.ids):
        raise ValueError(
            f"{output} was built of {old.source}, and {source} holds {kept:,} of its {len(old.ids):,} items: choose "
            "another output, or build it anew by --retrain"
        )
