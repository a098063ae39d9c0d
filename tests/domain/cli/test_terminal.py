"""What stands in a terminal: tables of which nothing is cut, whatever the width, and help that is folded by words."""

import inspect

import pytest
import typer
from typer.testing import CliRunner

from taxifare.cli.main import app
from taxifare.cli.shared import show
from taxifare.reports.tables import Heading, Table

FIGURES = Table(
    (
        Heading("policy", is_unbroken=True),
        Heading("mean MAE, USD", "float", 3),
        Heading("MAE on all rides, USD", "float", 4),
        Heading("off in all, USD", "float"),
        *(Heading(name, "int") for name in ("questions", "regretted")),
        Heading("above the best, USD", "float", 3),
        Heading("why"),
        Heading("training, s", "float", is_detail=True),
    ),
    (
        ("gate", 1.6, 1.6543, 2_312_345.0, 3, 0, 0.012, "because the month before was held", 110.2),
        ("standing", 1.612, 1.6549, 12_345.0, 0, 1, 0.0, "", 9.0),
    ),
)


@pytest.mark.parametrize("width", [40, 79, 80, 81, 87, 99, 100, 104, 117, 130, 200])
def test_nothing_is_cut(width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    show(FIGURES)
    shown = capsys.readouterr().out
    is_row_a_block = width < 80
    for place, heading in enumerate(FIGURES.headings):
        if heading.is_detail and 80 <= width < 100:
            continue
        assert all(word in shown for word in heading.name.split())
        for row in FIGURES.texts():
            assert all(word in shown.split() for word in row[place].split()), row[place]
    assert max(map(len, shown.splitlines())) <= width or is_row_a_block


@pytest.mark.parametrize("name", sorted(typer.main.get_command(app).commands))  # type: ignore[attr-defined]
def test_help_is_folded_where_the_terminal_ends_and_not_where_the_source_does(name: str) -> None:
    told = inspect.cleandoc(typer.main.get_command(app).commands[name].help)  # type: ignore[attr-defined]
    shown = CliRunner().invoke(app, [name, "--help"], env={"COLUMNS": "1000", "TERMINAL_WIDTH": "1000"}).output
    lines = {line.strip() for line in shown.splitlines()}
    for paragraph in told.replace("`", "").split("\n\n"):
        assert " ".join(paragraph.split()) in lines
