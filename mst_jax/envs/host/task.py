"""The task of any host environment."""

from collections.abc import Callable, Sequence
from functools import partial

from mst_jax.envs.base import WORKER_TIMEOUT, HostEnv, HostTask, HostVectorEnv, Spec


def host_task(spec: Spec, factory: Callable[[], HostEnv]) -> HostTask:
    """The task of environments that worker processes step.

    Args:
        spec: of the task.
        factory: makes one environment; a function or class of a module, or a `functools.partial` of
            one. Worker processes import it, so one of a notebook or the running script is refused
            when they are started.
    """
    return HostTask(spec, partial(_in_workers, spec, factory))


def _in_workers(
    spec: Spec,
    factory: Callable[[], HostEnv],
    seeds: Sequence[tuple[int, int]],
    workers: int | None = None,
    timeout: float = WORKER_TIMEOUT,
    label: str | None = None,
) -> HostVectorEnv:
    # Not above: a worker process imports this package too, and `vector` imports the worker.
    from mst_jax.envs.host.vector import WorkerVectorEnv

    return WorkerVectorEnv(spec, factory, seeds, workers, timeout, label)
