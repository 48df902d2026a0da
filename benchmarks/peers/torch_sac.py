"""SAC on SimBa networks in eager PyTorch (docs/specs/network-sparsity.md §2), dense, for one seed.

Modules carry the names of mst_jax's parameters, so that weights can be copied across.
"""

import copy
import math
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812, the name everybody gives it
from torch import nn

from benchmarks.peers.replay import UniformReplay
from benchmarks.peers.tensors import to_device
from mst_jax.agents import SACConfig

MIN_LOG_STD, MAX_LOG_STD = -10.0, 2.0


class Batch(NamedTuple):
    """Transitions, observations normalised: (B, O), (B, A), (B,), (B,), (B, O)."""

    observation: torch.Tensor
    action: torch.Tensor
    reward: torch.Tensor
    terminated: torch.Tensor
    next_observation: torch.Tensor


class RunningNorm:
    """SimBa's RSNorm on the host, in float64: x' = (x - mean) / sqrt(variance + 1e-8)."""

    def __init__(self, size: int) -> None:
        self.mean, self.variance, self.count = np.zeros(size), np.ones(size), 1e-4

    def observe(self, observation: np.ndarray) -> None:
        """Adds one raw observation (O,)."""
        difference, total = observation - self.mean, self.count + 1.0
        change = np.square(difference) * self.count / total - self.variance
        self.mean = self.mean + difference / total
        self.variance = self.variance + change / total
        self.count = total

    def __call__(self, observation: np.ndarray) -> torch.Tensor:
        """Normalises (..., O)."""
        scaled = (observation - self.mean) / np.sqrt(self.variance + 1e-8)
        return to_device(scaled.astype(np.float32))


class Block(nn.Module):
    """x + Dense_h(ReLU(Dense_4h(LN(x))))."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden, eps=1e-6)
        self.expand = nn.Linear(hidden, 4 * hidden)
        self.project = nn.Linear(4 * hidden, hidden)
        for layer in (self.expand, self.project):
            nn.init.kaiming_normal_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The shape stays."""
        return x + self.project(F.relu(self.expand(self.norm(x))))


class SimBa(nn.Module):
    """Linear embedding, residual blocks, final norm: (..., inputs) to (..., hidden)."""

    def __init__(self, inputs: int, hidden: int, depth: int) -> None:
        super().__init__()
        self.embed = _orthogonal(inputs, hidden)
        for index in range(depth):
            self.add_module(f"block_{index + 1}", Block(hidden))
        self.norm = nn.LayerNorm(hidden, eps=1e-6)
        self.blocks = [f"block_{index + 1}" for index in range(depth)]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., inputs) to (..., hidden)."""
        x = self.embed(x)
        for name in self.blocks:
            x = getattr(self, name)(x)
        return self.norm(x)


class Critic(nn.Module):
    """One value of an observation and an action."""

    def __init__(self, inputs: int, hidden: int, depth: int) -> None:
        super().__init__()
        self.trunk, self.value = SimBa(inputs, hidden, depth), _orthogonal(hidden, 1)

    def forward(self, observation: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        """(B, O), (B, A) to (B,)."""
        return self.value(self.trunk(torch.cat([observation, action], dim=-1)))[..., 0]


class Actor(nn.Module):
    """Tanh-Gaussian policy."""

    def __init__(self, inputs: int, action_size: int, hidden: int, depth: int) -> None:
        super().__init__()
        self.trunk = SimBa(inputs, hidden, depth)
        self.mean = _orthogonal(hidden, action_size)
        self.log_std = _orthogonal(hidden, action_size)

    def forward(
        self, observation: torch.Tensor, noise: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, O), standard normal (B, A) to action (B, A) and its log-probability (B,)."""
        features = self.trunk(observation)
        mean, raw = self.mean(features), torch.tanh(self.log_std(features))
        log_std = MIN_LOG_STD + 0.5 * (MAX_LOG_STD - MIN_LOG_STD) * (1.0 + raw)
        x = mean + log_std.exp() * noise
        log_gaussian = -0.5 * noise.square() - log_std - 0.5 * math.log(2.0 * math.pi)
        log_slope = 2.0 * (math.log(2.0) - x - F.softplus(-2.0 * x))
        return torch.tanh(x), (log_gaussian - log_slope).sum(-1)


class TorchSAC:
    """Networks, target and optimizers of one seed, and the updates on them."""

    def __init__(
        self, config: SACConfig, observation_size: int, action_size: int, discount: float
    ) -> None:
        self.config, self.discount = config, discount
        critic, actor = config.critic, config.actor
        self.critic = Critic(observation_size + action_size, critic.hidden, critic.depth)
        self.actor = Actor(observation_size, action_size, actor.hidden, actor.depth)
        self.target = copy.deepcopy(self.critic).requires_grad_(False)
        self.temperature = nn.Parameter(torch.tensor(math.log(config.temperature.initial)))
        self.target_entropy = config.temperature.target_entropy(action_size)
        self.norm = RunningNorm(observation_size)
        # Fused: the fastest of PyTorch's eager implementations, on a CPU too.
        self.optimizers = {
            name: torch.optim.AdamW(
                getattr(self, name).parameters(),
                lr=getattr(config, name).learning_rate,
                weight_decay=getattr(config, name).weight_decay,
                fused=True,
            )
            for name in ("critic", "actor")
        }
        rate = config.temperature.learning_rate
        self.optimizers["temperature"] = torch.optim.Adam([self.temperature], lr=rate)

    @torch.no_grad()
    def act(self, observation: np.ndarray) -> np.ndarray:
        """A sample of the policy (A,) for an observation (O,)."""
        features = self.norm(observation)
        return self.actor(features, torch.randn(self.actor.mean.out_features))[0].cpu().numpy()

    def learn(self, replay: UniformReplay, rng: np.random.Generator) -> None:
        """The updates of one environment step, each on a batch of its own."""
        for _ in range(self.config.updates_per_step):
            slots = replay.sample(rng, self.config.batch_size)
            batch = Batch(
                self.norm(replay.observation[slots]),
                to_device(replay.action[slots]),
                to_device(replay.reward[slots]),
                to_device(replay.terminated[slots]),
                self.norm(replay.next_observation[slots]),
            )
            self.update(batch, torch.randn(2, *batch.action.shape))

    def update(self, batch: Batch, noises: torch.Tensor) -> None:
        """Actor, temperature, critic and target, once each (§2.2)."""
        alpha = self.temperature.detach().exp()
        action, log_probability = self.actor(batch.observation, noises[0])
        loss = (alpha * log_probability - self.critic(batch.observation, action)).mean()
        self._step("actor", loss, list(self.actor.parameters()))

        entropy = -log_probability.detach().mean()
        loss = self.temperature.exp() * (entropy - self.target_entropy)
        self._step("temperature", loss, [self.temperature])

        with torch.no_grad():
            next_action, next_log = self.actor(batch.next_observation, noises[1])
            soft = self.target(batch.next_observation, next_action)
            soft = soft - self.temperature.exp() * next_log
            target = batch.reward + self.discount * (1.0 - batch.terminated) * soft
        loss = F.mse_loss(self.critic(batch.observation, batch.action), target)
        online = list(self.critic.parameters())
        self._step("critic", loss, online)
        with torch.no_grad():
            torch._foreach_lerp_(list(self.target.parameters()), online, self.config.tau)

    def _step(self, name: str, loss: torch.Tensor, parameters: list[nn.Parameter]) -> None:
        """Differentiates with respect to one module only, and takes its optimizer's step."""
        self.optimizers[name].zero_grad(set_to_none=True)
        loss.backward(inputs=parameters)
        self.optimizers[name].step()


def _orthogonal(inputs: int, outputs: int) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    nn.init.orthogonal_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
