"""Every command through the contract's rules (DESIGN: "The contract every command keeps"), numbered as there."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import stat
import subprocess
import sys
import time

import click
import manual
import pytest
from cases import CASES, SMALL
from conftest import COMMANDS, ROOT, launcher
from forks import CLOSED, DEVNULL, Fork, cli_module

FILTERS = [name for name in COMMANDS if CASES[name].kind == "filter"]
STREAMED = [name for name in COMMANDS if CASES[name].lines()]


@pytest.fixture(autouse=True)
def workplace(monkeypatch, tmp_path_factory):
    """A fresh folder of its own, for what a command makes there."""
    monkeypatch.chdir(tmp_path_factory.mktemp("workplace"))


def takes(name: str, option: str) -> bool:
    return any(option in parameter.opts for parameter in manual.command(name).params)


def taking(*options: str) -> list[str]:
    return [name for name in COMMANDS if all(takes(name, option) for option in options)]


def taking_file() -> list[str]:
    """Commands whose --output is a file instead of stdout, not a folder."""
    return [n for n in COMMANDS if any("--output" in p.opts and p.metavar == "FILE" for p in manual.command(n).params)]


def text(lines: list[str]) -> bytes:
    return "".join(line + "\n" for line in lines).encode()


@pytest.fixture
def forked(forks, torch_forks):
    """Where a command is forked from."""
    return lambda name: torch_forks if CASES[name].uses_torch else forks


@pytest.fixture
def start(forked):
    """Start a command with its options, as subprocess.Popen would."""
    return lambda name, *arguments, **options: forked(name).start(name, *CASES[name].options, *arguments, **options)


@pytest.fixture
def run(forked):
    """Run a command with its inputs and options, as subprocess.run would."""

    def call(name, *arguments, **options):
        return forked(name).run(name, *CASES[name].arguments, *CASES[name].options, *arguments, **options)

    return call


def whole(cli, name: str, *arguments: object):
    """The command on all its work, in process."""
    return cli(name, *CASES[name].arguments, *CASES[name].options, *arguments)


def one_error_line(name: str, err: str | bytes, *parts: str) -> None:
    err = err.decode() if isinstance(err, bytes) else err
    assert err.count("\n") == 1 and err.startswith(f"{name}: error: "), err
    for part in parts:
        assert part in err


def test_every_command_is_named():
    assert sorted(CASES) == COMMANDS


# 1 Output


@pytest.mark.parametrize("name", COMMANDS)
def test_1_stdout_is_json_lines_and_stderr_is_quiet(cli, name):
    result = whole(cli, name)
    assert result.code == 0
    assert all(isinstance(json.loads(line, parse_constant=pytest.fail), dict) for line in result.out.splitlines())
    assert result.out.isascii() and result.out.endswith("\n")
    assert all(line.startswith(f"{name}: warning: ") for line in result.err.splitlines())  # and no progress bar
    assert whole(cli, name, "-q").err == ""


@pytest.mark.parametrize("name", FILTERS)
def test_1_unknown_keys_pass_through(cli, name):
    result = cli(name, *CASES[name].options, stdin=text(CASES[name].lines()[:2]))
    for line, out in zip(CASES[name].lines(), map(json.loads, result.out.splitlines())):
        assert out["mine"] == json.loads(line)["mine"]


# 2 Exit codes and signals


@pytest.mark.parametrize("name", COMMANDS)
def test_2_a_command_line_that_cannot_be_parsed_is_2(cli, name):
    result = cli(name, "--no-such-option")
    assert (result.code, result.out) == (2, "")
    one_error_line(name, result.err, "--no-such-option")


@pytest.mark.parametrize("name", [n for n in COMMANDS if CASES[n].arguments])
def test_2_a_missing_input_is_1(cli, name):
    result = cli(name, "no/such/input", *CASES[name].options)
    assert (result.code, result.out) == (1, "")
    one_error_line(name, result.err, "no/such/input: No such file or directory")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("name", STREAMED)
def test_2_a_signal_cleans_up_and_kills(start, tmp_path, name, number):
    target = tmp_path / "out"
    with start(name, "-", *(["-o", target] if name in taking_file() else [])) as process:
        process.stdin.write(text(CASES[name].lines()[:1]))
        _wait_until_reading(process)
        process.send_signal(number)
        assert process.wait(30) == -number
        assert process.stderr.read() == b""
    assert list(tmp_path.iterdir()) == []


def _wait_until_reading(process: Fork) -> None:
    """Until the process sleeps in the kernel, as it does when it has taken its input and waits for more."""
    asleep = 0
    while asleep < 5:
        time.sleep(0.1)
        state = open(f"/proc/{process.pid}/stat").read().rsplit(")", 1)[1].split()[0]
        asleep = asleep + 1 if state == "S" else 0


# 3 Pipes


@pytest.mark.parametrize("name", COMMANDS)
def test_3_a_closed_pipe_ends_in_silence(start, name):
    with start(name, *CASES[name].arguments, "-q", stdin=DEVNULL) as process:
        assert process.stdout.read(1)
        process.stdout.close()  # as head -c 1 does
        assert process.stderr.read() == b""
        assert process.wait(60) in (0, -signal.SIGPIPE)


@pytest.mark.parametrize("name", COMMANDS)
def test_3_a_reader_that_is_gone_is_sigpipe(run, name):
    reader, writer = os.pipe()
    os.close(reader)
    result = run(name, "-q", stdout=writer)
    os.close(writer)
    assert (result.returncode, result.stderr) == (-signal.SIGPIPE, b"")


@pytest.mark.parametrize("name", STREAMED)
def test_3_empty_stdin(cli, name):
    result = cli(name, *CASES[name].options)
    if CASES[name].kind == "filter":
        assert (result.code, result.out, result.err) == (0, "", "")
    else:
        assert (result.code, result.out, result.err) == (1, "", f"{name}: error: stdin: no records\n")


@pytest.mark.parametrize("name", [n for n in COMMANDS if CASES[n].arguments])
def test_3_a_positional_input_means_that_stdin_is_never_read(start, name):
    with start(name, *CASES[name].arguments) as process:  # stdin stays open: reading it would never end
        process.stdout.read()
        assert process.wait(60) == 0


@pytest.mark.parametrize("name", STREAMED)
def test_3_a_terminal_for_stdin_prints_the_help(forked, name):
    master, slave = pty.openpty()
    result = forked(name).run(name, *CASES[name].options, stdin=slave)
    os.close(slave)
    os.close(master)
    assert (result.returncode, result.stdout) == (2, b"")
    assert result.stderr.startswith(f"Usage: {name}".encode())


@pytest.mark.parametrize("name", COMMANDS)
def test_3_a_full_disk_is_one_line(run, name):
    with open("/dev/full", "wb") as full:
        result = run(name, "-q", stdout=full)
    assert result.returncode == 1
    one_error_line(name, result.stderr, "stdout: No space left on device")


@pytest.mark.parametrize("closed, code", [("stdin", 0), ("stderr", 0), ("stdout", 1)])
@pytest.mark.parametrize("name", COMMANDS)
def test_3_a_closed_stream_is_no_traceback(run, name, closed, code):
    result = run(name, **{closed: CLOSED})
    assert result.returncode == code
    assert b"Traceback" not in (result.stderr or b"") and b"Exception" not in (result.stderr or b"")


# 4 Errors

BAD_LINES = {
    "not json": ("{nonsense", "not JSON"),
    "truncated": ('{"id": "x", "heat', "truncated JSON"),
    "no object": ("[1, 2]", "not a JSON object"),
    "no id": ('{"heatmap": "x"}', 'no "id" key'),
    "path id": ('{"id": "../x"}', "is not a plain name"),
    "NUL id": ('{"id": "x\\u0000"}', "is not a plain name"),
    "NaN": ('{"id": "x", "size": NaN}', "NaN is not a number"),
    "size": ('{"id": "x", "size": [1000000, 1000000]}', "is more than 536870912 pixels"),
    "side": ('{"id": "x", "size": [1, 500000000]}', "has a side of more than 65535 pixels"),
    "not UTF-8": (b'{"id": "\xff"}', "not UTF-8"),
    "task name": ('{"id": "x", "scores": {"Average": 0.5}}', "cannot be the name of a task"),
    "score": ('{"id": "x", "scores": {"Edema": 7}}', "must be a probability"),
    "patient": ('{"id": "x", "patient": ["x"]}', '"patient" must be a string'),
    "surrogate": ('{"id": "\\ud800\\u0001"}', "is not a plain name"),
    "deep": ("[" * 100_000, "not usable JSON"),
    "number": ('{"id": "x", "scores": {"Edema": ' + "1" * 5000 + "}}", "must"),
}


@pytest.mark.parametrize("name", STREAMED)
def test_4_a_bad_record_is_one_warning_and_the_rest_go_on(cli, name):
    good, *more = (line.encode() for line in CASES[name].lines())
    bad = [line.encode() if isinstance(line, str) else line for line, _ in BAD_LINES.values()]
    result = cli(name, *CASES[name].options, "-", stdin=b"\n".join([good, *bad, *more]) + b"\n")
    assert result.code == 1
    *warnings, last = result.err.splitlines()
    said = [line for line in warnings if line.startswith(f"{name}: warning: stdin:") and line.endswith("; skipped")]
    assert len(said) == len(bad)
    for number, (line, (_, reason)) in enumerate(zip(said, BAD_LINES.values()), 2):
        assert line.startswith(f"{name}: warning: stdin:{number}: ") and reason in line
    assert last == f"{name}: error: {len(bad)} of {len(bad) + len(more) + 1} records failed"
    if CASES[name].kind == "filter":
        assert result.out == cli(name, *CASES[name].options, "-", stdin=text(CASES[name].lines())).out
    else:
        assert all(json.loads(row)["failed"] == len(bad) for row in result.out.splitlines())


@pytest.mark.parametrize("name", STREAMED)
def test_4_a_truncated_last_line_is_an_error(cli, name):
    data = text(CASES[name].lines())[:-20]
    result = cli(name, *CASES[name].options, stdin=data)
    assert result.code == 1 and f"stdin:{len(CASES[name].lines())}: truncated JSON" in result.err


@pytest.mark.parametrize("name", STREAMED)
def test_4_a_duplicate_id_names_both_places(cli, name):
    lines = CASES[name].lines()
    result = cli(name, *CASES[name].options, stdin=text([*lines, lines[0]]))
    assert result.code == 1
    assert f"stdin:{len(lines) + 1}: duplicate id" in result.err and "first at stdin:1" in result.err


@pytest.mark.parametrize("name", [n for n in STREAMED if takes(n, "--fail-fast")])
def test_4_fail_fast_stops_at_the_first(cli, name):
    lines = CASES[name].lines()
    result = cli(name, *CASES[name].options, "--fail-fast", stdin=text([lines[0], "{}", *lines[1:]]))
    assert result.code == 1
    assert len(result.out.splitlines()) == (1 if CASES[name].kind == "filter" else 0)


# 5 and 6 Output files


@pytest.mark.parametrize("name", taking_file())
def test_5_an_existing_output_is_refused_before_work(cli, tmp_path, name):
    target = tmp_path / "out"
    target.write_text("mine")
    refused = whole(cli, name, "-o", target)
    assert (refused.code, target.read_text()) == (1, "mine")
    one_error_line(name, refused.err, f"{target}: exists; use --force")
    assert whole(cli, name, "-o", target, "-f", "-q").code == 0
    assert target.read_text() == whole(cli, name).out


@pytest.mark.parametrize("name", taking_file())
def test_5_an_output_that_cannot_be_made_is_refused_before_work(cli, tmp_path, name):
    result = whole(cli, name, "-o", tmp_path / "no/such/out")
    assert result.code == 1
    one_error_line(name, result.err, "no/such", "does not exist")
    one_error_line(name, whole(cli, name, "-o", tmp_path).err, "is a folder")


@pytest.mark.parametrize("name", taking_file())
def test_6_output_is_whole_and_follows_the_umask(cli, tmp_path, name):
    old = os.umask(0o027)
    try:
        assert whole(cli, name, "-o", tmp_path / "out", "-q").out == ""
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o640
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("name", taking_file())
def test_6_special_files_are_written_through(run, name):
    plain = run(name).stdout
    assert run(name, "-o", "/dev/stdout").stdout == plain
    os.mkfifo("pipe")
    with subprocess.Popen(["timeout", "60", "cat", "pipe"], stdout=subprocess.PIPE) as reader:
        run(name, "-o", "pipe", "-q")
        assert reader.stdout.read() == plain


@pytest.mark.parametrize("name", [n for n in STREAMED if n in taking_file()])
def test_6_kill_9_leaves_nothing_and_the_next_run_cleans_up(cli, start, tmp_path, name):
    target = tmp_path / "out"
    with start(name, "-", "-o", target) as process:
        process.stdin.write(text(CASES[name].lines()[:1]))
        _wait_until_reading(process)
        process.kill()
    assert not target.exists()
    assert whole(cli, name, "-o", target, "-q").code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("name", [n for n in taking_file() if CASES[n].kind == "filter"])
def test_6_a_full_disk_leaves_nothing(run, tmp_path, name):
    """A file size limit stands in for a full disk: the write fails, and the target never appears."""
    result = run(name, "-q", "-o", tmp_path / "out", limits={"FSIZE": 1024})
    assert result.returncode == 1
    one_error_line(name, result.stderr, "out: File too large")
    assert list(tmp_path.iterdir()) == []


# 7 Streaming


@pytest.mark.parametrize("name", FILTERS)
def test_7_a_filter_answers_before_its_input_ends(start, name):
    with start(name, "-j", "1") as process:
        lines = CASES[name].lines()
        process.stdin.write(text(lines[:3]))
        ready, _, _ = select.select([process.stdout], [], [], 60)
        assert ready and json.loads(process.stdout.readline())["id"] == json.loads(lines[0])["id"]
        process.stdin.close()
        assert len(process.stdout.read().splitlines()) == 2


# 8 Shards, jobs, seeds


@pytest.mark.parametrize("name", [n for n in STREAMED if takes(n, "--shard")])
def test_8_shards_make_up_the_whole_however_the_list_is_cut(cli, name):
    case = CASES[name]
    lines = case.lines()
    whole_output = cli(name, *case.options, stdin=text(lines)).out
    shards = [cli(name, *case.options, "--shard", f"{i}/3", stdin=text(lines)) for i in (1, 2, 3)]
    assert sorted("".join(shard.out for shard in shards).splitlines()) == sorted(whole_output.splitlines())
    for i, shard in enumerate(shards, 1):
        count = len(shard.out.splitlines())
        assert f"{name}: warning: shard {i}/3: {count} of {len(lines)} records\n" in shard.err
    backwards = cli(name, *case.options, "--shard", "2/3", stdin=text(lines[::-1])).out
    assert sorted(backwards.splitlines()) == sorted(shards[1].out.splitlines())


@pytest.mark.parametrize("name", taking("--jobs"))
def test_8_jobs_give_the_same_bytes(cli, name):
    assert whole(cli, name, "-j", 3).out == whole(cli, name, "-j", 1).out


@pytest.mark.parametrize("name", taking("--seed"))
def test_8_the_seed_decides(cli, name):
    one, again, other = (whole(cli, name, *CASES[name].seeded, "--seed", seed).out for seed in (1, 1, 2))
    assert one == again != other


# 12 Help


@pytest.mark.parametrize("name", COMMANDS)
def test_12_help_and_version(cli, name):
    for flag in ("-h", "--help"):
        result = cli(name, flag)
        assert result.code == 0 and f"Usage: {name}" in result.out and "Example:" in result.out
    assert cli(name, "--version").out.startswith(f"{name} (chextools) ")


def test_12_an_option_means_the_same_in_every_command():
    """One name, one letter, one kind of value."""
    seen: dict[str, tuple] = {}
    shared = (
        "--output --force --jobs --quiet --verbose --seed --shard --resume --fail-fast --task --format --device --root"
    )
    for name in COMMANDS:
        for parameter in manual.command(name).params:
            if isinstance(parameter, click.Option) and parameter.opts[-1] in shared.split():
                meaning = (parameter.opts, parameter.is_flag, type(parameter.type), parameter.multiple)
                assert seen.setdefault(parameter.opts[-1], meaning) == meaning, (name, parameter.opts)


def test_12_no_name_has_two_meanings():
    """Also of options that few commands share: a flag is a flag, a choice a choice, wherever the name stands."""
    # One command takes more of the same
    finer = {"--baseline", "--batch-size", "--uncertain", "--missing", "--ensemble"}
    seen: dict[str, tuple] = {}
    for name in COMMANDS:
        for parameter in manual.command(name).params:
            if isinstance(parameter, click.Option) and parameter.opts[-1] not in finer:
                meaning = parameter.is_flag, type(parameter.type)
                assert seen.setdefault(parameter.opts[-1], meaning) == meaning, (name, parameter.opts)


# 13 Start-up

HEAVY = {"torch", "torchvision", "numpy", "PIL", "scipy"}


@pytest.mark.parametrize("name", COMMANDS)
def test_13_help_imports_nothing_heavy(name):
    module = f"chextools.cli.{cli_module(name)}"
    script = f"""
import sys; from {module} import command
try: command.main(["--help"])
except SystemExit: pass
sys.exit(", ".join(sorted({HEAVY} & sys.modules.keys())) or 0)
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize("name", [n for n in COMMANDS if not CASES[n].uses_torch])
def test_13_runs_where_torch_is_not_installed(tmp_path, name):
    for module in ("torch", "torchvision"):
        (tmp_path / f"{module}.py").write_text("raise ImportError('there is no torch here')\n")
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    words = [*launcher(name), *map(str, [*CASES[name].arguments, *CASES[name].options]), "-q"]
    result = subprocess.run(words, capture_output=True, stdin=DEVNULL, env=environment)
    assert (result.returncode, result.stderr) == (0, b"")


@pytest.mark.parametrize("name", COMMANDS)
def test_the_launcher_runs_through_a_link_of_another_name(tmp_path, name):
    link = tmp_path / "mine"
    link.symlink_to(ROOT / "bin" / name)
    result = subprocess.run([sys.executable, link, "--version"], capture_output=True, text=True, cwd=tmp_path)
    assert result.stdout.startswith(f"{name} (chextools)")


def test_the_study_data_is_here():
    assert len(list((SMALL / "maps").iterdir())) == 80
