"""The layout of `--help`: sections of options, whole sentences, and plain words for the types of values."""

from __future__ import annotations

import re
from typing import Any

from typer.core import TyperCommand, TyperGroup

ADVANCED = "Advanced (keys of params.yaml, for this run only)"
"""The section of the options that stand for keys of params.yaml. It comes after a command's own options."""

ARGUMENTS, OPTIONS = "Arguments", "Options"

_PLACEHOLDERS = {"int": "N", "float": "X", "str": "TEXT", "list[str]": "TEXT", "path": "PATH"}
"""What stands for a value of a type; a range is that of its numbers, and a choice shows its words."""


class SectionedCommand(TyperCommand):
    """A command whose help has its own options first, then those of each `rich_help_panel` under its title."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        sections: dict[str, list[tuple[str, str]]] = {ARGUMENTS: [], OPTIONS: []}
        for parameter in self.get_params(ctx):
            if record := parameter.get_help_record(ctx):
                is_argument = parameter.param_type_name == "argument"
                title = ARGUMENTS if is_argument else getattr(parameter, "rich_help_panel", None) or OPTIONS
                sections.setdefault(title, []).append((_name(record[0], is_argument), _plain_ranges(record[1])))
        for title, records in sections.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)


class ListingGroup(TyperGroup):
    """A group whose help lists its commands in sections, each with the whole first line of its help."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        for title, names in self.sections().items():
            with formatter.section(title):
                formatter.write_dl([(name, (self.commands[name].help or "").partition("\n")[0]) for name in names])

    def sections(self) -> dict[str, tuple[str, ...]]:
        """Return the names of the commands by the title of their section."""
        return {"Commands": tuple(self.commands)}


def _name(text: str, is_argument: bool) -> str:
    """Return an option with a plain placeholder for its value: "--top N", not "--top <int range>"."""
    name, start, kind = text.partition(" <")
    if not start:
        return text
    kind = kind.removesuffix(">")
    return name if is_argument else f"{name} {_PLACEHOLDERS.get(kind.removesuffix(' range'), kind)}"


def _plain_ranges(text: str) -> str:
    """Return a help text with ranges in words: "at least 1", not "x>=1"."""
    number = r"([\d.]+?)(?:\.0)?"
    text = re.sub(rf"\b{number}<=x<={number}(?=[\];])", r"from \1 to \2", text)
    return re.sub(rf"\bx>={number}(?=[\];])", r"at least \1", text)
