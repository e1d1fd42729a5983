# SPDX-License-Identifier: Apache-2.0
"""Settings chosen from the log and the machine, each with its reason.

The model settings were tuned on MovieLens-100K and Amazon Scientific (see the RESULTS.md of each family); settings
that depend on the log's size, text, searches and times are chosen here.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from seekrec.embeddings.softmax import LARGE_CATALOG
from seekrec.errors import ConfigurationError
from seekrec.evaluation.metrics import SELECTION_METRIC
from seekrec.models.views import BY_VALIDATION
from seekrec.recipes.arguments import EvaluationArguments
from seekrec.recipes.situation import Choice, Situation

# From so many items on GenSR is asked about those that views find, not about each.
_MAX_ASKED_ITEMS = 500
# Up to so many items a CPU compares a target with all of them in at most 1.5 times the time of a sample.
MOST_COMPARED_ITEMS = {"intsr": 10_000, "synergen": 30_000}
# Test cases of a task: the interval of NDCG@10 is then about one point wide.
_ENOUGH_CASES = 5_000
# Negatives of a case in candidate protocols, unless there are few items.
_NUM_NEGATIVES = EvaluationArguments.num_negatives
# Minutes on a CPU in which a T5 family takes few steps.
_FEW_MINUTES = 15.0
_DAY = 86_400.0


def choose(family: str, situation: Situation) -> list[Choice]:
    """Return the settings of a family for a log on a machine, all but the number of epochs.

    Args:
        family (`str`): gensar, gensr, intsr or synergen.
        situation ([`Situation`]): The log and the machine.

    Raises:
        ConfigurationError: If nothing can be learned from the log; the message says what to do.
    """
    _check(situation)
    return [*_choose_shared(situation), *_FAMILIES[family](situation)]


def _check(s: Situation) -> None:
    if not s.log.num_users_to_hold_out:
        raise ConfigurationError(
            f"No user of {s.log.name} has three interactions or more, so no user has events for training, validation "
            "and test. Give a log over a longer time, or say which column holds the user: --column_map user_id=... (a "
            "column that is new with each visit is a session_id)."
        )
    construction = s.given.get("construction")
    if construction in ("split", "copy") and not s.log.has_searches and not s.can_construct:
        raise ConfigurationError(
            f"`construction` is {construction}, but no item of {s.log.name} has a category path of two or more levels "
            "to make queries from. Leave it out to train recommendation only, or name a column of category paths: "
            "--column_map categories=... and --category_separator."
        )

    if s.given.get("tasks") == "search" and not s.has_searches:
        raise ConfigurationError(
            f"`tasks` is search, but {s.log.name} has no searches, and no categories to make them from. Leave `tasks` "
            "out to train recommendation, or name the column with the queries: --column_map query=..."
        )


def _choose_shared(s: Situation) -> list[Choice]:
    log, gpu = s.log, s.machine.gpu
    found = [
        Choice("use_cpu", gpu is None, "no GPU is here" if gpu is None else f"{gpu} is here"),
        _choose_construction(s),
        Choice("split_method", "leave_one_out", "the last event of each user is tested on, the one before chooses"),
        Choice("sasrec_num_epochs", _epochs(4_000_000, log.num_interactions, 5, 40), "by the number of events"),
        Choice("lr_scheduler_type", "cosine", "ends slowly"),
        Choice("warmup_steps", 0.05, "a twentieth of the steps"),
        Choice("weight_decay", 0.01, "as on MovieLens-100K"),
        Choice("eval_strategy", "steps", "ranks validation cases along the way"),
        Choice("eval_steps", 0.125, "eight times in all"),
        Choice("save_strategy", "steps", "a killed run goes on from there"),
        Choice("save_steps", 0.125, "with each evaluation"),
        Choice("save_total_limit", 2, "the best and the last"),
        Choice("load_best_model_at_end", True, "the best checkpoint is the result"),
        Choice("metric_for_best_model", f"eval_{SELECTION_METRIC}", "of validation, the mean of both tasks"),
        Choice("greater_is_better", True, "NDCG"),
        Choice("logging_steps", 50, ""),
        Choice("view_weights", [BY_VALIDATION], "SASRec, words, clicks are added as far as validation gains"),
    ]
    if log.num_items < 4 * _NUM_NEGATIVES:
        few = max(1, log.num_items // 4)
        found.append(Choice("num_negatives", few, f"beside the target, of {log.num_items} items"))
    if log.num_users_to_hold_out > _ENOUGH_CASES:
        found.append(Choice("max_test_cases", _ENOUGH_CASES, f"of {log.num_users_to_hold_out:,} users"))
    if s.on_gpu and s.machine.has_bf16:
        found.append(Choice("bf16", True, "the GPU has it"))
    return found


def _choose_construction(s: Situation) -> Choice:
    if s.log.has_searches:
        return Choice("construction", "none", f"the log has searches: {s.log.share_searches:.0%} of events")
    if s.makes_searches:
        return Choice("construction", "split", "no searches in the log: half of the events get SYNTHETIC queries")
    return Choice("construction", "none", "no searches, nor categories to make them from: recommendation alone")


def _choose_dense(family: str, s: Situation) -> list[Choice]:
    """Choose what IntSR and SynerGen share."""
    log = s.log
    most = 200 if s.on_gpu else 100
    max_history = int(min(most, max(20, 10 * math.ceil(log.p90_events_of_user / 10))))
    batch = _batch_size(log.num_users_to_hold_out, most=256 if s.on_gpu else 64)
    width = 128 if s.on_gpu and log.num_interactions > 1_000_000 else 64
    negatives = _choose_negatives(family, s)
    # What was measured: logs with searches, every item a negative.
    learns_searches = s.has_searches and s.given.get("tasks") != "recommendation"
    searches_all = learns_searches and s.given.get("negatives", negatives.value) == "full"
    text, words = (["text"], ["words"] if searches_all else []) if log.has_text else ([], [])
    named = [*text, *(["categories"] if log.has_categories and searches_all else []), *words]
    found = [
        Choice("tasks", "joint" if s.has_searches else "recommendation", "what the log holds"),
        Choice(
            "max_history",
            max_history,
            f"nine of ten users have up to {log.p90_events_of_user:g} events"
            + (f"; at most {most} {'on a GPU' if s.on_gpu else 'on a CPU'}" if max_history == most else ""),
        ),
        Choice("item_reading", ["vector", *named], f"items have {', '.join(named)}" if named else "no text"),
        Choice("starts_from_latest_item", True, "as on MovieLens-100K"),
        negatives,
        Choice("hidden_size", width, f"{log.num_interactions:,} interactions, {'a GPU' if s.on_gpu else 'a CPU'}"),
        Choice("num_hidden_layers", 2, "as on MovieLens-100K"),
        Choice("num_attention_heads", 2, "as on MovieLens-100K"),
        Choice("dropout", 0.3, "as on MovieLens-100K"),
        Choice("learning_rate", 1e-3, "as on MovieLens-100K"),
        Choice("adam_beta2", 0.98, "as on MovieLens-100K"),
        Choice("per_device_train_batch_size", batch, f"{log.num_users_to_hold_out:,} users learn in steps of so many"),
        Choice("max_validation_cases", 1000, "enough to choose a checkpoint"),
    ]
    if searches_all:
        found += [
            Choice("query_reading", ["text", *words], "what was typed"),
            Choice("temperature", 0.3, "a search is learned in fewer steps"),
            Choice("sparse_learning_rate", 3e-3, "as on MovieLens-100K"),
        ]
    else:
        found.append(
            Choice("sparse_learning_rate", 1e-3, "with a higher one item vectors learn single users by heart")
        )
    if s.given.get("ranked_items") != "all":
        found.append(Choice("seen_compete", False, "recommendations leave out what the user knows"))
    if log.sessions is not None:
        found.append(
            Choice("session_ids", "visit", "whatever they look like, what came before is known, as to SASRec")
        )
    if log.has_time and log.span_days > 1:
        found.append(Choice("item_lifetimes", "first_event", "negatives had appeared when the user chose"))
    if s.has_searches:
        pool = ["logged", "category"] if s.can_construct else ["logged"]
        found += [
            Choice(
                "extra_requests",
                ["recommend_searched_items", "pool_searches=0.5"],
                "search and recommendation share; every second recommendation is also asked as a search",
            ),
            Choice("query_pool", pool, "what people typed" + (", and categories" if s.can_construct else "")),
        ]
    return found


def _choose_negatives(family: str, s: Situation) -> Choice:
    items = s.log.num_items
    if items <= (LARGE_CATALOG if s.on_gpu else MOST_COMPARED_ITEMS[family]):
        return Choice("negatives", "full", f"{items:,} items: every other one is a negative")
    return Choice("negatives", "popularity", f"{items:,} items: a sample of negatives for each target")


def _choose_intsr(s: Situation) -> list[Choice]:
    has_hours = s.log.has_time and not s.log.times_are_days
    features = ["hour", "weekday", "page"] if has_hours else ["weekday", "page"] if s.log.has_time else ["page"]
    return [
        *_choose_dense("intsr", s),
        Choice("merge_event_tokens", True, "shorter sequences"),
        Choice("scenario_features", features, _describe_times(s)),
        Choice("relative_bias", "buckets" if s.log.has_time else "position", _describe_times(s)),
        Choice("num_dsf_layers", 1, "as on MovieLens-100K"),
    ]


def _choose_synergen(s: Situation) -> list[Choice]:
    dense = _choose_dense("synergen", s)
    chosen = next(one.value for one in dense if one.name == "negatives")
    is_full = s.given.get("negatives", chosen) == "full"
    shortest = 2 * _DAY if s.log.times_are_days else 8.0
    longest = max(3.2e8, 2 * _DAY * s.log.span_days) if s.log.has_time else 4.0 * 100
    found = [
        *dense,
        Choice("time_encoding", "both" if s.log.has_time else "order", _describe_times(s)),
        Choice(
            "time_scales",
            [shortest if s.log.has_time else 4.0, longest],
            f"{_describe_times(s)}; {'up to ten years, in seconds' if s.log.has_time else 'positions'}",
        ),
        Choice("queries_in_context", s.has_searches, "earlier queries are read" if s.has_searches else "no searches"),
        Choice("intermediate_size", 256, "as on MovieLens-100K"),
    ]
    if is_full:
        found += [
            Choice("easy_weight", 1.0, "every item is a negative"),
            Choice("num_training_negatives", 4, "beside each target, for the click probability"),
            Choice("ranking_weight", 0.1, "as on MovieLens-100K"),
        ]
        if s.given.get("ranking_weight") != 0:
            found.append(Choice("ranks_with_retrieval", True, "as on MovieLens-100K"))
        if all(one.name != "temperature" for one in dense):
            found.append(Choice("temperature", 1.0, "as on Amazon Beauty"))
    return found


def _choose_t5(s: Situation, width: int) -> list[Choice]:
    """Choose what GenSAR and GenSR share; a backbone has sizes of its own."""
    items = s.log.num_items
    pieces = 2000 if items < 3_000 else 4000 if items < 30_000 else 8000 if items < 300_000 else 16000
    if "backbone" in s.given:
        return [Choice("learning_rate", 1e-3, "a pretrained backbone")]
    found = [
        Choice("tokenizer_vocab_size", pieces, f"pieces of words, for the texts of {items:,} items"),
        Choice("d_model", width, f"{s.log.num_interactions:,} interactions, {'a GPU' if s.on_gpu else 'a CPU'}"),
        Choice("d_ff", 4 * width, "four times the width"),
        Choice("num_layers", 2, "as on MovieLens-100K"),
        Choice("num_heads", 4, "as on MovieLens-100K"),
        Choice("dropout_rate", 0.1, "as on MovieLens-100K"),
        Choice("learning_rate", 3e-3, "as on MovieLens-100K"),
    ]
    if s.log.has_text and s.log.has_searches:
        found.append(Choice("max_query_tokens", 24, "longer queries are cut"))
    return found


def _choose_codes(s: Situation) -> list[Choice]:
    """Choose the sizes of identifiers: room for many times more items than there are."""
    items = s.log.num_items
    codes = 64 if items <= 3_000 else 256 if items <= 300_000 else 1024
    found = [
        Choice("codebook_size", codes, f"{codes}^4 identifiers for {items:,} items"),
        Choice("identifier_num_epochs", _epochs(400_000, items, 20, 200), "by the number of items"),
    ]
    if not s.log.has_text:
        found += [
            Choice("identifier_views", ["collaborative"], "items have no text"),
            Choice("num_shared_levels", 0, "there is one view"),
            Choice("num_specific_levels", 4, "there is one view"),
        ]
    return found


def _choose_gensar(s: Situation) -> list[Choice]:
    length = 10 if s.log.median_events_of_user >= 20 else 15
    tasks = ["nrip=1"]
    if s.has_searches:
        tasks += ["nsip=1", "nsqp=0.1"]
    if s.can_construct:
        tasks.append("item_queries=0.3")
    if s.log.has_text:
        tasks += ["desc2id_semantic=0.2", "desc2id_collaborative=0.1"]
        tasks += ["id2desc_semantic=0.1", "id2desc_collaborative=0.1"]
    width = 256 if s.on_gpu and s.log.num_interactions > 1_000_000 else 128
    # Few minutes are better spent on many small steps.
    is_short = s.minutes is not None and s.minutes < _FEW_MINUTES
    batch = _batch_size(s.log.num_interactions // length, most=256 if s.on_gpu else 16 if is_short else 64)
    words = ["words"] if s.log.has_text else []
    return [
        *_choose_t5(s, width),
        *_choose_codes(s),
        Choice("corpus", "stream", "a user's history once for all its targets"),
        Choice("item_reading", ["codes", "catalog", "vector", *words], "as on MovieLens-100K"),
        Choice("query_reading", ["tokens", *words, "recommendation"], "as on MovieLens-100K"),
        Choice("next_item_weight", 8.0, "as on MovieLens-100K"),
        Choice("task_weights", tasks, "what the log and its items hold"),
        Choice("max_history_recommendations", length, f"median of {s.log.median_events_of_user:g} events a user"),
        Choice("max_history_searches", length, f"median of {s.log.median_events_of_user:g} events a user"),
        Choice("max_text_tokens", 32, "longer texts are cut"),
        Choice("per_device_train_batch_size", batch, "histories a step"),
        Choice("num_beams", 30 if s.log.num_items < 20_000 else 50, f"{s.log.num_items:,} items"),
        Choice("max_validation_cases", 300, "beam search takes time"),
        *([Choice("recommend_searched_items", True, "search and recommendation share")] if s.has_searches else []),
        *([Choice("bf16", True, "the CPU has it")] if not s.on_gpu and s.machine.has_bf16 else []),
    ]


def _choose_gensr(s: Situation) -> list[Choice]:
    log = s.log
    unseen = int(min(20, max(2, log.median_events_of_user // 4)))
    fields = (["categories"] if log.has_categories else []) + ["title"]
    extra = ["recommend_searched_items"] if s.has_searches else []
    if s.can_construct and s.has_searches:
        extra.append("item_queries")
    found = [
        *_choose_t5(s, 64),
        Choice("collaborative_source", "sasrec", "as on MovieLens-100K"),
        Choice("lightgcn_num_epochs", _epochs(2_000_000, log.num_interactions, 3, 40), "by the number of events"),
        Choice("num_unseen_events", unseen, "learned from: events whose answer SASRec does not hold yet"),
        Choice("filtered_history", "recommender", "reads the state of SASRec"),
        Choice("extra_requests", extra, "search and recommendation share" if extra else "no searches"),
        Choice("negatives", ["uniform=6", "bm25=2"] if s.has_searches and log.has_text else ["uniform=8"], ""),
        Choice("yes_no_loss", "listwise", "as on MovieLens-100K"),
        Choice("loss_norm", "level", "as on MovieLens-100K"),
        Choice("query_as_event", s.has_searches, "a candidate can agree with the query"),
        Choice("shared_prompt", True, "candidates share the reading of a history"),
        Choice("history_in_prompt", "filtered", "short prompts"),
        Choice("view_dropout_rate", 0.2, "as on MovieLens-100K"),
        Choice("item_text_fields", fields, "what the items have"),
        Choice("max_item_tokens", 16, "longer texts are cut"),
        Choice("max_history", 15 if log.median_events_of_user < 100 else 20, "as on MovieLens-100K"),
        Choice("per_device_train_batch_size", 128, "requests a step"),
        Choice("candidate_protocols", ["uniform", "bm25"] if s.has_searches and log.has_text else ["uniform"], ""),
        Choice("max_validation_cases", 300, "each is many prompts"),
    ]
    if s.given.get("retrieve_by") == "identifier":
        found += [Choice("identifier_weight", 1.0, "the model writes identifiers"), *_choose_codes(s)]
    elif log.num_items <= _MAX_ASKED_ITEMS:
        found.append(Choice("retrieve_by", "answer", f"{log.num_items:,} items: the model is asked about each"))
    else:
        found.append(Choice("retrieve_by", "views", f"{log.num_items:,} items: views find those it is asked"))
    if not log.has_text:
        found.append(Choice("prompt_views", ["collaborative"], "items have no text"))
        found.append(Choice("contrast_weight", 0.0, "there is one view"))
    if not s.has_searches:
        found.append(Choice("task_weights", ["recommendation=1"], "no searches"))
    return found


def _describe_times(s: Situation) -> str:
    if not s.log.has_time:
        return "the log has an order and no times"
    return "times are days" if s.log.times_are_days else "times of the day are there"


def _batch_size(rows: int, *, most: int) -> int:
    """Return a power of two that makes a hundred steps of an epoch, from 16 up."""
    return int(min(most, max(16, 2 ** round(math.log2(max(1, rows) / 100)))))


def _epochs(work: int, size: int, least: int, most: int) -> int:
    return int(min(most, max(least, round(work / max(1, size)))))


_FAMILIES: dict[str, Callable[[Situation], list[Choice]]] = {
    "gensar": _choose_gensar,
    "gensr": _choose_gensr,
    "intsr": _choose_intsr,
    "synergen": _choose_synergen,
}

__all__ = ["MOST_COMPARED_ITEMS", "choose"]
