"""Where the services of Oracle Cloud are, and how patient their clients are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cloudtune.clients.oci_auth import ENDPOINT
from cloudtune.clients.oci_auth import sdk as oci

__all__ = ["ENDPOINT", "TIMEOUT_S", "connection"]

#: Seconds to connect, and between two bytes.
TIMEOUT_S = (10.0, 120.0)
#: A stand-in on this machine is not far away: the same number of tries, without the seconds between them.
_QUICK = oci.retry.RetryStrategyBuilder(
    max_attempts_check=True,
    max_attempts=8,
    retry_max_wait_between_calls_seconds=0.05,
    retry_base_sleep_time_seconds=0.02,
    retry_exponential_growth_factor=2,
    decorrelated_jitter=0.02,
).get_retry_strategy()


def connection(environ: Mapping[str, str]) -> dict[str, Any]:
    """Return the keywords of the SDK's clients: time limits, retries, and the endpoint if one is named."""
    options: dict[str, Any] = {"timeout": TIMEOUT_S, "retry_strategy": oci.retry.DEFAULT_RETRY_STRATEGY}
    endpoint = environ.get(ENDPOINT)
    return {**options, "service_endpoint": endpoint, "retry_strategy": _QUICK} if endpoint else options
