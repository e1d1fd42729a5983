# SPDX-License-Identifier: Apache-2.0
import sys

import numpy as np
import pytest
import torch

from seekrec.errors import CatalogError, ConfigurationError, DataError
from seekrec.identifiers import (
    DualRQVAEConfig,
    DualRQVAEModel,
    ResidualKMeans,
    ResidualKMeansConfig,
    relative_error,
    residual_kmeans,
)
from seekrec.identifiers.residual_codes import squared_distances
from seekrec.identifiers.residual_kmeans import kmeans_centers
from seekrec.util import memory_maps
from seekrec.util.memory_maps import map_rows, write_rows_file


def corners(num_copies: int = 5) -> np.ndarray:
    """Four clusters at the corners (+-10, +-1) of a rectangle, in order, `num_copies` points each."""
    return np.repeat(np.array([[-10, -1], [-10, 1], [10, -1], [10, 1]], np.float32), num_copies, axis=0)


def tiger(size: int = 2, **settings) -> ResidualKMeansConfig:
    defaults = {"num_shared_levels": 0, "num_specific_levels": 2, "codebook_size": 2}
    return ResidualKMeansConfig(views=["semantic"], semantic_size=size, **{**defaults, **settings})


def test_two_levels_of_two_codes_find_the_corners():
    # The first level must split the long side (x), what is left is the short side (y): codes (x side, y side).
    model = ResidualKMeans(tiger()).fit(corners())
    codes = model.encode(corners()).codes["semantic"]
    assert len(np.unique(codes, axis=0)) == 4
    assert (codes[:10, 0] == codes[0, 0]).all()
    assert codes[0, 0] != codes[10, 0]
    assert codes[0].tolist() != codes[5].tolist()
    np.testing.assert_allclose(model.reconstruct({"semantic": codes})["semantic"], corners(), atol=1e-5)


def test_views_weigh_the_same_whatever_their_scale():
    # Semantic vectors split items by halves, collaborative ones by parity; a scale of 1000 must not decide the shared
    # level alone: four shared codes see all four combinations.
    semantic = np.repeat(np.array([[-1.0], [1.0]], np.float32), 6, axis=0)
    collaborative = 1000 * np.tile(np.array([[-1.0], [1.0]], np.float32), (6, 1))
    config = ResidualKMeansConfig(
        semantic_size=1, collaborative_size=1, num_shared_levels=1, num_specific_levels=0, codebook_size=4
    )
    codes = ResidualKMeans(config).fit(semantic, collaborative).encode(semantic, collaborative).codes
    assert len(np.unique(codes["semantic"])) == 4
    assert (codes["semantic"] == codes["collaborative"]).all()


def test_shared_levels_are_equal_and_specific_ones_are_not():
    generator = np.random.default_rng(0)
    semantic = generator.normal(size=(60, 4)).astype(np.float32)
    collaborative = generator.normal(size=(60, 3)).astype(np.float32)
    config = ResidualKMeansConfig(semantic_size=4, collaborative_size=3, codebook_size=4)
    codes = ResidualKMeans(config).fit(semantic, collaborative).encode(semantic, collaborative).codes
    assert codes["semantic"].shape == codes["collaborative"].shape == (60, 4)
    assert (codes["semantic"][:, :2] == codes["collaborative"][:, :2]).all()
    assert (codes["semantic"][:, 2:] != codes["collaborative"][:, 2:]).any()


def test_saved_and_loaded_gives_the_same_codes(tmp_path):
    generator = np.random.default_rng(0)
    vectors = generator.normal(size=(40, 2)).astype(np.float32) + 3
    model = ResidualKMeans(tiger(codebook_size=4)).fit(vectors, seed=3)
    model.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").exists()
    loaded = ResidualKMeans.from_pretrained(tmp_path)
    assert loaded.has_codebooks
    assert (loaded.encode(vectors).codes["semantic"] == model.encode(vectors).codes["semantic"]).all()


def test_equal_seeds_give_equal_codebooks():
    vectors = np.random.default_rng(0).normal(size=(40, 2)).astype(np.float32)
    books = [ResidualKMeans(tiger(codebook_size=4)).fit(vectors, seed=seed).codebooks().specific for seed in (1, 1, 2)]
    assert (books[0]["semantic"] == books[1]["semantic"]).all()
    assert (books[0]["semantic"] != books[2]["semantic"]).any()


def test_fewer_points_than_codes():
    centers = kmeans_centers(np.array([[1.0], [1.0], [5.0]], np.float32), 4, seed=0)
    assert centers.shape == (4, 1)
    assert set(centers.ravel().tolist()) == {1.0, 5.0}


def test_tensors_are_accepted():
    model = ResidualKMeans(tiger()).fit(torch.from_numpy(corners()))
    assert (
        model.encode(torch.from_numpy(corners())).codes["semantic"] == model.encode(corners()).codes["semantic"]
    ).all()


def test_one_item_and_constant_vectors():
    for vectors in (np.ones((1, 2), np.float32), np.ones((6, 2), np.float32)):
        model = ResidualKMeans(tiger()).fit(vectors)
        codes = model.encode(vectors).codes
        np.testing.assert_allclose(model.reconstruct(codes)["semantic"], vectors)


@pytest.mark.parametrize(
    ("semantic", "collaborative", "message"),
    [
        (None, np.ones((3, 2)), "`semantic` is missing, but `views` is"),
        (np.ones((3, 5)), np.ones((3, 2)), r"`semantic` has shape \(3, 5\); expected \(num_items, 2\)"),
        (np.ones(3), np.ones((3, 2)), r"`semantic` has shape \(3,\)"),
        (
            np.ones((3, 2)),
            np.array([[1, 1], [1, np.nan], [np.inf, 1]]),
            "`collaborative`.* in 2 rows, the first is row 1",
        ),
        (np.ones((3, 2)), np.ones((4, 2)), "different numbers of items: {'semantic': 3, 'collaborative': 4}"),
        (np.ones((0, 2)), np.ones((0, 2)), "contains no item"),
    ],
)
def test_bad_vectors_are_refused(semantic, collaborative, message):
    model = ResidualKMeans(ResidualKMeansConfig(semantic_size=2, collaborative_size=2, codebook_size=2))
    with pytest.raises(DataError, match=message):
        model.fit(semantic, collaborative)


def test_codes_need_a_fitted_model():
    with pytest.raises(ConfigurationError, match="codebooks of this ResidualKMeans were never initialised"):
        ResidualKMeans(tiger()).encode(corners())


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        ([[0, 0, 0]], r"has shape \(1, 3\); expected one column for each of the 2 levels"),
        ([[0, 2]], "codes from 0 to 2"),
    ],
)
def test_impossible_codes_are_not_restored(codes, message):
    with pytest.raises(CatalogError, match=message):
        ResidualKMeans(tiger()).fit(corners()).reconstruct({"semantic": np.array(codes)})


@pytest.mark.parametrize("has_faiss", [True, False])
def test_many_points_are_clustered_nearly_as_well(monkeypatch, has_faiss):
    """Twenty clouds of deviation 0.1: the mean squared distance to the own centre is 4 x 0.01 at best."""
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(20, 4)) * 5
    points = (centers[rng.integers(0, 20, 30_000)] + 0.1 * rng.normal(size=(30_000, 4))).astype(np.float32)
    monkeypatch.setattr(residual_kmeans, "LARGE_CLUSTERING", 10_000)
    if has_faiss:
        pytest.importorskip("faiss")
    else:
        monkeypatch.setitem(sys.modules, "faiss", None)
    found = residual_kmeans.kmeans_centers(points, 60, seed=1)
    again = residual_kmeans.kmeans_centers(points, 60, seed=1)
    assert (found == again).all() and found.shape == (60, 4) and found.dtype == np.float32
    distances = squared_distances(points, found).min(axis=1)
    assert distances.mean() < 0.04
    # What is left over is the same whether it is computed in blocks or at once.
    left = residual_kmeans._leave_over(points, found)
    np.testing.assert_allclose((left**2).sum(axis=1), distances, atol=1e-4)


@pytest.mark.parametrize("learner", ["kmeans", "rqvae"])
def test_vectors_in_a_file_give_what_they_give_in_memory(tmp_path, monkeypatch, learner):
    """Of more items than are clustered at once: the same codes, costs and errors, a block at a time."""
    rng = np.random.default_rng(0)
    vectors = {view: rng.normal(size=(3_000, 6)).astype(np.float32) for view in ("semantic", "collaborative")}
    monkeypatch.setattr(residual_kmeans, "LARGE_CLUSTERING", 1_000)
    monkeypatch.setattr(memory_maps, "BLOCK_BYTES", 6 * 4 * 512)
    mapped = {}
    for view, own in vectors.items():
        write_rows_file(tmp_path / view, [own], own.shape)
        mapped[view] = map_rows(tmp_path / view)
    sizes = {"semantic_size": 6, "collaborative_size": 6, "codebook_size": 4}
    found = []
    for given in (vectors, mapped):
        if learner == "kmeans":
            model = ResidualKMeans(ResidualKMeansConfig(**sizes)).fit(**given, num_iterations=5)
        else:
            torch.manual_seed(0)
            model = DualRQVAEModel(DualRQVAEConfig(**sizes, hidden_sizes=[8], latent_size=4))
            model.initialize_codebooks(**given, num_iterations=5)
        encoded = model.encode(**given)
        rows = np.array([5, 1, 2_999])
        costs = encoded.costs("semantic", rows, encoded.codes["semantic"][rows, :3])
        restored = model.reconstruct(encoded.codes)
        errors = {view: relative_error(own, restored[view]) for view, own in given.items()}
        found.append((encoded.codes, costs, errors))
    assert all((found[0][0][view] == found[1][0][view]).all() for view in vectors)
    assert (found[0][1] == found[1][1]).all()
    assert found[0][2] == found[1][2]
    # An autoencoder that was never trained restores nothing.
    assert learner == "rqvae" or 0.2 < found[0][2]["semantic"] < 1
