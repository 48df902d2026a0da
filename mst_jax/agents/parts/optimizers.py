"""Optimizers by name, as a module's settings give them. A new one is one function and one line.

One of a user's own is an `Optimizer`, or a function of a module's settings that makes a
transformation, by its dotted name.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from mst_jax.agents.parts.obgd import adaptive_obgd, obgd
from mst_jax.names import kind_of, nearest
from mst_jax.user_code import is_dotted, one_line, resolve

TRACES = ("td_error", "discount", "reset")  # what is told of a step along eligibility traces


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
    """Adam with decoupled weight decay; the learning rate is an array leaf of the state.

    Without decay it is Adam. Settings that have an `epsilon` say what Adam adds to the root.
    """
    make = optax.inject_hyperparams(
        optax.adamw, static_args=("b1", "b2", "eps", "eps_root", "weight_decay", "nesterov")
    )
    own = {"eps": config.epsilon} if hasattr(config, "epsilon") else {}
    return make(learning_rate=config.learning_rate, weight_decay=config.weight_decay, **own)


def along_traces(
    make: Callable[..., optax.GradientTransformationExtraArgs], config: Any
) -> optax.GradientTransformationExtraArgs:
    """An optimizer of eligibility traces with the settings of a streaming agent's module.

    Raises:
        ValueError: the module is not one.
    """
    if not hasattr(config, "kappa"):
        raise ValueError(
            f"optimizer={config.optimizer} steps along the TD error of a stream, which this agent "
            "has not: choose adamw"
        )
    return make(config.learning_rate, kappa=config.kappa, trace_decay=config.trace_decay)


OPTIMIZERS: dict[str, Optimizer] = {
    "adamw": Optimizer(adamw),
    "obgd": Optimizer(partial(along_traces, obgd), TRACES),
    "adaptive_obgd": Optimizer(partial(along_traces, adaptive_obgd), TRACES),
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


def check_own(setting: str, config: Any, params: Any) -> None:
    """Lets a user's own optimizer take a step on shapes, before a run begins that could not.

    Args:
        setting: the setting's name, such as `critic.optimizer`.
        config: settings of the module.
        params: shapes of its parameters.

    Raises:
        ValueError: in one line, it fails or is no optax transformation.
    """
    if config.optimizer in OPTIMIZERS:
        return
    found = find_optimizer(config.optimizer, setting)

    def step(params: Any) -> Any:
        own = found.make(config)
        if not isinstance(own, optax.GradientTransformation):
            raise TypeError(f"it made {kind_of(own)}, not an optax transformation")
        state = own.init(params)
        if not set(found.asks) <= set(TRACES):  # what else a user's own agent tells is its own
            return state
        told: dict[str, Any] = {name: jnp.zeros(()) for name in found.asks}
        if "reset" in told:
            told["reset"] = jnp.zeros((), bool)
        return optax.with_extra_args_support(own).update(params, state, params, **told)

    try:
        jax.eval_shape(step, params)
    except Exception as error:  # whatever a user's function raises
        why = f"{type(error).__name__}: {one_line(error)}"
        raise ValueError(f"{setting}={config.optimizer!r} fails: {why}") from error
