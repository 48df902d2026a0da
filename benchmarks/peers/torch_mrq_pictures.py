"""MR.Q from pictures in eager PyTorch (docs/specs/mrq-pixels-discrete.md §1), for one seed.

Pictures have their channels first.
"""

from collections.abc import Sequence

import torch
from torch import nn

from benchmarks.peers.torch_mrq import Batch, TorchMRQ
from benchmarks.peers.torch_mrq_policies import Policy
from benchmarks.peers.torch_pictures import Convolutions, random_shift
from mst_jax.agents import MRQConfig


class PictureLatent(nn.Module):
    """Convolutions, each with an ELU, and a linear layer."""

    def __init__(self, config: MRQConfig, shape: Sequence[int]) -> None:
        """Makes layers without padding, whatever `pictures.padding` says.

        Args:
            config: settings.
            shape: of a picture (H, W, C).
        """
        super().__init__()
        own, (height, width, channels) = config.pictures, shape
        sizes = own.channels, own.depth, own.strided
        self.convolutions = Convolutions(channels, *sizes, nn.ELU())
        features = self.convolutions(torch.zeros(1, channels, height, width)).shape[1]
        self.output = nn.Linear(features, config.zs_size)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """(..., C, H, W) in 0 to 255 to (..., zs)."""
        lead, shape = pictures.shape[:-3], pictures.shape[-3:]
        return self.output(self.convolutions(pictures.reshape(-1, *shape))).unflatten(0, lead)


class PictureMRQ(TorchMRQ):
    """Learns from batches of stored pictures."""

    def __init__(self, config: MRQConfig, shape: Sequence[int], policy: Policy) -> None:
        super().__init__(config, PictureLatent(config, shape), policy)

    def learn(self, path: Batch, steps: Batch) -> torch.Tensor:
        """A step of every module on pictures as they are stored; priorities (B,).

        Args:
            path: of the horizon, for the encoder.
            steps: of the return, for critic and actor.
        """
        self.update_encoder(self.moved(path), terminal_seen=True)
        return self.update_critic_and_actor(self.moved(steps), self.policy.noise(len(steps.reward)))

    def moved(self, batch: Batch) -> Batch:
        """The batch with each observation's pictures moved by a draw of their own."""
        lead = batch.observation.shape[:2]
        shown = random_shift(batch.observation.flatten(0, 1), self.config.pictures.shift)
        return batch._replace(observation=shown.unflatten(0, lead))
