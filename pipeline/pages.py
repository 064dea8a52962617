"""Pages from the templates of the library. It needs no pandas."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jinja2


def template(name: str, **filters: Callable[..., Any]) -> jinja2.Template:
    """Return a template of moclip/templates. What it prints is escaped; an unknown name in it is an error."""
    loader = jinja2.PackageLoader("moclip", "templates")
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters.update(filters)
    return environment.get_template(name)
