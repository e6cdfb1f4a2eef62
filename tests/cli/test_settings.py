import numpy as np

import jaxhash as jh
from jaxhash.cli import settings
from jaxhash.cli.settings import choose_settings


def make_photos(count, side=4):
    photos = np.zeros((count, side, side, 3), np.uint8)
    photos[..., 0] = 1
    return photos


def test_settings_follow_from_the_items():
    photos, grays, vectors = make_photos(200), np.zeros((200, 4, 4, 3), np.uint8), np.zeros((200, 16), np.float32)
    chosen = [choose_settings(values, 8) for values in (photos, grays, vectors)]
    assert [type(each.model) for each in chosen] == [jh.PatchEncoder, jh.ConvAutoencoder, jh.Autoencoder]
    assert [each.objective for each in chosen] == [
        jh.training.Retrieve(),
        jh.training.Retrieve(),
        jh.training.KeepNeighbors(),
    ]
    duplicates = choose_settings(photos, 8, finds_duplicates=True)
    assert (type(duplicates.model), duplicates.objective) == (jh.ConvAutoencoder, jh.training.FindDuplicates())


def test_few_items_or_dimensions_are_reconstructed():
    for values in (
        make_photos(199),
        np.zeros((199, 16), np.float32),
        np.zeros((200, 15), np.float32),
    ):
        few = choose_settings(values, 8)
        assert few.objective == jh.training.Reconstruct()
        assert isinstance(few.model, jh.Autoencoder)


def test_epochs_come_to_the_usual_number_of_steps():
    def epochs(images):
        return choose_settings(images, 8).epochs

    grays = [np.zeros((count, 1, 1, 1), np.uint8) for count in (200, 2000, 10**6)]
    assert [*map(epochs, grays)] == [400, 50, settings.MIN_EPOCHS]
    photos = [make_photos(count, 1) for count in (2000, 50_000, 200_000, 10**6)]
    assert [*map(epochs, photos)] == [40, 40, 10, settings.MIN_EPOCHS]
