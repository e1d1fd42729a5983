"""What every family of vectors promises; what each has of its own is in its own file."""

import json

import numpy as np
import pyarrow as pa
import pytest
import torch
from dense_questions import HISTORY, REQUESTS, assert_same_scores, collate, scores_of
from small_shop import NUM_ITEMS, SEEN, make_intsr, make_log, make_synergen
from torch.nn import functional as F
from transformers import AutoModel, AutoProcessor

from seekrec.corpora.training_windows import build_training_windows
from seekrec.errors import RequestError
from seekrec.events import EventLog, split_log
from seekrec.models.new_items import NUM_TEXT_NEIGHBORS, TextNeighbors
from seekrec.schema import BEHAVIORS, Event, Request
from seekrec.training.event_windows import make_negatives


def test_a_model_is_asked_as_it_was_taught(windows, dense_family):
    """The question of a window is the request that the user would have made at that moment."""
    model, processor = dense_family
    split, _, table = windows
    batch = collate(windows, processor, [0, 7])
    with torch.no_grad():
        taught = model.encode_questions(batch)
    events = split.log.events.to_pylist()
    for row, number in enumerate([0, 7]):
        own = [events[event] for event in table.windows.take([number]).values]
        for question, place in enumerate(table.questions.take([number]).values.tolist()):
            is_search = bool(batch["question_behavior_ids"][row, question])
            request = Request(
                [Event(one["item_id"], one["behavior"], one["timestamp"], one["query"]) for one in own[:place]],
                query=own[place]["query"] if is_search else None,
                timestamp=own[place]["timestamp"],
            )
            asked = model.encode_questions(processor(request)).detach()
            torch.testing.assert_close(taught[row, question], asked[0, 0], atol=1e-5, rtol=1e-5)


def test_a_question_does_not_know_its_answer_nor_what_came_later(windows, dense_family):
    model, processor = dense_family
    batch = collate(windows, processor, [3])
    asked = batch["question_events"][0]
    with torch.no_grad():
        before = model.encode_questions(batch)[0]
        for place in range(batch["history_mask"].shape[1]):
            changed = {name: value.clone() for name, value in batch.items()}
            changed["history_item_rows"][0, place:] = 23
            changed["history_action_ids"][0, place:] = 0
            after = model.encode_questions(changed)[0]
            untouched = asked <= place
            torch.testing.assert_close(after[untouched], before[untouched])
            assert not torch.allclose(after[~untouched], before[~untouched]) or not (~untouched).any()


def test_what_a_state_has_read_was_seen_too(dense_family):
    model, processor = dense_family
    state = model.encode_history(processor(Request(SEEN[:3])))
    state = model.extend(state, processor.events([[Event("i5", timestamp=40)]]))
    answer = model.retrieve(processor(Request(timestamp=50)), top_k=50, state=state)[0]
    assert {item.item_id for item in answer} == {f"i{row}" for row in range(NUM_ITEMS)} - {"i0", "i1", "i2", "i5"}
    assert len(model.retrieve(processor(Request(timestamp=50)), top_k=50, state=state, exclude_seen=False)[0]) == 24


def page_views():
    """One user's events: the first alone, three of page view "p" at different times, one of "q" beside one of "r"."""
    acts = [
        (100, None),
        (5_000, "p"),
        (5_060, "p"),
        (9_000, "p"),
        (90_000, "q"),
        (90_000, "r"),
        (2e5, None),
        (3e5, None),
    ]
    names = {"user_id": ["u"] * len(acts), "timestamp": [int(time) for time, _ in acts]}
    sessions = {"session_id": pa.array([session for _, session in acts], pa.string())}
    behaviors = ["search" if number in (2, 4) else "recommendation" for number in range(len(acts))]
    queries = pa.array(["garden" if one == "search" else None for one in behaviors], pa.string())
    items = {"item_id": [f"i{number}" for number in range(len(acts))], "behavior": behaviors, "query": queries}
    log = EventLog("pages", pa.table({**names, **items, **sessions}), make_log().items, query_source="logged")
    return split_log(log)


@pytest.mark.parametrize("kind", ["page_view", "visit"])
def test_a_page_view_is_answered_as_it_was_taught(dense_family, kind):
    """The request of a page view does not look at the acts of that page view, as in training; a visit's does."""
    model, processor = dense_family
    processor.session_ids = kind
    split, catalog = page_views(), model.catalog
    table = build_training_windows(split, catalog.id_map, actions=["click"], session_ids=kind, max_history=12)
    batch = collate((split, catalog, table), processor, [0])
    with torch.no_grad():
        taught = model.encode_questions(batch)
    events = [Event(**row) for row in split.log.events.drop(["user_id"]).to_pylist()]
    for question, place in enumerate(table.questions.values.tolist()):
        own = events[place]
        request = Request(
            [event for event in events[:place] if event.timestamp < own.timestamp],
            query=own.query if batch["question_behavior_ids"][0, question] else None,
            timestamp=own.timestamp,
            session_id=own.session_id,
            action="click",
        )
        asked = model.encode_questions(processor(request)).detach()
        # Without a session mask, events of the target's own moment are seen in training.
        if "session_mask" not in getattr(model.config, "without", []):
            torch.testing.assert_close(taught[0, question], asked[0, 0], atol=1e-5, rtol=1e-5)
        sees_page = {"page_view": 1, "visit": 2}[kind]
        if place == 2:
            session = processor(request)["question_session_ids"]
            assert int((processor(request)["history_session_ids"] < session).sum()) == sees_page


def test_an_action_that_the_model_does_not_know_is_refused(dense_family):
    _, processor = dense_family
    assert processor([Request(), Request(action="click")])["question_action_ids"].tolist() == [[-1], [1]]
    with pytest.raises(RequestError, match="`action` of a request is 'wish'; the model knows click"):
        processor(Request(action="wish"))


def test_an_action_is_asked_for_by_any_word_that_means_it(dense_family):
    _, processor = dense_family
    inputs = processor([Request(action="Item_Click"), Request(), Request([Event("i1", action="clk")], action="click")])
    assert inputs["question_action_ids"].tolist() == [[1], [-1], [1]]
    assert inputs["history_action_ids"].tolist() == [[0], [0], [1]]


@pytest.mark.parametrize("query", [None, "office"])
def test_a_new_item_is_scored_by_the_items_with_texts_like_its_own(dense_family, query):
    model, processor = dense_family
    catalog = model.catalog
    texts = catalog.embeddings["semantic"]
    text = texts[3] + 0.01 * np.random.default_rng(0).normal(size=texts.shape[1])
    grown = catalog.add_items([{"item_id": "new", "title": "office thing"}], semantic_embeddings=text[None])
    model.set_catalog(grown)
    processor.set_catalog(grown)
    inputs = processor(Request([Event("i1", timestamp=1), Event("i7", timestamp=2)], query=query))
    answer = model.retrieve(inputs, top_k=100, exclude_seen=False)[0]
    found = {item.item_id: item.score for item in answer}
    assert len(found) == NUM_ITEMS + 1
    assert [item.score for item in answer] == sorted(found.values(), reverse=True)

    if model.items.ids is None:  # all are compared by their texts
        products = model.encode_questions(inputs)[0, 0] @ model.current_items().vectors[-1]
        assert found["new"] == pytest.approx(products.item(), abs=1e-5)
        return
    # The same by hand: the new one takes the score that has as many scores below it as its neighbours' mean has means.
    scores = np.array([found[item] for item in catalog.id_map.ids])
    behavior = "recommendation" if query is None else "search"
    neighbors = TextNeighbors.find(
        np.concatenate([texts, text[None]]),
        np.array([NUM_ITEMS]),
        np.arange(NUM_ITEMS),
        count=NUM_TEXT_NEIGHBORS[behavior],
        categories=None if query is None else grown.items["categories"],
    )
    usual = np.sort([scores[neighbors.rows[line]].mean() for line in neighbors.of_references])
    mean = scores[neighbors.rows[neighbors.of_new[0]]].mean()
    # Items of one aisle have one text here, so means tie: any score between those of the tied places is right.
    below, not_above = (usual < mean - 1e-4).sum(), (usual <= mean + 1e-4).sum()
    beyond = mean - np.clip(mean, usual[0], usual[-1])
    assert np.sort(scores)[max(below - 1, 0)] + min(beyond, 0) - 1e-4 <= found["new"]
    assert found["new"] <= np.sort(scores)[min(not_above, NUM_ITEMS - 1)] + max(beyond, 0) + 1e-4

    items = model.current_items()
    asked = model.encode_questions(inputs, items=items).detach()
    rows = torch.arange(NUM_ITEMS + 1).view(1, 1, -1)
    ranked = model.answer_scores(asked, rows, items, inputs["question_behavior_ids"])[0, 0]
    expected = torch.tensor([found[item] for item in grown.id_map.ids])
    torch.testing.assert_close(ranked, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("cut", range(len(HISTORY) + 1))
def test_a_state_grows_by_events_as_if_all_were_read_at_once(dense_family, cut):
    """The cut between the second and third event falls into a session: they share a timestamp."""
    model, processor = dense_family
    inputs = processor(Request(HISTORY, timestamp=300_000), candidates=[["i3", "i4"]])
    state = model.encode_history(processor(Request(HISTORY[:cut])))
    for event in HISTORY[cut:]:
        state = model.extend(state, processor.events([[event]]))
    at_once = model.encode_history(inputs)
    assert torch.equal(state.num_events, at_once.num_events)
    assert torch.equal(getattr(state, "origin", state.num_events), getattr(at_once, "origin", at_once.num_events))
    for name, value in vars(at_once.positions).items():
        assert torch.equal(getattr(state.positions, name), value), name
    for one, other in zip(state.keys + state.values, at_once.keys + at_once.values, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
    assert_same_scores(
        model.retrieve(inputs, state=state, exclude_seen=False), model.retrieve(inputs, exclude_seen=False)
    )
    assert_same_scores(model.rank(inputs, state=state), model.rank(inputs))


def test_states_of_several_users_grow_together(dense_family):
    model, processor = dense_family
    short, long = HISTORY[:1], HISTORY[:3]
    state = model.encode_history(processor([Request(long), Request(short)])).select(torch.tensor([1, 0]))
    state = model.extend(state, processor.events([HISTORY[1:4], HISTORY[3:4]]))
    inputs = processor([Request(HISTORY[:4], timestamp=100_000)] * 2)
    assert_same_scores(
        model.retrieve(inputs, state=state, exclude_seen=False), model.retrieve(inputs, exclude_seen=False)
    )


@torch.no_grad()
@pytest.mark.parametrize("make", [make_intsr, make_synergen])
def test_a_ranking_head_begins_with_what_retrieval_says(windows, make):
    """By hand: its own logit, that of the model without the switch, and the scores of `retrieve`."""
    settings = {"ranking_weight": 1.0, "temperature": 2.0, "hidden_size": 8}
    (model, processor), (plain, _) = make(ranks_with_retrieval=True, **settings), make(**settings)
    found = plain.load_state_dict(model.state_dict(), strict=False)
    assert (sorted(found.unexpected_keys), found.missing_keys) == (
        ["retrieval_logit.factor", "retrieval_logit.shift"],
        [],
    )
    model.retrieval_logit.factor.fill_(0.5)
    model.retrieval_logit.shift.fill_(-0.25)
    candidates = [[f"i{row}" for row in range(NUM_ITEMS)]] * len(REQUESTS)
    inputs = processor(REQUESTS, candidates=candidates)
    retrieved = scores_of(model.retrieve(inputs, top_k=NUM_ITEMS, exclude_seen=False))
    lines = zip(retrieved, *(scores_of(one.rank(inputs)) for one in (plain, model)), strict=True)
    for similar, own, ranked in lines:
        logits = {item: np.log(own[item] / (1 - own[item])) + 0.5 * similar[item] / 2.0 - 0.25 for item in own}
        expected = {item: 1 / (1 + np.exp(-logit)) for item, logit in logits.items()}
        assert ranked == pytest.approx(expected, abs=1e-5)
        assert list(ranked) == sorted(ranked, key=lambda item: -ranked[item])
    # As validation scaled them, for each task in turn.
    scales = {"recommendation": (2.0, 0.5, 1.5, -0.4, 0.1), "search": (0.0, 3.0, 3.0, 0.0, -0.2)}
    model.config.ranking_scales = [number for behavior in BEHAVIORS for number in scales[behavior]]
    lines = zip(REQUESTS, retrieved, *(scores_of(one.rank(inputs)) for one in (plain, model)), strict=True)
    for request, similar, own, ranked in lines:
        of_own, below, above, knee, shift = scales["recommendation" if request.query is None else "search"]
        over = {item: 0.5 * similar[item] / 2.0 - 0.25 - knee for item in own}
        assert min(over.values()) < 0 < max(over.values()) or below == above
        logits = {
            item: of_own * np.log(own[item] / (1 - own[item]))
            + (below if over[item] < 0 else above) * over[item]
            + shift
            for item in own
        }
        assert ranked == pytest.approx({item: 1 / (1 + np.exp(-logit)) for item, logit in logits.items()}, abs=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("make", [make_intsr, make_synergen])
@pytest.mark.parametrize("shift", [0.0, 900.0, -900.0])
def test_candidates_that_are_sure_keep_their_order(make, shift):
    """With logits of hundreds, whose sigmoids are 1 or 0, they come as in `retrieve`, each with its own chance."""
    settings = {"ranking_weight": 1.0, "temperature": 2.0, "hidden_size": 8}
    model, processor = make(ranks_with_retrieval=True, **settings)
    model.config.ranking_scales = [0.0, 300.0, 300.0, 0.0, shift] * len(BEHAVIORS)
    candidates = [[f"i{row}" for row in range(NUM_ITEMS)]] * len(REQUESTS)
    inputs = processor(REQUESTS, candidates=candidates)
    retrieved = model.retrieve(inputs, top_k=NUM_ITEMS, exclude_seen=False)
    for best, line in zip(retrieved, model.rank(inputs), strict=True):
        assert [item.item_id for item in line] == [item.item_id for item in best]
        assert len({item.score for item in line}) == len(line)
        assert all(0 < item.score < 1 for item in line)


@pytest.mark.parametrize("make", [make_intsr, make_synergen])
def test_the_ranking_loss_does_not_move_retrieval(windows, make):
    """A shift and a factor get a gradient; what retrieval knows gets the one it has when the head does not read it."""
    _, catalog, table = windows
    model, processor = make(ranks_with_retrieval=True, ranking_weight=1.0)
    batch = collate(windows, processor, [0, 5], negatives=make_negatives(table, catalog, "popularity", 3))
    torch.nn.init.zeros_(model.ranking_head[-1].weight)  # the head itself then passes no gradient on
    gradients = []
    for factor in (0.0, 0.7):
        model.retrieval_logit.factor.data.fill_(factor)
        model.zero_grad()
        model(**batch).loss.backward()
        gradients.append({name: weight.grad.clone() for name, weight in model.named_parameters()})
    without, with_it = gradients
    own = ("ranking_head.", "retrieval_logit.")
    for name in without:
        if not name.startswith(own):
            torch.testing.assert_close(with_it[name], without[name])
    assert with_it["retrieval_logit.factor"].abs() > 1e-4 and with_it["retrieval_logit.shift"].abs() > 1e-4


def test_a_head_that_begins_with_retrieval_needs_a_weight():
    for make in (make_intsr, make_synergen):
        with pytest.raises(Exception, match="`ranks_with_retrieval` is on and `ranking_weight` 0"):
            make(ranks_with_retrieval=True, ranking_weight=0.0)


@pytest.mark.parametrize("make", [make_intsr, make_synergen])
def test_an_older_model_loads_without_what_retrieval_says(tmp_path, make):
    model, processor = make()
    model.save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "config.json").read_text("utf-8"))
    del settings["ranks_with_retrieval"]
    older = make(seed=1)[0]
    older.load_state_dict(model.state_dict())
    older.config = type(model.config).from_dict(settings)
    assert older.retrieval_logit is None and not older.config.ranks_with_retrieval
    inputs = processor(REQUESTS, candidates=[["i3", "i4"]] * 4)
    assert_same_scores(older.rank(inputs), model.rank(inputs))
    begun = type(model)(make(ranks_with_retrieval=True)[0].config).retrieval_logit
    assert (begun.factor.item(), begun.shift.item()) == (1.0, 0.0)


def test_a_saved_folder_is_complete(tmp_path, dense_family):
    model, processor = dense_family
    processor.query_vectors.add(["garden", "office", "kitchen"])
    inputs = processor(REQUESTS, candidates=[["i3", "i4"]] * 4)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    assert not list(tmp_path.rglob("*.bin")) and not any("text_vectors" in name for name in model.state_dict())
    loaded, read = AutoModel.from_pretrained(tmp_path).eval(), AutoProcessor.from_pretrained(tmp_path)
    assert type(loaded) is type(model) and type(read) is type(processor)
    assert (read.max_history, read.actions) == (12, ["click"]) and len(read.query_vectors) == 3
    again = read(REQUESTS, candidates=[["i3", "i4"]] * 4)
    for name, value in inputs.items():
        assert torch.equal(again[name], value), name
    assert_same_scores(
        loaded.retrieve(again, top_k=5, exclude_seen=False), model.retrieve(inputs, top_k=5, exclude_seen=False)
    )
    assert_same_scores(loaded.rank(again), model.rank(inputs))
    assert loaded.catalog.content_hash == model.catalog.content_hash


def test_where_keeps_to_what_it_allows(dense_family):
    model, processor = dense_family
    inputs = processor(REQUESTS)
    everything = scores_of(model.retrieve(inputs, top_k=NUM_ITEMS, exclude_seen=False))
    mask = model.catalog.where(categories="office")
    for answer, scores in zip(
        model.retrieve(inputs, top_k=50, where=mask, exclude_seen=False), everything, strict=True
    ):
        assert {item.item_id for item in answer} == {f"i{row}" for row in range(16, 24)}
        assert all(item.score == pytest.approx(scores[item.item_id], abs=1e-5) for item in answer)
        assert all(item.title.startswith("office") for item in answer)
    each = model.retrieve(inputs, top_k=50, where=[None, ["i3"], np.zeros(NUM_ITEMS, bool), mask], exclude_seen=False)
    assert [len(answer) for answer in each] == [NUM_ITEMS, 1, 0, 8]


def test_items_come_and_go(dense_family):
    model, processor = dense_family
    catalog = model.catalog
    text = catalog.embeddings["semantic"][3]
    grown = catalog.add_items([{"item_id": "new", "title": "garden thing"}], semantic_embeddings=text[None])
    model.set_catalog(grown)
    processor.set_catalog(grown)
    inputs = processor([Request([Event("new", timestamp=5)]), Request()], candidates=[["new", "i3"]] * 2)
    found = model.retrieve(inputs, top_k=50, exclude_seen=False)
    assert {item.item_id for item in found[0]} == {*catalog.id_map.ids, "new"} and len(found[0]) == NUM_ITEMS + 1
    assert len(model.rank(inputs)[0]) == 2
    if model.items.ids is None:
        # Items of the same text are then the same, wherever they stand.
        assert all(answer["new"] == pytest.approx(answer["i3"], abs=1e-5) for answer in scores_of(model.rank(inputs)))
        same = processor(Request([Event("i3", timestamp=5)]))
        assert_same_scores(model.retrieve(same, top_k=50, exclude_seen=False), found[:1])
    model.set_catalog(grown.remove_items(["new", "i3"]))
    kept = model.retrieve(inputs, top_k=50, exclude_seen=False)
    assert all({"new", "i3"}.isdisjoint(item.item_id for item in answer) for answer in kept)


@pytest.mark.parametrize("make", [make_intsr, make_synergen])
@pytest.mark.parametrize("negatives", ["full", "uniform"])
@pytest.mark.parametrize("competes", [True, False])
def test_what_a_recommendation_sees_competes_only_if_so_set(windows, make, negatives, competes):
    """By hand: a softmax over all items or the drawn ones, for a recommendation without those of earlier sessions."""
    _, catalog, table = windows
    own = {"without": ["alignment"]} if make is make_intsr else {"easy_weight": float(negatives == "full")}
    settings = {"ranking_weight": 0.0, "negatives": negatives, "seen_compete": competes, "temperature": 0.5}
    model, processor = make(**settings, **own)
    draws = make_negatives(table, catalog, "uniform", 20) if negatives == "uniform" else None
    batch = collate(windows, processor, [0, 3], negatives=draws)
    output, expected, num_left_out = model(**batch), [], 0
    for row, question in torch.nonzero(batch["labels"] >= 0).tolist():
        target = batch["labels"][row, question]
        rows = torch.arange(NUM_ITEMS) if draws is None else batch["negative_rows"][row, question]
        is_left_out = rows == target if draws is None else rows < 0
        if not competes and not batch["question_behavior_ids"][row, question]:
            before = batch["history_session_ids"][row] < batch["question_session_ids"][row, question]
            is_seen = torch.isin(rows, batch["history_item_rows"][row, before & batch["history_mask"][row]])
            num_left_out += int((is_seen & ~is_left_out).sum())
            is_left_out |= is_seen
        compared = torch.cat([target[None], rows[~is_left_out]])
        scores = model.items(compared) @ output.questions[row, question] / 0.5
        expected.append(-F.log_softmax(scores, dim=0)[0])
    torch.testing.assert_close(output.loss, torch.stack(expected).mean())
    assert bool(num_left_out) is not competes
