"""What the README says is true."""

import csv
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_links_point_to_files() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target


def test_its_table_is_the_reference_of_the_demo() -> None:
    with (ROOT / "cgh_bench/report/tables/animals.csv").open(encoding="utf-8") as file:
        reference = [
            (row["row"], f"{float(row['mean']):.1f} ± {float(row['std']):.1f}") for row in csv.DictReader(file)
        ]
    lines = re.findall(r"^\| (Random init|MoCo v2|CGH) \| (.*±.*) \|$", README, re.MULTILINE)
    shown = [(label, cell.strip("* ")) for label, cells in lines for cell in cells.split("|")]
    assert shown == reference


def test_the_first_number_is_on_the_first_screen() -> None:
    before = README[: README.index("cgh-bench eval")]
    assert before.count("\n") < 35
