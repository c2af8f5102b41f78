"""Where the services of Oracle Cloud are, and how patient their clients are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

from cloudtune.clients.oci_auth import ENDPOINT
from cloudtune.clients.oci_auth import sdk as oci

__all__ = ["ENDPOINT", "TIMEOUT_S", "Tries", "connection"]

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


class Tries:
    """A retry strategy of the SDK for one call, which knows whether an earlier try may have been carried out.

    ``open`` is that of a try whose reply was lost or which the service could not end: the error of a later one, that
    could not be sent at all, says nothing of it.
    """

    def __init__(self, strategy: Any) -> None:
        self._strategy = strategy
        self._last: Exception | None = None
        self.open = False

    def make_retrying_call(self, function: Callable[..., Any], *positional: Any, **named: Any) -> Any:
        """Call the function as often as the strategy wants."""

        @wraps(function)  # the SDK knows by the name which bodies are to be rewound
        def tried(*positional: Any, **named: Any) -> Any:
            self.open = self.open or (self._last is not None and _is_open(self._last))
            try:
                return function(*positional, **named)
            except Exception as error:
                self._last = error
                raise

        return self._strategy.make_retrying_call(tried, *positional, **named)

    def add_circuit_breaker_callback(self, callback: Any) -> None:
        """Hand a callback on."""
        self._strategy.add_circuit_breaker_callback(callback)


def _is_open(error: Exception) -> bool:
    """Whether a request that failed like this may have been carried out."""
    if isinstance(error, oci.exceptions.ConnectTimeout):
        return False
    return not isinstance(error, oci.exceptions.ServiceError) or int(error.status) >= 500
