"""The histogram of the engine's answers is that of Prometheus' own client."""

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from polylocal.api.engine_times import BUCKETS_S, EngineTimes
from polylocal.api.metrics import EngineSeconds

SECONDS = st.sampled_from([0.0, *BUCKETS_S]) | st.floats(0, 200)


def text_of(collector: object) -> list[str]:
    registry = CollectorRegistry()
    registry.register(collector)
    return [line for line in generate_latest(registry).decode().splitlines() if "_created{" not in line]


@given(st.lists(st.tuples(st.sampled_from(["GET info", 'POST "x"\n']), SECONDS)))
def test_the_text_is_that_of_a_histogram(answers: list[tuple[str, float]]) -> None:
    times = EngineTimes()
    about = "Seconds until the engine answers, by what it was asked for."
    expected = Histogram("polylocal_engine_seconds", about, ["call"], buckets=BUCKETS_S, registry=None)
    for call, seconds in answers:
        times.observe(call, seconds)
        expected.labels(call).observe(seconds)
    assert text_of(EngineSeconds(times)) == text_of(expected)


def test_each_call_has_the_time_of_its_first_answer() -> None:
    times = EngineTimes()
    times.observe("GET info", 0.1)
    registry = CollectorRegistry()
    registry.register(EngineSeconds(times))
    created = registry.get_sample_value("polylocal_engine_seconds_created", {"call": "GET info"})
    assert created == times.snapshot()["GET info"].created_at
