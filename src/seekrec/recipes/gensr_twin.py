# SPDX-License-Identifier: Apache-2.0
"""The analyses of GenSR's paper against a discriminative twin: figures 3 and 4, and table 5.

Both are trained on the same batches (see `training.two_heads`); their final states for test candidates are compared:
how informative they are about the user's choice (table 5), and how well they separate the two tasks (figure 3).
"""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import gaussian_kde
from sklearn.manifold import TSNE
from sklearn.neighbors import NearestNeighbors

from seekrec.evaluation import build_cases
from seekrec.evaluation.metrics import Interval, bootstrap_intervals, paired_bootstrap
from seekrec.evaluation.mutual_information import mutual_information, resampled_mean
from seekrec.models import GenSRForConditionalGeneration
from seekrec.recipes.arguments import SPLIT_SEED
from seekrec.recipes.drawing import panels
from seekrec.recipes.gensr import GenSRRecipe, make_gensr_trainer, set_collaborative
from seekrec.recipes.paper_claims import Finding, Number, verdict_of
from seekrec.recipes.papers import Exhibit
from seekrec.schema import BEHAVIORS
from seekrec.training.two_heads import AnswerStates, TwoHeadedTwin, train_with_twin
from seekrec.util.files import replace_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes

logger = logging.getLogger(__name__)

PAIR = ("GenSR", "two heads")
MAX_CASES = 500  # test cases of each task
NUM_STATE_NEIGHBORS = 10
NUM_ESTIMATES = 8  # of mutual information: one depends on the network's start as much as on the cases

FloatArray = npt.NDArray[np.float64]


class PairStates(NamedTuple):
    """What is kept of a GenSR and its twin.

    Args:
        steps (`np.ndarray`): int64 `(num_looks,)`: steps of training at which gradients were compared.
        cosines (`np.ndarray`): float64 `(num_looks, 2)`: of both models; see `training.two_heads`.
        tasks (`np.ndarray`): int64 `(num_cases,)`: number of the task of each test case.
        inputs (`np.ndarray`): float32 `(num_cases, size)`: mean text vector of the history, next to that of the
            target.
        states (`np.ndarray`): float32 `(2, num_cases, 2, d_model)`: of both models, of the target and of an item drawn
            uniformly, the state that the answer is made from.
    """

    steps: npt.NDArray[np.int64]
    cosines: FloatArray
    tasks: npt.NDArray[np.int64]
    inputs: npt.NDArray[np.float32]
    states: npt.NDArray[np.float32]


def read_pair(path: Path) -> PairStates:
    """Read what [`train_pair`] kept."""
    with np.load(path, allow_pickle=False) as arrays:
        return PairStates(**{name: arrays[name] for name in PairStates._fields})


def train_pair(recipe: GenSRRecipe, path: Path) -> PairStates:
    """Train a GenSR and its twin as the recipe says, and keep their states.

    Args:
        recipe ([`GenSRRecipe`]): It has run up to the corpus.
        path (`Path`): Where they are kept, a file `.npz`.
    """
    model = recipe.make_model()
    model.config.contrast_weight = 0.0
    twin = TwoHeadedTwin(model, recipe.processor)
    trainer = make_gensr_trainer(
        model, recipe.processor, recipe.split, recipe.requests, recipe.asked, recipe.training, evaluate_model=None
    )
    loader = trainer.get_train_dataloader()
    num_steps = max(1, math.ceil(len(loader) * float(recipe.training.num_train_epochs)))
    logger.info("GenSR and its two-headed twin: %d steps", num_steps)
    conflict = train_with_twin(model, twin, loader, recipe.training, num_steps=num_steps)
    for one in (model, twin.states.body):
        set_collaborative(one, recipe.source.answering)
    found = PairStates(conflict.steps, conflict.cosines, *_test_states(recipe, model, twin))
    with replace_file(path) as temporary:
        np.savez_compressed(temporary, **found._asdict())
    return found


@torch.no_grad()
def _test_states(
    recipe: GenSRRecipe, model: GenSRForConditionalGeneration, twin: TwoHeadedTwin
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return tasks, inputs and states of test cases; see [`PairStates`]."""
    own = AnswerStates(model).eval()
    texts = recipe.catalog.embeddings["semantic"]
    tasks, inputs, states = [], [], []
    for task, behavior in enumerate(BEHAVIORS):
        cases = build_cases(
            recipe.split,
            recipe.catalog.id_map,
            behavior=behavior,
            protocol="uniform",
            num_negatives=1,
            max_cases=MAX_CASES,
            seed=SPLIT_SEED,
        )
        rows = np.zeros((0, 2), np.int64) if cases.candidate_rows is None else cases.candidate_rows
        negatives = np.where(rows[:, 0] == cases.target_rows, rows[:, 1], rows[:, 0])
        for begin in range(0, len(cases), 64):
            asked = cases.requests[begin : begin + 64]
            chosen = np.stack([cases.target_rows, negatives], axis=1)[begin : begin + 64]
            ids = [recipe.catalog.id_map.convert_to_ids(row) for row in chosen]
            batch = dict(recipe.processor(asked, candidates=ids))
            states.append(np.stack([own(batch).numpy(), twin.answer_states(batch).numpy()]))
            for request, target in zip(asked, chosen[:, 0], strict=True):
                known = [event.item_id for event in request.history if event.item_id is not None]
                history = texts[recipe.catalog.id_map.convert_to_rows(known)] if known else np.zeros_like(texts[:1])
                inputs.append(np.concatenate([history.mean(0), texts[target]]).astype(np.float32))
            tasks += [task] * len(asked)
    return np.array(tasks, np.int64), np.stack(inputs), np.concatenate(states, axis=1)


def measure_conflict(exhibit: Exhibit, pair: PairStates, picture: Path) -> tuple[list[Number], list[Finding]]:
    """Compare the cosines of the gradients of both tasks, and draw them over training (figure 4).

    Args:
        exhibit ([`Exhibit`]): The exhibit.
        pair ([`PairStates`]): What was kept of both models.
        picture (`Path`): PNG file to write.
    """
    values = {
        metric: [function(column) for column in pair.cosines.T]
        for metric, function in (("cosine", lambda one: one), ("share above 0", lambda one: (one > 0).astype(float)))
    }
    with panels(picture, 1, 1, size=(6.4, 3.8)) as (panel,):
        for name, column in zip(PAIR, pair.cosines.T, strict=True):
            panel.plot(pair.steps, column, marker="o", markersize=3, linewidth=1.2, label=name)
        panel.axhline(0, linewidth=0.7, color="0.4")
        panel.set_xlabel("step of training")
        panel.set_ylabel("cosine of the gradients of\nsearch and recommendation")
        panel.legend()
    return _per_case(exhibit, values)


def measure_space(exhibit: Exhibit, pair: PairStates, picture: Path) -> tuple[list[Number], list[Finding]]:
    """Measure how far the states of the two tasks are apart, and draw inputs and states (figure 3).

    The measure is the share of a state's nearest neighbours that are of its own task: where tasks overlap it is their
    share of the cases, where they are apart it is 1.

    Args:
        exhibit ([`Exhibit`]): The exhibit.
        pair ([`PairStates`]): What was kept of both models.
        picture (`Path`): PNG file to write.
    """
    targets = pair.states[:, :, 0]
    values = {"own neighbors": [own_neighbors(states, pair.tasks) for states in targets]}
    with panels(picture, 1, 3, size=(4.4, 4.0)) as axes:
        _draw_densities(axes[0], pair)
        for panel, states, name in zip(axes[1:], (targets[1], targets[0]), ("two heads", "GenSR"), strict=True):
            places = _two_components(states)
            for task, behavior in enumerate(BEHAVIORS):
                across, up = places[pair.tasks == task].T
                panel.scatter(across, up, s=6, alpha=0.6, label=behavior)
            panel.set_title(f"states of {name} (PCA)", fontsize=10)
            panel.set_xlabel("first component")
            panel.set_ylabel("second component")
            panel.legend(fontsize=8)
    return _per_case(exhibit, values)


def measure_information(exhibit: Exhibit, pair: PairStates) -> tuple[list[Number], list[Finding]]:
    """Estimate how many bits the states say of what the user took, by MINE (table 5).

    A case is a target, or an item drawn uniformly, as often; so one bit is all there is to know. Stated are means of
    eight estimates, which begin elsewhere; intervals resample cases and estimates.

    Args:
        exhibit ([`Exhibit`]): The exhibit.
        pair ([`PairStates`]): What was kept of both models.
    """
    numbers, findings = [], []
    for task, behavior in enumerate(BEHAVIORS):
        chosen = pair.tasks == task
        bits, resampled = [], []
        for name, states in zip(PAIR, pair.states, strict=True):
            vectors = states[chosen].reshape(-1, states.shape[-1])
            cases = np.arange(len(vectors))
            found = [
                mutual_information(vectors, 1 - cases % 2, cases // 2, seed=seed) for seed in range(NUM_ESTIMATES)
            ]
            bits.append(float(np.mean([one.bits for one in found])))
            resampled.append(resampled_mean(found))
            low, high = np.quantile(resampled[-1], (0.025, 0.975)).tolist()
            numbers.append(Number(exhibit.name, name, behavior, "", "bits", bits[-1], low, high, len(vectors)))
        low, high = np.quantile(resampled[0] - resampled[1], (0.025, 0.975)).tolist()
        findings += [
            _finding(exhibit, says, behavior, "bits", bits[0] - bits[1], low, high, int(chosen.sum()))
            for says in (claim.says for claim in exhibit.claims)
        ]
    return numbers, findings


def own_neighbors(states: npt.NDArray[np.float32], tasks: npt.NDArray[np.int64]) -> FloatArray:
    """Return for each state the share of its nearest neighbours that are of its own task, float64 `(num_cases,)`.

    Args:
        states (`np.ndarray`): float32 `(num_cases, size)`.
        tasks (`np.ndarray`): int64 `(num_cases,)`.
    """
    number = min(NUM_STATE_NEIGHBORS, len(states) - 1)
    places = NearestNeighbors(n_neighbors=number).fit(states).kneighbors(return_distance=False)
    shares: FloatArray = (tasks[places] == tasks[:, None]).mean(1)
    return shares


def _per_case(exhibit: Exhibit, values: dict[str, list[FloatArray]]) -> tuple[list[Number], list[Finding]]:
    """Return the means of both models with intervals, and their paired difference for each claim."""
    numbers, findings = [], []
    for metric, pair in values.items():
        for name, own in zip(PAIR, pair, strict=True):
            ((low, high),) = bootstrap_intervals({metric: own}).values()
            numbers.append(Number(exhibit.name, name, "", "", metric, float(own.mean()), low, high, len(own)))
    for claim in exhibit.claims:
        metric = claim.metric or exhibit.decides
        first, second = values[metric]
        found = paired_bootstrap(first, second)
        findings.append(_finding(exhibit, claim.says, "", metric, found.difference, *found.interval, len(first)))
    return numbers, findings


def _finding(
    exhibit: Exhibit, says: str, behavior: str, metric: str, difference: float, low: float, high: float, cases: int
) -> Finding:
    verdict = verdict_of(difference, Interval(low, high))
    return Finding(exhibit.name, says, *PAIR, behavior, "", metric, difference, low, high, cases, verdict)


def _draw_densities(panel: Axes, pair: PairStates) -> None:
    """Draw contours of the density of each task's inputs, in two dimensions by t-SNE."""
    places = TSNE(perplexity=min(30.0, (len(pair.inputs) - 1) / 3), random_state=0).fit_transform(pair.inputs)
    low, high = places.min(0), places.max(0)
    grid = np.stack(np.meshgrid(*np.linspace(low, high, 60).T))
    for task, behavior in enumerate(BEHAVIORS):
        density = gaussian_kde(places[pair.tasks == task].T)(grid.reshape(2, -1)).reshape(grid.shape[1:])
        # Both are seen where they are the same, as of a log whose searches are copies of its recommendations.
        style = ("solid", "dashed")[task]
        panel.contour(*grid, density, levels=6, colors=f"C{task}", linewidths=1.0, linestyles=style)
        panel.plot([], [], color=f"C{task}", linestyle=style, label=behavior)
    panel.set_title("histories and targets (t-SNE, density)", fontsize=10)
    panel.set_xlabel("first dimension")
    panel.set_ylabel("second dimension")
    panel.legend(fontsize=8)


def _two_components(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    centered = vectors - vectors.mean(0)
    return centered @ np.linalg.svd(centered, full_matrices=False)[2][:2].T


__all__ = [
    "PAIR",
    "PairStates",
    "measure_conflict",
    "measure_information",
    "measure_space",
    "own_neighbors",
    "read_pair",
    "train_pair",
]
