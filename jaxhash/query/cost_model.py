"""Choosing the quickest method: by a model of costs, which the times that calls really took correct.

All methods give identical results, so the choice affects time only. `costs` holds the figures of the model, `timings`
the times.
"""

import functools
import itertools
import math
from collections.abc import Hashable
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxhash.index.address_table import Slice, longest_address
from jaxhash.index.hash_index import HashIndex, memory_of
from jaxhash.index.sharding import AnyIndex, ShardedIndex
from jaxhash.query.costs import costs
from jaxhash.query.kernels import minima_dtype
from jaxhash.query.timings import timings_of

NEAR_BYTES = 2**23  # the largest bitmap that fits the caches
# The bits of an address beyond what would number the codes, at least, even past LARGEST_TABLE: then the codes take far
# more memory than the table.
LEAST_SPARE_BITS = 2
LARGEST_TABLE = 28  # bits of an address, whose bitmap and directory take 64 MiB
MOST_PROBES = 2**16  # flip masks of one table

# Bytes for a batch of queries, beside the index and the results. Larger batches gain nothing on CPU.
QUERY_MEMORY = 2**26
MAX_QUERIES_AT_ONCE = 256


class Plan(NamedTuple):
    """The tables to probe and the radius for each, so that every match is found in at least one."""

    slices: tuple[Slice, ...]
    radii: tuple[int, ...]  # -1 for a table that is not probed
    cost: float  # nanoseconds for one query of a batch


class Option(NamedTuple):
    """A way to answer a search, and what it is estimated to take."""

    method: Any  # "scan", "host", a `Plan`, or a tuple of them
    slices: tuple[Slice, ...]  # of the tables it needs
    call: float  # nanoseconds for any number of queries
    query: float  # nanoseconds for each


class Sizes(NamedTuple):
    """The sizes that the cost of a search depends on."""

    num_items: int
    num_codes: int
    num_bits: int
    words: int  # compared in a scan, padding included


def sizes_of(index: HashIndex) -> Sizes:
    """Returns the sizes of an index; remembered, since fetching them from the device costs more than some searches."""

    def fetch() -> Sizes:
        num_items, num_codes = jax.device_get((index.num_items, index.num_codes))
        return Sizes(int(num_items), int(num_codes), index.num_bits, index.capacity * index.num_words)

    return memory_of(index).remember("sizes", fetch)


def ball_size(num_bits: int, radius: int) -> int:
    """The number of codes within a radius of a code, out of 2^num_bits."""
    return sum(math.comb(num_bits, flips) for flips in range(min(radius, num_bits) + 1))


def count_probes(size: int, radius: int) -> int:
    """Counts the words of a bitmap of 2^size addresses that one query reads; the five lowest bits share a word."""
    return ball_size(max(0, size - 5), radius)


def expected_hits(count: int, num_bits: int, radius: int) -> float:
    """The number of codes within a radius, of `count` evenly spread ones."""
    return count * ball_size(num_bits, radius) / 2**num_bits


def scan_cost(sizes: Sizes, found: float, each: float | None = None) -> float:
    """The nanoseconds of a scan for one query of a batch that finds `found` codes, at `each` a code."""
    per_word = costs().scan_word if sizes.num_bits <= 480 else 2 * costs().scan_word
    return costs().scan_query + sizes.words * per_word + found * (costs().scan_match if each is None else each)


def cut_slices(num_codes: int, num_bits: int, num_tables: int) -> tuple[Slice, ...]:
    """Divides all bits into about equal slices, and cuts off bits that would hardly make buckets smaller.

    Codes within a radius in a whole slice are so in its first bits, so cutting loses no match.
    """
    numbering = math.ceil(math.log2(max(2, num_codes)))
    longest = min(longest_address(num_codes), max(LARGEST_TABLE, numbering + LEAST_SPARE_BITS), 32)
    cuts = [num_bits * i // num_tables for i in range(num_tables + 1)]
    return tuple(Slice(first, min(end - first, longest)) for first, end in itertools.pairwise(cuts))


def divide_radius(radius: int, num_tables: int) -> tuple[int, ...]:
    """Returns the radius for each of m tables, so that no match is lost; -1 means that a table is not probed.

    Let radius = a m + c with c < m. A code that differed from the query in more than a bits of each of the first c + 1
    slices, and in at least a bits of each other slice, would be at a distance of more than the radius.
    """
    quotient, rest = divmod(radius, num_tables)
    return tuple(quotient if i <= rest else quotient - 1 for i in range(num_tables))


def plan_tables(num_codes: int, num_bits: int, radius: int, num_tables: int) -> Plan:
    """Makes the plan with `num_tables` tables, and its cost if codes spread evenly. One table is plain probing."""
    slices, radii = cut_slices(num_codes, num_bits, num_tables), divide_radius(radius, num_tables)
    cost = costs().probe_query
    for bits, reach in zip(slices, radii, strict=True):
        if reach < 0:
            continue
        probes = count_probes(bits.size, reach)
        if probes > MOST_PROBES:
            return Plan(slices, radii, math.inf)
        cost += probes * (costs().probe_near if 2**bits.size / 8 <= NEAR_BYTES else costs().probe_far)
        cost += costs().candidate * expected_hits(num_codes, bits.size, reach)
    return Plan(slices, radii, cost)


def plan_multi_index(num_codes: int, num_bits: int, radius: int, num_tables: int | None = None) -> Plan:
    """Makes the plan with `num_tables` tables, or the cheapest one with several."""
    choices = range(2, max(3, num_bits // 8 + 1)) if num_tables is None else (num_tables,)
    plans = [plan_tables(num_codes, num_bits, radius, min(choice, num_bits)) for choice in choices]
    return min(plans, key=lambda plan: plan.cost)


def plan_radius(index: HashIndex, num_queries: int, radius: int, method: str, num_tables: int | None) -> Plan | None:
    """Makes the plan for a radius search by a method; `None` means a scan."""
    options = _radius_options(sizes_of(index), radius, method, num_tables)
    chosen = choose(index, ("radius", radius), options, num_queries).method
    return chosen if isinstance(chosen, Plan) else None


@functools.lru_cache(4096)
def _radius_options(sizes: Sizes, radius: int, method: str, num_tables: int | None) -> tuple[Option, ...]:
    """The ways to search by a radius: one, if the method is named."""
    found = expected_hits(sizes.num_codes, sizes.num_bits, radius)
    scan = Option("scan", (), costs().scan_call + costs().fill_call, scan_cost(sizes, found))
    if method == "scan" or sizes.num_codes == 0:
        return (scan,)
    plans = []
    if method != "multi-index":
        plans.append(plan_tables(sizes.num_codes, sizes.num_bits, radius, num_tables=1))
    if method != "probe":
        plans.append(plan_multi_index(sizes.num_codes, sizes.num_bits, radius, num_tables))
    probes = [
        Option(plan, plan.slices, len(plan.slices) * costs().table_call + costs().fill_call, plan.cost)
        for plan in plans
        if plan.cost < math.inf
    ]
    return (scan, *probes) if method == "auto" or not probes else (probes[0],)


def choose_nearest(index: HashIndex, num_queries: int, k: int, *, host: bool) -> tuple[Option, bool]:
    """Chooses how to find the k nearest: by a "scan", by "host" if that is allowed, or by plans for growing radii.

    Returns:
        The option, and whether it is the only one.
    """
    options = _nearest_options(sizes_of(index), num_queries, k, host)
    return choose(index, ("nearest", k), options, num_queries), len(options) == 1


@functools.lru_cache(4096)
def _nearest_options(sizes: Sizes, num_queries: int, k: int, host: bool) -> tuple[Option, ...]:
    """The quicker of scan and host, which differ too little for clocks to tell, and plans."""
    options = [Option("scan", (), costs().search_call, scan_cost(sizes, k, costs().select))]
    if host and 0 < k <= sizes.num_codes:
        options.append(Option("host", (), 0.0, costs().host_query + sizes.words * costs().host_word))
    options = [min(options, key=lambda option: option.call + num_queries * option.query)]
    plans, needed, rounds = _plan_widening(sizes, k)
    if rounds:
        call = rounds * (costs().table_call + costs().fill_call)
        options.append(Option(plans, plans[0].slices, call, needed))
    return tuple(options)


def plan_widening(index: HashIndex, k: int) -> tuple[Plan, ...]:
    """Makes plans for radius 0, 1, 2, ... that together cost no more than a scan, but at least a first one, if any."""
    return _plan_widening(sizes_of(index), k, always=True)[0]


@functools.lru_cache(4096)
def _plan_widening(sizes: Sizes, k: int, *, always: bool = False) -> tuple[tuple[Plan, ...], float, int]:
    """Makes plans for radius 0, 1, 2, ... that together cost no more than a scan, or a first one `always`.

    Returns:
        The plans, the nanoseconds a query of those that are expected to find k items, and how many these are: 0 if a
        scan should be quicker.
    """
    plans: list[Plan] = []
    limit, spent, needed, rounds = scan_cost(sizes, k, costs().select), 0.0, math.inf, 0
    for radius in range(sizes.num_bits + 1 if sizes.num_codes else 0):
        plan = plan_tables(sizes.num_codes, sizes.num_bits, radius, num_tables=1)
        spent += plan.cost
        if plan.cost == math.inf or (spent > limit and (plans or not always)):
            break
        plans.append(plan)
        if not rounds and expected_hits(sizes.num_items, sizes.num_bits, radius) >= k:
            needed, rounds = spent, len(plans)
    return tuple(plans), needed, rounds


def choose_slices(index: HashIndex, radius: int | None, k: int | None) -> tuple[Slice, ...]:
    """Returns the slices of the tables that "auto" would buy for searches by a radius and for the k nearest.

    There are none where a scan is estimated to be quicker even if tables cost nothing.
    """
    sizes, slices = sizes_of(index), set[Slice]()
    searches = [] if radius is None else [_radius_options(sizes, radius, "auto", None)]
    searches += [] if k is None else [_nearest_options(sizes, 1, k, False)]
    for options in searches:
        slices.update(min(options, key=lambda option: option.query).slices)
    return tuple(sorted(slices))


def choose(index: HashIndex, search: Hashable, options: tuple[Option, ...], num_queries: int) -> Option:
    """Chooses the option that should be quickest, of which the first needs no tables.

    Missing tables are built once the time lost without them would have paid for them (the ski rental problem: rent
    until the rent equals the price). That takes at most twice the time of the best choice in hindsight.

    Args:
        index: a `HashIndex`.
        search: what is searched for. Calls that took the search and the option's method into account correct its cost.
        options: at least one.
        num_queries: the number of queries.
    """
    if len(options) == 1:
        return options[0]
    timings, memory = timings_of(index), memory_of(index)

    def cost(option: Option) -> float:
        guess = option.call + num_queries * option.query
        return timings.correct((search, option.method), num_queries, guess)

    best = min(options, key=cost)
    if not best.slices or not memory.missing(best.slices):
        return best
    ready = min((option for option in options if not memory.missing(option.slices)), key=cost)
    return best if _worth_its_tables(index, best.slices, cost(ready) - cost(best)) else ready


def _worth_its_tables(index: HashIndex, slices: tuple[Slice, ...], saved: float) -> bool:
    """Whether to build the tables that are missing, after another search in which they would have saved nanoseconds.

    The time lost without some tables pays only for these, since other searches gain nothing from them.
    """
    memory = memory_of(index)
    missing = memory.missing(slices)
    price = sum(costs().build_sorted if bits.first == 0 else costs().build for bits in missing)
    return memory.add_lost_time(slices, saved) > price * sizes_of(index).num_codes


def queries_at_once(index: AnyIndex, k: int, exponents: tuple[int, ...] = (0,)) -> int:
    """How many queries to scan together so that memory stays bounded, whatever n and k are; a power of two."""
    return _queries_at_once(index.codes.shape, index.num_shards if isinstance(index, ShardedIndex) else 0, k, exponents)


@functools.lru_cache(4096)
def _queries_at_once(shape: tuple[int, ...], num_shards: int, k: int, exponents: tuple[int, ...]) -> int:
    width, blocks, group_size, lanes = shape
    if num_shards:
        blocks //= num_shards
    gathered = 16 * k * num_shards
    minima = blocks * lanes * np.dtype(minima_dtype(width, exponents)).itemsize
    chosen = 8 * min(k, blocks) * lanes + 4 * min(k, blocks * lanes) * group_size * (width + 3)
    affordable = max(1, QUERY_MEMORY // (minima + chosen + gathered))
    return min(MAX_QUERIES_AT_ONCE, 1 << (affordable.bit_length() - 1))
