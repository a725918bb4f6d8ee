#!/usr/bin/env python3
"""Measures wardian-agent beside the official CLI, in one run, alternating, over the channel that the SDKs use.

    make guest && cargo build --release -p wardian && scripts/stock-cli.sh
    scripts/measure-agent.py [-n 11] [--concurrent 8,64] [--json FILE]

From spawn to `init`, to the first `assistant` message and to the `result` of one turn (text) and of five tool calls (Read, Bash,
Write, Edit, Bash); CPU (user and system, with children) and peak resident memory of the whole run; and the proportional memory
(PSS) of agents at once, each after one Bash call and waiting for the model. The model is `wardian model`, which answers at once.
Compare within one run on a quiet machine only: the load is printed.
"""

import argparse
import contextlib
import json
import os
import pathlib
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
MODEL = "claude-sonnet-5"
# What one official CLI may take, with room to spare: no more are started at once than fit.
STOCK_MIB = 220
DEADLINE_SECONDS = 180
MIB = 1024 * 1024


def call(name, **arguments):
    return {"tool_use": [{"name": name, "input": arguments}]}


def replies_of(scenario, folder):
    """The script for one run."""
    made = str(folder / "made.txt")
    rounds = {
        "text": [],
        "5 tools": [
            call("Read", file_path=str(folder / "note.txt")),
            call("Bash", command="echo one"),
            call("Write", file_path=made, content="one\ntwo\n"),
            call("Edit", file_path=made, old_string="two", new_string="three"),
            call("Bash", command="echo two"),
        ],
    }[scenario]
    return [*rounds, {"text": "Done."}]


@contextlib.contextmanager
def model(wardian, replies):
    """A scripted model; gives its address."""
    with tempfile.TemporaryDirectory() as place:
        script = pathlib.Path(place, "script.json")
        script.write_text(json.dumps({"replies": replies}))
        argv = [*wardian, "--script", str(script), "--listen", "127.0.0.1:0"]
        with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as server:
            try:
                yield json.loads(server.stdout.readline())["base_url"]
            finally:
                server.kill()


class Agent:
    """One agent process, asked one prompt the way the SDKs do, and what it wrote, by time since its start."""

    def __init__(self, program, home, folder, url):
        flags = ["--output-format", "stream-json", "--verbose", "--input-format", "stream-json"]
        flags += [f"--model={MODEL}", "--permission-mode=acceptEdits", "--allowedTools=Bash", "--setting-sources="]
        env = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "ANTHROPIC_BASE_URL": url,
            "ANTHROPIC_API_KEY": "sk-ant-measure",
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "CLAUDE_CODE_ENTRYPOINT": "sdk-py",
            "IS_SANDBOX": "1",
        }
        self.started = time.monotonic()
        self.process = subprocess.Popen(
            [program, *flags], cwd=folder, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        prompt = {"type": "user", "session_id": "", "message": {"role": "user", "content": "go"}, "parent_tool_use_id": None}
        initialize = {"type": "control_request", "request_id": "first", "request": {"subtype": "initialize", "hooks": None}}
        self.process.stdin.write(f"{json.dumps(initialize)}\n{json.dumps(prompt)}\n".encode())
        self.process.stdin.flush()

    def until(self, wanted):
        """Reads to the first frame that is wanted; milliseconds since the start by kind of frame."""
        seen = {}
        for line in self.process.stdout:
            frame = json.loads(line)
            kind = "init" if frame.get("subtype") == "init" else frame["type"]
            seen.setdefault(kind, (time.monotonic() - self.started) * 1000)
            if wanted(frame):
                return seen, frame
        raise SystemExit(f"the agent ended too early; it wrote {list(seen)}")

    def end(self):
        """Ends its input and waits for its end: CPU milliseconds and peak memory in MiB.

        The peak is the kernel's for this program alone: that of `wait4` counts what this script had before the program's start.
        """
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")) / 1024
        self.process.stdin.close()
        _, status, used = os.wait4(self.process.pid, 0)
        self.process.returncode = os.waitstatus_to_exitcode(status)
        self.process.stdout.close()
        return (used.ru_utime + used.ru_stime) * 1000, peak

    def kill(self):
        self.process.kill()
        self.process.wait()


def one(subject, scenario, wardian):
    """One run: the numbers by name."""
    with tempfile.TemporaryDirectory(prefix="measure-") as place:
        folder = pathlib.Path(place)
        (folder / "note.txt").write_text("one\ntwo\nthree\n")
        with model(wardian, replies_of(scenario, folder)) as url:
            agent = Agent(subject["program"], subject["home"], folder, url)
            stop = threading.Timer(DEADLINE_SECONDS, agent.process.kill)
            stop.start()
            seen, result = agent.until(lambda frame: frame["type"] == "result")
            cpu, peak = agent.end()
            stop.cancel()
    turns = {"text": 1, "5 tools": 6}[scenario]
    if result["is_error"] or result["num_turns"] != turns:
        raise SystemExit(f"{subject['name']}, {scenario}: {result}")
    return {"init ms": seen["init"], "first assistant ms": seen["assistant"], "result ms": seen["result"], "CPU ms": cpu, "peak RSS MiB": peak}


def tree(pid):
    """A process and its descendants."""
    children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(inner for child in children for inner in tree(int(child)))]


def pss(pid):
    """Proportional memory in MiB."""
    lines = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def at_once(subject, count, wardian):
    """The PSS in MiB of this many agents that wait for the model after one Bash call."""
    held = {"match": {"tool_result_contains": "here-i-am"}, "text": "I wait", "hold": True, "repeat": True}
    replies = [held, {**call("Bash", command="echo here-i-am"), "repeat": True}]
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(model(wardian, replies))
        agents = []
        for _ in range(count):
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="measure-"))
            agents.append(Agent(subject["program"], subject["home"], folder, url))
            stack.callback(agents[-1].kill)
        for agent in agents:
            agent.until(lambda frame: frame["type"] == "user")
        # The call that is held has been made when nobody computes any more.
        settle([agent.process.pid for agent in agents])
        return sum(pss(pid) for agent in agents for pid in tree(agent.process.pid))


def settle(pids):
    """Waits until these processes have used no CPU for a second."""

    def used():
        fields = (pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split() for pid in pids)
        return sum(int(field[11]) + int(field[12]) for field in fields)

    until, before = time.monotonic() + 30, used()
    while time.monotonic() < until:
        time.sleep(1)
        now = used()
        # A tick is 10 ms; idle runtimes use some now and then.
        if now - before <= len(pids):
            return
        before = now


def available_mib():
    lines = pathlib.Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")) / 1024


def version(program):
    return subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout.strip()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-n", type=int, default=11, help="runs of each, after one to warm up")
    parser.add_argument("--concurrent", default="8,64", help="how many agents at once")
    parser.add_argument("--agent", default=str(ROOT / "target/guest/wardian-agent"))
    parser.add_argument("--stock", default=str(ROOT / "target/stock-cli/claude"))
    parser.add_argument("--wardian", default=str(ROOT / "target/release/wardian"))
    parser.add_argument("--json", help="where to write all numbers")
    given = parser.parse_args()
    # They run in folders of their own.
    given.agent, given.stock, given.wardian = (os.path.abspath(program) for program in (given.agent, given.stock, given.wardian))
    for program, hint in [(given.agent, "make guest"), (given.stock, "scripts/stock-cli.sh"), (given.wardian, "cargo build --release -p wardian")]:
        if not os.access(program, os.X_OK):
            sys.exit(f"no {program}: {hint}")
    wardian = [given.wardian, "model"]

    with contextlib.ExitStack() as stack:
        subjects = [
            {"name": name, "program": program, "home": stack.enter_context(tempfile.TemporaryDirectory(prefix="measure-home-", ignore_cleanup_errors=True))}
            for name, program in [("official", given.stock), ("wardian", given.agent)]
        ]
        load = lambda: " ".join(f"{value:.2f}" for value in os.getloadavg())
        print(f"{platform.system()} {platform.release()}, {os.cpu_count()} cores, load before {load()}")
        for subject in subjects:
            size = pathlib.Path(subject["program"]).stat().st_size / MIB
            print(f"{subject['name']}: {version(subject['program'])}, {size:.1f} MiB on disk")
        numbers = {}
        for scenario in ["text", "5 tools"]:
            for turn in range(given.n + 1):
                for subject in subjects:
                    measured = one(subject, scenario, wardian)
                    if turn > 0:
                        for name, value in measured.items():
                            numbers.setdefault((scenario, name), {}).setdefault(subject["name"], []).append(value)
        print(f"load after the runs {load()}; median of {given.n} [least..most]\n")
        table(numbers)
        memory = {}
        for count in map(int, given.concurrent.split(",")):
            for subject in subjects:
                fits = int(available_mib() / STOCK_MIB) if subject["name"] == "official" else count
                if fits < count:
                    print(f"{count} official CLIs at once do not fit into the memory that is free")
                    continue
                memory.setdefault(count, {})[subject["name"]] = at_once(subject, count, wardian)
    print("\n| agents at once | official, PSS MiB (each) | wardian, PSS MiB (each) | ratio |\n|---|---:|---:|---:|")
    for count, by in memory.items():
        cells = [f"{by[name]:.0f} ({by[name] / count:.1f})" if name in by else "–" for name in ("official", "wardian")]
        ratio = f"{by['official'] / by['wardian']:.0f}" if len(by) == 2 else ""
        print(f"| {count} | {cells[0]} | {cells[1]} | {ratio} |")
    if given.json:
        kept = {" ".join(key): value for key, value in numbers.items()}
        pathlib.Path(given.json).write_text(json.dumps({"runs": kept, "pss_mib": memory}, indent=1))


def table(numbers):
    """One line a number; then a tool round, which is a fifth of what five tools cost more."""
    print("| | official | wardian | ratio |\n|---|---:|---:|---:|")
    cell = lambda values: f"{statistics.median(values):.1f} [{min(values):.0f}..{max(values):.0f}]"
    line = lambda name, official, ours, cells: print(f"| {name} | {cells[0]} | {cells[1]} | {official / ours:.0f} |" if ours > 0 else f"| {name} | {cells[0]} | {cells[1]} | |")
    middle = {key: {name: statistics.median(values) for name, values in by.items()} for key, by in numbers.items()}
    for (scenario, name), by in numbers.items():
        at = middle[scenario, name]
        line(f"{scenario}: {name}", at["official"], at["wardian"], [cell(by["official"]), cell(by["wardian"])])
    for name in ["result ms", "CPU ms"]:
        rounds = {who: (middle["5 tools", name][who] - middle["text", name][who]) / 5 for who in ("official", "wardian")}
        line(f"a tool round: {name}", rounds["official"], rounds["wardian"], [f"{rounds['official']:.1f}", f"{rounds['wardian']:.1f}"])


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    main()
