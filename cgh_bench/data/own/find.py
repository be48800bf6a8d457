"""Datasets for detection and segmentation by name, or a folder of the user's own."""

import os
from pathlib import Path

from cgh_bench.core.errors import UserError, unknown
from cgh_bench.core.registry import registered
from cgh_bench.data import data_root, dense, find_folder, is_known
from cgh_bench.data.dense import DenseData, Kind, Own
from cgh_bench.data.layout import Checked
from cgh_bench.data.own import Format, maps, objects
from cgh_bench.data.segmented import CLASSES_FILE


def kinds(name: str) -> list[Kind]:
    """What of the user's own `name` means; nothing for a dataset that is known by name."""
    if is_known(name):
        return []
    found: dict[Kind, bool] = {"objects": bool(objects.format_of(name)), "maps": maps.is_folder_of_maps(name)}
    return [kind for kind, there in found.items() if there]


def look(name: str, kind: Kind, cache: Path) -> tuple[Checked, Own | None]:
    """What is found in the files of this kind that `name` means, and where they are if they can be used."""
    return {"objects": objects.look, "maps": maps.look}[kind](name, cache)


def locate(name: str, kind: Kind, cache: Path) -> DenseData:
    """The dataset `name`, as `dense.locate`; or files of the user's own, of this kind.

    Raises:
        UserError: absent, of no form that is read, or something is wrong with them.
    """
    if is_known(name):
        return dense.locate(name, cache)
    if kind not in kinds(name):
        raise _unknown(name, kind)
    found, own = look(name, kind, cache)
    if own is None:
        raise UserError(f"{name} cannot be used: {dense.summary(name, found)}")
    return own


def _unknown(name: str, kind: Kind) -> UserError:
    known: dict[str, Format] = registered("cgh_bench.data.own", "FORMATS")
    forms = {
        "objects": "; ".join(f"{title}: {each.expected}" for title, each in known.items()),
        "maps": f"{{train,val}}/{{images,masks}} and {CLASSES_FILE}",
    }
    if folder := find_folder(name):
        return UserError(f"{folder} has no {kind} in a supported format ({forms[kind]})")
    if os.sep in name:
        return UserError(f"no folder {name!r}; expected one with {kind} ({forms[kind]})")
    hint = str(unknown("dataset", name, dense.layouts())).removesuffix("?")
    return UserError(f"{hint}; for your own data, pass a folder or put it in {data_root() / name} ($CGH_DATA/NAME)")
