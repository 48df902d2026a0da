"""The task of any host environment."""

from collections.abc import Callable
from functools import partial
from typing import Any

from mst_jax.envs.base import HostEnv, HostTask, HostVectorEnv, Spec


def host_task(
    spec: Spec, factory: Callable[[], HostEnv], preflight: Callable[[], None] | None = None
) -> HostTask:
    """The task of environments that worker processes step.

    Args:
        spec: of the task.
        factory: makes one environment; a function or class of a module, or a `functools.partial` of
            one. Worker processes import it, so one of a notebook or the running script is refused
            when they are started.
        preflight: as in `HostTask`; it is called before workers are started, too.
    """
    return HostTask(spec, partial(_in_workers, spec, factory, preflight), preflight)


def _in_workers(
    spec: Spec,
    factory: Callable[[], HostEnv],
    preflight: Callable[[], None] | None,
    *given: Any,
    **named: Any,
) -> HostVectorEnv:
    if preflight is not None:
        preflight()
    # Not above: a worker process imports this package too, and `vector` imports the worker.
    from mst_jax.envs.host.vector import WorkerVectorEnv

    return WorkerVectorEnv(spec, factory, *given, **named)
