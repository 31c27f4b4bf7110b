"""How the local server counts requests: by kind, in windows of a minute, by a clock of the test's own."""

from __future__ import annotations

import pytest

from daytona_kernel.local.rates import (
    AUTHENTICATED,
    CREATE,
    FAILED_AUTH,
    LIFECYCLE,
    LIST,
    PER_MINUTE,
    WINDOW_S,
    RateLimiter,
    kinds_of,
    rates_of,
)


class Hand:
    """A clock whose hand the test moves."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def limiter(hand: Hand, **rates: int) -> RateLimiter:
    return RateLimiter(
        {**dict.fromkeys(PER_MINUTE, 0), **{k.replace("_", "-"): v for k, v in rates.items()}}, hand
    )


def test_requests_pass_until_the_window_is_full_and_again_in_the_next() -> None:
    hand = Hand()
    rates = limiter(hand, failed_auth=2)
    assert rates.take(FAILED_AUTH).headers == {
        "X-RateLimit-Limit-failed-auth": "2",
        "X-RateLimit-Remaining-failed-auth": "1",
        "X-RateLimit-Reset-failed-auth": "60",
    }
    hand.now += 20.5
    assert rates.take(FAILED_AUTH).retry_after_s == 0
    refused = rates.take(FAILED_AUTH)
    assert refused.retry_after_s == 40
    assert refused.headers["Retry-After"] == "40"
    assert refused.headers["X-RateLimit-Remaining-failed-auth"] == "0"
    hand.now += WINDOW_S - 20.5
    assert rates.take(FAILED_AUTH).headers["X-RateLimit-Remaining-failed-auth"] == "1"


def test_refused_requests_do_not_count_for_another_kind() -> None:
    hand = Hand()
    rates = limiter(hand, authenticated=5, sandbox_create=1)
    assert not rates.take(AUTHENTICATED, CREATE).retry_after_s
    for _ in range(10):
        assert rates.take(AUTHENTICATED, CREATE).retry_after_s == 60
    assert rates.take(AUTHENTICATED).headers["X-RateLimit-Remaining-authenticated"] == "3"


def test_the_longest_wait_is_told() -> None:
    hand = Hand()
    rates = limiter(hand, authenticated=1, sandbox_list=1)
    rates.take(AUTHENTICATED)
    hand.now += 30
    rates.take(LIST)
    assert rates.take(AUTHENTICATED, LIST).retry_after_s == 60
    assert rates.take(AUTHENTICATED).retry_after_s == 30


def test_zero_is_no_limit() -> None:
    rates = limiter(Hand())
    for _ in range(1000):
        verdict = rates.take(AUTHENTICATED, CREATE)
    assert verdict.retry_after_s == 0
    assert verdict.headers == {}
    assert rates.config() == {}


def test_the_configuration_has_the_names_of_the_api() -> None:
    assert RateLimiter(PER_MINUTE).config()["sandboxCreate"] == {"ttl": 60, "limit": PER_MINUTE[CREATE]}
    assert set(RateLimiter(PER_MINUTE).config()) == {
        "failedAuth",
        "authenticated",
        "sandboxCreate",
        "sandboxLifecycle",
        "sandboxList",
    }


@pytest.mark.parametrize(
    ("method", "path", "kind"),
    [
        ("POST", "/api/sandbox", CREATE),
        ("GET", "/api/sandbox", LIST),
        ("GET", "/api/sandbox/paginated", LIST),
        ("GET", "/api/sandbox/x", None),
        ("POST", "/api/sandbox/x/start", LIFECYCLE),
        ("POST", "/api/sandbox/x/snapshot", LIFECYCLE),
        ("DELETE", "/api/sandbox/x", LIFECYCLE),
        ("DELETE", "/api/sandbox/x/ssh-access", None),
        ("POST", "/api/sandbox/x/last-activity", None),
        ("GET", "/api/config", None),
    ],
)
def test_kinds_of_requests(method: str, path: str, kind: str | None) -> None:
    assert kinds_of(method, path) == ((AUTHENTICATED, kind) if kind else (AUTHENTICATED,))


def test_rates_are_read_from_text() -> None:
    assert rates_of("") == PER_MINUTE
    assert rates_of(" sandbox-create=10, failed-auth=0,") == {**PER_MINUTE, CREATE: 10, FAILED_AUTH: 0}


@pytest.mark.parametrize(
    "text", ["create=1", "sandbox-create", "sandbox-create=-1", "sandbox-create=1.5", "=", "sandbox-create=٣"]
)
def test_rates_that_make_no_sense_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="DAYTONA_LOCAL_RATES"):
        rates_of(text)
