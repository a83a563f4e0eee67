"""The seeds of the fuzzer and the inputs that it has found, run without the fuzzer (`tests.fuzz`)."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.target import SEEDS, fuzz

PIECES = st.sampled_from(
    [part + b"\n" for seed in SEEDS for part in seed[1:].replace(b"\x01", b"\x00").split(b"\x00")]
)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("authentication", range(4))
def test_conversations_leave_others_alone(seed, authentication):
    fuzz(bytes([authentication]) + seed[1:])


@given(
    data=st.lists(st.sampled_from([b"\x00", b"\x01", b"\x02"]) | PIECES | st.binary(max_size=50), max_size=20)
)
@settings(max_examples=50)
def test_pieces_of_conversations_and_rubbish_in_any_order_leave_others_alone(data):
    fuzz(b"".join(data))
