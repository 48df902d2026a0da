"""Our parameters under the names, and in the layout, of PyTorch modules."""

import jax
import numpy as np
import torch


def named(params, convolved=None):
    """Parameters by the names of PyTorch modules.

    Of MR.Q's encoder of pictures, `convolved` is the number of convolutions and the (H, W, C) that
    the last of them makes; in PyTorch channels come first.
    """
    flat, _ = jax.tree_util.tree_flatten_with_path(params)
    weights = {}
    for path, value in flat:
        *module, kind = [key.key for key in path]
        value = np.asarray(value)
        if convolved and module[0] == "zs":
            depth, *places = convolved
            convolution = int(module[1].removeprefix("layer_")) <= depth
            module = ["zs", "convolutions", module[1]] if convolution else ["zs", "output"]
            if kind == "kernel" and not convolution:
                value = value.reshape(*places, -1).transpose(2, 0, 1, 3).reshape(value.shape)
        leaf = {"kernel": "weight", "scale": "weight", "bias": "bias"}[kind]
        weights[".".join([*module, leaf])] = (
            value.transpose(3, 2, 0, 1) if value.ndim == 4 else value.T
        )
    return weights


def load(module, params, convolved=None):
    weights = named(params, convolved).items()
    module.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in weights})


def assert_same(module, params, before, convolved=None):
    """The module has these parameters, and not those of before."""
    ours, old = named(params, convolved), named(before, convolved)
    theirs = {name: value.detach().numpy() for name, value in module.named_parameters()}
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        np.testing.assert_allclose(value, ours[name], rtol=0, atol=1e-5, err_msg=name)
    assert max(np.abs(ours[name] - old[name]).max() for name in ours) > 5e-5, "it moved"
