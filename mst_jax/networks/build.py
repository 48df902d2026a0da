"""The network that an architecture asks for: a multi-layer perceptron, or SimBa's blocks."""

from collections.abc import Callable
from dataclasses import replace

import jax
from flax import linen as nn

from mst_jax.networks.architecture import Activated, Architecture, Params
from mst_jax.networks.mlp import MLP, mlp_operations, xavier_uniform_relu
from mst_jax.networks.operations import Operation, dense_of
from mst_jax.networks.orthogonal import orthogonal
from mst_jax.networks.shared import Linear
from mst_jax.networks.simba import SimBa, simba_operations


def network(
    output: int,
    architecture: Architecture,
    *,
    activate_output: bool = False,
    kernel_init: Callable[..., jax.Array] = xavier_uniform_relu,
    name: str | None = None,
) -> nn.Module:
    """Maps (..., inputs) to (..., output): `depth` hidden layers or blocks and a linear layer.

    Args:
        output: width of the output layer.
        architecture: of the layers before it.
        activate_output: normalise and activate the output as well.
        kernel_init: of the layers; SimBa's blocks have their own.
        name: of the module within another.
    """
    if architecture.residual == "simba":
        return _SimBaWithOutput(output, architecture, activate_output, name=name)
    return MLP(output, architecture, activate_output, kernel_init=kernel_init, name=name)


def network_operations(
    params: Params, architecture: Architecture, *, activate_output: bool = False
) -> list[Operation]:
    """A `network` with these parameters as operations."""
    if architecture.residual != "simba":
        return mlp_operations(params, architecture, activate_output=activate_output)
    active = architecture.activate_operations() if activate_output else []
    return [*trunk_operations(params, architecture), dense_of(params["output"]), *active]


def trunk(architecture: Architecture, name: str = "trunk") -> nn.Module:
    """Features (..., hidden) of inputs (..., I), after `depth` hidden layers or blocks."""
    if architecture.residual == "simba":
        return SimBa(architecture, name=name)
    shallower = _without_output(architecture)
    return MLP(architecture.hidden, shallower, activate_output=True, input_shortcut=True, name=name)


def trunk_operations(params: Params, architecture: Architecture) -> list[Operation]:
    """The `trunk` of a network with these parameters as operations."""
    if architecture.residual == "simba":
        return simba_operations(params["trunk"], architecture)
    return mlp_operations(
        params["trunk"], _without_output(architecture), activate_output=True, input_shortcut=True
    )


def _without_output(architecture: Architecture) -> Architecture:
    """Of a trunk as an MLP, whose activated output is the last hidden layer: `depth` counts it."""
    return replace(architecture, depth=architecture.depth - 1)


def head(features: int, architecture: Architecture, name: str) -> Linear:
    """A linear output layer, initialised as the network before it is: orthogonal for SimBa."""
    simple = architecture.residual != "simba"
    return Linear(features, kernel_init=xavier_uniform_relu if simple else orthogonal, name=name)


class _SimBaWithOutput(nn.Module):
    """Blocks and a linear output layer, in the manner of an `MLP`."""

    output: int
    architecture: Architecture
    activate_output: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        arch = self.architecture
        out = head(self.output, arch, "output")(trunk(arch)(x))
        return Activated(arch, name="active_1")(out) if self.activate_output else out
