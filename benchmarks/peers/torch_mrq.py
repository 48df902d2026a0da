"""MR.Q in eager PyTorch (docs/specs/mst-and-mrq.md §6), dense, for one seed.

Modules carry the names of mst_jax's parameters, so that weights can be copied across.
"""

import copy
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812, the name everybody gives it
from torch import nn

from benchmarks.peers.replay import PrioritizedReplay
from benchmarks.peers.tensors import to_device
from benchmarks.peers.torch_mrq_policies import Noise, Policy, TanhPolicy
from mst_jax.agents import MRQConfig


class Batch(NamedTuple):
    """L steps each: actions (B, L, A) as the networks take them, rewards and ends (B, L).

    Observations (B, M, *O) are the first one, what an update uses of the next, and the last one.
    """

    observation: torch.Tensor
    action: torch.Tensor
    reward: torch.Tensor
    terminated: torch.Tensor


def layer_norm(x: torch.Tensor) -> torch.Tensor:
    """Layer norm without learnable parameters."""
    return F.layer_norm(x, x.shape[-1:])


class MLP(nn.Module):
    """Two hidden layers with layer norm, and a linear output layer."""

    def __init__(self, inputs: int, hidden: int, outputs: int, activation: nn.Module) -> None:
        super().__init__()
        self.layer_1 = nn.Linear(inputs, hidden)
        self.layer_2 = nn.Linear(hidden, hidden)
        self.layer_3 = nn.Linear(hidden, outputs)
        self.activation = activation

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., inputs) to (..., outputs)."""
        x = self.activation(layer_norm(self.layer_1(x)))
        x = self.activation(layer_norm(self.layer_2(x)))
        return self.layer_3(x)


class Encoder(nn.Module):
    """Latents of states and of state-action pairs, and what follows from the latter (§6.2)."""

    def __init__(self, config: MRQConfig, zs: nn.Module, action_size: int) -> None:
        super().__init__()
        hidden = config.encoder.hidden
        self.zs = zs
        self.za = nn.Linear(action_size, config.za_size)
        self.zsa = MLP(config.zs_size + config.za_size, hidden, config.zsa_size, nn.ELU())
        self.head = nn.Linear(config.zsa_size, 1 + config.zs_size + config.reward_bins)
        self.split = (1, config.zs_size, config.reward_bins)

    def embed(self, observation: torch.Tensor) -> torch.Tensor:
        """State latent: (..., *O) to (..., zs)."""
        return F.elu(layer_norm(self.zs(observation)))

    def embed_action(self, zs: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        """State-action latent: (..., zs), (..., A) to (..., zsa)."""
        return self.zsa(torch.cat([zs, F.elu(self.za(action))], dim=-1))

    def predict(self, zsa: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Termination (..., 1), next latent (..., zs), reward logits (..., bins)."""
        return self.head(zsa).split(self.split, dim=-1)


class ValueHead(nn.Module):
    """Three hidden layers and a scalar."""

    def __init__(self, config: MRQConfig) -> None:
        super().__init__()
        hidden = config.critic.hidden
        self.trunk = MLP(config.zsa_size, hidden, hidden, nn.ELU())
        self.value = nn.Linear(hidden, 1)

    def forward(self, zsa: torch.Tensor) -> torch.Tensor:
        """(..., zsa) to (..., 1)."""
        return self.value(F.elu(layer_norm(self.trunk(zsa))))


class Critic(nn.Module):
    """Twin value heads."""

    def __init__(self, config: MRQConfig) -> None:
        super().__init__()
        self.q1, self.q2 = ValueHead(config), ValueHead(config)

    def forward(self, zsa: torch.Tensor) -> torch.Tensor:
        """(..., zsa) to (..., 2)."""
        return torch.cat([self.q1(zsa), self.q2(zsa)], dim=-1)


class TorchMRQ:
    """Networks, targets and optimizers of one seed, and the updates on them.

    Attributes:
        policy: what becomes of the actor's outputs.
    """

    def __init__(self, config: MRQConfig, zs: nn.Module, policy: Policy) -> None:
        """Makes networks.

        Args:
            config: settings.
            zs: makes state latents, before norm and activation, of observations.
            policy: of the task's actions.
        """
        self.config, self.policy = config, policy
        self.encoder = Encoder(config, zs, policy.size)
        self.critic = Critic(config)
        self.actor = MLP(config.zs_size, config.actor.hidden, policy.size, nn.ReLU())
        modules = {"encoder": self.encoder, "critic": self.critic, "actor": self.actor}
        for module in modules.values():
            module.apply(_initialize)
        self.targets = {name: copy.deepcopy(m).requires_grad_(False) for name, m in modules.items()}
        self.optimizers = {name: _adamw(m, getattr(config, name)) for name, m in modules.items()}
        edges = torch.linspace(-config.reward_limit, config.reward_limit, config.reward_bins)
        self.bins = edges.sign() * torch.expm1(edges.abs())
        self.reward_scale = self.target_reward_scale = 1.0

    def renew_targets(self, mean_absolute_reward: float) -> None:
        """Copies the networks, and takes a new reward scale (§6.7)."""
        for name, target in self.targets.items():
            target.load_state_dict(getattr(self, name).state_dict())
        self.target_reward_scale = self.reward_scale
        self.reward_scale = max(mean_absolute_reward, 1e-8)

    def update_encoder(self, batch: Batch, terminal_seen: bool) -> None:
        """One step on sub-trajectories (§6.3)."""
        config = self.config
        with torch.no_grad():
            target_zs = self.targets["encoder"].embed(batch.observation[:, 1:])
            codes = two_hot(batch.reward, self.bins)
        zs = self.encoder.embed(batch.observation[:, 0])
        alive = torch.ones(len(zs))
        dynamics = reward = terminal = 0.0
        for k in range(config.horizon):
            done, zs, logits = self.encoder.predict(
                self.encoder.embed_action(zs, batch.action[:, k])
            )
            dynamics += ((zs - target_zs[:, k]).square().mean(-1) * alive).mean()
            cross_entropy = -(codes[:, k] * F.log_softmax(logits, dim=-1)).sum(-1)
            reward += (cross_entropy * alive).mean()
            terminal += ((done[:, 0] - batch.terminated[:, k]).square() * alive).mean()
            alive = alive * (1.0 - batch.terminated[:, k])
        loss = config.dynamics_weight * dynamics + config.reward_weight * reward
        if terminal_seen:
            loss = loss + config.terminal_weight * terminal
        self._step("encoder", loss)

    def update_critic_and_actor(self, batch: Batch, noise: Noise) -> torch.Tensor:
        """One critic step, then an actor step with the new critic; priorities (B,) (§6.4, §6.5)."""
        config = self.config
        with torch.no_grad():
            target = self._target(batch, noise.target)
            zs = self.encoder.embed(batch.observation[:, 0])
            zsa = self.encoder.embed_action(zs, batch.action[:, 0])
        values = self.critic(zsa)
        loss = F.smooth_l1_loss(values, target[:, None].expand_as(values))
        self._step("critic", loss, config.max_grad_norm)

        outputs = self.actor(zs)
        zsa = self.encoder.embed_action(zs, self.policy.differentiable(outputs, noise.actor))
        penalty = config.pre_activation_weight * outputs.square().mean()
        self._step("actor", penalty - self.critic(zsa).mean())
        error = (values.detach() - target[:, None]).abs().amax(-1)
        return error.clamp(min=config.min_priority) ** config.priority_exponent

    def _target(self, batch: Batch, noise: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """n-step target (B,) in units of the reward scale (§6.4)."""
        config, count = self.config, len(batch.reward)
        alive, returns = torch.ones(count), torch.zeros(count)
        for k in range(config.n_step):
            returns += config.discount**k * alive * batch.reward[:, k]
            alive = alive * (1.0 - batch.terminated[:, k])
        next_zs = self.targets["encoder"].embed(batch.observation[:, -1])
        action = self.policy.target(self.targets["actor"](next_zs), noise)
        next_value = self.targets["critic"](self.targets["encoder"].embed_action(next_zs, action))
        bootstrap = config.discount**config.n_step * alive * self.target_reward_scale
        return (returns + bootstrap * next_value.amin(-1)) / self.reward_scale

    def _step(self, name: str, loss: torch.Tensor, max_grad_norm: float | None = None) -> None:
        """Differentiates with respect to one module only, and takes its optimizer's step."""
        parameters = list(getattr(self, name).parameters())
        self.optimizers[name].zero_grad(set_to_none=True)
        loss.backward(inputs=parameters)
        if max_grad_norm is not None:
            nn.utils.clip_grad_norm_(parameters, max_grad_norm)
        self.optimizers[name].step()


class VectorMRQ(TorchMRQ):
    """Learns from a replay buffer of vectors with continuous actions."""

    def __init__(self, config: MRQConfig, observation_size: int, action_size: int) -> None:
        zs = MLP(observation_size, config.encoder.hidden, config.zs_size, nn.ELU())
        super().__init__(config, zs, TanhPolicy(config, action_size))
        self.updates = 0

    @torch.no_grad()
    def act(self, observation: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Action (A,) for an observation (O,), with exploration noise."""
        zs = self.encoder.embed(to_device(observation))
        action = torch.tanh(self.actor(zs)).cpu().numpy()
        noise = self.config.exploration_noise * rng.standard_normal(action.shape, np.float32)
        return np.clip(action + noise, -1.0, 1.0)

    def learn(self, replay: PrioritizedReplay, rng: np.random.Generator) -> None:
        """One update; every target period an encoder burst comes first (§6.7)."""
        config = self.config
        if self.updates % config.target_period == 0:
            self.renew_targets(replay.mean_absolute_reward())
            for _ in range(config.target_period):
                starts = replay.sample(rng, config.batch_size)
                batch = read_batch(replay, starts, config.horizon)
                self.update_encoder(batch, replay.terminal_seen)
        self.updates += 1
        starts = replay.sample(rng, config.batch_size)
        batch = read_batch(replay, starts, config.n_step)
        noise = self.policy.noise(config.batch_size)
        replay.set_priority(starts, self.update_critic_and_actor(batch, noise).cpu().numpy())


def read_batch(replay: PrioritizedReplay, starts: np.ndarray, length: int) -> Batch:
    """Reads `length` steps from each start."""
    window = replay.window(starts, length + 1)
    steps = window[:, :-1]
    arrays = (
        replay.observation[window],
        replay.action[steps],
        replay.reward[steps],
        replay.terminated[steps].astype(np.float32),
    )
    return Batch(*map(to_device, arrays))


def two_hot(values: torch.Tensor, bins: torch.Tensor) -> torch.Tensor:
    """Linear interpolation between neighbouring bins: (...,) to (..., bins)."""
    lower = (torch.searchsorted(bins, values.contiguous(), right=True) - 1).clamp(0, len(bins) - 2)
    share = ((values - bins[lower]) / (bins[lower + 1] - bins[lower])).clamp(0.0, 1.0)
    codes = torch.zeros(*values.shape, len(bins))
    codes.scatter_(-1, lower[..., None], (1.0 - share)[..., None])
    return codes.scatter_(-1, (lower + 1)[..., None], share[..., None])


def _initialize(module: nn.Module) -> None:
    if isinstance(module, (nn.Linear, nn.Conv2d)):
        nn.init.xavier_uniform_(module.weight, gain=2**0.5)
        nn.init.zeros_(module.bias)


def _adamw(module: nn.Module, config: object) -> torch.optim.AdamW:
    # Fused: the fastest of PyTorch's eager implementations, on a CPU too.
    return torch.optim.AdamW(
        module.parameters(),
        lr=config.learning_rate,
        weight_decay=config.weight_decay,
        fused=True,
    )
