"""What every command shares: exit codes, signals, one-line errors, where records go. See chextools(7)."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn, TextIO

import click

from chextools import __version__
from chextools.cli import completion, helptext, pipeline
from chextools.cli.progress import begin, hidden
from chextools.cli.progress import shown as progress
from chextools.errors import InputError, encoded, one_line

if TYPE_CHECKING:  # start-up: `--help` imports none of it
    import logging

    from chextools.records.tally import Tally

_fed_by: set[str] = set()  # our commands that were seen to write what we read; they may have ended by now
_WITH_NETWORK = ("chex-predict", "chex-cam", "chex-probe", "chex-train", "chex-import")


class Stopped(BaseException):
    """A signal to die of, after cleaning up."""

    def __init__(self, number: int):
        self.number = number


class Failed(Exception):
    """The command did what it could, but something failed: exit 1 with this line."""


class Command(click.Command):
    """A click command with -h, --version, -q and -v, options in groups, an example, and the contract's errors."""

    context_class = helptext.Context

    def __init__(self, name: str, *, example: str, **attributes: Any):
        self.example = example
        attributes.setdefault("context_settings", {"help_option_names": ["-h", "--help"]})
        super().__init__(name, **attributes)
        self.params += [
            click.Option(["-q", "--quiet"], is_flag=True, expose_value=False, callback=_set, help="Only errors."),
            click.Option(
                ["-v", "--verbose"], is_flag=True, expose_value=False, callback=_set, help="Say more on stderr."
            ),
            click.Option(
                ["--version"],
                is_flag=True,
                expose_value=False,
                is_eager=True,
                callback=_version,
                help="Print the version and exit.",
            ),
        ]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for heading, found in helptext.grouped(self, ctx):
            with formatter.section(heading):
                formatter.write_dl([record for option in found if (record := option.get_help_record(ctx))])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's own
        assert isinstance(formatter, helptext.Formatter)
        with formatter.section("Example"):
            formatter.write_example(self.example)
        formatter.write_paragraph()
        formatter.write_text(f"See also: man {self.name}, man chextools.")


def command(name: str, example: str) -> Callable[[Callable], Command]:
    """Make a function a command; its docstring is the help."""
    return click.command(name, cls=Command, example=example)


def run(command: Command) -> NoReturn:
    """Run a command as a process and exit as the contract says: 0, 1, 2, or dead of a signal."""
    program = command.name or ""
    if program not in _WITH_NETWORK and "OMP_NUM_THREADS" not in os.environ:
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # of no use to us, and a third of numpy's start-up
    warnings.filterwarnings("ignore", module=r"(PIL|pydicom)\b")  # several lines each; what matters is an error of ours
    begin(program, ())
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup
            signal.signal(number, _stop)
    try:
        code = _complete(command) if os.environ.get(completion.ASKED) else _invoke(command)
    except click.UsageError as error:
        code = 2
        _say(program, "error", f"{error.format_message()} (see {program} --help)")
    except click.ClickException as error:
        code = 1
        _say(program, "error", error.format_message())
    except (InputError, Failed) as error:
        code = 1
        _say(program, "error", str(error))
    except MemoryError:
        code = 1
        _say(program, "error", "out of memory; try fewer with --jobs")
    except (KeyboardInterrupt, click.Abort):
        code = _die(signal.SIGINT)
    except Stopped as stop:
        code = _die(stop.number)
    except OSError as error:
        code = 1
        _say(program, "error", f"{error.filename or 'input/output'}: {error.strerror or error}")
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is _stop:
            signal.signal(number, signal.SIG_DFL)
    if code and sys.stdout is not None:
        _discard(sys.stdout)
    _leave(program, code)
    sys.exit(code)


def _leave(program: str, code: int) -> None:
    """End at once, unless the process is somebody else's, such as a profiler's, or has threads to wait for.

    To free piece by piece what the system frees as a whole takes a small command a tenth of its time. And threads might
    not let the interpreter end in order: one that still waits for stdin would keep it, those of connections with other
    processes can abort it, even when these are closed.
    """
    import threading

    others = [thread for thread in threading.enumerate() if thread is not threading.main_thread()]
    waiting = met = False
    if "chextools.models.inference" in sys.modules:
        from chextools.models.inference import READER

        waiting = any(thread.name == READER for thread in others)
    if "chextools.training.ranks" in sys.modules:
        from chextools.training.ranks import has_met

        met = has_met()
    if not (waiting or met):
        if not _is_alone(program) or not all(thread.daemon for thread in others):
            return
        atexit._run_exitfuncs()  # noqa: SLF001 - as the interpreter does
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, AttributeError, ValueError):
            stream.flush()
    os._exit(code)


def _is_alone(program: str) -> bool:
    """Whether the process runs the command and nobody's code besides: no profiler's, and no user's own file, which may
    hold files that are written when the interpreter ends.
    """
    frame = sys._getframe()  # noqa: SLF001 - coverage takes the place of __main__, but not of the first frame
    while frame.f_back:
        frame = frame.f_back
    started = os.path.basename(frame.f_globals.get("__file__") or "")
    usercode = sys.modules.get("chextools.plumbing.usercode")
    return started == program and not (usercode and usercode.has_run())


def _complete(command: Command) -> int:
    """Answer a shell that asks what may be typed; whatever is wrong with the line so far is no error."""
    with contextlib.suppress(Exception):
        completion.answer(command, sys.argv[1:])
    return 0


def _invoke(command: Command) -> int:
    """What click's main() does, less its own idea of signals and broken pipes."""
    code = 0
    try:
        with command.make_context(command.name, sys.argv[1:]) as context:
            command.invoke(context)
    except click.exceptions.Exit as error:
        code = error.exit_code
    _flush_stdout()
    return code


def default_inputs(context: click.Context, inputs: tuple[str, ...]) -> tuple[str, ...]:
    """The inputs, else stdin; a terminal there means that nothing was given: the help, exit 2."""
    begin(context.command.name or "", inputs or ("-",))
    if inputs:
        return inputs
    if sys.stdin is None or sys.stdin.isatty():
        print(context.get_help(), file=sys.stderr)
        context.exit(2)
    return ("-",)


def given(context: click.Context) -> set[str]:
    """The parameters that the user gave, by name."""
    said = click.core.ParameterSource.COMMANDLINE
    return {name for name in context.params if context.get_parameter_source(name) is said}


def stdin() -> BinaryIO:
    """Binary stdin; empty where it is closed."""
    import io

    return io.BytesIO() if sys.stdin is None else sys.stdin.buffer


@contextlib.contextmanager
def output(path: str | None, force: bool = False) -> Iterator[Callable[[str], None]]:
    """Where results go: a function that writes text to stdout, or to a file that appears when the block ends.

    What a user's own code or a library prints in the block is no result, and goes to stderr.
    """
    if path is None:
        stream = sys.stdout
        with contextlib.redirect_stdout(sys.stderr):
            yield partial(_write, stream)
        _flush_stdout()
    else:
        from chextools.plumbing.files import atomic

        with atomic(path, force) as stream:

            def write(text: str) -> None:
                stream.write(encoded(text))

            yield write


@contextlib.contextmanager
def resumable() -> Iterator[None]:
    """SIGTERM in the block, whose work a run with --resume goes on with, is exit 75."""
    try:
        yield
    except Stopped as stop:
        if stop.number != signal.SIGTERM:
            raise
        stopped_early()


@contextlib.contextmanager
def stopping(deadline: float | None = None) -> Iterator[Callable[[], bool]]:
    """A function that says whether to save and stop: since SIGTERM, SIGUSR1 or SIGUSR2, or past a monotonic time."""
    import time

    seen = []
    numbers = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
    before = {number: signal.signal(number, lambda number, _: seen.append(number)) for number in numbers}
    try:
        yield lambda: bool(seen) or (deadline is not None and time.monotonic() >= deadline)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def stopped_early() -> NoReturn:
    """Exit with 75: what there is to go on from has been saved."""
    import logging

    logging.getLogger(__name__).warning("stopped early; --resume goes on")
    raise click.exceptions.Exit(75) from None


def only_errors() -> None:
    """From here on as if -q had been given."""
    import logging

    logging.getLogger("chextools").setLevel(logging.ERROR)


def tally(fail_fast: bool = False) -> Tally:
    """Counts what passes and fails, says so on stderr, and shows progress there."""
    from chextools.records.tally import Tally

    _fed_by.update(pipeline.upstream())
    return Tally(fail_fast, progress)


def _set(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    """Set up messages once -q and -v are both known."""
    context.meta[parameter.name] = value
    if len(context.meta.keys() & {"quiet", "verbose"}) == 2 and not context.resilient_parsing:
        import logging
        import warnings

        level = logging.ERROR if context.meta["quiet"] else logging.INFO if context.meta["verbose"] else logging.WARNING

        class Handler(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                _say(context.command.name or "", record.levelname.lower(), record.getMessage())

        handler = Handler()
        handler.addFilter(_is_news)
        root = logging.getLogger("chextools")
        root.handlers, root.propagate = [handler], False
        root.setLevel(level)
        warnings.showwarning = lambda message, *_: root.info("%s", message)  # other libraries', for whoever asks


def _is_news(record: logging.LogRecord) -> bool:
    """Whether no command before us in the pipeline says so: what is "once" is true of the machine or the records."""
    return not (getattr(record, "once", False) and _fed_by.union(pipeline.upstream()).intersection(_WITH_NETWORK))


def _version(context: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        print(f"{context.command.name} (chextools) {__version__}")
        context.exit()


def _say(program: str, level: str, message: str) -> None:
    """One line on stderr, whatever the message holds. That stderr is broken is no reason to fail."""
    with contextlib.suppress(OSError, AttributeError, ValueError), hidden():
        line = f"{program}: {level}: {one_line(message)}\n"
        sys.stderr.buffer.write(line.encode("utf-8", "backslashreplace"))
        sys.stderr.buffer.flush()


def _write(stdout: TextIO, text: str) -> None:
    with _stdout_errors():
        stdout.buffer.write(encoded(text))
        stdout.buffer.flush()  # a reader downstream works on this record while we make the next


def _flush_stdout() -> None:
    if sys.stdout is not None:
        with _stdout_errors():
            sys.stdout.flush()


@contextlib.contextmanager
def _stdout_errors() -> Iterator[None]:
    """A reader that went away is SIGPIPE, as for any filter; another error names stdout."""
    try:
        yield
    except BrokenPipeError:
        raise Stopped(signal.SIGPIPE) from None
    except (OSError, AttributeError) as error:
        raise Failed(f"stdout: {getattr(error, 'strerror', None) or 'closed'}") from None


def _stop(number: int, _: object) -> NoReturn:
    raise Stopped(number)


def _die(number: int) -> int:
    """Die of the signal itself, so that the shell sees it and its loops stop."""
    if sys.stdout is not None:
        _discard(sys.stdout)
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    return 128 + number  # if the signal is blocked


def _discard(stream: TextIO) -> None:
    """Forget what is buffered, so that the interpreter's last flush cannot fail once more."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
