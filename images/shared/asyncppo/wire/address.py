"""Which URL a member may give for its port: http://HOST:PORT and nothing else.

Owns the judgement of the text. Does not own whether anybody answers there.
"""

import ipaddress
import re
from urllib.parse import SplitResult, urlsplit

from asyncppo.wire.bounds import LONGEST_NAME

LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
FORM = "give http://HOST:PORT, e.g. http://10.0.0.7:8080"


def url_fault(url: str) -> str:
    """Why `url` is no address of a member; "" when it is one. Never raises."""
    if not url.isascii() or not url.isprintable() or " " in url:
        return f"the url has characters that no address has; {FORM}"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        return f"the url {_cut(url)} cannot be read ({error}); {FORM}"
    if parts.scheme != "http" or parts.path or parts.query or parts.fragment or "@" in parts.netloc:
        return f"the url {_cut(url)} is more, or less, than an address; {FORM}"
    if url != url.rstrip("/?#"):
        return f"the url {_cut(url)} ends in a sign too many; {FORM}"
    if port is None or port == 0:
        return f"the url {_cut(url)} names no port from 1 to 65535; {FORM}"
    if not _is_host(host, parts):
        return f"the url {_cut(url)} names no host: neither an IP address nor a DNS name; {FORM}"
    return ""


def _is_host(host: str, parts: SplitResult) -> bool:
    if "[" in parts.netloc:
        return "%" not in host and _is_ip(host)
    if not host or len(host) > LONGEST_NAME:
        return False
    labels = host.split(".")
    if labels[-1].isdecimal():  # a DNS name's last label is no number: this is meant as an address
        return _is_ip(host)
    return all(LABEL.fullmatch(label) for label in labels)


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _cut(text: str) -> str:
    return repr(text if len(text) <= 100 else text[:100] + "…")
