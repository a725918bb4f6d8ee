#!/usr/bin/env python3
"""The main job, start to end: an agent fixes a failing test in a sealed sandbox.

Called by `make demo`. Needs the built binaries and nothing outside the standard library. The project's own tests are
run in a fresh sandbox before (must fail) and after (must pass, with the tests as they were shipped): that decides the
exit code, not what the agent says.
"""

import http.client
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
PROJECT = HERE / "project"
PROMPT = "A test of this project fails. Find out why and fix the code, then run the tests again and report."
TESTS = ["python3", "-m", "unittest"]
# What the scripted model expects to receive from the gateway; with LIVE=1 the real key takes its place.
SCRIPTED_KEY = "sk-ant-demo-not-a-real-key"
BOLD, DIM, RED, GREEN, PLAIN = (
    ("\033[1m", "\033[2m", "\033[31m", "\033[32m", "\033[0m") if sys.stdout.isatty() else ("",) * 5
)


def main():
    wardian = os.environ.get("WARDIAN", str(HERE.parent / "target" / "release" / "wardian"))
    script = HERE / f"{os.environ.get('SCRIPT', 'fix')}.json"
    live = os.environ.get("LIVE") == "1"
    key = os.environ.get("ANTHROPIC_API_KEY", "") if live else SCRIPTED_KEY
    if live and not key:
        sys.exit("LIVE=1 needs ANTHROPIC_API_KEY in the environment")
    if not live and not script.exists():
        sys.exit(f"no such script: {script}")
    data = pathlib.Path(os.environ.get("DEMO_DIR", HERE.parent / ".wardian" / "demo")).resolve()
    shutil.rmtree(data, ignore_errors=True)
    data.mkdir(parents=True, mode=0o700)

    say(f"{BOLD}Before{PLAIN}: the project's tests in a fresh sandbox")
    if tests_pass(wardian, data / "before", PROJECT):
        sys.exit("the tests pass before the agent began: there is nothing to fix")

    servers = []
    try:
        if live:
            upstream = "https://api.anthropic.com"
        else:
            model = start([wardian, "model", "--script", str(script), "--listen", "127.0.0.1:0"], {"WARDIAN_MODEL_KEY": key}, data / "model.log")
            servers.append(model)
            upstream = ready(model, data / "model.log")["base_url"]
        server = start(
            # One user, so that the demo also works where no control groups are to be had: without root.
            [wardian, "serve", "--listen", "127.0.0.1:0", "--data-dir", str(data / "server"), "--upstream", upstream, "--allow-no-cgroup"],
            {"ANTHROPIC_API_KEY": key},
            data / "server.log",
        )
        servers.append(server)
        address = ready(server, data / "server.log")["listening"]
        api_key = subprocess.run(
            [wardian, "keys", "create", "--data-dir", str(data / "server"), "--name", "demo", "--scope", "admin"],
            check=True, capture_output=True, text=True,
        ).stdout.strip()

        say(f"\n{BOLD}Run{PLAIN}: POST http://{address}/v1/x/run   {DIM}{PROMPT}{PLAIN}")
        result = run(address, api_key)
        workspace = data / "server" / "sessions" / result["session_id"] / "workspace"
        say(f"\n{BOLD}Result{PLAIN}: {result['status']} in {result['num_turns']} turns, {dollars(result['cost_usd'])}")
        for change in result["files_changed"]:
            say(f"  {change['kind']:<9} {change['path']}")
        say(f"  session    {result['session_id']}\n  workspace  {workspace}")
        for row in usage(address, api_key, result["session_id"]):
            say(f"  usage      {row['model']}: {row['requests']} requests, {tokens(row)}, {dollars(row['cost_usd'])}")
    finally:
        for process in reversed(servers):
            process.terminate()
            process.wait(20)

    say(f"\n{BOLD}After{PLAIN}: the project's tests, as they were shipped, in a fresh sandbox")
    fixed = tests_pass(wardian, data / "after", workspace)
    if not fixed:
        say(f"{RED}The tests still fail: the agent did not fix the project.{PLAIN}")
        sys.exit(1)
    if result["status"] != "completed":
        say(f"{RED}The tests pass, but the run ended as {result['status']}.{PLAIN}")
        sys.exit(1)
    say(f"{GREEN}The agent fixed the project.{PLAIN}")


def say(text):
    print(text, flush=True)


def dollars(amount):
    return f"${amount:.9f}".rstrip("0").rstrip(".")


def tests_pass(wardian, scratch, source):
    """Runs the shipped tests against the code of `source`, in a copy, in a new sandbox."""
    shutil.copytree(source, scratch, symlinks=True)
    shutil.rmtree(scratch / "tests", ignore_errors=True)
    shutil.copytree(PROJECT / "tests", scratch / "tests")
    done = subprocess.run(
        [wardian, "sandbox", "exec", "--workspace", str(scratch), "--timeout", "60", "--", *TESTS],
        capture_output=True, text=True,
    )
    show_end_of(done.stdout + done.stderr, "  ")
    if done.returncode not in (0, 1):
        sys.exit(f"the sandbox could not run the tests (status {done.returncode}): {done.stderr.strip()}")
    return done.returncode == 0


def start(command, extra, log):
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=open(log, "wb"), text=True, env={**os.environ, **extra})


def ready(process, log):
    """Waits for the line with which a server says that it listens."""
    line = process.stdout.readline()
    if not line:
        status = process.wait()
        sys.exit(f"`wardian {process.args[1]}` ended with status {status} before it was ready:\n{log.read_text()}")
    return json.loads(line)


def run(address, api_key):
    files = [
        {"path": str(path.relative_to(PROJECT)), "content": path.read_text()}
        for path in sorted(PROJECT.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    ]
    body = {"prompt": PROMPT, "files": files, "user": "demo", "stream": True}
    connection = http.client.HTTPConnection(address, timeout=600)
    connection.request("POST", "/v1/x/run", json.dumps(body), {"x-api-key": api_key, "content-type": "application/json"})
    reply = connection.getresponse()
    if reply.status != 200:
        sys.exit(f"the server answered {reply.status}: {reply.read().decode()}")
    spent = None
    for event, payload in events(reply):
        if event == "message":
            show_message(payload)
            # Now that the tool has run, the reply that called it is on the books.
            if payload.get("type") == "user" and spent != (spent := usage(address, api_key, payload["session_id"])):
                for row in spent:
                    say(f"    {DIM}so far {dollars(row['cost_usd'])}: {tokens(row)}{PLAIN}")
        elif event == "run_result":
            return payload
        elif event == "error":
            sys.exit(f"the run failed: {json.dumps(payload)}")
    sys.exit("the stream ended without a result")


def events(reply):
    event, data = "", []
    for raw in reply:
        line = raw.decode().rstrip("\n")
        if line.startswith("event:"):
            event = line[6:].strip()
        elif line.startswith("data:"):
            data.append(line[5:].strip())
        elif not line and data:
            yield event, json.loads("\n".join(data))
            event, data = "", []


def show_message(message):
    kind = message.get("type")
    if kind == "system" and message.get("subtype") == "init":
        say(f"  {DIM}model {message.get('model')}, tools {', '.join(message.get('tools', []))}{PLAIN}")
    elif kind == "assistant":
        for block in message["message"]["content"]:
            if block["type"] == "text":
                say(f"  {block['text']}")
            elif block["type"] == "tool_use":
                asked = block["input"].get("command") or block["input"].get("file_path") or block["input"].get("pattern")
                say(f"  {BOLD}{block['name']}{PLAIN} {asked}")
    elif kind == "user":
        for block in message["message"]["content"]:
            if block.get("type") == "tool_result":
                text = block.get("content")
                show_end_of(text if isinstance(text, str) else json.dumps(text), "    ")


def show_end_of(text, indent):
    lines = [line for line in text.splitlines() if line.strip()]
    for line in lines[-4:]:
        say(f"{indent}{DIM}{line[:110]}{PLAIN}")


def tokens(usage):
    names = {"input_tokens": "in", "cache_read_input_tokens": "cached", "cache_creation_input_tokens": "written", "output_tokens": "out"}
    return ", ".join(f"{usage[name]} {short}" for name, short in names.items() if usage.get(name))


def usage(address, api_key, session_id):
    """What the gateway has counted for the session, a row for each model."""
    connection = http.client.HTTPConnection(address, timeout=30)
    connection.request("GET", f"/v1/x/usage?session={session_id}&group_by=model", headers={"x-api-key": api_key})
    return json.loads(connection.getresponse().read())["data"]


if __name__ == "__main__":
    started = time.monotonic()
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
    say(f"{DIM}{time.monotonic() - started:.1f} s{PLAIN}")
