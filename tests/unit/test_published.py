"""Published results: the shipped file obeys its schema, its known facts are in it, and conventions stay apart."""

from pathlib import Path

import pytest

from cgh_bench import published, tasks
from cgh_bench.core.errors import UserError
from cgh_bench.report import cells
from cgh_bench.report.definition import ColumnDefinition, RowDefinition, published_metric, published_results

HEAD = "protocol,method,detail,epochs,cost,metric,value,deviation,source\n"
LINE = "voc_det,MoCo v2,,200,asymmetric,box_AP,57.0,,https://example.org\n"


def values(protocol: str, method: str, metric: str, epochs: int | None = None) -> set[float]:
    return {f.value for f in published.select(protocol, method) if (f.metric, f.epochs) == (metric, epochs)}


def test_the_shipped_file_is_whole() -> None:
    results = published.results()
    assert len(results) == 2069
    assert {each.protocol for each in results} == set(published.protocols())
    assert all(each.source.startswith("https://") for each in results)
    assert all(each.method == published.canonical_method(each.method) for each in results)


def test_known_anchors_are_in_it() -> None:
    """facebookresearch/moco detection/README.md, and the random and supervised rows of the two COCO-FPN conventions."""
    assert 82.4 in values("voc_det", "MoCo v2", "box_AP50", 200)
    assert 81.3 in values("voc_det", "Supervised", "box_AP50")
    assert published.protocols()["voc_det"].spread == {"box_AP50": 0.2, "box_AP": 0.2, "box_AP75": 0.4}
    assert values("coco_fpn_1x_moco", "Random init", "box_AP") == {31.0}
    assert values("coco_fpn_1x_infomin", "Random init", "box_AP") == {32.8}
    assert values("imagenet_linear", "MSF", "top1", 200) == {71.4, 72.4}


def test_numbers_that_their_source_contradicts_are_marked_and_fill_no_table() -> None:
    """facebookresearch/dinov3 MODEL_CARD.md repeats values across rows; NeCo's README counts 85M in a ViT-S."""
    suspect = [each for each in published.results() if each.deviation.startswith("suspect: ")]
    assert {(each.protocol, each.method) for each in suspect} == {
        ("imagenet_shift_dinov3", "DINOv3"),
        *((f"voc_{kind}_neco", "NeCo") for kind in ("incontext", "linear", "overclustering")),
    }
    assert len(suspect) == 2 + 8 + 3
    column = ColumnDefinition("R", "ImageNet-R", published="imagenet_shift_dinov3")
    assert not published_results(RowDefinition("7B", method="DINOv3", detail="ViT-7B/16"), column)


def test_an_error_says_so_and_keeps_its_digits() -> None:
    protocol = published.protocols()["depth_linear_dinov3"]
    assert published_metric(protocol, "NYUv2 RMSE").suffix == " [m] ↓"
    cell = cells.Cell((), (), "", published=tuple(published.select(protocol.name, "DINOv3")[:1]))
    assert cell.published_text() == "[0.403]"
    assert [published.printed(value) for value in (57.0, 67.53, 0.403, 83.664)] == ["57.0", "67.53", "0.403", "83.664"]


def test_tasks_that_claim_a_protocol_exist_and_every_spread_has_a_source() -> None:
    for protocol in published.protocols().values():
        for task in protocol.tasks:
            tasks.find(task)
        assert bool(protocol.spread) == bool(protocol.spread_source), protocol.name


@pytest.mark.parametrize("name", ["moco v2", "MoCo-v2", "mocov2", "MOCO_V2"])
def test_methods_are_found_in_any_spelling(name: str) -> None:
    assert published.canonical_method(name) == "MoCo v2"


def test_other_names_lead_to_the_canonical_one() -> None:
    assert published.canonical_method("NPID") == "InstDisc"
    assert published.canonical_method("barlow") == "Barlow Twins"
    assert published.canonical_method("MoCo v2+") == "MoCo v2+"


def test_every_alias_leads_to_a_method_that_has_results() -> None:
    assert set(published.ALIASES.values()) <= {each.method for each in published.results()}


def test_unknown_names_are_answered_with_the_nearest() -> None:
    with pytest.raises(UserError, match=r"unknown published protocol 'voc_dett'; did you mean voc_det"):
        published.select("voc_dett")
    with pytest.raises(UserError, match=r"unknown published method 'MoCo v5'; did you mean MoCo v"):
        published.select("voc_det", "MoCo v5")
    with pytest.raises(UserError, match="no published result of SlotCon under voc_det; methods: BYOL, "):
        published.select("voc_det", "SlotCon")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (LINE.replace("voc_det", "voc"), "unknown published protocol 'voc'"),
        (LINE.replace("57.0", "570"), "570.0 is not a percentage"),
        (LINE.replace("57.0", "nan"), "nan is not a percentage"),
        (LINE.replace("57.0", ""), "could not convert"),
        (LINE.replace(",200,", ",200.5,"), "invalid literal"),
        (LINE.replace("asymmetric", "cheap"), "unknown cost 'cheap'"),
        (LINE.replace("https://example.org", " "), "missing source"),
        (LINE.replace("MoCo v2", ""), "missing method"),
        ("voc_det,MoCo v2\n", "missing metric"),
        (LINE.strip() + ",more\n", "too many fields"),
    ],
)
def test_a_line_that_breaks_the_schema_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "results.csv"
    path.write_text(HEAD + LINE + line)
    with pytest.raises(ValueError, match=rf"results\.csv:3: .*{message}"):
        published.read(path)


def test_other_columns_and_repeated_lines_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    path.write_text(HEAD.replace("source", "url") + LINE)
    with pytest.raises(ValueError, match="the columns are"):
        published.read(path)
    path.write_text(HEAD + LINE + LINE)
    with pytest.raises(ValueError, match="repeated line"):
        published.read(path)


def published_result(**changes: object) -> published.PublishedResult:
    fields = {"protocol": "voc_det", "method": "MoCo v2", "detail": "", "epochs": 200, "cost": "asymmetric"}
    fields |= {"metric": "box_AP", "value": 57.0, "deviation": "", "source": "https://example.org/a"}
    return published.PublishedResult(**{**fields, **changes})


def test_sources_that_differ_are_a_conflict() -> None:
    other = published_result(value=57.4, source="https://example.org/b")
    same = published_result(source="https://example.org/c")
    assert published.conflicts([published_result(), same]) == []
    (conflict,) = published.conflicts([other, published_result(), same])
    assert [f.value for f in conflict.results] == [57.0, 57.0, 57.4]
    assert (
        published.conflicts([published_result(), published_result(value=57.4, deviation="learning rate searched")])
        == []
    )
    assert published.conflicts([published_result(), published_result(value=57.4, epochs=800)]) == []


def test_known_conflicts_are_found() -> None:
    found = {
        (c.protocol, c.variant, c.metric): {f.value for f in c.results}
        for c in published.conflicts(published.results())
    }
    assert found["voc_det", ("MoCo v2", "", 800), "box_AP"] == {57.4, 57.6}
    assert found["imagenet_linear", ("MoCo v2", "", 200), "top1"] == {67.5, 67.7}


def test_a_method_whose_tables_could_not_be_read_says_so_and_how_to_add_it() -> None:
    with pytest.raises(UserError, match=r"no published result of CGH: .*append .*voc_det,CGH,,200,asymmetric,METRIC,"):
        published.select(method="cgh")
    assert [said.partition(":")[0] for said in published.unread("voc_det")] == ["CGH"]
    assert published.unread("voc_seg_r2o") == []
