# SPDX-License-Identifier: Apache-2.0
"""Training on a Ray cluster: Ray Train starts a process on each GPU or node, and connects them.

Each process runs the recipe up to its saved model, with the same ranks, data shards and checkpoints as under
accelerate; all nodes share the folder of the run. If a process is lost, the whole attempt is restarted from the last
checkpoint with as many processes. They share the remaining processors, so the global batch stays the same.
"""

from __future__ import annotations

import itertools
import logging
import math
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import cast

import torch
from transformers import AutoModel

from seekrec.errors import MissingDependencyError, SeekrecError
from seekrec.events.partitions.engines import enter_folder, start_ray
from seekrec.recipes.answering import ModelT, ProcessorT
from seekrec.recipes.compared_models import load_processor
from seekrec.recipes.plan import Plan
from seekrec.recipes.recipe import Recipe
from seekrec.recipes.record import MODEL_FOLDER
from seekrec.training.checkpoints import list_checkpoints, read_state
from seekrec.util.clock import join_run, process_seconds

# Tries in a row that may be lost without a newer checkpoint; and that may wait for places a minute each.
_MAX_LOST, _MAX_WAITS = 3, 30
# A cluster takes so long to notice that a node is gone: its health checks fail five times, three seconds apart.
_SECONDS_TO_NOTICE = 20

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Workers:
    """Processes that train together.

    Args:
        number (`int`): How many.
        num_cpus (`int`): Processors of each.
        use_gpu (`bool`): Whether each has a GPU.
    """

    number: int
    num_cpus: int
    use_gpu: bool

    @classmethod
    def choose(cls, nodes: Sequence[Mapping[str, float]], *, use_cpu: bool, has_gpu: bool) -> Workers | None:
        """Choose a process for each GPU of a cluster; where there is none, for each node.

        Args:
            nodes (`Sequence[Mapping[str, float]]`): What each node has: `"CPU"`, `"GPU"`.
            use_cpu (`bool`): Leave the GPUs alone.
            has_gpu (`bool`): Whether this process could train on one.

        Returns:
            [`Workers`], *optional*: `None` where this process would be the only one.
        """
        gpus = [] if use_cpu else [node for node in nodes if node.get("GPU", 0) >= 1]
        if gpus:
            number = sum(int(node["GPU"]) for node in gpus)
            if number == 1 and has_gpu:
                return None
            share = min(int(node.get("CPU", 0) // int(node["GPU"])) for node in gpus)
            return cls(number, max(1, share), use_gpu=True)
        working = [int(node["CPU"]) for node in nodes if node.get("CPU", 0) >= 1]
        return cls(len(working), min(working), use_gpu=False) if len(working) > 1 else None

    def fit(self, nodes: Sequence[Mapping[str, float]]) -> float:
        """Return the processors of each that the nodes which are left have room for: fewer, or a part of one.

        Args:
            nodes (`Sequence[Mapping[str, float]]`): What each node has.
        """
        working = [node["CPU"] for node in nodes if node.get("CPU", 0) > 0]
        shares = {float(self.num_cpus), *(have / count for have in working for count in range(1, self.number + 1))}
        rounded = {math.floor(share) if share >= 1 else math.floor(1000 * share) / 1000 for share in shares}
        fitting = [share for share in rounded if share and sum(have // share for have in working) >= self.number]
        return min(float(self.num_cpus), max(fitting, default=self.num_cpus))


def train_on_cluster(
    recipe: Recipe[ModelT, ProcessorT],
    make_recipe: Callable[[Sequence[str]], Recipe[ModelT, ProcessorT]],
    options: Sequence[str],
) -> None:
    """Let a recipe train on the Ray cluster, where that has more to train on than this process.

    Args:
        recipe ([`Recipe`]): The recipe, which has not run.
        make_recipe (`Callable`): Makes it from its command line; a function of a module, or a partial one.
        options (`Sequence[str]`): The command line.
    """
    workers = Workers.choose(_nodes(), use_cpu=recipe.training.use_cpu, has_gpu=torch.cuda.is_available())
    if workers is None:
        return
    # The stages are there, and processors are taken: no process asks the cluster for more.
    own = ["--engine", "local", "--stop_after", "training"]
    if not workers.use_gpu and recipe.training.ddp_backend is None:
        own += ["--ddp_backend", "gloo"]

    def train() -> ModelT:
        _train_in_processes(partial(make_recipe, [*options, *own]), workers, recipe.output_dir)
        folder = recipe.output_dir / MODEL_FOLDER
        model = cast(ModelT, AutoModel.from_pretrained(folder).eval())
        # Times of items are given back after training; where the text encoder is, this process knows.
        recipe.catalog = replace(recipe.catalog, items=model.catalog.items)
        recipe.processor = cast(ProcessorT, load_processor(folder, recipe.catalog))
        if recipe.plan is not None:
            recipe.plan = Plan.load(recipe.output_dir, recipe.plan.key) or recipe.plan
            recipe.plan.apply(recipe.training, recipe.evaluation)
        if recipe.running.max_minutes is not None:
            recipe.times = recipe.time_rankings(model)
        return model

    recipe.train_elsewhere = train


def _train_in_processes(
    make_recipe: Callable[[], Recipe[ModelT, ProcessorT]], workers: Workers, output_dir: Path
) -> None:
    """Run a recipe in several processes, up to its saved model; whatever is lost on the way, until it is there.

    Raises:
        MissingDependencyError: If Ray Train is not installed.
        SeekrecError: What a process raised.
    """
    try:
        from ray.train import ControllerError, WorkerGroupError

        # `ray.train` has them under these names, and those of its first version for whoever checks types.
        from ray.train.v2.api.config import FailureConfig, RunConfig, ScalingConfig
        from ray.train.v2.torch.torch_trainer import TorchTrainer
    except ImportError as error:
        raise MissingDependencyError(
            "Training on a cluster needs Ray Train; run `pip install 'seekrec[ray]'`."
        ) from error
    run_recipe = partial(_run_in_group, make_recipe, os.getcwd(), process_seconds())
    lost = waits = 0
    with tempfile.TemporaryDirectory(prefix=".ray-train-", dir=output_dir) as scratch:
        for attempt in itertools.count():
            resources = {"CPU": workers.fit(_nodes()), **({"GPU": 1.0} if workers.use_gpu else {})}
            logger.info("training on Ray: %d processes, each with %s", workers.number, resources)
            before = _newest_step(output_dir)
            trainer = TorchTrainer(
                run_recipe,
                scaling_config=ScalingConfig(
                    num_workers=workers.number,
                    use_gpu=workers.use_gpu,
                    resources_per_worker=resources,
                    placement_strategy="SPREAD",
                ),
                # Tries are counted here: the next one may have to do with less.
                run_config=RunConfig(
                    name=f"try-{attempt}",
                    storage_path=str(Path(scratch).resolve()),
                    failure_config=FailureConfig(max_failures=0, controller_failure_limit=0),
                ),
            )
            try:
                trainer.fit()
                return
            except WorkerGroupError as error:
                failures = [getattr(one, "_base_exc", one) for one in error.worker_failures.values()]
                for failure in failures:
                    if isinstance(failure, SeekrecError):
                        raise failure from error
                # What raises anything else would raise it again; a process that lost another has a RuntimeError.
                is_lost = any(isinstance(one, RuntimeError) or type(one).__module__ != "builtins" for one in failures)
                after = _newest_step(output_dir)
                lost = 0 if after > before else lost + 1
                if not is_lost or lost == _MAX_LOST:
                    raise
                logger.warning("A training process was lost; resuming from step %d.", after)
                time.sleep(_SECONDS_TO_NOTICE)
            except ControllerError:
                waits += 1
                if waits == _MAX_WAITS:
                    raise
                logger.warning("The cluster cannot schedule %d workers; retrying.", workers.number)


def _run_in_group(make_recipe: Callable[[], Recipe[ModelT, ProcessorT]], folder: str, seconds: float) -> None:
    """Run a recipe as one of the processes of Ray Train, which has connected them."""
    level = logging.WARNING if int(os.environ["RANK"]) else logging.INFO
    logging.basicConfig(level=level, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    enter_folder(folder)
    join_run(seconds)
    make_recipe().run()


def _nodes() -> list[Mapping[str, float]]:
    return [node["Resources"] for node in start_ray().nodes() if node["Alive"]]


def _newest_step(output_dir: Path) -> int:
    checkpoints = list_checkpoints(output_dir / "trainer")
    return max((read_state(path).get("global_step", 0) for path in checkpoints), default=0)


__all__ = ["Workers", "train_on_cluster"]
