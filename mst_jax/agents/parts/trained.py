"""An agent's networks with their optimizers and topologies, by module name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax

from mst_jax import networks, topology
from mst_jax.agents.base import Metrics, Module, Numbers, Occasional
from mst_jax.agents.parts.modules import make_optimizer, modules_of, roles_of
from mst_jax.agents.parts.optimizers import check_own, find_optimizer
from mst_jax.agents.parts.plans import Ties, plan_modules
from mst_jax.agents.parts.recycling import recycled
from mst_jax.agents.parts.temperature import TemperatureConfig

Tree = Any
Inits = Mapping[str, Callable[[jax.Array], Tree]]


@dataclass(frozen=True)
class Trained:
    """What is trained, as pure functions over {module: parameters} and {module: optimizer state}.

    Attributes:
        inits: module -> (key -> dense parameters).
        optimizers: module -> optimizer, with the module's topology inside.
        modules: module -> its role, updates and plan; what is not among them (a temperature) is
            never sparse.
        asks: module -> names of the further arguments that its optimizer's steps need.
    """

    inits: Inits
    optimizers: Mapping[str, optax.GradientTransformationExtraArgs]
    modules: Mapping[str, Module]
    asks: Mapping[str, tuple[str, ...]]

    def init(self, key: jax.Array, numbers: Numbers | None = None) -> tuple[Tree, Tree]:
        """Random parameters with masks drawn and applied, and optimizer states.

        `numbers` replaces the counts and learning rates of the configuration.
        """
        params, opt_state = {}, {}
        for name, network_key, mask_key in self._keys(key):
            dense, optimizer = self.inits[name](network_key), self.optimizers[name]
            if name not in self.modules:
                params[name], opt_state[name] = dense, optimizer.init(dense)
                continue
            tables = numbers.tables[name] if numbers is not None else None
            params[name], opt_state[name] = topology.init(optimizer, dense, mask_key, tables)
            if numbers is not None and name in numbers.learning_rates:
                rate = numbers.learning_rates[name]
                opt_state[name] = _with_rate(name, opt_state[name], rate)
        return params, opt_state

    def reset(self, key: jax.Array, opt_state: Tree) -> tuple[Tree, Tree]:
        """Fresh parameters and optimizers under the masks and learning rates that are there."""
        params, fresh = {}, {}
        for name, network_key, _ in self._keys(key):
            dense = self.inits[name](network_key)
            if name not in self.modules:
                params[name], fresh[name] = dense, self.optimizers[name].init(dense)
                continue
            params[name], fresh[name] = topology.restart(
                self.optimizers[name], dense, opt_state[name]
            )
            rate = optax.tree.get(opt_state[name], "learning_rate")
            if rate is not None:
                fresh[name] = _with_rate(name, fresh[name], rate)
        return params, fresh

    def recycle(
        self,
        key: jax.Array,
        params: Tree,
        opt_state: Tree,
        activities: Mapping[str, networks.Activity],
        threshold: float,
    ) -> tuple[Tree, Tree]:
        """Dormant units of the modules that are looked at begin again; see `parts.recycling`.

        Masks and learning rates stay. Arguments are those of `reset`, and the activity of each
        module on a batch with the share of its layer's mean up to which a unit is dormant.
        """
        for name, network_key, _ in self._keys(key):
            if name not in activities:
                continue
            fresh, strengths = self.inits[name](network_key), networks.strengths(activities[name])
            weights, changed = recycled(params[name], fresh, strengths, threshold)
            weights = topology.apply(topology.masks(opt_state[name]), weights)
            slots = topology.renew(self.optimizers[name], weights, opt_state[name], changed)
            params = {**params, name: weights}
            opt_state = {**opt_state, name: slots}
        return params, opt_state

    def step(
        self,
        name: str,
        grads: Tree,
        params: Tree,
        opt_state: Tree,
        step: jax.Array,
        activity: Callable[[], networks.Activity] | None = None,
        loss: Callable[[Tree], jax.Array] | None = None,
        growth: Tree | None = None,
        **extra: Any,
    ) -> tuple[Tree, Tree]:
        """One optimizer step of one module; its topology is rewired when `step` says so.

        Args:
            name: of the module.
            grads: gradient of its loss, by `topology.value_and_grad`.
            params: its parameters.
            opt_state: its optimizer's state.
            step: int32 scalar, never batched: how many steps the module has taken before.
            activity: the module's forward pass on the batch; called, at rewires only, by a regime
                that looks at units.
            loss: (parameters) -> the loss whose gradient is given; called, at rewires only, where
                compact storage moves.
            growth: like `grads`, what regimes grow by in their place: the gradient of the loss,
                where the optimizer is given another.
            **extra: what the module's optimizer asks for besides.

        Returns:
            The new parameters and optimizer state.

        Raises:
            ValueError: `extra` is not what the optimizer asks for.
        """
        asked = self.asks.get(name, ())
        if set(extra) != set(asked):
            raise ValueError(
                f"{name}: its optimizer asks for {', '.join(asked) or 'nothing more'}, and is "
                f"given {', '.join(extra) or 'nothing'}"
            )
        if name not in self.modules:
            updates, opt_state = self.optimizers[name].update(grads, opt_state, params)
            return optax.apply_updates(params, updates), opt_state
        extra["step"] = step
        if activity is not None and self.modules[name].plan.reads_activity:
            extra["activity"] = lambda: networks.strengths(activity())
        if loss is not None and self.modules[name].plan.reads_loss:
            extra["loss"] = loss
        if growth is not None:
            extra["growth"] = growth
        updates, opt_state = self.optimizers[name].update(grads, opt_state, params, **extra)
        return topology.apply_updates(params, updates, topology.masks(opt_state)), opt_state

    def masks(self, opt_state: Tree) -> dict[str, Tree]:
        """{module: masks}, boolean; dense leaves carry topology's sentinel."""
        found = {name: topology.masks(opt_state[name]) for name in self.modules}
        return topology.densified(found)

    def _keys(self, key: jax.Array) -> list[tuple[str, jax.Array, jax.Array]]:
        """(module, key of its parameters, key of its masks)."""
        names = list(self.inits)
        keys = [jax.random.split(own) for own in jax.random.split(key, len(names))]
        return [(name, *pair) for name, pair in zip(names, keys, strict=True)]


def make_trained(
    config: Any,
    inits: Inits,
    updates: Mapping[str, int],
    plans: Mapping[str, topology.Plan] | None = None,
    max_grad_norms: Mapping[str, float] | None = None,
    temperature: TemperatureConfig | None = None,
    passes: Mapping[str, float] | None = None,
    positions: Mapping[str, Mapping[str, int]] | None = None,
    tied: Mapping[str, Ties] | None = None,
) -> Trained:
    """Plans and optimizers of modules whose settings are `config.<module>`.

    Args:
        config: has a `ModuleConfig` for each module, and may have `joint`; see `plan_modules`.
        inits: module -> (key -> dense parameters).
        updates: module -> its own optimizer steps in the run, from which schedules take their end.
        plans: topology plans to use instead of those that the settings describe.
        max_grad_norms: module -> clip of the gradient's norm, where there is one.
        temperature: of a maximum-entropy agent, which adds the module `temperature`: a
            log-temperature scalar under Adam without decay.
        passes: module -> see `Module`; its own alone by default.
        positions: module -> see `Module`; of those with convolutions.
        tied: module -> {pattern of its leaves: axis of parts of one weight}, see `topology.plan`;
            of those with noisy layers.

    Returns:
        The modules.

    Raises:
        ValueError: the run is too short for a module's regime, modules cannot share a budget, or a
            user's own optimizer fails.
    """
    roles, settings, clips = roles_of(config), modules_of(config), max_grad_norms or {}
    shapes = {name: jax.eval_shape(init, jax.random.key(0)) for name, init in inits.items()}
    if plans is None:
        plans = plan_modules(config, shapes, updates, tied)
    for name in inits:
        check_own(f"{name}.optimizer", settings[name], shapes[name])
    used = dict.fromkeys(inits, 1.0) | dict(passes or {})
    places = positions or {}
    modules = {
        name: Module(roles[name], updates[name], plans[name], used[name], places.get(name))
        for name in inits
    }
    optimizers = {
        name: make_optimizer(settings[name], plans[name], clips.get(name)) for name in inits
    }
    if temperature is not None:
        init = lambda _: jnp.log(jnp.asarray(temperature.initial, jnp.float32))  # noqa: E731
        inits = {**inits, "temperature": init}
        optimizers["temperature"] = optax.adam(temperature.learning_rate)
    asks = {name: find_optimizer(settings[name].optimizer).asks for name in modules}
    return Trained(inits, optimizers, modules, asks)


def delayed(
    due: jax.Array, update: Callable[[], tuple[Tree, Metrics]], unchanged: Tree
) -> tuple[Tree, Metrics]:
    """An update of a module that is not made every time; skipped, it costs nothing.

    Args:
        due: bool scalar from the clock, never batched.
        update: makes it: what it changes, and metrics.
        unchanged: the same as it is; nothing else should be in it, as it is copied.

    Returns:
        What is there afterwards, and the metrics, which know whether they were made.
    """
    _, metrics = jax.eval_shape(update)
    none = jax.tree.map(lambda metric: jnp.zeros(metric.shape, metric.dtype), metrics)
    after, metrics = jax.lax.cond(due, update, lambda: (unchanged, none))
    count = due.astype(jnp.int32)
    return after, {name: Occasional(value, count) for name, value in metrics.items()}


def over_updates(metrics: Metrics) -> Metrics:
    """Metrics of several updates, on a leading axis, as those of one call of `learn`."""

    def over(metric: jax.Array | Occasional) -> jax.Array | Occasional:
        if isinstance(metric, Occasional):
            return Occasional(jnp.sum(metric.total), jnp.sum(metric.count))
        return jnp.mean(metric)

    return {name: over(metric) for name, metric in metrics.items()}


def _with_rate(name: str, opt_state: Tree, rate: jax.Array) -> Tree:
    """An optimizer's state with another learning rate; ValueError where it has none."""
    if optax.tree.get(opt_state, "learning_rate") is None:
        raise ValueError(
            f"runs of one program cannot differ in {name}.learning_rate: the state of its "
            "optimizer has no leaf learning_rate; train them in programs of their own"
        )
    return optax.tree.set(opt_state, learning_rate=rate)


def replaced(state: Any, name: str, params: Tree, opt_state: Tree) -> Any:
    """An agent's state with one module's parameters and optimizer state in place."""
    return state.replace(
        params={**state.params, name: params}, opt_state={**state.opt_state, name: opt_state}
    )


def recycled_state(
    trained: Trained,
    state: Any,
    activities: Mapping[str, networks.Activity],
    key: jax.Array,
    threshold: float,
) -> Any:
    """An agent's state with its dormant units recycled: `Agent.recycle` of these modules."""
    params, opt_state = trained.recycle(key, state.params, state.opt_state, activities, threshold)
    return state.replace(params=params, opt_state=opt_state)


def active_norm(grads: Tree, opt_state: Tree) -> jax.Array:
    """L2 norm of a module's dense gradient over its active weights, before clipping; a scalar."""
    return optax.tree.norm(topology.apply(topology.masks(opt_state), grads))


def copied(tree: Tree) -> Tree:
    """A copy in buffers of its own: a donated state must not hold one buffer twice."""
    return jax.tree.map(jnp.copy, tree)
