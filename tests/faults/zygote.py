"""Starts the real programs fast: imports what they import once, then forks for each of them. `python -m tests.faults.zygote SOCKET`.

Owns forking, and that a program dies with its stub (`stub.py`) and the other way round. Changes nothing of what a program does: its own
`main` runs with its own arguments, environment, folder and output. One thread only, so that forking is safe.
"""

import contextlib
import ctypes
import importlib
import json
import os
import selectors
import signal
import socket
import sys
import traceback
from pathlib import Path
from typing import Any

PROGRAMS = (
    "asyncppo_runtime.learner.__main__",
    "asyncppo_runtime.rollout.__main__",
    "asyncppo_runtime.old_logit.__main__",
    "asyncppo.sync.__main__",
)
BESIDE = (
    "asyncppo_runtime.rollout.engines.torch_engine",
    "transformers.models.llama.modeling_llama",
    "transformers.models.auto.modeling_auto",
    "torch._dynamo",
    "tests.faults.drive",
)
"""What the programs import only when they have been told what to do, and the driver of a run."""
PR_SET_PDEATHSIG = 1


class Zygote:
    """Serves one socket until told to stop (SIGTERM)."""

    def __init__(self, path: Path) -> None:
        self._selector = selectors.DefaultSelector()
        self._server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._server.bind(str(path))
        self._server.listen(64)
        self._children: dict[int, tuple[int, socket.socket]] = {}

    def serve(self) -> None:
        """For ever."""
        self._selector.register(self._server, selectors.EVENT_READ)
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is self._server:
                    self._start(self._server.accept()[0])
                elif key.data not in self._children:
                    continue  # it has ended in this very round
                elif isinstance(key.fileobj, socket.socket):
                    self._told(key.data, key.fileobj)
                else:
                    self._ended(key.data)

    def _start(self, connection: socket.socket) -> None:
        head, ancillary, _, _ = connection.recvmsg(8, socket.CMSG_SPACE(8))
        if len(head) < 8:
            connection.close()
            return
        descriptors = [int.from_bytes(data[i : i + 4], sys.byteorder) for _, _, data in ancillary for i in (0, 4)]
        body = b""
        while len(body) < int.from_bytes(head, "big"):
            more = connection.recv(1 << 20)
            if not more:  # the stub was killed in the middle of its request
                for descriptor in descriptors:
                    os.close(descriptor)
                connection.close()
                return
            body += more
        child = os.fork()
        if child == 0:
            self._become(json.loads(body), descriptors, connection)
        for descriptor in descriptors:
            os.close(descriptor)
        watch = os.pidfd_open(child)
        self._children[child] = (watch, connection)
        self._selector.register(watch, selectors.EVENT_READ, child)
        self._selector.register(connection, selectors.EVENT_READ, child)

    def _become(self, request: dict[str, Any], descriptors: list[int], connection: socket.socket) -> None:
        """In the child: be the program, and never come back."""
        status = 1
        try:
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            os.setsid()
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            for other in (self._server, connection, *(held for _, held in self._children.values())):
                other.close()
            self._selector.close()
            for descriptor, standard in zip(descriptors, (1, 2), strict=True):
                os.dup2(descriptor, standard)
                os.close(descriptor)
            os.environ.clear()
            os.environ.update(request["environment"])
            os.chdir(request["folder"])
            sys.argv = [request["module"], *request["arguments"]]
            result = importlib.import_module(request["module"]).main(request["arguments"])
            status = int(result or 0)
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 1
        except BaseException:  # noqa: BLE001, the program's last words, as Python itself would print them
            traceback.print_exc()
        finally:
            with contextlib.suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(status)

    def _told(self, child: int, connection: socket.socket) -> None:
        """The stub passes on a signal, or is gone."""
        try:
            told = connection.recv(1)
        except ConnectionError:
            told = b""
        if not told:
            self._selector.unregister(connection)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, told[0]) if told else os.killpg(child, signal.SIGKILL)

    def _ended(self, child: int) -> None:
        _, status = os.waitpid(child, 0)
        watch, connection = self._children.pop(child)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)  # what it has left behind
        self._selector.unregister(watch)
        os.close(watch)
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(connection)
        with contextlib.suppress(OSError):
            connection.sendall(os.waitstatus_to_exitcode(status).to_bytes(4, "big", signed=True))
        connection.close()


def main() -> None:
    """Import, say `ready`, serve."""
    for name in (*PROGRAMS, *BESIDE):
        importlib.import_module(name)
    zygote = Zygote(Path(sys.argv[1]))
    print("ready", flush=True)
    zygote.serve()


if __name__ == "__main__":
    main()
