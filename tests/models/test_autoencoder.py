import jax
import numpy as np
import pytest
from flax import nnx

import jaxhash as jh


def test_the_posts_network_has_the_posts_number_of_parameters(capsys):
    model = jh.Autoencoder(784, 17)
    assert sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param))) == 3_508_301
    jh.summary(model)
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].split() == ["total", "3,508,301"]
    assert [line.split()[-1] for line in lines[2:8]] == ["785,000", "700,700", "210,300", "45,150", "11,325", "1,292"]
    assert "(n, 17)" in lines[7]


def test_a_network_without_hidden_layers_works():
    model, images = jh.Autoencoder(12, 5, ()), np.zeros((30, 3, 4), np.uint8)
    assert jh.encode(model, images).shape == (30, 1)
    assert jh.reconstruct(model, images).shape == images.shape


def test_outputs_start_at_the_items_mean_unless_trained():
    model = jh.Autoencoder(3, 4, (5,))
    model.init_output_bias(np.array([0.25, 0.5, 0.0]))
    start = np.asarray(model.output_bias[...])
    np.testing.assert_allclose(jax.nn.sigmoid(start), [0.25, 0.5, 0.001], rtol=1e-5)
    model.init_output_bias(np.array([0.9, 0.9, 0.9]))
    np.testing.assert_array_equal(model.output_bias[...], start)
    linear = jh.Autoencoder(2, 4, (5,), output_activation="linear")
    linear.init_output_bias(np.array([-7.0, 7.0]))
    np.testing.assert_array_equal(linear.output_bias[...], [-7.0, 7.0])


@pytest.mark.parametrize(
    ("arguments", "options", "error"),
    [
        ((0, 17), {}, ValueError),
        ((784, 0), {}, ValueError),
        ((784, True), {}, TypeError),
        ((784.0, 17), {}, TypeError),
        ((784, 17, (10, 0)), {}, ValueError),
        ((784, 17, (10, 2.5)), {}, TypeError),
        ((784, 17, ()), {"output_activation": "sigmoidal"}, ValueError),
    ],
)
def test_impossible_networks_are_refused(arguments, options, error):
    with pytest.raises(error, match="must"):
        jh.Autoencoder(*arguments, **options)
