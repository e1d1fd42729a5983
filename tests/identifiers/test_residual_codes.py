# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from seekrec.identifiers.residual_codes import ResidualCodebooks, quantize, squared_distances


def two_views() -> ResidualCodebooks:
    """One shared level over (semantic 1 number, collaborative 1 number) and one level of each view."""
    return ResidualCodebooks(
        shared=np.array([[[0, 0], [10, 10]]], np.float32),
        specific={
            "semantic": np.array([[[-1], [1]]], np.float32),
            "collaborative": np.array([[[-2], [3]]], np.float32),
        },
    )


def test_codes_by_hand():
    # Item 0: (9, 12) is nearest to (10, 10), which leaves (-1, 2): semantic -1 -> code 0, collaborative 2 -> code 1.
    # Item 1: (1, -2) is nearest to (0, 0), which leaves (1, -2): semantic code 1, collaborative code 0.
    latents = {"semantic": np.array([[9], [1]], np.float32), "collaborative": np.array([[12], [-2]], np.float32)}
    encoded = quantize(latents, two_views())
    assert encoded.codes["semantic"].tolist() == [[1, 0], [0, 1]]
    assert encoded.codes["collaborative"].tolist() == [[1, 1], [0, 0]]


def test_costs_by_hand():
    latents = {"semantic": np.array([[9]], np.float32), "collaborative": np.array([[12]], np.float32)}
    encoded = quantize(latents, two_views())
    row = np.array([0])
    # Squared distance of (9, 12) to (0, 0) and to (10, 10): 81 + 144 and 1 + 4.
    assert encoded.costs("semantic", row, np.empty((1, 0), np.int64)).tolist() == [[225, 5]]
    # After the far code 0, not the nearest: the semantic residual is 9, to -1 and 1: 100 and 64.
    assert encoded.costs("semantic", row, np.array([[0]])).tolist() == [[100, 64]]
    assert encoded.costs("collaborative", row, np.array([[1]])).tolist() == [[16, 1]]


def test_quantized_is_the_sum_of_codewords():
    books = two_views()
    assert books.quantized("semantic", np.array([[1, 0], [0, 1]])).tolist() == [[9], [1]]
    assert books.quantized("collaborative", np.array([[1, 1]])).tolist() == [[13]]
    assert books.quantized("collaborative", np.array([[1]])).tolist() == [[10]]


def test_unknown_view():
    with pytest.raises(KeyError, match="popular"):
        two_views().columns("popular")


def test_squared_distances_equal_the_definition():
    generator = np.random.default_rng(0)
    points, words = generator.normal(size=(5, 3)).astype(np.float32), generator.normal(size=(4, 3)).astype(np.float32)
    expected = ((points[:, None] - words[None]) ** 2).sum(axis=2)
    np.testing.assert_allclose(squared_distances(points, words), expected, rtol=1e-5)
    # Rounding must not give a negative square.
    assert (squared_distances(points * 1000, points * 1000) >= 0).all()


def test_chunks_do_not_change_codes(monkeypatch):
    generator = np.random.default_rng(1)
    latents = {
        "semantic": generator.normal(size=(50, 1)).astype(np.float32) * 5,
        "collaborative": generator.normal(size=(50, 1)).astype(np.float32) * 5,
    }
    whole = quantize(latents, two_views()).codes
    monkeypatch.setattr("seekrec.identifiers.residual_codes._CHUNK_ROWS", 7)
    parts = quantize(latents, two_views()).codes
    assert all((whole[view] == parts[view]).all() for view in whole)
