import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cgh_bench.core.config import fingerprint, override, parse, plain, read
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
    with pytest.raises(UserError, match="items.2.*did you mean items"):
        override(Several(), ["items.2.rate=0.5"])
    with pytest.raises(UserError, match="did you mean items.0.rate"):
        override(Several(), ["items.0.rte=0.5"])
    with pytest.raises(UserError, match="items.0 is a group of fields"):
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
    with pytest.raises(UserError, match=r"^resize=64: crop 224 is larger"):
        override(Fitting(), ["resize=64"])


def test_each_type_is_read() -> None:
    settings = "inner.rate=2e-3;inner.mode=b;count=7;on=False;sizes=(4,5,6);pair=1,2;limit=9;folder=/a b"
    changed = override(Outer(), settings.split(";"))
    assert changed == Outer(Inner(0.002, "b"), 7, False, (4, 5, 6), (1.0, 2.0), 9, Path("/a b"))
    assert override(changed, ["limit=none"]).limit is None


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("a=1,b=[2,3],c=[4]", ("a=1", "b=[2,3]", "c=[4]")),
        ("scale=(160,120)", ("scale=(160,120)",)),
        ("scales=[(160, 120), (80, 60)],lr=0.1", ("scales=[(160, 120), (80, 60)]", "lr=0.1")),
        ("steps=[[1,[2,3]],{'a': (4,5)}]", ("steps=[[1,[2,3]],{'a': (4,5)}]",)),
        ("name='a,b',x=1", ("name='a,b'", "x=1")),
        ("[a=1,b=2]", ("a=1", "b=2")),
        ("", ()),
    ],
)
def test_values_that_hold_lists_are_not_split(text: str, values: tuple[str, ...]) -> None:
    assert parse(text, tuple[str, ...]) == values


@dataclass(frozen=True)
class Document:
    name: str
    groups: tuple[Inner, ...]
    numbers: Mapping[str, float]


def test_a_document_becomes_a_dataclass_or_one_clear_line() -> None:
    whole = {"name": "x", "groups": [{"rate": 1}, {"mode": "b"}], "numbers": {"a": 2}}
    assert read(Document, whole) == Document("x", (Inner(1.0), Inner(mode="b")), {"a": 2.0})
    for change, message in [
        ({"groups": [{"rte": 1}]}, "unknown field 'rte'; did you mean rate?"),
        ({"groups": [{"rate": "1"}]}, "groups.0.rate = '1' should be a valid number"),
        ({"groups": [{"rate": -1}]}, "rate must be at least 0"),
        ({"numbers": {"a": True}}, "numbers.a = True should be a valid number"),
        ({"numbers": {"a": math.inf}}, "Out of range float values are not JSON compliant"),
        ({"numbers": {"a": 10**400}}, "should be a finite number"),
        ({"name": "\ud800"}, "Invalid JSON"),
        ({"name": None}, "name = None should be a valid string"),
        ({"nmae": "x", "name": "x"}, "did you mean name or numbers?"),
    ]:
        with pytest.raises(UserError, match="^[^\n]*$") as caught:
            read(Document, {**whole, **change})
        assert message in str(caught.value)
    with pytest.raises(UserError, match="numbers is missing"):
        read(Document, {"name": "x", "groups": []})
    with pytest.raises(UserError, match=r"\[1\] should be an object"):
        read(Document, [1])


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("count", "field=value"),
        ("cuont=1", "did you mean count"),
        ("inner.rte=1", "did you mean inner.rate"),
        ("count=x", "'x' should be a valid integer"),
        ("inner.rate=nan", "'nan' should be a finite number"),
        ("pair=0,-inf", "'-inf' should be a finite number"),
        ("on=2", "'2' should be a valid boolean"),
        ("inner.mode=c", "'c' should be 'a' or 'b'"),
        ("pair=1", "has 1 values; expected 2"),
        ("inner.rate=-1", "inner.rate=-1: rate must be at least 0"),
        ("count.x=1", "single value"),
        ("inner=1", "inner is a group of fields"),
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
