"""The matches of one query by address tables, in plain Python.

Where a query hits a handful of buckets, each call of numpy takes as long as ten steps of Python, and a search in numpy
is some eighty calls.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from jaxhash.index.address_table import AddressTable, extract_addresses
from jaxhash.index.hash_index import HashIndex
from jaxhash.query.probe import LOW_PATTERNS, WORDS_ON_HOST, make_flip_masks
from jaxhash.query.results import RadiusMatches

# From this many candidates on, numpy is quicker.
MOST_CANDIDATES = 64


def match_one(
    index: HashIndex, query: np.ndarray, radius: int, tables: Sequence[tuple[AddressTable, int]]
) -> RadiusMatches | None:
    """Finds all items within a radius of one query.

    Args:
        index: a `HashIndex`.
        query: uint32 `[w]`.
        radius: the largest distance that counts as a match, inclusive.
        tables: each with the radius to probe it with.

    Returns:
        The matches; `None` if there are too many probes or candidates.
    """
    ranks: set[int] = set()
    for table, reach in tables:
        if len(make_flip_masks(table.bits.size, reach)[0]) > WORDS_ON_HOST:
            return None
        for first, end in _find_buckets(table, query, reach):
            if end - first + len(ranks) > MOST_CANDIDATES:
                return None
            ranks.update(range(first, end) if table.ranks is None else table.ranks[first:end].tolist())
    codes, offsets, ids = (np.asarray(array) for array in (index.codes, index.offsets, index.ids))
    matches = []
    for rank, distance in zip(ranks, _distances(codes, query.tolist(), ranks), strict=True):
        if distance <= radius:
            matches.append((distance, rank))
    distances, found = [], []
    for distance, rank in sorted(matches):
        items = ids[offsets.item(rank) : offsets.item(rank + 1)].tolist()
        distances += [distance] * len(items)
        found += items
    return RadiusMatches(np.array([0, len(found)]), np.array(distances, np.int32), np.array(found, np.int32))


def _find_buckets(table: AddressTable, query: np.ndarray, radius: int) -> Iterator[tuple[int, int]]:
    """Yields the first position of each bucket within the radius, and that after its last."""
    masks, left = make_flip_masks(table.bits.size, radius)
    address = int(extract_addresses(query, table.bits))
    words = masks ^ np.uint32(address >> 5)
    near = table.bitmap[words] & LOW_PATTERNS[address & 31][left]
    for position in near.nonzero()[0].tolist():
        word, taken = words.item(position), near.item(position)
        whole, before = table.bitmap.item(word), table.directory.item(word)
        while taken:
            bit = taken & -taken
            taken ^= bit
            bucket = before + (whole & (bit - 1)).bit_count()
            if table.starts is None:
                yield bucket, bucket + 1
            else:
                yield table.starts.item(bucket), table.starts.item(bucket + 1)


def _distances(codes: np.ndarray, query: list[int], ranks: set[int]) -> Iterator[int]:
    """Yields the distance of the code of each rank; `codes` are those of the index, uint32 `[w, blocks, g, L]`."""
    _, _, group, lanes = codes.shape
    for rank in ranks:
        column, row = divmod(rank, group)
        block, lane = divmod(column, lanes)
        yield sum((codes.item(word, block, row, lane) ^ wanted).bit_count() for word, wanted in enumerate(query))
