"""DrQ-v2 in eager PyTorch (docs/specs/drqv2.md §1), dense, for one seed.

Pictures have their channels first, and parameters the order of the published program's.
"""

import copy
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812, the name everybody gives it
from torch import nn

from benchmarks.peers.torch_pictures import Convolutions, random_shift
from mst_jax.agents import DrQv2Config, ModuleConfig

LARGEST_ACTION = 1.0 - 1e-6


class Transition(NamedTuple):
    """n steps each: uint8 pictures (B, C, H, W), (B, A), (B,), (B,), pictures n steps on."""

    observation: torch.Tensor
    action: torch.Tensor
    returns: torch.Tensor
    bootstrap: torch.Tensor
    next_observation: torch.Tensor


class Trunk(nn.Module):
    """A linear layer, layer norm and tanh."""

    def __init__(self, features: int, size: int) -> None:
        super().__init__()
        self.layer_1, self.norm = _orthogonal(features, size), nn.LayerNorm(size)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(B, features) to (B, size)."""
        return torch.tanh(self.norm(self.layer_1(features)))


class Actor(nn.Module):
    """A deterministic policy on a trunk of its own."""

    def __init__(self, features: int, trunk: int, action_size: int, module: ModuleConfig) -> None:
        super().__init__()
        self.trunk = Trunk(features, trunk)
        self.policy = _head(trunk, action_size, module)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(B, features) to the mean action (B, A)."""
        return torch.tanh(self.policy(self.trunk(features)))


class Critic(nn.Module):
    """Two value heads on one trunk."""

    def __init__(self, features: int, trunk: int, action_size: int, module: ModuleConfig) -> None:
        super().__init__()
        self.trunk = Trunk(features, trunk)
        self.q1, self.q2 = (_head(trunk + action_size, 1, module) for _ in range(2))

    def forward(self, features: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        """(B, features), (B, A) to (B, 2)."""
        x = torch.cat([self.trunk(features), action], dim=-1)
        return torch.cat([self.q1(x), self.q2(x)], dim=-1)


class TorchDrQv2:
    """Networks, target and optimizers of one seed, and the update on them."""

    def __init__(self, config: DrQv2Config, shape: Sequence[int], action_size: int) -> None:
        self.config, encoder = config, config.encoder
        height, width, channels = shape
        self.encoder = Convolutions(
            channels, encoder.hidden, encoder.depth, encoder.strided, nn.ReLU()
        )
        for layer in self.encoder.layers():
            nn.init.orthogonal_(layer.weight, math.sqrt(2.0))
            nn.init.zeros_(layer.bias)
        features = self.encoder(torch.zeros(1, channels, height, width)).shape[1]
        sizes = (features, config.feature_dim, action_size)
        self.critic, self.actor = Critic(*sizes, config.critic), Actor(*sizes, config.actor)
        self.target = copy.deepcopy(self.critic).requires_grad_(False)
        # Fused: the fastest of PyTorch's eager implementations, on a CPU too.
        self.optimizers = {
            name: torch.optim.Adam(
                getattr(self, name).parameters(),
                lr=getattr(config, name).learning_rate,
                fused=True,
            )
            for name in ("encoder", "critic", "actor")
        }

    def learn(self, stored: Transition, noise_scale: float) -> None:
        """One update on transitions as they are stored: shifts them and draws the noise."""
        pad, clip = self.config.pad, self.config.noise_clip
        shown = {
            name: random_shift(getattr(stored, name), pad)
            for name in ("observation", "next_observation")
        }
        target_noise, actor_noise = (
            (noise_scale * torch.randn_like(stored.action)).clamp(-clip, clip) for _ in range(2)
        )
        self.update(stored._replace(**shown), target_noise, actor_noise)

    def update(
        self, batch: Transition, target_noise: torch.Tensor, actor_noise: torch.Tensor
    ) -> None:
        """Critic with encoder, actor and target, once each, on shifted pictures (§1.4).

        Args:
            batch: pictures of any dtype, in 0 to 255.
            target_noise: (B, A) of the next action, clipped.
            actor_noise: (B, A) of the action in the actor's loss, likewise.
        """
        features = self.encoder(batch.observation)
        with torch.no_grad():
            following = self.encoder(batch.next_observation)
            action = self._noisy_action(following, target_noise)
            value = self.target(following, action).amin(-1)
            target = batch.returns + batch.bootstrap * value
        values = self.critic(features, batch.action)
        loss = F.mse_loss(values[:, 0], target) + F.mse_loss(values[:, 1], target)
        self._step(loss, "critic", "encoder")

        features = features.detach()
        action = self._noisy_action(features, actor_noise)
        self._step(-self.critic(features, action).amin(-1).mean(), "actor")
        online = list(self.critic.parameters())
        with torch.no_grad():
            torch._foreach_lerp_(list(self.target.parameters()), online, self.config.tau)

    def _noisy_action(self, features: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """Kept off the bounds, with a gradient as if it were not."""
        action = self.actor(features) + noise
        clamped = action.detach().clamp(-LARGEST_ACTION, LARGEST_ACTION)
        return clamped + (action - action.detach())

    def _step(self, loss: torch.Tensor, *names: str) -> None:
        """Differentiates with respect to these modules only, and takes their optimizers' steps."""
        for name in names:
            self.optimizers[name].zero_grad(set_to_none=True)
        loss.backward(inputs=[p for name in names for p in getattr(self, name).parameters()])
        for name in names:
            self.optimizers[name].step()


def _head(inputs: int, outputs: int, module: ModuleConfig) -> nn.Sequential:
    """`depth` hidden layers with ReLU and a linear one."""
    layers: list[nn.Module] = []
    for _ in range(module.depth):
        layers += [_orthogonal(inputs, module.hidden), nn.ReLU()]
        inputs = module.hidden
    return nn.Sequential(*layers, _orthogonal(inputs, outputs))


def _orthogonal(inputs: int, outputs: int) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    nn.init.orthogonal_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
