# SPDX-License-Identifier: Apache-2.0
"""Run one function on every part of a big table: in this process, in several, or as tasks of a Ray cluster.

A [`Job`] names the paths that the function reads and the folder that it writes; nothing else passes between processes.
So the bytes that are written are the same whatever runs the jobs, in whatever order and however often: a job whose
folder is there is not run again, and a job that dies leaves no folder.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from seekrec.errors import ConfigurationError, MissingDependencyError
from seekrec.events.checks import check_choice
from seekrec.util.files import replace_folder

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


def run_partitions(
    function: JobFunction, jobs: Sequence[Job], *, engine: Engine = "local", num_workers: int | None = None
) -> None:
    """Run a function on every job whose folder is not there yet.

    Args:
        function (`Callable[[Job, Path], None]`):
            A function of a module (not of a script's `__main__`, not a lambda). It is given the job and an empty
            folder to fill, which becomes `job.output` in one step when it returns.
        jobs (`Sequence[Job]`): The jobs, each with a folder of its own.
        engine (`str`): `"local"`, or `"ray"`: the cluster that `RAY_ADDRESS` or `ray.init` names, else one on this
            machine.
        num_workers (`int`, *optional*):
            Processes that work at the same time; each needs the memory of one part. One, which is this process, if
            not given; with Ray, as many as the cluster has processors.

    Raises:
        ConfigurationError: If an argument is wrong.
        MissingDependencyError: If Ray is asked for and not installed.
    """
    check_choice("engine", engine, ENGINES)
    if num_workers is not None and num_workers < 1:
        raise ConfigurationError(f"`num_workers` is {num_workers!r}; give 1 or more.")
    waiting = [job for job in jobs if not os.path.isdir(job.output)]
    if len(waiting) < len(jobs):
        logger.info("%d of %d parts are done already.", len(jobs) - len(waiting), len(jobs))
    if engine == "ray":
        _run_on_ray(function, waiting, num_workers)
    elif num_workers is None or num_workers == 1 or len(waiting) < 2:
        for job in waiting:
            run_job(function, job)
    else:
        # Not forked: Arrow's threads do not survive it.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(min(num_workers, len(waiting)), mp_context=context) as pool:
            for future in [pool.submit(run_job, function, job) for job in waiting]:
                future.result()


def run_job(function: JobFunction, job: Job) -> None:
    """Run one job; its folder appears whole."""
    with replace_folder(job.output) as folder:
        function(job, folder)


def _run_on_ray(function: JobFunction, jobs: Sequence[Job], num_workers: int | None) -> None:
    try:
        import ray
    except ImportError as error:
        raise MissingDependencyError("`engine='ray'` needs Ray; run `pip install 'seekrec[ray]'`.") from error
    if not ray.is_initialized():
        ray.init(log_to_driver=False)
    task = ray.remote(run_job).options(num_cpus=1, max_retries=_MAX_RETRIES)
    limit = len(jobs) if num_workers is None else num_workers
    running = [task.remote(function, job) for job in jobs[:limit]]
    for job in jobs[limit:]:
        done, running = ray.wait(running, num_returns=1)
        ray.get(done)
        running.append(task.remote(function, job))
    ray.get(running)


__all__ = ["ENGINES", "Engine", "Job", "JsonObject", "run_job", "run_partitions"]
