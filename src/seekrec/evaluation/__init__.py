# SPDX-License-Identifier: Apache-2.0
"""Evaluation: metrics, protocols, baselines and reports.

```
metrics.py     recall, ndcg and mrr of ranks; bootstrap intervals, paired comparisons
protocols.py   scorers and retrievers, and the cases that they are evaluated on
evaluator.py   systems over cases, to result rows
tables.py      several systems over the same cases, in time
report.py      result rows as JSON, as a table, compared
baselines.py   popularity, BM25, dense text, SASRec, LightGCN
reweighted.py  text search times a recommender
tuning.py      the validation cases that baselines are tuned on
more_baselines.py  stronger baselines; item_knn.py, and ceilings.py for rows that are not baselines
systems.py     our models as retrievers, and all baselines of a data set
validation.py  the ranking of validation cases that chooses a checkpoint
view_weights.py  weights of views, by validation: view_choices.py, likely_weights.py
conditions.py  searches as people type them, and items that are new
measures.py    beyond the mean: contents of the lists, and groups of cases
calibration.py calibration of probabilities
```
"""

from pathlib import Path

from seekrec.evaluation.baselines import BM25, DenseText, LightGCNScorer, Popularity, SASRecScorer
from seekrec.evaluation.calibration import ClickCalibration, click_calibration, expected_calibration_error
from seekrec.evaluation.conditions import (
    QUERY_FORMS,
    add_typo,
    compare_on_new_items,
    compare_query_forms,
    form_losses,
)
from seekrec.evaluation.evaluator import evaluate_cases, rank_cases
from seekrec.evaluation.measures import case_groups, list_measures, top_items
from seekrec.evaluation.metrics import (
    Interval,
    PairedDifference,
    RankSpan,
    all_metric_values,
    bootstrap_intervals,
    metric_values,
    mrr_at_k,
    ndcg_at_k,
    paired_bootstrap,
    rank_in_list,
    ranks_from_scores,
    recall_at_k,
)
from seekrec.evaluation.more_baselines import more_baseline_systems
from seekrec.evaluation.protocols import (
    EvaluationCases,
    RankingProtocol,
    Retriever,
    Scorer,
    build_cases,
)
from seekrec.evaluation.report import (
    Comparison,
    ResultRow,
    compare,
    format_table,
    read_results,
    write_results,
)
from seekrec.evaluation.reweighted import ReweightedBM25, ReweightedText, combine_scores
from seekrec.evaluation.systems import ModelRetriever, baseline_systems
from seekrec.evaluation.tables import evaluate_systems
from seekrec.evaluation.tuning import Tuning
from seekrec.evaluation.validation import ValidationRanking

# The folder for `evaluate.load(str(METRICS_FOLDER))`.
METRICS_FOLDER = Path(__file__).parent / "seekrec_metrics"

__all__ = [
    "BM25",
    "METRICS_FOLDER",
    "QUERY_FORMS",
    "ClickCalibration",
    "Comparison",
    "DenseText",
    "EvaluationCases",
    "Interval",
    "LightGCNScorer",
    "ModelRetriever",
    "PairedDifference",
    "Popularity",
    "RankSpan",
    "RankingProtocol",
    "ResultRow",
    "Retriever",
    "ReweightedBM25",
    "ReweightedText",
    "SASRecScorer",
    "Scorer",
    "Tuning",
    "ValidationRanking",
    "add_typo",
    "all_metric_values",
    "baseline_systems",
    "bootstrap_intervals",
    "build_cases",
    "case_groups",
    "click_calibration",
    "combine_scores",
    "compare",
    "compare_on_new_items",
    "compare_query_forms",
    "evaluate_cases",
    "evaluate_systems",
    "expected_calibration_error",
    "form_losses",
    "format_table",
    "list_measures",
    "more_baseline_systems",
    "metric_values",
    "mrr_at_k",
    "ndcg_at_k",
    "paired_bootstrap",
    "rank_cases",
    "rank_in_list",
    "ranks_from_scores",
    "read_results",
    "recall_at_k",
    "top_items",
    "write_results",
]
