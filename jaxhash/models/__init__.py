"""Networks with a binary code layer, the items they take, and their file.

`jaxhash.training` trains them; nothing here knows of an index.
"""

from jaxhash.models.autoencoder import Autoencoder, summary
from jaxhash.models.convolutional import ConvAutoencoder
from jaxhash.models.encoding import encode, encode_weighted, reconstruct
from jaxhash.models.file import load_model, save_model
from jaxhash.models.patches import encode_patches, extract_patches

__all__ = [
    "Autoencoder",
    "ConvAutoencoder",
    "encode",
    "encode_patches",
    "encode_weighted",
    "extract_patches",
    "load_model",
    "reconstruct",
    "save_model",
    "summary",
]
