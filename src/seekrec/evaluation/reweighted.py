# SPDX-License-Identifier: Apache-2.0
"""Text search reweighted by a recommender: a cheap and strong baseline for joint models.

Every choice is made on validation: the text scorer, how the two scores are combined, and the weight. With `p` the
recommender's softmax over all items, and `max` a request's highest text score:

- `sum`: `text + weight * log p`
- `product`: `(text / max + 0.001) * p ** weight`, ordered by its logarithm. The small constant lets the recommender
  order the items that match no word.

The softmax's normaliser is the same for all items of a request, so logits serve as `log p`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import numpy as np
import pyarrow as pa
from tqdm.auto import tqdm

from seekrec.errors import DataError
from seekrec.evaluation.baselines import BM25, Float32Array
from seekrec.evaluation.evaluator import cut_scores
from seekrec.evaluation.metrics import SELECTION_METRIC, FloatArray, metric_values, ranks_from_scores
from seekrec.evaluation.protocols import EvaluationCases, RankingProtocol, Scorer
from seekrec.events.checks import check_choice
from seekrec.events.matching import TEXT_FIELDS
from seekrec.schema import SEARCH, Behavior, Request

CombinationForm = Literal["sum", "product"]

# From "the recommender breaks ties of the text" to "the recommender decides", for cosines (which differ by hundredths)
# and for BM25 scores (by units) alike.
DEFAULT_WEIGHTS = (0.0, *(round(float(weight), 4) for weight in np.geomspace(0.003, 10, 12)))

_SMALLEST_MATCH = 1e-3

# Pairs (k1, b) and fields that ReweightedBM25 chooses from.
_BM25_SETTINGS = ((1.5, 0.75), (0.5, 0.75), (0.5, 0.3), (0.0, 0.0))
_BM25_FIELDS = (TEXT_FIELDS, ("title", "categories"), ("categories",))

# Scores in a block of the grid search: it goes over a block hundreds of times, so a block should stay in the cache.
_BLOCK_CELLS = 300_000


class ReweightedText:
    """A text scorer times a recommender, of searches; or, of recommendations, another recommender times it.

    Itself a scorer, so it can be the text scorer of another: BM25 with dense text first, then with SASRec.

    Args:
        texts (`Mapping[str, Scorer]` or `Scorer`): Text scorers to choose from, by name.
        prior ([`Scorer`]): The recommender, such as [`SASRecScorer`].
        text (`str`, *optional*): Which text scorer; the first by default.
        form (`str`): `"sum"` or `"product"`.
        weight (`float`): Weight of the recommender, at least 0.
        behavior (`str`): What is answered; all scorers answer it.

    Raises:
        DataError: If there is no text scorer.
        ConfigurationError: If `text` or `form` is not one of its choices.
    """

    def __init__(
        self,
        texts: Mapping[str, Scorer] | Scorer,
        prior: Scorer,
        *,
        text: str | None = None,
        form: CombinationForm = "product",
        weight: float = 0.1,
        behavior: Behavior = SEARCH,
    ) -> None:
        self.behaviors: tuple[Behavior, ...] = (behavior,)
        self.texts: dict[str, Scorer] = dict(texts) if isinstance(texts, Mapping) else {type(texts).__name__: texts}
        if not self.texts:
            raise DataError("`texts` is empty; pass at least one text scorer.")
        self.prior = prior
        self.text = next(iter(self.texts)) if text is None else text
        check_choice("text", self.text, self.texts)
        check_choice("form", form, get_args(CombinationForm))
        self.form: CombinationForm = form
        self.weight = weight
        self.details: dict[str, object] = {"text": self.text, "form": self.form, "weight": self.weight}
        self.by_protocol: dict[RankingProtocol, ReweightedText] = {}

    def fit(
        self,
        cases: Mapping[RankingProtocol, EvaluationCases],
        *,
        weights: Sequence[float] = DEFAULT_WEIGHTS,
        forms: Sequence[CombinationForm] = get_args(CombinationForm),
        show_progress: bool = True,
    ) -> ReweightedText:
        """Choose text scorer, form and weight by NDCG@10 of validation cases; the first best of the grid wins.

        Each protocol gets its own choice, as each is another question: among negatives that BM25 ranks best, what BM25
        says counts less.

        Args:
            cases (`Mapping`): By protocol, as [`Tuning`] makes them: those of all are among those of the first, whose
                choice is this object's.
            weights (`Sequence[float]`): Weights of the grid.
            forms (`Sequence[str]`): Forms of the grid.
            show_progress (`bool`): Show a progress bar.

        Returns:
            `ReweightedText`: This object; `details` contains the choice, its validation result, and the grid's best by
                text scorer and form. `by_protocol` contains a system for each protocol.
        """
        first = next(iter(cases.values()))
        grid = [(text, form, weight) for text in self.texts for form in forms for weight in weights]
        ranks = {name: np.empty((len(grid), len(own), 2)) for name, own in cases.items()}
        size = max(16, min(256, _BLOCK_CELLS // first.num_items))
        with tqdm(total=len(first), desc="Choosing text scorer and weight", disable=not show_progress) as bar:
            for begin in range(0, len(first), size):
                requests, numbers = first.requests[begin : begin + size], first.case_numbers[begin : begin + size]
                prior = np.asarray(self.prior.score_all(requests), dtype=np.float32)
                blocks = {name: np.flatnonzero(np.isin(own.case_numbers, numbers)) for name, own in cases.items()}
                rows = {name: np.searchsorted(numbers, cases[name].case_numbers[own]) for name, own in blocks.items()}
                priors = {name: cut_scores(prior[rows[name]], cases[name], own) for name, own in blocks.items()}
                points = iter(range(len(grid)))
                for text in self.texts:
                    scores = self._text_scores(text, requests)
                    for form in forms:
                        prepared, here = _prepare(scores, form), [next(points) for _ in weights]
                        for name, block in blocks.items():
                            # What is ruled out stays -inf, whatever is added.
                            own, _ = cut_scores(prepared[rows[name]], cases[name], block)
                            own_prior, targets = priors[name]
                            for point, weight in zip(here, weights, strict=True):
                                combined = _add_prior(own, own_prior, weight)
                                ranks[name][point, block] = ranks_from_scores(combined, targets)
                bar.update(len(requests))
        self.by_protocol = {name: self._choose(grid, own) for name, own in ranks.items()}
        best = next(iter(self.by_protocol.values()))
        self.texts, self.text, self.form, self.weight = best.texts, best.text, best.form, best.weight
        self.details = best.details
        return self

    def _choose(self, grid: Sequence[tuple[str, CombinationForm, float]], ranks: FloatArray) -> ReweightedText:
        """Return the best of a grid, by the ranks of each of its points."""
        values = [float(metric_values(row, SELECTION_METRIC).mean()) for row in ranks]
        best = int(np.argmax(values))
        text, form, weight = grid[best]
        # Without the other scorers, which are large and of no more use.
        chosen = ReweightedText(
            {text: self.texts[text]}, self.prior, form=form, weight=weight, behavior=self.behaviors[0]
        )
        best_by_choice: dict[str, dict[str, float]] = {}
        for (text, form, weight), value in zip(grid, values, strict=True):
            choice = f"{text}, {form}"
            if choice not in best_by_choice or value > best_by_choice[choice][SELECTION_METRIC]:
                best_by_choice[choice] = {"weight": weight, SELECTION_METRIC: value}
        validation = {SELECTION_METRIC: values[best], "num_cases": ranks.shape[1], "best_by_choice": best_by_choice}
        chosen.details["validation"] = validation
        return chosen

    def score_all(self, requests: Sequence[Request]) -> Float32Array:
        """Combine the two scores; see [`Scorer`]."""
        prior = np.asarray(self.prior.score_all(requests), dtype=np.float32)
        return combine_scores(self._text_scores(self.text, requests), prior, self.form, self.weight)

    def _text_scores(self, name: str, requests: Sequence[Request]) -> Float32Array:
        scores = np.asarray(self.texts[name].score_all(requests), dtype=np.float32)
        if not np.isfinite(scores).all():
            raise DataError(
                f"Text scorer {name!r} returned a score that is not finite; scores are combined, so all must be "
                "finite."
            )
        return scores


# Identical to ReweightedText except: the text scorers are BM25 over the items, with several settings to choose from.
class ReweightedBM25(ReweightedText):
    """BM25 reweighted by a recommender. Searches only.

    The settings of BM25 run from the usual one to "which words of the query occur at all" (`k1` 0), which leaves most
    of the order to the recommender. The fields run from all text to category names alone: where queries are made from
    categories, that index knows how they were made, and few baselines are stronger. Fields in which no item has a word
    are left out.

    Args:
        items (`pyarrow.Table`): Rows of `ITEM_FEATURES` in the order of the catalogue.
        prior ([`Scorer`]): The recommender.

    Raises:
        DataError: If no item has a word.
    """

    def __init__(self, items: pa.Table, prior: Scorer) -> None:
        texts: dict[str, Scorer] = {}
        for fields in _BM25_FIELDS:
            # An item table without categories (or titles) is no reason to refuse the other sets.
            try:
                texts.update(BM25.variants(items, _BM25_SETTINGS, fields))
            except DataError:
                continue
        super().__init__(texts, prior)


def combine_scores(text: np.ndarray, prior: np.ndarray, form: CombinationForm, weight: float) -> Float32Array:
    """Combine scores of text and recommender; the forms stand in the module's docstring.

    Args:
        text (`np.ndarray`): Finite floats of shape `(num_requests, num_items)`.
        prior (`np.ndarray`): Logits of the same shape.
        form (`str`): `"sum"` or `"product"`.
        weight (`float`): Weight of the recommender; 0 leaves it out.

    Returns:
        `np.ndarray`: A new float32 array of the same shape; of a product the logarithm.

    Example:
        >>> text, logits = np.array([[4.0, 2.0]]), np.array([[0.0, 1.0]])
        >>> combine_scores(text, logits, "sum", 0.5).tolist()
        [[4.0, 2.5]]
    """
    return _add_prior(_prepare(text, form), np.asarray(prior, dtype=np.float32), weight)


def _prepare(text: np.ndarray, form: CombinationForm) -> Float32Array:
    """Return the text's part of the combined score, a new array."""
    if form == "sum":
        return np.array(text, dtype=np.float32)
    highest = np.maximum(text.max(axis=1, keepdims=True), 1e-9)
    return np.log(np.maximum(text / highest, 0) + _SMALLEST_MATCH).astype(np.float32)


def _add_prior(prepared: Float32Array, prior: Float32Array, weight: float) -> Float32Array:
    if weight == 0:  # not 0 * prior: an item that the prior rules out would become NaN
        return prepared
    weighted = prior * np.float32(weight)
    weighted += prepared
    return weighted
