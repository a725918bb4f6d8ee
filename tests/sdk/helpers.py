"""The session helpers of the stock Python Agent SDK read, fork and mark the sessions that wardian-agent keeps."""

import contextlib
import os
import pathlib
import tempfile
import uuid

from claude_agent_sdk import (
    ClaudeAgentOptions,
    ResultMessage,
    delete_session,
    fork_session,
    get_session_info,
    get_session_messages,
    list_sessions,
    query,
    rename_session,
    tag_session,
)

from lib import KEY, main, model, scenario


class Kept:
    """A place to work in and one to keep sessions in."""

    def __init__(self, cwd, home, server):
        self.cwd, self._home, self._server = cwd, home, server

    async def ask(self, prompt, **more):
        """Runs a prompt to its end: its result."""
        env = {"PATH": os.environ["PATH"], "HOME": self._home, "ANTHROPIC_BASE_URL": self._server.url}
        options = ClaudeAgentOptions(
            cli_path=os.environ["WARDIAN_AGENT"],
            cwd=self.cwd,
            model="claude-sonnet-5-5",
            setting_sources=[],
            allowed_tools=["Bash"],
            env={**env, "ANTHROPIC_API_KEY": KEY, "CLAUDE_CONFIG_DIR": os.environ["CLAUDE_CONFIG_DIR"]},
            **more,
        )
        messages = [message async for message in query(prompt=prompt, options=options)]
        return next(message for message in messages if isinstance(message, ResultMessage))

    def texts(self, call):
        """What was said in a model call."""
        bodies = [request["body"] for request in self._server.requests() if request["path"] == "/v1/messages"]
        blocks = [block for message in bodies[call]["messages"] for block in message["content"]]
        return [block.get("text", block["type"]) for block in blocks]


@contextlib.contextmanager
def place(replies):
    """The helpers look there too, in this process."""
    with tempfile.TemporaryDirectory(prefix="wardian-sdk-") as folder, model({"replies": replies}) as server:
        cwd, home = pathlib.Path(folder, "work"), pathlib.Path(folder, "home")
        cwd.mkdir()
        home.mkdir()
        before = os.environ.get("CLAUDE_CONFIG_DIR")
        os.environ["CLAUDE_CONFIG_DIR"] = str(home / ".claude")
        try:
            yield Kept(str(cwd), str(home), server)
        finally:
            os.environ.pop("CLAUDE_CONFIG_DIR")
            if before is not None:
                os.environ["CLAUDE_CONFIG_DIR"] = before


@scenario("a session is listed, named, tagged and deleted")
async def _():
    with place([{"text": "One."}, {"text": "Two."}]) as kept:
        identity = str(uuid.uuid4())
        await kept.ask("first", session_id=identity)
        await kept.ask("second", resume=identity)
        info = get_session_info(identity, directory=kept.cwd)
        assert (info.summary, info.first_prompt, info.git_branch) == ("second", "first", "HEAD"), info
        rename_session(identity, "A name", directory=kept.cwd)
        tag_session(identity, "blue", directory=kept.cwd)
        [listed] = list_sessions(directory=kept.cwd)
        assert (listed.custom_title, listed.tag) == ("A name", "blue"), listed
        delete_session(identity, directory=kept.cwd)
        assert list_sessions(directory=kept.cwd) == []


@scenario("the SDK forks a session, and the fork goes on")
async def _():
    call = {"name": "Bash", "input": {"command": "echo hello"}}
    replies = [{"text": "I run it.", "tool_use": [call]}, {"text": "One."}, {"text": "Two."}, {"text": "Three."}]
    with place([*replies, {"text": "Four."}]) as kept:
        identity = str(uuid.uuid4())
        await kept.ask("first", session_id=identity)
        await kept.ask("second", resume=identity)
        fork = fork_session(identity, directory=kept.cwd).session_id
        result = await kept.ask("third", resume=fork)
        assert (result.result, result.session_id) == ("Three.", fork), result
        assert kept.texts(3)[-4:] == ["One.", "second", "Two.", "third"], kept.texts(3)
        messages = get_session_messages(identity, directory=kept.cwd)
        part = fork_session(identity, directory=kept.cwd, up_to_message_id=messages[4].uuid).session_id
        await kept.ask("other", resume=part)
        assert kept.texts(4)[-2:] == ["One.", "other"], kept.texts(4)


@scenario("fork_session as an option keeps the old session")
async def _():
    with place([{"text": "One."}, {"text": "Two."}, {"text": "Three."}]) as kept:
        identity = str(uuid.uuid4())
        await kept.ask("first", session_id=identity)
        forked = await kept.ask("second", resume=identity, fork_session=True)
        assert forked.session_id != identity and forked.total_cost_usd == 0.00014, forked
        await kept.ask("third", resume=identity)
        assert kept.texts(2) == ["first", "One.", "third"], kept.texts(2)


main("Python session helpers")
