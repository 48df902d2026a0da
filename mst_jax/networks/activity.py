"""What a network's units do on a batch, captured from the forward pass that acts and learns."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

# Hidden linear layers, beside an MLP's numbered ones. Output layers predict; their units are not
# features (docs/specs/network-sparsity.md §4).
HIDDEN = ("embed", "expand", "project", "za")


class Activity(NamedTuple):
    """Units of the hidden layers on a batch.

    A unit of a convolution is a channel, and its places count like further samples of a batch.

    Attributes:
        pre: layer -> outputs of the linear layer (B, units), before shortcut, norm and activation.
        post: layer -> activated outputs (B, units).
        features: what the output layer reads (B, units); of the first of several heads.
    """

    pre: Mapping[str, jax.Array]
    post: Mapping[str, jax.Array]
    features: jax.Array


def activity_of(module: nn.Module, features: str | None = None) -> Callable[..., Activity]:
    """(params, *inputs) -> the activity of a module whose `__call__` takes those inputs.

    Args:
        module: a network.
        features: path of the submodule whose output is what the output layer reads, empty for the
            network itself; the first trunk, or an MLP's last activation, by default.
    """

    def activity(params: Any, *inputs: jax.Array) -> Activity:
        _, captured = module.apply(
            {"params": params}, *inputs, capture_intermediates=True, mutable=["intermediates"]
        )
        outputs = dict(_flat(captured["intermediates"]))
        post = {path: x for path, x in outputs.items() if _last(path).startswith("active")}
        pre = {path: x for path, x in outputs.items() if _is_hidden(path, outputs)}
        read = _features(outputs, post) if features is None else outputs[features]
        return Activity(_by_unit(pre), _by_unit(post), read)

    return activity


def strengths(activity: Activity) -> dict[str, jax.Array]:
    """How active the hidden units are: path of a layer's kernel -> mean |output| (units,).

    Outputs are taken after the activation function, or of the linear layer if none follows it
    (SimBa's embedding and projections, the action latent of MR.Q).
    """
    found = {}
    for path, linear in activity.pre.items():
        parent, _, name = path.rpartition("/")
        active = {"expand": "active"}.get(name, name.replace("layer_", "active_"))
        outputs = activity.post.get(f"{parent}/{active}".removeprefix("/"), linear)
        found[f"{path}/kernel"] = jnp.mean(jnp.abs(outputs), axis=0)
    return found


def _by_unit(layers: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """Outputs (B, places, ..., units) as (B * places, units)."""
    return {path: x.reshape(-1, x.shape[-1]) if x.ndim > 2 else x for path, x in layers.items()}


def _flat(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, jax.Array]]:
    """(path, output) of every submodule that was called, in order."""
    found: list[tuple[str, jax.Array]] = []
    for name, node in tree.items():
        if name == "__call__":
            found.append((prefix.removesuffix("/"), node[0]))
        else:
            found += _flat(node, f"{prefix}{name}/")
    return found


def _is_hidden(path: str, outputs: Mapping[str, jax.Array]) -> bool:
    """Whether a path is a linear layer other than an output layer."""
    name, parent = _last(path), path.rpartition("/")[0]
    if name.startswith("layer_"):  # an MLP's last layer is an output unless it is activated
        return f"{parent}/active_{name.removeprefix('layer_')}".removeprefix("/") in outputs
    return name in HIDDEN


def _features(outputs: Mapping[str, jax.Array], post: Mapping[str, jax.Array]) -> jax.Array:
    """The first trunk's output; of a network without a trunk, its first MLP's last activation."""
    trunks = sorted(path for path in outputs if _last(path) == "trunk")
    if trunks:
        return outputs[trunks[0]]
    # MR.Q's encoder: the state latent, rather than the hidden layers of the state-action latent.
    own = [path for path in post if path.startswith("zs/")] or list(post)
    return post[max(own, key=lambda path: int(_last(path).removeprefix("active_")))]


def _last(path: str) -> str:
    return path.rpartition("/")[2]
