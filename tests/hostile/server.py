"""Runs commands, one after the other, each in a fork of one process that has imported them, with limits that hold.

Reads lines of JSON, [command, arguments, stdin's path or null, folder to run in], and answers each with a line:
{"code": exit status or -signal, "err": stderr, "megabytes": the most the command had in memory, "out": bytes written}.
"""

import importlib
import json
import os
import resource
import sys

GIGABYTE = 2**30
CPU_SECONDS = 60  # a hang: on a busy machine no attack takes a tenth
STDERR_BYTES = 200_000


def child(command, arguments, stdin, folder, out, err):
    os.chdir(folder)
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (3 * GIGABYTE, 3 * GIGABYTE))  # libraries map more than they use
    os.dup2(os.open(stdin or os.devnull, os.O_RDONLY), 0)
    os.dup2(os.open(out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
    os.dup2(os.open(err, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    sys.argv = [command, *arguments]
    code = 1
    try:
        importlib.import_module(f"chextools.cli.{command.removeprefix('chex-')}").main()
    except SystemExit as stop:
        code = stop.code or 0
    except BaseException:
        import traceback

        traceback.print_exc()
    sys.stderr.flush()
    os._exit(code)


def main():
    scratch = sys.argv[1]
    for name in sys.argv[2:]:
        importlib.import_module(name)
    out, err = (os.path.join(scratch, name) for name in ("out", "err"))
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            child(*json.loads(line), out, err)
        _, status, used = os.wait4(pid, 0)
        with open(err, "rb") as stream:
            said = stream.read(STDERR_BYTES).decode("utf-8", "replace")
        answer = {"code": os.waitstatus_to_exitcode(status), "err": said, "megabytes": used.ru_maxrss // 1024}
        print(json.dumps(answer | {"out": os.path.getsize(out)}), flush=True)


if __name__ == "__main__":
    main()
