"""What logs of older runs, and our own, call the metrics."""

from __future__ import annotations

import re

# Words that may stand before a name, and say nothing.
_NOISE = frozenset(
    {
        "info",
        "warning",
        "debug",
        "root",
        "main",
        "eval",
        "evaluation",
        "results",
        "result",
        "final",
        "metric",
        "metrics",
        "overall",
        "mean",
        "avg",
        "average",
        "test",
        "the",
        "of",
    }
)
_ALIASES: dict[str, tuple[str, ...]] = {
    "accuracy": ("accuracy", "acc", "pairwise_accuracy", "pair_accuracy", "pairwise_acc", "preference_accuracy"),
    "longer_wins": ("longer_wins",),
    "length_correlation": ("length_correlation",),
    "truncated_rate": ("truncated_rate",),
    "fitted_temp": ("fitted_temp", "fitted_temperature"),
    "fitted_log_loss": ("fitted_log_loss",),
    "auc_margin": ("auc_margin", "auc"),
    "aurc": ("aurc",),
    "allpairs_accuracy": ("allpairs_accuracy",),
    "aligned_accuracy": ("aligned_accuracy",),
    "strict_accuracy": ("strict_accuracy", "strict_acc", "accuracy_strict", "acc_strict"),
    "nontie_accuracy": (
        *("nontie_accuracy", "non_tie_accuracy", "accuracy_no_ties", "accuracy_without_ties", "acc_no_tie"),
        *("accuracy_no_tie", "accuracy_excluding_ties", "accuracy_non_tie", "no_tie_accuracy"),
    ),
    "tie_rate": ("tie_rate", "ties_rate", "tie_fraction", "tie_ratio", "tie_share", "frac_ties"),
    "n_ties": ("ties", "n_ties", "num_ties", "tie_count", "tie"),
    "bt_log_loss": (
        *("bt_log_loss", "bt_loss", "bt_nll", "bt_logloss", "bradley_terry_loss", "bradley_terry_log_loss"),
        *("log_loss", "logloss", "nll"),
    ),
    "nontie_bt_log_loss": ("nontie_bt_log_loss", "bt_loss_no_ties", "bt_loss_non_tie"),
    "bt_temp": ("bt_temp", "bt_temperature", "eval_bt_temp"),
    "unparsed_rate": (
        *("unparsed_rate", "invalid_rate", "parse_fail_rate", "parse_failure_rate", "unparsable_rate", "unparsed"),
        *("failed_parse_rate", "parse_error_rate"),
    ),
    "valid_rate": ("valid_rate", "parse_rate", "parsed_rate", "valid_score_rate", "valid_fraction", "valid"),
    "n_unparsed": ("n_unparsed", "num_unparsed", "n_invalid", "num_invalid", "parse_failures", "invalid"),
    "n_judgements": (
        "n_judgements",
        "answers",
        "num_completions",
        "n_completions",
        "completions",
        "num_responses",
        "responses",
    ),
    "uncertain_rate": ("uncertain_rate", "uncertainty_rate", "uncertain_fraction"),
    "coverage": ("coverage",),
    "n_pairs": ("n_pairs", "num_pairs", "pairs", "number_of_pairs", "total_pairs", "evaluated_pairs", "n_eval_pairs"),
    "n_samples": ("n_samples", "num_samples", "samples"),
    "margin_mean": ("margin_mean", "mean_margin", "avg_margin", "average_margin", "margin"),
    "margin_p50": ("margin_p50", "median_margin", "margin_median", "margin_q50"),
    "score_mean": ("score_mean", "mean_score", "avg_score"),
    "brier": ("brier", "brier_score"),
    "ece": ("ece", "expected_calibration_error"),
}
_OURS = (
    *("n_contexts", "n_label_ties", "n_half_judged", "log_loss_baseline", "mass", "score_std", "score_entropy"),
    *("score_support", "within_variance", "between_variance", "intraclass_correlation"),
)
_NAME_OF = {alias: name for name, aliases in _ALIASES.items() for alias in aliases} | {name: name for name in _OURS}
_QUANTILE = re.compile(
    r"(?:(?P<who>margin(?:_correct|_wrong)?|loss)_?[pq]_?(?P<q>\d\d?)|[pq](?P<q2>\d\d?)_(?P<who2>margin))\Z"
)
RATES = frozenset(
    {
        "longer_wins",
        "truncated_rate",
        "accuracy",
        "strict_accuracy",
        "nontie_accuracy",
        "tie_rate",
        "unparsed_rate",
        "valid_rate",
        "uncertain_rate",
        "coverage",
    }
)
COUNTS = frozenset(
    {
        *("n_pairs", "n_contexts", "n_label_ties", "n_half_judged", "score_support", "n_samples", "n_judgements"),
        *("n_ties", "n_unparsed"),
    }
)


def log_name(key: str) -> str | None:
    """Return our name of a log's key, None for what is none of ours; words that say nothing may stand before it.

    What stands in brackets explains: it is not part of a name.
    """
    words = re.sub(r"[^a-z0-9]+", "_", re.sub(r"\([^)]*\)", "", key.lower())).strip("_").split("_")
    while words:
        joined = "_".join(words)
        if joined in _NAME_OF:
            return _NAME_OF[joined]
        if quantile := _QUANTILE.match(joined):
            return f"{quantile['who'] or quantile['who2']}_p{int(quantile['q'] or quantile['q2'])}"
        if words[0] not in _NOISE:
            return None
        words = words[1:]
    return None
