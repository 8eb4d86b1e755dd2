"""What a search over configuration keys found: its front, its progress, its keys."""

from collections.abc import Iterator, Sequence

from pipeline.report import colours
from pipeline.report.charts.base import (
    Axis,
    Chart,
    Key,
    Line,
    Marker,
    Point,
    Source,
    Stem,
    Stroke,
    is_logarithmic,
)
from pipeline.report.charts.sections import SEARCH
from pipeline.report.compare.comparison import Comparison
from pipeline.report.compare.study import Goal, SearchedRun, SearchReport

FRONT, OTHER = Marker(colours.ORANGE), Marker(colours.MUTED)
MISSED = Marker(colours.MUTED, "cross")
FRONT_STROKE, OTHER_STROKE = Stroke(colours.ORANGE), Stroke(colours.GRID)
FRONT_KEY = Key("no other run beats it", marker=FRONT)
OTHER_KEY = Key("beaten by another", marker=OTHER)
MISSED_KEY = Key("misses a constraint", marker=MISSED)
EVALUATIONS = Axis("runs", whole=False)
TWO = 2


def of_comparison(comparison: Comparison) -> Iterator[Chart]:
    """Of every search that the runs are of."""
    for search in comparison.searches:
        yield from figures_of_search(search)


def figures_of_search(search: SearchReport) -> Iterator[Chart]:
    """All that there is to draw of a search; nothing before a run is done."""
    if not any(run.readings for run in search.runs):
        return
    for place in range(1, len(search.goals)):
        yield _trade_off(search, place)
    if len(search.hypervolume) >= TWO and len(search.goals) > 1:
        yield _progress(search)
    yield from (_best_so_far(search, place) for place in range(len(search.goals)))
    if len(search.keys) >= TWO:
        yield _parallel(search)
    if any(search.importance.values()):
        yield _importance(search)


def _trade_off(search: SearchReport, place: int) -> Chart:
    """A goal against the first one; the front is joined."""
    one, other = search.goals[0], search.goals[place]
    measured = [run for run in search.runs if run.readings]
    keys = [FRONT_KEY, OTHER_KEY]
    keys += [MISSED_KEY] if any(run.missed for run in measured) else []
    front = [_point(search, run, place) for run in search.front]
    rest = [_point(search, run, place) for run in measured if not run.on_front]
    # points that are not joined are lines of one point
    lines = [Line((point,), OTHER_STROKE, point.marker or OTHER) for point in rest]
    lines += [Line((point,), FRONT_STROKE, FRONT) for point in front]
    return Chart(
        section=SEARCH,
        title=f"{other.name} against {one.name}",
        x=_axis(one, [point.x for point in (*front, *rest)]),
        y=_axis(other, [point.y for point in (*front, *rest)]),
        lines=tuple(lines),
        fronts=(tuple((point.x, point.y) for point in front),) if len(front) > 1 else (),
        own_keys=tuple(keys),
        order=place,
    )


def _point(search: SearchReport, run: SearchedRun, place: int) -> Point:
    first, other = run.readings[0], run.readings[place]
    return Point(
        first.value,
        other.value,
        search.in_words(run),
        other.ends,
        MISSED if run.missed else FRONT if run.on_front else OTHER,
        reach=first.ends,
    )


def _axis(goal: Goal, values: Sequence[float]) -> Axis:
    better = "higher" if goal.is_higher_better else "lower"
    title = ", ".join(filter(None, [goal.name, goal.unit, f"{better} is better"]))
    return Axis(title, logarithmic=is_logarithmic(values))


def _progress(search: SearchReport) -> Chart:
    pairs = zip(search.goals, search.reference, strict=True)
    reference = ", ".join(f"{goal.name} {value:.4g}" for goal, value in pairs)
    points = tuple(
        Point(number, volume, f"after {number} runs: {volume:.4g}")
        for number, volume in enumerate(search.hypervolume, 1)
    )
    return Chart(
        section=SEARCH,
        title="Hypervolume",
        x=EVALUATIONS,
        y=Axis("hypervolume"),
        lines=(Line(points, FRONT_STROKE, FRONT),),
        notes=(f"Measured from {reference}: what the front has gained over it.",),
        order=10,
    )


def _best_so_far(search: SearchReport, place: int) -> Chart:
    goal = search.goals[place]
    best: float | None = None
    points = []
    for number, run in enumerate(search.runs, 1):
        if run.counts:
            value = run.readings[place].value
            best = value if best is None else min(best, value, key=goal.loss)
        if best is not None:
            points.append(Point(number, best, f"after {number} runs: {goal.name} {best:.4g}"))
    measured = [run for run in search.runs if run.readings]
    single = [
        Line((Point(run.number + 1, run.readings[place].value, search.in_words(run)),),
             OTHER_STROKE, MISSED if run.missed else OTHER)
        for run in measured
    ]  # fmt: skip
    best_line = (Line(tuple(points), FRONT_STROKE, FRONT),) if points else ()
    return Chart(
        section=SEARCH,
        title=f"Best {goal.name} so far",
        x=EVALUATIONS,
        y=_axis(goal, [run.readings[place].value for run in measured]),
        lines=(*single, *best_line),
        own_keys=(Key("best so far", FRONT_STROKE), Key("a run", marker=OTHER)),
        order=20 + place,
    )


def _parallel(search: SearchReport) -> Chart:
    """Every run as a line over its keys and goals, each from its least to its greatest value."""
    measured = sorted((run for run in search.runs if run.readings), key=lambda run: run.on_front)
    spans = []
    for place in range(len(search.goals)):
        values = [run.readings[place].value for run in measured]
        spans.append((min(values), (max(values) - min(values)) or 1.0))
    lines = []
    for run in measured:
        heights = [key.place(run.values[key.name]) for key in search.keys]
        readings = zip(run.readings, spans, strict=True)
        heights += [(reading.value - low) / span for reading, (low, span) in readings]
        tip = search.in_words(run)
        points = tuple(Point(across, up, tip) for across, up in enumerate(heights))
        look = (FRONT_STROKE, FRONT) if run.on_front else (OTHER_STROKE, Marker(colours.GRID))
        lines.append(Line(points, *look))
    names = (*(key.name for key in search.keys), *(goal.name for goal in search.goals))
    return Chart(
        section=SEARCH,
        title="Keys and what they gave",
        x=Axis("", whole=True, names=names),
        y=Axis("from the least (0) to the greatest value (1)"),
        lines=tuple(lines),
        own_keys=(Key("no other run beats it", FRONT_STROKE), Key("others", OTHER_STROKE)),
        order=30,
    )


def _importance(search: SearchReport) -> Chart:
    known = [(goal, of) for goal, of in search.importance.items() if of]
    stems = [
        Stem(
            at,
            0.0,
            of[key.name] * 100,
            Marker(colours.group(place)),
            f"{key.name} decides {of[key.name]:.0%} of what makes {goal} good",
        )
        for place, (goal, of) in enumerate(known)
        for at, key in enumerate(search.keys)
    ]
    return Chart(
        section=SEARCH,
        title="How much each key decides",
        x=Axis("", whole=True, names=tuple(key.name for key in search.keys)),
        y=Axis("percent"),
        stems=tuple(stems),
        own_keys=tuple(
            Key(goal, marker=Marker(colours.group(place))) for place, (goal, _) in enumerate(known)
        ),
        notes=("By PED-ANOVA: of what tells the best tenth of runs, or five, from the others.",),
        order=40,
    )


CHART = Source(of_comparison=of_comparison)
