"""Settings of MR.Q and MR.SAC; defaults are the published ones (docs/specs/mst-and-mrq.md §6.8)."""

from dataclasses import dataclass, field
from functools import partial

from mst_jax import networks
from mst_jax.agents.parts.modules import (
    ModuleConfig,
    module,
    modules_of,
    not_negative,
    one_of,
    require,
)
from mst_jax.agents.parts.temperature import TemperatureConfig


@dataclass
class PicturesConfig:
    """How MR.Q's encoder takes pictures: convolutions of 3x3 before a linear layer, and shifts.

    Published for pictures of 84x84. They have no norm and no shortcuts, whatever the module has.

    Attributes:
        channels: of each convolution.
        depth: number of convolutions.
        strided: how many of them, the first ones, move by two pixels; the others move by one.
        padding: `valid` for none, `same` for zeros around the picture, which keep its size.
        shift: pixels by which the pictures of a batch are moved at most; 0 for no augmentation.
    """

    channels: int = 32
    depth: int = 4
    strided: int = 3
    padding: str = "valid"
    shift: int = 4

    def validate(self) -> None:
        """Raises ValueError with one line for the first impossible setting."""
        for name in ("channels", "depth"):
            value = getattr(self, name)
            require(value >= 1, f"pictures.{name}={value} must be at least 1")
        require(
            0 <= self.strided <= self.depth,
            f"pictures.strided={self.strided} must be in 0 to pictures.depth={self.depth}",
        )
        one_of("pictures.padding", self.padding, networks.PADDINGS)
        not_negative("pictures.shift", self.shift)


@dataclass
class DiscreteConfig:
    """How MR.Q chooses among discrete actions; noise is half of that of continuous ones.

    Attributes:
        temperature: of the Gumbel-softmax.
        exploration_noise: standard deviation of the Gaussian noise on soft actions.
        target_noise: standard deviation of the target policy's smoothing noise.
        target_noise_clip: its clip.
        epsilon: probability of a uniform action, exploring and judged.
        greedy: whether the largest output is judged, and not a choice drawn from their softmax.
    """

    temperature: float = 10.0
    exploration_noise: float = 0.1
    target_noise: float = 0.1
    target_noise_clip: float = 0.15
    epsilon: float = 0.001
    greedy: bool = False

    def validate(self) -> None:
        """Raises ValueError with one line for the first impossible setting."""
        require(self.temperature > 0, f"discrete.temperature={self.temperature} must be positive")
        for name in ("exploration_noise", "target_noise", "target_noise_clip"):
            not_negative(f"discrete.{name}", getattr(self, name))
        require(0 <= self.epsilon <= 1, f"discrete.epsilon={self.epsilon} must be in [0, 1]")


@dataclass
class MRConfig:
    """What MR.Q and MR.SAC share.

    Attributes:
        encoder: state, action and state-action embeddings with the linear prediction head.
        critic: twin value heads; `depth` counts the hidden layers of each.
        actor: policy network on the state latent.
        zs_size: width of the state latent.
        za_size: width of the action embedding.
        zsa_size: width of the state-action latent.
        reward_bins: bins of the two-hot reward code.
        reward_limit: the outermost bins are at +-(exp(limit) - 1).
        discount: per agent step.
        batch_size: of every update.
        buffer_size: replay capacity in agent steps.
        learning_starts: agent steps with uniform random actions before learning.
        target_period: updates between target copies; as many encoder updates follow each copy.
        horizon: steps the encoder is unrolled.
        n_step: steps of the critic's return.
        dynamics_weight: weight of the latent prediction error.
        reward_weight: weight of the reward cross-entropy.
        terminal_weight: weight of the termination error, once a termination has been seen.
        priority_exponent: LAP's alpha.
        min_priority: LAP's floor before the exponent.
        max_grad_norm: clip of the critic's gradient norm.
        pictures: how the encoder takes pictures, where the task shows them.
        published_terminal_rewards: form returns as the published program does, which leaves out
            the reward of a step that terminates, and counts rewards behind it.
    """

    encoder: ModuleConfig = module("representation", partial(ModuleConfig, learning_rate=1e-4))
    critic: ModuleConfig = module("value", partial(ModuleConfig, depth=3))
    actor: ModuleConfig = module("policy", partial(ModuleConfig, activation="relu"))
    zs_size: int = 512
    za_size: int = 256
    zsa_size: int = 512
    reward_bins: int = 65
    reward_limit: float = 10.0
    discount: float = 0.99
    batch_size: int = 256
    buffer_size: int = 1_000_000
    learning_starts: int = 10_000
    target_period: int = 250
    horizon: int = 5
    n_step: int = 3
    dynamics_weight: float = 1.0
    reward_weight: float = 0.1
    terminal_weight: float = 0.1
    priority_exponent: float = 0.4
    min_priority: float = 1.0
    max_grad_norm: float = 20.0
    pictures: PicturesConfig = field(default_factory=PicturesConfig)
    published_terminal_rewards: bool = False

    def validate(self) -> None:
        """Raises ValueError with one line for the first impossible setting."""
        for name, settings in modules_of(self).items():
            settings.validate(name)
        encoder = self.encoder
        require(
            encoder.storage == "masked" or encoder.regime == "static",
            f"encoder.storage=compact with encoder.regime={encoder.regime}: the encoder is "
            "unrolled, and compact storage grows where a loss calls a network once; choose static",
        )
        self.pictures.validate()
        counts = (
            "zs_size",
            "za_size",
            "zsa_size",
            "batch_size",
            "target_period",
            "horizon",
            "n_step",
        )
        for name in counts:
            require(getattr(self, name) >= 1, f"{name}={getattr(self, name)} must be at least 1")
        require(self.reward_bins >= 2, f"reward_bins={self.reward_bins} must be at least 2")
        require(0 <= self.discount <= 1, f"discount={self.discount} must be in [0, 1]")
        for name in ("reward_limit", "min_priority", "max_grad_norm"):
            value = getattr(self, name)
            require(value > 0, f"{name}={value} must be positive")
        for name in ("dynamics_weight", "reward_weight", "terminal_weight", "priority_exponent"):
            not_negative(name, getattr(self, name))
        require(
            self.learning_starts > self.span,
            f"learning_starts={self.learning_starts} must exceed {self.span}, "
            "the consecutive steps that one sample needs",
        )
        require(
            self.buffer_size > 2 * self.span,
            f"buffer_size={self.buffer_size} must exceed {2 * self.span}",
        )
        require(
            self.buffer_size >= self.batch_size,
            f"buffer_size={self.buffer_size} must be at least batch_size={self.batch_size}",
        )

    @property
    def span(self) -> int:
        """A start can be sampled once max(horizon, n_step) steps of its episode follow (§6.9)."""
        return max(self.horizon, self.n_step) + 1


@dataclass
class MRQConfig(MRConfig):
    """Settings of MR.Q.

    Attributes:
        exploration_noise: standard deviation of the Gaussian noise on actions.
        target_noise: standard deviation of the target policy's smoothing noise.
        target_noise_clip: its clip.
        pre_activation_weight: penalty on the actor's pre-activation.
        discrete: what stands for the noises above where the task's actions are discrete.
    """

    exploration_noise: float = 0.2
    target_noise: float = 0.2
    target_noise_clip: float = 0.3
    pre_activation_weight: float = 1e-5
    discrete: DiscreteConfig = field(default_factory=DiscreteConfig)

    def validate(self) -> None:
        """Raises ValueError with one line for the first impossible setting."""
        super().validate()
        self.discrete.validate()
        for name in (
            *("exploration_noise", "target_noise", "target_noise_clip", "pre_activation_weight"),
        ):
            not_negative(name, getattr(self, name))


@dataclass
class MRSACConfig(MRConfig):
    """Settings of MR.SAC.

    Attributes:
        temperature: weight of the entropy, in units of reward, and how it is tuned.
    """

    temperature: TemperatureConfig = field(
        default_factory=lambda: TemperatureConfig(learning_rate=3e-4)
    )

    def validate(self) -> None:
        """Raises ValueError with one line for the first impossible setting."""
        super().validate()
        self.temperature.validate()
