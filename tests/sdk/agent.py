"""The stock Python Agent SDK (PyPI claude-agent-sdk) drives wardian-agent."""

import asyncio
import contextlib
import os
import pathlib
import tempfile
import uuid

from claude_agent_sdk import (
    AssistantMessage,
    ClaudeAgentOptions,
    ClaudeSDKClient,
    HookMatcher,
    PermissionResultAllow,
    PermissionResultDeny,
    ResultError,
    ResultMessage,
    StreamEvent,
    SystemMessage,
    TextBlock,
    ToolUseBlock,
    UserMessage,
    create_sdk_mcp_server,
    get_session_messages,
    list_sessions,
    query,
    tool,
)

from lib import KEY, main, model, scenario

MODEL = "claude-sonnet-5-5"


class Session:
    """A place to work in, a model server, and the options that point the SDK at our agent."""

    def __init__(self, place, server, options):
        self.place, self.server, self.options = place, server, options

    async def turn(self, prompt):
        """Runs prompts to their end: all messages and what the SDK raised, if it did."""
        messages, error = [], None
        try:
            async for message in query(prompt=prompt, options=self.options):
                messages.append(message)
        except Exception as caught:
            error = caught
        assert any(isinstance(message, ResultMessage) for message in messages), (messages, error)
        return messages, error

    def bodies(self):
        """What the model was told: the bodies of the Messages API calls."""
        return [request["body"] for request in self.server.requests() if request["path"] == "/v1/messages"]

    def exists(self, name):
        return (self.place / name).exists()


@contextlib.contextmanager
def session(replies, **options):
    with tempfile.TemporaryDirectory(prefix="wardian-sdk-") as place, tempfile.TemporaryDirectory() as home:
        with model({"replies": replies}) as server:
            env = {"HOME": home, "ANTHROPIC_BASE_URL": server.url, "ANTHROPIC_API_KEY": KEY}
            options = {"cwd": place, "model": MODEL, "setting_sources": [], "env": env, **options}
            options = ClaudeAgentOptions(cli_path=os.environ["WARDIAN_AGENT"], **options)
            yield Session(pathlib.Path(place), server, options)


def name(message):
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


def calls(messages):
    blocks = (block for message in of(AssistantMessage, messages) for block in message.content)
    return [block for block in blocks if isinstance(block, ToolUseBlock)]


def bash(command):
    return {"name": "Bash", "input": {"command": command}}


def results(body):
    """The tool results in the last user message that the model got."""
    return [message for message in body["messages"] if message["role"] == "user"][-1]["content"]


def text(content):
    return content if isinstance(content, str) else "\n".join(block.get("text", "") for block in content)


async def stream(*prompts):
    for prompt in prompts:
        message = {"role": "user", "content": prompt}
        yield {"type": "user", "session_id": "", "message": message, "parent_tool_use_id": None}


@scenario("a text turn: messages, result, cost")
async def _():
    usage = {
        "input_tokens": 1000,
        "output_tokens": 100,
        "cache_read_input_tokens": 10_000,
        "cache_creation_input_tokens": 400,
    }
    with session([{"text": "Hello, wörld 🦀!", "usage": usage}], system_prompt="Be brief.") as given:
        messages, error = await given.turn("hi")
        assert error is None, error
        kinds = [name(message) for message in messages if name(message) != "system/status"]
        assert kinds == ["system/init", "assistant", "result/success"], kinds
        init, assistant, result = (messages[0].data, of(AssistantMessage, messages)[0], result_of(messages))
        assert init["model"] == MODEL and init["cwd"] == str(given.place), init
        assert {"Bash", "Read", "Write", "Edit"} <= set(init["tools"]), init
        assert assistant.content == [TextBlock(text="Hello, wörld 🦀!")]
        assert assistant.stop_reason is None and assistant.session_id == init["session_id"]
        assert (result.result, result.is_error, result.num_turns) == ("Hello, wörld 🦀!", False, 1)
        assert (result.stop_reason, result.terminal_reason) == ("end_turn", "completed")
        # $2, $10, $0.10 and $2.50 a million: 0.002 + 0.001 + 0.001 + 0.001.
        assert result.total_cost_usd == 0.005, result.total_cost_usd
        assert result.usage["input_tokens"] == 1000 and result.usage["output_tokens"] == 100
        assert result.model_usage[MODEL]["costUSD"] == 0.005, result.model_usage
        assert result.session_id == init["session_id"] and result.permission_denials == []
        [body] = given.bodies()
        assert body["stream"] is True and "Be brief." in str(body["system"])


@scenario("one tool: Bash")
async def _():
    replies = [{"text": "I run it.", "tool_use": [bash("echo hello; echo oops >&2")]}, {"text": "Done."}]
    with session(replies, allowed_tools=["Bash"]) as given:
        messages, _ = await given.turn("run it")
        kinds = [name(message) for message in messages if name(message) != "system/status"]
        assert kinds == ["system/init", "assistant", "assistant", "user", "assistant", "result/success"], kinds
        [answer] = of(UserMessage, messages)
        assert "hello" in answer.tool_use_result["stdout"] and answer.tool_use_result["interrupted"] is False
        assert "hello\noops" in text(results(given.bodies()[1])[0]["content"])
        assert (result_of(messages).num_turns, result_of(messages).result) == (2, "Done.")


@scenario("one tool: Read, in an added folder")
async def _():
    with tempfile.TemporaryDirectory(prefix="wardian-sdk-") as other:
        file = pathlib.Path(other, "note.txt")
        file.write_text("first\nsecond\n")
        replies = [{"tool_use": [{"name": "Read", "input": {"file_path": str(file)}}]}, {"text": "Read."}]
        with session(replies, add_dirs=[other]) as given:
            messages, _ = await given.turn("read it")
            read = of(UserMessage, messages)[0].tool_use_result
            assert read["file"]["filePath"] == str(file), read
            assert "1\tfirst" in text(results(given.bodies()[1])[0]["content"])


@scenario("can_use_tool denies")
async def _():
    asked = []

    async def decide(tool, tool_input, context):
        asked.append((tool, tool_input, context.tool_use_id))
        return PermissionResultDeny(message="Not on my machine.")

    replies = [{"tool_use": [bash("touch made")]}, {"text": "I may not."}]
    with session(replies, permission_mode="default", can_use_tool=decide) as given:
        messages, error = await given.turn(stream("make a file"))
        [asking] = calls(messages)
        assert error is None and asked == [("Bash", {"command": "touch made"}, asking.id)], (asked, error)
        assert not given.exists("made")
        [denied] = results(given.bodies()[1])
        assert denied["is_error"] is True and "Not on my machine." in text(denied["content"])
        denial = {"tool_name": "Bash", "tool_use_id": asking.id, "tool_input": {"command": "touch made"}}
        assert result_of(messages).permission_denials == [denial]


@scenario("can_use_tool allows, with another input")
async def _():
    async def decide(tool, tool_input, context):
        return PermissionResultAllow(updated_input={"command": "touch second"})

    replies = [{"tool_use": [bash("touch first")]}, {"text": "Done."}]
    with session(replies, permission_mode="default", can_use_tool=decide) as given:
        messages, _ = await given.turn(stream("make a file"))
        assert not given.exists("first") and given.exists("second")
        assert result_of(messages).permission_denials == []


@scenario("a PreToolUse hook denies")
async def _():
    inputs = []

    async def hook(hook_input, tool_use_id, context):
        inputs.append((hook_input, tool_use_id))
        decision = {"permissionDecision": "deny", "permissionDecisionReason": "The hook says no."}
        return {"hookSpecificOutput": {"hookEventName": "PreToolUse", **decision}}

    hooks = {"PreToolUse": [HookMatcher(matcher="Bash", hooks=[hook])]}
    replies = [{"tool_use": [bash("touch made")]}, {"text": "I may not."}]
    with session(replies, allowed_tools=["Bash"], hooks=hooks) as given:
        messages, _ = await given.turn(stream("make a file"))
        [(hook_input, tool_use_id)] = inputs
        assert hook_input["hook_event_name"] == "PreToolUse" and hook_input["tool_name"] == "Bash"
        assert hook_input["tool_input"] == {"command": "touch made"} and tool_use_id == calls(messages)[0].id
        assert "The hook says no." in text(results(given.bodies()[1])[0]["content"])
        assert len(result_of(messages).permission_denials) == 1 and not given.exists("made")


@scenario("max_turns")
async def _():
    replies = [{"tool_use": [bash("echo x >> runs")], "repeat": True}]
    with session(replies, allowed_tools=["Bash", "Edit"], max_turns=2) as given:
        messages, error = await given.turn("go on")
        result = result_of(messages)
        assert (result.subtype, result.is_error, result.num_turns) == ("error_max_turns", True, 3), result
        assert len(result.errors) == 1 and result.terminal_reason == "max_turns", result
        assert (given.place / "runs").read_text() == "x\nx\n"
        assert isinstance(error, ResultError) and result.errors[0] in str(error), repr(error)


@scenario("max_budget_usd")
async def _():
    # 40,000 output tokens at $10 a million are $0.40 a call.
    usage = {"input_tokens": 0, "output_tokens": 40_000}
    replies = [{"tool_use": [bash("echo x >> runs")], "usage": usage, "repeat": True}]
    with session(replies, allowed_tools=["Bash", "Edit"], max_budget_usd=0.5) as given:
        messages, error = await given.turn("go on")
        result = result_of(messages)
        assert (result.subtype, result.is_error, result.num_turns) == ("error_max_budget_usd", True, 2), result
        assert result.total_cost_usd == 0.8 and result.terminal_reason == "budget_exhausted", result
        assert (given.place / "runs").read_text() == "x\n"
        assert isinstance(error, ResultError) and result.errors[0] in str(error), repr(error)


@scenario("interrupt; the session goes on")
async def _():
    replies = [{"text": "I will never end", "hold": True}, {"text": "Here I am."}]
    with session(replies, include_partial_messages=True) as given:
        async with ClaudeSDKClient(given.options) as client:
            await client.query("first")
            messages = []
            async for message in client.receive_response():
                messages.append(message)
                if isinstance(message, StreamEvent) and "never" in str(message.event.get("delta")):
                    await client.interrupt()
            first = result_of(messages)
            assert (first.subtype, first.is_error) == ("error_during_execution", True), first
            assert first.terminal_reason == "aborted_streaming", first
            await client.query("second")
            second = result_of([message async for message in client.receive_response()])
            assert (second.subtype, second.result) == ("success", "Here I am."), second
            assert second.session_id == first.session_id


@scenario("two prompts in one stream")
async def _():
    with session([{"text": "One."}, {"text": "Two."}]) as given:
        messages, _ = await given.turn(stream("first", "second"))
        ended = of(ResultMessage, messages)
        # Without callbacks `query` ends its input after the first result, and the turn under way still completes.
        assert [result.result for result in ended] == ["One.", "Two."], ended
        assert [name(message) for message in messages].count("system/init") == 2
        assert [result.total_cost_usd for result in ended] == [0.00007, 0.00014], ended
        assert len({result.session_id for result in ended}) == 1


@scenario("an API error 400 is the SDK's own exception")
async def _():
    with session([{"error": {"status": 400, "message": "prompt is too long"}}]) as given:
        messages, error = await given.turn("hi")
        result = result_of(messages)
        assert (result.subtype, result.is_error, result.api_error_status) == ("success", True, 400), result
        assert result.terminal_reason == "prompt_too_long" and "prompt is too long" in result.result
        assert of(AssistantMessage, messages)[0].model == "<synthetic>"
        assert isinstance(error, ResultError) and "prompt is too long" in str(error), repr(error)


@scenario("include_partial_messages")
async def _():
    replies = [{"thinking": "Hm.", "text": "I look.", "tool_use": [bash("echo hi")], "chunk_bytes": 4}, {"text": "Done."}]
    with session(replies, include_partial_messages=True, allowed_tools=["Bash"]) as given:
        messages, _ = await given.turn("hi")
        passing = ("content_block_delta", "system/thinking_tokens")
        kinds = [name(message) for message in messages if name(message) not in passing]
        block = ["content_block_start", "assistant", "content_block_stop"]
        start, end = ["system/status", "message_start"], ["message_delta", "message_stop"]
        first = [*start, *block, *block, *block, *end]
        assert kinds == ["system/init", *first, "user", *start, *block, *end, "result/success"], kinds
        deltas = [message.event.get("delta", {}) for message in of(StreamEvent, messages)]
        assert "".join(delta.get("text", "") for delta in deltas) == "I look.Done."


@scenario("mode and model change in mid-session")
async def _():
    with session([], permission_mode="default") as given:
        def write(path):
            call = {"name": "Write", "input": {"file_path": str(given.place / path), "content": "x"}}
            return {"tool_use": [call]}

        # Another model is asked for one token first.
        probe = {"match": {"last_text_contains": "Hi"}, "text": "Hi."}
        replies = [probe, write("a"), {"text": "No."}, write("b"), {"text": "Yes."}]
        with model({"replies": replies}) as server:
            given.options.env["ANTHROPIC_BASE_URL"] = server.url
            async with ClaudeSDKClient(given.options) as client:
                await client.query("write a")
                assert result_of([message async for message in client.receive_response()]).result == "No."
                await client.set_permission_mode("acceptEdits")
                await client.set_model("claude-haiku-5-5")
                await client.query("write b")
                assert result_of([message async for message in client.receive_response()]).result == "Yes."
            assert not given.exists("a") and given.exists("b")
            assert server.requests()[-1]["body"]["model"] == "claude-haiku-5-5"


@scenario("four sessions at once in one process")
async def _():
    async def one(number):
        replies = [{"tool_use": [bash(f"echo {number} > mine")]}, {"echo": True}]
        with session(replies, allowed_tools=["Bash", "Edit"]) as given:
            messages, _ = await given.turn(f"I am {number}")
            assert f"I am {number}" in result_of(messages).result
            assert (given.place / "mine").read_text() == f"{number}\n"

    await asyncio.gather(*map(one, range(4)))


@scenario("resume and continue: the conversation, its id and its costs go on")
async def _():
    replies = [{"tool_use": [bash("echo hello")]}, {"text": "One."}, {"text": "Two."}, {"text": "Three."}]
    identity = str(uuid.uuid4())
    with session(replies, allowed_tools=["Bash"], session_id=identity) as given:
        first, _ = await given.turn("first")
        given.options.session_id = None
        given.options.resume = identity
        second, _ = await given.turn("second")
        given.options.resume, given.options.continue_conversation = None, True
        third, _ = await given.turn("third")
        ended = [result_of(messages) for messages in (first, second, third)]
        assert [result.session_id for result in ended] == [identity] * 3, ended
        assert [result.total_cost_usd for result in ended] == [0.00014, 0.00021, 0.00028], ended
        said = given.bodies()[-1]["messages"]
        words = [said[index]["content"][0]["text"] for index in (0, 3, 4, 5, 6)]
        assert words == ["first", "One.", "second", "Two.", "third"], words
        # The SDK's own helpers read the transcript, in this process.
        before = os.environ.get("CLAUDE_CONFIG_DIR")
        os.environ["CLAUDE_CONFIG_DIR"] = os.path.join(given.options.env["HOME"], ".claude")
        try:
            [listed] = list_sessions(directory=str(given.place))
            assert (listed.session_id, listed.first_prompt) == (identity, "first"), listed
            kept = get_session_messages(identity, directory=str(given.place))
        finally:
            os.environ.pop("CLAUDE_CONFIG_DIR")
            if before is not None:
                os.environ["CLAUDE_CONFIG_DIR"] = before
        assert [message.type for message in kept] == ["user", "assistant"] * 4, kept
        assert kept[3].message["content"][0]["text"] == "One."


@scenario("resume of a conversation that is not there")
async def _():
    missing = str(uuid.uuid4())
    with session([], resume=missing) as given:
        # It ends before the SDK has begun, so there are no messages.
        try:
            messages = [message async for message in query(prompt="hi", options=given.options)]
        except ResultError as error:
            assert f"No conversation found with session ID: {missing}" in str(error), error
        else:
            raise AssertionError(messages)


@scenario("tools of create_sdk_mcp_server")
async def _():
    calls_ = [
        {"name": "mcp__lab__add", "input": {"a": 1, "b": 2}},
        {"name": "mcp__lab__add", "input": {"a": 3, "b": 4}},
        {"name": "mcp__lab__fail", "input": {}},
    ]
    both = asyncio.Event()
    begun = []

    @tool("add", "Adds two numbers.", {"a": float, "b": float})
    async def add(args):
        # Neither ends before both have begun.
        begun.append(args)
        if len(begun) == 2:
            both.set()
        await both.wait()
        return {"content": [{"type": "text", "text": f"It is {args['a'] + args['b']}."}]}

    @tool("fail", "Fails.", {})
    async def fail(args):
        raise RuntimeError("It broke.")

    lab = create_sdk_mcp_server(name="lab", version="1.0.0", tools=[add, fail])
    replies = [{"tool_use": calls_}, {"text": "Done."}]
    with session(replies, mcp_servers={"lab": lab}, allowed_tools=["mcp__lab"]) as given:
        messages, error = await given.turn(stream("add"))
        assert error is None, error
        init = messages[0].data
        assert [(server["name"], server["status"]) for server in init["mcp_servers"]] == [("lab", "connected")], init
        assert "mcp__lab__add" in init["tools"], init
        three, seven, broken = results(given.bodies()[1])
        assert [text(one["content"]) for one in (three, seven)] == ["It is 3.", "It is 7."], (three, seven)
        assert broken["is_error"] is True and "It broke." in text(broken["content"]), broken
        assert result_of(messages).result == "Done."


main("Python SDK")
