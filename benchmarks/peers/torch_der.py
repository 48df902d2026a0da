"""Data-Efficient Rainbow in eager PyTorch (docs/specs/der.md §1), dense, for one seed.

Pictures have their channels first.
"""

import copy
import math
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812, the name everybody gives it
from torch import nn

from mst_jax.agents import DERConfig


class Transition(NamedTuple):
    """n steps each: uint8 pictures (B, C, H, W), (B,) int64, (B,), (B,), pictures n steps on."""

    observation: torch.Tensor
    action: torch.Tensor
    returns: torch.Tensor
    bootstrap: torch.Tensor
    next_observation: torch.Tensor


class Noisy(nn.Module):
    """A linear layer with factorised Gaussian noise, one draw for a batch."""

    def __init__(self, inputs: int, outputs: int, std: float) -> None:
        super().__init__()
        bound = 1 / math.sqrt(inputs)
        self.weight = nn.Parameter(torch.empty(outputs, inputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(outputs).uniform_(-bound, bound))
        self.weight_noise = nn.Parameter(torch.full((outputs, inputs), std * bound))
        self.bias_noise = nn.Parameter(torch.full((outputs,), std * bound))

    def draw(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Noise of the inputs and of the outputs."""
        outputs, inputs = self.weight.shape
        return _compressed(torch.randn(inputs)), _compressed(torch.randn(outputs))

    def forward(self, x: torch.Tensor, noise: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        """(B, inputs) to (B, outputs)."""
        before, after = noise
        mean = F.linear(x, self.weight, self.bias)
        return mean + after * (F.linear(x * before, self.weight_noise) + self.bias_noise)


class Rainbow(nn.Module):
    """Convolutions, a noisy hidden layer, advantages and value of each atom."""

    def __init__(self, config: DERConfig, channels: int, side: int, actions: int) -> None:
        super().__init__()
        make = {"nature": _nature, "impala": _impala}[config.encoder.body]
        self.body = make(channels, config.encoder.hidden)
        features = self.body(torch.zeros(1, channels, side, side)).shape[1]
        hidden, atoms, std = config.critic.hidden, config.atoms, config.noisy_std
        self.hidden = Noisy(features, hidden, std)
        self.advantage = Noisy(hidden, actions * atoms, std)
        self.value = Noisy(hidden, atoms, std)
        self.atoms = atoms

    def draw(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Noise of each noisy layer, independent."""
        return [layer.draw() for layer in (self.hidden, self.advantage, self.value)]

    def forward(
        self, pictures: torch.Tensor, noise: list[tuple[torch.Tensor, torch.Tensor]]
    ) -> torch.Tensor:
        """(B, C, H, W) in 0 to 255 to logits (B, A, atoms)."""
        x = F.relu(self.hidden(self.body(pictures / 255.0), noise[0]))
        advantage = self.advantage(x, noise[1]).unflatten(1, (-1, self.atoms))
        value = self.value(x, noise[2])[:, None]
        return value + advantage - advantage.mean(1, keepdim=True)


class TorchDer:
    """Network, target and optimizer of one seed, and the update on them."""

    def __init__(self, config: DERConfig, channels: int, side: int, actions: int) -> None:
        self.online = Rainbow(config, channels, side, actions)
        self.target = copy.deepcopy(self.online).requires_grad_(False)
        self.support = torch.linspace(config.v_min, config.v_max, config.atoms)
        # Fused: the fastest of PyTorch's eager implementations, on a CPU too.
        self.optimizer = torch.optim.Adam(
            self.online.parameters(),
            lr=config.encoder.learning_rate,
            eps=config.encoder.epsilon,
            fused=True,
        )

    def learn(self, batch: Transition, weights: torch.Tensor) -> torch.Tensor:
        """One update with importance weights (B,); returns the new priorities (B,)."""
        target = self._target(batch)
        logits = self.online(batch.observation, self.online.draw())
        taken = logits[torch.arange(len(logits)), batch.action]
        losses = -(target * F.log_softmax(taken, dim=-1)).sum(-1)
        self.optimizer.zero_grad(set_to_none=True)
        (weights * losses).mean().backward()
        self.optimizer.step()
        return torch.sqrt(losses.detach() + 1e-10)

    @torch.no_grad()
    def _target(self, batch: Transition) -> torch.Tensor:
        """Projected distributions (B, atoms) of the online network's choice."""
        noise = self.online.draw()
        values = self.online(batch.next_observation, noise).softmax(-1) @ self.support
        following = self.target(batch.next_observation, noise).softmax(-1)
        chosen = following[torch.arange(len(following)), values.argmax(-1)]
        moved = batch.returns[:, None] + batch.bootstrap[:, None] * self.support
        moved = moved.clamp(self.support[0], self.support[-1])
        spacing = self.support[1] - self.support[0]
        share = (1 - (moved[:, None] - self.support[:, None]).abs() / spacing).clamp(min=0)
        return (share * chosen[:, None]).sum(-1)


class _Residual(nn.Module):
    """Two convolutions around which their input is led."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.second(F.relu(self.first(F.relu(x))))


class _Same(nn.Conv2d):
    """A convolution with as many zeros around the picture as leave one place per stride."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(_padded(x, self.kernel_size[0], self.stride[0], 0.0))


class _Pool(nn.Module):
    """The largest of 3x3 at every second pixel."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.max_pool2d(_padded(x, 3, 2, -math.inf), 3, 2)


def _nature(channels: int, unit: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for outputs, size, stride in ((2 * unit, 8, 4), (4 * unit, 4, 2), (4 * unit, 3, 1)):
        layers += [_xavier(_Same(channels, outputs, size, stride)), nn.ReLU()]
        channels = outputs
    return nn.Sequential(*layers, nn.Flatten())


def _impala(channels: int, unit: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for outputs in (unit, 2 * unit, 2 * unit):
        layers += [_xavier(_Same(channels, outputs, 3)), _Pool()]
        layers += [_Residual(outputs), _Residual(outputs)]
        channels = outputs
    return nn.Sequential(*layers, nn.ReLU(), nn.Flatten())


def _padded(x: torch.Tensor, size: int, stride: int, value: float) -> torch.Tensor:
    around: list[int] = []
    for side in reversed(x.shape[2:]):
        more = max(((side - 1) // stride) * stride + size - side, 0)
        around += [more // 2, more - more // 2]
    return F.pad(x, around, value=value)


def _xavier(layer: nn.Conv2d) -> nn.Conv2d:
    nn.init.xavier_uniform_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def _compressed(noise: torch.Tensor) -> torch.Tensor:
    return noise.sign() * noise.abs().sqrt()
