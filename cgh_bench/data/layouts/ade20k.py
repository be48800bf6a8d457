"""ADE20K as in the scene parsing challenge of 2016 (http://sceneparsing.csail.mit.edu): 150 classes, 0 is none."""

from cgh_bench.data.layout import Layout, Part

LAYOUTS = {
    "ade20k": Layout(
        folder="ADEChallengeData2016",
        parts=tuple(
            Part(f"images/{split}/{{}}.jpg", f"annotations/{split}/{{}}.png", count, 151)
            for split, count in (("training", 20_210), ("validation", 2_000))
        ),
        gigabytes=1.3,
        how="unpack http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip in $CGH_DATA",
    ),
}
