# SPDX-License-Identifier: Apache-2.0
"""Residual k-means: identifiers without a network.

The vectors themselves take the place of DualRQVAE's latents: k-means over the concatenated views gives the shared
levels, k-means over what is left of each view its specific levels. It takes seconds and has no learning rate to
choose; it is also how DualRQVAE starts its codebooks.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits
from torch import Tensor

from seekrec.identifiers.configuration_dual_rqvae import IdentifierConfig, ResidualKMeansConfig
from seekrec.identifiers.modeling_identifier import IdentifierModel, ScaledRows, check_vectors
from seekrec.identifiers.residual_codes import LatentRows, ResidualCodebooks, squared_distances
from seekrec.schema import View
from seekrec.util.memory_maps import release_rows

# Codebooks of more items than this are found on a sample of them, by faiss, or where it is not installed in
# mini-batches. In the sample are as many a codeword as faiss looks at.
LARGE_CLUSTERING = 200_000
_SAMPLE_PER_CODE = 256
_MINI_BATCH, _MINI_BATCH_ROUNDS = 16_384, 20


class ResidualKMeans(IdentifierModel):
    """Identifiers by k-means on residuals, level by level; the interface of [`DualRQVAEModel`] without training.

    Args:
        config ([`ResidualKMeansConfig`]): Views, levels and codes.
    """

    config: ResidualKMeansConfig
    config_class = ResidualKMeansConfig

    def __init__(self, config: ResidualKMeansConfig) -> None:
        super().__init__(config)
        self.requires_grad_(False)
        self.post_init()

    def fit(
        self,
        semantic: np.ndarray | Tensor | None = None,
        collaborative: np.ndarray | Tensor | None = None,
        *,
        seed: int = 0,
        num_iterations: int = 100,
    ) -> ResidualKMeans:
        """Find the codebooks for some items.

        Args:
            semantic (`np.ndarray` or `torch.Tensor`, *optional*): float of shape `(num_items, semantic_size)`.
            collaborative (`np.ndarray` or `torch.Tensor`, *optional*): float of shape
                `(num_items, collaborative_size)`.
            seed (`int`): Where k-means starts; equal seeds give equal codebooks.
            num_iterations (`int`): The most rounds of k-means at each level.

        Returns:
            [`ResidualKMeans`]: This model.

        Raises:
            DataError: If there is no item, or a vector that is needed is missing, of the wrong shape or not finite.
        """
        vectors = check_vectors(self.config, semantic, collaborative)
        self._fit_scalers(vectors)
        self._set_codebooks(
            find_codebooks(vectors, self.latents, self.config, seed=seed, num_iterations=num_iterations)
        )
        return self

    def _latent_rows(self, vectors: Mapping[View, np.ndarray]) -> Mapping[View, LatentRows]:
        """Return what scales rows of the vectors when asked for them: as large, they are not held alongside them."""
        return {view: ScaledRows(self.scaler(view), own) for view, own in vectors.items()}


def find_codebooks(
    vectors: Mapping[View, np.ndarray],
    to_latents: Callable[[Mapping[View, np.ndarray]], dict[View, np.ndarray]],
    config: IdentifierConfig,
    *,
    seed: int,
    num_iterations: int = 100,
) -> ResidualCodebooks:
    """Find codebooks for item vectors: on all of them, or on a sample of more than `LARGE_CLUSTERING`.

    Args:
        vectors (`Mapping[str, np.ndarray]`): For each view, float32 of shape `(num_items, input size)`.
        to_latents (`Callable`): Maps vectors of some items to their latents.
        config ([`IdentifierConfig`]): Levels and codes.
        seed (`int`): Equal seeds give equal codebooks.
        num_iterations (`int`): The most rounds of k-means at each level.

    Returns:
        [`ResidualCodebooks`]: The codebooks.
    """
    num_items = len(next(iter(vectors.values())))
    is_sample = num_items > LARGE_CLUSTERING
    if is_sample:
        size = min(num_items, _SAMPLE_PER_CODE * config.codebook_size)
        rows = np.sort(np.random.default_rng(seed).choice(num_items, size, replace=False))
        whole, vectors = vectors, {view: own[rows] for view, own in vectors.items()}
        for own in whole.values():
            release_rows(own)
    latents = to_latents(vectors)
    return fit_codebooks(latents, config, seed=seed, num_iterations=num_iterations, is_sample=is_sample)


def fit_codebooks(
    latents: Mapping[View, np.ndarray],
    config: IdentifierConfig,
    *,
    seed: int,
    num_iterations: int = 100,
    is_sample: bool = False,
) -> ResidualCodebooks:
    """Find codebooks for latent vectors by k-means over all of them, level by level on what is left.

    Args:
        latents (`Mapping[str, np.ndarray]`): For each view, float32 of shape `(num_items, latent size)`, at least one
            item.
        config ([`IdentifierConfig`]): Levels and codes.
        seed (`int`): Equal seeds give equal codebooks.
        num_iterations (`int`): The most rounds of k-means at each level.
        is_sample (`bool`): Whether they are drawn from so many that k-means is to be quick.

    Returns:
        [`ResidualCodebooks`]: The codebooks.
    """
    fit_levels = partial(_fit_levels, seed=seed, num_iterations=num_iterations, is_sample=is_sample)
    residual = np.concatenate(list(latents.values()), axis=1)
    shared, residual = fit_levels(residual, config.num_shared_levels, config.codebook_size)
    specific: dict[View, np.ndarray] = {}
    start = 0
    for view, own in latents.items():
        columns = residual[:, start : start + own.shape[1]]
        specific[view], _ = fit_levels(columns, config.num_specific_levels, config.codebook_size)
        start += own.shape[1]
    return ResidualCodebooks(shared, specific)


def _fit_levels(
    residual: np.ndarray, num_levels: int, codebook_size: int, *, seed: int, num_iterations: int, is_sample: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Find the codebooks `(num_levels, codebook_size, size)` of one stack; return them and what they leave over."""
    codebooks = np.zeros((num_levels, codebook_size, residual.shape[1]), np.float32)
    find = _large_centers if is_sample else kmeans_centers
    for level in range(num_levels):
        codebooks[level] = find(residual, codebook_size, seed=seed + level, num_iterations=num_iterations)
        residual = _leave_over(residual, codebooks[level])
    return codebooks, residual


def _leave_over(residual: np.ndarray, codebook: np.ndarray) -> np.ndarray:
    """Return what the nearest codewords leave over; the distances of a block of points exist at once."""
    left = np.empty_like(residual)
    for start in range(0, len(residual), LARGE_CLUSTERING):
        own = residual[start : start + LARGE_CLUSTERING]
        left[start : start + len(own)] = own - codebook[squared_distances(own, codebook).argmin(axis=1)]
    return left


def kmeans_centers(points: np.ndarray, num_centers: int, *, seed: int, num_iterations: int = 100) -> np.ndarray:
    """Find k-means centres.

    Up to `LARGE_CLUSTERING` points scikit-learn looks at all of them in every round. More are clustered by faiss, on
    256 points a centre that it draws, or where faiss is not installed by scikit-learn in mini-batches.

    Args:
        points (`np.ndarray`): float32 of shape `(num_points, size)`, at least one.
        num_centers (`int`): How many centres.
        seed (`int`): Equal seeds give equal centres.
        num_iterations (`int`): The most rounds.

    Returns:
        `np.ndarray`: float32 of shape `(num_centers, size)`. With fewer distinct points than centres, centres repeat.
    """
    if len(points) > LARGE_CLUSTERING:
        return _large_centers(points, num_centers, seed=seed, num_iterations=num_iterations)
    kmeans = KMeans(min(num_centers, len(points)), n_init=1, max_iter=num_iterations, random_state=seed)
    # Threads add partial sums in the order in which they end; one thread gives the same bits every time.
    with threadpool_limits(1, user_api="openmp"), warnings.catch_warnings():
        # "Fewer distinct points than clusters": repeated centres are what we promise then.
        warnings.simplefilter("ignore", ConvergenceWarning)
        centers = kmeans.fit(np.ascontiguousarray(points, np.float32)).cluster_centers_
    return np.resize(centers, (num_centers, points.shape[1])).astype(np.float32)


def _large_centers(points: np.ndarray, num_centers: int, *, seed: int, num_iterations: int) -> np.ndarray:
    """Find the centres of many points; see [`kmeans_centers`]."""
    try:
        import faiss
    except ImportError:
        kmeans = MiniBatchKMeans(
            num_centers,
            batch_size=_MINI_BATCH,
            max_iter=min(num_iterations, _MINI_BATCH_ROUNDS),
            n_init=1,
            random_state=seed,
        )
        with threadpool_limits(1, user_api="openmp"):
            centers = kmeans.fit(np.ascontiguousarray(points, np.float32)).cluster_centers_
    else:
        # One thread gives the same bits every time.
        with threadpool_limits(1, user_api="openmp"):
            index = faiss.Kmeans(points.shape[1], num_centers, niter=num_iterations, seed=seed, verbose=False)
            index.train(np.ascontiguousarray(points, np.float32))
        centers = index.centroids
    return np.resize(centers, (num_centers, points.shape[1])).astype(np.float32)
