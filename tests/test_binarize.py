import jax
import jax.numpy as jnp
import numpy as np

from jaxhash import straight_through_round
from jaxhash.binarize import straight_through


def test_values_are_rounded_exactly():
    x = jnp.array([0.0, 0.2, 0.49, 0.5, 0.51, 0.999, 1.0, -0.7, 1.5, 2.5], jnp.float32)
    np.testing.assert_array_equal(straight_through_round(x), [0, 0, 0, 0, 1, 1, 1, -1, 2, 2])


def test_values_are_exact_where_the_familiar_form_is_not():
    x = jnp.linspace(0, 1, 100_001, dtype=jnp.float32)
    signs = -jnp.ones_like(x)
    assert (x + (signs - x) != signs).any()
    assert (straight_through(x, signs) == signs).all()
    assert jnp.isin(straight_through_round(x), jnp.array([0.0, 1.0])).all()


def test_gradient_is_that_of_the_identity():
    x = jnp.array([-1.2, 0.0, 0.3, 0.5, 0.8], jnp.float32)
    np.testing.assert_array_equal(jax.vmap(jax.grad(straight_through_round))(x), jnp.ones(5))
    weights = jnp.array([3.0, -1.0, 2.0, 0.5, 7.0])
    np.testing.assert_array_equal(jax.grad(lambda x: (weights * straight_through_round(x)).sum())(x), weights)


def test_gradient_flows_on_through_what_comes_before():
    slope = jax.grad(lambda x: straight_through_round(jax.nn.sigmoid(x)))
    np.testing.assert_array_equal(slope(0.4), jax.grad(jax.nn.sigmoid)(0.4))
