"""Time stamps: format, parsing, and monotonic order."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polylocal import clock

MOMENTS = st.datetimes(datetime(1970, 1, 2), datetime(2200, 1, 1), timezones=st.just(UTC))


def test_a_stamp_has_microseconds_and_a_numeric_offset() -> None:
    assert clock.stamp(datetime(2018, 8, 23, 0, 30, 18, 674062, UTC)) == "2018-08-23T00:30:18.674062+00:00"


def test_whole_seconds_keep_their_fraction() -> None:
    assert clock.stamp(datetime(2018, 8, 23, tzinfo=UTC)) == "2018-08-23T00:00:00.000000+00:00"


def test_other_zones_are_sent_as_utc() -> None:
    berlin = timezone(timedelta(hours=2))
    assert clock.stamp(datetime(2018, 8, 23, 2, tzinfo=berlin)) == "2018-08-23T00:00:00.000000+00:00"


def test_a_naive_moment_is_utc() -> None:
    assert clock.stamp(datetime(2018, 8, 23)) == clock.stamp(datetime(2018, 8, 23, tzinfo=UTC))
    assert clock.parse("2018-08-23") == datetime(2018, 8, 23, tzinfo=UTC)


@settings(max_examples=50, deadline=500)
@given(MOMENTS, MOMENTS)
def test_text_order_is_time_order(one: datetime, other: datetime) -> None:
    assert (clock.stamp(one) < clock.stamp(other)) == (one < other)


@settings(max_examples=50, deadline=500)
@given(MOMENTS)
def test_a_stamp_is_read_back_exactly(moment: datetime) -> None:
    assert clock.parse(clock.stamp(moment)) == moment


def test_seconds_between_knows_offsets() -> None:
    assert clock.seconds_between("2018-08-23T02:00:00+02:00", "2018-08-23T00:00:01.5+00:00") == 1.5


def test_now_never_goes_below_an_earlier_now() -> None:
    earlier = clock.now()
    assert earlier <= clock.now()


def test_an_invalid_date_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="Invalid isoformat"):
        clock.parse("yesterday")
