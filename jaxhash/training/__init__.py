"""Training of models: `fit`, objectives, and what they need. Nothing here searches."""

from jaxhash.training.augment import AffineWarp
from jaxhash.training.epoch import History
from jaxhash.training.fitting import CheckpointError, CodeWarning, DivergenceError, fit
from jaxhash.training.losses import reconstruction_loss
from jaxhash.training.objectives import Batch, Objective, Reconstruct, Retrieve
from jaxhash.training.positives import Positives
from jaxhash.training.pretraining import pretrain
from jaxhash.training.vector_objectives import GroupByKind, KeepNeighbors

__all__ = [
    "AffineWarp",
    "Batch",
    "CheckpointError",
    "CodeWarning",
    "DivergenceError",
    "GroupByKind",
    "History",
    "KeepNeighbors",
    "Objective",
    "Positives",
    "Reconstruct",
    "Retrieve",
    "fit",
    "pretrain",
    "reconstruction_loss",
]
