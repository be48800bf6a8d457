"""ADE20K as in the scene parsing challenge of 2016 (http://sceneparsing.csail.mit.edu): 150 classes, 0 is none."""

from cgh_bench.data.layout import Layout, Part, Split


def _maps(name: str, count: int, split: Split) -> Part:
    files = f"images/{name}/{{}}.jpg", f"annotations/{name}/{{}}.png"
    return Part(*files, count, 151, split=split, scored=split == "val")


LAYOUTS = {
    "ade20k": Layout(
        folder="ADEChallengeData2016",
        parts=(_maps("training", 20_210, "train"), _maps("validation", 2_000, "val")),
        gigabytes=1.3,
        how="unpack http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip in $CGH_DATA",
    ),
}
