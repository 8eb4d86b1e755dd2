"""Points that no other beats, and how much they have gained together. Less is better."""

from collections.abc import Iterator, Sequence

Losses = Sequence[float]


def front(points: Sequence[Losses]) -> list[int]:
    """Places of the points that no other beats: that is nowhere worse, and somewhere better."""
    return [
        place
        for place, point in enumerate(points)
        if not any(_beats(other, point) for other in points)
    ]


def _beats(one: Losses, other: Losses) -> bool:
    pairs = list(zip(one, other, strict=True))
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


def hypervolume(points: Sequence[Losses], reference: Losses) -> float:
    """What lies between the reference point and the points: the volume that they beat together.

    Points that are somewhere worse than the reference count for nothing. By slices along the last
    objective (While et al., A faster algorithm for calculating hypervolume, 2006, section II).
    """
    within = [
        point for point in points if all(a <= b for a, b in zip(point, reference, strict=True))
    ]
    if not within:
        return 0.0
    if len(reference) == 1:
        return reference[0] - min(point[0] for point in within)
    volume = 0.0
    ordered = sorted(within, key=lambda point: point[-1])
    ends = [*(point[-1] for point in ordered[1:]), reference[-1]]
    slices: list[Losses] = []
    for point, end in zip(ordered, ends, strict=True):
        slices.append(point[:-1])
        slices = [slices[place] for place in front(slices)]
        if end > point[-1]:
            volume += hypervolume(slices, reference[:-1]) * (end - point[-1])
    return volume


def history(points: Sequence[Losses | None], reference: Losses) -> Iterator[float]:
    """The hypervolume after each of the points; None is one that does not count."""
    best: list[Losses] = []
    volume = 0.0
    for point in points:
        if point is not None and not any(_beats(other, point) for other in best):
            best = [*(other for other in best if not _beats(point, other)), point]
            volume = hypervolume(best, reference)
        yield volume
