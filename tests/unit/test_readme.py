"""What the README says is there, is there; and nothing else is."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def mapped() -> set[Path]:
    """Every path that the file map names, folders with all that is below them."""
    block = next(b for b in README.split("```") if b.strip().startswith("pretrain/"))
    named: set[Path] = set()
    for line in block.strip().splitlines():
        first = re.split(r"\s{2,}", line.strip())[0].split()
        if not line.startswith(" "):
            folder = ROOT / first[0]
            assert folder.is_dir(), folder
            if folder.name not in ("pretrain", "cgh_bench"):
                named |= set(folder.rglob("*"))
            continue
        for name in first:
            path = folder / name
            assert path.exists(), f"the README's file map names {path}, which is not there"
            named |= set(path.rglob("*")) if path.is_dir() else {path}
    return named


def test_the_file_map_is_true_and_whole() -> None:
    known = mapped()
    for package in ("pretrain", "cgh_bench"):
        for path in (ROOT / package).rglob("*.py"):
            if not path.name.startswith("__"):
                assert path in known, f"the README's file map misses {path.relative_to(ROOT)}"


def test_links_point_to_files() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target
