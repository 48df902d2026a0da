"""Diagnostics between chunks: the default metrics, and gradient covariances on request."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import jax

from mst_jax import replay
from mst_jax.agents import Agent, Experience, Metrics
from mst_jax.diagnostics import (
    Metric,
    diagnose,
    evidence_of,
    find_metrics,
    gradient_covariance,
    interference,
    measured,
    sample_gradients,
    whole,
)
from mst_jax.envs import Spec
from mst_jax.program.cache import kept
from mst_jax.program.sharding import LOOP, SEEDS, over_devices, seed_mesh, seeds_per_device
from mst_jax.program.state import (
    LoopState,
    Purpose,
    between_steps,
    keys_for,
    over_seeds,
    replay_layout,
)
from mst_jax.runs.covariances import save_covariances

COVARIANCE_SAMPLES = 64  # the published matrix (docs/specs/network-sparsity.md §4)
COVARIANCE_ROLES = ("value", "policy")


def check_metrics(agent: Agent, spec: Spec, slots: int, own_metrics: str) -> None:
    """Traces a user's own metrics, so that a run does not end where it first looks at them.

    Args:
        agent: one-seed functions.
        spec: of the task.
        slots: replay slots of a seed.
        own_metrics: as of `make_diagnose`.

    Raises:
        ValueError: in one line, one that cannot be found, raises, or gives no scalar; or the agent
            has nothing to look at.
    """
    own, layout = find_metrics(own_metrics), replay_layout(agent, spec, slots, 1)
    if own and agent.probe is None:
        raise ValueError(f"metrics={own_metrics} need an agent that can be probed: leave them out")

    def of_seed(key: jax.Array) -> list[Metrics]:
        buffer = None if layout is None else replay.view(replay.create(layout))
        experience = Experience(None, jax.tree.map(lambda leaf: leaf[0], buffer))
        evidence = evidence_of(agent, agent.init(key), experience, key)
        return [measured(module, seen, own) for module, seen in evidence.items()]

    if own:
        jax.eval_shape(of_seed, jax.random.key(0))


def make_diagnose(
    agent: Agent,
    num_seeds: int,
    covariances_to: Mapping[Path, slice] | None = None,
    own_metrics: str = "",
) -> Callable[[LoopState, int], Metrics]:
    """What makes a row of diagnostics of a loop at a step.

    Args:
        agent: one-seed functions.
        num_seeds: S.
        covariances_to: run folders in which to save gradient covariances too, and which seeds are
            theirs; None for none.
        own_metrics: dotted names of a user's own, see `diagnostics.find_metrics`.

    Returns:
        (loop, step) -> {module/metric: (S,)}, on one fresh replay batch per seed.
    """
    metrics_of, covariances_of = _programs(
        agent, num_seeds, tuple(find_metrics(own_metrics).items())
    )

    def make_row(loop: LoopState, step: int) -> Metrics:
        metrics = metrics_of(loop)
        if covariances_to is not None:
            matrices = covariances_of(loop)
            metrics |= summary(matrices)
            for folder, rows in covariances_to.items():
                save_covariances(folder, step, {name: m[rows] for name, m in matrices.items()})
        return metrics

    return make_row


@kept
def _programs(
    agent: Agent, num_seeds: int, own_metrics: tuple[tuple[str, Metric], ...]
) -> tuple[Callable, Callable]:
    """Loop -> metrics, and loop -> gradient covariances, jitted."""
    mesh = seed_mesh(num_seeds)
    look = partial(diagnose, agent, own=dict(own_metrics))
    of_seed = over_seeds(look, seeds_per_device(num_seeds, mesh))

    def of_run(loop: LoopState) -> Metrics:
        keys = keys_for(loop.keys, Purpose.DIAGNOSE, loop.clock.step)
        return of_seed(loop.agent, between_steps(loop), keys)

    metrics_of, covariances_of = (
        jax.jit(over_devices(fn, mesh, (LOOP,), SEEDS)) for fn in (of_run, covariances(agent))
    )
    return metrics_of, covariances_of


def covariances(agent: Agent) -> Callable[[LoopState], dict[str, jax.Array]]:
    """Loop -> {module: (S, 64, 64)} cosines of per-sample gradients, active weights only.

    As published, of value and policy modules. Seeds one after another: each holds 64 gradients at
    once.
    """

    def of_seed(args: tuple) -> dict[str, jax.Array]:
        state, experience, key = args
        probes = agent.probe(state, experience, key, COVARIANCE_SAMPLES) if agent.probe else {}
        return {
            name: gradient_covariance(sample_gradients(whole(probes[name])))
            for name, module in agent.modules.items()
            if module.role in COVARIANCE_ROLES and name in probes
        }

    def of_run(loop: LoopState) -> dict[str, jax.Array]:
        keys = keys_for(loop.keys, Purpose.DIAGNOSE, loop.clock.step)
        return jax.lax.map(of_seed, (loop.agent, between_steps(loop), keys))

    return of_run


def summary(matrices: Mapping[str, jax.Array]) -> Metrics:
    """{module/metric: (S,)} that sums up gradient covariances."""
    metrics: Metrics = {}
    for name, matrix in matrices.items():
        mean, opposed = jax.vmap(interference)(matrix)
        metrics |= {f"{name}/gradient_cosine": mean, f"{name}/opposed_gradients": opposed}
    return metrics
