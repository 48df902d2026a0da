"""Steps a second of published settings: python -m benchmarks.rates [--output=FILE].

What the costs in docs/claims.md are made of. A step is one of an environment, with all that the
training program does for it once learning has begun (store, draw, update, act), by one device call,
as environments on the host have it. Evaluations and compiling are left out, and so are environments
but those of streaming agents, of whose time they take most. Networks are dense: a mask costs a few
percent (benchmarks.simba, benchmarks.training).
"""

import statistics
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks.harness import (
    define_output,
    define_repeats,
    launch_benchmark,
    once,
    show,
    write_results,
)
from benchmarks.programs import VECTORS, advance, kept_going, past_warm_up
from experiments.cli import one_line_errors
from experiments.inputs import define_list, one_of
from experiments.studies.published import STREAM
from experiments.studies.scales import tiny
from experiments.studies.streaming import STEPS
from mst_jax import envs
from mst_jax.agents import Sizes, make_agent
from mst_jax.envs import Continuous, Discrete, Observation
from mst_jax.presets import preset_overrides
from mst_jax.program.drivers import make_driver
from mst_jax.program.state import LOOKED_AT, LoopState
from mst_jax.recipes import Overrides, make_config


class Case(NamedTuple):
    """What is measured.

    Attributes:
        sizes: of the task; or its name, to step its environments too.
        seeds: in one program.
        steps: of one repeat: a multiple of what lies between two updates that do more than others.
        filled: steps in the buffer; environments that are stepped fill it themselves.
        changes: settings that replace defaults.
    """

    sizes: Sizes | str
    seeds: int = 1
    steps: int = 4
    filled: int = 5_000
    changes: Overrides = {}  # noqa: RUF012 (never changed)


DOG = Sizes.vector(223, 38, 500)  # dog-run of DeepMind Control
CARTPOLE = Sizes.vector(5, 1, 500)
QUADRUPED = Sizes(Observation((84, 84, 9), "uint8", history=3), Continuous(12), 500)
GAME = Sizes(Observation((84, 84, 4), "uint8", history=4, fill="zeros"), Discrete(18), 27_000)
# MR.Q's encoder learns in bursts, as many updates as there are steps between two: with short ones
# the mean is the same, and less must be measured.
BURST = 10
PICTURES = 300  # steps in a buffer of pictures
ENOUGH = 60.0  # seconds, after which a case is not repeated


def _on_vectors() -> Iterator[tuple[str, Case]]:
    """Agents and sizes of the studies on DeepMind Control; MR.Q with whole bursts."""
    yield "mrq tiny", Case(CARTPOLE, seeds=8, steps=200, changes=tiny("mrq"))
    bursts: Overrides = {"target_period": BURST}
    yield "mrq cartpole", Case(CARTPOLE, steps=5 * BURST, changes=bursts)
    yield "mrq 1x1", Case(DOG, steps=5 * BURST, changes=bursts)
    yield "mrq 4x1", Case(DOG, steps=BURST, changes=bursts)
    yield "mrsac 4x1", Case(DOG, steps=BURST, changes=bursts)
    for agent in ("sac", "ddpg"):
        yield f"{agent} 1x1", Case(DOG, steps=40)
        for size in ("2x1", "3x1", "4x1", "5x1", "2x2", "2x4", "4x3"):
            yield f"{agent} {size}", Case(DOG)
    yield "td3 1x1", Case(VECTORS, steps=40)
    yield "td3 4x1", Case(VECTORS)


def _on_pictures() -> Iterator[tuple[str, Case]]:
    """DrQ-v2 with critics of each width; DER with its study's encoder, and as DQN."""
    for size in ("1x1", "4x1"):
        yield f"drqv2 {size}", Case(QUADRUPED, steps=2, filled=PICTURES)
    impala, dqn = (preset_overrides("der", preset, "") for preset in ("netsparsity", "dqn"))
    yield "der 1x1", Case(GAME, steps=8, filled=PICTURES, changes=impala)
    yield "der 3x1", Case(GAME, steps=2, filled=PICTURES, changes=impala)
    yield "der dqn", Case(GAME, steps=32, filled=PICTURES, changes=dqn)


def _streaming() -> Iterator[tuple[str, Case]]:
    for task in STREAM:
        for size in ("0.5x1", "1x1", "2x1", "4x1"):
            yield f"stream_ac {size} {task}", Case(task, seeds=5, steps=2_000)


# By agent and size, and by the task whose environments are stepped.
CASES = {**dict(_on_vectors()), **dict(_on_pictures()), **dict(_streaming())}

CASE = define_list("cases", list(CASES), one_of(CASES), "What to measure: agent and size.")
REPEATS = define_repeats(3)
OUTPUT = define_output()


def main(_: list[str]) -> None:
    """Measures every case and prints a line for each."""
    rows: dict[str, Any] = {}
    for name in CASE.value:
        with one_line_errors():
            rows[name] = show(name, rate(name))
        write_results(OUTPUT.value, "benchmarks.rates", {"rates": rows})


def rate(name: str) -> dict[str, Any]:
    """Agent steps a second of all seeds of a case together."""
    case = CASES[name]
    agent, size = name.split(" ")[:2]
    known = size if size[0].isdigit() else ""
    config = make_config(agent, "dense", known, base=case.changes)
    with ExitStack() as stack:
        if isinstance(case.sizes, str):
            execute, steps = _with_environments(agent, config, case, case.sizes, stack)
        else:
            execute, steps = _learning_alone(agent, config, case, case.sizes)
        seconds = [once(execute).wall]
        while len(seconds) < REPEATS.value and sum(seconds) < ENOUGH:
            seconds.append(once(execute).wall)
    return {
        "seeds": case.seeds,
        "repeats": len(seconds),
        "steps_per_second": case.seeds * steps / statistics.median(seconds),
    }


def _learning_alone(
    name: str, config: Any, case: Case, sizes: Sizes
) -> tuple[Callable[[], None], int]:
    """What takes steps of a constant environment, compiled, and how many of each seed."""
    ready = past_warm_up(config, case.seeds, name, sizes, case.filled)
    step = jax.jit(ready.step, donate_argnums=0)

    def several(loop: LoopState) -> LoopState:
        for _ in range(case.steps):
            loop = step(loop, ready.timestep)
        return jax.block_until_ready(loop)

    loop = jax.block_until_ready(step(ready.run, ready.timestep))
    return kept_going(several, loop), case.steps * ready.agent.learn_every


def _with_environments(
    name: str, config: Any, case: Case, task_name: str, stack: ExitStack
) -> tuple[Callable[[], None], int]:
    """As `_learning_alone`, of a task as the streaming studies have it; the stack closes it."""
    task = envs.make(task_name, with_time="published")
    agent = make_agent(name, config, task.spec, STEPS)
    driver, loop = make_driver(agent, task, list(range(case.seeds)), LOOKED_AT, np.float32)
    stack.enter_context(closing(driver))
    warm = advance(driver, loop, agent.learning_starts + 1)
    return kept_going(lambda loop: advance(driver, loop, case.steps), warm), case.steps


if __name__ == "__main__":
    launch_benchmark(main, OUTPUT)
