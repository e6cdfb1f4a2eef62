"""The objectives that `fit` takes by name."""

from typing import Any

from jaxhash.training.duplicates import FindDuplicates
from jaxhash.training.objectives import Objective, Reconstruct, Retrieve
from jaxhash.training.vector_objectives import GroupByKind, KeepNeighbors

OBJECTIVES: dict[str, Objective] = {
    "reconstruct": Reconstruct(),
    "retrieve": Retrieve(),
    "keep_neighbors": KeepNeighbors(),
    "group_by_kind": GroupByKind(),
    "find_duplicates": FindDuplicates(),
}


def check_objective(objective: Any, num_bits: int) -> Objective:
    """Returns the objective of a name, or the one given, for codes of so many bits."""
    if isinstance(objective, str) and objective in OBJECTIVES:
        return OBJECTIVES[objective]
    if isinstance(objective, type) or not isinstance(objective, Objective):
        raise ValueError(
            f"objective must be one of {', '.join(OBJECTIVES)}, or an object with the methods "
            "find_positives(items, seed) and __call__(model, batch, key, layer), such as Retrieve() (see "
            f"jaxhash.training.Objective), got {objective!r}"
        )
    try:
        hash(objective)
    except TypeError as error:
        raise TypeError(f"objective must be hashable, such as a frozen dataclass: {error}") from None
    short_bits = getattr(objective, "short_bits", None)
    if short_bits is not None and short_bits > num_bits:
        raise ValueError(f"short_bits must be at most the model's {num_bits} bits, got {short_bits}")
    return objective
