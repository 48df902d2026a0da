"""What peers that take pictures share, in eager PyTorch. Pictures have their channels first."""

import torch
import torch.nn.functional as F  # noqa: N812, the name everybody gives it
from torch import nn


class Convolutions(nn.Module):
    """Convolutions of 3x3 without padding, each with an activation (docs/specs/drqv2.md §1.2)."""

    def __init__(
        self, channels: int, hidden: int, depth: int, strided: int, activation: nn.Module
    ) -> None:
        super().__init__()
        for index in range(depth):
            layer = nn.Conv2d(channels, hidden, 3, stride=2 if index < strided else 1)
            self.add_module(f"layer_{index + 1}", layer)
            channels = hidden
        self.activation = activation

    def layers(self) -> list[nn.Conv2d]:
        """In their order."""
        return [layer for layer in self.children() if isinstance(layer, nn.Conv2d)]

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) in 0 to 255 to (B, features)."""
        x = pictures / 255.0 - 0.5
        for layer in self.layers():
            x = self.activation(layer(x))
        return x.flatten(1)


def random_shift(pictures: torch.Tensor, pad: int) -> torch.Tensor:
    """Each picture (B, C, H, W) moved by up to `pad` pixels; float32."""
    return shifted(pictures, torch.randint(0, 2 * pad + 1, (len(pictures), 2)), pad)


def shifted(pictures: torch.Tensor, shifts: torch.Tensor, pad: int) -> torch.Tensor:
    """Pictures (B, C, H, W) sampled at pixels of their padded selves, as published (§1.3).

    Args:
        pictures: in 0 to 255.
        shifts: (B, 2), columns and rows.
        pad: pixels that repeat the border on each side.
    """
    height, width = pictures.shape[-2:]
    columns, rows = (
        2.0 * (torch.arange(side) + shifts[:, axis, None] + 0.5) / (side + 2 * pad) - 1.0
        for axis, side in enumerate((width, height))
    )
    columns = columns[:, None, :].expand(-1, height, -1)
    rows = rows[:, :, None].expand(-1, -1, width)
    padded = F.pad(pictures.float(), (pad,) * 4, mode="replicate")
    return F.grid_sample(padded, torch.stack([columns, rows], dim=-1), align_corners=False)
