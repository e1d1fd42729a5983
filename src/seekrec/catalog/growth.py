# SPDX-License-Identifier: Apache-2.0
"""Add items to a catalogue: compute their missing vectors, and find free identifiers for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypedDict

import numpy as np
import pyarrow as pa

from seekrec.catalog.checks import check_new_items, check_vectors
from seekrec.catalog.parts import CatalogParts
from seekrec.errors import CatalogError
from seekrec.identifiers.assign import assign_unique, prefix_groups
from seekrec.identifiers.configuration_dual_rqvae import IdentifierConfig
from seekrec.identifiers.modeling_identifier import IdentifierModel
from seekrec.schema import View, item_texts
from seekrec.util.growing import append_rows

# A ridge regression of a few hundred numbers on a few hundred is settled by this many rows.
_MAX_RIDGE_ROWS = 20_000
# Penalties that are tried, as shares of the largest eigenvalue; the best by generalized cross-validation is kept.
_RIDGE_PENALTIES = 10.0 ** np.arange(-6, 1, 0.5)


class GrownParts(TypedDict):
    """The fields of [`CatalogParts`] that change when items are added."""

    items: pa.Table
    codes: Mapping[View, np.ndarray]
    embeddings: Mapping[View, np.ndarray]
    is_removed: np.ndarray
    is_predicted: np.ndarray


def grow(
    catalog: CatalogParts,
    items: pa.Table | Sequence[Mapping[str, object]],
    semantic: np.ndarray | None,
    collaborative: np.ndarray | None,
) -> GrownParts:
    """Return the parts of a catalogue with more items; see [`Catalog.add_items`]."""
    model, levels = catalog.identifier_model, (catalog.num_shared_levels, catalog.codebook_size)
    if model is None and catalog.codes:
        raise CatalogError(
            "This catalogue has no identifier model, so it cannot give new items identifiers; build it with "
            "`identifier_model=`."
        )
    if semantic is None and not catalog.encoder_is_trusted and "semantic" in {*catalog.embeddings, *catalog.codes}:
        raise CatalogError(
            f"The catalogue names the text encoder {catalog.semantic_encoder_name!r}, but an encoder is not loaded "
            "just because a file names it. Pass `semantic_embeddings`, or load the catalogue with `semantic_encoder=` "
            "and the path or name of an encoder you trust."
        )
    new = check_new_items(items, catalog.items.schema, catalog.id_map, catalog.is_removed, semantic is None)
    vectors = vectors_of_new_items(
        new,
        semantic,
        collaborative,
        embeddings=catalog.embeddings,
        is_measured=catalog.live & ~catalog.is_predicted,
        config=None if model is None else model.config,
        encoder_name=catalog.semantic_encoder_name,
    )
    is_predicted = collaborative is None and "collaborative" in vectors
    codes = {} if model is None else place_items(model, vectors, catalog.codes, *levels)
    return {
        "items": pa.concat_tables([catalog.items, new]).combine_chunks(),
        "codes": {view: np.concatenate([catalog.codes[view], codes[view]]) for view in catalog.views},
        "embeddings": {view: append_rows(old, vectors[view]) for view, old in catalog.embeddings.items()},
        "is_removed": np.concatenate([catalog.is_removed, np.zeros(new.num_rows, dtype=bool)]),
        "is_predicted": np.concatenate([catalog.is_predicted, np.full(new.num_rows, is_predicted)]),
    }


def vectors_of_new_items(
    items: pa.Table,
    semantic: np.ndarray | None,
    collaborative: np.ndarray | None,
    *,
    embeddings: Mapping[View, np.ndarray],
    is_measured: np.ndarray,
    config: IdentifierConfig | None,
    encoder_name: str | None,
) -> dict[View, np.ndarray]:
    """Check the vectors given for new items; embed or predict the missing ones.

    Args:
        items (`pyarrow.Table`): The new items.
        semantic (`np.ndarray`, *optional*): Floats of shape `(num_new, dimension)`.
        collaborative (`np.ndarray`, *optional*): Floats of shape `(num_new, dimension)`.
        embeddings (`Mapping[str, np.ndarray]`): The catalogue's vectors by view, float32.
        is_measured (`np.ndarray`): The items whose collaborative vector may be learned from, bool of shape `(N,)`.
        config (*optional*): The identifier model's configuration: `views`, `semantic_size`, `collaborative_size`.
        encoder_name (`str`, *optional*): Encoder of text; `None` is the default encoder.

    Returns:
        `dict[str, np.ndarray]`: float32 of shape `(num_new, dimension)` for each view that the identifier model or
        the catalogue's embeddings need.

    Raises:
        CatalogError: If a given vector does not fit or a missing one cannot be predicted.
    """
    used = set(embeddings) if config is None else set(config.views) | set(embeddings)
    predicts = collaborative is None and "collaborative" in used
    if semantic is None and ("semantic" in used or predicts):
        # Here, because the encoder brings sentence-transformers along, which takes seconds to import.
        from seekrec.embeddings import embed_texts

        semantic = embed_texts(item_texts(items), name_or_path=encoder_name)
    widths: dict[View, int | None] = {"semantic": None, "collaborative": None}
    if config is not None:
        widths = {"semantic": config.semantic_size, "collaborative": config.collaborative_size}
    widths |= {view: known.shape[1] for view, known in embeddings.items()}
    vectors: dict[View, np.ndarray] = {}
    if semantic is not None:
        vectors["semantic"] = check_vectors("semantic_embeddings", semantic, items.num_rows, widths["semantic"])
    if predicts:
        collaborative = predict_by_ridge(embeddings, is_measured, vectors["semantic"])
    if collaborative is not None:
        vectors["collaborative"] = check_vectors(
            "collaborative", collaborative, items.num_rows, widths["collaborative"]
        )
    return vectors


def predict_by_ridge(
    embeddings: Mapping[View, np.ndarray], is_measured: np.ndarray, semantic: np.ndarray
) -> np.ndarray:
    """Predict collaborative vectors from semantic ones.

    Least squares with a squared penalty on the weights and none on the intercept, in closed form through the
    eigenvectors of the covariance; the penalty is the one with the least generalized cross-validation error
    `RSS / (n - df)^2`. At most 20,000 items, evenly spaced over the catalogue, are fitted.

    Args:
        embeddings (`Mapping[str, np.ndarray]`): Both views, float32 of shape `(N, dimension)`.
        is_measured (`np.ndarray`): The items to learn from, bool of shape `(N,)`.
        semantic (`np.ndarray`): float32 of shape `(num_new, semantic dimension)`.

    Returns:
        `np.ndarray`: float32 of shape `(num_new, collaborative dimension)`.

    Raises:
        CatalogError: If a view has no vectors or there are fewer than two items to learn from.
    """
    if "semantic" not in embeddings or "collaborative" not in embeddings:
        raise CatalogError(
            "A new item's collaborative vector is predicted from the catalogue's embeddings, which must exist for "
            f"both views, but exist for {', '.join(embeddings) or 'none'}; pass `collaborative=`."
        )
    rows = np.flatnonzero(is_measured)
    if len(rows) < 2:
        raise CatalogError(
            f"{len(rows)} live items have a collaborative vector of their own, which is too few to predict one from; "
            "pass `collaborative=`."
        )
    rows = rows[:: -(-len(rows) // _MAX_RIDGE_ROWS)]
    inputs, targets = embeddings["semantic"][rows], embeddings["collaborative"][rows]
    input_mean, target_mean = inputs.mean(axis=0), targets.mean(axis=0)
    inputs, targets = inputs - input_mean, targets - target_mean
    eigenvalues, directions = np.linalg.eigh((inputs.T @ inputs).astype(np.float64))
    eigenvalues = np.maximum(eigenvalues, 0.0)
    projected = directions.T @ (inputs.T @ targets).astype(np.float64)  # (semantic dimension, collaborative dimension)
    energy, total = np.square(projected).sum(axis=1), float(np.square(targets, dtype=np.float64).sum())
    if eigenvalues[-1] == 0.0:  # every semantic vector is the same: only the mean can be predicted
        return np.repeat(target_mean[None], len(semantic), axis=0)
    best = (np.inf, 0.0)
    for penalty in _RIDGE_PENALTIES * eigenvalues[-1]:
        shrunk = eigenvalues + penalty
        freedom = 1.0 + (eigenvalues / shrunk).sum()
        residual = max(total - (energy * (shrunk + penalty) / np.square(shrunk)).sum(), 0.0)
        if freedom < len(rows):
            best = min(best, (residual / (len(rows) - freedom) ** 2, penalty))
    penalty = best[1] or eigenvalues[-1]
    weights = directions @ (projected / (eigenvalues + penalty)[:, None])
    return np.asarray((semantic - input_mean) @ weights + target_mean, dtype=np.float32)


def place_items(
    model: IdentifierModel,
    vectors: Mapping[View, np.ndarray],
    codes: Mapping[View, np.ndarray],
    num_shared_levels: int,
    codebook_size: int,
) -> dict[View, np.ndarray]:
    """Assign identifiers that no item has to new items, at the least total cost; old identifiers stay as they are.

    Args:
        model (`IdentifierModel`): The learner the old codes come from.
        vectors (`Mapping[str, np.ndarray]`): The new items' vectors, float32 of shape `(num_new, dimension)`.
        codes (`Mapping[str, np.ndarray]`): All old identifiers by view, int32 of shape `(N, num_levels)`.
        num_shared_levels (`int`): Levels in which the views must agree.
        codebook_size (`int`): Codes at each level.

    Returns:
        `dict[str, np.ndarray]`: int32 of shape `(num_new, num_levels)` by view.

    Raises:
        IdentifierCollisionError: If there are more items than identifiers.
    """
    encoded = model.encode(vectors.get("semantic"), vectors.get("collaborative"))
    new = {view: encoded.codes[view] for view in codes}
    nearby = np.any([_can_matter(codes[view], new[view], codebook_size) for view in codes], axis=0)
    result = assign_unique(
        new,
        encoded.costs,
        codebook_size=codebook_size,
        num_shared_levels=num_shared_levels,
        taken={view: old[nearby] for view, old in codes.items()},
    )
    return {view: own.astype(np.int32) for view, own in result.codes.items()}


def _can_matter(old: np.ndarray, new: np.ndarray, codebook_size: int) -> np.ndarray:
    """Mark the old identifiers, of shape `(N, num_levels)`, that new ones could collide with.

    No item has to leave a prefix that has room for all its items. So with the longest prefixes that all have room, the
    old identifiers that share none of theirs with a new one can be left out, which are most of them.
    """
    joint, num_levels = np.concatenate([old, new]), old.shape[1]
    for length in range(num_levels - 1, 0, -1):
        groups = prefix_groups(joint, length)
        counts = np.bincount(groups)
        if counts.max() <= codebook_size ** (num_levels - length):
            has_new = np.zeros(len(counts), dtype=bool)
            has_new[groups[len(old) :]] = True
            return np.asarray(has_new[groups[: len(old)]])
    return np.ones(len(old), dtype=bool)
