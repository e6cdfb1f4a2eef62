"""Training: `fit`, its objectives, augmentations, errors and warnings.

- Objectives: "reconstruct" rebuilds each item. "retrieve" gives similar images similar codes. "keep_neighbors"
  preserves the nearest neighbors of vectors; "group_by_kind" gives similar vectors similar codes. "find_duplicates"
  matches changed copies of an image. None takes labels. Each name stands for an object with settings (`Retrieve`,
  `KeepNeighbors`, ...). To write another, see their base class `Objective`. `AffineWarp` augments drawings,
  `PhotoWarp` photographs.
- Data: `fit` also takes memory-mapped `.npy` files and batches from a data loader. Batches are iterated once to count
  them, then once per epoch in runs of 128 MiB. Items are shuffled within a run, so they should not come sorted. A
  generator can be iterated only once, so it serves for one epoch.
- Checkpoints: `fit(..., checkpoint="training.npz")` writes a file after each epoch. After an interruption the same
  call resumes, and ends with the same bits as an uninterrupted run on the same machine.
- A loss that is not finite raises `DivergenceError`, which holds the last good model. Constant or duplicated bits give
  a `CodeWarning`.
- `binarization` selects how training makes bits: "rounding" (Krizhevsky and Hinton), "gaussian_noise" ("Semantic
  Hashing") or "stochastic" bits. `tests/benchmarks/README.md` compares them.
"""

from jaxhash.models.code_layer import CodeLayer
from jaxhash.training.advice import CodeWarning, QualityWarning
from jaxhash.training.augment import AffineWarp, PhotoWarp
from jaxhash.training.duplicates import FindDuplicates
from jaxhash.training.epoch import History
from jaxhash.training.errors import CheckpointError, DivergenceError
from jaxhash.training.fitting import fit
from jaxhash.training.losses import reconstruction_loss
from jaxhash.training.objectives import Batch, Objective, Reconstruct, Retrieve
from jaxhash.training.positives import Positives
from jaxhash.training.vector_objectives import GroupByKind, KeepNeighbors

__all__ = [
    "AffineWarp",
    "Batch",
    "CheckpointError",
    "CodeLayer",
    "CodeWarning",
    "DivergenceError",
    "FindDuplicates",
    "GroupByKind",
    "History",
    "KeepNeighbors",
    "Objective",
    "PhotoWarp",
    "Positives",
    "QualityWarning",
    "Reconstruct",
    "Retrieve",
    "fit",
    "reconstruction_loss",
]
