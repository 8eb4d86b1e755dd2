"""How much each key decides of what is good, by Optuna's PED-ANOVA."""

from collections.abc import Mapping, Sequence

from pipeline.evolution.quiet import quiet_optuna
from pipeline.files import Json, encode
from pipeline.settings.study import Range
from pipeline.studies.space import distribution_of

LEAST_RUNS = 10
"""Of fewer nothing can be said."""
GOOD_RUNS = 5
"""So many runs are to be among the good ones, as the method's authors advise."""
GOOD_SHARE = 0.1


def importance(
    axes: Mapping[str, Range], values: Sequence[Mapping[str, Json]], losses: Sequence[float]
) -> dict[str, float]:
    """By axis the share of what tells good runs from others; none where the runs are too few.

    Good are the runs with the least losses: a tenth, or five (Watanabe et al., PED-ANOVA, 2023).
    """
    if len(values) < LEAST_RUNS or len(set(losses)) == 1:
        return {}
    with quiet_optuna():
        from optuna import create_study
        from optuna.importance import PedAnovaImportanceEvaluator
        from optuna.trial import create_trial

        study = create_study()
        distributions = {name: distribution_of(each) for name, each in axes.items()}
        for each, loss in zip(values, losses, strict=True):
            params = {n: v if axes[n].choices is None else encode(v) for n, v in each.items()}
            study.add_trial(create_trial(value=loss, params=params, distributions=distributions))
        quantile = max(GOOD_SHARE, min(0.5, GOOD_RUNS / len(values)))
        evaluator = PedAnovaImportanceEvaluator(target_quantile=quantile)
        found = evaluator.evaluate(study)
    total = sum(found.values())
    return {name: found.get(name, 0.0) / total for name in axes} if total else {}
