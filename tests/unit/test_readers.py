"""Every origin's checkpoint is recognised as its own and read bit for bit, on every branch."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from origins import LIGHTLY, ORIGINS, Sample

from cgh_bench.checkpoint import Checkpoint
from cgh_bench.reading import recognition
from cgh_bench.reading.readers import READERS
from cgh_bench.reading.weights_file import open_weights


@pytest.fixture(scope="module", params=list(ORIGINS))
def origin(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Sample, Path]]:
    known = ORIGINS[request.param]
    if known.needs == "lightly":
        if not LIGHTLY.is_dir():
            pytest.skip("lightly is absent; make providers")
    elif known.needs:
        pytest.importorskip(known.needs)
    sample = known.make()
    assert sample.source == known.source
    yield sample, sample.write(tmp_path_factory.mktemp(request.param))


def assert_is(sample: Sample, expected: str, read: Checkpoint) -> None:
    truth = sample.branches[expected]
    assert read.weights.keys() == truth.keys()
    wrong = [
        key for key, tensor in truth.items() if not torch.equal(read.weights[key], tensor.to(read.weights[key].dtype))
    ]
    assert not wrong, f"{expected}: {wrong[:3]}"
    assert read.architecture == sample.architecture
    assert (read.origin.source, read.origin.branch) == (sample.source, expected)
    assert read.preprocessing == sample.preprocessing


def test_origin(origin: tuple[Sample, Path]) -> None:
    """Without a word about it, and each branch by its name; told the source, the same branch is."""
    sample, path = origin
    first, *others = sample.branches
    opened = open_weights(path)
    assert_is(sample, first, recognition.read_opened(opened))
    told = recognition.recognise(opened, sample.source if sample.source in READERS else None, first, None)
    assert told.source == sample.source and told.choose(first) == first
    for branch in others:
        assert_is(sample, branch, recognition.read_opened(opened, branch=branch))


def test_every_reader_has_a_sample() -> None:
    assert {origin.source for origin in ORIGINS.values()} == (set(READERS) - {"ours"}) | {"unknown"}
