import numpy as np
import pytest
import torch
from small_shop import log_of
from transformers import AutoModel

from seekrec.embeddings import LightGCNConfig, LightGCNModel, interaction_graph
from seekrec.errors import DataError, RequestError, UnknownItemError
from seekrec.events import split_log
from seekrec.schema import IdMap

# Two users and three items: user 0 acted on items 0 and 1, user 1 on item 1.
USERS, ITEMS = np.array([0, 0, 1]), np.array([0, 1, 1])


def make(**changes):
    settings = {"num_users": 2, "num_items": 3, "num_edges": 3, "hidden_size": 2, "l2_weight": 0.0}
    model = LightGCNModel(LightGCNConfig(**(settings | changes)))
    model.set_graph(USERS, ITEMS)
    return model


def test_propagation_by_hand():
    """Degrees: users 2 and 1, items 1, 2 and 0. Weights 1/sqrt(2*1), 1/sqrt(2*2), 1/sqrt(1*2)."""
    model = make(num_propagations=1)
    with torch.no_grad():
        model.user_embedding.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
        model.item_embedding.weight.copy_(torch.tensor([[2.0, 0.0], [0.0, 4.0], [1.0, 1.0]]))
    root = 2**-0.5
    users = torch.tensor([[2 * root, 4 * 0.5], [0.0, 4 * root]])  # what the items pass on
    items = torch.tensor([[root, 0.0], [0.5, root], [0.0, 0.0]])  # what the users pass on; nobody to item 2
    output = model()
    torch.testing.assert_close(output.user_embeddings, (model.user_embedding.weight + users) / 2)
    torch.testing.assert_close(output.item_embeddings, (model.item_embedding.weight + items) / 2)


def test_propagation_equals_powers_of_a_dense_matrix():
    model = make(num_propagations=3, hidden_size=4)
    adjacency = torch.zeros(5, 5)
    adjacency[USERS, ITEMS + 2] = 1.0
    adjacency = adjacency + adjacency.T
    scale = adjacency.sum(1).clamp(min=1).rsqrt()
    adjacency = scale[:, None] * adjacency * scale
    start = torch.cat([model.user_embedding.weight, model.item_embedding.weight])
    layers = [torch.linalg.matrix_power(adjacency, power) @ start for power in range(4)]
    expected = torch.stack(layers).mean(0)
    output = model()
    torch.testing.assert_close(torch.cat([output.user_embeddings, output.item_embeddings]), expected)


def test_the_loss_by_hand():
    model = make(num_propagations=0, l2_weight=0.5)
    with torch.no_grad():
        model.user_embedding.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
        model.item_embedding.weight.copy_(torch.tensor([[2.0, 0.0], [1.0, 0.0], [0.0, 1.0]]))
    rows = torch.tensor([0]), torch.tensor([0]), torch.tensor([[1, 2]])
    # Scores 2 against 1 and 0. Squared lengths: 1 of the user, 4 of the item, (1 + 1) / 2 of a negative; halved.
    length = 0.5 * (1 + 4 + 1) / 2
    bpr = -(torch.tensor([1.0, 2.0]).sigmoid().log().mean()).item()
    assert model(*rows).loss.item() == pytest.approx(bpr + length, abs=1e-6)


def test_users_are_scored_by_embedding_and_strangers_by_their_items():
    model = make(num_propagations=2, hidden_size=4)
    output = model()
    scores = model.score([np.array([0]), np.array([], np.int64), np.array([1, 0, 1])], np.array([1, -1, -1]))
    torch.testing.assert_close(scores[0], output.user_embeddings[1] @ output.item_embeddings.T)
    assert scores[1].tolist() == [0.0, 0.0, 0.0]
    # A stranger with the items of user 0 gets what the graph passes on to user 0, without a layer 0.
    layers = model.layers()
    passed = torch.stack([layer[0] for layer in layers[1:]]).sum(0) / 3
    torch.testing.assert_close(scores[2], passed @ output.item_embeddings.T)


def test_the_graph_is_saved_with_the_weights(tmp_path):
    model = make().eval()
    model.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path)
    assert isinstance(loaded, LightGCNModel)
    assert loaded.edge_users.tolist() == USERS.tolist()
    np.testing.assert_array_equal(loaded.item_embeddings(), model.item_embeddings())
    # The item nobody acted on moves with its own layer alone.
    np.testing.assert_allclose(model.item_embeddings()[2], model.item_embedding.weight.detach()[2] / 3, atol=1e-6)


@pytest.mark.parametrize(
    ("users", "items", "message"),
    [
        ([0, 1], [0, 1], r"`users` has shape \(2,\).*`num_edges=3`"),
        ([0, 0, 2], [0, 1, 1], r"`users` contains rows 0..2; the model knows 0..1"),
        ([0, 0, 1], [0, 3, 1], r"`items` contains rows 0..3; the model knows 0..2"),
        ([0, 0, 1], [1, 1, 1], "1 of 3 pairs occur twice"),
    ],
)
def test_wrong_graphs_are_refused(users, items, message):
    with pytest.raises(DataError, match=message):
        make().set_graph(np.array(users), np.array(items))


def test_wrong_rows_are_refused():
    model = make()
    with pytest.raises(RequestError, match=r"`user_rows` contains 0..2; the model knows 0..1"):
        model.score([np.array([0])] * 2, np.array([0, 2]))
    with pytest.raises(RequestError, match=r"item rows 1..3, but the model knows 0..2"):
        model.score([np.array([3, 1])])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_users": 0}, "`num_users` is 0"),
        ({"l2_weight": -1.0}, "`l2_weight` is -1.0"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(Exception, match=message) as caught:
        LightGCNConfig(**settings)
    assert "Strict" in type(caught.value).__name__


def test_the_graph_of_a_split_holds_training_pairs_once():
    """Each user's last two items are held out; searches count if asked for, impressions never."""
    lines = [
        ("a", 1, "i0"),
        ("a", 2, "i1", "kite"),
        ("a", 3, "i0"),
        ("a", 4, "i2", None, "impression"),
        ("a", 5, "i3"),
        ("a", 6, "i4"),
    ]
    split = split_log(log_of(lines))
    id_map = IdMap([f"i{row}" for row in range(5)])
    graph = interaction_graph(split, id_map, behaviors=["recommendation"])
    assert (graph.user_ids, graph.users.tolist(), graph.items.tolist()) == (["a"], [0], [0])
    assert interaction_graph(split, id_map).items.tolist() == [0, 1]
    with pytest.raises(UnknownItemError, match="first 'i0'"):
        interaction_graph(split, IdMap(["i1"]))
    with pytest.raises(DataError, match="No training event of nothing has an item"):
        interaction_graph(split, id_map, behaviors=["nothing"])
