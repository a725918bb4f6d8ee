"""The stock Python Agent SDK drives the agent in $AGENT: what it sends otherwise than TypeScript's, and the pillars again."""

import asyncio
import os
import shutil
import uuid

from claude_agent_sdk import (
    AgentDefinition,
    AssistantMessage,
    CLIConnectionError,
    HookMatcher,
    InMemorySessionStore,
    PermissionResultAllow,
    PermissionResultDeny,
    ProcessError,
    ResultError,
    ResultMessage,
    StreamEvent,
    SystemMessage,
    TextBlock,
    UserMessage,
    create_sdk_mcp_server,
    delete_session,
    fork_session,
    get_session_info,
    get_session_messages,
    get_session_messages_from_store,
    get_subagent_messages,
    get_subagent_messages_from_store,
    list_sessions,
    list_subagents,
    list_subagents_from_store,
    rename_session,
    tag_session,
    tool,
)

from lib import (
    LAB,
    MODEL,
    bash,
    call,
    calls_in,
    init_of,
    kind,
    main,
    nanos,
    of,
    result_of,
    results_in,
    scenario,
    session,
    stream,
    text,
    told,
    user,
)

BYPASS = {"permission_mode": "bypassPermissions"}


@scenario("text: a turn, its result, its price", "2.7 text", "1.3 system/init", "1.3 assistant", "1.3 result/success")
async def _():
    usage = {"input_tokens": 1000, "output_tokens": 100, "cache_read_input_tokens": 10_000, "cache_creation_input_tokens": 400}
    with session([{"text": "Hello, wörld 🦀!", "usage": usage}], system_prompt="Mind the PLUMS.") as s:
        messages, result = await s.ok("hi")
        kinds = [kind(message) for message in messages if kind(message) != "system/status"]
        assert kinds == ["system/init", "assistant", "result/success"], kinds
        init, assistant = init_of(messages), of(AssistantMessage, messages)[0]
        assert (init["model"], init["cwd"]) == (MODEL, str(s.cwd)), init
        assert {"Bash", "Read", "Write", "Edit", "Task"} <= set(init["tools"]), init
        assert assistant.content == [TextBlock(text="Hello, wörld 🦀!")]
        assert assistant.stop_reason is None and assistant.session_id == init["session_id"]
        assert (result.result, result.is_error, result.num_turns) == ("Hello, wörld 🦀!", False, 1)
        assert (result.stop_reason, result.terminal_reason) == ("end_turn", "completed")
        # $2, $10, $0.10 and $2.50 a million: 0.002 + 0.001 + 0.001 + 0.001.
        assert nanos(result.total_cost_usd) == 5_000_000, result.total_cost_usd
        assert {name: result.usage[name] for name in usage} == usage
        assert nanos(result.model_usage[MODEL]["costUSD"]) == 5_000_000, result.model_usage
        assert result.session_id == init["session_id"] and result.permission_denials == []
        [body] = s.bodies()
        assert body["stream"] is True and "Mind the PLUMS." in told(body)


@scenario("system_prompt: none, one's own, a file, the preset with more", "1.1 systemPrompt")
async def _():
    async def system(**options):
        with session(files={"prompt.txt": "From the PEARS."}, **options) as s:
            await s.ok()
            parts = s.bodies()[0].get("system", [])
            return parts if isinstance(parts, str) else "\n".join(part["text"] for part in parts)

    none = await system()
    assert "Mind the PLUMS." in await system(system_prompt="Mind the PLUMS.")
    assert "From the PEARS." in await system(system_prompt=lambda cwd, home: {"type": "file", "path": str(cwd / "prompt.txt")})
    preset = await system(system_prompt={"type": "preset", "preset": "claude_code", "append": "Mind the PLUMS."})
    assert "Mind the PLUMS." in preset and len(preset) > len(none) + 500, (len(preset), len(none))


@scenario("one tool: Bash", "2.7 one tool", "1.3 user", "1.1 allowedTools")
async def _():
    with session([{"text": "I run it.", "tool_use": [bash("echo hello; echo oops >&2")]}, {"text": "Done."}], allowed_tools=["Bash"]) as s:
        messages, result = await s.ok()
        kinds = [kind(message) for message in messages if kind(message) != "system/status"]
        assert kinds == ["system/init", "assistant", "assistant", "user", "assistant", "result/success"], kinds
        [answer] = of(UserMessage, messages)
        assert "hello" in answer.tool_use_result["stdout"] and answer.tool_use_result["interrupted"] is False
        assert "hello\noops" in text(results_in(s.bodies()[1])[0]["content"])
        assert (result.num_turns, result.result) == (2, "Done.")


@scenario("add_dirs: files there are read and written freely", "1.1 additionalDirectories")
async def _():
    replies = lambda cwd, home: [
        {"tool_use": [call("Read", file_path=str(home / "extra/note.txt")), call("Write", file_path=str(home / "extra/new.txt"), content="x")]},
        {"text": "Done."},
    ]
    files = {"home/extra/note.txt": "first\n"}
    with session(replies, files, permission_mode="acceptEdits", add_dirs=lambda cwd, home: [str(home / "extra")]) as s:
        messages, result = await s.ok()
        read = of(UserMessage, messages)[0].tool_use_result
        assert read["file"]["filePath"] == str(s.home / "extra/note.txt"), read
        assert (s.home / "extra/new.txt").exists() and result.permission_denials == []


@scenario("can_use_tool denies", "1.1 canUseTool", "1.2 can_use_tool")
async def _():
    asked = []

    async def decide(name, arguments, context):
        asked.append((name, arguments, context.tool_use_id))
        return PermissionResultDeny(message="Not on my machine.")

    replies = [{"tool_use": [bash("touch made")]}, {"text": "I may not."}]
    with session(replies, permission_mode="default", can_use_tool=decide) as s:
        messages, result = await s.ok(stream("make a file"))
        [asking] = calls_in(messages)
        assert asked == [("Bash", {"command": "touch made"}, asking.id)], asked
        assert not s.has("made")
        [denied] = results_in(s.bodies()[1])
        assert denied["is_error"] is True and text(denied["content"]) == "Not on my machine."
        assert result.permission_denials == [{"tool_name": "Bash", "tool_use_id": asking.id, "tool_input": {"command": "touch made"}}]


@scenario("can_use_tool allows, with another input", "1.1 canUseTool", "1.2 can_use_tool")
async def _():
    async def decide(name, arguments, context):
        return PermissionResultAllow(updated_input={"command": "touch second"})

    with session([{"tool_use": [bash("touch first")]}, {"text": "Done."}], permission_mode="default", can_use_tool=decide) as s:
        _, result = await s.ok(stream("make a file"))
        assert not s.has("first") and s.has("second") and result.permission_denials == []


@scenario("permission_mode: plan, dontAsk, bypass", "1.1 permissionMode", "1.1 allowDangerouslySkipPermissions")
async def _():
    for mode, made in {"plan": False, "dontAsk": False, "bypassPermissions": True}.items():
        with session([{"tool_use": [bash("touch made")]}, {"text": "Done."}], permission_mode=mode) as s:
            messages, result = await s.ok()
            assert init_of(messages)["permissionMode"] == mode
            assert (s.has("made"), len(result.permission_denials)) == (made, 0 if made else 1), mode


@scenario("tools and disallowed_tools: what there is", "1.1 tools", "1.1 disallowedTools")
async def _():
    for options, there in [
        ({"tools": []}, set()),
        ({"tools": ["Read", "Grep"]}, {"Read", "Grep"}),
        ({"tools": ["Read", "Grep"], "disallowed_tools": ["Grep"]}, {"Read"}),
    ]:
        with session(**options) as s:
            messages, _ = await s.ok()
            assert set(init_of(messages)["tools"]) == there, (options, init_of(messages)["tools"])


@scenario("hooks: PreToolUse denies, PostToolUse adds, Stop ends", "1.4 PreToolUse", "1.4 PostToolUse", "1.4 Stop", "1.1 hooks", "1.2 hook_callback")
async def _():
    seen = []

    async def pre(given, tool_use_id, context):
        seen.append((given["hook_event_name"], given["tool_input"]["command"], tool_use_id))
        if given["tool_input"]["command"] != "touch bad":
            return {}
        decision = {"permissionDecision": "deny", "permissionDecisionReason": "The hook says no."}
        return {"hookSpecificOutput": {"hookEventName": "PreToolUse", **decision}}

    async def post(given, tool_use_id, context):
        seen.append((given["hook_event_name"], given["tool_response"]["interrupted"], tool_use_id))
        return {"hookSpecificOutput": {"hookEventName": "PostToolUse", "additionalContext": "Mind the PLUMS."}}

    async def stop(given, tool_use_id, context):
        seen.append((given["hook_event_name"], given["stop_hook_active"]))
        return {}

    hooks = {
        "PreToolUse": [HookMatcher(matcher="Bash", hooks=[pre])],
        "PostToolUse": [HookMatcher(hooks=[post])],
        "Stop": [HookMatcher(hooks=[stop])],
    }
    with session([{"tool_use": [bash("touch bad")]}, {"tool_use": [bash("touch good")]}, {"text": "Done."}], hooks=hooks, **BYPASS) as s:
        messages, result = await s.ok(stream("go"))
        bad, good = (block.id for block in calls_in(messages))
        assert seen == [("PreToolUse", "touch bad", bad), ("PreToolUse", "touch good", good), ("PostToolUse", False, good), ("Stop", False)], seen
        assert (s.has("bad"), s.has("good")) == (False, True)
        assert "The hook says no." in text(results_in(s.bodies()[1])[0]["content"])
        assert "Mind the PLUMS." in told(s.bodies()[2]) and len(result.permission_denials) == 1


@scenario("hooks: a prompt is blocked", "1.4 UserPromptSubmit", "2.7 prompt blocked")
async def _():
    async def block(given, tool_use_id, context):
        return {"decision": "block", "reason": f"Not {given['prompt']}."}

    with session(hooks={"UserPromptSubmit": [HookMatcher(hooks=[block])]}) as s:
        messages, result = await s.ok(stream("today"))
        assert (result.subtype, result.is_error, result.num_turns) == ("success", False, 0), result
        assert "Not today." in str([message.data for message in of(SystemMessage, messages)])
        assert s.bodies() == []


@scenario("hooks: continue_ false stops the turn", "1.4 PostToolUse", "2.7 hook continue:false")
async def _():
    async def enough(given, tool_use_id, context):
        return {"continue_": False, "stopReason": "Enough."}

    replies = [{"tool_use": [bash("true")]}, {"text": "Never said."}]
    with session(replies, allowed_tools=["Bash"], hooks={"PostToolUse": [HookMatcher(hooks=[enough])]}) as s:
        _, result = await s.ok(stream("go"))
        assert (result.subtype, result.is_error, result.num_turns, result.result) == ("success", False, 2, ""), result
        assert result.terminal_reason == "hook_stopped" and len(s.bodies()) == 1


@scenario("max_turns", "1.1 maxTurns", "2.7 maxTurns 2", "1.3 result/error_max_turns")
async def _():
    with session([{"tool_use": [bash("echo x >> runs")], "repeat": True}], max_turns=2, **BYPASS) as s:
        messages, error = await s.turn()
        result = result_of(messages)
        assert (result.subtype, result.is_error, result.num_turns) == ("error_max_turns", True, 3), result
        assert result.errors == ["Reached maximum number of turns (2)"] and result.terminal_reason == "max_turns"
        assert (s.cwd / "runs").read_text() == "x\nx\n"
        assert isinstance(error, ResultError) and result.errors[0] in str(error), repr(error)


@scenario("max_budget_usd", "1.1 maxBudgetUsd", "2.7 maxBudgetUsd", "1.3 result/error_max_budget_usd")
async def _():
    # 40,000 output tokens at $10 a million are $0.40 a call.
    usage = {"input_tokens": 0, "output_tokens": 40_000}
    with session([{"tool_use": [bash("true")], "usage": usage, "repeat": True}], max_budget_usd=0.5, **BYPASS) as s:
        messages, error = await s.turn()
        result = result_of(messages)
        assert (result.subtype, result.is_error, result.num_turns) == ("error_max_budget_usd", True, 2), result
        assert nanos(result.total_cost_usd) == 800_000_000 and result.terminal_reason == "budget_exhausted"
        assert isinstance(error, ResultError), repr(error)


@scenario("output_format: structured output", "1.1 outputFormat", "2.7 structured output")
async def _():
    schema = {"type": "object", "properties": {"answer": {"type": "number"}}, "required": ["answer"]}
    with session([{"tool_use": [call("StructuredOutput", answer=42)]}], output_format={"type": "json_schema", "schema": schema}) as s:
        _, result = await s.ok()
        assert result.structured_output == {"answer": 42} and result.subtype == "success", result
        assert len(s.bodies()) == 1


@scenario("an API error 400 is the SDK's own exception", "2.7 API 400")
async def _():
    with session([{"error": {"status": 400, "message": "something is wrong with it"}, "repeat": True}]) as s:
        messages, error = await s.turn()
        result = result_of(messages)
        assert (result.subtype, result.is_error, result.api_error_status) == ("success", True, 400), result
        assert result.terminal_reason == "api_error" and "something is wrong with it" in result.result
        assert of(AssistantMessage, messages)[0].model == "<synthetic>"
        assert isinstance(error, ResultError), repr(error)


@scenario("an unknown flag ends it with 1", "1.1 extraArgs", "1.1 stderr")
async def _():
    with session(extra_args={"no-such-flag": None}) as s:
        messages, error = await s.turn()
        # What the SDK raises depends on who is quicker: it has not written yet, or the agent is gone already.
        assert messages == [] and isinstance(error, (ProcessError, CLIConnectionError)) and "exit code: 1" in str(error), repr(error)
        assert "error: unknown option '--no-such-flag'" in "".join(s.stderr), s.stderr


@scenario("include_partial_messages: the API's events in order", "1.1 includePartialMessages", "1.3 stream_event", "1.3 system/status")
async def _():
    replies = [{"thinking": "Hm.", "text": "I look.", "tool_use": [bash("echo hi")], "chunk_bytes": 4}, {"text": "Done."}]
    with session(replies, include_partial_messages=True, allowed_tools=["Bash"]) as s:
        messages, _ = await s.ok()
        skipped = {"content_block_delta", "system/thinking_tokens"}
        kinds = [kind(message) for message in messages if kind(message) not in skipped]
        block = ["content_block_start", "assistant", "content_block_stop"]
        start, end = ["system/status", "message_start"], ["message_delta", "message_stop"]
        assert kinds == ["system/init", *start, *block, *block, *block, *end, "user", *start, *block, *end, "result/success"], kinds
        deltas = [message.event.get("delta", {}) for message in of(StreamEvent, messages)]
        assert "".join(delta.get("text", "") for delta in deltas) == "I look.Done."


@scenario("interrupt while the model speaks; the session goes on", "1.2 interrupt", "2.6 interrupt while streaming")
async def _():
    replies = [{"text": "I will never end", "hold": True}, {"text": "Here I am."}]
    with session(replies, include_partial_messages=True) as s:
        async with s.client() as client:
            await client.query("first")
            messages = []
            async for message in client.receive_response():
                messages.append(message)
                if isinstance(message, StreamEvent) and "never" in str(message.event.get("delta")):
                    await client.interrupt()
            first = result_of(messages)
            assert (first.subtype, first.is_error, first.terminal_reason) == ("error_during_execution", True, "aborted_streaming"), first
            second = result_of(await client.say("second"))
            assert (second.subtype, second.result, second.session_id) == ("success", "Here I am.", first.session_id), second


@scenario("set_permission_mode and set_model: from now on", "1.2 setPermissionMode", "1.2 setModel", "1.1 model")
async def _():
    other = "claude-haiku-5-5"
    write = lambda path: {"tool_use": [call("Write", file_path=str(path), content="x")]}
    replies = lambda cwd, home: [
        {"match": {"model": MODEL}, **write(cwd / "a")},
        {"match": {"model": MODEL}, "text": "No."},
        {"match": {"model": other, "last_text_contains": "write b"}, **write(cwd / "b")},
        {"match": {"model": other}, "text": "Yes.", "repeat": True},
    ]
    with session(replies, permission_mode="default") as s:
        async with s.client() as client:
            assert result_of(await client.say("write a")).result == "No."
            await client.set_permission_mode("acceptEdits")
            await client.set_model(other)
            assert result_of(await client.say("write b")).result == "Yes."
        assert (s.has("a"), s.has("b")) == (False, True)


@scenario("get_server_info and get_mcp_status", "1.2 initializationResult", "1.2 mcpServerStatus", "1.1 mcpServers")
async def _():
    with session(mcp_servers={"lab": LAB}) as s:
        async with s.client() as client:
            await client.say("hi")
            info = await client.get_server_info()
            assert any(command["name"] == "compact" for command in info["commands"]), info
            [server] = (await client.get_mcp_status())["mcpServers"]
            assert (server["name"], server["status"], server["serverInfo"]) == ("lab", "connected", {"name": "lab", "version": "1.2.3"}), server
            await client.toggle_mcp_server("lab", False)
            assert [one["status"] for one in (await client.get_mcp_status())["mcpServers"]] == ["disabled"]


@scenario("get_context_usage", "1.2 getContextUsage")
async def _():
    with session() as s:
        async with s.client() as client:
            await client.say("hi")
            usage = await client.get_context_usage()
            assert usage["model"] == MODEL and 0 < usage["totalTokens"] < usage["maxTokens"], usage
            assert {"used", "free"} <= {category["kind"] for category in usage["categories"]}


@scenario("rewind_files: files are as they were at a prompt", "1.2 rewindFiles", "1.1 enableFileCheckpointing")
async def _():
    replies = lambda cwd, home: [
        {"tool_use": [call("Write", file_path=str(cwd / "made.txt"), content="x")]},
        {"text": "Done."},
    ]
    with session(replies, permission_mode="acceptEdits", enable_file_checkpointing=True, extra_args={"replay-user-messages": None}) as s:
        async with s.client() as client:
            messages = await client.say("write")
            prompt = next(message.uuid for message in of(UserMessage, messages) if message.uuid and message.tool_use_result is None)
            assert s.has("made.txt")
            await client.rewind_files(prompt)
            assert not s.has("made.txt")


@scenario("two prompts in one stream", "1.2 streamInput", "1.3 system/init")
async def _():
    with session([{"text": "One."}, {"text": "Two."}]) as s:
        messages, _ = await s.ok(stream("the first thing", "the second thing"))
        ended = of(ResultMessage, messages)
        assert [result.result for result in ended] == ["One.", "Two."], ended
        assert [kind(message) for message in messages].count("system/init") == 2
        assert [nanos(result.total_cost_usd) for result in ended] == [70_000, 140_000], ended
        assert len({result.session_id for result in ended}) == 1


@scenario("four sessions at once in one process", "2.7 one tool")
async def _():
    async def one(number):
        with session([{"tool_use": [bash(f"echo {number} > mine")]}, {"text": f"I was {number}."}], **BYPASS) as s:
            _, result = await s.ok(f"I am {number}")
            assert result.result == f"I was {number}." and (s.cwd / "mine").read_text() == f"{number}\n"

    await asyncio.gather(*map(one, range(4)))


@scenario("resume, continue and fork; list_sessions and get_session_messages", "1.1 resume", "1.1 continue", "1.1 forkSession", "1.1 sessionId")
async def _():
    identity = str(uuid.uuid4())
    replies = [{"tool_use": [bash("echo hello")]}, {"text": "One."}, {"text": "Two."}, {"text": "Three."}, {"text": "Four."}]
    with session(replies, allowed_tools=["Bash"], session_id=identity) as s:
        ended = [(await s.ok("the first thing"))[1]]
        s.options.session_id, s.options.resume = None, identity
        ended.append((await s.ok("the second thing"))[1])
        s.options.resume, s.options.continue_conversation = None, True
        ended.append((await s.ok("the third thing"))[1])
        assert [result.session_id for result in ended] == [identity] * 3, ended
        assert [nanos(result.total_cost_usd) for result in ended] == [140_000, 210_000, 280_000], ended
        s.options.continue_conversation, s.options.resume, s.options.fork_session = False, identity, True
        forked = (await s.ok("the fourth thing"))[1]
        assert forked.session_id != identity
        heard = told(s.bodies()[-1])
        assert all(f"the {word} thing" in heard for word in ("first", "second", "third", "fourth"))
        # The SDK's own helpers read the transcript; nothing is awaited while the environment is another.
        before = os.environ.get("CLAUDE_CONFIG_DIR")
        os.environ["CLAUDE_CONFIG_DIR"] = str(s.home / ".claude")
        try:
            listed = {one.session_id: one for one in list_sessions(directory=str(s.cwd))}
            kept = get_session_messages(identity, directory=str(s.cwd))
        finally:
            os.environ.pop("CLAUDE_CONFIG_DIR")
            if before is not None:
                os.environ["CLAUDE_CONFIG_DIR"] = before
        assert set(listed) == {identity, forked.session_id} and listed[identity].first_prompt == "the first thing", listed
        assert [message.type for message in kept] == ["user", "assistant"] * 4, kept


@scenario("session helpers: subagents, names, tags, forks", "1.1 persistSession", "1.1 forkSession")
async def _():
    agents = {"counter": AgentDefinition(description="Counts.", prompt="Count.", tools=["Bash"])}
    delegate = call("Agent", description="count", prompt="Count the PLUMS.", subagent_type="counter", run_in_background=False)
    replies = [
        {"match": {"last_text_contains": "PLUMS"}, "text": "There are seven."},
        {"match": {"last_text_contains": "the first thing"}, "tool_use": [delegate]},
        {"text": "Seven."},
        {"match": {"last_text_contains": "the second thing"}, "text": "Two."},
    ]
    with session(replies, agents=agents, allowed_tools=["Agent"]) as s:
        _, result = await s.ok("the first thing")
        place = {"directory": str(s.cwd)}
        # Nothing is awaited while the environment is another.
        before = os.environ.get("CLAUDE_CONFIG_DIR")
        os.environ["CLAUDE_CONFIG_DIR"] = str(s.home / ".claude")
        try:
            [inner] = list_subagents(result.session_id, **place)
            kept = get_subagent_messages(result.session_id, inner, **place)
            assert [message.type for message in kept] == ["user", "assistant"], kept
            rename_session(result.session_id, "Plums", **place)
            tag_session(result.session_id, "fruit", **place)
            info = get_session_info(result.session_id, **place)
            assert (info.custom_title, info.tag) == ("Plums", "fruit"), info
            said = get_session_messages(result.session_id, **place)
            forked = fork_session(result.session_id, up_to_message_id=said[-1].uuid, **place).session_id
            gone = fork_session(result.session_id, **place).session_id
            delete_session(gone, **place)
            assert {one.session_id for one in list_sessions(**place)} == {result.session_id, forked}
        finally:
            os.environ.pop("CLAUDE_CONFIG_DIR")
            if before is not None:
                os.environ["CLAUDE_CONFIG_DIR"] = before
        s.options.resume = forked
        _, second = await s.ok("the second thing")
        assert (second.result, second.session_id) == ("Two.", forked), second
        heard = told(s.bodies()[-1])
        assert "the first thing" in heard and "There are seven." in heard


@scenario("session_store: the conversation is mirrored and taken up again", "1.1 sessionStore", "1.3 transcript_mirror")
async def _():
    agents = {"counter": AgentDefinition(description="Counts.", prompt="Count.", tools=["Bash"])}
    delegate = call("Agent", description="count", prompt="Count the PLUMS.", subagent_type="counter", run_in_background=False)
    replies = [
        {"match": {"last_text_contains": "PLUMS"}, "text": "There are seven."},
        {"match": {"last_text_contains": "the first thing"}, "tool_use": [delegate]},
        {"text": "Seven."},
        {"match": {"last_text_contains": "the second thing"}, "text": "Two."},
    ]
    store = InMemorySessionStore()
    config = lambda cwd, home: {"CLAUDE_CONFIG_DIR": str(home / ".claude")}
    with session(replies, agents=agents, allowed_tools=["Agent"], session_store=store, env=config) as s:
        _, result = await s.ok("the first thing")
        place = {"directory": str(s.cwd)}
        kept = await get_session_messages_from_store(store, result.session_id, **place)
        assert [message.type for message in kept] == ["user", "assistant", "user", "assistant"], kept
        [inner] = await list_subagents_from_store(store, result.session_id, **place)
        said = await get_subagent_messages_from_store(store, result.session_id, inner, **place)
        assert [message.type for message in said] == ["user", "assistant"], said
        # What lies on the disk is not needed.
        shutil.rmtree(s.home / ".claude")
        s.options.resume = result.session_id
        _, second = await s.ok("the second thing")
        assert (second.result, second.session_id) == ("Two.", result.session_id), second
        assert nanos(second.total_cost_usd) == nanos(result.total_cost_usd) + 70_000, (result, second)
        assert "the first thing" in told(s.bodies()[-1])
        kept = await get_session_messages_from_store(store, result.session_id, **place)
        assert len(kept) == 6, kept


@scenario("resume of a conversation that is not there", "2.7 bad resume")
async def _():
    missing = str(uuid.uuid4())
    with session(resume=missing) as s:
        _, error = await s.turn()
        assert isinstance(error, ResultError) and f"No conversation found with session ID: {missing}" in str(error), repr(error)


@scenario("settings and setting_sources: rules, CLAUDE.md", "1.1 settings", "1.1 settingSources")
async def _():
    files = {"CLAUDE.md": "Mind the PLUMS.", ".claude/settings.json": {"permissions": {"deny": ["Bash(touch:*)"]}}}
    replies = [{"tool_use": [bash("touch a"), bash("mkdir b")]}, {"text": "Done."}]
    settings = '{"permissions":{"deny":["Bash(mkdir:*)"]}}'
    for sources, made in [([], [True, False]), (["project"], [False, False])]:
        with session(replies, files, setting_sources=sources, settings=settings, **BYPASS) as s:
            await s.ok()
            assert [s.has("a"), s.has("b")] == made, sources
            assert ("Mind the PLUMS." in told(s.bodies()[0])) == bool(sources)


@scenario("agents: one is asked and answers", "1.1 agents", "1.3 system/task_started")
async def _():
    agents = {"counter": AgentDefinition(description="Counts.", prompt="You are the counter with the mark KIWI.", tools=["Bash"], model="haiku")}
    asking = call("Agent", description="count", prompt="Count the PLUMS.", subagent_type="counter", run_in_background=False)
    replies = [
        {"match": {"last_text_contains": "PLUMS"}, "tool_use": [bash("echo seven")]},
        {"match": {"last_text_contains": "PLUMS"}, "text": "There are seven."},
        {"tool_use": [asking]},
        {"text": "Seven."},
    ]
    with session(replies, agents=agents, allowed_tools=["Agent", "Bash"]) as s:
        messages, result = await s.ok()
        assert "counter" in init_of(messages)["agents"]
        inner = [body for body in s.bodies() if "KIWI" in told(body)]
        assert [body["model"] for body in inner] == ["claude-haiku-5-5"] * 2, [body["model"] for body in inner]
        nested = [message for message in of(AssistantMessage, messages) if message.parent_tool_use_id]
        assert len(nested) == 1 and nested[0].parent_tool_use_id == calls_in(messages)[0].id
        assert set(result.model_usage) == {MODEL, "claude-haiku-5-5"} and result.result == "Seven."


@scenario("create_sdk_mcp_server: tools of the host, one that fails", "1.1 mcpServers", "1.2 mcp_message")
async def _():
    @tool("add", "Adds two numbers.", {"a": float, "b": float})
    async def add(arguments):
        return {"content": [{"type": "text", "text": f"It is {arguments['a'] + arguments['b']:g}."}]}

    @tool("fail", "Fails.", {})
    async def fail(arguments):
        raise RuntimeError("It broke.")

    lab = create_sdk_mcp_server(name="lab", version="1.0.0", tools=[add, fail])
    replies = [{"tool_use": [call("mcp__lab__add", a=1, b=2), call("mcp__lab__fail")]}, {"text": "Done."}]
    with session(replies, mcp_servers={"lab": lab}, allowed_tools=["mcp__lab"]) as s:
        messages, result = await s.ok(stream("add"))
        assert [(one["name"], one["status"]) for one in init_of(messages)["mcp_servers"]] == [("lab", "connected")]
        assert "mcp__lab__add" in init_of(messages)["tools"]
        three, broken = results_in(s.bodies()[1])
        assert text(three["content"]) == "It is 3." and broken["is_error"] is True and "It broke." in text(broken["content"])
        assert result.result == "Done."


@scenario("mcp_servers: a file, and strict_mcp_config", "1.1 mcpServers", "1.1 strictMcpConfig")
async def _():
    files = {"servers.json": {"mcpServers": {"lab": LAB}}, ".mcp.json": {"mcpServers": {"other": LAB}}}
    replies = [{"tool_use": [call("mcp__lab__add", a=1, b=2)]}, {"text": "Done."}]
    with session(
        replies,
        files,
        mcp_servers=lambda cwd, home: str(cwd / "servers.json"),
        strict_mcp_config=True,
        setting_sources=["project"],
        allowed_tools=["mcp__lab__add"],
    ) as s:
        messages, _ = await s.ok()
        assert [one["name"] for one in init_of(messages)["mcp_servers"]] == ["lab"]
        assert text(results_in(s.bodies()[1])[0]["content"]) == "It is 3."


@scenario("stop_task: a background command ends", "1.2 stopTask", "1.3 system/task_notification")
async def _():
    replies = [{"tool_use": [bash("exec sleep 600", run_in_background=True)]}, {"text": "It runs."}, {"text": "Noted.", "repeat": True}]
    with session(replies, **BYPASS) as s:
        async with s.client() as client:
            messages = await client.say("go")
            [started] = [message.data for message in of(SystemMessage, messages) if message.subtype == "task_started"]
            await client.stop_task(started["task_id"])
            async for message in client.receive_messages():
                if isinstance(message, SystemMessage) and message.subtype == "task_notification":
                    assert (message.data["task_id"], message.data["status"]) == (started["task_id"], "stopped"), message
                    break


@scenario("thinking, effort, betas, task_budget: what reaches the API", "1.1 thinking", "1.1 effort", "1.1 betas", "1.1 taskBudget")
async def _():
    with session(effort="low", betas=["context-1m-2025-08-07"], task_budget={"total": 50_000}) as s:
        await s.ok()
        [request] = s.calls()
        assert request["body"]["output_config"]["effort"] == "low"
        assert request["body"]["output_config"]["task_budget"]["total"] == 50_000
        assert "context-1m-2025-08-07" in request["headers"]["anthropic-beta"]
    with session(model="claude-haiku-4-5", max_thinking_tokens=2048) as s:
        await s.ok()
        thinking = s.bodies()[0]["thinking"]
        assert (thinking["type"], thinking["budget_tokens"]) == ("enabled", 2048), thinking


@scenario("fallback_model: asked when the model is overloaded", "1.1 fallbackModel", "2.7 529 once")
async def _():
    other = "claude-haiku-5-5"
    overloaded = {"match": {"model": MODEL}, "error": {"status": 529, "headers": {"retry-after": "0"}}, "repeat": True}
    with session([overloaded, {"match": {"model": other}, "text": "I stand in."}], fallback_model=other, env={"CLAUDE_CODE_MAX_RETRIES": "3"}) as s:
        messages, result = await s.ok()
        assert result.result == "I stand in." and of(AssistantMessage, messages)[-1].model == other


@scenario("skills: found, listed and used", "1.1 skills")
async def _():
    files = {".claude/skills/peel/SKILL.md": "---\nname: peel\ndescription: Peels a fruit of any kind\n---\nPeel it with the mark MANGO.\n"}
    replies = [{"tool_use": [call("Skill", skill="peel")]}, {"text": "Done."}]
    with session(replies, files, setting_sources=["project"], skills=["peel"]) as s:
        messages, _ = await s.ok()
        assert "peel" in init_of(messages)["skills"]
        first, second = map(told, s.bodies())
        assert "Peels a fruit of any kind" in first and "MANGO" not in first and "MANGO" in second


@scenario("include_hook_events: command hooks are seen", "1.1 includeHookEvents", "1.3 system/hook_started", "1.3 system/hook_response")
async def _():
    settings = '{"hooks":{"PreToolUse":[{"matcher":"Bash","hooks":[{"type":"command","command":"echo said"}]}]}}'
    with session([{"tool_use": [bash("true")]}, {"text": "Done."}], settings=settings, include_hook_events=True, **BYPASS) as s:
        messages, _ = await s.ok()
        events = [message for message in messages if getattr(message, "subtype", "").startswith("hook_")]
        assert [event.subtype for event in events] == ["hook_started", "hook_response"], events


@scenario("user: a prompt of blocks, with an image", "1.3 user")
async def _():
    pixel = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": pixel}}

    async def prompts():
        yield user([{"type": "text", "text": "What is this?"}, image])

    with session([{"text": "A pixel."}]) as s:
        _, result = await s.ok(prompts())
        assert result.result == "A pixel."
        blocks = [block for message in s.bodies()[0]["messages"] if message["role"] == "user" for block in message["content"]]
        assert "image" in [block["type"] for block in blocks], blocks


main()
