"""Which run to take, in words. Where accuracies cannot be told apart, no winner is named."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

from pipeline.measure.paired import DRAWS
from pipeline.report.compare.entries import (
    Entry,
    by_model,
    by_target,
    comparable,
    ended_apart,
    entries_of,
)
from pipeline.report.compare.noise import NOISE_ERRORS, Score, difference
from pipeline.report.compare.quantities import (
    ACCURACY,
    DECODE,
    PERPLEXITY,
    PREFILL,
    Quantity,
    devices,
    percent_of_dense,
    value_text,
)
from pipeline.report.compare.ranking import points_text
from pipeline.report.compare.records import ComparedRun, Value
from pipeline.report.compare.seeds import only_seeds_differ, over_seeds
from pipeline.report.wording import TIMES, number, relative_change, signed, span

ACCURACY_BUDGETS = (1.0, 2.0, 5.0)
"""Points of accuracy that somebody may be ready to lose."""
PERPLEXITY_BUDGETS = (5.0, 10.0, 25.0)
"""The same for perplexity, in percent of the dense model's."""
MOST_RATIOS = 4


@dataclass(frozen=True, slots=True)
class Answer:
    """A question and what the runs say."""

    question: str
    text: str


def answers(runs: Sequence[ComparedRun]) -> list[Answer]:
    """For some ratios and some losses: which run is best."""
    quality = _quality(runs)
    models = by_model(comparable(list(entries_of(runs, quality))))
    answered = []
    for own in models.values():
        prefix = f"{own[0].run.model_name}: " if len(models) > 1 else ""
        both = (*_by_ratio(own, quality), *_by_budget(own, quality))
        answered += [Answer(prefix + answer.question, answer.text) for answer in both]
    return answered


def _quality(runs: Sequence[ComparedRun]) -> Quantity:
    """What decides: accuracy where any run measured it."""
    return ACCURACY if any(entries_of(runs, ACCURACY)) else PERPLEXITY


def notes(runs: Sequence[ComparedRun]) -> list[str]:
    """What a reader must know before comparing."""
    sentences = []
    quality = _quality(runs)
    entries = list(entries_of(runs, quality))
    if not entries:
        sentences.append(
            "No finished run measured accuracy or perplexity: nothing says which is best."
        )
    elif len({entry.value.protocol for entry in entries}) > 1:
        sentences.append(
            f"{quality.title} was not measured alike in all runs: no line joins different "
            f"protocols, and the answers are about: {comparable(entries)[0].value.protocol}."
        )
    if len(places := devices(runs)) > 1:
        sentences.append(
            f"Latency was measured on {_and(places)}: no line joins runs of different devices, and "
            "each device has a Pareto front of its own."
        )
    unfinished = Counter(run.state for run in runs if not run.is_done)
    if unfinished:
        states = _and([f"{count} {state}" for state, count in unfinished.items()])
        sentences.append(f"Not in the charts and answers: {states}.")
    return [*sentences, *(_noise_notes(comparable(entries)) if quality is ACCURACY else ())]


def _noise_notes(entries: Sequence[Entry]) -> Iterator[str]:
    """How accuracies of one model are told apart: item by item, or by their standard errors."""
    ways = {
        difference(one, other).known_by
        for own in by_model(entries).values()
        for one, other in combinations(_scores(own), 2)
    }
    if "items" in ways:
        yield (
            "Accuracies are told apart by a paired bootstrap over the same items "
            f"({DRAWS:,} draws in each task, mean over tasks): where the 95 % interval of a "
            "difference holds zero, they count as equal. Each interval is of one pair by itself: "
            "of twenty pairs of equal models, one is expected to differ."
        )
    if "errors" in ways:
        which = "Of runs whose items were not kept, accuracies" if "items" in ways else "Accuracies"
        yield (
            f"{which} that differ by less than {NOISE_ERRORS:g} standard errors of their "
            "difference count as equal (the errors take the items for drawn anew; on the same "
            "items real differences are a little clearer)."
        )


def _scores(entries: Sequence[Entry]) -> list[Score]:
    """Every accuracy of a model's runs, and of the model itself."""
    dense = next((entry.dense_score for entry in entries if entry.dense_score), None)
    return [*([dense] if dense else []), *(entry.score for entry in entries)]


def _by_ratio(entries: Sequence[Entry], quality: Quantity) -> Iterator[Answer]:
    targets = by_target(entries)
    for ratio in _spread(list(targets)):
        yield Answer(f"{ratio:g} % to remove", _best_of(targets[ratio], quality))


def _spread(ratios: Sequence[float]) -> list[float]:
    if len(ratios) <= MOST_RATIOS:
        return list(ratios)
    step = (len(ratios) - 1) / (MOST_RATIOS - 1)
    return [ratios[round(place * step)] for place in range(MOST_RATIOS)]


def _best_of(entries: Sequence[Entry], quality: Quantity) -> str:
    runs = [entry.run for entry in entries]
    if only_seeds_differ(runs) and not _are_one_model(entries):
        (seeds,) = over_seeds(runs)
        return f"{len(runs)} runs differ only in seeds: {seeds.in_words}."
    best = _best(entries, quality)
    equal = [entry for entry in entries if not _is_worse(entry, best, quality)]
    where = _where(entries)
    if _are_one_model(entries):
        return f"{_and([e.label for e in entries])} removed the same: {_worth(best, quality)}."
    if quality is PERPLEXITY and len(equal) == 1:
        return f"{best.label} has the lowest perplexity: {_worth(best, quality)}.{where}"
    if len(equal) == 1:
        lead = _lead(best, entries)
        return f"{best.label} keeps most accuracy: {_worth(best, quality)}.{lead}{where}"
    which = "they" if len(equal) == len(entries) else f"the best {len(equal)} of {len(entries)}"
    named = [
        f"{entry.label} ({value_text(entry.value, quality.unit)})" for entry in _few(equal, best)
    ]
    named += [f"{len(equal) - FEW} more"] if len(equal) > FEW else []
    name = quality.title.lower()
    return f"in {name} {which} cannot be told apart: {_and(named)}.{where}{_tie_break(equal)}"


def _lead(best: Entry, entries: Sequence[Entry]) -> str:
    """How far the best of several is above the next."""
    others = [entry for entry in entries if entry is not best]
    following = _best(others, ACCURACY)
    return f" Next is {following.label}, {points_text(best.above(following))} points below."


def _where(entries: Sequence[Entry]) -> str:
    """What was really removed, where runs with the same target ended far apart."""
    if not ended_apart(entries):
        return ""
    shown = [f"{entry.label} {entry.removed_percent:.1f} %" for entry in entries[: 2 * FEW]]
    more = " and others" if len(entries) > 2 * FEW else ""
    return f" Their steps end at different ratios: {', '.join(shown)}{more}."


def _are_one_model(entries: Sequence[Entry]) -> bool:
    first = entries[0].run.pruning
    return (
        len(entries) > 1
        and first is not None
        and not any(entry.run.before_recovery for entry in entries)
        and all(
            entry.run.pruning is not None and entry.run.pruning.identity() == first.identity()
            for entry in entries
        )
    )


FEW = 3


def _few(entries: Sequence[Entry], first: Entry) -> list[Entry]:
    ordered = sorted(entries, key=lambda e: -e.value.value)
    return [first, *(entry for entry in ordered if entry is not first)][:FEW]


def _best(entries: Sequence[Entry], quality: Quantity) -> Entry:
    sign = 1 if quality is ACCURACY else -1
    return max(entries, key=lambda entry: sign * entry.value.value)


def _is_worse(entry: Entry, best: Entry, quality: Quantity) -> bool:
    """Whether ``entry`` is clearly below ``best``; of perplexities any difference counts."""
    if quality is PERPLEXITY:
        return entry.value.value != best.value.value
    return not best.above(entry).is_noise


def _tie_break(entries: Sequence[Entry]) -> str:
    """What else speaks for one of them: perplexity, then speed."""
    reasons = [*_lowest_perplexity(entries)]
    for quantity, verb in ((PREFILL, "prefills"), (DECODE, "decodes")):
        reasons += _fastest(entries, quantity, verb)
    return f" Of these, {'; '.join(reasons)}." if reasons else ""


def _lowest_perplexity(entries: Sequence[Entry]) -> Iterator[str]:
    known = [(ppl, entry) for entry in entries if (ppl := entry.run.perplexity())]
    if len(known) < len(entries) or len({ppl.protocol for ppl, _ in known}) > 1:
        return
    ordered = sorted(known, key=lambda pair: pair[0].value)
    if ordered[0][0].value < ordered[1][0].value:
        yield f"{ordered[0][1].label} has the lowest perplexity, {number(ordered[0][0].value)}"


def _fastest(entries: Sequence[Entry], quantity: Quantity, verb: str) -> Iterator[str]:
    known = [(v, entry) for entry in entries if (v := percent_of_dense(quantity, entry.run))]
    if len(known) < len(entries) or len({value.protocol for value, _ in known}) > 1:
        return
    ordered = sorted(known, key=lambda pair: -pair[0].value)
    (first, entry), (second, _) = ordered[0], ordered[1]
    if first.ends and second.ends and first.ends[0] > second.ends[1]:
        yield f"{entry.label} {verb} fastest, {_times(first)} dense"


def _by_budget(entries: Sequence[Entry], quality: Quantity) -> Iterator[Answer]:
    budgets = ACCURACY_BUDGETS if quality is ACCURACY else PERPLEXITY_BUDGETS
    known = [entry for entry in entries if entry.dense]
    if not known:
        return
    bests: list[Entry | None] = []
    for budget in budgets:
        within = [entry for entry in known if _loss(entry, quality) <= budget]
        bests.append(max(within, key=lambda entry: entry.removed_percent, default=None))
    for place, (budget, best) in enumerate(zip(budgets, bests, strict=True)):
        # of those that none keeps the largest, of those that the same run keeps the least
        others = bests[:place] if best else bests[place + 1 :]
        if best not in others:
            yield Answer(_budget_text(budget, quality), _within(best, quality))
    gentlest = min(known, key=lambda entry: _loss(entry, quality))
    if bests[-1] is None:
        yield Answer("Least lost", f"{_run(gentlest)} loses least: {_change(gentlest, quality)}.")


def _budget_text(budget: float, quality: Quantity) -> str:
    if quality is ACCURACY:
        return f"{budget:g} point{'s' if budget != 1 else ''} of accuracy to lose at most"
    return f"perplexity {budget:g} % higher at most"


def _within(best: Entry | None, quality: Quantity) -> str:
    if best is None:
        return "no finished run stays within that."
    speeds = [
        f"{name} {_speed(value)}"
        for name, quantity in (("prefill", PREFILL), ("decode", DECODE))
        if (value := percent_of_dense(quantity, best.run))
    ]
    gained = f"; {', '.join(speeds)}" if speeds else ""
    return f"{_run(best)} removes most: {_change(best, quality)}{gained}.{_doubt(best, quality)}"


def _doubt(entry: Entry, quality: Quantity) -> str:
    change = entry.change if quality is ACCURACY else None
    if change is None or change.known_by == "values" or not change.is_noise:
        return ""
    return " Within the noise of the dense model's accuracy: more items would say more."


def _run(entry: Entry) -> str:
    return f"{entry.label} at {entry.removed_percent:.1f} % removed"


def _loss(entry: Entry, quality: Quantity) -> float:
    """Points of accuracy, or percent of perplexity."""
    assert entry.dense is not None
    if quality is ACCURACY:
        return entry.dense.value - entry.value.value
    return (entry.value.value / entry.dense.value - 1) * 100


def _loss_text(entry: Entry) -> str:
    """Points of accuracy against the dense model, with how sure they are where that is known."""
    change = entry.change
    assert change is not None
    match change.known_by:
        case "items":
            return points_text(change, signed)
        case "errors":
            return f"{signed(change.points)} ± {(change.high - change.points) / NOISE_ERRORS:.1f}"
        case "values":
            return signed(change.points)


def _change(entry: Entry, quality: Quantity) -> str:
    assert entry.dense is not None
    if quality is PERPLEXITY:
        change = relative_change(entry.dense.value, entry.value.value)
        return f"perplexity {number(entry.dense.value)} → {number(entry.value.value)}, {change}"
    return f"{_loss_text(entry)} points of accuracy"


def _worth(entry: Entry, quality: Quantity) -> str:
    dense = f", dense {value_text(entry.dense, quality.unit)}" if entry.dense else ""
    return f"{value_text(entry.value, quality.unit)}{dense}"


def _speed(value: Value) -> str:
    if value.interval and value.interval.contains(100.0):
        return "as fast as dense, as far as can be told"
    return f"{_times(value)} dense"


def _times(speed: Value) -> str:
    """A speed in percent of the dense model's as a factor, from where to where it may be."""
    low, high = speed.ends or (speed.value, speed.value)
    return f"{span(low / 100, high / 100)}{TIMES}"


def _and(words: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))
