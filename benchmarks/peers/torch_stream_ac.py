"""Stream AC(λ) in eager PyTorch (docs/specs/streaming.md §1), dense, for one seed.

Modules carry the names of mst_jax's parameters, so that weights can be copied across.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812, the name everybody gives it
from torch import nn

from benchmarks.peers.tensors import to_device
from mst_jax.agents.stream.config import StreamACConfig

HALF_LOG_TAU = 0.5 * math.log(2.0 * math.pi)
EPSILON = 1e-8


class SampleStatistics:
    """Running mean and variance of a sample (§1.3) on the host, in float64."""

    def __init__(self, size: int) -> None:
        self.mean, self.squares, self.count = np.zeros(size), np.zeros(size), 0

    def observe(self, x: np.ndarray) -> None:
        """Adds one vector (N,)."""
        self.count += 1
        difference = x - self.mean
        self.mean = self.mean + difference / self.count
        self.squares = self.squares + difference * (x - self.mean)

    @property
    def deviation(self) -> np.ndarray:
        """What is divided by, (N,)."""
        variance = self.squares / (self.count - 1) if self.count > 1 else np.ones_like(self.mean)
        return np.sqrt(variance + EPSILON)

    def normalise(self, x: np.ndarray) -> np.ndarray:
        """(N,) as the networks see it, still in float64."""
        return (x - self.mean) / self.deviation


class RewardScale:
    """Rewards by the deviation of their discounted sum (§1.4)."""

    def __init__(self, discount: float) -> None:
        self.discount, self.sum, self.statistics = discount, 0.0, SampleStatistics(1)

    def __call__(self, reward: float, over: bool) -> float:
        """The scaled reward, by statistics that know it; `over`: it is an episode's last."""
        self.sum = self.discount * self.sum * (1.0 - over) + reward
        self.statistics.observe(np.array([self.sum]))
        return reward / float(self.statistics.deviation[0])


class Trunk(nn.Module):
    """Two layers, each with a layer norm without learnable parameters and a leaky ReLU (§1.2)."""

    def __init__(self, inputs: int, hidden: int, init_sparsity: float) -> None:
        super().__init__()
        self.layer_1 = _sparse_linear(inputs, hidden, init_sparsity)
        self.layer_2 = _sparse_linear(hidden, hidden, init_sparsity)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(O,) to (H,)."""
        for layer in (self.layer_1, self.layer_2):
            x = F.leaky_relu(F.layer_norm(layer(x), (layer.out_features,)))
        return x


class Critic(nn.Module):
    """The value of an observation."""

    def __init__(self, inputs: int, hidden: int, init_sparsity: float) -> None:
        super().__init__()
        self.trunk = Trunk(inputs, hidden, init_sparsity)
        self.value = _sparse_linear(hidden, 1, init_sparsity)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(O,) to a scalar."""
        return self.value(self.trunk(features))[0]


class Actor(nn.Module):
    """A Gaussian policy."""

    def __init__(self, inputs: int, action_size: int, hidden: int, init_sparsity: float) -> None:
        super().__init__()
        self.trunk = Trunk(inputs, hidden, init_sparsity)
        self.mean = _sparse_linear(hidden, action_size, init_sparsity)
        self.std = _sparse_linear(hidden, action_size, init_sparsity)

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(O,) to mean and standard deviation (A,)."""
        x = self.trunk(features)
        return self.mean(x), F.softplus(self.std(x))


class ObGD:
    """Overshooting-bounded steps of one network along its traces (§1.5).

    A loop over the tensors: PyTorch's operations on lists of them gain 3 % at width 64 and lose
    20 % at 512.
    """

    def __init__(
        self, parameters: Sequence[nn.Parameter], learning_rate: float, kappa: float, decay: float
    ) -> None:
        self.parameters = list(parameters)
        self.learning_rate, self.kappa, self.decay = learning_rate, kappa, decay
        self.traces = [torch.zeros_like(parameter) for parameter in self.parameters]

    @torch.no_grad()
    def step(self, gradients: Sequence[torch.Tensor], td_error: float, over: bool) -> None:
        """One step; `decay` is γλ, and after an end the traces are zero."""
        norm = 0.0
        for trace, gradient in zip(self.traces, gradients, strict=True):
            norm += trace.mul_(self.decay).add_(gradient).abs().sum().item()
        bound = self.learning_rate * self.kappa * max(abs(td_error), 1.0) * norm
        step_size = self.learning_rate / max(bound, 1.0)
        for parameter, trace in zip(self.parameters, self.traces, strict=True):
            parameter.add_(trace, alpha=step_size * td_error)
            if over:
                trace.zero_()


class Transition(NamedTuple):
    """As the networks see it: (O,), (A,), a scaled reward, whether it is the last, (O,)."""

    features: torch.Tensor
    action: torch.Tensor
    reward: float
    over: bool
    next_features: torch.Tensor


class TorchStreamAC:
    """Networks, traces and statistics of one seed, and the update on them."""

    def __init__(self, config: StreamACConfig, observation_size: int, action_size: int) -> None:
        self.config = config
        critic, actor = config.critic, config.actor
        self.critic = Critic(observation_size, critic.hidden, critic.init_sparsity)
        self.actor = Actor(observation_size, action_size, actor.hidden, actor.init_sparsity)
        self.statistics = SampleStatistics(observation_size)
        self.reward_scale = RewardScale(config.discount)
        self.optimizers = {
            name: ObGD(
                list(getattr(self, name).parameters()),
                getattr(config, name).learning_rate,
                getattr(config, name).kappa,
                config.discount * getattr(config, name).trace_decay,
            )
            for name in ("critic", "actor")
        }

    def begin(self, observation: np.ndarray) -> torch.Tensor:
        """Features (O,) of the first observation of an episode, which the statistics take in."""
        self.statistics.observe(observation)
        return self._features(observation)

    @torch.no_grad()
    def act(self, features: torch.Tensor) -> torch.Tensor:
        """A sample of the policy (A,) for features (O,)."""
        mean, std = self.actor(features)
        return mean + std * torch.randn_like(std)

    def learn(
        self,
        features: torch.Tensor,
        action: torch.Tensor,
        reward: float,
        over: bool,
        next_observation: np.ndarray,
    ) -> torch.Tensor:
        """Learns from the transition just made; returns the features (O,) of what it led to."""
        scaled = self.reward_scale(reward, over)
        next_features = self.begin(next_observation)
        self.update(Transition(features, action, scaled, over, next_features))
        return next_features

    def update(self, transition: Transition) -> float:
        """One step of actor and critic; returns the TD error (§1.5)."""
        features, action, reward, over, next_features = transition
        with torch.no_grad():
            after = self.critic(next_features).item()
        value = self.critic(features)
        error = reward + self.config.discount * (1.0 - over) * after - value.item()
        mean, std = self.actor(features)
        log_density = -0.5 * ((action - mean) / std).square() - std.log() - HALF_LOG_TAU
        weight = self.config.entropy_weight * np.sign(error)
        objective = (log_density + weight * (std.log() + HALF_LOG_TAU + 0.5)).sum()
        for name, ascended in (("actor", objective), ("critic", value)):
            optimizer = self.optimizers[name]
            gradients = torch.autograd.grad(ascended, optimizer.parameters)
            optimizer.step(gradients, error, over)
        return error

    def _features(self, observation: np.ndarray) -> torch.Tensor:
        return to_device(self.statistics.normalise(observation).astype(np.float32))


def _sparse_linear(inputs: int, outputs: int, init_sparsity: float) -> nn.Linear:
    """By SparseInit (§1.2)."""
    layer, bound = nn.Linear(inputs, outputs), 1.0 / math.sqrt(inputs)
    silenced = math.ceil(init_sparsity * inputs)
    nn.init.uniform_(layer.weight, -bound, bound)
    nn.init.zeros_(layer.bias)
    with torch.no_grad():
        for unit in layer.weight:
            unit[torch.randperm(inputs)[:silenced]] = 0.0
    return layer
