"""Limits by which a search takes the methods that a test names."""

from jaxhash.query.plan import LIMITS

# What each method costs if all else is free.
_COSTS = {"scan": "select_query", "groups": "group_query", "numpy": "numpy", "probe": "probe_table"}
_FREE = dict.fromkeys(
    (
        *("program", "compile", "read_word", "compare_word", "select_result", "numpy_word", "numpy_result"),
        *("group_result", "group_queries", "read_near", "read_far", "candidate", "build", "build_first"),
    ),
    0,
)


def prefer(*methods, **limits):
    """Limits by which these methods cost the least, the first one least of all, and tables are built at once."""
    order = [*methods, *(method for method in _COSTS if method not in methods)]
    costs = {_COSTS[method]: 10.0 ** (4 * place) for place, method in enumerate(order)}
    return LIMITS._replace(**_FREE | costs | limits)
