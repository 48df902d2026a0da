"""Overshooting-bounded gradient descent (Elsayed et al., 2024) as an optax transformation.

A step of TD(λ) with one number for all weights: e = γλ e + g, and w moves by α δ e, unless that
would change the prediction by more than the error it answers. Source: docs/specs/streaming.md §1.5.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax


class ObGDState(NamedTuple):
    """State of `obgd`.

    Attributes:
        trace: eligibility traces e of the last step, shaped like the parameters.
        ended: bool scalar, whether the episode ended with the last step: the next one begins with
            traces of zero. Zeroing them there and then would go over all weights once more.
        learning_rate: α, float32 scalar.
        trace_norm: ‖e‖₁ of the last step; float32 scalar.
        step_size: what the last step multiplied δ e by; α where it was not bounded; 0 before it.
    """

    trace: Any
    ended: jax.Array
    learning_rate: jax.Array
    trace_norm: jax.Array
    step_size: jax.Array


def obgd(
    learning_rate: float = 1.0, *, kappa: float, trace_decay: float
) -> optax.GradientTransformationExtraArgs:
    """Steps along eligibility traces, bounded so that no step overshoots.

    `update` takes the gradients of what is predicted or done (∇V, or ∇ log π with its bonus), not
    of a loss, and three more arguments: `td_error`, δ, a float32 scalar; `discount`, γ; and
    `reset`, bool, whether the episode ended with this step, after which traces begin at zero. The
    updates are those to add. Inside `topology.sparse` gradients outside the mask are zero, hence
    the traces there, and ‖e‖₁ counts active weights only.

    Args:
        learning_rate: α.
        kappa: κ, how much smaller than the bound a step must be; larger is more careful.
        trace_decay: λ.
    """

    def init(params: Any) -> ObGDState:
        return _begun(params, learning_rate)

    def update(
        updates: Any,
        state: ObGDState,
        params: Any = None,
        *,
        td_error: jax.Array,
        discount: jax.Array | float,
        reset: jax.Array,
        **_: Any,
    ) -> tuple[Any, ObGDState]:
        trace = _decayed(state, updates, discount * trace_decay)
        moved, step = _stepped(trace, td_error, state.learning_rate, kappa)
        return moved, ObGDState(trace, reset, state.learning_rate, *step)

    # optax's protocol knows no arguments that are required.
    return optax.GradientTransformationExtraArgs(init, update)  # ty: ignore[invalid-argument-type]


class AdaptiveObGDState(NamedTuple):
    """State of `adaptive_obgd`.

    Attributes:
        square: average of (δ e)², shaped like the parameters.
        count: int32 scalar, steps taken.
        plain: as of `obgd`; its norm is ‖e/√v̂‖₁.
    """

    square: Any
    count: jax.Array
    plain: ObGDState


def adaptive_obgd(
    learning_rate: float = 1.0,
    *,
    kappa: float,
    trace_decay: float,
    square_decay: float = 0.999,
    epsilon: float = 1e-8,
) -> optax.GradientTransformationExtraArgs:
    """`obgd` with a step size for each weight: traces are divided by the root of averaged (δ e)².

    The average is corrected for its beginning at zero. Arguments of `update` are those of `obgd`.

    Args:
        learning_rate: α.
        kappa: κ.
        trace_decay: λ.
        square_decay: of the average.
        epsilon: added to it under the root.
    """

    def init(params: Any) -> AdaptiveObGDState:
        squares = jax.tree.map(jnp.zeros_like, params)
        return AdaptiveObGDState(squares, jnp.zeros((), jnp.int32), _begun(params, learning_rate))

    def update(
        updates: Any,
        state: AdaptiveObGDState,
        params: Any = None,
        *,
        td_error: jax.Array,
        discount: jax.Array | float,
        reset: jax.Array,
        **_: Any,
    ) -> tuple[Any, AdaptiveObGDState]:
        trace = _decayed(state.plain, updates, discount * trace_decay)
        square = jax.tree.map(
            lambda v, e: square_decay * v + (1.0 - square_decay) * jnp.square(td_error * e),
            state.square,
            trace,
        )
        count = state.count + 1
        missing = 1.0 - square_decay ** count.astype(jnp.float32)
        scaled = jax.tree.map(lambda e, v: e * jax.lax.rsqrt(v / missing + epsilon), trace, square)
        rate = state.plain.learning_rate
        moved, step = _stepped(scaled, td_error, rate, kappa)
        return moved, AdaptiveObGDState(square, count, ObGDState(trace, reset, rate, *step))

    # optax's protocol knows no arguments that are required.
    return optax.GradientTransformationExtraArgs(init, update)  # ty: ignore[invalid-argument-type]


def _begun(params: Any, learning_rate: float) -> ObGDState:
    traces, rate = jax.tree.map(jnp.zeros_like, params), jnp.asarray(learning_rate, jnp.float32)
    return ObGDState(traces, jnp.zeros((), bool), rate, jnp.zeros(()), jnp.zeros(()))


def _decayed(state: ObGDState, gradients: Any, decay: jax.Array | float) -> Any:
    """The traces with one more gradient; they begin at zero after an end."""
    kept = jnp.where(state.ended, 0.0, decay)
    return jax.tree.map(lambda e, g: kept * e + g, state.trace, gradients)


def _stepped(
    along: Any, td_error: jax.Array, learning_rate: jax.Array, kappa: float
) -> tuple[Any, tuple[jax.Array, jax.Array]]:
    """The updates along traces; and ‖along‖₁ over all weights together and α / max(M, 1).

    M = α κ max(|δ|, 1) ‖along‖₁.
    """
    norm = sum((jnp.sum(jnp.abs(x)) for x in jax.tree.leaves(along)), start=jnp.zeros(()))
    bound = learning_rate * kappa * jnp.maximum(jnp.abs(td_error), 1.0) * norm
    step = learning_rate / jnp.maximum(bound, 1.0)
    return jax.tree.map(lambda x: step * td_error * x, along), (norm, step)
