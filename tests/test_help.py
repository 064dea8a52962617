"""`--help` of every command: what a newcomer reads first, in a terminal of 80 columns."""

import functools
import re
from pathlib import Path
from typing import Any

import pytest
import typer

from pipeline import cli
from pipeline.console.help import ADVANCED
from pipeline.dag import COMMANDS, STAGES
from pipeline.options import key_argument
from pipeline.params import all_keys

LISTED = (*STAGES, *COMMANDS, "use", "metrics", "store")
NAMES = [*((name,) for name in LISTED), *(("store", name) for name in ("info", "show", "verify"))]

KEYS = {key_argument(key) for key in all_keys()}


@functools.cache
def command_of(*names: str) -> Any:
    command = typer.main.get_command(cli.build_app(names[0] if names else None))
    for name in names:
        command = command.commands[name]  # type: ignore[attr-defined]
    return command


def help_of(*names: str) -> str:
    command = command_of(*names)
    with typer.Context(command, info_name=" ".join(("moclip", *names))) as context:
        return str(command.get_help(context))


def test_each_command_is_a_whole_sentence_on_a_line_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    listed = help_of().partition("Start here:")[2]
    lines = [line for line in listed.splitlines() if line.startswith(" ")]
    entries = {line: re.fullmatch(r"  ([a-z_-]+) +[A-Z].*[^.]\.", line) for line in lines}
    assert not [line for line, entry in entries.items() if entry is None], "wrapped or cut"
    assert sorted(entry[1] for entry in entries.values() if entry) == sorted(LISTED)


@pytest.mark.slow
def test_the_help_of_every_command_fits_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for width in (60, 80, 200):
        monkeypatch.setenv("COLUMNS", str(width))
        for names in ((), *NAMES):
            lines = help_of(*names).splitlines()
            assert not [line for line in lines if len(line) > min(width, 80)], names
            assert not [line for line in lines[1:] if line.endswith("...")], f"{names}: a line is cut"


def test_the_help_of_every_command_describes_its_own_options_before_those_of_params_yaml() -> None:
    for names in NAMES:
        text = help_of(*names)
        assert not re.search(r"<(int|str|float|path|list)|x>=|<=x", text), f"{names}: words of Python"
        own, title, advanced = text.partition(f"\n{ADVANCED}:\n")
        parameters = [one for one in command_of(*names).params if one.param_type_name == "option"]
        of_keys = [one for one in parameters if one.name in KEYS]
        assert bool(of_keys) == bool(title), f"{names}: {ADVANCED} is for keys of params.yaml"
        for parameter in parameters:
            option, place = parameter.opts[-1], advanced if parameter in of_keys else own
            assert re.search(rf"(?<!\S){option}\b", place), f"{names}: {option} is missing or in the wrong section"
            assert re.search(r"[.\]]$", parameter.help or ""), f"{names}: {option} has no sentence: {parameter.help}"


def test_without_params_yaml_help_shows_the_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    command_of.cache_clear()  # options hold what params.yaml had
    text = " ".join(help_of("train_fusion").split())
    assert "--fusion-lr VALUE AdamW's learning rate. Allowed: a number > 0 and <= 10. [default: 0.0001]" in text
    assert "[default: [240, 320]]" in " ".join(help_of("extract_mv").split())
    assert "Folder of videos: <root>/<class>/<clip>. [set in params.yaml]" in " ".join(help_of("index").split())
    command_of.cache_clear()
