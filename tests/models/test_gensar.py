"""What GenSAR adds to T5; what all families promise is in `test_contract.py`."""

import json
import math
import re

import numpy as np
import pytest
import torch
from small_shop import CODEBOOK_SIZE, GENSAR_OLD_WAYS, GENSAR_WAYS, HISTORY, NUM_ITEMS, REQUESTS, make_gensar
from transformers import AutoModel, AutoProcessor, LogitsProcessorList, T5Config
from transformers import T5ForConditionalGeneration as T5
from written_tokens import decode_tokens

import seekrec
from seekrec.corpora import (
    Seq2SeqCollator,
    StreamCollator,
    build_corpus,
    build_item_queries,
    build_stream,
)
from seekrec.errors import RequestError, UnknownItemError
from seekrec.generation import TrieLogitsProcessor
from seekrec.models import GenSARConfig, GenSARForConditionalGeneration
from seekrec.models.losses import level_loss, mask_other_levels, token_loss
from seekrec.models.manifest import save_checkpoint
from seekrec.schema import Event, Request


def stream_batch(aisles, *, shares=None, **settings):
    split, catalog, tokenizer, vocabulary = aisles
    rows = build_stream(split, catalog, tokenizer, vocabulary, GenSARConfig(**settings), shares=shares)
    return rows, StreamCollator(tokenizer.pad_token_id, tokenizer.pad_token_id)


def brute_force(model, processor, request):
    """Teacher-forced log-probability of every identifier, normalised as the model was trained."""
    inputs = processor([request])
    view = model.catalog.view_of(request.behavior)
    offsets = model.vocabulary.level_offsets[view]
    prefix = model.decoder_prefix(request.behavior, 1)
    scores = []
    for codes in model.catalog.codes[view]:
        tokens = torch.from_numpy(codes + offsets)[None]
        logits = model(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            decoder_input_ids=torch.cat([prefix, tokens[:, :-1]], dim=1),
        ).logits[0, prefix.shape[1] - 1 :]
        total = 0.0
        for line, offset, code in zip(logits, offsets.tolist(), codes.tolist(), strict=True):
            if model.config.loss_norm == "level":
                total += line[offset : offset + CODEBOOK_SIZE].log_softmax(-1)[code].item()
            else:
                total += line.log_softmax(-1)[offset + code].item()
        scores.append(total)
    return np.array(scores)


@torch.no_grad()
def test_retrieve_and_rank_equal_brute_force(gensar):
    model, processor = gensar
    model.config.order_by = "identifier"  # what a stream orders by else is in `test_gensar_items.py`
    ids = model.catalog.id_map.ids
    answers = model.retrieve(processor(REQUESTS), top_k=5, num_beams=NUM_ITEMS, exclude_seen=False)
    ranked = model.rank(processor(REQUESTS, candidates=[ids[:3], ids[5:6], ids, ids[::-1]]))
    for request, answer, order in zip(REQUESTS, answers, ranked, strict=True):
        scores = brute_force(model, processor, request)
        best = np.argsort(-scores)[:5]
        assert [item.item_id for item in answer] == [ids[row] for row in best]
        np.testing.assert_allclose([item.score for item in answer], scores[best], atol=1e-4)
        by_id = dict(zip(ids, scores, strict=True))
        np.testing.assert_allclose([item.score for item in order], [by_id[item.item_id] for item in order], atol=1e-4)
        assert [item.score for item in order] == sorted((item.score for item in order), reverse=True)
    assert [len(order) for order in ranked] == [3, 1, NUM_ITEMS, NUM_ITEMS]
    assert answers[0][0].title.startswith(("garden", "kitchen", "office"))


@torch.no_grad()
def test_generate_with_the_trie_processor_gives_the_same_items(gensar):
    model, processor = gensar
    model.config.order_by = "identifier"
    request = Request(HISTORY)
    inputs = processor([request])
    prefix = model.decoder_prefix("recommendation", 1)
    trie = model.trie("collaborative")
    offsets = model.vocabulary.level_offsets["collaborative"]
    written = model.generate(
        input_ids=inputs["input_ids"],
        attention_mask=inputs["attention_mask"],
        decoder_input_ids=prefix,
        decoder_start_token_id=int(prefix[0, 0]),
        num_beams=6,
        num_return_sequences=6,
        max_new_tokens=2,
        eos_token_id=None,
        length_penalty=0.0,
        do_sample=False,
        return_dict_in_generate=True,
        output_scores=True,
        logits_processor=LogitsProcessorList([TrieLogitsProcessor(trie, offsets, prefix.shape[1])]),
    )
    codes = written.sequences[:, -2:].numpy() - offsets
    expected = model.retrieve(inputs, top_k=6, num_beams=6, norm="vocab", exclude_seen=False)[0]
    by_code = {tuple(code): row for row, code in enumerate(model.catalog.codes["collaborative"].tolist())}
    assert [f"i{by_code[tuple(code)]}" for code in codes.tolist()] == [item.item_id for item in expected]
    np.testing.assert_allclose(written.sequences_scores, [item.score for item in expected], atol=1e-4)


@torch.no_grad()
def test_each_target_of_a_stream_is_as_good_as_alone(aisles):
    """The loss is that of every target after only what it may see, each code against the codes of its level."""
    model, _ = make_gensar(aisles, corpus="stream")
    rows, collate = stream_batch(aisles)
    losses = []
    for row in (rows[0], rows[1]):
        segments = np.array(row["decoder_segment_ids"])
        for segment in np.unique(segments):
            inside = np.flatnonzero(segments == segment)
            visible = row["decoder_history_lengths"][inside[0]]
            logits = model(
                input_ids=torch.tensor([row["input_ids"][:visible]]),
                decoder_input_ids=torch.tensor([[row["decoder_input_ids"][place] for place in inside]]),
            ).logits[0]
            labels = torch.tensor([row["labels"][place] for place in inside])
            losses.append(token_loss(mask_other_levels(logits, labels, model.config), labels, 1).item())
    # Equation 12, as the mean over all label tokens.
    expected = sum(losses) / sum(len(row["labels"]) for row in (rows[0], rows[1]))
    assert model(**collate([rows[0], rows[1]])).loss.item() == pytest.approx(expected, abs=1e-5)


def test_a_stream_reads_as_the_events_of_the_user(aisles):
    split, catalog, tokenizer, vocabulary = aisles
    rows, _ = stream_batch(aisles)
    # User u00 (garden): items 0, 1, 2, 3 in training, of which 1 and 3 were searched for.
    written = decode_tokens(tokenizer, rows[0]["input_ids"])
    assert written == (
        "History: <R_I> <M1_0> <R1_3> <S_Q> garden <S_I> <M1_0> <S1_1> <R_I> <M1_0> <R1_5> "
        "<S_Q> garden <S_I> <M1_0> <S1_3>"
    )
    seen = []
    segments = np.array(rows[0]["decoder_segment_ids"])
    for segment in np.unique(segments):
        inside = np.flatnonzero(segments == segment)
        visible = rows[0]["decoder_history_lengths"][inside[0]]
        answer = [rows[0]["decoder_input_ids"][inside[0]], *(rows[0]["labels"][place] for place in inside)]
        seen.append((decode_tokens(tokenizer, rows[0]["input_ids"][:visible]), decode_tokens(tokenizer, answer)))
    first = "History: <R_I> <M1_0> <R1_3>"
    assert ("History:", "<R_I> <M1_0> <R1_3>") in seen
    assert (f"{first} <S_Q> garden", "<S_I> <M1_0> <S1_1>") in seen
    assert (first, "<S_Q> garden") in seen
    assert (f"{first} <S_Q> garden <S_I> <M1_0> <S1_1>", "<R_I> <M1_0> <R1_5>") in seen
    assert len(seen) == 6  # two recommendations, two searches, two queries
    assert sum(label == tokenizer.eos_token_id for label in rows[0]["labels"]) == 2  # a query ends, an identifier not


def test_long_histories_are_cut_and_every_event_is_asked_once(aisles):
    split, *_ = aisles
    rows, _ = stream_batch(
        aisles, shares={"nrip": 1, "nsip": 1}, max_history_recommendations=1, max_history_searches=1
    )
    # 30 users with 4 training events each: windows 0-1, 1-2, 2-3, whose new events are 2, 1 and 1.
    assert len(rows) == 30 * 3
    targets = sum(len(set(row["decoder_segment_ids"])) for row in rows)
    assert targets == len(split.train_rows) == 30 * 4


def test_item_queries_ask_for_every_item(aisles):
    _, catalog, tokenizer, vocabulary = aisles
    rows = build_item_queries(catalog, tokenizer, vocabulary, GenSARConfig(), max_items=5)
    # Three aisles of eight items, in rows of at most five.
    assert sorted(len(set(row["decoder_segment_ids"])) for row in rows) == [3, 3, 3, 5, 5, 5]
    assert decode_tokens(tokenizer, rows[0]["input_ids"]).startswith("History: <S_Q> ")


def test_the_level_loss_is_the_token_loss_over_a_level(aisles):
    """The sliced product and the masked one are two ways to one number; both leave text to the whole vocabulary."""
    *_, vocabulary = aisles
    model, _ = make_gensar(aisles)
    first = vocabulary.first_token_id + 3
    labels = torch.tensor([first + 5, 7, first + CODEBOOK_SIZE, 9, first + 2])
    hidden = torch.randn(len(labels), 32, generator=torch.Generator().manual_seed(0))
    logits = hidden @ model.lm_head.weight.T
    masked = mask_other_levels(logits, labels, model.config)
    sliced = level_loss(hidden, labels, model.lm_head.weight, model.config, None)
    assert sliced.item() == pytest.approx(token_loss(masked, labels, None).item(), abs=1e-5)
    # By hand, for the first label, which is the code of a level.
    by_hand = -logits[0, first : first + CODEBOOK_SIZE].log_softmax(-1)[5].item()
    assert token_loss(masked[:1], labels[:1], None).item() == pytest.approx(by_hand, abs=1e-5)
    is_text = labels < vocabulary.first_token_id
    assert torch.equal(masked[is_text], logits[is_text])


def test_a_stream_has_one_position_of_an_item_and_of_a_query(aisles):
    model, processor = make_gensar(aisles, corpus="stream")
    inputs = processor([REQUESTS[1]])  # History: <R_I> <M1> <R1> <S_Q> garden
    tokens = inputs["input_ids"][0].tolist()
    events = model.encoder.encode_events(inputs["input_ids"], inputs["attention_mask"])
    num_lead_in = tokens.index(model.vocabulary.item_token_ids["recommendation"])
    num_query = len(tokens) - tokens.index(model.vocabulary.behavior_token_ids["search_query"])
    expected = [*range(num_lead_in), *[num_lead_in] * 3, *[num_lead_in + 1] * num_query]
    assert events.event_of_token[0].tolist() == expected
    assert events.output[0].shape[1] == num_lead_in + 2


@torch.no_grad()
def test_the_next_item_loss_is_a_softmax_over_all_items(aisles):
    """Target by target: the encoder's last state for what the target may see, against the summed rows of each item."""
    model, _ = make_gensar(aisles, corpus="stream")
    rows, collate = stream_batch(aisles)
    chosen = [rows[0], rows[1]]
    batch = collate(chosen)
    vocabulary, codes = model.vocabulary, model.catalog.codes
    losses, taught, num_labels = [], [], 0
    for row in chosen:
        segments = np.array(row["decoder_segment_ids"])
        num_labels += len(segments)
        for segment in np.unique(segments):
            inside = np.flatnonzero(segments == segment)
            first = row["decoder_input_ids"][inside[0]]
            if first == vocabulary.behavior_token_ids["search_query"]:
                continue  # a query to be written is no item
            seen = torch.tensor([row["input_ids"][: row["decoder_history_lengths"][inside[0]]]])
            state = model.encoder.encode_events(seen, None).output[0][0, -1]
            view = "semantic" if first == vocabulary.item_token_ids["search"] else "collaborative"
            tokens = torch.from_numpy(vocabulary.encode(codes[view], view))
            item_scores = torch.stack([state @ model.shared.weight[item].sum(0) for item in tokens])
            target = tokens.tolist().index([row["labels"][place] for place in inside])
            losses.append(-item_scores.log_softmax(0)[target].item())
            # The decoder's codes after the target's prefix, against the share of each code among the items under it.
            logits = model(
                input_ids=seen, decoder_input_ids=torch.tensor([[row["decoder_input_ids"][place] for place in inside]])
            ).logits[0]
            likely = item_scores.softmax(0)
            for level, offset in enumerate(vocabulary.level_offsets[view].tolist()):
                under = [item for item in range(len(tokens)) if (tokens[item] == tokens[target])[:level].all()]
                answered = logits[level, offset : offset + CODEBOOK_SIZE].log_softmax(-1)
                share = likely[under] / likely[under].sum()
                taught.append(
                    -sum(share[n] * answered[codes[view][item, level]] for n, item in enumerate(under)).item()
                )
    # All three are divided by the number of labels, so that micro-batches add up.
    plain = model.eval()(**batch).loss.item()
    assert model.train()(**batch).loss.item() == pytest.approx(
        plain + (sum(losses) + sum(taught)) / num_labels, abs=1e-5
    )


@pytest.mark.parametrize("corpus", ["instructions", "stream"])
def test_training_moves_every_parameter_and_lowers_the_loss(aisles, corpus):
    split, catalog, tokenizer, vocabulary = aisles
    model, _ = make_gensar(aisles, corpus=corpus)
    if corpus == "stream":
        rows, collate = stream_batch(aisles)
    else:
        rows = build_corpus(split, catalog, tokenizer, vocabulary, model.config, tasks=("nrip",))["nrip"]
        collate = Seq2SeqCollator(tokenizer.pad_token_id)
    batch = collate([rows[number] for number in range(24)])
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses = []
    model.train()
    for _ in range(20):
        loss = model(**batch).loss
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.7 * losses[0]
    unmoved = {name for name, parameter in model.named_parameters() if torch.equal(parameter, before[name])}
    # In a stream the decoder reads one state of the encoder, so what compares states has no say in it: its gradient is
    # zero, or, on some processors, what rounding leaves of it.
    compares = re.compile(r"decoder\.block\.\d+\.layer\.1\.(EncDecAttention\.[qk]|layer_norm)\.weight")
    assert corpus == "stream" or not unmoved
    assert {name for name in unmoved if not compares.fullmatch(name)} == set()


@torch.no_grad()
def test_padding_changes_nothing(gensar):
    model, processor = gensar
    inputs = processor([REQUESTS[1]])
    prefix = model.decoder_prefix("search", 1)
    plain = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], decoder_input_ids=prefix)
    padded = model(
        input_ids=torch.nn.functional.pad(inputs["input_ids"], (0, 7), value=5),
        attention_mask=torch.nn.functional.pad(inputs["attention_mask"], (0, 7)),
        decoder_input_ids=prefix,
    )
    torch.testing.assert_close(plain.logits, padded.logits, atol=1e-5, rtol=1e-4)


def test_the_loss_of_micro_batches_adds_up(aisles):
    """Trainer passes the number of labels of a whole step; the sum over it must equal the mean over all."""
    split, catalog, tokenizer, vocabulary = aisles
    model, _ = make_gensar(aisles)
    corpus = build_corpus(split, catalog, tokenizer, vocabulary, model.config, tasks=("nrip", "nsqp"))
    collate = Seq2SeqCollator(tokenizer.pad_token_id)
    rows = [corpus["nrip"][0], corpus["nsqp"][0]]
    total = sum(len(row["labels"]) for row in rows)
    parts = [model(**collate([row]), num_items_in_batch=total).loss.item() for row in rows]
    assert sum(parts) == pytest.approx(model(**collate(rows)).loss.item(), abs=1e-5)


def test_new_items_are_answered_without_training(aisles):
    model, processor = make_gensar(aisles)
    grown = np.concatenate([model.catalog.codes["semantic"], [[3, 0]]])
    grown_collaborative = np.concatenate([model.catalog.codes["collaborative"], [[3, 0]]])
    import dataclasses

    import pyarrow as pa

    items = pa.concat_tables(
        [model.catalog.items, model.catalog.items.slice(0, 1).set_column(0, "item_id", pa.array(["new"]))]
    )
    catalog = dataclasses.replace(
        model.catalog,
        items=items,
        codes={"semantic": grown, "collaborative": grown_collaborative},
        is_removed=np.zeros(NUM_ITEMS + 1, bool),
        is_predicted=np.zeros(NUM_ITEMS + 1, bool),
    )
    model.config.identifier_hash = catalog.identifier_hash
    model.set_catalog(catalog)
    processor.set_catalog(catalog)
    answer = model.retrieve(processor(Request([Event("new")])), top_k=1, where=["new"], exclude_seen=False)
    assert answer[0][0].item_id == "new"


@pytest.mark.parametrize("corpus", ["instructions", "stream"])
def test_queries_and_descriptions_are_text(aisles, corpus):
    tasks = ["nsqp", "id2desc_semantic", "id2desc_collaborative"]
    model, processor = make_gensar(aisles, corpus=corpus, trained_tasks=tasks)
    # One piece of text wins wherever text is written, so the best answer is that piece again and again; a token of an
    # identifier would win over it and must never be written.
    piece = processor.tokenizer("kitchen", add_special_tokens=False)["input_ids"][0]
    favoured = torch.zeros(len(model.lm_head.weight))
    favoured[piece], favoured[model.config.first_identifier_token_id + 5] = 50.0, 100.0
    hook = model.lm_head.register_forward_hook(lambda _, __, logits: logits + favoured)
    expected = processor.tokenizer.decode([piece] * 3).strip()
    suggested = model.suggest_queries(Request(HISTORY), processor=processor, num_queries=3, max_new_tokens=3)
    assert suggested[0] == expected and len(set(suggested)) == len(suggested) <= 3
    several = model.suggest_queries([Request(HISTORY), Request([])], processor=processor, max_new_tokens=3)
    assert [texts[0] for texts in several] == [expected, expected]
    assert model.describe("i3", processor=processor, max_new_tokens=3) == expected
    hook.remove()
    # An item gets what it gets alone, in either view.
    for view in ("semantic", "collaborative"):
        both = model.describe(["i0", "i3"], processor=processor, view=view, max_new_tokens=4)
        assert both == [model.describe(i, processor=processor, view=view, max_new_tokens=4) for i in ("i0", "i3")]


def test_verbs_that_were_not_trained_are_refused(aisles):
    model, processor = make_gensar(aisles, trained_tasks=["nrip", "id2desc_semantic"])
    with pytest.raises(RequestError, match=r"'nsqp' .*\(nrip, id2desc_semantic\).*nsqp=... in `task_weights`"):
        model.suggest_queries(Request(HISTORY), processor=processor)
    with pytest.raises(RequestError, match="'id2desc_collaborative'"):
        model.describe("i0", processor=processor, view="collaborative")
    model.config.trained_tasks = []
    with pytest.raises(RequestError, match="none is named"):
        model.describe("i0", processor=processor)
    model.config.trained_tasks = ["nsqp", "id2desc_semantic"]
    with pytest.raises(RequestError, match="`num_queries` is 0"):
        model.suggest_queries(Request(HISTORY), processor=processor, num_queries=0)
    with pytest.raises(UnknownItemError, match="'i99'"):
        model.describe("i99", processor=processor)


def test_a_lower_weight_asks_for_fewer_targets_of_a_stream(aisles):
    # 30 users with 6 events each, every other one a search; the last two events of each are held out.
    def targets(shares):
        rows = build_stream(*aisles, GenSARConfig(), shares=shares)
        starts = [first for row in rows for first in row["decoder_input_ids"]]
        vocabulary = aisles[3]
        kinds = {"nrip": vocabulary.item_token_ids["recommendation"], "nsip": vocabulary.item_token_ids["search"]}
        kinds["nsqp"] = vocabulary.behavior_token_ids["search_query"]
        return {name: starts.count(token) for name, token in kinds.items()}

    everything = targets(None)
    assert everything["nsqp"] == 60 and min(everything.values()) > 0
    half = targets({"nrip": 1.0, "nsip": 1.0, "nsqp": 0.5})
    assert 15 <= half["nsqp"] <= 45  # four standard deviations of a binomial of 60 with a half
    assert {**half, "nsqp": 60} == everything
    assert targets({"nsqp": 0.5}) == {"nrip": 0, "nsip": 0, "nsqp": half["nsqp"]}


def test_segments_need_a_causal_encoder(aisles):
    model, _ = make_gensar(aisles)
    rows, collate = stream_batch(aisles)
    with pytest.raises(ValueError, match="needs a model made with `corpus: stream`"):
        model(**collate([rows[0]]))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_shared_levels": 0, "num_specific_levels": 0}, "at least one level"),
        ({"views": ["semantic", "semantic"]}, "each once"),
        ({"views": ["visual"]}, "views"),
        ({"codebook_size": 0}, "`codebook_size` is 0"),
        ({"corpus": "prose"}, "corpus"),
        ({"max_history_searches": -1}, "`max_history_searches` is -1; give 0 or more"),
        ({"max_query_tokens": 0}, "`max_query_tokens` is 0; give 1 or more"),
        ({"recommend_searched_items": True}, "`recommend_searched_items` is True .* needs `corpus: stream`"),
        ({"merge_events": True}, "`merge_events` is True and `corpus` 'instructions'"),
        ({"summarize_history": True}, "`summarize_history` is True and `merge_events` False"),
        ({"loss_norm": "row"}, "loss_norm"),
        ({"identifier_hash": "x", "vocab_size": 100}, "resize the token"),
    ],
)
def test_contradicting_settings_are_refused(settings, message):
    with pytest.raises(Exception, match=message) as caught:
        GenSARConfig(**settings)
    assert "Strict" in type(caught.value).__name__


def test_what_follows_from_the_corpus():
    paper, stream = GenSARConfig(), GenSARConfig(corpus="stream")
    assert (paper.order_by, paper.loss_norm, paper.merge_events) == ("identifier", "vocab", False)
    assert (stream.order_by, stream.loss_norm, stream.summarize_history) == ("next_item", "level", True)


@pytest.mark.parametrize("name", ["instructions", *GENSAR_OLD_WAYS])
def test_a_checkpoint_of_an_older_version_answers_as_it_did(aisles, name, tmp_path):
    """Its configuration has a switch for each part of what is one setting now, and its processor one of them."""
    model, processor = make_gensar(aisles, **GENSAR_WAYS[name], max_query_tokens=9)
    save_checkpoint(model, processor, tmp_path)
    before = model.retrieve(processor(REQUESTS), top_k=5, exclude_seen=False)
    is_stream = model.config.corpus == "stream"
    switches = {
        "shared_history": is_stream,
        "merge_events": False,
        "summarize_history": False,
        "loss_norm": "vocab",
        "next_item_weight": 0.0,
        "distillation_weight": 0.0,
        "order_by": "identifier",
    }
    rewrite(tmp_path / "config.json", {**switches, **GENSAR_WAYS[name]}, ("corpus", "recommend_searched_items"))
    rewrite(tmp_path / "processor_config.json", {"shared_history": is_stream}, ("corpus",))
    for manifest in tmp_path.glob("*_manifest.json"):
        manifest.unlink()
    old, its_processor = AutoModel.from_pretrained(tmp_path), AutoProcessor.from_pretrained(tmp_path)
    assert old.config.corpus == its_processor.config.corpus == model.config.corpus
    assert its_processor.config.max_query_tokens == 9
    assert not hasattr(old.config, "shared_history") and not hasattr(old.config, "distillation_weight")
    assert old.retrieve(its_processor(REQUESTS), top_k=5, exclude_seen=False) == before
    # One that is still older names fewer switches: those that it lacks were off.
    rewrite(tmp_path / "config.json", {}, [key for key in switches if not GENSAR_WAYS[name].get(key)])
    assert AutoModel.from_pretrained(tmp_path).config.merge_events == model.config.merge_events


def rewrite(path, news, without):
    content = json.loads(path.read_text()) | news
    path.write_text(json.dumps({key: value for key, value in content.items() if key not in without}))


class TestFromT5:
    """Starting from a T5 checkpoint, here one of random weights with T5's odd table: longer than its vocabulary."""

    @pytest.fixture
    def checkpoint(self, tmp_path, aisles):
        # 300 pieces, 320 rows, as T5 has 32,100 pieces and 32,128 rows.
        torch.manual_seed(3)
        config = T5Config(vocab_size=320, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4)
        config.decoder_start_token_id = 0
        T5(config).save_pretrained(tmp_path / "t5")
        return tmp_path / "t5"

    def test_old_rows_stay_and_new_rows_start_near_their_codewords(self, checkpoint, aisles):
        _, catalog, _, vocabulary = aisles
        old = T5.from_pretrained(checkpoint).get_input_embeddings().weight
        model = GenSARForConditionalGeneration.from_t5(str(checkpoint))
        assert model.config.model_type == "gensar" and model.config.scale_decoder_outputs
        words = np.zeros((CODEBOOK_SIZE, 4), dtype=np.float32)
        words[4:] = 1.0  # two clusters of equal codewords
        model.add_identifier_rows(vocabulary, codebooks={"M1": words})
        table = model.get_input_embeddings().weight
        first = vocabulary.first_token_id
        assert torch.equal(table[:first], old[:first])
        assert table.shape[0] % 64 == 0 and table.shape[0] >= vocabulary.end_token_id
        block = table[first + 3 : first + 3 + CODEBOOK_SIZE]
        assert torch.equal(block[0], block[3]) and torch.equal(block[4], block[7])
        assert not torch.equal(block[0], block[4])
        # Spread like the old rows, so the tied head does not prefer or ignore the new tokens.
        assert 0.5 < (table[first:].std() / old[:first].std()).item() < 2
        assert math.isfinite(table.sum().item())
        assert model.lm_head.weight.data_ptr() == table.data_ptr()

    def test_lora_trains_adapters_and_new_rows_only(self, checkpoint, aisles, tmp_path):
        from peft import PeftModel

        from seekrec.recipes.t5 import add_lora

        split, catalog, tokenizer, vocabulary = aisles
        model = GenSARForConditionalGeneration.from_t5(str(checkpoint))
        model.add_identifier_rows(vocabulary)
        model.set_catalog(catalog)
        first = vocabulary.first_token_id
        old = model.get_input_embeddings().weight[:first].detach().clone()
        model.save_pretrained(tmp_path / "base")
        wrapped = add_lora(model, 4)
        corpus = build_corpus(split, catalog, tokenizer, vocabulary, model.config, tasks=("nrip",))
        batch = Seq2SeqCollator(tokenizer.pad_token_id)([corpus["nrip"][row] for row in range(8)])
        optimizer = torch.optim.Adam([p for p in wrapped.parameters() if p.requires_grad], lr=1e-2)
        for _ in range(3):
            loss = wrapped(**batch).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        wrapped.eval().save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
        processor = seekrec.GenSARProcessor(tokenizer, catalog)
        inputs = processor(REQUESTS)
        trained = wrapped.retrieve(inputs, top_k=3, exclude_seen=False)

        base = AutoModel.from_pretrained(tmp_path / "base")
        loaded = PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
        merged = loaded.merge_and_unload()
        assert type(merged) is GenSARForConditionalGeneration
        table = merged.get_input_embeddings().weight
        assert torch.equal(table[:first], old)
        assert not torch.equal(
            table[first : vocabulary.end_token_id], model_rows(tmp_path / "base", first, vocabulary)
        )
        for one, other in zip(trained, merged.retrieve(inputs, top_k=3, exclude_seen=False), strict=True):
            assert [item.item_id for item in one] == [item.item_id for item in other]
            np.testing.assert_allclose([item.score for item in one], [item.score for item in other], atol=1e-4)


def model_rows(folder, first, vocabulary):
    return AutoModel.from_pretrained(folder).get_input_embeddings().weight[first : vocabulary.end_token_id]
