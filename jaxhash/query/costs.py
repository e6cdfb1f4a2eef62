"""What the steps of a search take on the machines they were measured on, in nanoseconds.

`tests/benchmarks/calibrate.py` measures them and prints a row of the table. Vectors decide: where the processor counts
the bits of a whole vector at once (AVX-512 VPOPCNTDQ), a scan is several times as quick. So a processor that is not in
the table takes the first row of its kind in that respect.
"""

import functools
import platform
from pathlib import Path
from typing import NamedTuple


class Costs(NamedTuple):
    """Nanoseconds, for two cores."""

    counts_in_vectors: bool  # whether the processor counts the bits of vectors
    # For each call, for any number of queries:
    scan_call: float  # to run the compiled scan, for matches within a radius
    search_call: float  # to run the compiled search for the nearest
    table_call: float  # to probe one table
    fill_call: float  # to collect the matches
    # In a large batch:
    scan_word: float  # to compare one word of a code in the scan
    select: float  # to select one of the nearest from the minima
    scan_query: float  # for each query of a scan, whatever it finds
    probe_query: float  # for each query of a probe
    scan_match: float  # to find one match among the codes of its group
    probe_near: float  # to read one word of a bitmap that fits the caches
    probe_far: float  # to read one word of a larger bitmap
    candidate: float  # to compare one code of a bucket
    build: float  # to sort one code into a table
    build_sorted: float  # to enter one code into the table of the first bits
    # For a query by itself, in numpy:
    host_query: float  # for the calls of numpy
    host_word: float  # to compare one word of a code


MACHINES = {
    "Intel Xeon (Sapphire Rapids)": Costs(
        counts_in_vectors=True,
        scan_call=60_000,
        search_call=16_000,
        table_call=40_000,
        fill_call=60_000,
        scan_word=0.02,
        select=700,
        scan_query=2_000,
        probe_query=500,
        scan_match=150,
        probe_near=1,
        probe_far=6,
        candidate=60,
        build=60,
        build_sorted=40,
        host_query=25_000,
        host_word=0.5,
    ),
    "AMD EPYC": Costs(  # Zen 3
        counts_in_vectors=False,
        scan_call=350_000,
        search_call=190_000,
        table_call=60_000,
        fill_call=65_000,
        scan_word=0.11,
        select=750,
        scan_query=1_700,
        probe_query=50,
        scan_match=170,
        probe_near=2.9,
        probe_far=13,
        candidate=17,
        build=26,
        build_sorted=26,
        host_query=140_000,
        host_word=0.6,
    ),
}


@functools.cache
def costs() -> Costs:
    """The costs on this machine, or on the machine of the table that is most like it."""
    name, counts_in_vectors = describe_processor()
    # Names alone don't tell: hosts give one to several generations of processors.
    alike = {key: row for key, row in MACHINES.items() if row.counts_in_vectors == counts_in_vectors}
    return alike.get(name) or next(iter(alike.values()))


def describe_processor() -> tuple[str, bool]:
    """The name of the processor, and whether it counts the bits of vectors; `False` where that can't be told."""
    try:
        text = Path("/proc/cpuinfo").read_text(errors="replace")
    except OSError:
        return platform.processor() or platform.machine(), False
    return read_description(text) or (platform.machine(), False)


def read_description(text: str) -> tuple[str, bool] | None:
    """The name and kind of the first processor that Linux describes, if it names one."""
    lines = (line.partition(":") for line in text.splitlines())
    fields = {key.strip(): value.strip() for key, _, value in reversed(list(lines))}
    if "model name" not in fields:
        return None
    return fields["model name"], "avx512_vpopcntdq" in fields.get("flags", "").split()
