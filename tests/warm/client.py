"""Stand in for one process of ``server.py``: pass signals on, and end as it ends.

python client.py SOCKET NAME ARGUMENT...: NAME is the program that this one is run by, and the
ARGUMENTs are those of the Python interpreter. The process ends when this one is killed. Where this
one is not served, it becomes an interpreter itself.
"""

import json
import os
import signal
import socket
import sys
from contextlib import suppress

PASSED_ON = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
)


def main() -> None:
    path, name, *arguments = sys.argv[1:]
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON)
    connection = socket.socket(socket.AF_UNIX)
    pid = 0
    try:
        connection.connect(path)
        ask(connection, name, arguments, blocked)
        answers = connection.makefile("rb")
        pid = int(answers.readline() or 0)
    except OSError:
        pass
    if not pid:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        os.execv(sys.executable, [sys.executable, *arguments])  # noqa: S606

    def pass_on(number: int, _: object) -> None:
        with suppress(ProcessLookupError):  # its status is on the way
            os.kill(pid, number)

    for number in PASSED_ON:
        signal.signal(number, pass_on)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED_ON)
    status = int(answers.readline() or -signal.SIGKILL)
    if status < 0:
        if -status != signal.SIGKILL:
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    os._exit(status)


def ask(
    connection: socket.socket, name: str, arguments: list[str], blocked: set[signal.Signals]
) -> None:
    request = {
        "executable": name,
        "arguments": arguments,
        "environment": dict(os.environ),
        "folder": os.getcwd(),  # noqa: PTH109
        "umask": umask(),
        "blocked": list(map(int, blocked)),
        "ignored": [int(n) for n in PASSED_ON if signal.getsignal(n) == signal.SIG_IGN],
    }
    socket.send_fds(connection, [b"\n"], [0, 1, 2])
    connection.sendall(json.dumps(request).encode() + b"\n")


def umask() -> int:
    now = os.umask(0)
    os.umask(now)
    return now


if __name__ == "__main__":
    main()
