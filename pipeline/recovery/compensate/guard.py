"""Compensation as a whole, and what of it stays: it may not make any held-out text worse."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

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


@dataclass(frozen=True, slots=True)
class Stays:
    """What of the changes stays in the model."""

    values: Mapping[str, Tensor]
    """Weights by name."""
    figures: Perplexities
    share: float
    """Of what the regressions changed."""
    undone: list[str]
    """Blocks whose regressions were taken back."""


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

    looks = 2 * _held_out_tokens(recovering)
    recovering.watching.on_ahead({HELD_OUT: looks, FIT: FITTING * tokens})
    before = _measured(recovering, pruned)
    show(0, before)
    recovering.watching.on_doing(FIT)
    changed = _changed(recovering, pruned, fitted)
    stays = _guarded(recovering, pruned, changed, before)
    after = stays.figures
    show(1, after)
    weights = pruned.weights()
    others = {name for name, cut in changed.cut.items() if not weights[name].cpu().equal(cut)}
    is_other = {block.name: bool(others & adjustable(block).keys()) for block in pruned.blocks}
    return {
        "usable_tokens": tokens,
        "factors": changed.factors,
        "share": stays.share,
        "blocks_undone": stays.undone,
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
) -> Stays:
    """Leave in the model what makes no held-out text worse: the best of what was tried."""
    whole = Stays(changed.fitted, _measured(recovering, model), 1.0, [])
    if not recovering.settings.guard or not _harm(whole.figures, before):
        return whole
    said = f"compensating makes held-out text worse ({_told(before, whole.figures)})"
    tried = [Stays(changed.cut, before, 0.0, [])]
    if recovering.settings.mode != "scalar":
        looks = len(SHARES) + len(model.blocks)
        recovering.watching.on_ahead({HELD_OUT: looks * _held_out_tokens(recovering)})
        for share in SHARES:
            mixed = changed.mixed(share)
            model.put(mixed)
            tried.append(Stays(mixed, _measured(recovering, model), share, []))
        tried.append(_some_undone(recovering, model, changed, before, whole))
    harmless = (each for each in tried if not _harm(each.figures, before))
    best = min(harmless, key=lambda each: _mean_log(each.figures))
    model.put(best.values)
    if best.values is changed.cut:
        recovering.warn(f"{said}: the weights stay as they were")
    elif best.undone:
        recovering.warn(
            f"{said}: the regressions of {len(best.undone)} of {len(model.blocks)} blocks are "
            f"taken back ({_told(before, best.figures)})"
        )
    else:
        recovering.warn(
            f"{said}: {best.share:.0%} of what the regressions changed stays "
            f"({_told(before, best.figures)})"
        )
    return best


def _some_undone(
    recovering: Recovering,
    model: PrunableModel,
    changed: Changed,
    before: Perplexities,
    whole: Stays,
) -> Stays:
    """Take back one block's regression after the other, the last block's first, where that helps.

    A regression sees what those below it changed, so what is above goes first.
    """
    best = whole
    for block in reversed(model.blocks):
        names = adjustable(block).keys()
        if all(changed.fitted[name].equal(changed.scaled[name]) for name in names):
            continue
        values = {**best.values, **{name: changed.scaled[name] for name in names}}
        model.put(values)
        tried = Stays(values, _measured(recovering, model), 1.0, [block.name, *best.undone])
        best = min(best, tried, key=lambda each: (_harm(each.figures, before),
                                                  _mean_log(each.figures)))  # fmt: skip
    return best


def _harm(figures: Perplexities, before: Perplexities) -> float:
    """By how much the texts that became worse did, in log-perplexity; 0 where none did."""
    return sum(math.log(figures[name] / ppl) for name, ppl in before.items() if figures[name] > ppl)


def _measured(recovering: Recovering, model: PrunableModel) -> Perplexities:
    """Of held-out windows, which are full where they are text."""
    recovering.watching.on_doing(HELD_OUT)
    found = {}
    for name, examples in recovering.held_out.items():
        found[name] = perplexity(model, Windows(examples.ids, None))
        recovering.watching.on_progress(HELD_OUT, examples.ids.numel())
    return {name: math.inf if each is None else each for name, each in found.items()}


def _held_out_tokens(recovering: Recovering) -> int:
    return sum(examples.ids.numel() for examples in recovering.held_out.values())


def _mean_log(perplexities: Perplexities) -> float:
    return sum(map(math.log, perplexities.values())) / max(1, len(perplexities))


def _told(before: Perplexities, after: Perplexities) -> str:
    return ", ".join(f"{name} {before[name]:.4g} -> {after[name]:.4g}" for name in before)


def _finite(perplexity: float) -> float | None:
    return perplexity if math.isfinite(perplexity) else None
