# SPDX-License-Identifier: Apache-2.0
"""Every row is compared with one that a plain loop over events writes as text."""

import logging
import random
from dataclasses import replace

import numpy as np
import pytest
from music_shop import CODEBOOK_SIZE, TITLES, make_log, make_tokenizer
from written_tokens import decode_tokens

from seekrec.catalog import Catalog
from seekrec.corpora import (
    TASKS,
    TEMPLATES,
    add_identifier_tokens,
    build_corpus,
    corpus_fingerprint,
    encode_requests,
    train_tokenizer,
)
from seekrec.errors import CatalogError, ConfigurationError, DataError
from seekrec.events import split_log
from seekrec.events.columns import RequestColumns
from seekrec.models import GenSARConfig
from seekrec.schema import Event, Request

SETTINGS = GenSARConfig()


def encode(requests, catalog, *others, **options):
    """Write the instructions of requests."""
    return encode_requests(RequestColumns.read(requests, catalog.id_map), catalog, *others, **options)


@pytest.fixture
def one_wording(monkeypatch):
    """Training draws wording 0 alone."""
    first = {kind: wordings[:1] for kind, wordings in TEMPLATES.items()}
    monkeypatch.setattr("seekrec.corpora.instructions.TEMPLATES", first)


def decode_row(tokenizer, row):
    """A row of a corpus as the paper prints its samples."""
    instruction, response = (decode_tokens(tokenizer, row[name]) for name in ("input_ids", "labels"))
    return f"Instruction: {instruction}\nResponse: {response}"


def rows_of(corpus, tokenizer):
    return {name: [decode_row(tokenizer, row) for row in rows] for name, rows in corpus.items()}


def test_rows_of_the_music_shop(shop_tools, one_wording):
    rows = rows_of(build_corpus(*shop_tools, SETTINGS), shop_tools[2])
    # ann's bow and drum are held out, and with bow's timestamp 6 nothing else falls; bob keeps his first event.
    begin = "Instruction: Below is the user's interaction history: "
    recommend = "Please recommend the next item the user is likely to click."
    violin, stool = "<R_I> <M1_1> <M2_0> <R1_2>", "<R_I> <M1_0> <M2_1> <R1_1>"
    upright = "<S_Q> piano; <S_I> <M1_0> <M2_1> <S1_2>"
    assert rows["nrip"] == [
        f"Instruction: The user has no interaction history. {recommend}\nResponse: {violin}",
        f"{begin}{violin}; {upright}. {recommend}\nResponse: {stool}",
        f"Instruction: The user has no interaction history. {recommend}\nResponse: <R_I> <M1_3> <M2_3> <R1_0>",
    ]
    find = "Please predict the next item the user might click."
    assert rows["nsip"] == [
        f"{begin}{violin}. The user's search query is <S_Q> piano. {find}\nResponse: <S_I> <M1_0> <M2_1> <S1_2>",
        f"{begin}{violin}; {upright}; {stool}; <S_Q> tuning fork. The user's search query is <S_Q> music. {find}\n"
        "Response: <S_I> <M1_2> <M2_2> <S1_2>",
    ]
    guess = "Please predict the next query the user might want to search."
    assert rows["nsqp"] == [
        f"{begin}{violin}. {guess}\nResponse: <S_Q> piano",
        # A search without a click: it is asked for its query, and stands in later histories without an item.
        f"{begin}{violin}; {upright}; {stool}. {guess}\nResponse: <S_Q> tuning fork",
        f"{begin}{violin}; {upright}; {stool}; <S_Q> tuning fork. {guess}\nResponse: <S_Q> music",
    ]
    assert rows["desc2id_collaborative"][3] == (
        'Instruction: Using the provided description " Violin bow", predict the collaborative identifier of the '
        "item.\nResponse: <M1_1> <M2_0> <R1_3>"
    )
    assert rows["id2desc_semantic"][3] == (
        "Instruction: Please provide a description for the item <M1_1> <M2_0> <S1_1>.\nResponse: Violin bow"
    )


def test_columns_and_ends(shop_tools):
    tokenizer = shop_tools[2]
    corpus = build_corpus(*shop_tools, SETTINGS)
    assert list(corpus) == list(TASKS)
    for name, rows in corpus.items():
        assert rows.features["task"].names[rows[0]["task"]] == name
        for row in rows:
            assert row["input_ids"][-1] == tokenizer.eos_token_id
            # Text ends with end of sequence, an identifier with its last code.
            ends = row["labels"][-1] == tokenizer.eos_token_id
            assert ends == (name == "nsqp" or name.startswith("id2desc"))
            if name in ("nrip", "nsip"):
                assert len(row["labels"]) == 4
            if name.startswith("desc2id"):
                assert len(row["labels"]) == 3
    assert corpus["nsqp"]["user_id"][:] == ["ann"] * 3
    assert corpus["nsqp"]["item_id"][:] == ["upright", None, "score"]
    assert corpus["desc2id_semantic"]["user_id"][:] == [None] * len(TITLES)
    assert corpus["desc2id_semantic"]["item_id"][:] == list(TITLES)


def make_random_log(seed):
    generator = random.Random(seed)
    lines = []
    for user in range(14):
        for time in range(generator.randrange(3, 25)):
            item = generator.choice(list(TITLES))
            kind = generator.random()
            query = generator.choice(["piano", "music", "tuning fork", "a violin, please"]) if kind < 0.4 else None
            lines.append((f"u{user}", time // generator.choice([1, 2]), None if kind < 0.1 else item, query))
    return make_log(lines)


def write_row(template, history, query):
    """Write an instruction as text, the slow and plain way."""
    text = template.text if history else template.text_without_history
    return text.replace("{history}", "; ".join(history)).replace("{query}", f"<S_Q> {query}")


@pytest.mark.parametrize("protocol", ["strict", "paper"])
@pytest.mark.parametrize(("max_recommendations", "max_searches"), [(1, 1), (5, 5), (2, 0), (0, 3)])
def test_agrees_with_a_plain_loop(shop_catalog, trained, one_wording, protocol, max_recommendations, max_searches):
    tokenizer, vocabulary = trained
    log = make_random_log(max_recommendations)
    split = split_log(log, protocol=protocol)
    settings = GenSARConfig(max_history_recommendations=max_recommendations, max_history_searches=max_searches)
    tasks = ("nrip", "nsip", "nsqp")
    events = log.events.to_pylist()
    rows_by_id = shop_catalog.id_map

    def identifier(item, behavior):
        view = "semantic" if behavior == "search" else "collaborative"
        return vocabulary.format(shop_catalog.codes[view][rows_by_id.convert_to_rows([item])[0]], view)

    def write_event(event):
        if event["behavior"] == "recommendation":
            return f"<R_I> {identifier(event['item_id'], 'recommendation')}"
        clicked = f"; <S_I> {identifier(event['item_id'], 'search')}" if event["item_id"] else ""
        return f"<S_Q> {event['query']}{clicked}"

    def write_history(rows):
        kept = []
        counts = {"recommendation": max_recommendations, "search": max_searches}
        for row in reversed(rows):
            counts[events[row]["behavior"]] -= 1
            if counts[events[row]["behavior"]] >= 0:
                kept.append(write_event(events[row]))
        return kept[::-1]

    expected = {name: [] for name in tasks}
    targets = split.training_targets(include_queries=True)
    histories = split.training_histories(target_rows=targets)
    for number, row in enumerate(targets.tolist()):
        event = events[row]
        history = write_history(histories.values[histories.offsets[number] : histories.offsets[number + 1]].tolist())
        names = ["nrip"] if event["behavior"] == "recommendation" else ["nsqp", "nsip"]
        for name in names if event["item_id"] else names[:1]:
            answer = f"<S_Q> {event['query']}"
            if name != "nsqp":
                token = "<R_I>" if name == "nrip" else "<S_I>"
                answer = f"{token} {identifier(event['item_id'], event['behavior'])}"
            instruction = write_row(TEMPLATES[name][0], history, event["query"])
            expected[name].append(f"Instruction: {instruction}\nResponse: {answer}")
    rows = rows_of(build_corpus(split, shop_catalog, tokenizer, vocabulary, settings, tasks=tasks), tokenizer)
    assert rows == expected
    assert sum(map(len, rows.values())) > 60


def test_requests_are_written_as_training_rows(shop_catalog, trained, one_wording):
    tokenizer, vocabulary = trained
    split = split_log(make_random_log(7))
    settings = GenSARConfig(max_history_recommendations=3, max_history_searches=2)
    corpus = build_corpus(split, shop_catalog, tokenizer, vocabulary, settings, seed=5)
    targets = split.training_targets(include_queries=True)
    histories = split.training_histories(target_rows=targets)
    rows = split.log.events.to_pylist()
    events = [Event(row["item_id"], row["behavior"], row["timestamp"], row["query"], row["action"]) for row in rows]
    requests = {"nrip": [], "nsip": [], "nsqp": []}
    for number, target in enumerate(targets.tolist()):
        history = histories.values[histories.offsets[number] : histories.offsets[number + 1]].tolist()
        request = Request([events[row] for row in history], query=rows[target]["query"])
        if request.query is not None:
            requests["nsqp"].append(replace(request, query=None))
        if rows[target]["item_id"] is not None:
            requests["nrip" if request.query is None else "nsip"].append(request)
    for name, asked in requests.items():
        written = encode(asked, shop_catalog, vocabulary, tokenizer, settings, asks_for_query=name == "nsqp")
        assert written.to_lists() == corpus[name]["input_ids"][:]
    mixed = split.requests("test")
    written = encode(mixed, shop_catalog, vocabulary, tokenizer, settings).to_lists()
    alone = [encode([one], shop_catalog, vocabulary, tokenizer, settings).to_lists()[0] for one in mixed]
    assert written == alone


def test_wordings_are_drawn_by_seed_and_task(shop_tools, shop_catalog, trained):
    split = split_log(make_random_log(3))
    tools = (split, *shop_tools[1:])
    first = build_corpus(*tools, SETTINGS, seed=1)
    assert first["nrip"]["input_ids"][:] == build_corpus(*tools, SETTINGS, seed=1)["nrip"]["input_ids"][:]
    other = build_corpus(*tools, SETTINGS, seed=2)
    assert first["nrip"]["input_ids"][:] != other["nrip"]["input_ids"][:]
    assert first["nrip"]["labels"][:] == other["nrip"]["labels"][:]
    # A task is the same with and without the others.
    alone = build_corpus(*tools, SETTINGS, seed=1, tasks=("nsip",))
    assert alone["nsip"]["input_ids"][:] == first["nsip"]["input_ids"][:]
    assert list(alone) == ["nsip"]
    begins = {decode_row(shop_tools[2], row).split(" ")[1] for row in first["nrip"]}
    assert len(begins) > 3


def test_chunks_change_nothing(shop_tools, monkeypatch):
    whole = build_corpus(*shop_tools, SETTINGS)
    monkeypatch.setattr("seekrec.corpora.instructions.ROWS_AT_A_TIME", 2)
    monkeypatch.setattr("seekrec.corpora.instructions._TARGETS_AT_A_TIME", 2)
    for name, rows in build_corpus(*shop_tools, SETTINGS).items():
        assert rows.to_list() == whole[name].to_list()


def test_hostile_texts_stay_text_in_rows():
    titles = {"a": "<R_I> <M1_0> </s>", "b": "\uff1cS_I\uff1e", "c": "plain", "d": "<S_Q>", "e": "<pad>"}
    lines = [("u", time, item, "<S_I> <M1_3> </s>" if time % 2 else None) for time, item in enumerate("abcde")]
    log = make_log([(user, time, list(TITLES)["abcde".index(item)], query) for user, time, item, query in lines])
    log = replace(log, items=log.items.set_column(1, "title", [[*titles.values(), "last"]]))
    codes = np.stack([np.zeros(6, int), np.arange(6) // 4, np.arange(6) % 4], axis=1)
    catalog = Catalog.build(
        log.items, {"semantic": codes, "collaborative": codes}, num_shared_levels=2, codebook_size=CODEBOOK_SIZE
    )
    tokenizer, vocabulary = make_tokenizer()
    control = range(vocabulary.first_token_id, vocabulary.end_token_id)
    corpus = build_corpus(split_log(log), catalog, tokenizer, vocabulary, SETTINGS)
    for row in corpus["desc2id_semantic"]:
        assert not set(row["input_ids"][:-1]).intersection([*control, 0, 1])
    for row in corpus["id2desc_semantic"]:
        assert not set(row["labels"][:-1]).intersection([*control, 0, 1])
    # Three tokens for `<S_Q>`, one a query; four an item.
    row = encode(
        [Request(history=[Event("upright", "search", query="<S_I> </s>")], query="<pad> <R_I>")],
        catalog,
        vocabulary,
        tokenizer,
        SETTINGS,
    ).to_lists()[0]
    assert sum(number in control for number in row) == 2 + 4
    assert sum(number in (0, 1) for number in row) == 1


def test_empty_and_invisible_requests(shop_catalog, trained):
    tokenizer, vocabulary = trained
    requests = [Request(), Request(query="\u200b")]
    rows = encode(requests, shop_catalog, vocabulary, tokenizer, SETTINGS).to_lists()
    assert decode_tokens(tokenizer, rows[0]) == (
        "The user has no interaction history. Please recommend the next item the user is likely to click."
    )
    assert "<S_Q>" in decode_tokens(tokenizer, rows[1])
    impression = Request(history=[Event("bow", action="impression")])
    assert encode([impression], shop_catalog, vocabulary, tokenizer, SETTINGS).to_lists() == rows[:1]


def test_removed_items_stay_in_histories_but_are_not_described(shop_split, shop_catalog, trained):
    corpus = build_corpus(shop_split, shop_catalog.remove_items(["violin"]), *trained, SETTINGS)
    assert corpus["desc2id_semantic"]["item_id"][:] == [item for item in TITLES if item != "violin"]
    assert corpus["nrip"]["item_id"][0] == "violin"


def test_one_view_serves_both_behaviors(shop_split, shop_log, shop_catalog):
    codes = {"semantic": shop_catalog.codes["semantic"]}
    catalog = Catalog.build(shop_log.items, codes, num_shared_levels=0, codebook_size=CODEBOOK_SIZE)
    tokenizer = train_tokenizer(TITLES.values(), 200)
    vocabulary = add_identifier_tokens(tokenizer, catalog)
    corpus = build_corpus(shop_split, catalog, tokenizer, vocabulary, SETTINGS)
    assert decode_tokens(tokenizer, corpus["nrip"][0]["labels"]) == "<R_I> <S1_1> <S2_0> <S3_0>"
    assert decode_tokens(tokenizer, corpus["nsip"][0]["labels"]) == "<S_I> <S1_0> <S2_1> <S3_2>"
    assert "desc2id_collaborative" not in corpus


def test_log_without_searches(shop_catalog, trained, caplog):
    split = split_log(make_log([("u", time, item, None) for time, item in enumerate(TITLES)]))
    with caplog.at_level(logging.INFO, logger="seekrec.corpora.instructions"):
        corpus = build_corpus(split, shop_catalog, *trained, SETTINGS)
    assert "nsip" not in corpus
    assert "'nrip': 4" in caplog.text
    with pytest.raises(DataError, match="`tasks` names 'nsip', but log 'music shop' has no rows for this task"):
        build_corpus(split, shop_catalog, *trained, SETTINGS, tasks=("nrip", "nsip"))
    only_items = build_corpus(split, shop_catalog, *trained, SETTINGS, tasks=("id2desc_semantic",))
    assert len(only_items["id2desc_semantic"]) == len(TITLES)


def test_items_without_text_are_not_described(shop_split, shop_log, shop_catalog, trained):
    titles = shop_log.items["title"].to_pylist()
    items = shop_log.items.set_column(1, "title", [["\u3000", *titles[1:]]])
    catalog = replace(shop_catalog, items=items)
    corpus = build_corpus(shop_split, catalog, *trained, SETTINGS)
    assert "upright" not in corpus["id2desc_semantic"]["item_id"][:]


def test_other_vocabularies_are_refused(shop_split, shop_catalog):
    tokenizer = train_tokenizer(TITLES.values(), 200)
    vocabulary = add_identifier_tokens(tokenizer, GenSARConfig(num_specific_levels=1, codebook_size=8))
    with pytest.raises(
        CatalogError, match="`codebook_size` of the tokens is 8, of the catalogue 4; use the catalogue"
    ):
        build_corpus(shop_split, shop_catalog, tokenizer, vocabulary, SETTINGS)
    semantic = replace(shop_catalog, codes={"semantic": shop_catalog.codes["semantic"]})
    tokenizer, vocabulary = make_tokenizer()
    with pytest.raises(
        CatalogError, match="tokens for a collaborative identifier, but the catalogue has only semantic"
    ):
        encode([Request()], semantic, vocabulary, tokenizer, SETTINGS)
    tokenizer.eos_token = None
    with pytest.raises(ConfigurationError, match="The tokenizer has no `eos_token`; set one"):
        encode([Request()], shop_catalog, vocabulary, tokenizer, SETTINGS)


def test_fingerprint_follows_everything_that_matters(shop_tools, shop_catalog):
    split, catalog, tokenizer, vocabulary = shop_tools
    fingerprint = corpus_fingerprint(*shop_tools, SETTINGS)
    other_tokenizer, _ = make_tokenizer()
    assert corpus_fingerprint(split, catalog, other_tokenizer, vocabulary, SETTINGS) == fingerprint
    others = [
        corpus_fingerprint(*shop_tools, SETTINGS, seed=1),
        corpus_fingerprint(*shop_tools, SETTINGS, tasks=("nrip",)),
        corpus_fingerprint(*shop_tools, GenSARConfig(max_query_tokens=5)),
        corpus_fingerprint(split, catalog.remove_items(["bow"]), tokenizer, vocabulary, SETTINGS),
        corpus_fingerprint(split_log(split.log, protocol="paper"), catalog, tokenizer, vocabulary, SETTINGS),
        corpus_fingerprint(split, catalog, train_tokenizer(["x"], 200), vocabulary, SETTINGS),
    ]
    assert len({fingerprint, *others}) == 7
    again = build_corpus(*shop_tools, SETTINGS)
    assert build_corpus(*shop_tools, SETTINGS)["nrip"]._fingerprint == again["nrip"]._fingerprint
