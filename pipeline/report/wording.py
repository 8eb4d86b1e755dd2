"""Names and numbers as a person reads them."""

from pipeline.pruning.units import UNITS
from pipeline.report.data import ReportStep, UnitLoss, finite

DIMENSION_NAMES = {"blocks": "Blocks", "mlp_channels": "MLP channels", "heads": "Attention heads"}
KIND_NAMES = {"attn": "attention", "mlp": "MLP"}

NOTHING = "–"  # noqa: RUF001 (an en dash stands for no value in a table)
TIMES = "×"  # noqa: RUF001 (an x would be a letter)
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


def removal(step: ReportStep | UnitLoss, dense_width: int) -> str:
    """What a step took, in words."""
    unit = UNITS[step.unit]
    if len(unit.kinds) > 1:
        return f"{unit.label} {step.layer}"
    kind = KIND_NAMES[unit.kinds[0]]
    if unit.is_whole:
        return f"{kind} block of layer {step.layer}"
    return f"{kind} of layer {step.layer} to {step.width_after:,} of {dense_width:,} channels"
