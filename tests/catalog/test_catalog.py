# SPDX-License-Identifier: Apache-2.0
"""The catalogue: what it refuses, how it grows, what its files promise."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file, save_file

from seekrec.catalog import Catalog, files
from seekrec.catalog.growth import place_items, predict_by_ridge
from seekrec.errors import CatalogError, DataError, IdentifierCollisionError, RequestError, UnknownItemError
from seekrec.identifiers.assign import assign_unique
from seekrec.identifiers.configuration_dual_rqvae import DualRQVAEConfig, ResidualKMeansConfig
from seekrec.identifiers.modeling_dual_rqvae import DualRQVAEModel
from seekrec.identifiers.residual_kmeans import ResidualKMeans

CODEBOOK_SIZE = 4


@pytest.fixture
def learner():
    """Codes that can be read off the vectors.

    An item with semantic vector (10 g, a) and collaborative vector (b) has shared code g, semantic code round(a),
    collaborative code round(b), because the codewords are (10 g, 0, 0), (0, a) and (b) for g, a, b in 0..3.
    """
    config = ResidualKMeansConfig(
        semantic_size=2, collaborative_size=1, num_shared_levels=1, num_specific_levels=1, codebook_size=CODEBOOK_SIZE
    )
    model = ResidualKMeans(config)
    steps = np.arange(CODEBOOK_SIZE, dtype=np.float32)
    shared = np.zeros((1, CODEBOOK_SIZE, 3), np.float32)
    shared[0, :, 0] = 10 * steps
    semantic = np.zeros((1, CODEBOOK_SIZE, 2), np.float32)
    semantic[0, :, 1] = steps
    model.quantizers["shared"].set_codebooks(shared)
    model.quantizers["semantic"].set_codebooks(semantic)
    model.quantizers["collaborative"].set_codebooks(steps[None, :, None])
    return model


ITEMS = pa.table(
    {
        "item_id": ["A", "B", "C", "D"],
        "title": ["Red kite", "Blue kite", "Chess set", None],
        "description": [None, "Flies far", None, "Ten wooden blocks"],
        "categories": pa.array(
            [[["Toys", "Kites"]], [["Toys", "Kites"], ["Outdoor"]], [["Games"]], None],
            pa.list_(pa.list_(pa.string())),
        ),
        "available_from": pa.array([None, 100, 100, 200], pa.int64()),
        "available_until": pa.array([None, 200, None, None], pa.int64()),
        "price": [5.0, 7.5, 20.0, None],
        "brand": ["Acme", "Zenith", "Acme", None],
    }
)
SEMANTIC = np.array([[0, 0], [0, 1], [10, 0], [20, 2]], np.float32)
COLLABORATIVE = np.array([[0], [2], [0], [1]], np.float32)
CODES = {
    "semantic": np.array([[0, 0], [0, 1], [1, 0], [2, 2]]),
    "collaborative": np.array([[0, 0], [0, 2], [1, 0], [2, 1]]),
}


def build(learner=None, **changes):
    arguments = {
        "items": ITEMS,
        "codes": CODES,
        "num_shared_levels": 1,
        "codebook_size": CODEBOOK_SIZE,
        "embeddings": {"semantic": SEMANTIC, "collaborative": COLLABORATIVE},
        "identifier_model": learner,
    }
    return Catalog.build(**(arguments | changes))


@pytest.fixture
def catalog(learner):
    return build(learner)


def new_item(item_id, **columns):
    return {"item_id": item_id, "title": f"Item {item_id}"} | columns


def vectors(*rows):
    return np.array(rows, np.float32)


class TestBuild:
    def test_gives_standard_columns_first_and_keeps_the_others(self):
        catalog = build(items=pa.table({"price": [1, 2, 3, 4], "title": list("abcd"), "item_id": list("ABCD")}))
        assert catalog.items.column_names == [
            "item_id",
            "title",
            "description",
            "categories",
            "available_from",
            "available_until",
            "price",
        ]
        assert len(catalog) == 4
        assert catalog.views == ("semantic", "collaborative")
        assert (catalog.num_shared_levels, catalog.num_specific_levels, catalog.num_levels) == (1, 1, 2)
        assert catalog.codes["semantic"].dtype == np.int32

    def test_knows_the_view_of_a_behavior(self, catalog):
        assert catalog.view_of("search") == "semantic"
        assert catalog.view_of("recommendation") == "collaborative"
        alone = build(codes={"semantic": CODES["semantic"]}, num_shared_levels=0)
        assert alone.view_of("recommendation") == "semantic"

    def test_repr_is_for_people(self, catalog):
        shown = repr(catalog.remove_items(["A"]))
        assert shown == (
            "Catalog(4 items, 1 of them removed; views semantic, collaborative; 1 shared and 1 specific levels of 4)"
        )

    def test_codes_and_flags_cannot_be_written_to(self, catalog):
        for array in (*catalog.codes.values(), catalog.is_removed, catalog.is_predicted):
            with pytest.raises(ValueError, match="read-only"):
                array[0] = 1

    @pytest.mark.parametrize(
        ("changes", "error", "message"),
        [
            ({"codes": {}}, CatalogError, r"`codes` has the views \[\]; give one or both of semantic, collaborative"),
            ({"codes": {"visual": CODES["semantic"]}}, CatalogError, "views .'visual'."),
            (
                {"codes": {"semantic": CODES["semantic"][:3]}},
                CatalogError,
                r"`codes\['semantic'\]` is int64 of shape \(3, 2\); .* 4 items",
            ),
            ({"codes": {"semantic": CODES["semantic"] * 1.0}}, CatalogError, "is float64 of shape"),
            (
                {"codebook_size": 2},
                CatalogError,
                "goes from 0 to 2; with `codebook_size` 2 it must stay within 0 to 1",
            ),
            ({"num_shared_levels": 3}, CatalogError, "`num_shared_levels` is 3 and an identifier has 2 codes"),
            (
                {"codes": {**CODES, "semantic": CODES["semantic"][[0, 1, 2, 1]]}},
                IdentifierCollisionError,
                r"2 of 4 items share their semantic identifier .* 'B' and 'D' with \(0, 1\).*assign_unique",
            ),
            (
                {"codes": {**CODES, "semantic": CODES["semantic"][::-1]}},
                CatalogError,
                r"differ in their first 1 levels \(`num_shared_levels`\)",
            ),
            (
                {"embeddings": {"semantic": SEMANTIC[:2]}},
                CatalogError,
                r"`embeddings\['semantic'\]` has shape \(2, 2\)",
            ),
            (
                {"embeddings": {"semantic": SEMANTIC * np.float32(1e5)}},
                CatalogError,
                "not finite or above 65504, first in row 1",
            ),
            ({"is_removed": np.zeros(4)}, CatalogError, r"`is_removed` is float64 of shape \(4,\)"),
            ({"items": ITEMS.drop_columns("title")}, DataError, "`items` has no column 'title'"),
            ({"items": ITEMS.take([0, 1, 2, 0])}, DataError, "repeat the item_id"),
        ],
    )
    def test_refuses(self, changes, error, message):
        with pytest.raises(error, match=message):
            build(**changes)

    def test_refuses_a_model_that_did_not_give_the_codes(self, learner):
        with pytest.raises(
            CatalogError, match="`identifier_model` has codebook_size=4, but the codes and embeddings say 5"
        ):
            build(learner, codebook_size=5)


class TestMasks:
    def test_available(self, catalog):
        # A is open at both ends; B ends at 200, exclusive; C has begun at 100; D begins at 200.
        assert catalog.available(99).tolist() == [True, False, False, False]
        assert catalog.available(100).tolist() == [True, True, True, False]
        assert catalog.available(200).tolist() == [True, False, True, True]
        assert catalog.remove_items(["A"]).available(100).tolist() == [False, True, True, False]

    @pytest.mark.parametrize(
        ("filters", "expected"),
        [
            ({}, "ABCD"),
            ({"ids": ["A", "D"]}, "AD"),
            ({"ids": "D"}, "D"),
            ({"ids": []}, ""),
            ({"at": 150}, "ABC"),
            ({"categories": "Kites"}, "AB"),
            ({"categories": ["Outdoor", "Games"]}, "BC"),
            ({"title_contains": "KITE"}, "AB"),
            ({"title_contains": "."}, ""),
            ({"price": (7.5, None)}, "BC"),
            ({"price": (None, 7.5)}, "AB"),
            ({"price": (6, 8)}, "B"),
            ({"price": (None, None)}, "ABC"),
            ({"brand": ["Zenith", None]}, "B"),  # null never matches
            ({"price": 20}, "C"),
            ({"brand": "Acme"}, "AC"),
            ({"brand": ["Zenith", "Nobody"]}, "B"),
            ({"brand": {"Acme"}, "price": (None, 10.0), "at": 0}, "A"),
        ],
    )
    def test_where(self, catalog, filters, expected):
        mask = catalog.where(**filters)
        assert mask.dtype == bool
        assert mask.shape == (4,)
        assert "".join(np.array(list("ABCD"))[mask]) == expected

    @pytest.mark.parametrize("kind", [pa.float32(), pa.float64()])
    def test_where_compares_numbers_as_the_column_holds_them(self, catalog, kind):
        place = catalog.items.column_names.index("price")
        prices = pa.array(np.resize([19.95, 0.1, 19.9], len(catalog)).astype(kind.to_pandas_dtype()))
        priced = replace(catalog, items=catalog.items.set_column(place, "price", prices))
        first, second, third = (np.arange(len(catalog)) % 3 == number for number in range(3))
        asked: dict = {
            19.95: first,
            (19.0, 19.95): first | third,
            (None, 0.1): second,
            (19.9, 19.9): third,
            (20, None): [],
        }
        for wanted, expected in asked.items():
            expected = np.zeros(len(catalog), bool) if len(expected) == 0 else expected
            np.testing.assert_array_equal(priced.where(price=wanted), expected)
        np.testing.assert_array_equal(priced.where(price=[19.95]), first)

    @pytest.mark.parametrize(
        ("values", "filters", "expected"),
        [
            # Two zeros are one number, and what is no number is a missing one, however it is asked for.
            (pa.array([0.0, -0.0, np.nan, None]), (0, [0.0], [-0.0], (0, 0), (None, None), [np.nan, 0]), "AB"),
            (pa.array(["x", "y", None, "x"]).dictionary_encode(), ("x", ["x"], ("x", "x")), "AD"),
            (pa.array([5, 2**63, None, 6], pa.uint64()), (2**63, [2**63], (7, None)), "B"),
        ],
    )
    def test_where_compares_values_and_not_how_they_are_stored(self, catalog, values, filters, expected):
        place = catalog.items.column_names.index("price")
        other = replace(catalog, items=catalog.items.set_column(place, "price", values))
        for wanted in filters:
            assert "".join(np.array(list("ABCD"))[other.where(price=wanted)]) == expected

    @pytest.mark.parametrize("asked", ["ΟΔΟΣ", "Οδος", "οδοσ"])
    def test_where_finds_titles_in_any_case(self, catalog, asked):
        """The small sigma at the end of a word is another letter than inside; both are small for one capital."""
        place = catalog.items.column_names.index("title")
        titles = pa.array(["ΟΔΟΣ", "οδος Α", "ΟΔΟ", "οδοσ"])
        other = replace(catalog, items=catalog.items.set_column(place, "title", titles))
        assert other.where(title_contains=asked).tolist() == [True, True, False, True]

    def test_where_leaves_out_what_was_removed(self, catalog):
        assert catalog.remove_items(["A"]).where(categories="Kites").tolist() == [False, True, False, False]

    @pytest.mark.parametrize(
        ("filters", "error", "message"),
        [
            ({"prise": 1}, RequestError, "no column 'prise' .did you mean 'price'.*they have item_id"),
            ({"categories": "Kite"}, RequestError, "contain 'Kite', but no item .* .did you mean 'Kites'"),
            ({"ids": ["A", "Z"]}, UnknownItemError, "1 of 2 ids are unknown, the first is 'Z'"),
            ({"price": (1, 2, 3)}, RequestError, r"`price` is the tuple \(1, 2, 3\); a tuple is a range"),
            ({"price": (3, 1)}, RequestError, r"range \(3, 1\), whose lowest is above its highest"),
            ({"price": "cheap"}, RequestError, "`price` is 'cheap', which cannot be compared .* double"),
            ({"price": ("5", "20")}, RequestError, r"`price` is \('5', '20'\), which cannot be compared .* double"),
            ({"categories": "KITES"}, RequestError, "contain 'KITES', but no item .* .did you mean 'Kites'"),
            ({"price": ["cheap"]}, RequestError, "cannot be compared with a column of type double"),
            ({"title_contains": ""}, RequestError, "`title_contains` is ''; pass the text to look for"),
            ({"title_contains": "caf\ud800"}, RequestError, "`title_contains` contains .* half of a surrogate pair"),
            ({"title": "caf\ud800"}, RequestError, "`title` is .*, which cannot be compared with a column of type"),
            ({"at": 1.5}, RequestError, "`at` is 1.5 of type float; pass whole seconds"),
        ],
    )
    def test_where_refuses(self, catalog, filters, error, message):
        with pytest.raises(error, match=message):
            catalog.where(**filters)

    def test_a_text_that_no_item_has_is_logged_once(self, catalog, caplog):
        """A brand may be sold out, so nothing is refused; of a list column a name that nobody has is a slip."""
        for brand in ("acme", "acme", ["Nobody"]):
            assert not catalog.where(brand=brand).any()
        assert [record.getMessage() for record in caplog.records] == [
            "The filter `brand` is 'acme', which no item of the catalogue has (did you mean 'Acme'?)."
        ]
        assert catalog.where(brand=["Nobody", "Zenith"]).sum() == 1
        assert not catalog.where(price=1e9).any()
        assert len(caplog.records) == 1

    @pytest.mark.parametrize(
        ("values", "is_range"),
        [
            (["9 cm", "10 cm", None, "12"], False),
            (["$9.99", "$10.00", "$2", "ask us"], False),
            # Dates and names are in order as text.
            (["2019-05-01", "2020-01-01", "2018-01-01", None], True),
            (["Acme", "Zenith", "Nadir", "Q7"], True),
        ],
    )
    def test_a_range_of_numbers_that_are_text_is_refused(self, catalog, values, is_range):
        changed = catalog.items.append_column("other", pa.array(values, pa.string()))
        asked = replace(catalog, items=changed)
        bounds = (min(filter(None, values)), None)
        if is_range:
            assert asked.where(other=bounds).tolist() == [value is not None for value in values]
        else:
            with pytest.raises(RequestError, match="`other` is a text column with numbers in it"):
                asked.where(other=bounds)

    def test_titles(self, catalog):
        assert catalog.titles(["C", "D"]) == ["Chess set", "Ten wooden blocks"]
        items = catalog.items.set_column(catalog.items.column_names.index("title"), "title", pa.array([" "] * 4))
        nameless = replace(catalog, items=items)
        assert nameless.titles_of_rows(np.array([1, 0, -1])) == ["Flies far", "A", None]
        long = nameless.items.to_pylist()
        long[0]["description"] = "蓝色 \n" + "盘子" * 60
        assert Catalog.build(pa.Table.from_pylist(long, items.schema)).titles(["A"]) == ["蓝色 " + ("盘子" * 60)[:77]]
        with pytest.raises(UnknownItemError, match="'Z'"):
            catalog.titles(["Z"])


class TestRemove:
    def test_keeps_rows_and_identifiers(self, catalog):
        smaller = catalog.remove_items(["B", "C"])
        assert smaller.live.tolist() == [True, False, False, True]
        assert catalog.live.all()
        assert len(smaller) == 4
        assert smaller.id_map.convert_to_rows(["C"]).tolist() == [2]
        assert smaller.restore_items(["B", "C"]).content_hash == catalog.content_hash

    def test_refuses_unknown_ids(self, catalog):
        with pytest.raises(UnknownItemError, match="'Z'"):
            catalog.remove_items(["Z"])


class TestUpdate:
    def test_changes_what_is_given_and_nothing_else(self, catalog):
        # A key that a record leaves out stays: only the price of A and D and the brand of B change, B's to null.
        updated = catalog.update_items(
            [{"item_id": "D", "price": 3}, {"item_id": "B", "brand": None}, {"item_id": "A", "price": 6.5}]
        )
        assert updated.items["price"].to_pylist() == [6.5, 7.5, 20.0, 3.0]
        assert updated.items["brand"].to_pylist() == ["Acme", None, "Acme", None]
        assert updated.items.schema == catalog.items.schema
        untouched = [name for name in catalog.items.column_names if name not in ("price", "brand")]
        assert updated.items.select(untouched) == catalog.items.select(untouched)
        assert catalog.items == build().items
        assert updated.identifier_hash == catalog.identifier_hash
        # The same arrays: what was built of them serves on.
        assert all(updated.codes[view] is catalog.codes[view] for view in catalog.views)

    def test_filters_follow(self, catalog):
        assert catalog.where(price=(None, 6.0)).tolist() == [True, False, False, False]
        updated = catalog.remove_items(["D"]).update_items(
            pa.table({"item_id": ["C", "D"], "price": [1.0, 1.0], "available_until": [150, None]})
        )
        assert updated.where(price=(None, 6.0)).tolist() == [True, False, True, False]
        assert updated.available(160).tolist() == [True, True, False, False]
        assert catalog.where(price=(None, 6.0)).tolist() == [True, False, False, False]

    def test_a_list_of_paths_is_copied_whole(self, catalog):
        tags = pa.array([["a"], None, [], ["b", "c"]], pa.list_(pa.string()))
        tagged = build(items=catalog.items.append_column("tags", tags))
        updated = tagged.update_items([{"item_id": "B", "tags": ["new", "x"]}])
        assert updated.items["tags"].to_pylist() == [["a"], ["new", "x"], [], ["b", "c"]]

    def test_nothing_to_change(self, catalog):
        assert catalog.update_items([{"item_id": "A"}]).content_hash == catalog.content_hash

    @pytest.mark.parametrize(
        ("items", "error", "message"),
        [
            ([{"item_id": "Z", "price": 1.0}], UnknownItemError, "'Z'"),
            ([{"price": 1.0}], DataError, "no column 'item_id'"),
            ([{"item_id": "A", "price": 1.0}, {"item_id": "A", "price": 2.0}], DataError, "'A' more than once"),
            ([{"item_id": "A", "stock": 1}], DataError, "'stock', the catalogue has item_id, title"),
            ([{"item_id": "A", "title": "Green kite"}], DataError, "'title'; an item's text cannot change"),
            (
                [{"item_id": "B", "price": 1}, {"item_id": "A", "price": "cheap"}],
                DataError,
                r"`items\[1\]`, 'A', has price 'cheap', which does not fit type double",
            ),
            ({"item_id": "A", "price": 1}, DataError, "`items` is {'item_id': 'A'.*; give a list of dicts"),
            (["A"], DataError, r"`items\[0\]` is 'A'; give a dict"),
            (pa.table({"item_id": ["A"], "price": ["cheap"]}), DataError, "'price' of the updated items has type str"),
            ([{"item_id": "B", "available_until": 50}], DataError, "available_until that is not after"),
        ],
    )
    def test_refuses(self, catalog, items, error, message):
        with pytest.raises(error, match=message):
            catalog.update_items(items)


class TestAdd:
    def test_takes_the_codes_of_the_model_where_they_are_free(self, catalog):
        larger = catalog.add_items([new_item("E")], semantic_embeddings=vectors([30, 3]), collaborative=vectors([2]))
        assert larger.codes["semantic"][-1].tolist() == [3, 3]
        assert larger.codes["collaborative"][-1].tolist() == [3, 2]
        assert larger.titles(["E"]) == ["Item E"]
        assert len(catalog) == 4

    def test_reads_html_as_a_log_is_read(self, catalog):
        raw = {"title": "M&uuml;ller &amp; S&ouml;hne", "brand": "B&amp;O", "categories": [["Sofas &amp; more"]]}
        new = {"item_id": "E", "description": "<p>2 < 3</p>", **raw}
        for items in ([new], pa.Table.from_pylist([new])):
            larger = catalog.add_items(items, semantic_embeddings=vectors([30, 3]), collaborative=vectors([2]))
            (added,) = larger.items.slice(4).to_pylist()
            assert (added["title"], added["description"]) == ("Müller & Söhne", "2 < 3")
            assert (added["brand"], added["categories"]) == ("B&O", [["Sofas & more"]])
        assert larger.update_items([{"item_id": "A", "brand": "C&amp;A"}]).items["brand"][0].as_py() == "C&A"

    def test_takes_the_cheapest_free_code_of_the_last_level(self, catalog):
        # Under shared code 0 the semantic codes 0 and 1 are taken; of 2 and 3, the residual 0.4 is nearer to 2.
        # The collaborative codes 0 and 2 are taken; of 1 and 3, the residual 1.8 is nearer to 1.
        larger = catalog.add_items(
            [new_item("E")], semantic_embeddings=vectors([0, 0.4]), collaborative=vectors([1.8])
        )
        assert larger.codes["semantic"][-1].tolist() == [0, 2]
        assert larger.codes["collaborative"][-1].tolist() == [0, 1]

    def test_moves_up_where_a_prefix_is_full(self, catalog):
        # Two more fill shared code 0. The next item belongs there too, at (4, 0): the nearest other shared codeword is
        # 10, under which its residual (-6, 0) and 0 would take code 0 in both views; C has both, so the next is 1.
        full = catalog.add_items(
            [new_item("E"), new_item("F")],
            semantic_embeddings=vectors([0, 2], [0, 3]),
            collaborative=vectors([1], [3]),
        )
        larger = full.add_items([new_item("G")], semantic_embeddings=vectors([4, 0]), collaborative=vectors([0]))
        assert larger.codes["semantic"][-1].tolist() == [1, 1]
        assert larger.codes["collaborative"][-1].tolist() == [1, 1]

    def test_never_changes_an_old_code_and_stays_unique(self, catalog):
        generator = np.random.default_rng(0)
        grown = catalog
        for batch in range(3):
            ids = [f"{batch}-{number}" for number in range(4)]
            grown = grown.add_items(
                [new_item(item_id) for item_id in ids],
                semantic_embeddings=generator.uniform(0, 3, (4, 2)),
                collaborative=generator.uniform(0, 3, (4, 1)),
            )
        assert len(grown) == 16  # every identifier there is
        for view, codes in grown.codes.items():
            assert (codes[:4] == CODES[view]).all()
            assert len(np.unique(codes, axis=0)) == 16
        assert (grown.codes["semantic"][:, 0] == grown.codes["collaborative"][:, 0]).all()
        with pytest.raises(IdentifierCollisionError, match="17 items cannot share 16 identifiers"):
            grown.add_items([new_item("last")], semantic_embeddings=vectors([0, 0]), collaborative=vectors([0]))

    def test_leaves_out_only_old_identifiers_that_cannot_matter(self, learner):
        # Groups from empty to full: the answer must be the one that takes all old identifiers into account.
        generator = np.random.default_rng(3)
        for num_old in (1, 6, 12, 14):
            pairs = generator.permutation(CODEBOOK_SIZE**2)[:num_old]
            own = np.stack([pairs // CODEBOOK_SIZE, pairs % CODEBOOK_SIZE], axis=1)
            old = {"semantic": own, "collaborative": own}
            new = {
                "semantic": generator.uniform(0, 3, (2, 2)).astype(np.float32),
                "collaborative": generator.uniform(0, 3, (2, 1)).astype(np.float32),
            }
            encoded = learner.encode(**new)
            expected = assign_unique(encoded.codes, encoded.costs, codebook_size=4, num_shared_levels=1, taken=old)
            placed = place_items(learner, new, old, 1, CODEBOOK_SIZE)
            for view, codes in placed.items():
                assert (codes == expected.codes[view]).all()

    def test_result_passes_every_check_of_build(self, catalog, learner):
        larger = catalog.add_items([new_item("E", price=3.0)], semantic_embeddings=vectors([9, 1]))
        rebuilt = Catalog.build(
            larger.items,
            larger.codes,
            num_shared_levels=1,
            codebook_size=CODEBOOK_SIZE,
            embeddings=larger.embeddings,
            identifier_model=learner,
            is_predicted=larger.is_predicted,
        )
        assert rebuilt.content_hash == larger.content_hash

    def test_predicts_the_collaborative_vector(self, catalog):
        larger = catalog.add_items([new_item("E")], semantic_embeddings=vectors([0, 3]))
        expected = predict_by_ridge(catalog.embeddings, np.ones(4, bool), vectors([0, 3]))
        assert larger.embeddings["collaborative"][-1] == pytest.approx(expected[0], rel=1e-3)
        assert larger.is_predicted.tolist() == [False] * 4 + [True]
        # What was predicted teaches nothing: the next prediction is the same.
        again = larger.add_items([new_item("F")], semantic_embeddings=vectors([0, 3]))
        assert (again.embeddings["collaborative"][-1] == larger.embeddings["collaborative"][-1]).all()

    def test_embeds_the_text_of_new_items(self, catalog, monkeypatch):
        seen = {}

        def embed_texts(texts, *, name_or_path=None):
            seen.update(texts=list(texts), name=name_or_path)
            return vectors([30, 1])

        monkeypatch.setattr("seekrec.embeddings.embed_texts", embed_texts)
        larger = catalog.add_items([{"item_id": "E", "title": "Green kite", "description": "Flies low"}])
        assert seen == {"texts": ["Green kite Flies low"], "name": None}
        assert larger.codes["semantic"][-1].tolist() == [3, 1]

    def test_takes_a_table_and_fills_missing_columns(self, catalog):
        items = pa.table({"title": pa.array(["Kite"], pa.large_string()), "item_id": ["E"], "price": pa.array([3])})
        larger = catalog.add_items(items, semantic_embeddings=vectors([30, 0]))
        assert larger.items.slice(4).to_pylist() == [
            {
                "item_id": "E",
                "title": "Kite",
                "description": None,
                "categories": None,
                "available_from": None,
                "available_until": None,
                "price": 3.0,
                "brand": None,
            }
        ]
        assert larger.where(price=(2, 4)).tolist() == [False] * 4 + [True]

    @pytest.mark.parametrize(
        ("items", "message"),
        [
            ([new_item("A")], r"Item 'A' \(row 0, from 0, of the new items\) is already in the catalogue, at row 0"),
            ([new_item("E"), new_item("E")], "the new items: 1 of 2 rows .* repeat the item_id of an earlier row"),
            ([new_item("E", colour="red")], "new items have a column 'colour', the catalogue has item_id, title"),
            ([{"item_id": "E", "title": "  "}], "neither a title nor a description .*'E'"),
            ([{"title": "No id"}], "has no column 'item_id'"),
            ([{"item_id": None, "title": "No id"}], "have no item_id"),
            ([new_item("E", price="cheap")], r"`items\[0\]`, 'E', has price 'cheap', which does not fit type double"),
            ([new_item("\ud800")], "has item_id '.*', which does not fit type string"),
            ([new_item("E", categories=["Toys"])], r"'E', has categories \['Toys'\], which does not fit"),
            (new_item("E"), "`items` is {'item_id': 'E'.*; give a list of dicts"),
            ([new_item("E", available_from=5, available_until=5)], "available_until that is not after available_from"),
            ([], "`items` is empty; give a dict for each item"),
            (
                pa.table({"item_id": ["E"], "title": ["x"], "price": ["cheap"]}),
                "Column 'price' of the new items has type",
            ),
        ],
    )
    def test_refuses(self, catalog, items, message):
        with pytest.raises(DataError, match=message):
            catalog.add_items(items)

    def test_refuses_an_item_that_was_removed(self, catalog):
        with pytest.raises(DataError, match="Item 'A' .*restore_items brings it back"):
            catalog.remove_items(["A"]).add_items([new_item("A")])

    def test_refuses_vectors_that_do_not_fit(self, catalog):
        with pytest.raises(
            CatalogError, match=r"`semantic_embeddings` has shape \(1, 3\); there are 1 items.*vectors of 2"
        ):
            catalog.add_items([new_item("E")], semantic_embeddings=vectors([0, 0, 0]))
        with pytest.raises(CatalogError, match=r"`collaborative` has shape \(2, 1\)"):
            catalog.add_items([new_item("E")], semantic_embeddings=vectors([0, 0]), collaborative=vectors([0], [0]))

    def test_refuses_without_a_way_to_what_it_needs(self, learner):
        with pytest.raises(CatalogError, match="has no identifier model.*`identifier_model=`"):
            build().add_items([new_item("E")], semantic_embeddings=vectors([0, 0]))
        with pytest.raises(CatalogError, match="but exist for semantic; pass `collaborative=`"):
            build(learner, embeddings={"semantic": SEMANTIC}).add_items(
                [new_item("E")], semantic_embeddings=vectors([0, 0])
            )
        with pytest.raises(
            CatalogError, match="1 live items have a collaborative vector of their own.*`collaborative=`"
        ):
            build(learner).remove_items(["A", "B", "C"]).add_items(
                [new_item("E")], semantic_embeddings=vectors([0, 0])
            )


class TestRidge:
    def test_finds_a_linear_map(self):
        generator = np.random.default_rng(0)
        semantic = generator.normal(size=(200, 5)).astype(np.float32)
        weights = generator.normal(size=(5, 3)).astype(np.float32)
        known = {"semantic": semantic[:150], "collaborative": semantic[:150] @ weights + 2}
        predicted = predict_by_ridge(known, np.ones(150, bool), semantic[150:])
        assert predicted == pytest.approx(semantic[150:] @ weights + 2, abs=1e-3)

    def test_equals_the_textbook_with_the_best_of_its_penalties(self):
        generator = np.random.default_rng(1)
        inputs, new = generator.normal(size=(40, 6)), generator.normal(size=(3, 6))
        targets = inputs[:, :2] + generator.normal(size=(40, 2))
        is_measured = np.arange(40) % 4 > 0
        predicted = predict_by_ridge({"semantic": inputs, "collaborative": targets}, is_measured, new)

        # The definition of generalized cross-validation, with the whole matrix that maps targets to fitted values.
        inputs, targets = inputs[is_measured], targets[is_measured]
        centred, count = inputs - inputs.mean(0), len(inputs)
        scores = []
        for share in 10.0 ** np.arange(-6, 1, 0.5):
            penalty = share * np.linalg.eigvalsh(centred.T @ centred)[-1]
            inverse = np.linalg.inv(centred.T @ centred + penalty * np.eye(6))
            fitted = np.full((count, count), 1 / count) + centred @ inverse @ centred.T
            residual = np.square(targets - fitted @ targets).sum()
            expected = targets.mean(0) + (new - inputs.mean(0)) @ inverse @ centred.T @ (targets - targets.mean(0))
            scores.append((residual / (count - np.trace(fitted)) ** 2, expected))
        assert predicted == pytest.approx(min(scores, key=lambda pair: pair[0])[1], rel=1e-5)

    def test_equal_inputs_give_the_mean(self):
        known = {"semantic": np.ones((3, 2), np.float32), "collaborative": np.array([[1.0], [2.0], [6.0]], np.float32)}
        assert predict_by_ridge(known, np.ones(3, bool), np.zeros((2, 2), np.float32)).tolist() == [[3.0], [3.0]]


class TestHashes:
    def test_identifier_hash_is_unchanged_by_items(self, catalog):
        larger = catalog.add_items([new_item("E")], semantic_embeddings=vectors([30, 0]))
        assert larger.identifier_hash == catalog.identifier_hash == larger.remove_items(["A"]).identifier_hash

    def test_identifier_hash_tells_learners_and_sizes_apart(self, catalog, learner):
        other = build(learner, codebook_size=CODEBOOK_SIZE, identifier_model=None)
        assert other.identifier_hash != catalog.identifier_hash
        before = catalog.identifier_hash
        learner.quantizers["semantic"].codebooks[0, 0, 0] += 1
        assert build(learner).identifier_hash != before

    def test_content_hash_covers_everything(self, catalog, learner):
        renamed = ITEMS.set_column(1, "title", pa.array(["Red kite!", "Blue kite", "Chess set", None]))
        swapped = {view: codes[[1, 0, 2, 3]] for view, codes in CODES.items()}
        variants = [
            catalog,
            catalog.remove_items(["A"]),
            catalog.add_items([new_item("E")], semantic_embeddings=vectors([30, 0])),
            build(learner, items=renamed),
            build(learner, codes=swapped),
            build(learner, embeddings={"semantic": SEMANTIC + 1, "collaborative": COLLABORATIVE}),
            build(learner, semantic_encoder_name="other"),
            build(),
        ]
        assert len({variant.content_hash for variant in variants}) == len(variants)

    def test_content_hash_does_not_depend_on_chunks(self, catalog, learner):
        chunked = pa.concat_tables([ITEMS.slice(0, 1), ITEMS.slice(1)])
        assert build(learner, items=chunked).content_hash == catalog.content_hash


class TestFiles:
    def test_loads_what_was_saved(self, catalog, tmp_path):
        grown = catalog.add_items([new_item("E")], semantic_embeddings=vectors([30, 0.1])).remove_items(["B"])
        grown.save(tmp_path)
        assert sorted(path.name for path in tmp_path.iterdir()) == [
            "catalog.json",
            "codes.safetensors",
            "embeddings.safetensors",
            "identifier_config.json",
            "identifier_model.safetensors",
            "items.parquet",
        ]
        loaded = Catalog.load(tmp_path)
        assert loaded.content_hash == grown.content_hash
        assert loaded.identifier_hash == catalog.identifier_hash
        assert loaded.items.equals(grown.items)
        assert (loaded.embeddings["semantic"] == grown.embeddings["semantic"]).all()
        assert loaded.embeddings["semantic"].dtype == np.float32
        # Identifiers may lie in memory column by column.
        turned = {view: np.asfortranarray(codes) for view, codes in grown.codes.items()}
        replace(grown, codes=turned).save(tmp_path)
        assert Catalog.load(tmp_path).content_hash == grown.content_hash
        added = [
            each.add_items([new_item("F")], semantic_embeddings=vectors([11, 1])).content_hash
            for each in (grown, loaded)
        ]
        assert added[0] == added[1]

    def test_trained_learner_survives(self, tmp_path):
        config = DualRQVAEConfig(
            semantic_size=2,
            collaborative_size=1,
            hidden_sizes=[4],
            latent_size=2,
            codebook_size=8,
            num_specific_levels=1,
        )
        model = DualRQVAEModel(config).eval()
        model.initialize_codebooks(SEMANTIC, COLLABORATIVE, seed=0)
        encoded = model.encode(SEMANTIC, COLLABORATIVE)
        catalog = Catalog.build(
            ITEMS,
            encoded.codes,
            num_shared_levels=2,
            codebook_size=8,
            embeddings={"semantic": SEMANTIC, "collaborative": COLLABORATIVE},
            identifier_model=model,
        )
        catalog.save(tmp_path)
        loaded = Catalog.load(str(tmp_path))
        assert loaded.content_hash == catalog.content_hash
        assert not loaded.identifier_model.training
        for view, codes in loaded.identifier_model.encode(SEMANTIC, COLLABORATIVE).codes.items():
            assert (codes == encoded.codes[view]).all()

    def test_loading_leaves_random_numbers_alone(self, catalog, tmp_path):
        import torch

        catalog.save(tmp_path)
        before = torch.get_rng_state()
        Catalog.load(tmp_path)
        assert torch.equal(before, torch.get_rng_state())

    def test_minimal_catalog_replaces_a_full_one(self, catalog, tmp_path):
        catalog.save(tmp_path)
        (tmp_path / "config.json").write_text("{}")
        small = build(codes={"semantic": CODES["semantic"]}, num_shared_levels=0, embeddings=None)
        small.save(tmp_path)
        assert sorted(path.name for path in tmp_path.iterdir()) == [
            "catalog.json",
            "codes.safetensors",
            "config.json",
            "items.parquet",
        ]
        assert Catalog.load(tmp_path).content_hash == small.content_hash

    def test_is_found_inside_a_model_folder(self, catalog, tmp_path):
        catalog.save(tmp_path / "catalog")
        assert Catalog.load(tmp_path).content_hash == catalog.content_hash

    def test_failed_save_leaves_the_old_catalog(self, catalog, tmp_path, monkeypatch):
        catalog.save(tmp_path)

        def fail(*arguments):
            raise OSError("disk full")

        monkeypatch.setattr("seekrec.catalog.files.save_tensors", fail)
        with pytest.raises(OSError, match="disk full"):
            catalog.remove_items(["A"]).save(tmp_path)
        monkeypatch.undo()
        assert Catalog.load(tmp_path).content_hash == catalog.content_hash
        assert not [path.name for path in tmp_path.iterdir() if path.name.endswith(".tmp")]

    def test_refuses_codebooks_that_are_not_finite(self, learner, catalog, tmp_path):
        learner.quantizers["semantic"].codebooks[0, 1] = np.nan
        catalog.save(tmp_path)
        name = r"'stacks\.semantic\.codebooks' of \S*identifier_model\.safetensors"
        with pytest.raises(CatalogError, match=rf"{name} hold 2 of \d+ numbers that are not finite .*first in row 0"):
            Catalog.load(tmp_path)

    @pytest.mark.parametrize(
        "name",
        [
            "items.parquet",
            "codes.safetensors",
            "embeddings.safetensors",
            "identifier_model.safetensors",
            "catalog.json",
        ],
    )
    def test_names_a_truncated_file(self, catalog, tmp_path, name):
        catalog.save(tmp_path)
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content[: len(content) // 2])
        with pytest.raises(CatalogError, match=f"{name} cannot be read .* truncated or damaged"):
            Catalog.load(tmp_path)

    def test_names_a_missing_file(self, catalog, tmp_path):
        with pytest.raises(CatalogError, match=r"catalog.json does not exist: the folder is not a catalogue"):
            Catalog.load(tmp_path)
        catalog.save(tmp_path)
        (tmp_path / "codes.safetensors").unlink()
        with pytest.raises(CatalogError, match="codes.safetensors does not exist"):
            Catalog.load(tmp_path)

    def test_names_a_folder_that_is_no_repository_either(self):
        with pytest.raises(CatalogError, match="There is no folder runs/-typo, and no repository runs/-typo could be"):
            Catalog.load("runs/-typo")
        with pytest.raises(CatalogError, match="There is no folder runs/typo, and no repository runs/typo could be"):
            Catalog.load("runs/typo")

    def test_names_an_edited_file(self, catalog, tmp_path):
        def edit_items(path):
            table = pq.read_table(path)
            pq.write_table(table.set_column(1, "title", pa.array(["x", "y", "z", "w"])), path)

        def edit_arrays(path):
            arrays = load_file(path)
            name = min(arrays)
            save_file(arrays | {name: arrays[name] + 1}, path)

        for name, edit in {
            "items.parquet": edit_items,
            "codes.safetensors": edit_arrays,
            "embeddings.safetensors": edit_arrays,
        }.items():
            folder = tmp_path / name
            catalog.save(folder)
            edit(folder / name)
            with pytest.raises(
                CatalogError, match=f"{name} has content hash .*was changed or belongs to another catalogue"
            ):
                Catalog.load(folder)

    def test_refuses_an_edited_description(self, catalog, tmp_path):
        catalog.save(tmp_path)
        path = tmp_path / "catalog.json"
        saved = json.loads(path.read_text())

        def load_with(**changes):
            path.write_text(json.dumps(saved | changes))
            return Catalog.load(tmp_path)

        with pytest.raises(CatalogError, match="catalog.json does not match its own hash"):
            load_with(settings=saved["settings"] | {"semantic_encoder_name": "other"})
        with pytest.raises(CatalogError, match="catalog.json has version 99, this package reads 1"):
            load_with(version=99)
        path.write_text(json.dumps({"version": 1}))
        with pytest.raises(CatalogError, match="catalog.json has no 'content_hash'"):
            Catalog.load(tmp_path)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"parts": []}, r"has parts \[\]; save the catalogue again"),
            ({"parts": {}}, r"has parts \{\}"),
            ({"settings": None}, "has settings None"),
            ({"settings": {}}, r"has settings\['num_shared_levels'\] None"),
            ({"content_hash": 5}, "has content_hash 5"),
        ],
    )
    def test_refuses_a_damaged_description(self, catalog, tmp_path, changes, message):
        catalog.save(tmp_path)
        path = tmp_path / "catalog.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))
        with pytest.raises(CatalogError, match=message):
            Catalog.load(tmp_path)

    def test_refuses_tables_that_unpack_to_far_more_than_their_bytes(self, catalog, tmp_path, monkeypatch):
        """One long title in every row is written once: kilobytes in the file, a thousand times that in memory."""
        catalog.save(tmp_path)
        path = tmp_path / "items.parquet"
        items = catalog.items.set_column(
            catalog.items.column_names.index("title"), "title", pa.array(["x" * 10**6] * len(catalog))
        )
        pq.write_table(items, path, compression="zstd", use_compliant_nested_type=False)
        monkeypatch.setattr(files, "_MIN_LIMIT", 10**6)
        assert path.stat().st_size * 1000 < items.nbytes
        with pytest.raises(CatalogError, match="unpacks to more than .*made to fill the memory"):
            Catalog.load(tmp_path)
        pq.write_table(pa.concat_tables([catalog.items] * 2), path)
        with pytest.raises(CatalogError, match=r"items.parquet has \d+ rows, codes.safetensors has \d+"):
            Catalog.load(tmp_path)

    def test_an_encoder_that_only_a_file_names_is_not_loaded(self, catalog, tmp_path, monkeypatch):
        named = replace(catalog, semantic_encoder_name=str(tmp_path / "secret_place" / "encoder"))
        named.save(tmp_path)
        assert "secret_place" not in (tmp_path / "catalog.json").read_text()
        loaded = Catalog.load(tmp_path)
        assert (loaded.semantic_encoder_name, loaded.encoder_is_trusted) == ("encoder", False)
        assert loaded.content_hash == named.content_hash
        item = [{"item_id": "new", "title": "new"}]
        with pytest.raises(CatalogError, match="names the text encoder 'encoder', but an encoder is not loaded"):
            loaded.add_items(item)
        asked = []

        def embed(texts, name_or_path):
            asked.append(name_or_path)
            return np.ones((len(texts), catalog.embeddings["semantic"].shape[1]))

        monkeypatch.setattr("seekrec.embeddings.embed_texts", embed)
        Catalog.load(tmp_path, semantic_encoder="/mine/encoder").add_items(item)
        assert asked == ["/mine/encoder"]

    def test_refuses_an_unknown_learner(self, catalog, tmp_path):
        catalog.save(tmp_path)
        path = tmp_path / "identifier_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"model_type": "other"}))
        with pytest.raises(
            CatalogError, match="identifier_config.json has model_type 'other'; this package reads dual_rq"
        ):
            Catalog.load(tmp_path)

    def test_files_can_be_moved(self, catalog, tmp_path):
        catalog.save(tmp_path / "a")
        shutil.move(tmp_path / "a", tmp_path / "b")
        assert Catalog.load(tmp_path / "b").content_hash == catalog.content_hash


class TestWithoutIdentifiers:
    def test_is_saved_loaded_and_grown(self, tmp_path):
        items = pa.table({"item_id": ["a", "b"], "title": ["red kite", "blue kite"]})
        catalog = Catalog.build(items, embeddings={"semantic": np.eye(2, 3, dtype=np.float32)})
        assert catalog.views == () and catalog.num_levels == 0
        grown = catalog.add_items(
            [{"item_id": "c", "title": "green kite"}], semantic_embeddings=np.array([[0, 0, 1]], np.float32)
        )
        assert grown.identifier_hash == catalog.identifier_hash and grown.codes == {}
        np.testing.assert_array_equal(grown.embeddings["semantic"], np.eye(3))
        grown.remove_items(["a"]).save(tmp_path)
        loaded = Catalog.load(tmp_path)
        assert loaded.live.tolist() == [False, True, True] and loaded.views == ()
