"""Runs the code blocks of a page. Those of one language make one program, in their order; `json file=NAME` is a file.

The programs run one after the other in an empty folder: first sh, whose servers and variables the others use, then ts and
python. What a program prints has to be, line by line, what stands behind `=>` in its comments. Nothing is changed but the
two ports, so that the test runs beside anything else.
"""

import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile

TIMEOUT_SECONDS = 120
ROOT = pathlib.Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
EXPECTED = re.compile(r"(?:#|//) => (.*)$", re.MULTILINE)
PORTS = ["8700", "4010"]
# What each language's program is called, how it is run, and what its blocks are in.
PROGRAMS = {
    "ts": ("page.mjs", "node page.mjs"),
    "python": ("page.py", f"{ROOT}/.venv/bin/python page.py"),
}


def free_ports(number):
    """Ports that nobody has now."""
    sockets = [socket.socket() for _ in range(number)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [str(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return ports


def moved(page, ports):
    """The page's text with other ports."""
    text = page.read_text()
    for port, other in ports.items():
        text = text.replace(f"127.0.0.1:{port}", f"127.0.0.1:{other}")
    return text


def read_page(page):
    """The page's programs by language, and the files that it shows."""
    ports = dict(zip(PORTS, free_ports(len(PORTS))))
    text = moved(page, ports)
    programs, files = {}, {}
    for language, rest, code in BLOCK.findall(text):
        name = re.search(r"file=(\S+)", rest)
        if name:
            files[name.group(1)] = code
        elif language in ("sh", *PROGRAMS):
            programs.setdefault(language, []).append(code)
        else:
            raise SystemExit(f"{page}: a block of {language!r} that nobody runs")
    # What the README shows is run too; it prints what the page's first turn prints.
    for language, _, code in BLOCK.findall(moved(ROOT / "README.md", ports)):
        if language == "ts":
            hidden = "const console = { log() {} }, KEY = process.env.ANTHROPIC_API_KEY;"
            programs["ts"].append(f"{{\n{hidden}\n{code}}}")
    return {language: "\n".join(blocks) for language, blocks in programs.items()}, files


def run(programs, files, folder):
    """Runs all; returns what each program printed, and how it went."""
    for name, code in files.items():
        (folder / name).write_text(code)
    (folder / "node_modules").symlink_to(ROOT / "tests/sdk/node_modules")
    script = ["set -euo pipefail", "trap 'kill $(jobs -p); wait' EXIT", programs["sh"]]
    for language, (name, command) in PROGRAMS.items():
        (folder / name).write_text(programs[language])
        script.append(f"{command} >{language}.out 2>{language}.err || echo failed >>{language}.err")
    wardian, agent = pathlib.Path(os.environ["WARDIAN"]), pathlib.Path(os.environ["WARDIAN_AGENT"])
    env = {
        "PATH": f"{wardian.parent}:{os.environ['PATH']}",
        "HOME": str(folder),
        "WARDIAN_LIBEXEC_DIR": str(agent.parent),
        # Another server of this machine may have the default one.
        "WARDIAN_ADMIN_LISTEN": "none",
    }
    process = subprocess.Popen(
        ["bash", "-c", "\n".join(script)], cwd=folder, env=env, text=True, start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=(folder / "sh.out").open("w"), stderr=(folder / "sh.err").open("w"),
    )
    try:
        code = process.wait(TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired:
        code = "timeout"
    finally:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    if code != 0:
        with (folder / "sh.err").open("a") as errors:
            errors.write(f"ended with {code}\n")


def judge(language, code, folder):
    """Compares what a program printed with what the page says; returns how many lines were right, and wrong."""
    printed, errors = ((folder / f"{language}.{end}") for end in ("out", "err"))
    found = printed.read_text().splitlines() if printed.exists() else []
    expected = EXPECTED.findall(code)
    right = 0
    for line, (want, got) in enumerate(zip(expected, [*found, *[None] * len(expected)]), 1):
        if want != got:
            print(f"FAILED  {language}: line {line} of what it prints is {got!r}, the page says {want!r}")
            print("".join(f"        > {line}\n" for line in found[line:]), end="")
            break
        right += 1
    else:
        if len(found) > len(expected):
            print(f"FAILED  {language}: it also prints {found[len(expected)]!r}, of which the page says nothing")
            return right, 1
    text = errors.read_text().strip() if errors.exists() else "it was not run"
    if right < len(expected) or text:
        print("".join(f"        {line}\n" for line in text.splitlines()[-20:]), end="")
        return right, max(len(expected) - right, 1)
    print(f"ok      docs: {language}, {right} claims")
    return right, 0


def main(page):
    programs, files = read_page(page)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="wardian-docs-"))
    passed = failed = 0
    try:
        run(programs, files, folder)
        for language, code in programs.items():
            right, wrong = judge(language, code, folder)
            passed, failed = passed + right, failed + wrong
        if failed:
            for log in sorted(folder.glob("*.log")):
                print(f"        {log.name}:", *log.read_text().splitlines()[-5:], sep="\n        ")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(f"{passed} passed, {failed} failed")
    sys.exit(0 if failed == 0 else 1)


main(pathlib.Path(sys.argv[1]))
