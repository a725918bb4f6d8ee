#!/usr/bin/env python3
"""Asks a real Prometheus every question of the dashboard, about a real server after some traffic.

    deploy/grafana/check.py [FOLDER WITH wardian]      (default: target/release; a debug build does, too)

Fails where a question is an error, and where its answer is empty. Prometheus is found in PROMETHEUS or on the path; else
Debian's package is unpacked, not installed, into target/prometheus.
"""

import json
import math
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
DASHBOARD = ROOT / "deploy/grafana/wardian.json"
# What Grafana puts in place of its variables.
VARIABLES = {"$instance": ".*", "$__rate_interval": "30s", "$__range": "5m"}
# Questions whose answer may be empty: nothing has to wait for a place on a server with little to do.
QUIET = {"wardian_queue_wait_duration_seconds"}
PATIENCE = 90
REPLIES = [
    {"match": {"tool_result_contains": "marker"}, "repeat": True, "model": "claude-haiku-4-5", "text": "Done.",
     "usage": {"input_tokens": 20, "output_tokens": 10, "cache_read_input_tokens": 30}},
    {"match": {"last_text_contains": "break"}, "repeat": True,
     "error": {"status": 400, "type": "invalid_request_error", "message": "no"}},
    {"repeat": True, "model": "claude-haiku-4-5",
     "tool_use": [{"name": "Bash", "input": {"command": "echo marker; exit 1"}}],
     "usage": {"input_tokens": 100, "output_tokens": 10}},
]


# Asks the gateway for a route that it does not have.
REFUSED = r"""exec 3<>/dev/tcp/127.0.0.1/${ANTHROPIC_BASE_URL##*:}
printf 'GET /nowhere HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n' >&3; cat <&3"""


def prometheus():
    found = os.environ.get("PROMETHEUS") or shutil.which("prometheus")
    if found:
        return found
    folder = ROOT / "target/prometheus"
    binary = folder / "usr/bin/prometheus"
    if not binary.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["apt-get", "download", "prometheus"], cwd=folder, check=True, stdout=subprocess.DEVNULL)
        package = next(folder.glob("prometheus_*.deb"))
        subprocess.run(["dpkg-deb", "-x", package, folder], check=True)
        package.unlink()
    return str(binary)


def questions():
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel.get("targets", []):
            asked = target["expr"]
            for name, value in VARIABLES.items():
                asked = asked.replace(name, value)
            assert "$" not in asked, f"a variable that is not known: {asked}"
            yield panel["title"], asked


def call(url, body=None, key=None):
    headers = {"content-type": "application/json"} | ({"x-api-key": key} if key else {})
    data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=PATIENCE) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def traffic(base, key):
    """Runs: with a tool that fails, that the model refuses, that the gateway refuses; and a route that is not there."""
    refused = {"prompt": "refuse", "command": ["bash", "-c", REFUSED]}
    for body in ({"prompt": "work", "stream": True}, {"prompt": "break"}, refused):
        call(f"{base}/v1/x/run", body, key)
    call(f"{base}/v1/x/usage", key=key)
    call(f"{base}/nowhere", key=key)


def ask(base, expression):
    """The numbers that answer it; an error raises."""
    status, body = call(f"{base}/api/v1/query?" + urllib.parse.urlencode({"query": expression}))
    answer = json.loads(body)
    if status != 200 or answer["status"] != "success":
        raise ValueError(answer.get("error", body))
    values = [float(sample["value"][1]) for sample in answer["data"]["result"]]
    return [value for value in values if not math.isnan(value)]


def unanswered(base):
    wrong = []
    for title, expression in questions():
        try:
            if not ask(base, expression) and not any(name in expression for name in QUIET):
                wrong.append(f"{title}: nothing for {expression}")
        except ValueError as error:
            wrong.append(f"{title}: {error}: {expression}")
    return wrong


def main():
    binaries = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "target/release")
    binary = prometheus()
    processes = []
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)

        def start(arguments, **more):
            log = open(scratch / f"log-{len(processes)}", "wb")
            process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=log, **more)
            processes.append(process)
            return process

        try:
            script = scratch / "replies.json"
            script.write_text(json.dumps({"replies": REPLIES}))
            wardian = str(binaries / "wardian")
            model = start([wardian, "model", "--script", str(script), "--listen", "127.0.0.1:0"])
            upstream = json.loads(model.stdout.readline())["base_url"]
            data = str(scratch / "data")
            server = start(
                [wardian, "serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--allow-no-cgroup",
                 "--data-dir", data, "--upstream", upstream],
                env=os.environ | {"ANTHROPIC_API_KEY": "sk-ant-check"},
            )
            ready = json.loads(server.stdout.readline())
            create = [wardian, "keys", "create", "--data-dir", data]
            key = subprocess.run(create, check=True, capture_output=True, text=True).stdout.strip()
            config = scratch / "prometheus.yml"
            config.write_text(
                "global: {scrape_interval: 1s}\nscrape_configs:\n  - job_name: wardian\n"
                f"    static_configs: [{{targets: ['{ready['admin']}']}}]\n"
            )
            # A port that was free a moment ago.
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                address = "127.0.0.1:%d" % probe.getsockname()[1]
            start([binary, f"--config.file={config}", f"--storage.tsdb.path={scratch / 'tsdb'}",
                   f"--web.listen-address={address}"])
            deadline, wrong = time.monotonic() + PATIENCE, ["nothing was asked"]
            while wrong and time.monotonic() < deadline:
                # Between two scrapes there must be something to see.
                traffic(ready["base_url"], key)
                time.sleep(1)
                try:
                    wrong = unanswered(f"http://{address}")
                except urllib.error.URLError as error:
                    wrong = [f"Prometheus does not answer yet: {error}"]
            for line in wrong:
                print(line)
            count = len(list(questions()))
            print(f"dashboard: {count - len(wrong)} of {count} questions answered")
            return 1 if wrong else 0
        finally:
            for process in reversed(processes):
                process.send_signal(signal.SIGTERM)
            for process in processes:
                process.wait()


if __name__ == "__main__":
    sys.exit(main())
