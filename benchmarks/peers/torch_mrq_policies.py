"""How outputs of MR.Q's actor become actions, in eager PyTorch: tanh, or one of several choices.

docs/specs/mrq-pixels-discrete.md §2; docs/specs/mst-and-mrq.md §6.4, §6.5.
"""

from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F  # noqa: N812, the name everybody gives it

from mst_jax.agents import MRQConfig


class Noise(NamedTuple):
    """What is random in one update, standard draws.

    Attributes:
        target: of the target policy's action.
        actor: of the action in the actor's loss; None where that has no chance.
    """

    target: tuple[torch.Tensor, ...]
    actor: torch.Tensor | None


class Policy(Protocol):
    """Actions (B, size) of the actor's outputs (B, size)."""

    @property
    def size(self) -> int:
        """Numbers that the networks take an action as."""

    def noise(self, count: int) -> Noise:
        """Draws for an update on `count` samples."""

    def target(self, outputs: torch.Tensor, noise: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """Smoothed actions of the target actor's outputs."""

    def differentiable(self, outputs: torch.Tensor, noise: torch.Tensor | None) -> torch.Tensor:
        """Actions through which the actor's loss has a gradient."""


class TanhPolicy:
    """Continuous actions."""

    def __init__(self, config: MRQConfig, size: int) -> None:
        self.config, self.size = config, size

    def noise(self, count: int) -> Noise:
        """See `Policy`; the actor's loss has none."""
        return Noise((torch.randn(count, self.size),), None)

    def target(self, outputs: torch.Tensor, noise: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """See `Policy`."""
        config, (gaussian,) = self.config, noise
        clip = config.target_noise_clip
        smoothing = (config.target_noise * gaussian).clamp(-clip, clip)
        return (torch.tanh(outputs) + smoothing).clamp(-1.0, 1.0)

    def differentiable(self, outputs: torch.Tensor, noise: torch.Tensor | None) -> torch.Tensor:
        """See `Policy`."""
        del noise
        return torch.tanh(outputs)


class GumbelPolicy:
    """One of `size` choices: outputs are logits of Gumbel-softmax actions."""

    def __init__(self, config: MRQConfig, size: int) -> None:
        self.config, self.size = config.discrete, size

    def noise(self, count: int) -> Noise:
        """See `Policy`."""
        gumbels = [-torch.empty(count, self.size).exponential_().log() for _ in range(2)]
        return Noise((gumbels[0], torch.randn(count, self.size)), gumbels[1])

    def target(self, outputs: torch.Tensor, noise: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """See `Policy`: one-hot."""
        config, (gumbel, gaussian) = self.config, noise
        clip = config.target_noise_clip
        smoothing = (config.target_noise * gaussian).clamp(-clip, clip)
        chosen = (self.differentiable(outputs, gumbel) + smoothing).argmax(-1)
        return F.one_hot(chosen, self.size).float()

    def differentiable(self, outputs: torch.Tensor, noise: torch.Tensor | None) -> torch.Tensor:
        """See `Policy`: soft choices."""
        return ((outputs + noise) / self.config.temperature).softmax(-1)
