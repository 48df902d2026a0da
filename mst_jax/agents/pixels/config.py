"""Settings of DrQ-v2; defaults are those published for tasks of medium difficulty.

What was published for each task stands in `mst_jax.presets`.
"""

from dataclasses import dataclass
from functools import partial

from mst_jax.agents.parts.modules import (
    ModuleConfig,
    check_replay,
    module,
    modules_of,
    not_negative,
    require,
)

HEADS = "(q1|q2)/.*kernel"  # of the critic: what its width scales


@dataclass
class ConvolutionsConfig(ModuleConfig):
    """A module of convolutions of 3x3 without padding; the rest is `ModuleConfig`'s.

    Attributes:
        hidden: channels of each convolution.
        depth: number of convolutions.
        activation: after each of them, the last one too.
        norm: layer norm over the channels of each place before each activation.
        residual: `none`; convolutions have no shortcuts.
        strided: how many of the convolutions, the first ones, move by two pixels; the others move
            by one.
    """

    hidden: int = 32
    depth: int = 4
    activation: str = "relu"
    norm: bool = False
    learning_rate: float = 1e-4
    weight_decay: float = 0.0
    strided: int = 1

    def validate(self, name: str) -> None:
        """Raises ValueError with one line when a setting is impossible; `name` is the module's."""
        super().validate(name)
        require(
            self.residual == "none",
            f"{name}.residual={self.residual}: convolutions have no shortcuts; choose none",
        )
        require(
            0 <= self.strided <= self.depth,
            f"{name}.strided={self.strided} must be in 0 to {name}.depth={self.depth}",
        )


def linear_module(where: str = ".*") -> ModuleConfig:
    """Linear layers on a trunk with the published settings (docs/specs/drqv2.md §1.2)."""
    return ModuleConfig(
        hidden=1024,
        depth=2,
        activation="relu",
        norm=False,
        learning_rate=1e-4,
        weight_decay=0.0,
        where=where,
    )


@dataclass
class DrQv2Config:
    """Settings of DrQ-v2.

    Attributes:
        encoder: convolutions, trained by the critic's loss alone.
        critic: a trunk and two value heads; only the heads may be sparse, unless `where` says so.
        actor: a trunk of its own and the policy.
        feature_dim: numbers that each trunk leaves of a picture's features.
        pad: pixels by which the pictures of a batch are shifted at most; 0 for no augmentation.
        n_step: steps of the return.
        discount: per agent step.
        tau: Polyak step of the target critic, its trunk included, at every update.
        noise_start: standard deviation of the noise on actions at the beginning.
        noise_end: the same from `noise_steps` on.
        noise_steps: agent steps in which it goes from one to the other, linearly.
        noise_clip: clip of the noise in the target and in the actor's loss.
        batch_size: of every update.
        buffer_size: replay capacity in agent steps.
        learning_starts: agent steps with uniform random actions before learning.
        learn_every: agent steps from one update to the next.
    """

    encoder: ConvolutionsConfig = module("representation", ConvolutionsConfig, scaled=False)
    critic: ModuleConfig = module("value", partial(linear_module, where=HEADS))
    actor: ModuleConfig = module("policy", linear_module, scaled=False)
    feature_dim: int = 50
    pad: int = 4
    n_step: int = 3
    discount: float = 0.99
    tau: float = 0.01
    noise_start: float = 1.0
    noise_end: float = 0.1
    noise_steps: int = 500_000
    noise_clip: float = 0.3
    batch_size: int = 256
    buffer_size: int = 1_000_000
    learning_starts: int = 2_000
    learn_every: int = 2

    def validate(self) -> None:
        """Raises ValueError with one line for the first impossible setting."""
        for name, settings in modules_of(self).items():
            settings.validate(name)
        counts = ("feature_dim", "n_step", "noise_steps", "batch_size", "learn_every")
        for name in counts:
            require(getattr(self, name) >= 1, f"{name}={getattr(self, name)} must be at least 1")
        for name in ("pad", "noise_start", "noise_end", "noise_clip"):
            not_negative(name, getattr(self, name))
        for name, value in (("discount", self.discount), ("tau", self.tau)):
            require(0 <= value <= 1, f"{name}={value} must be in [0, 1]")
        check_replay(self.n_step, self.learning_starts, self.buffer_size, self.batch_size)
