"""NumPy arrays as tensors."""

import numpy as np
import torch


def to_device(array: np.ndarray) -> torch.Tensor:
    """The array on PyTorch's default device; without a copy if that is the CPU."""
    return torch.from_numpy(array).to(torch.get_default_device())
