"""HTML files that need nothing else: no network, no server, no other file."""

import base64
import hashlib
import re
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING

from pipeline.files import Json
from pipeline.report import colours
from pipeline.report.drawing.svg import svg_icon

if TYPE_CHECKING:
    from jinja2 import Environment

SECRET_KEY = re.compile(r"(key|token|secret|password)$", re.IGNORECASE)
"""A page is handed around; texts of settings with such names are not shown, whatever they are."""
SCRIPT, STYLE = "page.js", "page.css"


def render(template: str, **values: object) -> str:
    """Fill in a template of this folder. Every value is escaped, but for what is drawn."""
    script, page = resource(SCRIPT), _environment().get_template(template)
    return page.render(
        **values,
        colours=colours,
        icon=svg_icon,
        style=resource(STYLE),
        script=script,
        # The browser runs this script and no other, even if something were not escaped.
        script_digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


@cache
def _environment() -> "Environment":
    """The templates of this folder, each compiled once."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("pipeline.report.pages", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    return environment


def unless_secret(key: str, value: Json, text: str) -> str:
    """What a page shows of a setting: ``text``, unless the value may be a secret."""
    return "not shown" if isinstance(value, str) and SECRET_KEY.search(key) else text


def resource(name: str) -> str:
    """The text of a file of this folder."""
    return resources.files("pipeline.report.pages").joinpath(name).read_text(encoding="utf-8")
