"""Moving a loop forward by a number of steps, on host environments or inside the device program."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import numpy as np

from mst_jax.agents import Agent, Numbers, Sizes
from mst_jax.envs import (
    WORKER_TIMEOUT,
    Action,
    EnvironmentFailedError,
    HostTask,
    JaxEnv,
    Spec,
    Timestep,
)
from mst_jax.program.cache import kept
from mst_jax.program.sharding import (
    LOOP,
    SEEDS,
    SHARED,
    over_devices,
    place,
    seed_mesh,
    seeds_per_device,
    shardings,
)
from mst_jax.program.state import (
    LoopState,
    Purpose,
    environment_keys,
    init_loop,
    keys_for,
    over_seeds,
    seed_keys,
)
from mst_jax.program.step import (
    Half,
    Phase,
    Step,
    make_advance,
    make_halves,
    make_step,
    phase_of,
    phases_of,
    steps_to_learn,
)

STEPS_BETWEEN_STOP_CHECKS = 50  # on the device a stop request is seen after so many steps


class Clocks:
    """Wall-clock seconds since the last `clear`, by what they were spent on."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Starts again from zero."""
        self.environment = self.device = self.compiling = 0.0
        self.steps = 0

    def row(self, updates: int) -> dict[str, float]:
        """Seconds and speeds of a chunk: all environments step together, so for each of them."""
        row = {"wall/device_seconds": self.device}
        if self.compiling:
            row["wall/compile_seconds"] = self.compiling
        if self.environment:
            row["wall/environment_seconds"] = self.environment
            row["wall/environment_steps_per_second"] = self.steps / self.environment
        if updates and self.device:
            row["wall/updates_per_second"] = int(updates) / self.device
        if self.environment + self.device:
            row["wall/steps_per_second"] = self.steps / (self.environment + self.device)
        return row


class Programs:
    """The program of each phase, compiled when it is first needed.

    What was compiled before for the same jitted function and shapes is not compiled again.
    """

    def __init__(self, jitted: Mapping[Phase | Half, Any], clocks: Clocks) -> None:
        self._jitted = jitted
        self._compiled: dict[Phase | Half, Callable] = {}
        self._clocks = clocks

    def __call__(self, phase: Phase, *args: Any) -> LoopState:
        """Runs a program to its end; compiling and running are timed apart."""
        return self.wait(self.start(phase, *args))

    def start(self, phase: Phase | Half, *args: Any) -> Any:
        """Starts a program; what it returns may still be in the making."""
        before = time.perf_counter()
        if phase not in self._compiled:
            self._compiled[phase] = self._jitted[phase].lower(*args).compile()
            self._clocks.compiling += time.perf_counter() - before
            before = time.perf_counter()
        made = self._compiled[phase](*args)
        self._clocks.device += time.perf_counter() - before
        return made

    def wait(self, loop: LoopState) -> LoopState:
        """What a program returned, once it is there: all of it is as soon as one array is."""
        before = time.perf_counter()
        loop.action.block_until_ready()
        self._clocks.device += time.perf_counter() - before
        return loop


class Driver(ABC):
    """Steps environments and device program in turn, each step followed by what its phase asks.

    What it answers here is so for environments inside the device program.

    Attributes:
        clocks: what time was spent on.
        failure: why the environments cannot be stepped any more, in one line; None as long as they
            can. `advance` returns the loop as it was before the step that failed.
    """

    def __init__(self, agent: Agent, space: Action, num_seeds: int) -> None:
        self.clocks = Clocks()
        self.failure: str | None = None
        self._agent, self._space, self._num_seeds = agent, space, num_seeds
        self._mesh = seed_mesh(num_seeds)

    @abstractmethod
    def advance(
        self,
        loop: LoopState,
        count: int,
        stop: Callable[[], bool],
        report: Callable[[int], object],
    ) -> LoopState:
        """Takes `count` steps, or fewer once `stop()` is true; `report(n)` hears of progress."""

    @abstractmethod
    def errors(self) -> np.ndarray:
        """Steps that each seed's environments have lost so far, int64 (S,)."""

    def restarts(self) -> int | None:
        """How often a worker process was started again; None where there are none."""
        return None

    def place(self, loop: LoopState) -> LoopState:
        """Puts a loop that was read from a checkpoint on the devices that step it."""
        return place(loop, self._mesh)

    def snapshot(self) -> dict[str, np.ndarray]:
        """Environment state that is not in the loop."""
        return {}

    def restore(self, snapshot: dict[str, np.ndarray]) -> None:
        """Puts the environments back where a snapshot was taken."""
        del snapshot

    def close(self) -> None:
        """Stops worker processes, if there are any."""
        return


def make_driver(
    agent: Agent,
    task: JaxEnv | HostTask,
    seeds: list[int],
    capacity: int,
    row_dtype: Any,
    numbers: Numbers | None = None,
    environments: int = 1,
    worker_timeout: float = WORKER_TIMEOUT,
    stale_actions: int = 0,
) -> tuple[Driver, LoopState]:
    """The driver for `environments` of either kind per seed, and the loop before its first step.

    The seeds are spread over all local devices that can share them evenly. With `numbers`, arrays
    (S, ...), they differ in more than their random numbers. A worker process that does not answer
    for `worker_timeout` seconds counts as dead (0: never). With `stale_actions` 1, parameters that
    choose actions are those of one update before, and environments on the host step meanwhile.
    """
    start = partial(
        _start(agent, len(seeds), capacity, task.spec, row_dtype),
        seeds=np.array(seeds, np.uint32),
        numbers=numbers,
    )
    if isinstance(task, JaxEnv):
        keys = environment_keys(keys_for(seed_keys(seeds), Purpose.ENVIRONMENT), environments)
        environment, observation = _start_environments(task, len(keys))(keys)
        driver = JaxDriver(agent, task, len(seeds), environments)
        return driver, start(observation=observation, environment=environment)
    driver = HostDriver(agent, task, seeds, environments, worker_timeout, stale_actions)
    return driver, start(observation=driver.reset())


@kept
def _start(
    agent: Agent, num_seeds: int, capacity: int, sizes: Sizes | Spec, row_dtype: Any
) -> Callable[..., LoopState]:
    """(seeds, numbers, observation, environment) -> the loop before its first step, jitted."""
    mesh = seed_mesh(num_seeds)
    start = partial(init_loop, agent, capacity=capacity, sizes=sizes, row_dtype=row_dtype)
    return jax.jit(start, out_shardings=None if mesh is None else shardings(mesh))


@kept
def _start_environments(env: JaxEnv, count: int) -> Callable[[jax.Array], Any]:
    return jax.jit(over_seeds(env.reset, count))


def _steps(agent: Agent, space: Action, own: int) -> dict[Phase, Step]:
    """What follows a step of the environments of `own` seeds, by phase."""
    return {phase: make_step(agent, space, own, phase) for phase in phases_of(agent)}


@kept
def _step_programs(agent: Agent, space: Action, num_seeds: int) -> dict[Phase, Any]:
    """Jitted steps that follow one of environments on the host."""
    mesh = seed_mesh(num_seeds)
    steps = _steps(agent, space, seeds_per_device(num_seeds, mesh))
    return {
        phase: jax.jit(over_devices(step, mesh, (LOOP, SEEDS), LOOP), donate_argnums=0)
        for phase, step in steps.items()
    }


@kept
def _half_programs(agent: Agent, space: Action, num_seeds: int) -> dict[Half, Any]:
    """Jitted halves of a step that learns, for environments on the host."""
    mesh = seed_mesh(num_seeds)
    answer, learn = make_halves(agent, space, seeds_per_device(num_seeds, mesh))
    answer = over_devices(answer, mesh, (LOOP, SEEDS), (LOOP, SEEDS))
    learn = over_devices(learn, mesh, (LOOP, SEEDS, SEEDS), LOOP)
    return {
        Half.ANSWER: jax.jit(answer, donate_argnums=0),
        Half.LEARN: jax.jit(learn, donate_argnums=0),
    }


@kept
def _chunk_programs(
    agent: Agent, env: JaxEnv, num_seeds: int, environments: int
) -> dict[Phase | Half, Any]:
    """Jitted chunks of steps, those of the environments included."""
    mesh = seed_mesh(num_seeds)
    own = seeds_per_device(num_seeds, mesh)
    steps = _steps(agent, env.spec.action, own)
    between = {Phase.LEARN: steps.get(Phase.ACT)}  # the learning program acts in between
    chunks = {
        phase: make_advance(step, env, own * environments, between.get(phase), agent.learn_every)
        for phase, step in steps.items()
    }
    return {
        phase: jax.jit(over_devices(chunk, mesh, (LOOP, SHARED), LOOP), donate_argnums=0)
        for phase, chunk in chunks.items()
    }


class HostDriver(Driver):
    """One message to the worker processes and one fused device call per step.

    With stale actions, learning is a call of its own, and the environments' next step is made
    meanwhile.
    """

    def __init__(
        self,
        agent: Agent,
        task: HostTask,
        seeds: list[int],
        environments: int = 1,
        worker_timeout: float = WORKER_TIMEOUT,
        stale_actions: int = 0,
    ) -> None:
        super().__init__(agent, task.spec.action, len(seeds))
        self._stale = stale_actions
        pairs = [(seed, index) for seed in seeds for index in range(environments)]
        self._env = task.vector(pairs, timeout=worker_timeout)
        halves = _half_programs(agent, self._space, len(seeds)) if stale_actions else {}
        programs = {**_step_programs(agent, self._space, len(seeds)), **halves}
        self._programs = Programs(programs, self.clocks)

    def reset(self) -> np.ndarray:
        """Starts the first episode of every environment; observations (S*E, *O)."""
        return self._env.reset()

    def advance(
        self,
        loop: LoopState,
        count: int,
        stop: Callable[[], bool],
        report: Callable[[int], object],
    ) -> LoopState:
        """See `Driver`."""
        first, action = int(loop.clock.step), np.asarray(loop.action)
        for step in range(first, first + count):
            before = time.perf_counter()
            try:
                timestep = self._env.step(self._space.bounded(action))
            except EnvironmentFailedError as error:
                self.failure = str(error)
                break
            self.clocks.environment += time.perf_counter() - before
            loop, action = self._follow(phase_of(self._agent, step), loop, timestep)
            self.clocks.steps += 1
            report(1)
            if stop():
                break
        return self._programs.wait(loop)

    def _follow(
        self, phase: Phase, loop: LoopState, timestep: Timestep
    ) -> tuple[LoopState, np.ndarray]:
        """What follows a step of the environments, and their next actions (S*E, *A)."""
        if phase is not Phase.LEARN or not self._stale:
            loop = self._programs(phase, loop, timestep)
            return loop, np.asarray(loop.action)
        loop, latest = self._programs.start(Half.ANSWER, loop, timestep)
        # A copy, since learning is given the loop's arrays.
        action = np.array(self._programs.wait(loop).action)
        return self._programs.start(Half.LEARN, loop, latest, timestep.over), action

    def errors(self) -> np.ndarray:
        """See `Driver`."""
        return self._env.errors.reshape(self._num_seeds, -1).sum(axis=1)

    def restarts(self) -> int:
        """See `Driver`."""
        return self._env.restarts

    def snapshot(self) -> dict[str, np.ndarray]:
        """Episode numbers and the actions of the current episodes; see `envs`."""
        return self._env.snapshot()

    def restore(self, snapshot: dict[str, np.ndarray]) -> None:
        """Replays the current episodes' actions."""
        self._env.restore(snapshot)

    def close(self) -> None:
        """Stops the worker processes."""
        self._env.close()


class JaxDriver(Driver):
    """Chunks of steps in one jitted loop; environment states are part of its state."""

    def __init__(self, agent: Agent, env: JaxEnv, num_seeds: int, environments: int = 1) -> None:
        super().__init__(agent, env.spec.action, num_seeds)
        self._errors = np.zeros(num_seeds, np.int64)
        programs = _chunk_programs(agent, env, num_seeds, environments)
        self._programs = Programs(programs, self.clocks)

    def advance(
        self,
        loop: LoopState,
        count: int,
        stop: Callable[[], bool],
        report: Callable[[int], object],
    ) -> LoopState:
        """See `Driver`."""
        step = int(loop.clock.step)
        last = step + count
        while step < last:
            phase = phase_of(self._agent, step)
            chunk = min(last - step, STEPS_BETWEEN_STOP_CHECKS)
            if phase is not Phase.LEARN:
                chunk = min(chunk, steps_to_learn(self._agent, step))
            loop = self._programs(phase, loop, np.int32(chunk))
            self._count_errors(loop)
            self.clocks.steps += chunk
            report(chunk)
            step += chunk
            if stop():
                break
        return loop

    def errors(self) -> np.ndarray:
        """See `Driver`; as of the last chunk."""
        return self._errors

    def place(self, loop: LoopState) -> LoopState:
        """See `Driver`."""
        self._count_errors(loop)
        return super().place(loop)

    def _count_errors(self, loop: LoopState) -> None:
        errors = np.asarray(loop.environment.errors, np.int64)
        self._errors = errors.reshape(len(self._errors), -1).sum(axis=1)
