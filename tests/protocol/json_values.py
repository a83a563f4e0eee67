"""JSON values for the tests of what is encoded and decoded."""

from __future__ import annotations

import json

from hypothesis import strategies as st

keys = st.one_of(st.text(), st.integers(), st.booleans(), st.none(), st.floats())
numbers = st.one_of(st.integers(), st.integers(-(2**70), 2**70), st.floats())
scalars = st.one_of(st.none(), st.booleans(), numbers, st.text())
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner), st.lists(inner).map(tuple), st.dictionaries(keys, inner, max_size=5)
    ),
    max_leaves=20,
)


def same(a: object, b: object) -> bool:
    """Equal, of the same types, with NaN equal to NaN and -0.0 different from 0.0."""
    return repr(a) == repr(b)


def standard(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
