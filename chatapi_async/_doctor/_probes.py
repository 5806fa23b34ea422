"""Looks at what lies below HTTP: the name, the connection, TLS. Each look is bounded in time."""

from __future__ import annotations

import errno
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Final, cast

import anyio
from anyio import EndOfStream, from_thread
from anyio.abc import SocketAttribute, SocketStream
from anyio.lowlevel import current_token
from anyio.streams.tls import TLSAttribute, TLSStream

from ._network import ConnectionFailure, LookupFailure, Place, Secured, TLSFailure

_NO_SUCH_NAME: Final = {socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)}
_UNREACHABLE: Final = {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EADDRNOTAVAIL}
# OpenSSL's X509_V_ERR_… (x509_vfy.h).
_VERIFY_KINDS: Final = {9: "not yet valid", 10: "expired", 18: "self-signed", 62: "wrong name", 64: "wrong name"}
_UNKNOWN_ISSUER: Final = {2, 19, 20, 21, 27}
_NO_HANDSHAKE: Final = {"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE"}


async def look_up(place: Place, limit: float) -> tuple[str, ...] | LookupFailure:
    """Return the addresses of a name.

    Args:
        place: whose name.
        limit: seconds; the look-up itself cannot be ended, and is left behind in a thread that keeps nothing running.
    """
    token = current_token()
    found = anyio.Event()
    outcome: list[tuple[str, ...] | LookupFailure] = []

    def ask() -> None:
        outcome.append(_addresses(place))
        with suppress(RuntimeError):  # whoever asked has gone, and so has the event loop
            from_thread.run_sync(found.set, token=token)

    threading.Thread(target=ask, name="chatapi doctor", daemon=True).start()
    with anyio.move_on_after(limit):
        await found.wait()
        return outcome[0]
    return LookupFailure("slow", f"within {limit:g} s")


def _addresses(place: Place) -> tuple[str, ...] | LookupFailure:
    try:
        found = socket.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        return LookupFailure("no such name" if error.errno in _NO_SUCH_NAME else "no answer", error.strerror or "")
    except (OSError, UnicodeError) as error:
        return LookupFailure("no such name", str(error))
    return tuple(dict.fromkeys(str(address[0]) for *_, address in found))


async def connect(place: Place, limit: float) -> SocketStream | ConnectionFailure:
    """Connect as the HTTP layer does, to whichever address answers first.

    Args:
        place: where to.
        limit: seconds.
    """
    try:
        with anyio.fail_after(limit):
            return await anyio.connect_tcp(place.host, place.port)
    except TimeoutError:
        return ConnectionFailure("slow", f"within {limit:g} s")
    except OSError as error:
        return _connection_failure(list(_causes(error)))


def address_of(stream: SocketStream) -> str:
    """Return the address at the other end."""
    address = stream.extra(SocketAttribute.remote_address)
    return str(Place(str(address[0]), int(address[1])))


def _connection_failure(errors: list[OSError]) -> ConnectionFailure:
    detail = "; ".join(dict.fromkeys(error.strerror or str(error) for error in errors))
    if any(isinstance(error, ConnectionRefusedError) for error in errors):
        return ConnectionFailure("refused", detail)
    if any(isinstance(error, TimeoutError) for error in errors):
        return ConnectionFailure("slow", f"({detail})")
    if any(isinstance(error, PermissionError) for error in errors):
        return ConnectionFailure("forbidden", detail)
    if any(error.errno in _UNREACHABLE for error in errors):
        return ConnectionFailure("unreachable", detail)
    return ConnectionFailure("other", detail)


def _causes(error: OSError) -> Iterator[OSError]:
    """Yield what the failed try at each address said, or else the error itself."""
    cause = error.__cause__
    if isinstance(cause, ExceptionGroup):
        tries = cast("ExceptionGroup[Exception]", cause).exceptions
        yield from (each for each in tries if isinstance(each, OSError))
    else:
        yield cause if isinstance(cause, OSError) else error


async def shake_hands(
    stream: SocketStream, place: Place, context: ssl.SSLContext, limit: float
) -> Secured | TLSFailure:
    """Shake hands, and say what was agreed on.

    Args:
        stream: the connection.
        place: with whom.
        context: what certificates are checked by.
        limit: seconds.
    """
    try:
        with anyio.fail_after(limit):
            secured = await TLSStream.wrap(stream, hostname=place.host, ssl_context=context, standard_compatible=False)
    except TimeoutError:
        return TLSFailure("slow", f"within {limit:g} s")
    except (ssl.SSLError, ssl.CertificateError) as error:
        return _tls_failure(error)
    except (EndOfStream, anyio.BrokenResourceError, OSError) as error:
        return TLSFailure("hung up", str(error))
    certificate = secured.extra(TLSAttribute.peer_certificate, None) or {}
    ends = certificate.get("notAfter")
    expires = float(ssl.cert_time_to_seconds(ends)) if isinstance(ends, str) else None
    return Secured(secured.extra(TLSAttribute.tls_version), expires)


async def speaks_tls(place: Place, limit: float) -> bool:
    """Tell whether a port speaks TLS; whose certificate it shows does not matter here, since nothing is sent.

    Args:
        place: where to.
        limit: seconds, for connection and handshake each.
    """
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    stream = await connect(place, limit)
    if isinstance(stream, ConnectionFailure):
        return False
    try:
        return isinstance(await shake_hands(stream, place, context, limit), Secured)
    finally:
        await anyio.aclose_forcefully(stream)


def tls_failure_in(error: BaseException | None) -> TLSFailure | None:
    """Return the failure of TLS that an error came of, None where it is of another kind."""
    while error is not None:
        if isinstance(error, ssl.SSLError):
            return _tls_failure(error)
        error = error.__cause__ or error.__context__
    return None


def _tls_failure(error: ssl.SSLError) -> TLSFailure:
    if isinstance(error, ssl.SSLCertVerificationError):
        detail = error.verify_message.rstrip(".")
        code = error.verify_code
        if code in _UNKNOWN_ISSUER:
            return TLSFailure("unknown issuer", detail)
        match _VERIFY_KINDS.get(code):
            case "not yet valid":
                return TLSFailure("not yet valid", detail)
            case "expired":
                return TLSFailure("expired", detail)
            case "self-signed":
                return TLSFailure("self-signed", detail)
            case "wrong name":
                return TLSFailure("wrong name", detail)
            case _:
                return TLSFailure("bad certificate", detail)
    if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return TLSFailure("hung up", str(error))
    return TLSFailure("no TLS" if error.reason in _NO_HANDSHAKE else "other", error.reason or str(error))
