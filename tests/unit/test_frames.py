"""The frames of the engine's output stream: splitting, joining and time stamps."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polylocal.engine.containers import Frame
from polylocal.engine.docker.frames import Demultiplexer, join_frames, time_us, with_time

FRAMES = st.lists(st.builds(Frame, st.sampled_from([1, 2]), st.binary(max_size=40)), max_size=8)


def encoded(frame: Frame) -> bytes:
    return bytes([frame.stream, 0, 0, 0]) + len(frame.data).to_bytes(4, "big") + frame.data


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(at % (len(data) + 1) for at in cuts)})
    return [data[low:high] for low, high in zip(edges, edges[1:], strict=False)]


@settings(max_examples=100, deadline=500)
@given(FRAMES, st.lists(st.integers(0, 400), max_size=20))
def test_frames_come_out_whole_however_the_bytes_are_cut(frames: list[Frame], cuts: list[int]) -> None:
    frames_of = Demultiplexer()
    chunks = cut(b"".join(map(encoded, frames)), cuts)
    assert [frame for chunk in chunks for frame in frames_of.feed(chunk)] == frames


@settings(max_examples=100, deadline=500)
@given(FRAMES, st.integers(0, 400))
def test_a_frame_that_was_cut_off_is_never_given_out(frames: list[Frame], end: int) -> None:
    whole = b"".join(map(encoded, frames))
    found = list(Demultiplexer().feed(whole[: end % (len(whole) + 1)]))
    assert found == frames[: len(found)]


def test_byte_by_byte() -> None:
    frames_of, data = Demultiplexer(), encoded(Frame(1, b"one")) + encoded(Frame(2, b"")) + encoded(Frame(2, b"two"))
    found = [frame for byte in data for frame in frames_of.feed(bytes([byte]))]
    assert found == [Frame(1, b"one"), Frame(2, b""), Frame(2, b"two")]


@settings(max_examples=60, deadline=500)
@given(FRAMES)
def test_joining_changes_no_byte_and_no_order_of_streams(frames: list[Frame]) -> None:
    found = list(join_frames(iter(frames)))
    assert b"".join(frame.data for frame in found) == b"".join(frame.data for frame in frames)
    assert all(one.stream != other.stream for one, other in zip(found, found[1:], strict=False))
    for stream in (1, 2):
        wanted = b"".join(frame.data for frame in frames if frame.stream == stream)
        assert b"".join(frame.data for frame in found if frame.stream == stream) == wanted


def test_the_stamp_goes_from_the_data_into_the_time() -> None:
    found = with_time(Frame(2, b"1970-01-01T00:00:02.500000999Z a b\n"))
    assert found == Frame(2, b"a b\n", 2_500_000)


def test_a_frame_without_a_space_is_left_alone() -> None:
    assert with_time(Frame(1, b"nothing")) == Frame(1, b"nothing")


@pytest.mark.parametrize(
    ("stamp", "expected"),
    [
        ("1970-01-01T00:00:01.315178840Z", 1_315_178),
        ("1970-01-01T00:00:01.3Z", 1_300_000),
        ("1970-01-01T00:00:01Z", 1_000_000),
        ("nonsense", None),
        ("", None),
    ],
)
def test_times_of_the_engine(stamp: str, expected: int | None) -> None:
    assert time_us(stamp) == expected


@pytest.mark.parametrize("stamp", ["1970-01-01T01:00:01.315178840+01:00", "1970-01-01T01:00:01+01:00"])
def test_a_stamp_with_an_offset_is_never_taken_for_utc(stamp: str) -> None:
    assert time_us(stamp) in (None, 1_315_178, 1_000_000)
