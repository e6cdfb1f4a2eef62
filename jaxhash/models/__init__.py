"""Networks with a binary code layer, the items they take, and their file.

- Images: `Autoencoder(input_dim, num_bits)`, for items of one size, or `ConvAutoencoder` for large or coloured ones.
  Pixels are uint8, or floats in [0, 1].
- Photographs: `PatchEncoder(image_shape, num_bits)`, which learns a dictionary of patches first and has no decoder; or
  a trained network of yours before a model of vectors, by `Embedded(network, model)`.
- Vectors: `Autoencoder(d, num_bits, hidden_dims=(), output_activation="linear")`. `fit` measures the shift and scale of
  the vectors, and the model holds them.
- Documents: `Autoencoder(num_words, num_bits, output_activation="softmax")`, with word counts as floats, for example
  from scikit-learn's `CountVectorizer`. The outputs are a distribution over words, the loss is the cross-entropy of a
  document's words weighted by their counts, and the length of a document has no influence on its code.

All are `Encoder`s: they map items to code logits, and these to bits by thresholds, the logits' means in training. An
`Autoencoder` also has a decoder, which `reconstruct` needs.

`encode` takes arrays, mapped `.npy` files and batches. Codes belong to the model that made them: with another model,
encode and build again. Between CPU and GPU, codes may differ for items whose logits lie within rounding of 0.

`jaxhash.training` trains models; nothing here knows of an index.
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
