"""Stands for one program that the zygote runs: `stub.py SOCKET MODULE ARGUMENT…`. Owns nothing but passing on signals and the end.

Dies as the program died, and the program dies with it, so whoever started it can treat it as the program. Imports as little as it can.
"""

import array
import json
import os
import signal
import socket
import sys


def main() -> int:
    """Have MODULE run with these arguments, environment, folder, output; end as it ends."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.connect(sys.argv[1])
    request = {"module": sys.argv[2], "arguments": sys.argv[3:], "environment": dict(os.environ), "folder": os.getcwd()}
    body = json.dumps(request).encode()
    descriptors = array.array("i", [1, 2])
    head = len(body).to_bytes(8, "big")
    connection.sendmsg([head], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)])
    connection.sendall(body)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: connection.sendall(bytes([number])))
    answer = b""
    while len(answer) < 4:
        more = connection.recv(4 - len(answer))
        if not more:
            return 70  # the zygote is gone
        answer += more
    status = int.from_bytes(answer, "big", signed=True)
    if status < 0:
        signal.signal(-status, signal.SIG_DFL) if -status != signal.SIGKILL else None
        os.kill(os.getpid(), -status)
    return status


if __name__ == "__main__":
    sys.exit(main())
