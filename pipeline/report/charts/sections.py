"""The headings below which charts stand, in the order of a page."""

from pipeline.report.charts.base import Section

LAYERS = Section(
    name="layers",
    title="What is left of every layer",
    order=10,
    columns=1,
    height=204,
    picture_columns=1,
    picture_height=196,
    foot="The model reads from left to right.",
)
ALONG_RUN = Section(
    name="along-run",
    title="Along the way",
    order=20,
    columns=2,
    height=250,
    picture_columns=4,
    picture_height=240,
)
SENSITIVITY = Section(
    name="sensitivity",
    title="Sensitivity of the dense model",
    order=30,
    columns=0,
    height=230,
    picture_columns=0,
    picture_height=216,
    lead="Calibration perplexity without one unit: the higher, the more it is needed.",
)
SEARCH = Section(
    name="search",
    title="What the search found",
    order=5,
    columns=2,
    height=300,
    picture_columns=2,
    picture_height=290,
    foot="The front has the runs that no other beats, by their values; error bars say from where "
    "to where they may be.",
)
OVER_REMOVED = Section(
    name="over-removed",
    title="Against what was removed",
    order=10,
    columns=3,
    height=240,
    picture_columns=3,
    picture_height=240,
)
OVER_LATENCY = Section(
    name="over-latency",
    title="Against measured latency",
    order=20,
    columns=2,
    height=320,
    picture_columns=2,
    picture_height=310,
    foot="Each device and way of measuring has a front of its own; within each other's error bars "
    "no run beats another.",
)
RUN_LAYERS = Section(
    name="run-layers",
    title="What is left of every layer",
    order=30,
    columns=3,
    height=54,
    picture_columns=4,
    picture_height=76,
    lead="Upper row attention, lower row MLP.",
    foot="Layers from left to right, from input to output.",
)
