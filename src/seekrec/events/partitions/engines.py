# SPDX-License-Identifier: Apache-2.0
"""Run a function on every part of a large table: in this process, in several, or as tasks of a Ray cluster.

A [`Job`] names the paths that the function reads and the folder that it writes; only these and the function itself are
sent between processes. So the output is the same for every engine, order and number of attempts: a job whose folder
exists is not run again, and a job that dies leaves no folder.

On Ray the jobs are tasks, not calls of the actors of a pool (`ray.util.ActorPool`, `map_batches` of Ray Data): a task
whose node is lost goes to any free processor, while the calls of a lost actor wait until the actor is rescheduled,
which never happens on a cluster without spare resources (tried: of 20 calls to actors on two nodes with a processor
each, one of them killed, 19 returned). State that an actor would keep is kept by the process, which Ray reuses for its
next tasks.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import platform
import secrets
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

from seekrec.errors import ConfigurationError, MissingDependencyError, SeekrecError
from seekrec.events.checks import check_choice
from seekrec.util.files import replace_folder

if TYPE_CHECKING:
    from ray import ObjectRef

# An object of JSON.
JsonObject = dict[str, Any]

Engine = Literal["local", "ray"]
ENGINES: tuple[Engine, ...] = ("local", "ray")

# Tries of a Ray task whose node is lost.
_MAX_RETRIES = 10

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """Work on one part.

    Args:
        output (`str`): The folder to write; with Ray, all nodes must see it under this path.
        inputs (`tuple[str, ...]`): Paths to read.
        settings (`dict`): Whatever else the function needs, as JSON could hold it.
    """

    output: str
    inputs: tuple[str, ...] = ()
    settings: JsonObject = field(default_factory=dict)


JobFunction = Callable[[Job, Path], None]
# The function that this process was handed, by the call of `run_partitions` that handed it.
_held: dict[str, JobFunction] = {}


def run_partitions(
    function: JobFunction,
    jobs: Sequence[Job],
    *,
    engine: Engine = "local",
    num_workers: int | None = None,
    use_gpu: bool = False,
) -> None:
    """Run a function on every job whose folder is not there yet.

    Args:
        function (`Callable[[Job, Path], None]`): A function of a module (not of a script's `__main__`, not a lambda),
            or an object that contains what all jobs need, a model for example: each process gets it once. It is given
            the job and an empty folder to fill, which becomes `job.output` in one step when it returns.
        jobs (`Sequence[Job]`): The jobs, each with a folder of its own.
        engine (`str`): `"local"`, or `"ray"`: the cluster that `RAY_ADDRESS` or `ray.init` names, else one on this
            machine.
        num_workers (`int`, *optional*):
            Processes that work at the same time; each needs the memory of one part. One, which is this process, if
            not given; with Ray, as many as the cluster has processors.
        use_gpu (`bool`): With Ray, run each job on a GPU where the cluster has any.

    Raises:
        ConfigurationError: If an argument is wrong, or a node of a cluster does not see the folder of this process.
        MissingDependencyError: If Ray is asked for and not installed.
    """
    check_choice("engine", engine, ENGINES)
    if num_workers is not None and num_workers < 1:
        raise ConfigurationError(f"`num_workers` is {num_workers!r}; give 1 or more.")
    waiting = [job for job in jobs if not os.path.isdir(job.output)]
    if len(waiting) < len(jobs):
        logger.info("%d of %d parts are already done.", len(jobs) - len(waiting), len(jobs))
    if engine == "ray":
        _run_on_ray(function, waiting, num_workers, use_gpu=use_gpu)
    elif num_workers is None or num_workers == 1 or len(waiting) < 2:
        for job in waiting:
            run_job(function, job)
    else:
        # Not forked: Arrow's threads do not survive it.
        context = multiprocessing.get_context("spawn")
        number, name = min(num_workers, len(waiting)), secrets.token_hex(8)
        with ProcessPoolExecutor(number, context, initializer=_hold, initargs=(name, function)) as pool:
            for future in [pool.submit(_run_held, name, job) for job in waiting]:
                future.result()


def run_job(function: JobFunction, job: Job) -> None:
    """Run one job; its folder appears whole."""
    with replace_folder(job.output) as folder:
        function(job, folder)


def start_ray() -> ModuleType:
    """Connect to the cluster that `RAY_ADDRESS` names, else start one on this machine; return the module `ray`.

    Raises:
        MissingDependencyError: If Ray is not installed.
    """
    try:
        import ray
    except ImportError as error:
        raise MissingDependencyError("`engine='ray'` needs Ray; run `pip install 'seekrec[ray]'`.") from error
    if not ray.is_initialized():
        ray.init()
    module: ModuleType = ray
    return module


def enter_folder(folder: str) -> None:
    """Work where the driver of a cluster does: paths mean the same on all nodes.

    Raises:
        ConfigurationError: If this node has no such folder.
    """
    try:
        os.chdir(folder)
    except OSError as error:
        raise ConfigurationError(
            f"A node of the Ray cluster ({platform.node()}) cannot access {folder} ({error.strerror}); all nodes must "
            "share the working directory of the run, and the folders that it reads and writes."
        ) from error


def _run_on_ray(function: JobFunction, jobs: Sequence[Job], num_workers: int | None, *, use_gpu: bool) -> None:
    ray = start_ray()
    num_gpus = int(use_gpu and ray.cluster_resources().get("GPU", 0) >= 1)
    task = ray.remote(_run_on_node).options(num_cpus=1, num_gpus=num_gpus, max_retries=_MAX_RETRIES)
    # In a list Ray does not open it: a process that has it already would copy it again.
    holder, name = [ray.put(function)], secrets.token_hex(8)
    limit = len(jobs) if num_workers is None else num_workers
    running = [task.remote(holder, name, job, os.getcwd()) for job in jobs[:limit]]
    try:
        for job in jobs[limit:]:
            done, running = ray.wait(running, num_returns=1)
            ray.get(done)
            running.append(task.remote(holder, name, job, os.getcwd()))
        ray.get(running)
    except ray.exceptions.RayTaskError as error:
        # What a user can mend is raised as what it is.
        if isinstance(error.cause, SeekrecError):
            raise error.cause from error
        raise


def _run_on_node(holder: Sequence[ObjectRef[JobFunction]], name: str, job: Job, folder: str) -> None:
    """Run a job as a task of Ray."""
    import ray

    enter_folder(folder)
    if name not in _held:
        _hold(name, ray.get(holder[0]))
    _run_held(name, job)


def _hold(name: str, function: JobFunction) -> None:
    _held.clear()
    _held[name] = function


def _run_held(name: str, job: Job) -> None:
    run_job(_held[name], job)


__all__ = ["ENGINES", "Engine", "Job", "JsonObject", "enter_folder", "run_job", "run_partitions", "start_ray"]
