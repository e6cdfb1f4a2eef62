"""Objectives that `fit` accepts by name."""

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
    """Resolves a name, or checks a given objective, for codes of `num_bits` bits."""
    if isinstance(objective, str) and objective in OBJECTIVES:
        return OBJECTIVES[objective]
    if isinstance(objective, str):
        raise ValueError(f"objective must be one of {', '.join(OBJECTIVES)}, got {objective!r}")
    if not isinstance(objective, Objective):
        raise TypeError(
            f"objective must be one of {', '.join(OBJECTIVES)}, or an object such as Retrieve() whose class inherits "
            f"from jaxhash.training.Objective and has a __call__(model, batch, key, layer), got {objective!r}"
        )
    try:
        hash(objective)
    except TypeError as error:
        raise TypeError(f"objective must be hashable, such as a frozen dataclass: {error}") from None
    if objective.short_bits is not None and objective.short_bits > num_bits:
        raise ValueError(f"short_bits must be at most the model's {num_bits} bits, got {objective.short_bits}")
    return objective
