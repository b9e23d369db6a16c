"""Host names looked up in the worker's own threads. Owns that one detail of its client.

The usual resolver uses the loop's default threads, which are the environments': when those are all busy, a worker that looks up its
learner would wait for them, and its leases would run out.
"""

import socket

from aiohttp.abc import AbstractResolver, ResolveResult

from asyncppo_runtime.threads import in_thread


class OwnLookup(AbstractResolver):
    """See aiohttp's `AbstractResolver`."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Addresses of `host`. Raises OSError when there are none."""
        found = await in_thread(
            socket.getaddrinfo, host, port, family, socket.SOCK_STREAM, socket.IPPROTO_TCP, socket.AI_ADDRCONFIG
        )
        return [
            ResolveResult(
                hostname=host,
                host=str(address[0]),
                port=int(address[1]),
                family=kind,
                proto=protocol,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for kind, _, protocol, _, address in found
        ]

    async def close(self) -> None:
        """Nothing is held."""
