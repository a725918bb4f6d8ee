"""What every scenario in Python needs: a session with a scripted model behind it, and a pool that runs scenarios at once."""

import asyncio
import contextlib
import hashlib
import inspect
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time
import traceback

from claude_agent_sdk import (
    AssistantMessage,
    ClaudeAgentOptions,
    ClaudeSDKClient,
    ResultMessage,
    StreamEvent,
    SystemMessage,
    ToolUseBlock,
    UserMessage,
    query,
)

MODEL = "claude-sonnet-5-5"
KEY = "sk-ant-conformance-key"
TIMEOUT_SECONDS = int(os.environ.get("TIMEOUT_MS", 90_000)) / 1000
# One that is known to fail may hang: it gets less time.
EXPECTED = json.loads(os.environ.get("EXPECTED", "[]"))
EXPECTED_TIMEOUT_SECONDS = 6
LAB = {"command": "node", "args": [str(pathlib.Path(__file__).with_name("lab.mjs"))]}


class Session:
    """A folder, a home, a model server, and the options that point the SDK at the agent under test."""

    def __init__(self, cwd, home, url, log, options):
        self.cwd, self.home, self._log = cwd, home, log
        self.stderr = []
        env = {
            "HOME": str(home),
            "ANTHROPIC_BASE_URL": url,
            "ANTHROPIC_API_KEY": KEY,
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "IS_SANDBOX": "1",
            **options.pop("env", {}),
        }
        defaults = {"cwd": str(cwd), "model": MODEL, "setting_sources": [], "stderr": self.stderr.append}
        self.options = ClaudeAgentOptions(cli_path=os.environ["AGENT"], env=env, **{**defaults, **options})

    def calls(self):
        """The Messages API calls, without the one-token probes."""
        requests = [json.loads(line) for line in self._log.read_text().splitlines()]
        return [one for one in requests if one["path"] == "/v1/messages" and one["body"]["max_tokens"] != 1]

    def bodies(self):
        return [call["body"] for call in self.calls()]

    def has(self, name):
        return (self.cwd / name).exists()

    async def turn(self, prompt="go"):
        """Runs prompts to their end: all messages, and what the SDK raised, if it did."""
        messages, error = [], None
        try:
            async for message in query(prompt=prompt, options=self.options):
                messages.append(message)
        except Exception as caught:
            error = caught
        return messages, error

    async def ok(self, prompt="go"):
        """A turn that must end with a result: all messages and the result."""
        messages, error = await self.turn(prompt)
        assert of(ResultMessage, messages), (messages, error, self.stderr)
        return messages, result_of(messages)

    @contextlib.asynccontextmanager
    async def client(self):
        async with ClaudeSDKClient(self.options) as client:

            async def say(prompt):
                await client.query(prompt)
                return [message async for message in client.receive_response()]

            client.say = say
            yield client


@contextlib.contextmanager
def session(replies=({"text": "Done."},), files=None, **options):
    """`replies`, `files` and options may be functions of the session's folders."""
    with contextlib.ExitStack() as stack:
        cwd, home, place = (
            pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="wardian-", ignore_cleanup_errors=True))).resolve()
            for _ in range(3)
        )
        given = lambda value: value(cwd, home) if callable(value) and value.__name__ == "<lambda>" else value
        for name, content in (given(files) or {}).items():
            path = home / name[5:] if name.startswith("home/") else cwd / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content if isinstance(content, str) else json.dumps(content))
        script, log = place / "script.json", place / "got.jsonl"
        script.write_text(json.dumps({"replies": list(given(replies))}))
        log.touch()
        places = {"SCRIPT": str(script), "LOG": str(log)}
        argv = [places.get(arg, arg) for arg in json.loads(os.environ["MODEL_COMMAND"])]
        server = stack.enter_context(subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL))
        stack.callback(server.kill)
        url = json.loads(server.stdout.readline())["base_url"]
        yield Session(cwd, home, url, log, {name: given(value) for name, value in options.items()})


def kind(message):
    match message:
        case SystemMessage():
            return f"system/{message.subtype}"
        case ResultMessage():
            return f"result/{message.subtype}"
        case AssistantMessage():
            return "assistant"
        case UserMessage():
            return "user"
        case StreamEvent():
            return message.event["type"]
    return type(message).__name__


def of(kind, messages):
    return [message for message in messages if isinstance(message, kind)]


def result_of(messages):
    return of(ResultMessage, messages)[-1]


def init_of(messages):
    return next(message.data for message in of(SystemMessage, messages) if message.subtype == "init")


def calls_in(messages):
    blocks = (block for message in of(AssistantMessage, messages) for block in message.content)
    return [block for block in blocks if isinstance(block, ToolUseBlock)]


def call(name, **arguments):
    return {"name": name, "input": arguments}


def bash(command, **more):
    return call("Bash", command=command, **more)


def text(content):
    return content if isinstance(content, str) else "\n".join(block.get("text", "") for block in content)


def results_in(body):
    """The tool results that a request to the model carries at its end."""
    last = max(index for index, message in enumerate(body["messages"]) if message["role"] == "assistant")
    blocks = [block for message in body["messages"][last + 1 :] for block in message["content"] if isinstance(block, dict)]
    return [block for block in blocks if block["type"] == "tool_result"]


def told(body):
    """All that the model was told in a request, as one text."""
    return json.dumps([body.get("system"), body["messages"]], ensure_ascii=False)


def nanos(usd):
    return round(usd * 1e9)


def user(prompt, **more):
    message = {"role": "user", "content": prompt}
    return {"type": "user", "session_id": "", "message": message, "parent_tool_use_id": None, **more}


async def stream(*prompts):
    for prompt in prompts:
        yield user(prompt)


_scenarios = []


def scenario(name, *rows):
    """Registers an async function as a scenario that shows these rows of the reference."""

    def register(function):
        digest = hashlib.sha256(inspect.getsource(function).encode()).hexdigest()[:12]
        _scenarios.append({"id": f"py: {name}", "rows": list(rows), "digest": digest, "function": function})
        return function

    return register


async def _run(one, turn):
    outcome = {name: one[name] for name in ("id", "rows", "digest")}
    async with turn:
        started = time.monotonic()
        limit = min(EXPECTED_TIMEOUT_SECONDS, TIMEOUT_SECONDS) if one["id"] in EXPECTED else TIMEOUT_SECONDS
        try:
            await asyncio.wait_for(one["function"](), limit)
            outcome["pass"] = True
        except Exception:
            outcome |= {"pass": False, "error": traceback.format_exc(limit=-3)[:4000]}
        outcome["ms"] = round((time.monotonic() - started) * 1000)
    print(json.dumps(outcome), flush=True)


async def _main(chosen):
    turn = asyncio.Semaphore(int(os.environ.get("JOBS", 4)) // 2 or 1)
    await asyncio.gather(*(_run(one, turn) for one in chosen))


def main():
    """Runs them, half of `JOBS` at a time (the others are TypeScript's); one line of JSON each, in the order they end."""
    chosen = [one for one in _scenarios if re.search(os.environ.get("ONLY", ""), one["id"])]
    asyncio.run(_main(chosen))
    sys.exit(0)
