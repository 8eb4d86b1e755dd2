"""Names and numbers as a person reads them."""

from pipeline.pruning.shape import BLOCK_NAMES, ModelShape
from pipeline.pruning.steps import PERPLEXITY
from pipeline.pruning.units import Candidate
from pipeline.report.data import finite

DIMENSION_NAMES = {"blocks": "Blocks", "mlp_channels": "MLP channels", "heads": "Attention heads"}

NOTHING = "–"  # noqa: RUF001 (an en dash stands for no value in a table)
TIMES = "×"  # noqa: RUF001 (an x would be a letter)
TO = "–"  # noqa: RUF001 (an en dash stands between the ends of an interval)
MINUS = "−"  # noqa: RUF001 (as wide as a plus sign)
LARGE_RATIO = 3.0
WHOLE_PERCENT_FROM = 100


def number(value: float | None, digits: int = 2) -> str:
    """With thousands separators, and fewer digits where it is large."""
    if value is None or finite(value) is None:
        return NOTHING
    for limit, fewer in ((1_000, 0), (100, 1)):
        if abs(value) >= limit:
            digits = min(digits, fewer)
    return f"{value:,.{digits}f}".replace("-", MINUS)


def span(low: float, high: float, digits: int = 2) -> str:
    """An interval by its ends: 1.06–1.11; one number where they read the same."""  # noqa: RUF002
    first, last = number(low, digits), number(high, digits)
    return first if first == last else f"{first}{TO}{last}"


def signed(value: float, digits: int = 1) -> str:
    """With its sign; none where it rounds to zero."""
    text = number(abs(value), digits)
    if not any(character in text for character in "123456789"):
        return text
    return ("+" if value > 0 else MINUS) + text


def relative_change(before: float | None, after: float | None) -> str:
    """The change in percent; as a factor where percents would be hard to read."""
    if before is None or after is None or finite(before) is None or finite(after) is None:
        return ""
    if before <= 0:
        return ""
    if after / before >= LARGE_RATIO:
        return f"{TIMES}{number(after / before, 1)}"
    percent = (after / before - 1) * 100
    return f"{signed(percent, 1 if abs(percent) < WHOLE_PERCENT_FROM else 0)} %"


def short_count(value: float) -> str:
    """A number of parameters: 134.5 M."""
    for limit, suffix in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:.4g} {suffix}"
    return f"{value:.0f}"


def dimension_name(name: str) -> str:
    """A dimension as a person reads it; of one that is not known here, its name in files."""
    return DIMENSION_NAMES.get(name, name.replace("_", " ").capitalize())


def score_name(criterion: str) -> str:
    """What the scores of a criterion are called."""
    plain = criterion.replace("_", " ")
    return "calibration perplexity" if criterion == PERPLEXITY else f"{plain} score"


def score_text(score: float | None, criterion: str) -> str:
    """A score as a person reads it. Those that are no perplexities may be of any size."""
    known = finite(score)
    if known is None or criterion == PERPLEXITY:
        return number(known, 3)
    return f"{known:.4g}".replace("-", MINUS)


def block_of(candidate: Candidate) -> str:
    """The block or layer that a candidate touches, in words: attention block, layer."""
    kinds = candidate.unit.kinds
    return f"{BLOCK_NAMES[kinds[0]]} block" if len(kinds) == 1 else candidate.unit.label


def removal(candidate: Candidate, shape: ModelShape) -> str:
    """What a candidate takes, in words."""
    if candidate.unit.is_whole:
        if len(candidate.unit.kinds) > 1:
            return f"{candidate.unit.label} {candidate.layer}"
        return f"{block_of(candidate)} of layer {candidate.layer}"
    parts = [
        f"{'each expert' if cut.is_inside else BLOCK_NAMES[cut.kind]} of layer {cut.layer} to "
        f"{cut.width_after:,} of {block.full(candidate.unit.name):,} {candidate.unit.counts}"
        for cut in candidate.cuts
        if (block := shape.block(cut.kind, cut.layer))
    ]
    return ", ".join(parts)
