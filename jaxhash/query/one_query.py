"""The matches of one query by address tables, in plain Python.

Where a query hits a handful of buckets, each call of numpy takes as long as ten steps of Python, and a search in numpy
is some eighty calls.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from jaxhash.index.address_table import AddressTable, extract_addresses
from jaxhash.index.hash_index import HashIndex, memory_of
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
    codes, offsets, ids = _host_arrays(index)
    matches = []
    for rank, distance in zip(ranks, _distances(index, codes, query.tolist(), ranks), strict=True):
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


def _distances(index: HashIndex, codes: np.ndarray, query: list[int], ranks: set[int]) -> Iterator[int]:
    """Yields the distance of the code of each rank; `codes` are the words `[w, capacity]` as they are tiled."""
    _, _, group, lanes = index.codes.shape
    for rank in ranks:
        column, row = divmod(rank, group)
        block, lane = divmod(column, lanes)
        place = (block * group + row) * lanes + lane
        yield sum((codes.item(word, place) ^ wanted).bit_count() for word, wanted in enumerate(query))


def _host_arrays(index: HashIndex) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The codes `[w, capacity]` as they are tiled, the offsets, and the ids; remembered, as asking JAX takes time."""

    def fetch() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        codes = np.asarray(index.codes)
        return codes.reshape(len(codes), -1), np.asarray(index.offsets), np.asarray(index.ids)

    return memory_of(index).remember("host arrays", fetch)
