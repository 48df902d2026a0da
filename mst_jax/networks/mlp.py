"""The multi-layer perceptron of every module, with the three architectural switches of MST.

Activation, normalisation and residual form are settings (docs/specs/mst-and-mrq.md §2). Layer norm
has no learnable scale or offset, so all variants of one width have the same number of parameters;
SimBa's blocks (`residual="simba"`) are a network of their own.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from mst_jax.networks import simba

Params = dict[str, Any]
Residual = Literal["none", "pre", "post", "branch", "simba"]

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {"elu": nn.elu, "relu": nn.relu}
RESIDUALS: tuple[Residual, ...] = ("none", "pre", "post", "branch", "simba")

xavier_uniform_relu = nn.initializers.variance_scaling(2.0, "fan_avg", "uniform")


@dataclass(frozen=True)
class Architecture:
    """What one module's hidden layers look like.

    Attributes:
        hidden: width of the hidden layers.
        depth: number of hidden layers; with `simba`, of blocks.
        activation: a key of `ACTIVATIONS`.
        norm: whether layer norm precedes each activation; with `simba`, each block and the end.
        residual: `none`, `pre` (the shortcut carries values before norm and activation), `post`
            (the sum is formed before norm and activation, so the shortcut passes through them),
            `branch` (the shortcut carries activated values around layer, norm and activation;
            §2.3) or `simba` (residual blocks, docs/specs/network-sparsity.md §2.1).
    """

    hidden: int
    depth: int
    activation: str
    norm: bool = True
    residual: Residual = "none"

    def nonlinearity(self, x: jax.Array) -> jax.Array:
        """Applies the activation function; the shape stays."""
        return ACTIVATIONS[self.activation](x)

    def activate(self, x: jax.Array) -> jax.Array:
        """Normalises (when set) and activates `x` of shape (..., features)."""
        return self.nonlinearity(layer_norm(x) if self.norm else x)


def layer_norm(x: jax.Array, epsilon: float = 1e-5) -> jax.Array:
    """Layer norm over the last axis, without learnable parameters; the shape stays."""
    centred = x - jnp.mean(x, axis=-1, keepdims=True)
    variance = jnp.mean(jnp.square(centred), axis=-1, keepdims=True)
    return centred * jax.lax.rsqrt(variance + epsilon)


def dense(features: int, name: str) -> nn.Dense:
    """A linear layer as MR.Q initialises it: Xavier-uniform with gain sqrt(2), zero bias."""
    return nn.Dense(features, kernel_init=xavier_uniform_relu, name=name)


def head(features: int, architecture: Architecture, name: str) -> nn.Dense:
    """A linear output layer, initialised as the network before it is: orthogonal for SimBa."""
    simple = architecture.residual != "simba"
    return nn.Dense(
        features, kernel_init=xavier_uniform_relu if simple else simba.orthogonal, name=name
    )


def trunk(architecture: Architecture, name: str = "trunk") -> nn.Module:
    """Features (..., hidden) of inputs (..., I), after `depth` hidden layers or blocks."""
    if architecture.residual == "simba":
        return simba.SimBa(architecture, name=name)
    # The last hidden layer is an MLP's activated output: `depth` counts it.
    shallower = replace(architecture, depth=architecture.depth - 1)
    return MLP(architecture.hidden, shallower, activate_output=True, input_shortcut=True, name=name)


class Activated(nn.Module):
    """Norm (when set) and activation as a module without parameters, so that it can be captured."""

    architecture: Architecture

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Activates (..., features); the shape stays."""
        return self.architecture.activate(x)


class MLP(nn.Module):
    """`depth` hidden layers and a linear output layer, with shortcuts where widths agree.

    Attributes:
        output: width of the output layer.
        architecture: hidden width, depth, activation, norm and residual form.
        activate_output: normalise and activate the output as well.
        input_shortcut: let the first layer take a shortcut too when the input has the hidden width.
    """

    output: int
    architecture: Architecture
    activate_output: bool = False
    input_shortcut: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (..., inputs) to (..., output)."""
        arch = self.architecture
        if arch.residual == "simba":
            out = head(self.output, arch, "output")(trunk(arch)(x))
            return Activated(arch, name="active_1")(out) if self.activate_output else out
        widths = (arch.hidden,) * arch.depth + (self.output,)
        carried = (
            x  # what a shortcut would add: pre-activations for `pre`, the layer's input otherwise
        )
        for index, width in enumerate(widths):
            last = index == len(widths) - 1
            layer = dense(width, f"layer_{index + 1}")(x)
            shortcut = carried if self._has_shortcut(index, carried, width) else 0.0
            before = layer if arch.residual == "branch" else layer + shortcut
            if last and not self.activate_output:
                return layer + shortcut
            x = Activated(arch, name=f"active_{index + 1}")(before)
            if arch.residual == "branch":
                x = x + shortcut
            carried = before if arch.residual == "pre" else x
        return x

    def _has_shortcut(self, index: int, carried: jax.Array, width: int) -> bool:
        if self.architecture.residual == "none" or carried.shape[-1] != width:
            return False
        return index > 0 or self.input_shortcut
