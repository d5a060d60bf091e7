"""Files behind http(s) addresses as sources, fetched within limits of time and size, from public addresses only.

A server's answer cannot lead into a private network: each connection, those of redirects too, is checked where it is
made, by the address it goes to. Does not know formats beyond a media type's usual suffix.
"""

from __future__ import annotations

import hashlib
import http.client
import ipaddress
import socket
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import PurePosixPath
from typing import Any

from espalier.core.errors import InvalidInput
from espalier.data.readers.remote import Kept, add_fetched, keep, look_up
from espalier.data.readers.source import Found, Selection, archive_kind, suffix_of

TIMEOUT_S = 30.0
TRIES = 3
WAIT_S = 0.5  # before the second try, twice that before the third
AT_ONCE = 8
_AGAIN = {408, 425, 429, 500, 502, 503, 504}
_SUFFIXES = {
    "text/html": "html",
    "application/xhtml+xml": "html",
    "application/pdf": "pdf",
    "text/plain": "txt",
    "text/markdown": "md",
    "text/csv": "csv",
    "application/json": "json",
    "application/x-ndjson": "jsonl",
    "application/jsonl": "jsonl",
}


def list_addresses(urls: Iterable[str], selection: Selection, max_bytes: int, *, allow_private: bool = False) -> Found:
    """The files behind the URLs; one that cannot be fetched is in `skipped`, with the reason.

    A file's uri is its URL without user, password and the values of a query (of which a digest stands for them). Where
    the URL has no suffix of a known format, `#.html` or the like, after its media type, is added.
    """
    wanted = sorted(set(urls))
    fetch = partial(_try_fetch, selection=selection, max_bytes=max_bytes, allow_private=allow_private)
    found = Found()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for url, outcome in zip(wanted, pool.map(fetch, wanted), strict=True):
            kind = outcome.kind if isinstance(outcome, Kept) else ""
            add_fetched(found, name_url(url, kind, selection), selection, partial(_hand_over, outcome))
    return found


def name_url(url: str, kind: str, selection: Selection) -> str:
    """A URL as it may stand in a manifest; see `list_addresses`."""
    parts = urllib.parse.urlsplit(url)
    host = parts.hostname or ""
    port = f":{parts.port}" if parts.port else ""
    query = f"?{hashlib.sha256(parts.query.encode()).hexdigest()[:12]}" if parts.query else ""
    path = urllib.parse.unquote(parts.path)
    name = f"{parts.scheme}://{host}{port}{path}{query}"
    suffix = suffix_of(path)
    if suffix in selection.suffixes or archive_kind(path):
        return f"{name}#{PurePosixPath(path).name}" if query else name
    usual = _SUFFIXES.get(kind.split(";")[0].strip().lower(), "")
    return f"{name}#.{usual}" if usual else name


def _hand_over(outcome: Kept | InvalidInput) -> Kept:
    if isinstance(outcome, InvalidInput):
        raise outcome
    return outcome


def _try_fetch(url: str, *, selection: Selection, max_bytes: int, allow_private: bool) -> Kept | InvalidInput:
    for attempt in range(TRIES):
        try:
            return _fetch(url, selection, max_bytes, allow_private)
        except InvalidInput as error:
            return error
        except urllib.error.HTTPError as error:
            error.close()
            reason, again = f"HTTP {error.code}", error.code in _AGAIN
        except (OSError, http.client.HTTPException, ValueError) as error:
            inner = getattr(error, "reason", error)
            if isinstance(inner, InvalidInput):
                return inner
            reason, again = f"{inner}"[:200] or type(error).__name__, isinstance(inner, TimeoutError | ConnectionError)
        if not again or attempt + 1 == TRIES:
            break
        time.sleep(WAIT_S * 2**attempt)
    return InvalidInput(f"cannot be fetched: {reason}")


def _fetch(url: str, selection: Selection, max_bytes: int, allow_private: bool) -> Kept:
    if selection.cache is None:
        raise InvalidInput("remote files need a cache folder")
    if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
        raise InvalidInput("only http and https addresses are fetched")
    kept = look_up(selection.cache, url)
    request = urllib.request.Request(url, headers={"User-Agent": "espalier", "Accept-Encoding": "identity"})
    if kept and kept.stamp:
        name, _, value = kept.stamp.partition("=")
        request.add_header({"etag": "If-None-Match", "date": "If-Modified-Since"}[name], value)
    try:
        answer = _opener(allow_private).open(request, timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code == 304 and kept:
            error.close()
            return kept
        raise
    with answer:
        told_bytes = int(answer.headers.get("Content-Length") or 0)
        if told_bytes > max_bytes:
            raise InvalidInput(f"{told_bytes} bytes, more than max_download_bytes ({max_bytes})")
        kept = keep(
            selection.cache, url, answer, _stamp(answer.headers), max_bytes, answer.headers.get("Content-Type", "")
        )
    if told_bytes and kept.size_bytes != told_bytes:
        raise ConnectionError(f"only {kept.size_bytes} of {told_bytes} bytes came")
    return kept


def _stamp(headers: Any) -> str:
    if etag := headers.get("ETag"):
        return f"etag={etag}"
    date = headers.get("Last-Modified")
    return f"date={date}" if date else ""


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows to http and https only; urllib itself would follow to ftp."""

    max_redirections = 5

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if urllib.parse.urlsplit(newurl).scheme not in ("http", "https"):
            fp.close()
            raise InvalidInput("redirected to something that is not http or https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener(allow_private: bool) -> urllib.request.OpenerDirector:
    handlers: list[Any] = [_Redirects()]
    if not allow_private:
        handlers += [_PublicHTTP(), _PublicHTTPS()]
    opener = urllib.request.OpenerDirector()
    defaults = (
        urllib.request.ProxyHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPErrorProcessor,
        *((urllib.request.HTTPHandler, urllib.request.HTTPSHandler) if allow_private else ()),
    )
    for handler in [*(kind() for kind in defaults), *handlers]:
        opener.add_handler(handler)
    return opener


def connect_public(address: tuple[str, int], timeout: Any = None, source_address: Any = None) -> socket.socket:
    """A connection to the first public address of a host; raises InvalidInput when one of its addresses is not."""
    host, port = address
    if _is_proxy(host, port):  # chosen by who runs us, and itself the guard of its network
        return socket.create_connection(address, timeout, source_address)
    infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    for info in infos:
        if not ipaddress.ip_address(info[4][0]).is_global:
            raise InvalidInput(
                f"{host} lies in a private network or on this machine",
                hint="set `source.allow_private: true` if it is meant",
            )
    # To the very address that was checked: a name may resolve to another the next time.
    return socket.create_connection((str(infos[0][4][0]), port), timeout, source_address)


def _is_proxy(host: str, port: int) -> bool:
    proxies = (urllib.parse.urlsplit(url) for url in urllib.request.getproxies().values() if "//" in url)
    return any((proxy.hostname, proxy.port) == (host, port) for proxy in proxies)


class _PublicConnection(http.client.HTTPConnection):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._create_connection = connect_public


class _PublicTLSConnection(http.client.HTTPSConnection):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._create_connection = connect_public


class _PublicHTTP(urllib.request.HTTPHandler):
    def http_open(self, req: urllib.request.Request) -> Any:
        return self.do_open(_PublicConnection, req)


class _PublicHTTPS(urllib.request.HTTPSHandler):
    def https_open(self, req: urllib.request.Request) -> Any:
        return self.do_open(_PublicTLSConnection, req)
