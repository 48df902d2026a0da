"""Settings of DER; defaults are those of Dopamine's program for 100,000 steps of Atari.

What else was published stands in `mst_jax.presets`.
"""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from mst_jax import networks
from mst_jax.agents.parts.modules import (
    ModuleConfig,
    check_replay,
    module,
    modules_of,
    not_negative,
    one_of,
    require,
)


@dataclass
class AdamModule(ModuleConfig):
    """A module without shortcuts under Adam, whose epsilon is a setting; see `ModuleConfig`.

    Attributes:
        epsilon: of Adam, outside the root.
    """

    activation: str = "relu"
    norm: bool = False
    learning_rate: float = 1e-4
    weight_decay: float = 0.0
    epsilon: float = 1.5e-4

    def validate(self, name: str) -> None:
        """Raises ValueError with one line when a setting is impossible; `name` is the module's."""
        super().validate(name)
        require(
            self.residual == "none",
            f"{name}.residual={self.residual}: these layers take no shortcuts; choose none",
        )
        require(self.epsilon > 0, f"{name}.epsilon={self.epsilon} must be positive")


class Body(NamedTuple):
    """What a body of the encoder is made of, unless settings say otherwise.

    Attributes:
        channels: of each convolution or stack, in units of width.
        kernels: pixels of a side of each convolution's kernel; empty where they cannot be chosen.
        strides: pixels from one place to the next, likewise.
    """

    channels: tuple[int, ...]
    kernels: tuple[int, ...] = ()
    strides: tuple[int, ...] = ()


BODIES = {
    "nature": Body((2, 4, 4), (8, 4, 3), (4, 2, 1)),
    "impala": Body((1, 2, 2)),
}


@dataclass
class EncoderConfig(AdamModule):
    """Convolutions over pictures; the rest is `AdamModule`'s.

    Attributes:
        body: `nature` (convolutions one on the other) or `impala` (residual stacks).
        hidden: channels of a unit of width; each convolution or stack has some units.
        channels: how many, for each of them, such as `2,4,4`; empty for the body's own.
        kernels: pixels of a side of each of Nature's kernels; empty for its own, `8,4,3`.
        strides: pixels from one place of them to the next; empty for its own, `4,2,1`.
        depth: residual blocks of each of IMPALA's stacks; Nature has none.
        activation: after each of Nature's convolutions; in IMPALA before each but a stack's first.
        norm: layer norm over the channels of each place before each activation.
        residual: `none`: what shortcuts there are is the body's.
    """

    hidden: int = 16
    body: str = "nature"
    channels: str = ""
    kernels: str = ""
    strides: str = ""

    def validate(self, name: str) -> None:
        """Raises ValueError with one line when a setting is impossible; `name` is the module's."""
        super().validate(name)
        one_of(f"{name}.body", self.body, BODIES)
        made = self._made_of(name)
        if self.body == "impala":
            for key in ("kernels", "strides"):
                require(
                    not getattr(made, key),
                    f"{name}.{key}={getattr(self, key)} has no effect with {name}.body=impala, "
                    "whose kernels are 3 pixels wide; leave it out",
                )
            return
        require(
            len(made.channels) == len(made.kernels) == len(made.strides),
            f"{name}.channels has {len(made.channels)} convolutions, {name}.kernels "
            f"{len(made.kernels)} and {name}.strides {len(made.strides)}: give as many of each, "
            f"such as {name}.channels=1 {name}.kernels=3 {name}.strides=1",
        )
        require(
            self.depth == EncoderConfig.depth,
            f"{name}.depth={self.depth} has no effect with {name}.body=nature, which has no "
            f"residual blocks; choose {name}.body=impala, or set {name}.channels",
        )

    def make(self, shape: tuple[int, int, int]) -> networks.PixelEncoder:
        """The encoder of pictures (H, W, C).

        Raises:
            ValueError: they are too small for it.
        """
        made, architecture = self._made_of("encoder"), self.architecture()
        channels = tuple(self.hidden * units for units in made.channels)
        if self.body == "impala":
            return networks.make_impala(shape, channels, self.depth, architecture)
        layers = zip(channels, made.kernels, made.strides, strict=True)
        return networks.make_nature(shape, [networks.Layer(*own) for own in layers], architecture)

    def _made_of(self, name: str) -> Body:
        """The body's parts, with settings in place of its own."""
        texts = {key: getattr(self, key) for key in Body._fields}
        given = {key: _numbers(f"{name}.{key}", text) for key, text in texts.items() if text}
        return BODIES[self.body]._replace(**given)


@dataclass
class DERConfig:
    """Settings of DER. With all six parts of Rainbow off it is DQN.

    Attributes:
        encoder: convolutions.
        critic: linear layers on their features, noisy ones; `depth` counts the hidden layers.
        joint: sparse kernels of encoder and critic share one budget, as if they were of one module
            (docs/topology.md, "Concepts").
        double: the next action is the online network's choice, not the target network's.
        dueling: values of states and advantages of actions have output layers of their own.
        distributional: a distribution of returns over `atoms`, and cross-entropy in place of the
            Huber loss of their mean.
        noisy: exploration by noisy layers, in place of random actions now and then.
        prioritised: starts are drawn by their last loss, and weighted for it.
        n_step: steps of the return; Rainbow's sixth part if more than 1.
        atoms: of the distribution.
        v_min: return of the first atom.
        v_max: return of the last one.
        noisy_std: the first scales of noise, in units of 1 / sqrt(inputs of a layer).
        clip_rewards: rewards count as -1 to 1 in what is learnt.
        discount: per agent step.
        batch_size: of every update.
        buffer_size: replay capacity in agent steps.
        learning_starts: agent steps before learning, of the first noisy network, or of uniform
            actions without noise.
        learn_every: agent steps from one update to the next.
        target_period: agent steps from one copy of the networks to the next.
        epsilon_start: without noisy layers, the share of random actions when learning starts.
        epsilon_end: the same from `epsilon_steps` later on.
        epsilon_steps: agent steps in which it goes from one to the other, linearly.
        evaluation_epsilon: share of random actions where a policy is judged, which has no noise.
    """

    encoder: EncoderConfig = module("representation", EncoderConfig)
    critic: AdamModule = module("value", partial(AdamModule, hidden=512, depth=1), scaled=False)
    joint: bool = False
    double: bool = True
    dueling: bool = True
    distributional: bool = True
    noisy: bool = True
    prioritised: bool = True
    n_step: int = 10
    atoms: int = 51
    v_min: float = -10.0
    v_max: float = 10.0
    noisy_std: float = 0.1
    clip_rewards: bool = True
    discount: float = 0.99
    batch_size: int = 32
    buffer_size: int = 1_000_000
    learning_starts: int = 1_610
    learn_every: int = 1
    target_period: int = 2_000
    epsilon_start: float = 1.0
    epsilon_end: float = 0.01
    epsilon_steps: int = 5_000
    evaluation_epsilon: float = 0.001

    def validate(self) -> None:
        """Raises ValueError with one line for the first impossible setting."""
        for name, settings in modules_of(self).items():
            settings.validate(name)
        for name in ("n_step", "batch_size", "learn_every", "target_period", "epsilon_steps"):
            require(getattr(self, name) >= 1, f"{name}={getattr(self, name)} must be at least 1")
        require(self.atoms >= 2, f"atoms={self.atoms} must be at least 2")
        require(self.v_min < self.v_max, f"v_min={self.v_min} must be below v_max={self.v_max}")
        not_negative("noisy_std", self.noisy_std)
        for name in ("discount", "epsilon_start", "epsilon_end", "evaluation_epsilon"):
            require(
                0 <= getattr(self, name) <= 1, f"{name}={getattr(self, name)} must be in [0, 1]"
            )
        check_replay(self.n_step, self.learning_starts, self.buffer_size, self.batch_size)


def _numbers(setting: str, text: str) -> tuple[int, ...]:
    """Whole numbers from a text such as `2,4,4`; ValueError, in one line, for anything else."""
    parts = [part.strip() for part in text.split(",")]
    require(
        all(part.isdecimal() and 1 <= int(part) <= 2**20 for part in parts),
        f"{setting}={text!r} must be positive whole numbers with commas between, such as 2,4,4",
    )
    return tuple(map(int, parts))
