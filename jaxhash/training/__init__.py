"""Training of models: `fit`, objectives, and what they need. Nothing here searches.

- Objectives say what codes are for: "reconstruct" rebuilds each item; "retrieve" brings similar images together;
  "keep_neighbors" keeps the order of near vectors, and "group_by_kind" brings similar vectors together;
  "find_duplicates" tells an image's changed copies from all other images. None takes labels. Each name stands for an
  object with settings (`Retrieve`, `KeepNeighbors`, ...); `Objective` is their base class and says how to write
  another. `AffineWarp` changes drawings in training, `PhotoWarp` photographs.
- `fit` also takes batches, from a data loader, and mapped `.npy` files without reading them whole. Batches are gone
  through once to count them and once in each epoch, in runs of 128 MiB, within which items are shuffled; they should
  not come sorted. A generator can be gone through only once, so it serves for one epoch.
- `fit(..., checkpoint="training.npz")` writes a file at the end of each epoch. If the process ends, the same call goes
  on from there, and the model has the same bits as after an undisturbed run on the same machine.
- A loss that is not finite raises `DivergenceError`, which holds the last good model. Bits that are constant, or copies
  of others, give a `CodeWarning`.
- `binarization` says how the code layer becomes binary in training: by "rounding", as Krizhevsky and Hinton do, by
  "gaussian_noise", after "Semantic Hashing", or by "stochastic" bits. What each gives: `tests/benchmarks/README.md`.
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
