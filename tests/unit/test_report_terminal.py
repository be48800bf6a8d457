"""The lines that the terminal shows."""

import io
from dataclasses import replace

import pytest
from reporting import result, use_fake_tasks
from rich.console import Console

from cgh_bench.core.errors import UserError
from cgh_bench.report.formats import show_published, show_result, show_results


@pytest.fixture
def console() -> Console:
    return Console(file=io.StringIO(), width=160, highlight=False)


def test_a_result_is_one_line(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    use_fake_tasks(monkeypatch)
    show_result(result("a", 61.234, seconds=3.21), console=console)
    show_result(result("a", 61.234), reused=True, console=console)
    assert console.file.getvalue().splitlines() == [
        "knn, seed 0: Top-1 61.23  error 61.23  time 61.23 s  3.2 s",
        "knn, seed 0: Top-1 61.23  error 61.23  time 61.23 s  reused",
    ]


@pytest.mark.parametrize("width", [30, 60, 80, 120])
def test_names_of_results_are_never_folded_where_there_is_room_for_them(
    width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_fake_tasks(monkeypatch)
    one = replace(result("a", 61.234), protocol="imagenet_knn_grid@0123abcd", checkpoint_name="moco_v2_r50_in1k_200ep")
    console = Console(file=io.StringIO(), width=width, highlight=False)
    show_results([(7, one), (12, replace(one, overridden=("k=5",)))], console)
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    assert sum("imagenet_knn_grid@0123abcd" in line for line in lines) == 2
    assert sum("moco_v2_r50_in1k_200ep" in line for line in lines) == 2
    assert any("overridden: k=5" in line for line in lines)
    together = [line for line in lines if "imagenet_knn_grid" in line and "moco_v2" in line]
    assert len(together) == (2 if width == 120 else 0)


def test_published_results_come_with_protocol_spread_and_conflicts(console: Console) -> None:
    show_published("voc_det", "moco v2", console=console)
    text = " ".join(console.file.getvalue().split())
    for shown in (
        "11-point interpolation",
        "Box AP50 0.2, Box AP 0.2, Box AP75 0.4",
        "MoCo v2, 200 ep 1 (asymmetric)",
        "fine-tuning learning rate searched per method",
        "conflicting sources: voc_det, MoCo v2, 800 ep, Box AP: 57.4 (facebookresearch/moco)",
        "57.6 (zdaxie/PixPro)",
    ):
        assert shown in text
    assert "SimCLR" not in text


def test_all_protocols_are_listed(console: Console) -> None:
    show_published(console=console)
    assert "coco_fpn_1x_infomin" in console.file.getvalue()


def test_an_unknown_protocol_is_answered(console: Console) -> None:
    with pytest.raises(UserError, match="unknown published protocol"):
        show_published("voc", console=console)
