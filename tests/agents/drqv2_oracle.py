"""One update of DrQ-v2 in float64, written from docs/specs/drqv2.md §1 alone.

Arrays have the names and the layout of the reference program's recording (tests/data), so both can
be asked the same. Pictures are padded and cut, convolutions have their channels first.
"""

import jax
import jax.numpy as jnp
import numpy as np

PAD, CLIP, LIMIT, RATE, TAU = 4, 0.3, 1 - 1e-6, 1e-4, 0.01


def generated(side=32, channels=32, trunk=20, hidden=48, actions=3, count=4, scale=0.55):
    """A recording of random numbers: an update's inputs and all that comes of them."""
    rng = np.random.default_rng(0)
    features = channels * ((side - 1) // 2 - 6) ** 2
    shapes = {"encoder": {}, "actor": _trunk(features, trunk), "critic": _trunk(features, trunk)}
    for index, inputs in enumerate((9, channels, channels, channels)):
        shapes["encoder"][f"convnet.{2 * index}"] = (channels, inputs, 3, 3)
    shapes["actor"] |= _head("policy", trunk, hidden, actions)
    for head in ("Q1", "Q2"):
        shapes["critic"] |= _head(head, trunk + actions, hidden, 1)
    shapes["critic_target"] = shapes["critic"]
    found = {}
    for module, layers in shapes.items():
        for layer, shape in layers.items():
            fan = max(1, int(np.prod(shape[1:])))
            weight = rng.normal(size=shape) * np.sqrt(2 / fan) if len(shape) > 1 else 1.0
            if len(shape) == 1:
                weight = 1 + 0.1 * rng.normal(size=shape)
            found[f"params/{module}/{layer}.weight"] = weight.astype(np.float32)
            bias = 0.1 * rng.normal(size=shape[:1])
            found[f"params/{module}/{layer}.bias"] = bias.astype(np.float32)
    pictures = (count, 9, side, side)
    found |= {
        "batch/obs": rng.integers(0, 256, pictures).astype(np.uint8),
        "batch/next_obs": rng.integers(0, 256, pictures).astype(np.uint8),
        "batch/action": rng.uniform(-1, 1, (count, actions)).astype(np.float32),
        "batch/reward": rng.normal(size=(count, 1)).astype(np.float32),
        "batch/discount": np.full((count, 1), 0.99**3, np.float32)
        * (np.arange(count) > 0)[:, None],
        "batch/shift_obs": rng.integers(0, 2 * PAD + 1, (count, 2)),
        "batch/shift_next": rng.integers(0, 2 * PAD + 1, (count, 2)),
        "batch/noise_target": rng.normal(size=(count, actions)).astype(np.float32),
        "batch/noise_actor": rng.normal(size=(count, actions)).astype(np.float32),
        "settings/std": np.float32(scale),
        "settings/step": np.int64(round((1 - scale) / 0.9 * 500_000)),
    }
    params = {
        module: _exact(found, f"params/{module}/")
        for module in ("encoder", "actor", "critic", "critic_target")
    }
    batch = _exact(found, "batch/")
    shown = {name: _shifted(batch[name], batch[shift]) for name, shift in _SHIFTS.items()}
    noise = {
        name: np.clip(scale * batch[f"noise_{name}"], -CLIP, CLIP) for name in ("target", "actor")
    }
    with jax.enable_x64(True):
        made = jax.jit(_updated)(params, batch, shown, noise)
        return found | {name: np.asarray(x) for name, x in made.items()}


def _exact(found, prefix):
    return {
        name.removeprefix(prefix): np.asarray(array, np.float64)
        for name, array in found.items()
        if name.startswith(prefix)
    }


def _trunk(features, size):
    return {"trunk.0": (size, features), "trunk.1": (size,)}


def _head(name, inputs, hidden, outputs):
    return {
        f"{name}.0": (hidden, inputs),
        f"{name}.2": (hidden, hidden),
        f"{name}.4": (outputs, hidden),
    }


def _updated(params, batch, shown, noise):
    """What an update makes of its inputs, by the names of a recording."""
    following = _encoded(params["encoder"], shown["next_obs"])
    next_action = _action(params["actor"], following, noise["target"])
    values = _values(params["critic_target"], following, next_action)
    target = batch["reward"][:, 0] + batch["discount"][:, 0] * values.min(axis=0)

    def critic_loss(encoder, critic):
        q1, q2 = _values(critic, _encoded(encoder, shown["obs"]), batch["action"])
        return jnp.mean((q1 - target) ** 2) + jnp.mean((q2 - target) ** 2)

    grads = jax.grad(critic_loss, (0, 1))(params["encoder"], params["critic"])
    critic = _adam(params["critic"], grads[1])
    features = _encoded(params["encoder"], shown["obs"])

    def actor_loss(actor):
        return -jnp.mean(_values(critic, features, _action(actor, features, noise["actor"])).min(0))

    actor_grads = jax.grad(actor_loss)(params["actor"])
    after = {
        "encoder": _adam(params["encoder"], grads[0]),
        "critic": critic,
        "actor": _adam(params["actor"], actor_grads),
        "critic_target": jax.tree.map(
            lambda new, old: TAU * new + (1 - TAU) * old, critic, params["critic_target"]
        ),
    }
    found = {
        **{f"augment/{name}": array for name, array in shown.items()},
        "forward/encoder_obs": features,
        "forward/encoder_next_obs": following,
        "forward/next_action": next_action,
        "forward/target_q": target[:, None],
        "loss/critic_loss": critic_loss(params["encoder"], params["critic"]),
        "loss/actor_loss": actor_loss(params["actor"]),
    }
    by_module = {"encoder": grads[0], "critic": grads[1], "actor": actor_grads}
    for prefix, trees in (("grad", by_module), ("params_after", after)):
        for module, tree in trees.items():
            found |= {f"{prefix}/{module}/{name}": array for name, array in tree.items()}
    return found


_SHIFTS = {"obs": "shift_obs", "next_obs": "shift_next"}


def _shifted(pictures, shifts):
    padded = np.pad(pictures, ((0, 0), (0, 0), (PAD, PAD), (PAD, PAD)), mode="edge")
    side = pictures.shape[-1]
    cuts = zip(padded, shifts.astype(int), strict=True)
    return np.stack([x[:, row : row + side, left : left + side] for x, (left, row) in cuts])


def _encoded(params, pictures):
    x = pictures / 255 - 0.5
    for layer, stride in (("convnet.0", 2), ("convnet.2", 1), ("convnet.4", 1), ("convnet.6", 1)):
        x = jax.lax.conv(x, params[f"{layer}.weight"], (stride, stride), "VALID")
        x = jnp.maximum(x + params[f"{layer}.bias"][:, None, None], 0)
    return x.reshape(len(x), -1)


def _compressed(params, x):
    x = x @ params["trunk.0.weight"].T + params["trunk.0.bias"]
    x = (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + 1e-5)
    return jnp.tanh(x * params["trunk.1.weight"] + params["trunk.1.bias"])


def _layers(params, head, x):
    for number in (0, 2, 4):
        x = x @ params[f"{head}.{number}.weight"].T + params[f"{head}.{number}.bias"]
        x = jnp.maximum(x, 0) if number < 4 else x
    return x


def _values(params, features, action):
    x = jnp.concatenate([_compressed(params, features), action], axis=-1)
    return jnp.stack([_layers(params, head, x)[:, 0] for head in ("Q1", "Q2")])


def _action(params, features, noise):
    action = jnp.tanh(_layers(params, "policy", _compressed(params, features))) + noise
    return action + jax.lax.stop_gradient(jnp.clip(action, -LIMIT, LIMIT) - action)


def _adam(params, grads):
    """The first step from fresh moments, whose bias corrections cancel."""
    return jax.tree.map(lambda p, g: p - RATE * g / (jnp.abs(g) + 1e-8), params, grads)
