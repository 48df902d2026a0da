"""Settings of Stream AC(λ), as published (docs/specs/streaming.md §1.1)."""

from dataclasses import dataclass
from functools import partial

from mst_jax.agents.parts.modules import ModuleConfig, module, modules_of, not_negative, require
from mst_jax.agents.parts.optimizers import OPTIMIZERS, TRACES, find_optimizer

ACTION_SCALES = ("native", "unit")


@dataclass
class StreamModule(ModuleConfig):
    """A module that is trained along eligibility traces; the rest is `ModuleConfig`'s.

    Attributes:
        hidden: width of the hidden layers.
        activation: leaky ReLU, as published.
        optimizer: one that asks for a TD error: `obgd`, or `adaptive_obgd`.
        learning_rate: α, the step where nothing bounds it.
        weight_decay: 0; traces know no decay of weights.
        interval: updates, here steps of the environment, between topology updates.
        kappa: κ of the bound on steps; larger is more careful.
        trace_decay: λ.
        init_sparsity: share of each unit's inputs that SparseInit sets to zero; 0 for none.
        init_within_mask: whether SparseInit counts and silences active inputs only; if not, it
            draws as for a dense network, and the mask comes on top.
    """

    hidden: int = 128
    activation: str = "leaky_relu"
    optimizer: str = "obgd"
    learning_rate: float = 1.0
    weight_decay: float = 0.0
    interval: int = 2_000
    kappa: float = 2.0
    trace_decay: float = 0.8
    init_sparsity: float = 0.9
    init_within_mask: bool = False

    def validate(self, name: str) -> None:
        """Raises ValueError with one line when a setting is impossible; `name` is the module's."""
        super().validate(name)
        require(self.kappa > 0, f"{name}.kappa={self.kappa} must be positive")
        for key in ("trace_decay", "init_sparsity"):
            value = getattr(self, key)
            require(0 <= value < 1, f"{name}.{key}={value} must be in [0, 1)")
        require(
            not self.weight_decay or self.optimizer not in OPTIMIZERS,
            f"{name}.weight_decay={self.weight_decay} has no effect with "
            f"{name}.optimizer={self.optimizer}: set it to 0",
        )
        asks = find_optimizer(self.optimizer, f"{name}.optimizer").asks
        require(
            "td_error" in asks and set(asks) <= set(TRACES),
            f"{name}.optimizer={self.optimizer!r} does not step along TD errors: choose obgd, or "
            f"one of your own that asks for td_error and may ask for {', '.join(TRACES[1:])}",
        )


@dataclass
class StreamACConfig:
    """Settings of Stream AC(λ); the defaults are the published ones.

    Attributes:
        critic: value network on observations.
        actor: policy network on observations.
        discount: γ, per agent step.
        entropy_weight: of the entropy bonus in the actor's traces.
        normalize_observations: by running mean and variance.
        scale_rewards: divide rewards by the running deviation of their discounted sum.
        action_scale: `native`: the policy draws in the task's own units, as published; `unit`: in
            units in which the bounds are -1 and 1.
    """

    critic: StreamModule = module("value", StreamModule)
    actor: StreamModule = module("policy", partial(StreamModule, kappa=3.0))
    discount: float = 0.99
    entropy_weight: float = 0.01
    normalize_observations: bool = True
    scale_rewards: bool = True
    action_scale: str = "native"

    def validate(self) -> None:
        """Raises ValueError with one line for the first impossible setting."""
        for name, settings in modules_of(self).items():
            settings.validate(name)
            require(
                settings.storage == "masked",
                f"{name}.storage=compact: eligibility traces are of whole kernels; Stream AC has "
                "masked storage only",
            )
        require(0 <= self.discount < 1, f"discount={self.discount} must be in [0, 1)")
        not_negative("entropy_weight", self.entropy_weight)
        require(
            self.action_scale in ACTION_SCALES,
            f"action_scale={self.action_scale!r} is none of {', '.join(ACTION_SCALES)}",
        )
