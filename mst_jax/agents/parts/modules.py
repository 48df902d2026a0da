"""Settings of one trained module, and the optimizer built from them."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, cast

import optax

from mst_jax import networks, topology
from mst_jax.agents.base import ROLES, Role
from mst_jax.agents.parts.optimizers import find_optimizer
from mst_jax.names import nearest
from mst_jax.user_code import is_dotted, resolve

ALLOCATIONS = ("own", "er", "erk", "uniform")
_READ_AS = {  # setting of a module -> what regimes call it
    "interval": "interval",
    "drop_fraction": "drop_fraction",
    "start_fraction": "start",
    "end_fraction": "end",
}
COMPACT = ("static", "set", "rigl")  # regimes of which compact storage keeps all that they read


@dataclass
class ModuleConfig:
    """Architecture, optimizer and training regime of one module.

    Attributes:
        hidden: width of the hidden layers.
        depth: number of hidden layers; of blocks with `residual=simba`.
        activation: `elu`, `relu` or `leaky_relu` (slope 0.01).
        norm: layer norm before each activation; with `simba`, before each block and at the end.
        residual: `none`, `pre`, `post` or `branch` (docs/specs/mst-and-mrq.md §2.3), or `simba`
            (docs/specs/network-sparsity.md §2.1).
        optimizer: a name of `mst_jax.agents.parts.optimizers.OPTIMIZERS`.
        learning_rate: its step size.
        weight_decay: its decoupled decay, biases included.
        where: regular expression for the whole path of a parameter within the module
            (`q1/trunk/block_1/expand/kernel`): only what it matches may be sparse.
        regime: one of `topology.REGIMES`, each described in docs/topology.md, or the dotted name of
            a function with the arguments of `topology.MakesRegime`.
        sparsity: share of zero weights over the module's kernels (`network_sparsity`: over all its
            parameters), distributed as `allocation` says unless the regime shares it by score: the
            final one, or for the growing regimes the initial one.
        allocation: how kernels share the budget: `er` (Erdős–Rényi on inputs and outputs), `erk`
            (counts the sides of a convolution's kernel too), `uniform`, or `own`, which the regime
            says: ER, but ERK for `network_sparsity`.
        structure: which of a kernel's weights compete, and which live and die together:
            `unstructured`, `fan_in`, `N:M` such as `2:4` (which is a sparsity too), `sharedC` such
            as `shared16`, `blockRxC`; see docs/topology.md. Kernels that it does not fit stay
            unstructured.
        storage: `masked`: whole kernels and masks; `compact`: of kernels under `sharedC` the active
            weights alone, for the regimes static, set and rigl.
        interval: updates of this module between topology updates.
        drop_fraction: share of active weights replaced at a rewiring.
        start_fraction: share of all updates before the first prune of a regime that begins dense,
            or before the revival of `topology_aware_revival`.
        end_fraction: share of all updates after which the topology is frozen.
    """

    hidden: int = 512
    depth: int = 2
    activation: str = "elu"
    norm: bool = True
    residual: str = "none"
    learning_rate: float = 3e-4
    weight_decay: float = 1e-4
    regime: str = "dense"
    sparsity: float = 0.0
    interval: int = 100
    drop_fraction: float = 0.3
    start_fraction: float = 0.2
    end_fraction: float = 0.75
    where: str = ".*"
    optimizer: str = "adamw"
    structure: str = "unstructured"
    allocation: str = "own"
    storage: str = "masked"

    def architecture(self) -> networks.Architecture:
        """The hidden layers as the networks package takes them."""
        residual = cast("networks.Residual", self.residual)
        return networks.Architecture(self.hidden, self.depth, self.activation, self.norm, residual)

    def validate(self, name: str) -> None:
        """Raises ValueError with one line when a setting is impossible; `name` is the module's."""
        for key, most in (("hidden", 2**20), ("depth", 1_000)):
            value = getattr(self, key)
            require(1 <= value <= most, f"{name}.{key}={value} must be in 1 to {most:,}")
        one_of(f"{name}.activation", self.activation, networks.ACTIVATIONS)
        one_of(f"{name}.residual", self.residual, networks.RESIDUALS)
        regime_named(f"{name}.regime", self.regime)
        require(
            self.learning_rate > 0, f"{name}.learning_rate={self.learning_rate} must be positive"
        )
        not_negative(f"{name}.weight_decay", self.weight_decay)
        find_optimizer(self.optimizer, f"{name}.optimizer")
        try:
            re.compile(self.where)
        except re.error as error:
            raise ValueError(f"{name}.where={self.where!r} is no pattern: {error}") from None
        structure = structure_named(f"{name}.structure", self.structure)
        one_of(f"{name}.allocation", self.allocation, ALLOCATIONS)
        one_of(f"{name}.storage", self.storage, topology.STORAGES)
        if self.regime == "dense":
            idle = {"structure": "unstructured", "allocation": "own", "sparsity": 0}
            idle["storage"] = "masked"
            for key, default in idle.items():
                value = getattr(self, key)
                require(
                    value == default,
                    f"{name}.{key}={value} has no effect with {name}.regime=dense; "
                    f"set {name}.regime to static or rigl",
                )
            return
        # A static mask that keeps everything lets a dense run share a program with sparse ones.
        full = self.regime == "static" and self.sparsity == 0
        require(
            full or 0 < self.sparsity < 1,
            f"{name}.sparsity={self.sparsity} with {name}.regime={self.regime}; "
            "choose a value strictly between 0 and 1",
        )
        own = structure.sparsity
        require(
            own is None or abs(own - self.sparsity) < 0.005,  # 0.333 is 2:3
            f"{name}.sparsity={self.sparsity} contradicts {name}.structure={self.structure}, which "
            f"is a sparsity of {own}; leave one of them out",
        )
        require(
            own is None or self.allocation in ("own", "uniform"),
            f"{name}.allocation={self.allocation} contradicts {name}.structure={self.structure}, "
            "which has the same sparsity in every kernel; leave one of them out",
        )
        if self.storage == "compact":
            self._require_compact(name)
        require(self.interval >= 1, f"{name}.interval={self.interval} must be at least 1")
        _unit(f"{name}.drop_fraction", self.drop_fraction)
        _unit(f"{name}.end_fraction", self.end_fraction)
        _unit(f"{name}.start_fraction", self.start_fraction)

    def _require_compact(self, name: str) -> None:
        """Raises ValueError with one line when compact storage has no place for the topology."""
        require(
            self.structure.startswith("shared") and self.structure != "shared1",
            f"{name}.storage=compact needs neurons that share their inputs, such as "
            f"{name}.structure=shared16 or shared64, and not {self.structure}",
        )
        require(
            self.regime in COMPACT or is_dotted(self.regime),
            f"{name}.storage=compact is for {name}.regime={', '.join(COMPACT)}, which keep as many "
            f"weights and no dense average, and not {self.regime}",
        )


def module(role: Role, make: Callable[[], ModuleConfig], *, scaled: bool = True) -> Any:
    """A field of an agent's configuration: a module of a role.

    Args:
        role: see `Role`.
        make: what makes its defaults.
        scaled: whether it grows with the size of the agent's networks.
    """
    return field(default_factory=make, metadata={"role": role, "scaled": scaled})


def roles_of(config: Any) -> dict[str, Role]:
    """{module: role} of a configuration, or of its class, in the order of its fields.

    Raises:
        ValueError: a field holds the settings of a module and has no role.
    """
    roles: dict[str, Role] = {}
    for one in fields(config):
        if "role" in one.metadata:
            role = one.metadata["role"]
            one_of(f"the role of {one.name}", role, ROLES)
            roles[one.name] = role
        elif isinstance(getattr(config, one.name, None), ModuleConfig):
            raise ValueError(
                f"{one.name} is a module without a role: make it by module(role, ...) with one of "
                f"{', '.join(ROLES)}"
            )
    return roles


def scaled_modules(config: Any) -> set[str]:
    """Those of a configuration that grow with the size of its networks."""
    told = {one.name: one.metadata for one in fields(config) if "role" in one.metadata}
    return {name for name, metadata in told.items() if metadata.get("scaled", True)}


def modules_of(config: Any) -> Mapping[str, ModuleConfig]:
    """{module: its settings} of a configuration, in the order of its fields."""
    return {name: getattr(config, name) for name in roles_of(config)}


def structure_named(setting: str, name: str) -> topology.NamedStructure:
    """What the name of a structure says; ValueError naming the setting if there is none."""
    try:
        return topology.structure_named(name)
    except ValueError as error:
        raise ValueError(f"{setting}={name}: {error}") from None


def regime_named(setting: str, name: str) -> topology.MakesRegime:
    """What makes the regime of a name: one of `topology.REGIMES`, or a user's dotted name.

    Raises:
        ValueError: there is none.
    """
    if name in topology.REGIMES or not is_dotted(name):
        one_of(setting, name, topology.REGIMES)
        return topology.REGIMES[name]
    return resolve(setting, name)


def idle_settings(config: Any, given: Iterable[str]) -> list[str]:
    """A line for each given setting of the topology that its module's regime does not read.

    Args:
        config: an agent's configuration.
        given: dotted names of settings, such as `critic.drop_fraction`; of others nothing is said.
    """
    modules = modules_of(config)
    told = []
    for name in given:
        module, _, setting = name.partition(".")
        regime = modules[module].regime if module in modules else ""
        own = topology.REGIMES.get(regime)  # a user's own regime may read them all
        if setting in _READ_AS and own and _READ_AS[setting] not in own.reads:
            told.append(f"{name} has no effect with {module}.regime={regime}")
    return told


def make_optimizer(
    config: ModuleConfig, plan: topology.Plan, max_grad_norm: float | None = None
) -> optax.GradientTransformationExtraArgs:
    """The module's optimizer under its topology.

    Clipping is inside the sparse transform and so sees the masked gradient.
    """
    own = find_optimizer(config.optimizer).make(config)
    if max_grad_norm is not None:
        own = optax.chain(optax.clip_by_global_norm(max_grad_norm), own)
    return topology.sparse(own, plan)


def check_replay(n_step: int, learning_starts: int, buffer_size: int, batch_size: int) -> None:
    """Raises ValueError unless the first n-step sample is there when learning starts, and fits."""
    require(
        learning_starts >= n_step,
        f"learning_starts={learning_starts} must be at least n_step={n_step}, the "
        "consecutive steps that one sample needs",
    )
    require(
        buffer_size >= batch_size,
        f"buffer_size={buffer_size} must be at least batch_size={batch_size}",
    )


def check_episodes(n_step: int, episode_length: int | None) -> None:
    """Raises ValueError when returns of so many steps are longer than a task's episodes."""
    require(
        episode_length is None or n_step <= episode_length,
        f"n_step={n_step} is more than the {episode_length} steps of an episode of this task, so "
        "there would be nothing to learn from; lower n_step",
    )


def require(condition: bool, message: str) -> None:
    """Raises ValueError with the message unless the condition holds."""
    if not condition:
        raise ValueError(message)


def not_negative(name: str, value: float) -> None:
    """Raises ValueError unless a number is at least zero."""
    require(value >= 0, f"{name}={value} must not be negative")


def one_of(name: str, value: str, choices: Any) -> None:
    """Raises ValueError naming the choices unless the value is one of them."""
    if value not in choices:  # what is nearest takes long to find
        raise ValueError(f"{name}={value!r} is unknown: {nearest(value, choices)}")


def _unit(name: str, value: float) -> None:
    require(0 < value <= 1, f"{name}={value} must be in (0, 1]")
