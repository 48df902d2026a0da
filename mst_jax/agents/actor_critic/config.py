"""Settings of SAC and DDPG, as published (docs/specs/network-sparsity.md §2)."""

from dataclasses import dataclass, field
from functools import partial

from mst_jax.agents.parts.losses import discount_heuristic
from mst_jax.agents.parts.modules import (
    ModuleConfig,
    check_replay,
    module,
    modules_of,
    not_negative,
    require,
)
from mst_jax.agents.parts.temperature import TemperatureConfig


def simba_module(hidden: int, depth: int) -> ModuleConfig:
    """A SimBa network with its published optimizer settings (Tables 2 and 3)."""
    return ModuleConfig(
        hidden=hidden,
        depth=depth,
        activation="relu",
        residual="simba",
        learning_rate=1e-4,
        weight_decay=1e-2,
    )


@dataclass
class ActorCriticConfig:
    """What SAC, DDPG and TD3 share.

    Attributes:
        critic: value network on observation and action.
        actor: policy network on observations.
        twin: two critics, of which the smaller value counts; the papers use one on DMC.
        normalize_observations: by running mean and variance; the buffer holds raw observations.
        discount: per agent step; None takes the heuristic of §2.4 from the episode length.
        tau: Polyak step of the target critic, every update.
        batch_size: of every update.
        buffer_size: replay capacity in agent steps.
        learning_starts: agent steps with uniform random actions before learning.
        updates_per_step: updates per agent step, all in one device call.
        n_step: steps of the return (RLx2: 3). With more than one, the last starts of a truncated
            episode are not sampled.
        n_step_delay: updates with one-step returns before that (RLx2: 300,000).
        review_every: agent steps between reviews of the oldest replay, RLx2's dynamic capacity
            (there 10,000); 0: none.
        review_distance: half a mean square between the policy and its oldest actions, above which
            the oldest tenth of the replay is not sampled any more.
        review_fewest: starts in replay below which a review lets nothing go.
    """

    critic: ModuleConfig = module("value", partial(simba_module, hidden=512, depth=2))
    actor: ModuleConfig = module("policy", partial(simba_module, hidden=128, depth=1))
    twin: bool = False
    normalize_observations: bool = True
    discount: float | None = None
    tau: float = 0.005
    batch_size: int = 256
    buffer_size: int = 1_000_000
    learning_starts: int = 5_000
    updates_per_step: int = 2
    n_step: int = 1
    n_step_delay: int = 0
    review_every: int = 0
    review_distance: float = 0.2
    review_fewest: int = 100_000

    def validate(self) -> None:
        """Raises ValueError with one line for the first impossible setting."""
        for name, settings in modules_of(self).items():
            settings.validate(name)
        for name in ("batch_size", "learning_starts", "updates_per_step"):
            require(getattr(self, name) >= 1, f"{name}={getattr(self, name)} must be at least 1")
        require(self.buffer_size > 2, f"buffer_size={self.buffer_size} must exceed 2")
        check_replay(self.n_step, self.learning_starts, self.buffer_size, self.batch_size)
        require(self.n_step >= 1, f"n_step={self.n_step} must be at least 1")
        for name in ("n_step_delay", "review_every", "review_distance", "review_fewest"):
            not_negative(name, getattr(self, name))
        require(
            self.n_step > 1 or not self.n_step_delay,
            f"n_step_delay={self.n_step_delay} delays nothing with n_step=1; raise n_step",
        )
        require(0 < self.tau <= 1, f"tau={self.tau} must be in (0, 1]")
        if self.discount is not None:
            require(0 <= self.discount <= 1, f"discount={self.discount} must be in [0, 1]")

    def discount_for(self, episode_length: int | None) -> float:
        """The discount per agent step of a task with episodes of this many agent steps."""
        return discount_heuristic(episode_length) if self.discount is None else self.discount


@dataclass
class SACConfig(ActorCriticConfig):
    """Settings of SAC (§2.2).

    Attributes:
        temperature: weight of the entropy and how it is tuned.
    """

    temperature: TemperatureConfig = field(default_factory=TemperatureConfig)

    def validate(self) -> None:
        """Raises ValueError with one line for the first impossible setting."""
        super().validate()
        self.temperature.validate()


@dataclass
class DDPGConfig(ActorCriticConfig):
    """Settings of DDPG (§2.3).

    Attributes:
        exploration_noise: standard deviation of the Gaussian noise on actions, when acting, in the
            actor's loss and in the target.
    """

    exploration_noise: float = 0.1

    def validate(self) -> None:
        """Raises ValueError with one line for the first impossible setting."""
        super().validate()
        not_negative("exploration_noise", self.exploration_noise)
