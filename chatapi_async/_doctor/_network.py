"""The judgement of what lies below HTTP: the name, the connection, TLS. Pure: what was seen is handed in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from ._findings import Finding
from ._oddities import span

_SOON: Final = 14 * 86_400.0


@dataclass(frozen=True, slots=True)
class Place:
    """What is connected to."""

    host: str
    port: int
    proxy: bool = False
    """Whether it is the proxy, and not the server."""

    @property
    def what(self) -> str:
        """What it is, for a sentence."""
        return "the proxy" if self.proxy else "the server"

    @property
    def setting(self) -> str:
        """Where its address is set."""
        return "the proxy's address in the environment" if self.proxy else "the base URL"

    def __str__(self) -> str:
        return f"{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Secured:
    """What a TLS handshake agreed on."""

    version: str
    """Such as ``TLSv1.3``."""

    expires: float | None
    """When the certificate ends, in seconds since 1970; None where it does not say."""


@dataclass(frozen=True, slots=True)
class LookupFailure:
    """A name that was not found."""

    kind: Literal["no such name", "no answer", "slow"]
    detail: str = ""


@dataclass(frozen=True, slots=True)
class ConnectionFailure:
    """A connection that was not made."""

    kind: Literal["refused", "slow", "unreachable", "forbidden", "other"]
    detail: str = ""


@dataclass(frozen=True, slots=True)
class TLSFailure:
    """A TLS handshake that failed."""

    kind: Literal[
        "unknown issuer",
        "self-signed",
        "expired",
        "not yet valid",
        "wrong name",
        "bad certificate",
        "no TLS",
        "hung up",
        "slow",
        "other",
    ]
    detail: str = ""


def judge_lookup(place: Place, outcome: tuple[str, ...] | LookupFailure, seconds: float) -> Finding:
    """Judge how the name was looked up.

    Args:
        place: whose name.
        outcome: its addresses, or the failure.
        seconds: how long it took.
    """
    if not isinstance(outcome, LookupFailure):
        more = f" and {len(outcome) - 4} more" if len(outcome) > 4 else ""
        words = f"{place.host} is {', '.join(outcome[:4])}{more}"
        if outcome == (place.host,):
            words = f"{place.host} is an address, no name"
        return Finding("name lookup", "ok", words, seconds=seconds)
    detail = f" ({outcome.detail})" if outcome.detail else ""
    if outcome.kind == "no such name":
        words = f"there is no machine of the name {place.host}{detail}"
        advice = (
            f"Check the spelling in {place.setting}. A name that exists only in a company's network or in Docker's "
            "needs its VPN, or a program inside it."
        )
    else:
        words = f"no name server says where {place.host} is{detail}"
        advice = (
            f"Check that this machine is online, and its name server (DNS) works; then the spelling in {place.setting}."
        )
    return Finding("name lookup", "fail", words, advice, seconds)


def judge_connection(place: Place, outcome: str | ConnectionFailure, seconds: float) -> Finding:
    """Judge how the connection was made.

    Args:
        place: where to.
        outcome: the address that answered, or the failure.
        seconds: how long it took.
    """
    if not isinstance(outcome, ConnectionFailure):
        return Finding("connection", "ok", f"{place.what} at {outcome} answers", seconds=seconds)
    match outcome.kind:
        case "refused":
            words = f"{place} refuses the connection: the machine is there, but nothing listens on that port"
            advice = f"Start {place.what}, or correct the port in {place.setting}."
            if place.host in ("localhost", "127.0.0.1", "::1"):
                advice = (
                    f"Start {place.what}, or correct {place.setting}: {place.host} is this machine itself, and inside "
                    "a container it is the container."
                )
        case "slow":
            words = f"nobody answers at {place} {outcome.detail}"
            advice = f"Check host and port in {place.setting}, then the firewall and the VPN between here and there."
        case "unreachable":
            words = f"no way leads from here to {place} ({outcome.detail})"
            advice = "Check that this machine is online, and the VPN that the service may need."
        case "forbidden":
            words = f"this machine does not let programs connect to {place} ({outcome.detail})"
            advice = "Allow the connection in this machine's firewall, container or sandbox."
        case _:
            words = f"no connection to {place} ({outcome.detail})"
            advice = f"Check the network, and host and port in {place.setting}."
    return Finding("connection", "fail", words, advice, seconds)


def judge_tls(place: Place, outcome: Secured | TLSFailure, seconds: float | None, *, now: float) -> Finding:
    """Judge how the connection was secured.

    Args:
        place: with whom.
        outcome: what was agreed on, or the failure.
        seconds: how long it took; None where that is not known.
        now: the time of day in seconds since 1970.
    """
    if isinstance(outcome, Secured):
        return _judge_secured(outcome, seconds, now)
    mistrusted = f"the certificate of {place.host} is not trusted"
    match outcome.kind:
        case "unknown issuer":
            words = f"{mistrusted}: it comes from an issuer that this machine does not know"
            advice = (
                "If a company's proxy or firewall stands between, or the issuer is your own, let SSL_CERT_FILE name "
                "a file with its root certificate. Otherwise whoever runs the server must send the whole chain."
            )
        case "self-signed":
            words = f"{mistrusted}: nobody but itself vouches for it"
            advice = (
                "If it is your own server, let SSL_CERT_FILE name a file with its certificate; otherwise somebody "
                "else may be answering, so do not send a token there."
            )
        case "expired":
            words = f"the certificate of {place.host} has expired"
            advice = "Ask whoever runs the server to renew it; and check the date of this machine."
        case "not yet valid":
            words = f"the certificate of {place.host} is not valid yet"
            advice = "Check the date of this machine; if it is right, ask whoever runs the server."
        case "wrong name":
            words = f"the certificate there is not for {place.host} ({outcome.detail})"
            advice = "Use the name that the certificate is for in the base URL; an IP address seldom is."
        case "bad certificate":
            words = f"{mistrusted} ({outcome.detail})"
            advice = "Show this line to whoever runs the server."
        case "no TLS":
            words = f"{place} does not speak TLS: what it answers is no handshake"
            advice = "Write http:// instead of https:// in the base URL, or give the port that speaks https."
        case "hung up":
            words = f"{place} hung up during the handshake"
            advice = (
                "Check that this port speaks https, and that no firewall stands between; a server that wants a "
                "certificate from you ends so too."
            )
        case "slow":
            words = f"{place} took the connection, and says nothing to a TLS handshake {outcome.detail}"
            advice = "Check that this port speaks https; if it does, the server or a firewall before it is stuck."
        case _:
            words = f"the connection cannot be secured ({outcome.detail})"
            advice = "Show this line to whoever runs the server."
    return Finding("TLS", "fail", words, advice, seconds)


def _judge_secured(outcome: Secured, seconds: float | None, now: float) -> Finding:
    left = None if outcome.expires is None else outcome.expires - now
    if left is None or left < 0:  # a certificate that ended would have been refused
        return Finding("TLS", "ok", f"{outcome.version}, the certificate is trusted", seconds=seconds)
    words = f"{outcome.version}, the certificate is trusted and valid for {span(left)}"
    if left < _SOON:
        advice = "Ask whoever runs the server to renew the certificate before it ends."
        return Finding("TLS", "note", words, advice, seconds)
    return Finding("TLS", "ok", words, seconds=seconds)
