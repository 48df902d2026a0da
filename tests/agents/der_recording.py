"""Three updates of DER as the reference program made them, for the agent's own functions.

Every size and the kind of body are read from the file.
"""

import re
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
from recordings import nested

from mst_jax import topology
from mst_jax.agents import DERConfig, Sizes
from mst_jax.agents.rainbow.der import build_der
from mst_jax.envs import Discrete, Observation
from mst_jax.recipes import override
from mst_jax.topology.state import map_states

NOISY = ("layer_1", "advantage", "value")  # NoisyNetwork_0, _1, _2


def body_of(recorded):
    return "impala" if "impala" in str(recorded["kind"]).lower() else "nature"


def params_of(recorded, prefix):
    """The recorded arrays `prefix:...` in our layout, {encoder, critic}."""
    arrays = {
        name.partition(":")[2]: array
        for name, array in recorded.items()
        if name.startswith(f"{prefix}:")
    }
    critic = {}
    for number, layer in enumerate(NOISY):
        for leaf in ("kernel", "bias"):
            pair = [
                next(array for name, array in arrays.items() if name.endswith(path))
                for path in (f"NoisyNetwork_{number}/{leaf}_{part}" for part in ("mu", "sigma"))
            ]
            critic[layer, leaf] = np.stack(pair)
    encoder = {}
    for parents, number, leaf, array in convolutions(arrays):
        encoder[*place_of(body_of(recorded), parents, number), leaf] = array
    return {"encoder": nested(encoder), "critic": nested(critic)}


def convolutions(arrays):
    """(which stack, which convolution of it, kernel or bias, array) of each recorded leaf."""
    found = [
        (match[1] or "", int(match[2]), match[3], array)
        for name, array in arrays.items()
        if (match := re.fullmatch(r"(?:(.*)/)?Conv_(\d+)/(kernel|bias)", name))
    ]
    stacks = sorted({path for path, *_ in found}, key=lambda path: (len(path), path))
    return [(stacks.index(path), *rest) for path, *rest in found]


def place_of(body, stack, number):
    """Our path of a convolution."""
    if body == "nature":
        return (f"layer_{number + 1}",)
    if number == 0:
        return (f"stack_{stack + 1}", "embed")
    block, second = divmod(number - 1, 2)
    return f"stack_{stack + 1}", f"block_{block + 1}", "project" if second else "expand"


def config_of(recorded, **changes):
    """The recorded settings and sizes."""
    arrays = {n.partition(":")[2]: a for n, a in recorded.items() if n.startswith("online:")}
    found = [
        (stack, number, array.shape)
        for stack, number, leaf, array in convolutions(arrays)
        if leaf == "kernel"
    ]
    body, found = body_of(recorded), sorted(found)
    of_body = found if body == "nature" else [one for one in found if one[1] == 0]
    listed = lambda axis: ",".join(str(shape[axis]) for *_, shape in of_body)  # noqa: E731
    own = {
        "encoder.body": body,
        "encoder.hidden": 1,
        "encoder.channels": listed(-1),
        **{f"{m}.learning_rate": float(recorded["learning_rate"]) for m in ("encoder", "critic")},
        **{f"{m}.epsilon": float(recorded["adam_eps"]) for m in ("encoder", "critic")},
        "critic.hidden": next(a for n, a in arrays.items() if n.endswith("0/bias_mu")).shape[0],
        "atoms": len(recorded["support"]),
        "v_min": float(recorded["support"][0]),
        "v_max": float(recorded["support"][-1]),
        "n_step": int(recorded["n"]),
        "discount": float(recorded["discount"]),
        "batch_size": len(recorded["states"]),
    }
    if body == "nature":
        own["encoder.kernels"] = listed(0)
    else:
        own["encoder.depth"] = (max(number for _, number, _ in found)) // 2
    return override(DERConfig(), {**own, **changes})


def agent_of(recorded, **changes):
    """DER's functions and its recorded state, in the dtype that is on."""
    arrays = {n.partition(":")[2]: a for n, a in recorded.items() if n.startswith("online:")}
    outputs = next(a for n, a in arrays.items() if n.endswith("NoisyNetwork_1/bias_mu"))
    actions = len(outputs) // len(recorded["support"])
    shown = Observation(recorded["states"].shape[1:], "uint8")
    built = build_der(config_of(recorded, **changes), Sizes(shown, Discrete(actions)), 100_000)
    online, target = (params_of(recorded, name) for name in ("online", "target"))
    state = jax.jit(built.init)(jax.random.key(0))
    assert jax.tree.map(jnp.shape, state.params) == jax.tree.map(jnp.shape, online)
    return built, state.replace(params=online, target_params=target)


def masked(recorded, state):
    """The state under the recorded masks, and they; its modules are static."""
    masks = params_of(recorded, "mask")
    opt_state = {}
    for name, own in state.opt_state.items():
        confined = jax.tree.map(
            lambda held, mask: mask if isinstance(held, jax.Array) else held,
            topology.masks(own),
            masks[name],
            is_leaf=lambda node: isinstance(node, topology.DenseLeaf),
        )
        opt_state[name] = map_states(lambda s, to=confined: s._replace(masks=to), own)
    inside = lambda params: jax.tree.map(lambda p, m: jnp.where(m, p, 0), params, masks)  # noqa: E731
    params, target = inside(state.params), inside(state.target_params)
    return state.replace(params=params, target_params=target, opt_state=opt_state), masks


def noise_of(recorded, which):
    """{layer: recorded normals of inputs and outputs}."""
    return {
        layer: [recorded[f"noise_{which}:{number}:{side}"] for side in ("in", "out")]
        for number, layer in enumerate(NOISY)
    }


def noises_of(recorded, agent, *which):
    """The recorded normals in the order in which the agent draws them."""
    return [
        np.concatenate(noise_of(recorded, one)[layer])
        for one in which
        for layer in agent.critic.noisy
    ]


def view_of(recorded):
    """Stands in for the replay view of one seed."""
    batch = SimpleNamespace(
        observation=jnp.asarray(recorded["states"]),
        action=jnp.asarray(recorded["actions"], jnp.int32),
        reward=jnp.asarray(recorded["step_rewards"]),
        terminated=jnp.asarray(recorded["step_terminated"]),
        next_observation=jnp.asarray(recorded["next_states"]),
    )
    return SimpleNamespace(
        sample=lambda key, size: jnp.arange(size),
        transition=lambda indices, n: batch,
        probability=lambda indices: jnp.asarray(recorded["sampling_probabilities"])[indices],
    )
