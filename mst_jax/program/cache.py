"""What this process has traced and compiled, kept for the next run that needs the same.

A jitted function knows its compiled programs by the shapes of its arguments, but only the very same
function does. So functions that make one are wrapped in `kept`: for the same agent, environment and
numbers they return the same function again, and a second run with the same shapes compiles nothing.
Agents are the same only if they are one object; `kept_agent` gives equal settings one agent.
"""

import copy
import dataclasses
import json
from collections.abc import Callable, Hashable, Sequence
from functools import lru_cache, wraps
from typing import Any, ParamSpec, TypeVar, cast

from mst_jax import envs, topology
from mst_jax.agents import Agent, ModuleConfig, Numbers, Sizes, modules_of, sweep
from mst_jax.agents.parts.optimizers import OPTIMIZERS
from mst_jax.agents.registry import Entry, find_agent, make_agent
from mst_jax.networks import in_precision

ON_DEVICE = ("brax", "playground", "probe")
MOST = 16  # results that each function keeps; what was used longest ago goes first

P = ParamSpec("P")
T = TypeVar("T")
_FORGET: list[Callable[[], None]] = []


class _Same:
    """Equal to what wraps the very same object, which it keeps alive."""

    def __init__(self, thing: Any) -> None:
        self.thing = thing

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.thing is self.thing

    def __hash__(self) -> int:
        return id(self.thing)


def kept(make: Callable[P, T]) -> Callable[P, T]:
    """Remembers what a function returned for its last arguments; they are given by position.

    Arguments are compared by type and value, those without a hash (agents hold dictionaries) by
    identity.
    """
    by_position = cast("Callable[..., T]", make)

    @lru_cache(maxsize=MOST, typed=True)
    def known(*arguments: Hashable) -> T:
        return by_position(*(a.thing if isinstance(a, _Same) else a for a in arguments))

    @wraps(make)
    def remembered(*arguments: Any) -> T:
        return known(*map(_key, arguments))

    _FORGET.append(known.cache_clear)
    return cast("Callable[P, T]", remembered)


def _key(argument: Any) -> Hashable:
    try:
        hash(argument)
    except TypeError:
        return _Same(argument)
    return argument


def forget() -> None:
    """Lets go of everything kept, for the memory that it takes."""
    for clear in _FORGET:
        clear()


def kept_task(name: str, **options: Any) -> envs.JaxEnv | envs.HostTask:
    """`envs.make`; of the suites that run on the device, the same object for the same arguments.

    Other tasks are made anew, since a user's code may have changed. No program depends on a host's
    task beyond its sizes.
    """
    if name.partition(":")[0] in ON_DEVICE:
        return _task(name, tuple(sorted(options.items())))
    return envs.make(name, **options)


def kept_agent(
    name: str,
    config: Any,
    sizes: Sizes | envs.Spec,
    total_steps: int,
    precision: str = "float32",
) -> Agent:
    """`make_agent`, learning in a precision; the same object for equal arguments.

    One with a user's own regime or optimizer is made anew, since that code may have changed.
    """
    found = find_agent(name)
    if any(map(_has_own_code, modules_of(config).values())):
        return _learning_in(precision, make_agent(name, config, sizes, total_steps))
    return _agent(name, found, _Config.of(config), sizes, total_steps, precision)


def _learning_in(precision: str, agent: Agent) -> Agent:
    """The agent; it acts, and is looked at, in float32."""
    return agent._replace(learn=in_precision(precision, agent.learn))


def _has_own_code(module: ModuleConfig) -> bool:
    return module.regime not in topology.REGIMES or module.optimizer not in OPTIMIZERS


def kept_sweep(
    name: str,
    configs: Sequence[Any],
    sizes: Sizes | envs.Spec,
    total_steps: int,
    precision: str = "float32",
) -> tuple[Agent, Numbers]:
    """`agents.sweep`, learning in a precision; the same objects for equal arguments."""
    return _sweep(name, tuple(map(_Config.of, configs)), sizes, total_steps, precision)


@dataclasses.dataclass(frozen=True)
class _Config:
    """A configuration, equal to one with the same values; a copy, because they can be changed."""

    text: str
    config: Any = dataclasses.field(compare=False)

    @classmethod
    def of(cls, config: Any) -> "_Config":
        text = json.dumps(dataclasses.asdict(config), sort_keys=True)
        return cls(text, copy.deepcopy(config))


@kept
def _task(name: str, options: tuple[tuple[str, Any], ...]) -> envs.JaxEnv | envs.HostTask:
    return envs.make(name, **dict(options))


@kept
def _agent(
    name: str,
    found: Entry,
    config: _Config,
    sizes: Sizes | envs.Spec,
    total_steps: int,
    precision: str,
) -> Agent:
    del found  # tells a user's module from what it was before it was loaded again
    return _learning_in(precision, make_agent(name, config.config, sizes, total_steps))


@kept
def _sweep(
    name: str,
    configs: tuple[_Config, ...],
    sizes: Sizes | envs.Spec,
    total_steps: int,
    precision: str,
) -> tuple[Agent, Numbers]:
    agent, numbers = sweep(name, [one.config for one in configs], sizes, total_steps)
    return _learning_in(precision, agent), numbers
