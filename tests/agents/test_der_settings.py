"""DER's settings as published, and what they and tasks of another kind are refused for."""

import pytest
from der_tiny import ATARI, PARTS, tiny

from mst_jax.agents import AGENTS, DERConfig, Sizes, make_agent
from mst_jax.envs import Continuous, Discrete, Observation
from mst_jax.names import dotted
from mst_jax.presets import preset_overrides
from mst_jax.recipes import make_config


def test_defaults_are_those_of_the_program():
    """docs/specs/der.md §1.2 to §1.4, number by number."""
    config, adam = dotted(DERConfig()), {"optimizer": "adamw", "weight_decay": 0.0}
    published = {
        f"{module}.{name}": value
        for module in ("encoder", "critic")
        for name, value in {**adam, "learning_rate": 1e-4, "epsilon": 1.5e-4}.items()
    } | {
        **dict.fromkeys(PARTS, True),
        "n_step": 10,
        "discount": 0.99,
        "clip_rewards": True,
        "atoms": 51,
        "v_min": -10.0,
        "v_max": 10.0,
        "noisy_std": 0.1,
        "batch_size": 32,
        "learn_every": 1,
        "target_period": 2_000,
        "learning_starts": 1_610,
        "buffer_size": 1_000_000,
        "evaluation_epsilon": 0.001,
        "joint": False,
        "encoder.body": "nature",
        "critic.hidden": 512,
        "critic.depth": 1,
    }
    assert {name: config[name] for name in published} == published


def test_presets_and_what_they_leave():
    paper = preset_overrides("der", "netsparsity", "atari:Pong")
    config = make_config("der", "all_static", size="3x1", base=paper)
    assert (config.encoder.body, config.encoder.hidden, config.noisy_std) == ("impala", 48, 0.5)
    assert (config.critic.hidden, config.n_step, config.critic.sparsity) == (512, 10, 0.6)
    assert DERConfig().noisy_std == 0.1
    dqn = make_config("der", "dense", base=preset_overrides("der", "dqn", "atari:Pong"))
    assert not any(getattr(dqn, part) for part in PARTS)
    assert dqn.n_step == 1


def test_without_a_policy_recipes_are_of_encoder_and_critic():
    mst, swap = make_config("der", "mst"), make_config("der", "swap")
    assert (mst.encoder.regime, mst.critic.regime) == ("dense", "rigl")
    assert (swap.encoder.regime, swap.critic.regime) == ("dense", "static")


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"atoms": 1}, "atoms=1 must be at least 2"),
        ({"v_min": 2.0}, "v_min=2.0 must be below v_max=2.0"),
        ({"n_step": 30}, "learning_starts=200 must|n_step=30 is more than the 20 steps"),
        ({"encoder.body": "vgg"}, "encoder.body='vgg' is unknown: there are nature, impala"),
        ({"encoder.body": "impala"}, "encoder.kernels=3 has no effect with encoder.body=impala"),
        ({"encoder.channels": "2,4"}, "encoder.channels has 2 convolutions, encoder.kernels 1"),
        ({"encoder.channels": "2;4"}, "encoder.channels='2;4' must be positive whole numbers"),
        ({"encoder.kernels": "12"}, "pictures of 6x5 are too small for this encoder"),
        ({"encoder.depth": 3}, "encoder.depth=3 has no effect with encoder.body=nature"),
        ({"critic.residual": "pre"}, "critic.residual=pre: these layers take no shortcuts"),
        ({"critic.epsilon": 0.0}, "critic.epsilon=0.0 must be positive"),
        ({"epsilon_end": 2.0}, "epsilon_end=2.0 must be in"),
        ({"target_period": 0}, "target_period=0 must be at least 1"),
    ],
)
def test_impossible_settings_are_one_line(changes, what):
    with pytest.raises(ValueError, match=what) as error:
        tiny(**changes)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", sorted(AGENTS))
def test_tasks_of_another_kind_are_one_line(name):
    """Flat observations, or pictures; continuous actions, or discrete ones."""
    config = make_config(name, "dense")
    refused = 0
    for shown in (ATARI, Observation((3,))):
        for action in (Continuous(2), Discrete(4)):
            try:
                make_agent(name, config, Sizes(shown, action, 1_000), 50_000)
            except ValueError as error:
                assert "choose another of the two" in str(error)
                assert "\n" not in str(error)
                refused += 1
    assert refused >= {"der": 3, "mrq": 0}.get(name, 1)  # MR.Q takes all of them
