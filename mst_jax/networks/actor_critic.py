"""Critics and actors as pure functions, for any input: observations or latents."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from mst_jax.networks.activity import Activity, activity_of
from mst_jax.networks.architecture import Architecture, Params
from mst_jax.networks.build import (
    head,
    network,
    network_operations,
    trunk,
    trunk_operations,
)
from mst_jax.networks.operations import Operation, dense_of


class Critic(NamedTuple):
    """Value heads on one input; `params` has the entries q1 and, with two heads, q2."""

    init: Callable[[jax.Array], Params]
    apply: Callable[[Params, jax.Array], jax.Array]  # input (..., I) -> values (..., heads)
    activity: Callable[[Params, jax.Array], Activity]


class Actor(NamedTuple):
    """Deterministic policy."""

    init: Callable[[jax.Array], Params]
    apply: Callable[
        [Params, jax.Array], jax.Array
    ]  # (..., I) -> the action before its tanh (..., A)
    activity: Callable[[Params, jax.Array], Activity]
    operations: Callable[[Params], list[Operation]]  # `apply` of concrete parameters


class GaussianActor(NamedTuple):
    """Gaussian policy; `params` has the entries trunk, mean and log_std, or what it is called."""

    init: Callable[[jax.Array], Params]
    # (..., I) -> mean (..., A) and what the algorithm makes a standard deviation of (..., A)
    apply: Callable[[Params, jax.Array], tuple[jax.Array, jax.Array]]
    activity: Callable[[Params, jax.Array], Activity]
    operations: Callable[[Params], list[Operation]]  # the mean, of concrete parameters


class _ValueHead(nn.Module):
    architecture: Architecture

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return head(1, self.architecture, "value")(trunk(self.architecture)(x))


class _Critic(nn.Module):
    architecture: Architecture
    heads: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        # Separate submodules, not an ensemble axis: each head draws a topology of its own.
        names = [f"q{index + 1}" for index in range(self.heads)]
        return jnp.concatenate([_ValueHead(self.architecture, name=q)(x) for q in names], -1)


class _GaussianActor(nn.Module):
    action_size: int
    architecture: Architecture
    spread: str

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        features = trunk(self.architecture)(x)
        mean = head(self.action_size, self.architecture, "mean")(features)
        return mean, head(self.action_size, self.architecture, self.spread)(features)


def make_critic(input_size: int, architecture: Architecture, heads: int = 2) -> Critic:
    """Independent value heads, each `depth` hidden layers or blocks and a scalar output."""
    return Critic(*_functions(_Critic(architecture, heads), input_size))


def make_actor(input_size: int, action_size: int, architecture: Architecture) -> Actor:
    """A policy network whose output is the action before its tanh."""
    functions = _functions(network(action_size, architecture), input_size)
    return Actor(*functions, lambda params: network_operations(params, architecture))


def make_gaussian_actor(
    input_size: int, action_size: int, architecture: Architecture, spread: str = "log_std"
) -> GaussianActor:
    """A policy network with two linear heads, the mean and one called `spread`."""
    functions = _functions(_GaussianActor(action_size, architecture, spread), input_size)

    def operations(params: Params) -> list[Operation]:
        return [*trunk_operations(params, architecture), dense_of(params["mean"])]

    return GaussianActor(*functions, operations)


def _functions(module: nn.Module, input_size: int) -> tuple[Callable, Callable, Callable]:
    return (
        lambda key: module.init(key, jnp.zeros(input_size))["params"],
        lambda params, x: module.apply({"params": params}, x),
        activity_of(module),
    )
