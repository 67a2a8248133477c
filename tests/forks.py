"""Commands as processes of their own, forked from one that has imported what they need.

Importing torch takes seconds, and a start of Python tenths of one; a fork takes milliseconds, and is as real to
signals, pipes, files and the end of the interpreter. What is about the start itself runs `conftest.launcher`.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import keyword
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import tempfile
from typing import IO

PIPE, DEVNULL, CLOSED = subprocess.PIPE, subprocess.DEVNULL, -100
STREAMS = ("stdin", "stdout", "stderr")
MESSAGE = 2**17  # bytes that a request or an answer has at most


def cli_module(command: str) -> str:
    """The module of chextools.cli that a command is; chex-import's cannot be called like a word of Python's."""
    name = command.removeprefix("chex-")
    return name + "ing" if keyword.iskeyword(name) else name


class Forks:
    """The process to fork from, with some modules imported."""

    def __init__(self, *modules: str):
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
        words = [sys.executable, __file__, str(theirs.fileno()), *modules]
        self._server = subprocess.Popen(
            words, pass_fds=[theirs.fileno()], env=environment, stdin=DEVNULL, start_new_session=True
        )
        theirs.close()

    def close(self) -> None:
        self._channel.close()
        self._server.wait()

    def start(self, command: str, *arguments: object, **options) -> Fork:
        """Start a command, before the next of which it must end. Options are those of `Fork`."""
        return Fork(self._channel, command, arguments, **options)

    def run(
        self, command: str, *arguments: object, data: bytes = b"", timeout: float = 120, **options
    ) -> subprocess.CompletedProcess:
        """Run a command until it ends. Output that is not sent elsewhere is kept: bytes."""
        with contextlib.ExitStack() as stack:
            kept = {name: stack.enter_context(tempfile.TemporaryFile()) for name in STREAMS}
            kept["stdin"].write(data)
            kept["stdin"].seek(0)
            with self.start(command, *arguments, **(kept | options)) as process:
                process.wait(timeout)
            said = [None if name in options else _content(kept[name]) for name in STREAMS[1:]]
        return subprocess.CompletedProcess([command, *arguments], process.returncode, *said)


class Fork:
    """A command that runs, as subprocess.Popen has one. megabytes: the most that it had in memory, once it has ended.

    stdin, stdout, stderr: a file, PIPE, DEVNULL or CLOSED. environment: added to ours. limits: by the names of
    `resource`, such as CPU in seconds or AS in bytes. abrupt: without the interpreter's own end, which takes time.
    """

    def __init__(
        self,
        channel: socket.socket,
        command: str,
        arguments: tuple,
        *,
        stdin: IO | int = PIPE,
        stdout: IO | int = PIPE,
        stderr: IO | int = PIPE,
        cwd: str | os.PathLike | None = None,
        environment: dict | None = None,
        start_new_session: bool = False,
        limits: dict[str, int] | None = None,
        abrupt: bool = False,
    ):
        self._channel = channel
        self.returncode: int | None = None
        self.megabytes = 0
        self.stdin = self.stdout = self.stderr = None
        given, theirs = dict(zip(STREAMS, (stdin, stdout, stderr))), []
        for name, stream in given.items():
            if stream == PIPE:
                reader, writer = os.pipe()
                ours, end = (writer, reader) if name == "stdin" else (reader, writer)
                setattr(self, name, open(ours, "wb" if name == "stdin" else "rb", buffering=0))
                theirs.append(end)
            elif stream == DEVNULL:
                theirs.append(os.open(os.devnull, os.O_RDWR))
            elif stream != CLOSED:
                theirs.append(os.dup(stream if isinstance(stream, int) else stream.fileno()))
        request = {
            "command": command,
            "arguments": list(map(str, arguments)),
            "folder": str(cwd or os.getcwd()),
            "environment": dict(os.environ) | (environment or {}),
            "open": [number for number, name in enumerate(STREAMS) if given[name] != CLOSED],
            "session": start_new_session,
            "limits": limits or {},
            "abrupt": abrupt,
        }
        message = json.dumps(request).encode()
        assert len(message) < MESSAGE
        socket.send_fds(channel, [message], theirs)
        for number in theirs:
            os.close(number)
        self.pid: int = self._answer(60)["pid"]

    def _answer(self, timeout: float) -> dict:
        if not select.select([self._channel], [], [], timeout)[0]:
            raise TimeoutError("no answer")
        return json.loads(self._channel.recv(MESSAGE))

    def poll(self) -> int | None:
        with contextlib.suppress(TimeoutError):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float = 120) -> int:
        """Its exit status, or less the number of the signal that it died of."""
        if self.returncode is None:
            answer = self._answer(timeout)
            self.returncode, self.megabytes = answer["code"], answer["megabytes"]
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def __enter__(self) -> Fork:
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        if kind:
            self.kill()
        if self.stdin:
            self.stdin.close()
        try:
            self.wait()
        except TimeoutError:
            self.kill()
            self.wait()
            raise
        finally:
            for stream in (self.stdout, self.stderr):
                if stream:
                    stream.close()


def _content(stream: IO) -> bytes:
    stream.seek(0)
    return stream.read()


# What runs in the process that is forked from, and in the forks


def serve(channel: socket.socket) -> dict:
    """Fork for each request. Returns in each fork, which is to do what was asked, and ends when nobody asks more."""
    while True:
        message, streams, _, _ = socket.recv_fds(channel, MESSAGE, len(STREAMS))
        if not message:
            sys.exit()
        request = json.loads(message)
        pid = os.fork()
        if pid == 0:
            channel.close()
            become(request, streams)
            return request
        for number in streams:
            os.close(number)
        channel.send(json.dumps({"pid": pid}).encode())
        _, status, used = os.wait4(pid, 0)
        answer = {"code": os.waitstatus_to_exitcode(status), "megabytes": used.ru_maxrss // 1024}
        with contextlib.suppress(BrokenPipeError):
            channel.send(json.dumps(answer).encode())


def become(request: dict, streams: list[int]) -> None:
    """What a process that was started with these words, streams, folder and environment has around it."""
    if request["session"]:
        os.setsid()
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    for name, limit in request["limits"].items():
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (limit, limit))
    for number in range(len(STREAMS)):
        os.close(number)
    for number, stream in zip(request["open"], streams):
        os.dup2(stream, number)
    for stream in streams:
        os.close(stream)
    for number, name in enumerate(STREAMS):
        opened = None
        if number in request["open"]:
            errors = "backslashreplace" if name == "stderr" else "strict"
            opened = open(number, "w" if number else "r", encoding="utf-8", errors=errors, closefd=False)
            if name == "stderr":
                opened.reconfigure(line_buffering=True)
        setattr(sys, name, opened)
        setattr(sys, f"__{name}__", opened)
    sys.argv = [request["command"], *request["arguments"]]


def main() -> None:
    for module in sys.argv[2:]:
        importlib.import_module(module)
    gc.freeze()  # nothing to look through, and to copy, when a fork ends
    request = serve(socket.socket(fileno=int(sys.argv[1])))
    try:
        importlib.import_module(f"chextools.cli.{cli_module(request['command'])}").main()
    except SystemExit as stop:
        if request["abrupt"]:
            sys.stderr.flush()
            os._exit(stop.code or 0)
        raise


if __name__ == "__main__":
    main()
