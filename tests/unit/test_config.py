from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cgh_bench.core.config import fingerprint, override, parse, plain
from cgh_bench.core.errors import UserError


@dataclass(frozen=True)
class Inner:
    rate: float = 0.1
    mode: Literal["a", "b"] = "a"

    def __post_init__(self) -> None:
        if self.rate < 0:
            raise UserError("rate must be at least 0")


@dataclass(frozen=True)
class Outer:
    inner: Inner = Inner()
    count: int = 3
    on: bool = True
    sizes: tuple[int, ...] = (1, 2)
    pair: tuple[float, float] = (0.5, 1.0)
    limit: int | None = None
    folder: Path = Path("x")


@dataclass(frozen=True)
class Several:
    items: tuple[Inner, ...] = (Inner(), Inner())


def test_dataclasses_in_a_tuple_go_by_number() -> None:
    assert override(Several(), ["items.1.rate=0.5"]) == Several((Inner(), Inner(0.5)))
    with pytest.raises(UserError, match="'2' is not one of the numbers 0 to 1"):
        override(Several(), ["items.2.rate=0.5"])
    with pytest.raises(UserError, match="did you mean rate"):
        override(Several(), ["items.0.rte=0.5"])
    with pytest.raises(UserError, match="is a single value"):
        override(Several(), ["items.0=0.5"])


@dataclass(frozen=True)
class Fitting:
    resize: int = 256
    crop: int = 224

    def __post_init__(self) -> None:
        if self.crop > self.resize:
            raise UserError(f"crop {self.crop} is larger than resize {self.resize}")


@pytest.mark.parametrize("settings", [["resize=64", "crop=32"], ["crop=32", "resize=64"]])
def test_fields_that_must_fit_each_other_change_together(settings: list[str]) -> None:
    assert override(Fitting(), settings) == Fitting(64, 32)
    with pytest.raises(UserError, match=r"--set resize=64: crop 224 is larger"):
        override(Fitting(), ["resize=64"])


def test_each_type_is_read() -> None:
    settings = "inner.rate=2e-3;inner.mode=b;count=7;on=False;sizes=(4,5,6);pair=1,2;limit=9;folder=/a b"
    changed = override(Outer(), settings.split(";"))
    assert changed == Outer(Inner(0.002, "b"), 7, False, (4, 5, 6), (1.0, 2.0), 9, Path("/a b"))
    assert override(changed, ["limit=none"]).limit is None


def test_a_list_within_a_value_is_not_split() -> None:
    assert parse("a=1,b=[2,3],c=[4]", tuple[str, ...]) == ("a=1", "b=[2,3]", "c=[4]")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("count", "field=value"),
        ("cuont=1", "did you mean count"),
        ("inner.rte=1", "did you mean rate"),
        ("count=x", "'x' is not a whole number"),
        ("inner.rate=nan", "'nan' is not a finite number"),
        ("pair=0,-inf", "'-inf' is not a finite number"),
        ("on=0", "not true or false"),
        ("inner.mode=c", "not one of a, b"),
        ("pair=1", "has 1 values, 2 are needed"),
        ("inner.rate=-1", "--set inner.rate=-1: rate must be at least 0"),
        ("count.x=1", "single value"),
        ("inner=1", "cannot be set"),
    ],
)
def test_what_does_not_fit_is_one_clear_line(setting: str, message: str) -> None:
    with pytest.raises(UserError, match="^[^\n]*$") as caught:
        override(Outer(), [setting])
    assert message in str(caught.value)


@given(st.floats(allow_nan=False, allow_infinity=False), st.integers(), st.booleans())
def test_parse_inverts_str(number: float, whole: int, flag: bool) -> None:
    assert parse(str(number), float) == number
    assert parse(str(whole), int) == whole
    assert parse(str(flag), bool) is flag


def test_fingerprint_sees_every_field_and_the_type() -> None:
    variants = [Outer(), replace(Outer(), count=4), Outer(Inner(0.2)), replace(Outer(), sizes=(2, 1)), Inner()]
    assert len({fingerprint(v) for v in variants}) == len(variants)
    assert fingerprint(Outer()) == fingerprint(Outer())
    assert plain(Outer())["inner"] == {"type": "Inner", "rate": 0.1, "mode": "a"}
