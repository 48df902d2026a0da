"""Speed of Atari games, beside programs that play them too: python -m benchmarks.atari.

Agent steps of random play, one environment each, in turns; and whether what each plays is the task
of Atari-100k. Needs the extras `atari`, `envpool` and `peers`.
"""

import os
import statistics
from collections.abc import Callable
from typing import NamedTuple

import ale_py
import envpool
import gymnasium
import numpy as np
from absl import flags

from benchmarks.harness import (
    Cost,
    define_output,
    define_repeats,
    launch_benchmark,
    once,
    show,
    write_results,
)
from experiments.inputs import define_list, one_of
from mst_jax import envs
from mst_jax.envs.base import episode_seed
from mst_jax.envs.suites import atari

GAMES = {"Breakout": "breakout", "Seaquest": "seaquest", "Pong": "pong"}
GAME = define_list("games", list(GAMES), one_of(GAMES), "Which games.")
STEPS = flags.DEFINE_integer("steps", 500, "Agent steps in one repeat.", lower_bound=1)
REPEATS = define_repeats(7)
OUTPUT = define_output()

Step = Callable[[int], None]


class Player(NamedTuple):
    """A program that plays.

    Attributes:
        make: `make(game)`, of which each call of the result is one agent step.
        differs: from Atari-100k, or "" where nothing does.
    """

    make: Callable[[str], Step]
    differs: str = ""


def main(_: list[str]) -> None:
    """Measures all programs in turns, prints and writes medians."""
    gymnasium.register_envs(ale_py)
    load = os.getloadavg()
    games = {game: measure(game) for game in GAME.value}
    results = {
        "steps": STEPS.value,
        "load_before": load,
        "load_after": os.getloadavg(),
        "differs": {name: player.differs for name, player in PLAYERS.items()},
        "games": games,
    }
    write_results(OUTPUT.value, "benchmarks.atari", results)


def measure(game: str) -> dict[str, dict[str, float]]:
    """Medians of a game: agent steps a second, processor milliseconds a step."""
    steps = {name: player.make(game) for name, player in PLAYERS.items()}
    count = envs.make(f"atari:{game}").spec.action.count
    actions = np.random.default_rng(0).integers(0, count, STEPS.value).tolist()
    costs: dict[str, list[Cost]] = {name: [] for name in steps}
    for _ in range(REPEATS.value + 1):
        for name, step in steps.items():
            costs[name].append(once(lambda step=step: [step(action) for action in actions]))
    return {
        name: show(
            f"{game} {name}",
            {
                "steps_per_second": STEPS.value / statistics.median(c.wall for c in counted),
                "milliseconds": 1e3 * statistics.median(c.processor for c in counted) / STEPS.value,
            },
        )
        for name, (_, *counted) in costs.items()
    }


def ours(game: str) -> Step:
    """The suite, in this process."""
    env, episodes = atari.load(game), iter(range(1_000_000))
    begin = lambda: env.reset(episode_seed(0, 0, next(episodes)))  # noqa: E731
    begin()

    def step(action: int) -> None:
        if env.step(np.int32(action))[-1]:
            begin()

    return step


def workers(game: str) -> Step:
    """The suite as training runs it: a worker process and its messages."""
    env = envs.make(f"atari:{game}").vector([(0, 0)], workers=1)
    env.reset()
    return lambda action: env.step(np.array([action], np.int32)) and None


def wrapper(game: str) -> Step:
    """Gymnasium's wrappers."""
    env = gymnasium.make(f"ALE/{game}-v5", frameskip=1, repeat_action_probability=0.0)
    env = gymnasium.wrappers.AtariPreprocessing(env, terminal_on_life_loss=True)
    env = gymnasium.wrappers.FrameStackObservation(env, 4, padding_type="zero")
    env.reset(seed=0)

    def step(action: int) -> None:
        _, _, terminated, truncated, _ = env.step(action)
        if terminated or truncated:
            env.reset()

    return step


def vector(game: str) -> Step:
    """ale-py's vector of environments in C++, of one, on one thread."""
    env = ale_py.AtariVectorEnv(
        *(GAMES[game], 1),
        num_threads=1,
        episodic_life=True,
        reward_clipping=False,
        use_fire_reset=False,
    )
    env.reset(seed=0)
    return lambda action: env.step(np.array([action])) and None


def pool(game: str) -> Step:
    """EnvPool, of one environment on one thread."""
    env = envpool.make(
        f"{game}-v5",
        env_type="gymnasium",
        num_envs=1,
        num_threads=1,
        episodic_life=True,
        reward_clip=False,
        use_fire_reset=False,
    )
    env.reset()
    return lambda action: env.step(np.array([action])) and None


PLAYERS = {
    "mst_jax, in this process": Player(ours),
    "mst_jax, a worker process": Player(workers),
    "gymnasium AtariPreprocessing": Player(
        wrapper, "a lost life is followed by a reset, which begins another game"
    ),
    "ale-py AtariVectorEnv": Player(vector, "a lost life resets the game"),
    "EnvPool": Player(
        pool, "after a lost life the history goes on and an action is swallowed; 1 to 30 no-ops"
    ),
}

if __name__ == "__main__":
    launch_benchmark(main, OUTPUT)
