"""What every scenario in Python needs: a model server with a script, and a report with one line a scenario."""

import asyncio
import contextlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import traceback

TIMEOUT_SECONDS = 20
KEY = "sk-ant-conformance-key"


class Model:
    """A model server that runs a script."""

    def __init__(self, url, log):
        self.url = url
        self._log = log

    def requests(self):
        """What it got so far."""
        return [json.loads(line) for line in self._log.read_text().splitlines()]


@contextlib.contextmanager
def model(script):
    """Starts a model server with this script, and ends it."""
    with tempfile.TemporaryDirectory(prefix="wardian-sdk-") as folder:
        file = pathlib.Path(folder, "script.json")
        file.write_text(json.dumps(script))
        log = pathlib.Path(folder, "got.jsonl")
        log.touch()
        places = {"SCRIPT": str(file), "LOG": str(log)}
        argv = [places.get(arg, arg) for arg in json.loads(os.environ["MODEL_COMMAND"])]
        with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
            try:
                yield Model(json.loads(server.stdout.readline())["base_url"], log)
            finally:
                server.terminate()


_scenarios = []


def scenario(name):
    """Registers an async function as a scenario."""

    def register(function):
        _scenarios.append((name, function))
        return function

    return register


def main(group):
    """Runs them all in order; prints a line each and the sum; ends the process."""
    only = os.environ.get("ONLY", "")
    passed = failed = 0
    for name, function in _scenarios:
        if only not in name:
            continue
        try:
            asyncio.run(asyncio.wait_for(function(), TIMEOUT_SECONDS))
            passed += 1
            print(f"ok      {group}: {name}", flush=True)
        except Exception:
            failed += 1
            text = "".join(f"        {line}\n" for line in traceback.format_exc(limit=-3).splitlines())
            print(f"FAILED  {group}: {name}\n{text}", end="", flush=True)
    print(f"{passed} passed, {failed} failed", flush=True)
    sys.exit(0 if failed == 0 else 1)
