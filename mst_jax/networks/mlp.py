"""The multi-layer perceptron of every module that is not a SimBa network."""

from collections.abc import Callable

import jax
from flax import linen as nn

from mst_jax.networks.architecture import Activated, Architecture, Params
from mst_jax.networks.operations import Add, Keep, Operation, dense_of
from mst_jax.networks.shared import Linear

xavier_uniform_relu = nn.initializers.variance_scaling(2.0, "fan_avg", "uniform")


def dense(
    features: int, name: str | None, kernel_init: Callable[..., jax.Array] = xavier_uniform_relu
) -> Linear:
    """A linear layer as MR.Q initialises it: Xavier-uniform with gain sqrt(2), zero bias."""
    return Linear(features, kernel_init=kernel_init, name=name)


class MLP(nn.Module):
    """`depth` hidden layers and a linear output layer, with shortcuts where widths agree.

    Attributes:
        output: width of the output layer.
        architecture: hidden width, depth, activation, norm and residual form, any but `simba`.
        activate_output: normalise and activate the output as well.
        input_shortcut: let the first layer take a shortcut too when the input has the hidden width.
        kernel_init: of every layer.
    """

    output: int
    architecture: Architecture
    activate_output: bool = False
    input_shortcut: bool = False
    kernel_init: Callable[..., jax.Array] = xavier_uniform_relu

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (..., inputs) to (..., output)."""
        arch = self.architecture
        widths = (arch.hidden,) * arch.depth + (self.output,)
        # What a shortcut would add: pre-activations for `pre`, the layer's input otherwise.
        carried = x
        for index, width in enumerate(widths):
            last = index == len(widths) - 1
            layer = dense(width, f"layer_{index + 1}", self.kernel_init)(x)
            skips = _has_shortcut(arch, index, carried.shape[-1], width, self.input_shortcut)
            shortcut = carried if skips else 0.0
            before = layer if arch.residual == "branch" else layer + shortcut
            if last and not self.activate_output:
                return layer + shortcut
            x = Activated(arch, name=f"active_{index + 1}")(before)
            if arch.residual == "branch":
                x = x + shortcut
            carried = before if arch.residual == "pre" else x
        return x


def mlp_operations(
    params: Params,
    architecture: Architecture,
    *,
    activate_output: bool = False,
    input_shortcut: bool = False,
) -> list[Operation]:
    """An `MLP` with these parameters as operations; the other arguments are its attributes."""
    layers = [dense_of(params[f"layer_{index + 1}"]) for index in range(architecture.depth + 1)]
    skips = [
        _has_shortcut(architecture, index, *layer.kernel.shape, input_shortcut)
        for index, layer in enumerate(layers)
    ] + [False]
    found: list[Operation] = []
    for index, layer in enumerate(layers):
        active = activate_output or index < architecture.depth
        around = active and architecture.residual == "branch"
        if skips[index] and (index == 0 or architecture.residual != "pre"):
            found.append(Keep())
        found.append(layer)
        if skips[index] and not around:
            found.append(Add())
        if architecture.residual == "pre" and skips[index + 1]:
            found.append(Keep())
        if active:
            found += architecture.activate_operations()
        if skips[index] and around:
            found.append(Add())
    return found


def _has_shortcut(
    architecture: Architecture, index: int, carried: int, width: int, input_shortcut: bool
) -> bool:
    """Whether a layer of this width takes a shortcut of what is `carried` wide."""
    if architecture.residual == "none" or carried != width:
        return False
    return index > 0 or input_shortcut
