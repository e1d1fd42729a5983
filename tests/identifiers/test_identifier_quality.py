# SPDX-License-Identifier: Apache-2.0
import json
from math import log2

import numpy as np
import pytest

from seekrec.errors import DataError
from seekrec.identifiers import (
    IdentifierQualityReport,
    ResidualKMeans,
    ResidualKMeansConfig,
    assign_unique,
    identifier_quality,
    label_agreement,
    measure_codes,
    read_published_identifiers,
    relative_error,
)


def test_measures_by_hand():
    # Five items, identifiers (0,0) twice, (0,1), (2,1) twice: 3 distinct, so 1 - 3/5.
    quality = measure_codes(np.array([[0, 0], [0, 0], [0, 1], [2, 1], [2, 1]]), [4, 2])
    assert (quality.num_items, quality.num_distinct, quality.largest_group) == (5, 3, 2)
    assert quality.collision_rate == pytest.approx(1 - 3 / 5)
    first, second = quality.levels
    assert (first.num_codes, first.num_used, first.dead_codes, first.num_prefixes) == (4, 2, [1, 3], 2)
    # Codes 0 and 2 with shares 3/5 and 2/5.
    assert first.entropy == pytest.approx(3 / 5 * log2(5 / 3) + 2 / 5 * log2(5 / 2))
    assert (second.num_codes, second.num_used, second.dead_codes, second.num_prefixes) == (2, 2, [], 3)


def test_entropy_of_equal_use_is_the_logarithm_and_of_one_code_zero():
    assert measure_codes(np.arange(8)[:, None], 8).levels[0].entropy == pytest.approx(3)
    assert str(measure_codes(np.zeros((4, 1), np.int64), 8).levels[0].entropy) == "0.0"


def test_no_items():
    quality = measure_codes(np.zeros((0, 2), np.int64), 3)
    assert (quality.collision_rate, quality.largest_group, quality.levels[0].dead_codes) == (0, 0, [0, 1, 2])


def test_label_agreement_by_hand():
    # Group 0 has three labelled items: pairs (a, a), (a, b), (a, b); group 1 has one pair, (b, b): 2 of 4.
    groups = np.array([0, 0, 0, 1, 1, 1])
    assert label_agreement(groups, ["a", "a", "b", "b", "b", None]) == pytest.approx(2 / 4)
    assert label_agreement(np.arange(3), ["a", "a", "a"]) is None
    assert label_agreement(np.zeros(2, np.int64), [None, ""]) is None


def test_relative_error_by_hand():
    vectors = np.array([[0.0], [2.0]])
    # The mean is 1, so the mean vector is wrong by 1 + 1 = 2; (0, 1) is wrong by 0 + 1.
    assert relative_error(vectors, np.array([[0.0], [1.0]])) == pytest.approx(1 / 2)
    assert relative_error(vectors, np.array([[1.0], [1.0]])) == pytest.approx(1)
    assert relative_error(np.ones((2, 1)), np.ones((2, 1))) == 0
    assert relative_error(np.ones((2, 1)), np.zeros((2, 1))) == float("inf")


@pytest.fixture
def learned():
    generator = np.random.default_rng(0)
    vectors = {
        "semantic": generator.normal(size=(30, 4)).astype(np.float32),
        "collaborative": generator.normal(size=(30, 3)).astype(np.float32),
    }
    config = ResidualKMeansConfig(
        semantic_size=4, collaborative_size=3, num_shared_levels=1, num_specific_levels=1, codebook_size=8
    )
    model = ResidualKMeans(config).fit(vectors["semantic"], vectors["collaborative"])
    encoded = model.encode(vectors["semantic"], vectors["collaborative"])
    assigned = assign_unique(encoded.codes, encoded.costs, codebook_size=8, num_shared_levels=1)
    return model, encoded, assigned, vectors


def test_report(learned, tmp_path):
    model, encoded, assigned, vectors = learned
    labels = ["relay" if row % 2 else "glove" for row in range(30)]
    published = {"random": np.random.default_rng(1).integers(0, 5, (30, 3))}
    report = identifier_quality(model, encoded, assigned, vectors, labels=labels, published=published)
    own = report.views["semantic"]
    assert own.after.collision_rate == 0
    assert own.before.collision_rate == pytest.approx(1 - len(np.unique(encoded.codes["semantic"], axis=0)) / 30)
    assert own.num_moved == assigned.num_moved["semantic"]
    # A moved item is restored from a code that is not the nearest.
    assert 0 < own.error_before <= own.error_after < 1
    # 15 items of each label: 2 * 15 * 14 / 2 = 210 equal pairs of 30 * 29 / 2 = 435.
    assert report.label_base_rate == pytest.approx(210 / 435)
    assert report.published["random"].levels[2].num_codes == published["random"][:, 2].max() + 1

    report.save(tmp_path / "quality.json")
    assert IdentifierQualityReport.load(tmp_path / "quality.json") == report
    assert [path.name for path in tmp_path.iterdir()] == ["quality.json"]
    assert json.loads((tmp_path / "quality.json").read_text()) == report.to_dict()


def test_report_as_text(learned):
    text = str(identifier_quality(*learned, published={"others": np.zeros((30, 1), np.int64)}))
    lines = text.splitlines()
    assert lines[0].split()[:6] == ["identifiers", "items", "collisions", "largest", "moved", "error"]
    assert [line.split("  ")[0] for line in lines[1:6]] == [
        "semantic, nearest",
        "semantic, unique",
        "collaborative, nearest",
        "collaborative, unique",
        "others",
    ]
    # All 30 items share one identifier: 1 - 1/30.
    assert lines[5].split() == ["others", "30", "96.67%", "30", "1/0.00"]
    assert "0.00%" in lines[2]


def test_report_names_codes_that_are_not_used(learned):
    model, encoded, assigned, vectors = learned
    for own in assigned.codes.values():
        own[:, 0] = 3
    text = str(identifier_quality(model, encoded, assigned, vectors))
    assert "semantic level 1: 7 codes are not used: 0, 1, 2, 4, 5, 6, 7" in text
    assert "Every code" not in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"labels": ["a"] * 29}, "`labels` has 29 rows for 30 items"),
        ({"published": {"theirs": np.zeros((31, 2), np.int64)}}, "`theirs` has 31 rows for 30 items"),
    ],
)
def test_other_items_are_refused(learned, arguments, message):
    with pytest.raises(DataError, match=message):
        identifier_quality(*learned, **arguments)


def test_published_identifiers(tmp_path):
    path = tmp_path / "index.json"
    # Written by hand; keys in any order.
    path.write_text('{"1": ["<a_0>", "<b_7>"], "0": ["<a_121>", "<b_202>"]}')
    assert read_published_identifiers(path).tolist() == [[121, 202], [0, 7]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "does not exist"),
        ("{", "index.json is not JSON"),
        ("[1]", "contains list, not a table of items"),
        ("{}", "not a table of items"),
        ('{"0": ["<a_1>"], "2": ["<a_1>"]}', "has 2 items but none with the key '1'"),
        ('{"0": ["<a_1>"], "1": ["a_1"]}', r"item 1: \['a_1'\] is not an identifier.*expected 1 tokens such as"),
        ('{"0": ["<a_1>"], "1": ["<a_1>", "<b_1>"]}', "item 1"),
        ('{"0": []}', r"item 0: \[\] is not an identifier"),
        ('{"0": null}', "item 0: None is not an identifier"),
    ],
)
def test_bad_published_files_are_refused(text, message, tmp_path):
    path = tmp_path / "index.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_published_identifiers(path)
