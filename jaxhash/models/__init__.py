"""Models with a binary code layer: autoencoders, encoders, their inputs and their files.

- Images: `Autoencoder(input_dim, num_bits)`, or `ConvAutoencoder` for large or color images. Pixels are uint8, or
  floats in [0, 1].
- Photographs: `PatchEncoder(image_shape, num_bits)`, which first learns a dictionary of patches and has no decoder; or
  `Embedded(network, model)`, which applies a pretrained network before a model of vectors.
- Vectors: `Autoencoder(d, num_bits, hidden_dims=(), output_activation="linear")`. `fit` measures the shift and scale of
  the vectors, and the model stores them.
- Documents: `Autoencoder(num_words, num_bits, output_activation="softmax")`, with word counts as floats, for example
  from scikit-learn's `CountVectorizer`. The outputs are a distribution over words. The loss is the cross-entropy of the
  words, weighted by their counts. The code does not depend on the length of a document.

All are `Encoder`s: they map items to code logits and threshold these at their means in training. An `Autoencoder` also
has a decoder, which `reconstruct` requires.

`encode` takes arrays, memory-mapped `.npy` files and batches. Codes of different models are not comparable: after
retraining, encode and build again. Between CPU and GPU, codes can differ if a logit is within rounding of 0.

`jaxhash.training` trains models.
"""

from jaxhash.models.autoencoder import Autoencoder, summary
from jaxhash.models.code_layer import CodeLayer, straight_through_round
from jaxhash.models.convolutional import ConvAutoencoder
from jaxhash.models.embedded import Embedded
from jaxhash.models.encoder import Encoder
from jaxhash.models.encoding import encode, encode_weighted, reconstruct
from jaxhash.models.file import load_model, save_model
from jaxhash.models.patch_encoder import PatchEncoder
from jaxhash.models.patches import encode_patches, extract_patches

__all__ = [
    "Autoencoder",
    "CodeLayer",
    "ConvAutoencoder",
    "Embedded",
    "Encoder",
    "PatchEncoder",
    "encode",
    "encode_patches",
    "encode_weighted",
    "extract_patches",
    "load_model",
    "reconstruct",
    "save_model",
    "straight_through_round",
    "summary",
]
