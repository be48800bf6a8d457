"""Bytes that nobody should trust, for the tests of parsers: `test_foreign_records.py`, `test_foreign_data.py`."""

from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from cgh_bench.core.errors import UserError

bounded = settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just(10**400),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
DEEP = "[" * 100_000


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """`whole` with some bytes changed, cut out or put in."""
    content = bytearray(whole)
    for _ in range(draw(st.integers(1, 6))):
        place = draw(st.integers(0, max(len(content) - 1, 0)))
        match draw(st.sampled_from(["change", "cut", "insert", "end"])):
            case "change" if content:
                content[place] = draw(st.integers(0, 255))
            case "cut":
                del content[place : place + draw(st.integers(1, 40))]
            case "insert":
                content[place:place] = draw(st.binary(max_size=20))
            case "end":
                del content[max(place, len(content) // 2) :]
    return bytes(content)


def tried(parse: Any, *arguments: Any) -> None:
    """Call `parse`; only a UserError of one line may come out."""
    try:
        parse(*arguments)
    except UserError as error:
        assert "\n" not in str(error)
