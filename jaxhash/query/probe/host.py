"""Probing of address tables in numpy.

Plain probing uses one table of the first bits. Multi-index hashing divides all bits into slices and uses one table for
each (Norouzi, Punjani and Fleet 2012, "Fast search in Hamming space with multi-index hashing").
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
    Hits,
    Part,
    Request,
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
    probe_batch_size,
    scan_cost,
)
from jaxhash.query.results import RadiusMatches


class Buckets(NamedTuple):
    """Pairs of a query and a bucket near it, in no particular order."""

    queries: np.ndarray  # int64 [h], the number of the query
    addresses: np.ndarray  # uint32 [h], the address of the bucket
    firsts: np.ndarray  # int32 [h], the bucket's first position in its table
    sizes: np.ndarray | None  # int32 [h], the number of its codes; None if each has one

    @property
    def num_codes(self) -> int:
        """The number of codes in all these buckets."""
        return len(self.firsts) if self.sizes is None else int(self.sizes.sum(dtype=np.int64))


def find_buckets(table: AddressTable, queries: np.ndarray, radius: int) -> Buckets:
    """Finds the buckets with addresses within `radius` of the addresses of queries uint32 `[q, w]`."""
    masks, ends = make_flip_masks(table.bits.size, radius)
    address = extract_addresses(queries, table.bits)
    words = ((address >> np.uint32(5))[:, None] ^ masks).astype(np.intp)
    near_bits = table.bitmap.words.take(words)
    begin = 0
    for flips, end in enumerate(ends):
        left = min(radius - flips, 5)  # for the five lowest bits
        near_bits[:, begin:end] &= LOW_PATTERNS[left, address & np.uint32(31)][:, None]
        begin = end
    position = np.flatnonzero(near_bits)
    word, bit = find_set_bits(near_bits.reshape(-1)[position])
    position = position[word]
    near_addresses = (words.reshape(-1)[position].astype(np.uint32) << np.uint32(5)) | bit
    query = position // len(masks)  # numpy's divmod is several times slower than its // by a scalar
    return Buckets(query, near_addresses, *table.find_buckets(near_addresses))


def _get_probed(index: HashIndex, plan: Plan) -> list[tuple[AddressTable, int]]:
    """Returns the tables probed by a plan, each with its radius; builds missing ones."""
    return [pair for pair in zip(get_tables(index, plan.slices), plan.radii, strict=True) if pair[1] >= 0]


def probe_hits(
    index: HashIndex, queries: np.ndarray, radius: int, plan: Plan, limits: Limits = LIMITS
) -> list[Hits] | None:
    """Finds all codes within a radius of queries uint32 `[q, w]`, q below 2^13, by the tables of a plan.

    Bucket sizes are known before any code is compared, and the queries are split if comparing would take much memory.

    Returns:
        The hits of consecutive runs of queries; `None` if comparing would take longer than a scan, for example if most
        codes share a bucket.
    """
    probed = [(table, find_buckets(table, queries, table_radius)) for table, table_radius in _get_probed(index, plan)]
    total = sum(buckets.num_codes for _, buckets in probed)
    if total > limits.candidates:
        if total * limits.candidate > scan_cost(sizes_of(index), len(queries), limits):
            return None
        if len(queries) > 1:
            halves = [probe_hits(index, half, radius, plan, limits) for half in np.array_split(queries, 2)]
            return None if None in halves else [hits for half in halves for hits in half or ()]
    table, buckets = probed[0]
    if table.bits.size == index.num_bits:  # an address is a whole code and gives the distance
        differing = buckets.addresses ^ extract_addresses(queries, table.bits)[buckets.queries]
        return [sort_hits(len(queries), buckets.queries, np.bitwise_count(differing), buckets.firsts)]
    query, ranks = (np.concatenate(arrays) for arrays in zip(*(_expand(*pair) for pair in probed), strict=True))
    return [hits_among(index, queries, query, ranks, radius)]


def _expand(table: AddressTable, buckets: Buckets) -> tuple[np.ndarray, np.ndarray]:
    """Lists the query and the rank of each code in buckets."""
    query, position = buckets.queries, buckets.firsts
    if buckets.sizes is not None:
        query, position = np.repeat(query, buckets.sizes), expand_runs(position, buckets.sizes)
    return query, position if table.ranks is None else table.ranks[position]


def probe_matches(request: Request, queries: Queries, option: Option) -> Part:
    """Finds all allowed items within the radius of queries `[q, w]` by the tables of a plan."""
    plan = option.plans[0]

    def find(rows: Queries) -> RadiusMatches | None:
        hits = probe_hits(request.index, rows.words, request.radius, plan, request.limits)
        if hits is None:
            return None
        return join_matches([matches_of_hits(request.index, part, request.allowed) for part in hits])

    return in_chunks(find, queries, probe_batch_size(plan, request.limits))


def probe_one(request: Request, queries: Queries, option: Option) -> Part:
    """Implements `probe_matches` for one query with few candidates; with more, leaves it to the next method.

    In plain Python, since each of a hundred numpy calls takes as long as ten steps.
    """
    index, plan, ranks = request.index, option.plans[0], set[int]()
    for table, table_radius in _get_probed(index, plan):
        masks, _ = make_flip_masks(table.bits.size, table_radius)
        address = int(extract_addresses(queries.words[0], table.bits))
        words = masks ^ np.uint32(address >> 5)
        near_bits = table.bitmap.words[words] & make_patterns(table.bits.size, table_radius, address & 31)
        for position in near_bits.nonzero()[0].tolist():
            for first, end in _look_up(table, words.item(position), near_bits.item(position)):
                if end - first + len(ranks) > request.limits.few_candidates:
                    return mark_done(None, 1)
                ranks.update(range(first, end) if table.ranks is None else table.ranks[first:end].tolist())
    codes, query = np.asarray(index.codes).reshape(index.num_words, -1), queries.words[0].tolist()
    hits = []
    for rank in ranks:
        position = find_words(index, rank)
        distance = sum((codes.item(i, position) ^ word).bit_count() for i, word in enumerate(query))
        if distance <= request.radius:
            hits.append((distance, rank))
    distances, nearest = np.array(sorted(hits), np.int64).reshape(-1, 2).T
    return mark_done(matches_of_hits(index, Hits(np.array([0, len(hits)]), distances, nearest), request.allowed), 1)


def _look_up(table: AddressTable, word: int, bits: int) -> Iterator[tuple[int, int]]:
    """Yields the first and the end position of the bucket of each of the set `bits` of a bitmap word."""
    whole, before = table.bitmap.words.item(word), table.bitmap.directory.item(word)
    while bits:
        bit = bits & -bits
        bits ^= bit
        bucket = before + (whole & (bit - 1)).bit_count()
        yield (bucket, bucket + 1) if table.starts is None else tuple(table.starts[bucket : bucket + 2].tolist())


def probe_widening(request: Request, queries: Queries, option: Option) -> Part:
    """Finds the k nearest items of queries `[q, w]` within radius 0, 1, 2, ..., one for each plan."""
    nothing = np.zeros(0, np.int32)
    left, parts = np.arange(len(queries.words)), [(nothing, nothing, nothing)]
    for radius, plan in enumerate(option.plans):
        if not len(left):
            break
        within = replace(request, radius=radius)
        matches, _ = probe_matches(within, queries.map(operator.itemgetter(left)), option._replace(plans=(plan,)))
        enough = np.diff(matches.offsets) >= request.k
        first_k = (matches.offsets[:-1][enough][:, None] + np.arange(request.k)).reshape(-1)
        parts.append((np.repeat(left[enough], request.k), matches.distances[first_k], matches.ids[first_k]))
        left = left[~enough]
    done = np.ones(len(queries.words), bool)
    done[left] = False
    return sort_matches(len(done), *(np.concatenate(arrays) for arrays in zip(*parts, strict=True))), done
