"""Noisy linear layers and the values of discrete actions on them (docs/specs/der.md §1.2).

Noise is an argument: standard normal numbers for a layer's inputs and its outputs, whose product is
the noise of its weights (factorised Gaussian noise, Fortunato et al. 2018).
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from mst_jax.networks.activity import Activity, activity_of
from mst_jax.networks.architecture import Activated, Architecture, Params
from mst_jax.networks.products import einsum, kernel_gradient, product
from mst_jax.networks.shared import Linear


class Noise(NamedTuple):
    """Standard normal numbers of one layer, as they are drawn; a whole batch has the same.

    Attributes:
        inputs: (I,).
        outputs: (O,).
    """

    inputs: jax.Array
    outputs: jax.Array


class ActionValues(NamedTuple):
    """What each discrete action is worth: logits of N atoms, or the value itself where N is 1.

    Attributes:
        init: key -> parameters.
        apply: parameters, features (..., F), noise or None for none -> (..., A, N).
        activity: likewise, on a batch.
        noisy: inputs and outputs of each noisy layer; empty without noise.
    """

    init: Callable[[jax.Array], Params]
    apply: Callable[[Params, jax.Array, Mapping[str, Noise] | None], jax.Array]
    activity: Callable[[Params, jax.Array, Mapping[str, Noise] | None], Activity]
    noisy: Mapping[str, tuple[int, int]]


class Noisy(nn.Module):
    """A linear layer, (..., I) -> (..., features), whose weights are a mean and a scale of noise.

    Of `kernel` [2, I, O] and `bias` [2, O] the first entry is the mean, the second the scale: one
    leaf for what is one weight.

    Attributes:
        features: O.
        std: the first scales, in units of 1 / sqrt(I).
    """

    features: int
    std: float

    @nn.compact
    def __call__(self, x: jax.Array, noise: Noise | None) -> jax.Array:
        """Applies the layer; without noise its mean."""
        inputs = x.shape[-1]
        bound = inputs**-0.5

        def init(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
            mean = jax.random.uniform(key, shape[1:], minval=-bound, maxval=bound)
            return jnp.stack([mean, jnp.full(shape[1:], self.std * bound)])

        kernel = self.param("kernel", init, (2, inputs, self.features))
        bias = self.param("bias", init, (2, self.features))
        if noise is None:
            return product(x, kernel[0]) + bias[0]
        before, after = (_signed_root(numbers) for numbers in noise)
        # The noise of a weight is a product, so no noise of a kernel's size is ever made. As one
        # product of both parts: of two, XLA moves what scales the inputs into the second, which
        # takes 3 times as long on a CPU (jaxlib 0.10.2).
        mean, scale = _products(jnp.stack([x, x * before]), kernel)
        return mean + bias[0] + (scale + bias[1]) * after


class _ActionValues(nn.Module):
    """See `make_action_values`."""

    actions: int
    atoms: int
    architecture: Architecture
    dueling: bool
    noisy_std: float | None

    @nn.compact
    def __call__(self, x: jax.Array, noise: Mapping[str, Noise] | None = None) -> jax.Array:
        arch, actions, atoms = self.architecture, self.actions, self.atoms

        def linear(x: jax.Array, features: int, name: str) -> jax.Array:
            if self.noisy_std is None:
                init = nn.initializers.xavier_uniform()
                return Linear(features, kernel_init=init, name=name)(x)
            return Noisy(features, self.noisy_std, name=name)(x, noise[name] if noise else None)

        for number in range(1, arch.depth + 1):
            x = linear(x, arch.hidden, f"layer_{number}")
            x = Activated(arch, name=f"active_{number}")(x)
        if not self.dueling:
            return linear(x, actions * atoms, "value").reshape(*x.shape[:-1], actions, atoms)
        advantage = linear(x, actions * atoms, "advantage").reshape(*x.shape[:-1], actions, atoms)
        value = linear(x, atoms, "value")[..., None, :]
        return value + advantage - jnp.mean(advantage, axis=-2, keepdims=True)


def make_action_values(
    features: int,
    actions: int,
    atoms: int,
    architecture: Architecture,
    *,
    dueling: bool,
    noisy_std: float | None,
) -> ActionValues:
    """Linear layers on features; `params` has layer_1, ..., value and, dueling, advantage.

    Args:
        features: F.
        actions: A.
        atoms: N, of a distribution of returns; 1 for their mean.
        architecture: of the hidden layers; without shortcuts.
        dueling: a layer for the value of a state beside one for the advantages of actions.
        noisy_std: the first scales of noise, in units of 1 / sqrt(inputs); None for plain layers.
    """
    module = _ActionValues(actions, atoms, architecture, dueling, noisy_std)

    def init(key: jax.Array) -> Params:
        return module.init(key, jnp.zeros(features))["params"]

    def apply(params: Params, x: jax.Array, noise: Mapping[str, Noise] | None) -> Any:
        return module.apply({"params": params}, x, noise)

    kernels = {
        name: layer["kernel"].shape
        for name, layer in jax.eval_shape(init, jax.random.key(0)).items()
    }
    return ActionValues(
        init,
        apply,
        activity_of(module, features=f"active_{architecture.depth}"),
        {} if noisy_std is None else {name: shape[1:] for name, shape in kernels.items()},
    )


def _signed_root(numbers: jax.Array) -> jax.Array:
    """What shapes factorised noise: sign(x) sqrt(|x|); the shape stays."""
    return jnp.sign(numbers) * jnp.sqrt(jnp.abs(numbers))


@jax.custom_vjp
def _products(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Each part of x (P, ..., I) times its part of a kernel [P, I, O]: (P, ..., O).

    JAX's own gradient of a kernel is that of the transposed kernel, transposed; of several seeds
    under `vmap` that is a pass over memory of its own, which takes longer than the product.
    """
    return einsum("p...i,pio->p...o", x, kernel)


def _products_forward(
    x: jax.Array, kernel: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _products(x, kernel), (x, kernel)


def _products_backward(
    read: tuple[jax.Array, jax.Array], grads: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, kernel = read
    of_inputs = einsum("p...o,pio->p...i", grads, kernel)
    return of_inputs, kernel_gradient("p...i,p...o->pio", x, grads)


_products.defvjp(_products_forward, _products_backward)
