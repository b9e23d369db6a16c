"""A TCP proxy before the API server: what goes through it can be cut, and let through again.

Owns the proxy. TLS passes through untouched: the server's certificate is checked against the address, not the port.
"""

import asyncio
from pathlib import Path
from urllib.parse import urlparse

import yaml


class Proxy:
    """Forwards bytes. `cut()` drops every connection and refuses new ones until `mend()`."""

    def __init__(self, kubeconfig: str) -> None:
        self._config = yaml.safe_load(Path(kubeconfig).read_text())
        server = urlparse(self._config["clusters"][0]["cluster"]["server"])
        self._target = (server.hostname, server.port or 443)
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self.down = False

    async def start(self, folder: Path) -> str:
        """Listen; the path of a kubeconfig that goes through the proxy."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        cluster = self._config["clusters"][0]["cluster"]
        cluster["tls-server-name"] = self._target[0]
        cluster["server"] = f"https://127.0.0.1:{port}"
        made = folder / "kubeconfig-through-proxy"
        made.write_text(yaml.safe_dump(self._config))
        return str(made)

    def cut(self) -> None:
        """The API server is gone."""
        self.down = True
        for writer in list(self._writers):
            writer.transport.abort()

    def mend(self) -> None:
        """It is back."""
        self.down = False

    async def stop(self) -> None:
        """Listen no more."""
        self.cut()
        if self._server is not None:
            self._server.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.down:
            writer.transport.abort()
            return
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._target)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, far_writer}
        await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer))
        self._writers -= {writer, far_writer}


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass  # cut, as it should be
    finally:
        writer.transport.abort()
