"""Which method answers soonest: a cost model in nanoseconds, as measured on a CPU with two cores and AVX-512.

All methods give identical results, so the model decides about time alone. On other machines the figures differ, but
they stand in proportions that change little.
"""

import functools
import itertools
import math
from typing import NamedTuple

import jax

from jaxhash.index.hash_index import HashIndex, memory_of
from jaxhash.index.sharding import AnyIndex, ShardedIndex
from jaxhash.query.address_table import Slice

# Nanoseconds. What a call takes, however many queries it has:
SCAN_CALL = 60_000.0  # to run the compiled scan
TABLE_CALL = 40_000.0  # to probe one table
FILL_CALL = 60_000.0  # to put matches together
# And what each query or code takes in a large batch:
SCAN_WORD = 0.02  # to compare one word of a code in the scan
SELECT = 700.0  # to pick one of the nearest from the minima
SCAN_QUERY, PROBE_QUERY = 2_000.0, 500.0  # what a query takes in any case
SCAN_MATCH = 150.0  # to find one match among the codes of its group
PROBE_NEAR, PROBE_FAR = 1.0, 6.0  # to read one word of a bitmap that fits the caches, or does not
CANDIDATE = 60.0  # to look at one code of a bucket
BUILD = 200.0  # to sort one code into a table
BUILD_SORTED = 20.0  # to enter one code into the table of the first bits

NEAR_BYTES = 2**23
SPARE_BITS = 6  # how much longer an address is than would number the codes
LARGEST_TABLE = 28  # bits of address; its bitmap and directory take 64 MiB. More only where codes take far more
LEAST_SPARE_BITS = 2  # how much longer than would number the codes it is even so
MOST_PROBES = 2**16  # flip masks of one table

# Bytes that a batch of queries may take beside the index and the answer. Larger batches gain nothing on CPU.
QUERY_MEMORY = 2**26
MAX_QUERIES_AT_ONCE = 256


class Plan(NamedTuple):
    """Tables to probe, and how far in each; no code within the radius escapes all of them."""

    slices: tuple[Slice, ...]
    radii: tuple[int, ...]
    cost: float  # nanoseconds for one query of a batch


class Sizes(NamedTuple):
    """What the cost of a search depends on."""

    num_items: int
    num_codes: int
    num_bits: int
    words: int  # to compare in a scan, padding included


def sizes_of(index: HashIndex) -> Sizes:
    """The sizes of an index; remembered, since fetching numbers from the device costs more than some searches."""

    def fetch() -> Sizes:
        num_items, num_codes = jax.device_get((index.num_items, index.num_codes))
        return Sizes(int(num_items), int(num_codes), index.num_bits, index.capacity * index.num_words)

    return memory_of(index).remember("sizes", fetch)


def ball_size(num_bits: int, radius: int) -> int:
    """How many of the 2^num_bits codes lie within a radius of any one."""
    return sum(math.comb(num_bits, flips) for flips in range(min(radius, num_bits) + 1))


def num_probes(size: int, radius: int) -> int:
    """How many words of a bitmap of 2^size addresses are read for one query: its five lowest bits share a word."""
    return ball_size(max(0, size - 5), radius)


def expected_hits(count: int, num_bits: int, radius: int) -> float:
    """How many of `count` evenly spread codes lie within a radius."""
    return count * ball_size(num_bits, radius) / 2**num_bits


def scan_cost(sizes: Sizes, found: float, pick: float = SCAN_MATCH) -> float:
    """Nanoseconds of a scan for one query of a batch that finds so many codes."""
    per_word = SCAN_WORD if sizes.num_bits <= 480 else 2 * SCAN_WORD
    return SCAN_QUERY + sizes.words * per_word + found * pick


def even_slices(num_codes: int, num_bits: int, num_tables: int) -> tuple[Slice, ...]:
    """Slices that part all bits into about equal shares, each cut off where more address would find no fewer codes.

    What is within some distance in a whole share is so in the first bits of it, so cutting loses no match; it bounds
    a table to some 16 to 32 bytes for each code, beside what `tables` says.
    """
    numbering = math.ceil(math.log2(max(2, num_codes)))
    longest = min(max(8, numbering + SPARE_BITS), max(LARGEST_TABLE, numbering + LEAST_SPARE_BITS), 32)
    cuts = [num_bits * i // num_tables for i in range(num_tables + 1)]
    return tuple(Slice(first, min(end - first, longest)) for first, end in itertools.pairwise(cuts))


def slice_radii(radius: int, num_tables: int) -> tuple[int, ...]:
    """How far to probe in each table so that no match is lost; -1 means not at all.

    With radius = a m + c: if the first c + 1 slices differed in more than a bits each, and the others in a or more,
    a code would differ in more than radius bits.
    """
    quotient, rest = divmod(radius, num_tables)
    return tuple(quotient if i <= rest else quotient - 1 for i in range(num_tables))


def plan_of(num_codes: int, num_bits: int, radius: int, num_tables: int) -> Plan:
    """The plan with so many tables, and what it costs if codes spread evenly. One table is plain probing."""
    slices, radii = even_slices(num_codes, num_bits, num_tables), slice_radii(radius, num_tables)
    cost = PROBE_QUERY
    for bits, reach in zip(slices, radii, strict=True):
        if reach < 0:
            continue
        probes = num_probes(bits.size, reach)
        if probes > MOST_PROBES:
            return Plan(slices, radii, math.inf)
        cost += probes * (PROBE_NEAR if 2**bits.size / 8 <= NEAR_BYTES else PROBE_FAR)
        cost += CANDIDATE * expected_hits(num_codes, bits.size, reach)
    return Plan(slices, radii, cost)


def multi_index_plan(num_codes: int, num_bits: int, radius: int, num_tables: int | None = None) -> Plan:
    """The plan with several tables: with as many as given, or as cost least."""
    choices = range(2, max(3, num_bits // 8 + 1)) if num_tables is None else (num_tables,)
    plans = [plan_of(num_codes, num_bits, radius, min(choice, num_bits)) for choice in choices]
    return min(plans, key=lambda plan: plan.cost)


def plan_radius(index: HashIndex, num_queries: int, radius: int, method: str, num_tables: int | None) -> Plan | None:
    """The plan for a radius search by a method of that name; `None` stands for a scan."""
    sizes = sizes_of(index)
    plan, saved = _plan_radius(sizes, radius, method, num_tables)
    if plan is None:
        return None
    saved = num_queries * saved + SCAN_CALL - len(plan.slices) * TABLE_CALL
    return plan if method != "auto" or _worth_its_tables(index, plan, saved) else None


@functools.lru_cache(4096)
def _plan_radius(sizes: Sizes, radius: int, method: str, num_tables: int | None) -> tuple[Plan | None, float]:
    """The best plan that the method allows, if any, and how much sooner than a scan it answers a query."""
    if method == "scan" or sizes.num_codes == 0:
        return None, 0.0
    plans = []
    if method != "multi-index":
        plans.append(plan_of(sizes.num_codes, sizes.num_bits, radius, num_tables=1))
    if method != "probe":
        plans.append(multi_index_plan(sizes.num_codes, sizes.num_bits, radius, num_tables))
    plan = min(plans, key=lambda plan: plan.cost)
    saved = scan_cost(sizes, expected_hits(sizes.num_codes, sizes.num_bits, radius)) - plan.cost
    if plan.cost == math.inf or (method == "auto" and saved <= 0):
        return None, 0.0
    return plan, saved


def plan_widening(index: HashIndex, num_queries: int, k: int, method: str) -> tuple[Plan, ...]:
    """Plans for radius 0, 1, 2, ... that together cost no more than a scan; none if a scan should be quicker."""
    plans, saved, rounds = _plan_widening(sizes_of(index), k, method)
    saved = num_queries * saved + SCAN_CALL - rounds * (TABLE_CALL + FILL_CALL)
    return plans if method != "auto" or (plans and _worth_its_tables(index, plans[0], saved)) else ()


@functools.lru_cache(4096)
def _plan_widening(sizes: Sizes, k: int, method: str) -> tuple[tuple[Plan, ...], float, int]:
    """The plans, how much sooner than a scan they answer a query, and how many of them that takes."""
    if sizes.num_codes == 0:
        return (), 0.0, 0
    plans: list[Plan] = []
    limit, spent, needed, rounds = scan_cost(sizes, k, SELECT), 0.0, math.inf, 0
    for radius in range(sizes.num_bits + 1):
        plan = plan_of(sizes.num_codes, sizes.num_bits, radius, num_tables=1)
        spent += plan.cost
        if plan.cost == math.inf or (spent > limit and (method == "auto" or plans)):
            break
        plans.append(plan)
        if needed == math.inf and expected_hits(sizes.num_items, sizes.num_bits, radius) >= k:
            needed, rounds = spent, len(plans)
    if method == "auto" and needed == math.inf:
        return (), 0.0, 0
    return tuple(plans), limit - needed, rounds


def _worth_its_tables(index: HashIndex, plan: Plan, saved: float) -> bool:
    """Whether to use a plan that saves so many nanoseconds in this search, though its tables may have to be built.

    Tables are built once the time lost without them would have paid for them, as one should rent skis until the rent
    equals the price: that never takes more than twice the time of knowing the future. A plan's lost time pays for its
    own tables alone: a search that would need others has gained nothing from these.
    """
    if saved <= 0:
        return False
    memory = memory_of(index)
    missing = memory.missing(plan.slices)
    if not missing:
        return True
    price = sum(BUILD_SORTED if bits.first == 0 else BUILD for bits in plan.slices if bits in missing)
    return memory.add_lost_time(plan.slices, saved) > price * sizes_of(index).num_codes


def queries_at_once(index: AnyIndex, k: int) -> int:
    """How many queries to scan together so that memory stays bounded, whatever n and k are; a power of two."""
    width, blocks, group_size, lanes = index.codes.shape
    gathered = 0
    if isinstance(index, ShardedIndex):
        blocks //= index.num_shards
        gathered = 16 * k * index.num_shards
    minima = blocks * lanes * (1 if width < 8 else 2)
    chosen = 8 * min(k, blocks) * lanes + 4 * min(k, blocks * lanes) * group_size * (width + 3)
    affordable = max(1, QUERY_MEMORY // (minima + chosen + gathered))
    return min(MAX_QUERIES_AT_ONCE, 1 << (affordable.bit_length() - 1))
