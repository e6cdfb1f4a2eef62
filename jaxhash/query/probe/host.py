"""Probing address tables in numpy.

Plain probing has one table, of the first bits. Multi-index hashing has a table for each of several slices, which divide
all bits (Norouzi, Punjani and Fleet 2012, "Fast search in Hamming space with multi-index hashing").
"""

import operator
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from jaxhash.codes.bitmap import find_set_bits
from jaxhash.codes.distances import Queries
from jaxhash.codes.sorting import expand_runs
from jaxhash.index.address_table import (
    LOW_PATTERNS,
    AddressTable,
    extract_addresses,
    get_tables,
    make_flip_masks,
    make_patterns,
)
from jaxhash.index.hash_index import HashIndex, find_words, sizes_of
from jaxhash.query.hits import (
    Asked,
    Hits,
    Part,
    hits_among,
    in_chunks,
    join_matches,
    mark_done,
    matches_of_hits,
    sort_hits,
    sort_matches,
)
from jaxhash.query.plan import (
    LIMITS,
    Limits,
    Option,
    Plan,
    probed_at_once,
    scan_cost,
)
from jaxhash.query.results import RadiusMatches


class Buckets(NamedTuple):
    """Pairs of a query and a bucket that it hits, in no particular order."""

    queries: np.ndarray  # int64 [h], the number of the query
    addresses: np.ndarray  # uint32 [h], that of the bucket
    firsts: np.ndarray  # int32 [h], the bucket's first position in its table
    sizes: np.ndarray | None  # int32 [h], the number of its codes; None if each has one

    @property
    def num_codes(self) -> int:
        """The number of codes in all these buckets."""
        return len(self.firsts) if self.sizes is None else int(self.sizes.sum(dtype=np.int64))


def find_buckets(table: AddressTable, queries: np.ndarray, radius: int) -> Buckets:
    """Finds the buckets whose addresses lie within `radius` of those of queries uint32 `[q, w]`."""
    masks, ends = make_flip_masks(table.bits.size, radius)
    address = extract_addresses(queries, table.bits)
    words = ((address >> np.uint32(5))[:, None] ^ masks).astype(np.intp)
    taken = table.bitmap.words.take(words)
    begin = 0
    for flips, end in enumerate(ends):
        left = min(radius - flips, 5)  # for the five lowest bits
        taken[:, begin:end] &= LOW_PATTERNS[left, address & np.uint32(31)][:, None]
        begin = end
    position = np.flatnonzero(taken)
    place, bit = find_set_bits(taken.reshape(-1)[position])
    position = position[place]
    found = (words.reshape(-1)[position].astype(np.uint32) << np.uint32(5)) | bit
    query = position // len(masks)  # numpy's divmod is several times slower than its // by one number
    return Buckets(query, found, *table.find_buckets(found))


def _get_probed(index: HashIndex, plan: Plan) -> list[tuple[AddressTable, int]]:
    """The tables that a plan probes, each with its radius; missing ones are built."""
    return [pair for pair in zip(get_tables(index, plan.slices), plan.radii, strict=True) if pair[1] >= 0]


def probe_hits(
    index: HashIndex, queries: np.ndarray, radius: int, plan: Plan, limits: Limits = LIMITS
) -> list[Hits] | None:
    """Finds all codes within a radius of queries uint32 `[q, w]`, q below 2^13, by the tables of a plan.

    The sizes of the buckets are known before any code is compared. Where it would take much memory to compare all of
    them, the queries are split.

    Returns:
        The hits of consecutive runs of queries; `None` where comparing would take longer than a scan, such as when most
        codes share a bucket.
    """
    found = [(table, find_buckets(table, queries, reach)) for table, reach in _get_probed(index, plan)]
    total = sum(buckets.num_codes for _, buckets in found)
    if total > limits.candidates:
        if total * limits.candidate > scan_cost(sizes_of(index), len(queries), limits):
            return None
        if len(queries) > 1:
            halves = [probe_hits(index, half, radius, plan, limits) for half in np.array_split(queries, 2)]
            return None if None in halves else [hits for half in halves for hits in half or ()]
    table, buckets = found[0]
    if table.bits.size == index.num_bits:  # a bucket is a code, and its address tells the distance
        differing = buckets.addresses ^ extract_addresses(queries, table.bits)[buckets.queries]
        return [sort_hits(len(queries), buckets.queries, np.bitwise_count(differing), buckets.firsts)]
    query, ranks = (np.concatenate(arrays) for arrays in zip(*(_expand(*pair) for pair in found), strict=True))
    return [hits_among(index, queries, query, ranks, radius)]


def _expand(table: AddressTable, buckets: Buckets) -> tuple[np.ndarray, np.ndarray]:
    """The queries and the ranks of all codes in some buckets."""
    query, position = buckets.queries, buckets.firsts
    if buckets.sizes is not None:
        query, position = np.repeat(query, buckets.sizes), expand_runs(position, buckets.sizes)
    return query, position if table.ranks is None else table.ranks[position]


def probe_matches(asked: Asked, queries: Queries, option: Option) -> Part:
    """Finds all allowed items within the radius of queries `[q, w]` by the tables of a plan."""
    plan = option.plans[0]

    def find(rows: Queries) -> RadiusMatches | None:
        hits = probe_hits(asked.index, rows.words, asked.radius, plan, asked.limits)
        if hits is None:
            return None
        return join_matches([matches_of_hits(asked.index, part, asked.allowed) for part in hits])

    return in_chunks(find, queries, probed_at_once(plan, asked.limits))


def probe_one(asked: Asked, queries: Queries, option: Option) -> Part:
    """Finds what `probe_matches` finds, for one query that meets a handful of codes; more are left.

    In plain Python: for so few, each of the hundred calls of numpy takes as long as ten steps.
    """
    index, plan, ranks = asked.index, option.plans[0], set[int]()
    for table, reach in _get_probed(index, plan):
        masks, _ = make_flip_masks(table.bits.size, reach)
        address = int(extract_addresses(queries.words[0], table.bits))
        words = masks ^ np.uint32(address >> 5)
        taken = table.bitmap.words[words] & make_patterns(table.bits.size, reach, address & 31)
        for position in taken.nonzero()[0].tolist():
            for first, end in _look_up(table, words.item(position), taken.item(position)):
                if end - first + len(ranks) > asked.limits.few_candidates:
                    return mark_done(None, 1)
                ranks.update(range(first, end) if table.ranks is None else table.ranks[first:end].tolist())
    codes, query = np.asarray(index.codes).reshape(index.num_words, -1), queries.words[0].tolist()
    found = []
    for rank in ranks:
        place = find_words(index, rank)
        distance = sum((codes.item(word, place) ^ wanted).bit_count() for word, wanted in enumerate(query))
        if distance <= asked.radius:
            found.append((distance, rank))
    distances, nearest = np.array(sorted(found), np.int64).reshape(-1, 2).T
    return mark_done(matches_of_hits(index, Hits(np.array([0, len(found)]), distances, nearest), asked.allowed), 1)


def _look_up(table: AddressTable, word: int, taken: int) -> Iterator[tuple[int, int]]:
    """Yields the first position of the bucket of each taken address in a word, and that after its last."""
    whole, before = table.bitmap.words.item(word), table.bitmap.directory.item(word)
    while taken:
        bit = taken & -taken
        taken ^= bit
        bucket = before + (whole & (bit - 1)).bit_count()
        yield (bucket, bucket + 1) if table.starts is None else tuple(table.starts[bucket : bucket + 2].tolist())


def probe_widening(asked: Asked, queries: Queries, option: Option) -> Part:
    """Finds the k nearest items of queries `[q, w]` within radius 0, 1, 2, ..., as far as there are plans."""
    nothing = np.zeros(0, np.int32)
    left, parts = np.arange(len(queries.words)), [(nothing, nothing, nothing)]
    for radius, plan in enumerate(option.plans):
        if not len(left):
            break
        within = replace(asked, radius=radius)
        matches, _ = probe_matches(within, queries.map(operator.itemgetter(left)), option._replace(plans=(plan,)))
        enough = np.diff(matches.offsets) >= asked.k
        chosen = (matches.offsets[:-1][enough][:, None] + np.arange(asked.k)).reshape(-1)
        parts.append((np.repeat(left[enough], asked.k), matches.distances[chosen], matches.ids[chosen]))
        left = left[~enough]
    done = np.ones(len(queries.words), bool)
    done[left] = False
    return sort_matches(len(done), *(np.concatenate(arrays) for arrays in zip(*parts, strict=True))), done
