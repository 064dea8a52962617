"""Tables fit the terminal with long names, wide characters and many streams; in a pipe each row is one line."""

import io
import re
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from moclip.wording import counted
from pipeline.ask.answer import show_rows
from pipeline.console.output import STREAM_LABELS, print_scores
from pipeline.console.tables import table_lines
from pipeline.predict_answers import print_table as print_answers

WORDS = "A name of many words that nobody would choose and yet stands"
WORD = "Anamewithoutspacesthatnobodywouldchooseandyetitstandshere_60"
WIDE = "跑步" * 15
NAMES = [WORDS, WORD, WIDE, "Run"]
PATHS = [f"videos/{name}/v_{name}_g01_c01.avi" for name in NAMES]
SCORES = ["0.912±0.012"] * len(STREAM_LABELS)
TABLES: dict[str, tuple[tuple[str, ...], list[tuple[str, ...]]]] = {
    "classes": (("class", "clips", "share", "fusion"), [(name, "1,234", "50.0 %", "0.66 ± 0.12") for name in NAMES]),
    "clips": (("clip", "class", "says"), [(path, WIDE, name) for path, name in zip(PATHS, NAMES, strict=True)]),
    "settings": (
        ("lr", "hidden", *STREAM_LABELS.values(), "M multiply-adds"),
        [("0.001", hidden, *SCORES, "73.3") for hidden in ("64", "128")],
    ),
    "sentences": (("", "state", "found", "what to do"), [(WORDS, "ok", WORDS * 2, ""), ("x", "warning", "y", WORDS)]),
    "scores": (
        ("", "views", "top-1", "mean class", "95 % interval", "top-5", "M multiply-adds"),
        [(name, "8x1 + 1 frame", "1.000", "0.500", "0.000-1.000", "0.9", "73.3") for name in STREAM_LABELS.values()],
    ),
    "nothing": (("clip", "class"), []),
}


@pytest.mark.parametrize("columns_and_rows", TABLES.values(), ids=list(TABLES))
def test_a_table_fits_any_terminal_and_keeps_its_values(
    columns_and_rows: tuple[tuple[str, ...], list[tuple[str, ...]]],
) -> None:
    columns, rows = columns_and_rows
    for width in (60, 80, 200):
        lines = table_lines("title", columns, rows, Console(width=width, color_system=None))
        assert max(map(cell_len, lines)) <= width
        assert not any(line.endswith("top-") for line in lines), "a short header is broken"
        for value in {value for row in rows for value in row if len(value) <= 13}:
            assert any(re.search(rf"(^|  ){re.escape(value)}(  |$)", line) for line in lines), f"{value} is wrapped"
    whole = table_lines("title", columns, rows, Console(width=1 << 16))
    assert len(whole) == 3 + len(rows)
    assert all(value in line for row, line in zip(rows, whole[3:], strict=True) for value in row)


def test_a_path_stands_whole_above_its_row() -> None:
    path = PATHS[1]
    lines = table_lines("title", ("clip", "px"), [(path, "1.5"), ("", "20")], Console(width=len(path)))
    assert lines[-3:] == [path, "  1.5", "   20"]


def test_a_rank_stands_in_front_of_its_path_and_class_names_are_whole() -> None:
    columns = ("rank", "clip", "class", "split", "score", "neighbours", "prediction", "suggested")
    row = ("1", PATHS[3] * 2, "GreenBallApproaching", "train", "0.5", "0.5", "0.5", "BlueBallApproaching")
    *_, label, first, second = table_lines("title", columns, [row], Console(width=80))
    assert label == f"1  {PATHS[3] * 2}"
    assert first.split() == [*row[2:7]]
    assert second.split() == [row[7]], "of the same clip, on the next line"


def test_rows_that_continue_below_begin_with_all_their_settings() -> None:
    columns, rows = TABLES["settings"]
    lines = table_lines("title", columns, rows, Console(width=80), repeated=2)
    of_64 = [line for line in lines if re.match(r"0\.001 +64 ", line)]
    assert len(of_64) == len([line for line in lines if re.match(r"0\.001 +128 ", line)]) > 1
    assert sum(line.count("0.912±0.012") for line in of_64) == len(STREAM_LABELS)


class Terminal(io.StringIO):
    """What is written to a terminal."""

    def isatty(self) -> bool:
        return True


def print_all(classes: int, folder: Path) -> None:
    """Print scores, answers and found clips as the commands do."""
    score: dict[str, Any] = {"n": 1234, "skipped": {"broken": 1}, "protocol": "8x1 + 1 frame", "top1_low": 0}
    score |= {"per_class": dict.fromkeys(map(str, range(classes)))}
    score |= dict.fromkeys(("top1", "mean_class_accuracy", "top5", "top1_high"), 1.0)
    print_scores(dict.fromkeys(STREAM_LABELS, score), dict.fromkeys(STREAM_LABELS, 12345.6))
    said = [{"class": name, "probability": 0.25} for name in NAMES]
    answers = {"fusion": said, "mv_tsn": said, "zero_shot": said, "trusted": "mv_tsn"}
    print_answers([{"clip": path, **answers} for path in PATHS])
    rows = [{"clip": path, "class": name, "cosine": 0.5} for path, name in zip(PATHS, NAMES, strict=True)]
    show_rows("similar", f"clips like {PATHS[0]}", ("clip", "class", "cosine"), rows, folder / "similar.csv")


@pytest.mark.parametrize("width", [60, 80, 200])
def test_scores_answers_and_found_clips_fit_the_terminal(
    width: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr("sys.stdout", written := Terminal())
    print_all(12, tmp_path)
    lines = re.sub(r"\x1b\[[\d;]*m", "", written.getvalue()).splitlines()
    tables = [line for line in lines if not line.startswith("similar: ")]  # a note, which the terminal itself wraps
    assert len(tables) > 50
    assert max(map(cell_len, tables)) <= width


def test_in_a_pipe_each_row_is_one_plain_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    print_all(12, tmp_path)
    piped = capsys.readouterr().out
    assert "\x1b" not in piped
    assert "test split: 1,234 clips scored, 1 left out" in piped
    assert all(sum(line.startswith(path) for line in piped.splitlines()) == 2 for path in PATHS)


def test_top_5_is_shown_only_for_more_than_ten_classes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for classes, shown in ((10, False), (11, True)):
        print_all(classes, tmp_path)
        assert ("top-5" in capsys.readouterr().out) == shown


def test_a_count_has_its_noun_in_the_right_number() -> None:
    assert [counted(1, "clip"), counted(0, "clip"), counted(1234, "class", "classes")] == [
        "1 clip",
        "0 clips",
        "1,234 classes",
    ]
