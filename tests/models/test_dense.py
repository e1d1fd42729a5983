# SPDX-License-Identifier: Apache-2.0
"""What the families that compare vectors share: index, tower, losses, query vectors."""

from __future__ import annotations

import math
import sys

import numpy as np
import pyarrow as pa
import pytest
import torch
from dense_questions import REQUESTS, assert_same_scores
from small_shop import make_intsr
from torch.nn import functional as F

from seekrec.embeddings.softmax import full_softmax, info_nce
from seekrec.errors import CatalogError, ConfigurationError, DataError, MissingDependencyError, RequestError
from seekrec.models.dense import DenseConfig, ItemIndex, ItemTower, QueryVectors
from seekrec.models.dense import item_index as index_module
from seekrec.models.dense.item_tower import ItemTexts
from seekrec.models.dense.modeling_dense import LatestItem
from seekrec.models.dense.query_vectors import QUERY_VECTORS_FILE
from seekrec.models.words import NO_WORD, Vocabulary, item_word_keys, text_word_keys
from seekrec.schema import ITEM_FEATURES


@pytest.mark.parametrize("cells", [16_000_000, 7])  # all items in one block; two items a block
def test_the_index_gives_what_sorting_gives(monkeypatch, cells):
    monkeypatch.setattr(index_module, "_BLOCK_CELLS", cells)
    vectors, queries = torch.randn(50, 8), torch.randn(3, 8)
    mask = torch.rand(50) < 0.3
    few = np.zeros(50, bool)
    few[[3, 9]] = True
    found = ItemIndex(vectors).search(queries, [5, 50, 4], [None, mask.numpy(), few])
    scores = (queries @ vectors.T).masked_fill(
        ~torch.stack([torch.ones(50, dtype=bool), mask, torch.tensor(few)]), -9e9
    )
    for line, count in enumerate((5, int(mask.sum()), 2)):
        order = scores[line].argsort(descending=True)[:count]
        assert found[line][0].tolist() == order.tolist()
        np.testing.assert_allclose(found[line][1], scores[line][order], rtol=1e-5)


@pytest.mark.parametrize("backend", ["exact", "faiss"])
@pytest.mark.parametrize("cells", [16_000_000, 7])
def test_scores_stand_in_for_the_products_of_some_items(monkeypatch, backend, cells):
    monkeypatch.setattr(index_module, "_BLOCK_CELLS", cells)
    vectors, queries, rows = torch.randn(50, 8), torch.randn(3, 8), np.array([0, 7, 8, 31, 49])
    given, mask = torch.randn(3, 5) * 4, np.arange(50) != 8
    scores = queries @ vectors.T
    scores[:, torch.from_numpy(rows)] = given
    scores[1, 8] = float("-inf")
    found = ItemIndex(vectors, backend).search(queries, [5, 50, 4], [None, mask, None], spoken_for=(rows, given))
    for line, count in enumerate((5, 49, 4)):
        order = scores[line].argsort(descending=True)[:count]
        assert found[line][0].tolist() == order.tolist()
        np.testing.assert_allclose(found[line][1], scores[line][order], rtol=1e-5)


def test_one_mask_for_all_and_nothing_allowed():
    vectors, queries = torch.eye(4), torch.ones(2, 4)
    mask = np.zeros(4, bool)
    assert [len(rows) for rows, _ in ItemIndex(vectors).search(queries, [2, 2], [mask, mask])] == [0, 0]
    with pytest.raises(RequestError, match="`top_k` is 0; ask for at least one item"):
        ItemIndex(vectors).search(queries, [0, 2], [None, None])


@pytest.mark.parametrize("num_items", [61, 64])  # a mask of whole bytes, and one with bits to spare
def test_faiss_answers_the_same(num_items):
    vectors, queries = torch.randn(num_items, 8), torch.randn(5, 8)
    half, few = np.arange(num_items) % 2 == 0, np.zeros(num_items, bool)
    few[[0, 7, num_items - 1]] = True
    # More is asked for than there is, of all items, of those allowed, and where none is.
    allowed, top_k = [None, half, None, few, np.zeros(num_items, bool)], [9, 9, 999, 5, 2]
    found = ItemIndex(vectors, "faiss").search(queries, top_k, allowed)
    assert [len(rows) for rows, _ in found] == [9, 9, num_items, 3, 0]
    for one, two in zip(ItemIndex(vectors).search(queries, top_k, allowed), found, strict=True):
        assert one[0].tolist() == two[0].tolist() and one[0].dtype == two[0].dtype
        np.testing.assert_allclose(one[1], two[1], rtol=1e-5, atol=1e-6)
        assert one[1].dtype == two[1].dtype
    with pytest.raises(RequestError, match="`top_k` is 0; ask for at least one item"):
        ItemIndex(vectors, "faiss").search(queries, [0] * 5, allowed)


def test_a_model_answers_the_same_from_faiss():
    model, processor = make_intsr(ranking_weight=0.0)
    where = [None, ["i3", "i17"], np.arange(24) > 20, None]
    exact = model.retrieve(processor(REQUESTS), top_k=[5, 5, 5, 30], where=where, exclude_seen=False)
    model.item_index = "faiss"
    found = model.retrieve(processor(REQUESTS), top_k=[5, 5, 5, 30], where=where, exclude_seen=False)
    assert [len(answer) for answer in found] == [5, 2, 3, 24]
    assert_same_scores(found, exact)


def test_id_embeddings_start_from_vectors_and_keep_the_rest():
    tower = ItemTower(3, 4, 0)
    before = tower.ids.weight.detach().clone()
    vectors = np.arange(6, dtype=np.float32).reshape(3, 2)
    tower.start_ids(vectors)
    assert tower.ids.weight[:, :2].tolist() == vectors.tolist()
    torch.testing.assert_close(tower.ids.weight[:, 2:], before[:, 2:])
    assert tower.ids.weight.requires_grad


@pytest.mark.parametrize("shape", [(2, 4), (3, 5)])  # an item short; wider than the embeddings
def test_vectors_that_do_not_fit_are_no_start(shape):
    with pytest.raises(ConfigurationError, match=r"shape \(\d, \d\), the id embeddings \(3, 4\)"):
        ItemTower(3, 4, 0).start_ids(np.zeros(shape, np.float32))
    with pytest.raises(
        ConfigurationError, match="no learned vectors to initialise: `item_reading` does not include 'vector'"
    ):
        ItemTower(3, 4, 2, has_ids=False).start_ids(np.zeros((3, 4), np.float32))


def test_without_faiss_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(MissingDependencyError, match="pip install faiss-cpu"):
        ItemIndex(torch.eye(2), "faiss")


def test_a_new_item_stands_at_the_mean_id_plus_its_text():
    tower = ItemTower(2, 3, 2)
    texts = np.array([[1, 0], [0, 1], [1, 1]], np.float32)
    tower.texts = ItemTexts(texts, 3)
    ids, text = tower.ids.weight, tower.text.weight
    expected = torch.stack([ids[0] + text[:, 0], ids[1] + text[:, 1], ids.mean(0) + text.sum(1)])
    torch.testing.assert_close(tower.all(), expected)
    torch.testing.assert_close(
        tower(torch.tensor([[2, -1], [0, 1]])), torch.stack([torch.stack([expected[2], torch.zeros(3)]), expected[:2]])
    )


def test_an_item_is_the_sum_of_what_is_read_of_it_and_a_query_of_its_words():
    """Four parts by hand; the third item came after training, with a category and a word that are known."""
    rows = [("red hat", "Wear"), ("hat", "Toys"), ("red scarf", "Wear")]
    table = pa.Table.from_pylist(
        [{"item_id": title, "title": title, "categories": [["Shop", kind]]} for title, kind in rows],
        ITEM_FEATURES.arrow_schema,
    )
    trained = table.slice(0, 2)
    words = Vocabulary.choose([item_word_keys(trained, ["title"])] * 2)
    settings = {"item_reading": ["vector", "text", "categories", "words"], "query_reading": ["text", "words"]}
    sizes = {"num_items": 2, "hidden_size": 4, "text_size": 2, "query_size": 2, "num_words": 2, "num_categories": 3}
    tower = ItemTower.from_config(DenseConfig(**sizes, **settings))
    named = {"shop": [1.0, 0.0], "wear": [0.0, 1.0], "toys": [1.0, 1.0]}
    tower.set_words(trained, words, lambda names: np.array([named[name] for name in names], np.float32))
    texts = np.array([[1, 0], [0, 1], [1, 1]], np.float32)
    tower.texts = tower.read_texts(table, texts)
    # Of two items "shop" names both and the others one each; "hat" stands in four of four texts, "red" in two.
    idf = {"shop": np.log(2), "wear": np.log(3), "toys": np.log(3), "hat": np.log(2), "red": np.log(3)}
    vector_of = {name: tower.categories.projection(torch.tensor(vector)) for name, vector in named.items()}
    for name in ("red", "hat"):
        place = words.keys.tolist().index(int(text_word_keys([name]).values[0]))
        vector_of[name] = tower.words.weight[place]

    def pooled(*names):
        share = np.array([idf[name] for name in names])
        share = share / np.linalg.norm(share)
        return sum(float(part) * vector_of[name] for part, name in zip(share, names, strict=True))

    ids = torch.cat([tower.ids.weight, tower.ids.weight.mean(0, keepdim=True)])
    said = [pooled("shop", "wear") + pooled("red", "hat"), pooled("shop", "toys") + pooled("hat")]
    said.append(pooled("shop", "wear") + pooled("red"))
    expected = ids + tower.text(torch.from_numpy(texts)) + torch.stack(said)
    torch.testing.assert_close(tower.all(), expected)
    torch.testing.assert_close(tower(torch.tensor([[2, -1], [0, 2]]))[[0, 1, 1], [0, 0, 1]], expected[[2, 0, 2]])
    assert tower(torch.tensor([-1])).abs().sum() == 0
    asked = torch.from_numpy(text_word_keys(["Red hats!", "blue", "hat"]).pad(NO_WORD))
    read = tower.read_queries({"query_words": asked})
    torch.testing.assert_close(read, torch.stack([pooled("red", "hat"), torch.zeros(4), pooled("hat")]))
    with pytest.raises(ConfigurationError, match="no `query_words`, which `query_reading` needs"):
        tower.read_queries({})
    with pytest.raises(CatalogError, match="does not know the categories of the items; call `set_catalog`"):
        tower.all(ItemTexts(texts, 3))


def test_a_question_begins_with_the_latest_item_it_sees():
    latest = LatestItem(2)
    with torch.no_grad():
        latest.gates.copy_(torch.tensor([[1.0, 1.0], [2.0, 0.5]]))
    # Vectors of two entries become (-1, 1) or (1, -1) at length sqrt(2), whatever they were.
    vectors = torch.tensor([[0.0, 10.0], [30.0, 10.0], [1.0, 5.0]])
    item_rows = torch.tensor([[0, 1, -1, 2]])
    allowed = torch.tensor([[[1, 1, 1, 0], [1, 1, 1, 1], [0, 0, 1, 0], [1, 0, 0, 0]]]).bool()
    behaviors = torch.tensor([[0, 1, 0, 1]])
    found = latest(item_rows, allowed, behaviors, lambda rows: vectors[rows.clamp_min(0)])
    # The third token brings no item: the first question begins with item 1, the third with nothing.
    expected = torch.tensor([[[1.0, -1.0], [-2.0, 0.5], [0.0, 0.0], [-2.0, 0.5]]])
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    nothing = latest(item_rows[:, :0], allowed[..., :0], behaviors, lambda rows: vectors[rows.clamp_min(0)])
    assert torch.equal(nothing, torch.zeros(1, 4, 2))


def test_info_nce_by_hand():
    # Similarities 1 against 0 and 2 at temperature 0.5: -log(e^2 / (e^2 + e^0 + e^4)).
    positive, negatives = torch.tensor([1.0]), torch.tensor([[0.0, 2.0]])
    expected = math.log(math.exp(2) + 1 + math.exp(4)) - 2
    assert info_nce(positive, negatives, temperature=0.5).item() == pytest.approx(expected, rel=1e-6)
    masked = info_nce(positive, negatives, is_valid=torch.tensor([[True, False]]), temperature=0.5)
    assert masked.item() == pytest.approx(math.log(math.exp(2) + 1) - 2, rel=1e-6)
    assert info_nce(positive, negatives, divisor=4).item() == pytest.approx(
        (math.log(math.e + 1 + math.exp(2)) - 1) / 4, rel=1e-6
    )
    assert info_nce(positive[:0], negatives[:0]).item() == 0


def test_the_correction_makes_the_sampled_sum_the_full_one():
    # Items drawn with probability q, each logit less log q: the expected sum is that of all items.
    scores, q = torch.tensor([0.3, -1.0, 2.0, 0.5]), torch.tensor([0.1, 0.2, 0.3, 0.4])
    drawn = torch.multinomial(q, 200_000, replacement=True)
    mean = torch.exp(scores[drawn] - q[drawn].log()).mean()
    assert mean.item() == pytest.approx(scores.exp().sum().item(), rel=0.01)


def test_full_softmax_leaves_out_what_is_no_candidate_but_never_the_target():
    questions, items, labels = torch.randn(3, 4), torch.randn(5, 4), torch.tensor([0, 3, 4])
    torch.testing.assert_close(full_softmax(questions, items, labels), F.cross_entropy(questions @ items.T, labels))
    is_candidate = torch.tensor([[True, True, False, False, False]] * 3)
    scores = questions @ items.T
    expected = (
        (scores[0, [0, 1]].logsumexp(0) - scores[0, 0])
        + (scores[1, [0, 1, 3]].logsumexp(0) - scores[1, 3])
        + (scores[2, [0, 1, 4]].logsumexp(0) - scores[2, 4])
    ) / 3
    found = full_softmax(questions, items, labels, candidates=lambda part: is_candidate[part])
    torch.testing.assert_close(found, expected)


class WordLengths:
    """An encoder that is called and counted: a text becomes its length and its number of words."""

    calls = 0

    def encode(self, texts, **_):
        WordLengths.calls += len(texts)
        return np.array([[len(text), text.count(" ") + 1] for text in texts], np.float32)


@pytest.mark.parametrize("at_once", [1, 100])
def test_known_queries_are_not_computed_again(tmp_path, monkeypatch, at_once):
    monkeypatch.setattr("seekrec.models.dense.query_vectors.load_semantic_encoder", lambda name: WordLengths())
    monkeypatch.setattr("seekrec.models.dense.query_vectors._TEXTS_AT_ONCE", at_once)
    WordLengths.calls = 0
    vectors = QueryVectors()
    vectors.add(["red kite", "kite", "kite"])
    np.testing.assert_array_equal(
        vectors.encode(["kite", "blue", "red kite", "blue"]), [[4, 1], [4, 1], [8, 2], [4, 1]]
    )
    vectors.encode(["blue"])
    assert WordLengths.calls == 3 and vectors.encode([]).shape == (0, 0)
    vectors.save(tmp_path)
    assert b"kite" not in (tmp_path / QUERY_VECTORS_FILE).read_bytes()
    loaded = QueryVectors.load(tmp_path)
    np.testing.assert_array_equal(loaded.encode(["red kite"]), [[8, 2]])
    assert WordLengths.calls == 3 and len(loaded) == 2
    (tmp_path / QUERY_VECTORS_FILE).write_bytes(b"no tensors")
    with pytest.raises(DataError, match="contains no query vectors .* Save the processor again"):
        QueryVectors.load(tmp_path)
    QueryVectors().save(tmp_path)
    assert not (tmp_path / QUERY_VECTORS_FILE).exists()
