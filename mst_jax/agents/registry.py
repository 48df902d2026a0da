"""The algorithms by name. A new one is one file and one line here.

One of a user's own is a module: its dotted name, such as `my_pkg.td3`, stands for it. The module
has `Config`, a dataclass of settings with defaults and `validate()`, and
`make(config, sizes, total_steps, plans)`, which returns an `Agent`.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from mst_jax import topology
from mst_jax.agents.actor_critic.config import DDPGConfig, SACConfig
from mst_jax.agents.actor_critic.ddpg import build_ddpg
from mst_jax.agents.actor_critic.sac import build_sac
from mst_jax.agents.actor_critic.td3 import TD3Config, build_td3
from mst_jax.agents.base import Agent, Sizes
from mst_jax.agents.mr.config import MRQConfig, MRSACConfig
from mst_jax.agents.mr.mrq import build_mrq
from mst_jax.agents.mr.mrsac import build_mrsac
from mst_jax.agents.pixels.config import DrQv2Config
from mst_jax.agents.pixels.drqv2 import build_drqv2
from mst_jax.agents.rainbow.config import DERConfig
from mst_jax.agents.rainbow.der import build_der
from mst_jax.agents.stream.config import StreamACConfig
from mst_jax.agents.stream.stream_ac import build_stream_ac
from mst_jax.envs import Spec
from mst_jax.names import kind_of, nearest
from mst_jax.user_code import is_dotted, one_line, resolve


class Entry(NamedTuple):
    """An algorithm's settings, a dataclass with the published defaults, and its constructor."""

    config: type
    make: Callable[..., Agent]  # (config, sizes, total_steps, plans)


def _entry_of(config: type, build: Callable[..., Any]) -> Entry:
    """The entry of an algorithm whose functions, built, know the agent they make up."""
    return Entry(config, lambda *args: build(*args).agent())


AGENTS: dict[str, Entry] = {
    "ddpg": _entry_of(DDPGConfig, build_ddpg),
    "der": _entry_of(DERConfig, build_der),
    "drqv2": _entry_of(DrQv2Config, build_drqv2),
    "mrq": _entry_of(MRQConfig, build_mrq),
    "mrsac": _entry_of(MRSACConfig, build_mrsac),
    "sac": _entry_of(SACConfig, build_sac),
    "stream_ac": _entry_of(StreamACConfig, build_stream_ac),
    "td3": _entry_of(TD3Config, build_td3),
}


def default_config(name: str) -> Any:
    """The published settings of an algorithm; raises ValueError for an unknown name."""
    return find_agent(name).config()


class UnmadeError(ValueError):
    """A user's `make` that raises, or makes no agent."""


def make_agent(
    name: str,
    config: Any,
    sizes: Sizes | Spec,
    total_steps: int,
    plans: Mapping[str, topology.Plan] | None = None,
) -> Agent:
    """Builds an algorithm for one seed; ValueError for an unknown name or impossible settings.

    `sizes` are the task's (`envs.Spec` has them too), `total_steps` the agent steps of the whole
    run, and `plans` replaces the topology plans that the configuration describes.
    """
    make = find_agent(name).make
    if name in AGENTS:
        return make(config, sizes, total_steps, plans)
    try:
        agent = make(config, sizes, total_steps, plans)
    except ValueError:
        raise
    except Exception as error:  # whatever a user's function raises
        why = f"{type(error).__name__}: {one_line(error)}"
        raise UnmadeError(f"agent {name!r}: make fails: {why}") from error
    if not isinstance(agent, Agent):
        raise UnmadeError(f"agent {name!r}: make returned {kind_of(agent)}, not an agents.Agent")
    return agent


def find_agent(name: str) -> Entry:
    """The algorithm of a name; ValueError, in one line, if there is none."""
    if name in AGENTS:
        return AGENTS[name]
    if not is_dotted(name):
        raise ValueError(f"agent {name!r} is unknown: {nearest(name, AGENTS)}")
    module = resolve("agent", name)
    for wanted, is_one in (("Config", dataclasses.is_dataclass), ("make", callable)):
        if not is_one(getattr(module, wanted, None)):
            raise ValueError(
                f"agent {name!r} has no {wanted}: its module needs a dataclass Config and a "
                "function make(config, sizes, total_steps, plans)"
            )
    return Entry(module.Config, module.make)
