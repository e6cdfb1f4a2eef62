"""Training of models: `fit`, the objectives it takes, and what they need.

Models, not indexes, come out of it; nothing here searches.
"""

from jaxhash.training.augment import AffineWarp
from jaxhash.training.epoch import History
from jaxhash.training.fitting import CheckpointError, CodeWarning, DivergenceError, fit, reconstruction_loss
from jaxhash.training.objectives import Reconstruct, Retrieve
from jaxhash.training.pretraining import pretrain

__all__ = [
    "AffineWarp",
    "CheckpointError",
    "CodeWarning",
    "DivergenceError",
    "History",
    "Reconstruct",
    "Retrieve",
    "fit",
    "pretrain",
    "reconstruction_loss",
]
