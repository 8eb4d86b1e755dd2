"""Python processes that have imported already what takes long to import: forks of this one.

python -I server.py FOLDER PADDING: serve the clients of ``FOLDER/socket`` until nobody holds a lock
on ``FOLDER/held`` any more. Of the project nothing is imported here: each process imports the code
that its own environment names. PADDING, which is in the environment, too, makes room for what the
processes show of themselves.
"""

import atexit
import ctypes
import fcntl
import gc
import importlib
import json
import os
import resource
import runpy
import selectors
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

IMPORTED = (
    "datasets",
    "hydra._internal.core_plugins.basic_launcher",
    "hydra._internal.core_plugins.basic_sweeper",
    "hydra._internal.core_plugins.file_config_source",
    "hydra._internal.core_plugins.importlib_resources_config_source",
    "hydra._internal.core_plugins.structured_config_source",
    "hydra._internal.hydra",
    "hydra.core.override_parser.overrides_parser",
    "lm_eval.api.task",
    "lm_eval.models.huggingface",
    "matplotlib.backends.backend_agg",
    "matplotlib.backends.backend_pdf",
    "matplotlib.backends.backend_svg",
    "matplotlib.figure",
    "mpl_toolkits.mplot3d.axes3d",
    "pydantic.dataclasses",
    "rich.live",
    "rich.progress",
    "rich.table",
    "safetensors.torch",
    "submitit",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
    "transformers.models.llama.modeling_llama",
)
"""Not wandb, which makes a folder as it is imported and removes it at the end."""
READ_AT_IMPORT = (
    "HF_HOME", "HF_HUB_", "HF_DATASETS_", "HF_ENDPOINT", "TRANSFORMERS_", "OMP_NUM_THREADS",
    "PYTHONHASHSEED", "MPLBACKEND",
)  # fmt: skip
"""How variables begin that are read when something of ``IMPORTED`` is imported."""
OWN_ID = "submitit.local._local"
"""A module that has to have the process id that whoever starts it sees."""
LOOK_EVERY_S = 2.0

Request = dict[str, Any]


class Server:
    """Forks a process for each client, and tells the client how it ended."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.folder, self.environment = folder, environment
        self.clients: dict[int, socket.socket] = {}
        self.selector = selectors.DefaultSelector()
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(folder / "socket"))
        self.listener.listen(64)
        self.selector.register(self.listener, selectors.EVENT_READ, self.accept)

    def serve(self) -> None:
        """Until nobody wants anything any more."""
        while self.clients or is_held(self.folder):
            for key, _ in self.selector.select(LOOK_EVERY_S):
                if self.selector.get_map().get(key.fd) is key:  # it may have gone with another
                    key.data()

    def accept(self) -> None:
        client, _ = self.listener.accept()
        _, descriptors, _, _ = socket.recv_fds(client, 1, 3)
        request = json.loads(client.makefile("rb").readline())
        pid = self.start(request, descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        tell(client, pid)
        if pid == 0:
            client.close()
            return
        self.clients[pid] = client
        ended = os.pidfd_open(pid)
        self.selector.register(client, selectors.EVENT_READ, lambda: self.kill(pid))
        self.selector.register(ended, selectors.EVENT_READ, lambda: self.reap(pid, ended))

    def start(self, request: Request, descriptors: list[int]) -> int:
        """The process of a request; 0 where it is to have an interpreter of its own."""
        first = next(iter(request["arguments"]), "")
        is_known = first in ("-P", "-u", "-m", "-c") or first.endswith(".py")
        is_alike = read_at_import(request["environment"]) == self.environment
        if not is_known or not is_alike or OWN_ID in request["arguments"]:
            return 0
        pid = os.fork()
        if pid == 0:
            become(request, descriptors)
        return pid

    def kill(self, pid: int) -> None:
        """The client has been killed."""
        self.selector.unregister(self.clients[pid])
        os.kill(pid, signal.SIGKILL)

    def reap(self, pid: int, ended: int) -> None:
        """The process has ended."""
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        self.selector.unregister(ended)
        os.close(ended)
        client = self.clients.pop(pid)
        if client.fileno() in self.selector.get_map():
            self.selector.unregister(client)
            tell(client, status)
        client.close()


def tell(client: socket.socket, number: int) -> None:
    with suppress(BrokenPipeError):  # it has been killed
        client.sendall(f"{number}\n".encode())


def read_at_import(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: environment[name] for name in environment if name.startswith(READ_AT_IMPORT)}


def is_held(folder: Path) -> bool:
    with (folder / "held").open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def become(request: Request, descriptors: list[int]) -> NoReturn:
    """Be the interpreter that a client stands in for, in a fork."""
    os.setsid()
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
    os.closerange(3, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    os.chdir(request["folder"])
    os.umask(request["umask"])
    os.environ.clear()
    os.environ.update(request["environment"])
    for number in request["ignored"]:
        signal.signal(number, signal.SIG_IGN)
    options, arguments = split(request["arguments"])
    is_unbuffered = "-u" in options
    for name, number in (("stdout", 1), ("stderr", 2)):
        stream = open(  # noqa: SIM115
            number, "w", encoding="utf-8", errors="backslashreplace", closefd=False,
            buffering=1 if is_unbuffered or number == 2 or os.isatty(number) else -1,
        )  # fmt: skip
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    sys.stdin = sys.__stdin__ = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.executable = request["executable"]
    shown(request["arguments"], request["environment"])
    signal.pthread_sigmask(signal.SIG_SETMASK, request["blocked"])
    end(lambda: run(options, arguments))


def split(arguments: list[str]) -> tuple[set[str], list[str]]:
    """The interpreter's options, and the rest: -m or -c or a script, and its arguments."""
    options = set()
    while arguments[0] in ("-P", "-u"):
        options.add(arguments[0])
        arguments = arguments[1:]
    return options, arguments


def shown(arguments: list[str], environment: Mapping[str, str]) -> None:
    """Have ``ps`` and ``/proc`` show the command line and the environment."""
    stat = Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    variables = [f"{name}={value}" for name, value in environment.items()]
    for strings, at in (([sys.executable, *arguments], 45), (variables, 47)):
        first, last = int(stat[at]), int(stat[at + 1])
        line = b"\0".join(map(os.fsencode, strings))
        if len(line) < last - first:
            ctypes.memmove(first, line.ljust(last - first, b"\0"), last - first)


def run(options: set[str], arguments: list[str]) -> None:
    path = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    kind, rest = arguments[0], arguments[1:]
    if kind == "-m":
        own, sys.argv = str(Path.cwd()), ["-m", *rest[1:]]
    elif kind == "-c":
        own, sys.argv = "", ["-c", *rest[1:]]
    else:
        own, sys.argv = str(Path(kind).resolve().parent), [kind, *rest]
    sys.path[:0] = path if "-P" in options else [own, *path]
    importlib.invalidate_caches()
    if kind == "-m":
        runpy._run_module_as_main(rest[0])  # type: ignore[attr-defined]
    elif kind == "-c":
        module = type(sys)("__main__")
        sys.modules["__main__"] = module
        exec(compile(rest[0], "<string>", "exec"), module.__dict__)  # noqa: S102
    else:
        runpy.run_path(kind, run_name="__main__")


def end(work: Callable[[], object]) -> NoReturn:
    """Do the work and end as an interpreter does, but for freeing its memory."""
    status, interrupt = 0, False
    try:
        work()
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        if isinstance(stop.code, str):
            sys.stderr.write(f"{stop.code}\n")
    except BaseException as error:  # noqa: BLE001
        traceback.print_exc()
        status, interrupt = 1, isinstance(error, KeyboardInterrupt)
    try:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        if interrupt:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)
        os._exit(status & 0xFF)


def main() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # it may be ignored here, as in a job
    os.fsync = lambda _: None  # as in tests/conftest.py
    folder, environment = Path(sys.argv[1]), read_at_import(os.environ)
    gc.disable()
    for module in IMPORTED:
        importlib.import_module(module)
    assert len(list(Path("/proc/self/task").iterdir())) == 1, "a fork would lack the other threads"
    gc.freeze()
    gc.enable()
    Server(folder, environment).serve()
    (folder / "socket").unlink()


if __name__ == "__main__":
    main()
