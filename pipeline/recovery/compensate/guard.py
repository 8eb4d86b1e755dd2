"""Compensation as a whole, and what of it stays: it may not make any held-out text worse."""

import math
from collections.abc import Callable, Mapping

from pipeline.errors import StageError
from pipeline.files import Json
from pipeline.models.prunable import PrunableModel
from pipeline.pruning.state import PruningState
from pipeline.recovery.base import Progress, Recovering
from pipeline.recovery.compensate.closed_form import adjustable
from pipeline.recovery.compensate.streams import Changed, fitted_widths, usable, walk
from pipeline.scoring.one_pass import perplexity
from pipeline.scoring.perplexity import Windows

ENOUGH = 10
"""Tokens for each input of the widest layer that is fitted: with fewer it learns them by heart."""
SHARES = (0.5, 0.25, 0.0)
"""Of what the regressions changed, to be tried where the whole of it makes a text worse."""

FIT, HELD_OUT = "fitting blocks", "held-out text"
"""Kinds of work, for whoever watches."""
FITTING = 3
"""Passes of a token that fitting takes, about: both models, and what is fitted."""

Perplexities = Mapping[str, float]
"""By held-out text."""


def compensate(recovering: Recovering) -> Mapping[str, Json]:
    """Compensate the live model; see ``Technique.run``. Raises ``StageError``."""
    tokens = int(usable(recovering.train).sum())
    _check_tokens(recovering, tokens)
    pruned = recovering.live.at(recovering.variant)

    def show(share: float, held_out: Perplexities | None = None) -> None:
        measured = {name: ppl for name, ppl in (held_out or {}).items() if math.isfinite(ppl)}
        recovering.progress(Progress(int(tokens * share), tokens, held_out=measured or None))

    def fitted(block: int) -> None:
        recovering.watching.on_progress(FIT, FITTING * tokens / len(pruned.blocks))
        show(block / len(pruned.blocks))

    measured = sum(examples.ids.numel() for examples in recovering.held_out.values())
    recovering.watching.on_ahead({HELD_OUT: 2 * measured, FIT: FITTING * tokens})
    before = _measured(recovering, pruned)
    show(0, before)
    recovering.watching.on_doing(FIT)
    changed = _changed(recovering, pruned, fitted)
    share, after = _guarded(recovering, pruned, changed, before)
    show(1, after)
    weights = pruned.weights()
    others = {name for name, cut in changed.cut.items() if not weights[name].cpu().equal(cut)}
    is_other = {block.name: bool(others & adjustable(block).keys()) for block in pruned.blocks}
    return {
        "usable_tokens": tokens,
        "factors": changed.factors,
        "share": share,
        "blocks_changed": [name for name, other in is_other.items() if other],
        "blocks_unchanged": [name for name, other in is_other.items() if not other],
        "held_out": {
            name: {"before": _finite(before[name]), "after": _finite(after[name])}
            for name in recovering.held_out
        },
    }


def _changed(recovering: Recovering, pruned: PrunableModel, done: Callable[[int], None]) -> Changed:
    """Compensate the pruned model, with the dense one in memory meanwhile."""
    live = recovering.live
    dense = live.twin(live.cut(PruningState.dense(recovering.variant.state.shape)))
    try:
        return walk(dense, pruned, recovering.train, recovering.settings, done)
    finally:
        live.drop_twin()


def _check_tokens(recovering: Recovering, tokens: int) -> None:
    """Raise ``StageError`` where there are fewer than the widest regression has unknowns."""
    widths = fitted_widths(recovering.variant.state, recovering.settings).values()
    widest = max(widths, default=0)
    more = f"recover.compensate.tokens={ENOUGH * widest} or more, and a text that has as many"
    if tokens < max(widest, 1):
        raise StageError(
            f"{tokens} tokens are too few to compensate with: the widest layer that is fitted has "
            f"{widest} inputs, and takes {ENOUGH} tokens for each; use {more}, or "
            "recover.compensate.mode=scalar"
        )
    if tokens < ENOUGH * widest:
        recovering.warn(
            f"{tokens} tokens are few to fit a layer of {widest} inputs with: what is learnt may "
            f"hold for this text alone; better use {more}"
        )


def _guarded(
    recovering: Recovering, model: PrunableModel, changed: Changed, before: Perplexities
) -> tuple[float, Perplexities]:
    """The share of the regressions' changes that stays in the model, and its perplexities then."""
    after = _measured(recovering, model)
    worse = [name for name in before if after[name] > before[name]]
    if not worse or not recovering.settings.guard:
        return 1.0, after
    said = f"compensating makes held-out text worse ({_told(before, after)})"
    best, values, figures = 0.0, changed.cut, before
    for share in SHARES if recovering.settings.mode != "scalar" else ():
        mixed = changed.mixed(share)
        model.put(mixed)
        after = _measured(recovering, model)
        is_harmless = all(after[name] <= before[name] for name in before)
        if is_harmless and _mean_log(after) < _mean_log(figures):
            best, values, figures = share, mixed, after
    model.put(values)
    if values is changed.cut:
        recovering.warn(f"{said}: the weights stay as they were")
    else:
        recovering.warn(
            f"{said}: {best:.0%} of what the regressions changed stays ({_told(before, figures)})"
        )
    return best, figures


def _measured(recovering: Recovering, model: PrunableModel) -> Perplexities:
    """Of held-out windows, which are full where they are text."""
    recovering.watching.on_doing(HELD_OUT)
    found = {}
    for name, examples in recovering.held_out.items():
        found[name] = perplexity(model, Windows(examples.ids, None))
        recovering.watching.on_progress(HELD_OUT, examples.ids.numel())
    return {name: math.inf if each is None else each for name, each in found.items()}


def _mean_log(perplexities: Perplexities) -> float:
    return sum(map(math.log, perplexities.values())) / len(perplexities)


def _told(before: Perplexities, after: Perplexities) -> str:
    return ", ".join(f"{name} {before[name]:.4g} -> {after[name]:.4g}" for name in before)


def _finite(perplexity: float) -> float | None:
    return perplexity if math.isfinite(perplexity) else None
