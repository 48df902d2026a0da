"""Optimizers by name, as a module's settings give them. A new one is one function and one line.

One of a user's own is an `Optimizer`, or a function of a module's settings that makes a
transformation, by its dotted name.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import optax

from mst_jax.agents.parts.obgd import adaptive_obgd, obgd
from mst_jax.names import kind_of, nearest
from mst_jax.user_code import is_dotted, resolve


class Optimizer(NamedTuple):
    """How an optimizer is made, and what it must be told at each step.

    Attributes:
        make: (a module's settings) -> transformation. If its state has a leaf `learning_rate`, runs
            of one program may differ in it.
        asks: names of the arguments that its `update` needs besides gradients, state and
            parameters, such as the TD error of an eligibility trace.
    """

    make: Callable[[Any], optax.GradientTransformation]
    asks: tuple[str, ...] = ()


def adamw(config: Any) -> optax.GradientTransformation:
    """Adam with decoupled weight decay; the learning rate is an array leaf of the state."""
    make = optax.inject_hyperparams(
        optax.adamw, static_args=("b1", "b2", "eps", "eps_root", "weight_decay", "nesterov")
    )
    return make(learning_rate=config.learning_rate, weight_decay=config.weight_decay)


def bounded(
    make: Callable[..., optax.GradientTransformationExtraArgs], config: Any
) -> optax.GradientTransformationExtraArgs:
    """An optimizer of eligibility traces with the settings of a streaming agent's module.

    Raises:
        ValueError: the module is not one, or has a weight decay.
    """
    if not hasattr(config, "kappa"):
        raise ValueError(
            f"optimizer={config.optimizer} steps along the TD error of a stream, which this agent "
            "has not: choose adamw"
        )
    if config.weight_decay:
        raise ValueError(
            f"weight_decay={config.weight_decay} has no effect with optimizer={config.optimizer}: "
            "set it to 0"
        )
    return make(config.learning_rate, kappa=config.kappa, trace_decay=config.trace_decay)


TRACES = ("td_error", "discount", "reset")  # what is told of a step along eligibility traces


OPTIMIZERS: dict[str, Optimizer] = {
    "adamw": Optimizer(adamw),
    "obgd": Optimizer(partial(bounded, obgd), TRACES),
    "adaptive_obgd": Optimizer(partial(bounded, adaptive_obgd), TRACES),
}


def find_optimizer(name: str, setting: str = "optimizer") -> Optimizer:
    """The optimizer of this name; ValueError for an unknown one, with the setting's name."""
    if name in OPTIMIZERS:
        return OPTIMIZERS[name]
    if not is_dotted(name):
        raise ValueError(f"{setting}={name!r} is unknown: {nearest(name, OPTIMIZERS)}")
    found = resolve(setting, name)
    if isinstance(found, Optimizer):
        return found
    if not callable(found):
        raise ValueError(f"{setting}={name!r} is {kind_of(found)}, not a function")
    return Optimizer(found)
