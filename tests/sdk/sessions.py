"""The stock client (PyPI anthropic) against `wardian serve`: agents, environments, sessions, events, files."""

import asyncio
import contextlib
import json
import os
import pathlib
import subprocess
import tempfile

import anthropic
from lib import KEY, main, model, scenario

WARDIAN = os.environ["WARDIAN"]
TOOLSET = "agent_toolset_20260401"


def message(words):
    return {"type": "user.message", "content": [{"type": "text", "text": words}]}


def bash(command):
    return {"tool_use": [{"name": "Bash", "input": {"command": command}}]}


class Server:
    """`wardian serve` with a scripted model behind it."""

    def __init__(self, folder, config, upstream):
        self._folder = pathlib.Path(folder)
        self._data = self._folder / "data"
        (self._folder / "wardian.toml").write_text(config)
        self._upstream = upstream
        self.start()
        self._admin = self.key("--scope", "admin")

    def start(self):
        argv = [WARDIAN, "serve", "--allow-no-cgroup", "--config", self._folder / "wardian.toml"]
        argv += ["--listen", "127.0.0.1:0", "--data-dir", self._data, "--upstream", self._upstream]
        libexec = str(pathlib.Path(os.environ["WARDIAN_AGENT"]).parent)
        env = {**os.environ, "ANTHROPIC_API_KEY": KEY, "WARDIAN_LIBEXEC_DIR": libexec}
        with open(self._folder / "server.log", "ab") as log:
            self._process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=log, env=env)
        line = self._process.stdout.readline()
        assert line, (self._folder / "server.log").read_text()
        self._url = json.loads(line)["base_url"]

    def kill(self):
        self._process.kill()
        self._process.communicate()

    def key(self, *more):
        argv = [WARDIAN, "keys", "create", "--data-dir", self._data, "--name", "sdk", *more]
        return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()

    def client(self, key=None, kind=anthropic.AsyncAnthropic):
        return kind(base_url=self._url, api_key=key or self._admin, max_retries=0)


@contextlib.contextmanager
def serve(replies, config=""):
    with model({"replies": replies}) as fake, tempfile.TemporaryDirectory(prefix="wardian-sdk-") as folder:
        server = Server(folder, config, fake.url)
        try:
            yield server
        finally:
            server.kill()


async def session(api, tools=({"type": TOOLSET},), **more):
    agent = await api.beta.agents.create(name="helper", model="claude-haiku-4-5", tools=list(tools))
    environment = await api.beta.environments.create(name="plain")
    return await api.beta.sessions.create(agent=agent.id, environment_id=environment.id, **more)


async def until(stream, fits=lambda event: event.type == "session.status_idle"):
    events = []
    async for event in stream:
        events.append(event)
        if fits(event):
            await stream.close()
            return events
    raise AssertionError(f"the stream ended: {[event.type for event in events]}")


async def turn(api, id, *events):
    stream = await api.beta.sessions.events.stream(id)
    await api.beta.sessions.events.send(id, events=list(events))
    return await until(stream)


async def everything(pages):
    return [item async for item in pages]


def fold(events):
    """What a reader of the stream makes of it: each event at its first place, as it is at last."""
    return list({event.id: event for event in events}.values())


def of_type(events, kind):
    return [event for event in events if event.type == kind]


async def failure(awaitable):
    try:
        await awaitable
    except anthropic.APIError as error:
        return error
    raise AssertionError("it did not fail")


@scenario("a session from its agent to its last event")
async def whole():
    replies = [
        {"text": "I look.", **bash("echo from the sandbox")},
        {"match": {"tool_result_contains": "from the sandbox"}, "text": "Done."},
    ]
    with serve(replies) as server:
        api = server.client()
        one = await session(api, title="first", metadata={"project": "x"})
        assert (one.type, one.status, one.title, one.metadata) == ("session", "idle", "first", {"project": "x"})
        assert (one.agent.version, one.agent.name, one.vault_ids) == (1, "helper", [])
        events = await turn(api, one.id, message("Look around."))
        folded = fold(events)
        assert folded[0].type == "user.message" and events[0].processed_at is None and folded[0].processed_at
        (call,) = of_type(folded, "agent.tool_use")
        (result,) = of_type(folded, "agent.tool_result")
        assert (call.name, call.evaluated_permission, result.tool_use_id) == ("bash", "allow", call.id)
        assert "from the sandbox" in result.content[0].text
        assert [event.content[0].text for event in of_type(folded, "agent.message")] == ["I look.", "Done."]
        assert folded[-1].stop_reason.type == "end_turn"
        listed = await everything(api.beta.sessions.events.list(one.id, limit=3))
        assert [event.to_dict() for event in listed] == [event.to_dict() for event in folded]
        some = await everything(api.beta.sessions.events.list(one.id, types=["agent.message", "user.message"], order="desc"))
        assert [event.type for event in some] == ["agent.message", "agent.message", "user.message"]
        after = await api.beta.sessions.retrieve(one.id)
        assert (after.usage.input_tokens, after.usage.list_cost.amount, after.usage.list_cost.currency) == (20, "1", "USD")
        assert after.usage.cache_creation.ephemeral_5m_input_tokens == 0


@scenario("the synchronous client")
async def synchronous():
    with serve([{"echo": True, "repeat": True}]) as server:
        api = server.client(kind=anthropic.Anthropic)
        agent = api.beta.agents.create(name="helper", model="claude-haiku-4-5")
        environment = api.beta.environments.create(name="plain")
        one = api.beta.sessions.create(agent={"type": "agent", "id": agent.id, "version": 1}, environment_id=environment.id)
        with api.beta.sessions.events.stream(one.id) as stream:
            api.beta.sessions.events.send(one.id, events=[message("hello")])
            for event in stream:
                if event.type == "session.status_idle":
                    break
        said = [event for event in api.beta.sessions.events.list(one.id) if event.type == "agent.message"]
        assert said[0].content[0].text == "hello"
        assert [found.id for found in api.beta.sessions.list(limit=1)] == [one.id]


@scenario("lists are paged both ways")
async def paged():
    with serve([]) as server:
        api = server.client()
        first = await session(api)
        make = {"agent": first.agent.id, "environment_id": first.environment_id}
        ids = [first.id] + [(await api.beta.sessions.create(**make)).id for _ in range(4)]
        found = [one.id for one in await everything(api.beta.sessions.list(limit=2, order="asc"))]
        assert found == ids, (found, ids)
        found = await everything(api.beta.sessions.list(limit=2, agent_id=first.agent.id, statuses=["idle", "running"]))
        assert [one.id for one in found] == ids[::-1]
        second = await (await api.beta.sessions.list(limit=2)).get_next_page()
        back = await api.beta.sessions.list(limit=2, page=second.prev_page)
        assert [one.id for one in back.data] == ids[:2:-1]
        assert await everything(api.beta.sessions.list(created_at_lt=first.created_at)) == []


@scenario("errors have their own classes")
async def errors():
    with serve([]) as server:
        api = server.client()
        one = await session(api)
        make = {"agent": one.agent.id, "environment_id": one.environment_id}
        same = {"extra_headers": {"idempotency-key": "same"}}
        made = await api.beta.sessions.create(**make, title="a", **same)
        assert (await api.beta.sessions.create(**make, title="a", **same)).id == made.id
        sessions = api.beta.sessions
        cases = [
            (sessions.retrieve("sesn_00000000000000000000000000"), anthropic.NotFoundError, "no session"),
            (sessions.create(**make, extra_body={"titel": "x"}), anthropic.BadRequestError, "did you mean `title`"),
            (sessions.create(**make, title="b", **same), anthropic.UnprocessableEntityError, "Idempotency-Key"),
            (sessions.events.send(one.id, events=[]), anthropic.BadRequestError, "1 to 50"),
            (sessions.list(page="nonsense"), anthropic.BadRequestError, "page"),
            (server.client("sk-wardian-wrong").beta.sessions.list(), anthropic.AuthenticationError, "API key"),
            (server.client(server.key("--scope", "read")).beta.sessions.create(**make), anthropic.PermissionDeniedError, "scope"),
            (api.beta.agents.update(one.agent.id, version=7, name="late"), anthropic.ConflictError, "version"),
        ]
        for awaitable, kind, words in cases:
            error = await failure(awaitable)
            assert isinstance(error, kind), (kind, error)
            assert words in str(error), error
            assert error.request_id.startswith("req_")


@scenario("archived, changed and deleted")
async def archived():
    with serve([]) as server:
        api = server.client()
        budget = {"type": "limit", "max_list_cost": {"amount": "100", "currency": "USD"}}
        one = await session(api, title="a", metadata={"keep": "1", "drop": "2"}, budget=budget)
        changed = await api.beta.sessions.update(one.id, title=None, metadata={"drop": None, "more": "3"})
        assert (changed.title, changed.metadata, changed.budget.max_list_cost.amount) == (None, {"keep": "1", "more": "3"}, "100")
        assert (await api.beta.sessions.archive(one.id)).archived_at is not None
        assert await everything(api.beta.sessions.list()) == []
        deleted = await api.beta.sessions.delete(one.id)
        assert (deleted.id, deleted.type) == (one.id, "session_deleted")
        assert isinstance(await failure(api.beta.sessions.retrieve(one.id)), anthropic.NotFoundError)


@scenario("a tool that is asked about: allowed, then denied, with the server killed between")
async def asked():
    replies = [
        {"match": {"last_text_contains": "first"}, **bash("echo allowed-ran")},
        {"match": {"tool_result_contains": "allowed-ran"}, "text": "It ran."},
        {"match": {"last_text_contains": "second"}, **bash("echo never-ran")},
        {"repeat": True, "text": "I see."},
    ]
    ask = {"type": TOOLSET, "default_config": {"permission_policy": {"type": "always_ask"}}}
    with serve(replies) as server:
        api = server.client()
        one = await session(api, tools=[ask])
        for words, answer in [("first", {"result": "allow"}), ("second", {"result": "deny", "deny_message": "no"})]:
            events = fold(await turn(api, one.id, message(words)))
            call = of_type(events, "agent.tool_use")[-1]
            assert (call.evaluated_permission, events[-1].stop_reason.event_ids) == ("ask", [call.id])
            if words == "second":
                server.kill()
                server.start()
                api = server.client()
            events = fold(await turn(api, one.id, {"type": "user.tool_confirmation", "tool_use_id": call.id, **answer}))
            assert events[-1].stop_reason.type == "end_turn"
        listed = await everything(api.beta.sessions.events.list(one.id))
        results = "".join(str(event.content) for event in of_type(listed, "agent.tool_result"))
        assert "allowed-ran" in results and "never-ran" not in results


@scenario("a session goes on after its sandbox was given back")
async def resumed():
    replies = [
        {"match": {"last_text_contains": "write"}, **bash("echo kept > note; echo written")},
        {"match": {"tool_result_contains": "written"}, "text": "Written."},
        {"match": {"last_text_contains": "read"}, **bash("cat note")},
        {"match": {"tool_result_contains": "kept"}, "text": "Read."},
    ]
    with serve(replies, "[sessions]\nidle_timeout_seconds = 1\n") as server:
        api = server.client()
        one = await session(api)
        await turn(api, one.id, message("write"))
        # Nothing tells a client that the sandbox is gone; it is, a second after the turn.
        await asyncio.sleep(2.5)
        events = fold(await turn(api, one.id, message("read")))
        assert of_type(events, "agent.message")[-1].content[0].text == "Read."


@scenario("previews, and a stream that goes on where it was")
async def previews():
    with serve([{"text": "0123456789", "chunk_bytes": 4}]) as server:
        api = server.client()
        one = await session(api)
        stream = await api.beta.sessions.events.stream(one.id, event_deltas=["agent.message"])
        await api.beta.sessions.events.send(one.id, events=[message("hi")])
        events = await until(stream)
        (said,) = of_type(events, "agent.message")
        deltas = [event.delta.content.text for event in of_type(events, "event_delta") if event.event_id == said.id]
        assert "".join(deltas) == "0123456789", deltas
        rows = [event for event in events if not event.type.startswith("event_")]
        again = await api.beta.sessions.events.stream(one.id, extra_headers={"last-event-id": "2"})
        replayed = await until(again)
        assert [event.to_dict() for event in replayed] == [event.to_dict() for event in rows[2:]]


@scenario("an interrupt ends a turn")
async def interrupted():
    with serve([bash("echo begun; sleep 60"), {"repeat": True, "text": "Fine."}]) as server:
        api = server.client()
        one = await session(api)
        stream = await api.beta.sessions.events.stream(one.id)
        await api.beta.sessions.events.send(one.id, events=[message("sleep")])
        await until(stream, lambda event: event.type == "agent.tool_use")
        events = fold(await turn(api, one.id, {"type": "user.interrupt"}))
        assert events[-1].stop_reason.type == "end_turn"
        events = fold(await turn(api, one.id, message("hello")))
        assert of_type(events, "agent.message")[-1].content[0].text == "Fine."


main("pypi sessions")
