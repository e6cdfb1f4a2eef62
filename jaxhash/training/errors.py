"""Errors that end training and hold the last good model."""

from jaxhash.models.encoder import Encoder
from jaxhash.training.epoch import History


class DivergenceError(FloatingPointError):
    """The training loss became infinite or not a number.

    Attributes:
        model: after the last good epoch; `None` if unknown.
        history: of the good epochs.
    """

    def __init__(self, message: str, model: Encoder | None = None, history: History | None = None):
        super().__init__(message)
        self.model = model
        self.history = History() if history is None else history


class CheckpointError(OSError):
    """A checkpoint could not be written; the error holds the trained model.

    Attributes:
        model: after the epoch that could not be saved.
        history: up to this epoch.
    """

    def __init__(self, error: OSError, model: Encoder, history: History):
        super().__init__(error.errno, error.strerror, error.filename)
        self.model, self.history = model, history
