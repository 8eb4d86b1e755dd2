"""The run as one picture."""

from pipeline.report.charts import figures_of_run
from pipeline.report.data import RunReport
from pipeline.report.drawing.shapes import Drawing
from pipeline.report.headline import headlines
from pipeline.report.pictures.sheet import sheet, title_block

TITLE_HEIGHT = 76.0


def run_picture(report: RunReport) -> Drawing:
    """The sheet; less high with less to show."""
    about = "  ·  ".join(filter(None, [report.model_name, report.device]))
    sentences = [
        f"{h.title.lower()}: {' '.join(filter(None, [h.value, h.quantity]))}"
        for h in headlines(report)
    ]
    title = title_block(report.name, about, TITLE_HEIGHT, ["      ".join(sentences)])
    return sheet(title, figures_of_run(report))
