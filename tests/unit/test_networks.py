"""The network that runs join, as the engine describes it."""

from __future__ import annotations

from typing import Any

import pytest

from polylocal.engine.docker import networks
from polylocal.engine.plan import OWN_NETWORK
from polylocal.errors import EngineError


def network(created: str = "2026-01-01T00:00:00Z", **changed: Any) -> dict[str, Any]:
    made = networks.arguments({})
    return {
        "Name": OWN_NETWORK,
        "Id": f"id-{created}",
        "Created": created,
        "Driver": made["driver"],
        "Options": made["options"],
        "Labels": made["labels"],
        "EnableIPv6": made["enable_ipv6"],
        **changed,
    }


def test_our_own_network_is_recognised() -> None:
    assert networks.find_own([network()]) == network()


def test_names_that_only_contain_ours_do_not_count() -> None:
    assert networks.find_own([network(Name="polylocal_default", Labels={})]) is None


def test_of_two_the_older_one_is_taken_by_everybody() -> None:
    older, younger = network("2026-01-01T00:00:00Z"), network("2026-01-02T00:00:00Z")
    assert networks.find_own([younger, older]) == networks.find_own([older, younger]) == older


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"Labels": None}, "did not make"),
        ({"Labels": {"other": "x"}}, "did not make"),
        ({"Driver": "overlay"}, "driver overlay"),
        ({"Options": {}}, "reach each other"),
        ({"Options": None}, "reach each other"),
        ({"EnableIPv6": True}, "IPv6"),
    ],
)
def test_a_network_without_isolation_is_refused_with_advice(changed: dict[str, Any], words: str) -> None:
    with pytest.raises(EngineError, match=f"{words}.*docker network rm.*setting `network`"):
        networks.find_own([network(), network(**changed)])


@pytest.mark.parametrize(
    "words",
    [
        "could not find an available, non-overlapping IPv4 address pool among the defaults to assign to the network",
        "all predefined address pools have been fully subnetted",
    ],
)
def test_an_engine_without_free_addresses_gets_a_plain_message(words: str) -> None:
    assert "docker network prune" in networks.refusal(words)
    assert "setting `network`" in networks.refusal(words)


def test_any_other_refusal_has_the_engines_words() -> None:
    assert "no iptables here" in networks.refusal("no iptables here")
