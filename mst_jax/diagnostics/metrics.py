"""The default set of metrics, by name. A new one is one function and one line here.

One of a user's own needs no line: the dotted names of such functions are a setting of a run.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from mst_jax import topology
from mst_jax.agents import Agent, Experience, Probe
from mst_jax.diagnostics.gradients import mean_gradient, whole
from mst_jax.diagnostics.rank import effective_rank, srank
from mst_jax.diagnostics.units import active_fraction, dormant_percentage
from mst_jax.names import kind_of
from mst_jax.user_code import one_line, resolve

BATCH_SIZE = 256  # the published batch, and so the largest possible Srank


class Evidence(NamedTuple):
    """What a metric may look at.

    Attributes:
        probe: the module on a fresh batch.
        gradient: dense gradient of its mean loss on that batch.
    """

    probe: Probe
    gradient: Any


def feature_norm(evidence: Evidence) -> jax.Array:
    """Mean over the batch of the L2 norm of the features (docs/specs/mst-and-mrq.md §5)."""
    return jnp.mean(jnp.linalg.norm(evidence.probe.activity.features, axis=-1))


def parameter_norm(evidence: Evidence) -> jax.Array:
    """L2 norm of all parameters, norms' scales included (docs/specs/network-sparsity.md §4)."""
    return optax.tree.norm(evidence.probe.params)


def gradient_norm(evidence: Evidence) -> jax.Array:
    """L2 norm of the gradient over active weights, before clipping (§4 "Gradient norm")."""
    return optax.tree.norm(topology.apply(evidence.probe.masks, evidence.gradient))


def dense_gradient_norm(evidence: Evidence) -> jax.Array:
    """L2 norm of the gradient over all weights, what growth by gradient sees."""
    return optax.tree.norm(evidence.gradient)


Metric = Callable[[Evidence], jax.Array]  # to a float32 scalar

METRICS: dict[str, Metric] = {
    "srank": lambda e: srank(e.probe.activity.features),
    "effective_rank": lambda e: effective_rank(e.probe.activity.features),
    "dormant_0.1": lambda e: dormant_percentage(e.probe.activity.pre, 0.1),
    "dormant_0.2": lambda e: dormant_percentage(e.probe.activity.pre, 0.2),
    "dormant_active_0.1": lambda e: dormant_percentage(e.probe.activity.post, 0.1),
    "dormant_active_0.2": lambda e: dormant_percentage(e.probe.activity.post, 0.2),
    "active_fraction": lambda e: active_fraction(e.probe.activity.post),
    "feature_norm": feature_norm,
    "parameter_norm": parameter_norm,
    "gradient_norm": gradient_norm,
    "dense_gradient_norm": dense_gradient_norm,
}


# Of one layer's mask; a module's value is the mean over its masked layers.
TOPOLOGY_METRICS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "dead_inputs": lambda mask: jnp.mean(topology.degrees(mask)[1] == 0, dtype=jnp.float32),
    "dead_outputs": lambda mask: jnp.mean(topology.degrees(mask)[0] == 0, dtype=jnp.float32),
}


def find_metrics(names: str) -> dict[str, Metric]:
    """Functions of a user's own, by what rows call them: the last part of their names.

    Args:
        names: dotted ones, separated by commas; empty for none.

    Raises:
        ValueError: there is no such function, or two have one name.
    """
    found: dict[str, Metric] = {}
    for name in filter(None, (part.strip() for part in names.split(","))):
        metric, called = resolve("metric", name), name.rpartition(":")[2]
        if not callable(metric):
            raise ValueError(
                f"metric {name!r} is {kind_of(metric)}; name a function, as module:function"
            )
        if called in {*METRICS, *TOPOLOGY_METRICS, *found}:
            raise ValueError(f"metric {name!r}: there is a metric {called!r} already; rename it")
        found[called] = metric
    return found


def evidence_of(
    agent: Agent, state: Any, experience: Experience, key: jax.Array
) -> dict[str, Evidence]:
    """{module: what metrics look at} of one seed; arguments as of `diagnose`."""
    probes = agent.probe(state, experience, key, BATCH_SIZE) if agent.probe else {}
    wholes = {name: whole(probe) for name, probe in probes.items()}
    return {name: Evidence(probe, mean_gradient(probe)) for name, probe in wholes.items()}


def measured(
    module: str, evidence: Evidence, metrics: Mapping[str, Metric]
) -> dict[str, jax.Array]:
    """{module/metric: scalar}.

    Raises:
        ValueError: in one line, a metric that raises, or gives something else than a number.
    """
    found: dict[str, jax.Array] = {}
    for name, metric in metrics.items():
        try:
            value = jnp.asarray(metric(evidence))
        except Exception as error:  # whatever a user's function raises
            why = f"{type(error).__name__}: {one_line(error)}"
            raise ValueError(f"metric {name!r} of the {module} fails: {why}") from error
        if value.shape:
            raise ValueError(
                f"metric {name!r} of the {module} is {value.dtype}{list(value.shape)}, not a scalar"
            )
        found[f"{module}/{name}"] = value
    return found


def diagnose(
    agent: Agent,
    state: Any,
    experience: Experience,
    key: jax.Array,
    own: Mapping[str, Metric] | None = None,
) -> dict[str, jax.Array]:
    """All metrics of every module of one seed, on one fresh batch of 256.

    Args:
        agent: one-seed functions.
        state: agent state.
        experience: what its `probe` draws the batch from.
        key: typed key.
        own: further metrics, see `find_metrics`.

    Returns:
        {module/metric: float32 scalar}; those of topology only for an agent without a probe.
    """
    evidence = evidence_of(agent, state, experience, key)
    found: dict[str, jax.Array] = {}
    for module, masks in agent.masks(state).items():
        if module in evidence:
            found |= measured(module, evidence[module], {**METRICS, **(own or {})})
        layers = jax.tree.leaves(masks)
        for name, metric in TOPOLOGY_METRICS.items() if layers else ():
            found[f"{module}/{name}"] = jnp.mean(jnp.stack([metric(mask) for mask in layers]))
    return found
