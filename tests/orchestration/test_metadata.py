"""What Dagster's pages show: numbers with the digits that people read, and their kinds."""

from taxifare.reports.tables import Heading, Table
from taxifare_dagster import metadata


def test_a_table_has_its_headings_kinds_and_digits() -> None:
    headings = (Heading("policy"), Heading("kept", "bool"), Heading("trips", "int"), Heading("MAE, USD", "float", 3))
    shown = metadata.table(
        Table((*headings, Heading("training, s", "float")), (("gate", True, 7, 2.06174, 1234.5678),))
    )
    kinds = [(column.name, column.type) for column in shown.schema.columns]
    assert kinds == [
        ("policy", "string"),
        ("kept", "bool"),
        ("trips", "int"),
        ("MAE, USD", "float"),
        ("training, s", "float"),
    ]
    (record,) = shown.records
    assert record.data == {"policy": "gate", "kept": True, "trips": 7, "MAE, USD": 2.062, "training, s": 1235}


def test_rules_that_dropped_trips_are_rows() -> None:
    (record,) = metadata.dropped({"outside_city": 3}).records
    assert record.data == {"rule": "outside_city", "trips dropped": 3}
