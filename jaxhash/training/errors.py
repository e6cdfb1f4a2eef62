"""Errors that end training, which hold the model as far as it got."""

from jaxhash.models.encoder import Encoder
from jaxhash.training.epoch import History


class DivergenceError(FloatingPointError):
    """The training loss became infinite or not a number.

    Attributes:
        model: as it was after the last good epoch; `None` if unknown.
        history: of the good epochs.
    """

    def __init__(self, message: str, model: Encoder | None = None, history: History | None = None):
        super().__init__(message)
        self.model = model
        self.history = History() if history is None else history


class CheckpointError(OSError):
    """A checkpoint could not be written; the error holds the trained model.

    Attributes:
        model: as it was at the end of the epoch that should have been saved.
        history: up to then.
    """

    def __init__(self, error: OSError, model: Encoder, history: History):
        super().__init__(error.errno, error.strerror, error.filename)
        self.model, self.history = model, history
