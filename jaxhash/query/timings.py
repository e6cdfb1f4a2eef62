"""How long the searches of an index really took, by which the guesses of the cost model are corrected.

All methods give identical results, so clocks may decide. What a guess can't know is how the codes lie: in clusters,
buckets hold far more candidates than if codes were spread evenly.
"""

import time
from collections.abc import Hashable

from jaxhash.index.hash_index import HashIndex, memory_of

# The nanoseconds since some moment; a name of its own so that tests can set the clock.
clock = time.perf_counter_ns

# A figure is the median of so many: fewer than half that are far off, by chance, change nothing.
WINDOW = 3


class Timings:
    """The running figures of one index: for each method, the time of a call for about so many queries.

    The first call counts nothing, since it compiles programs and builds tables.
    """

    def __init__(self) -> None:
        self._last: dict[Hashable, tuple[float, ...]] = {}

    def correct(self, method: Hashable, num_queries: int, guess: float) -> float:
        """The nanoseconds that a call takes, from a guess and the last times, as far as there are any.

        Until there are enough, the guess stands in for each that is missing.
        """
        last = self._last.get((method, num_queries.bit_length()))
        if not last:
            return guess
        taken = [each * num_queries for each in last] + [guess] * (WINDOW - len(last))
        return sorted(taken)[WINDOW // 2]

    def add(self, method: Hashable, num_queries: int, nanoseconds: float) -> None:
        """Takes a call into account."""
        key = method, num_queries.bit_length()
        last = self._last.get(key)
        self._last[key] = () if last is None else (*last, nanoseconds / num_queries)[-WINDOW:]

    def is_settled(self, method: Hashable, num_queries: int) -> bool:
        """Whether there are enough times."""
        return len(self._last.get((method, num_queries.bit_length()), ())) == WINDOW


def timings_of(index: HashIndex) -> Timings:
    """The running figures of an index, which live as long as it."""
    return memory_of(index).remember("timings", Timings)


class timed:  # noqa: N801 (used as a function)
    """Times the block of a `with` statement as a call of a method for so many queries, unless it raises."""

    def __init__(self, index: HashIndex, method: Hashable, num_queries: int) -> None:
        self._timings, self._method, self._num_queries = timings_of(index), method, num_queries

    def __enter__(self) -> None:
        self._start = clock()

    def __exit__(self, error: object, *_: object) -> None:
        if error is None and self._num_queries:
            self._timings.add(self._method, self._num_queries, clock() - self._start)
