"""The command `duplicates`: groups of near duplicates, or what to delete of them.

What is printed may be deleted. So items are checked first: they must be as they were when they were encoded.
"""

import sys
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from jaxhash.cli.collection import Collection, load_collection
from jaxhash.cli.originals import Originals
from jaxhash.cli.terminal import print_name
from jaxhash.core.checks import check_radius
from jaxhash.index.changes import remove_items
from jaxhash.index.density import expected_matches
from jaxhash.index.hash_index import HashIndex
from jaxhash.query.pairs.items import deduplicate, duplicate_groups

Found = TypeVar("Found", bound=Sequence[np.ndarray])  # ids of items, in groups


def run_duplicates(path: str, radius: int, *, null: bool = False) -> None:
    """Prints groups of near duplicates, the largest first: one path a line, and an empty line after each group."""
    collection = load_collection(path)
    radius = check_radius(radius, collection.retriever.index.num_bits)
    for doubt in _list_doubts(collection, radius):
        print(f"jaxhash: warning: {doubt}", file=sys.stderr)
    groups = _find_current(collection, lambda index: duplicate_groups(index, radius=radius))
    for members in groups:
        for name in collection.find_paths(members):
            print_name(name, null=null)
        print(end="\0" if null else "\n")
    count = sum(map(len, groups))
    print(f"{len(groups):,} groups, with {count:,} of {len(collection.ids):,} items", file=sys.stderr)


def run_deduplicate(path: str, radius: int, *, null: bool = False) -> None:
    """Prints what to delete so that of near duplicates the first stays: one path a line; how many comes first.

    Raises:
        ValueError: unlike items are likely to have near codes.
    """
    collection = load_collection(path)
    radius = check_radius(radius, collection.retriever.index.num_bits)
    for doubt in _list_doubts(collection, radius):
        raise ValueError(f"--keep would delete items that are not the same: {doubt}")
    removed = _find_current(collection, lambda index: deduplicate(index, radius=radius)).removed
    print(f"{len(removed):,} of {len(collection.ids):,} items to delete", file=sys.stderr, flush=True)
    for name in collection.find_paths(removed):
        print_name(name, null=null)


def _list_doubts(collection: Collection, radius: int) -> list[str]:
    """Says why items with codes within a radius may not be the same."""
    index, doubts = collection.retriever.index, []
    if collection.holds_images and collection.purpose != "duplicates":
        doubts.append("the codes were learned for similar images: build with --for duplicates, and no --embedder")
    count = int(index.num_items)
    pairs = count / 2 * expected_matches(count - 1, index.num_bits, radius=radius)
    if pairs >= 1:
        doubts.append(
            f"of {count:,} items with codes of {index.num_bits} bits, about {pairs:,.0f} pairs lie within a radius of "
            f"{radius} by chance: take a smaller radius, or build with more --bits"
        )
    return doubts


def _find_current(collection: Collection, find: Callable[[HashIndex], Found]) -> Found:
    """Finds near duplicates among items that are not stale: anew, as long as some of those found are."""
    index, originals = collection.retriever.index, Originals(collection)
    while True:
        found = find(index)
        stale = originals.find_stale(np.unique(np.concatenate([np.empty(0, np.int32), *found])))
        if not stale.size:
            return found
        index = remove_items(index, stale)
