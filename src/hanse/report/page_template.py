"""`page_template`: templates of HTML pages that need nothing else, all with the reports' style."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from hanse.core.errors import MissingExtraError

if TYPE_CHECKING:
    from jinja2 import Template


def page_template(name: str, *, package: str = "hanse.report") -> Template:
    """A template of that name; everything that is put into it is escaped.

    Args:
      name: Of its file.
      package: Whose folder ``templates`` it lies in; it may include what lies in that of the reports.

    Raises:
      MissingExtraError: jinja2 is not installed.
    """
    try:
        from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
    except ImportError as error:
        raise MissingExtraError("the HTML report", extra="report") from error
    packages = dict.fromkeys([package, "hanse.report"])
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(own) for own in packages]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["unbroken"] = unbroken
    return environment.get_template(name)


def unbroken(text: str) -> str:
    """The text with each figure kept on one line with its unit."""
    return re.sub(r"(?<=\d) (?=(points|[kMGTP]?B|m?s|min|h)\b|%)", "\N{NO-BREAK SPACE}", text)
