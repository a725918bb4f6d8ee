// The messages: table 1.3, those that no other file has.
import { existsSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { MODEL, all, assert, bash, blocks, call, find, kind, resultsIn, scenario, text, told, toolResults } from "./lib.mjs";
import { deleteSession, forkSession, getSessionInfo, getSessionMessages, getSubagentMessages, listSessions, listSubagents, renameSession, tagSession } from "../sdk/node_modules/@anthropic-ai/claude-agent-sdk/sdk.mjs";

const bypass = { permissionMode: "bypassPermissions", allowDangerouslySkipPermissions: true };
const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;

scenario("system/init: once a turn, with what there is", "1.3 system/init", async (t) => {
  const s = await t.session({ replies: [{ text: "One." }, { text: "Two." }], options: { permissionMode: "acceptEdits" } });
  const live = s.live();
  await live.say("first");
  await live.say("second");
  await live.end();
  const inits = all(live.messages, "system/init");
  assert.equal(inits.length, 2);
  for (const init of inits) {
    assert.deepEqual([init.cwd, init.model, init.permissionMode, init.apiKeySource, init.output_style], [s.cwd, MODEL, "acceptEdits", "ANTHROPIC_API_KEY", "default"]);
    assert.match(init.claude_code_version, /^\d+\.\d+\.\d+/);
    assert.match(init.uuid, UUID);
    for (const list of ["tools", "mcp_servers", "slash_commands", "agents", "skills", "plugins", "capabilities"]) {
      assert.ok(Array.isArray(init[list]), `${list}: ${init[list]}`);
    }
    for (const tool of ["Task", "Bash", "Read", "Write", "Edit"]) assert.ok(init.tools.includes(tool), `${tool}: ${init.tools}`);
    assert.ok(init.agents.includes("general-purpose") && init.slash_commands.includes("compact"));
    assert.ok(init.capabilities.includes("interrupt_receipt_v1"), `${init.capabilities}`);
  }
  assert.equal(inits[0].session_id, inits[1].session_id);
});

scenario("assistant: one block each, one message id a reply", "1.3 assistant", async (t) => {
  const s = await t.session({
    replies: [{ thinking: "Hm.", text: "I look.", tool_use: [bash("true"), bash("true")] }, { text: "Done." }],
    options: { allowedTools: ["Bash"] },
  });
  const { messages, init } = await s.ok();
  const said = all(messages, "assistant");
  assert.deepEqual(said.map((message) => message.message.content.map((block) => block.type)), [["thinking"], ["text"], ["tool_use"], ["tool_use"], ["text"]]);
  assert.equal(new Set(said.slice(0, 4).map((message) => message.message.id)).size, 1);
  assert.equal(new Set(said.map((message) => message.uuid)).size, 5);
  for (const message of said) {
    assert.deepEqual([message.message.stop_reason, message.message.role, message.message.model], [null, "assistant", MODEL]);
    assert.deepEqual([message.parent_tool_use_id, message.session_id], [null, init.session_id]);
    assert.equal(message.message.usage.input_tokens, 10);
    assert.ok(message.request_id.startsWith("req_") && !Number.isNaN(Date.parse(message.timestamp)));
  }
  assert.equal(typeof said[0].message.content[0].signature, "string");
});

scenario("user: a tool's result, for the model and for programs", "1.3 user", async (t) => {
  const s = await t.session({
    replies: ({ cwd }) => [
      { tool_use: [call("Write", { file_path: join(cwd, "a.txt"), content: "one\ntwo\n" })] },
      { tool_use: [call("Read", { file_path: join(cwd, "a.txt") })] },
      { tool_use: [call("Edit", { file_path: join(cwd, "a.txt"), old_string: "two", new_string: "three" })] },
      { tool_use: [call("Read", { file_path: join(cwd, "missing.txt") })] },
      { tool_use: [call("Nonsense", {})] },
      { tool_use: [call("Read", {})] },
      { text: "Done." },
    ],
    options: { permissionMode: "acceptEdits" },
  });
  const { messages, result } = await s.ok();
  const users = all(messages, "user");
  assert.equal(users.length, 6);
  for (const message of users) {
    assert.deepEqual([message.message.role, message.parent_tool_use_id], ["user", null]);
    assert.match(message.uuid, UUID);
    assert.ok(!Number.isNaN(Date.parse(message.timestamp)));
  }
  const [write, read, edit, ...failed] = users.map((message) => message.tool_use_result);
  assert.deepEqual([write.type, write.filePath, write.content, write.originalFile], ["create", s.path("a.txt"), "one\ntwo\n", null]);
  assert.deepEqual([read.type, read.file.filePath, read.file.startLine, read.file.content], ["text", s.path("a.txt"), 1, "one\ntwo\n"]);
  assert.deepEqual([edit.oldString, edit.newString, edit.originalFile, edit.replaceAll], ["two", "three", "one\ntwo\n", false]);
  assert.deepEqual([edit.structuredPatch.length, edit.structuredPatch[0].oldStart], [1, 1]);
  for (const one of failed) assert.match(one, /^(Error|InputValidationError)/);
  assert.deepEqual(toolResults(messages).map((block) => block.is_error === true), [false, false, false, true, true, true]);
  assert.match(text(toolResults(messages)[1].content), /^\s*1\tone\n\s*2\ttwo/);
  assert.deepEqual([result.num_turns, result.permission_denials], [7, []]);
});

scenario("the message ends: result/success comes last", "1.3 result/success", async (t) => {
  const s = await t.session({ wire: true });
  const { result } = await s.ok();
  assert.equal(kind(result), "result/success");
  const kinds = s.frames.map(kind);
  assert.deepEqual(kinds.slice(kinds.indexOf("result/success")), ["result/success", "system/session_state_changed"]);
  for (const field of ["inference_geo", "iterations", "speed", "service_tier", "server_tool_use", "cache_creation", "output_tokens_details"]) {
    assert.ok(field in result.usage, `${field}: ${Object.keys(result.usage)}`);
  }
  for (const field of ["model_usage_since_last_result", "fast_mode_state", "subagent_stats", "queued_turn_count", "result_index"]) {
    assert.ok(field in result, `${field}: ${Object.keys(result)}`);
  }
});

scenario("session_state_changed: running, asking, running, idle", "1.3 system/session_state_changed", async (t) => {
  const s = await t.session({
    wire: true,
    replies: [{ tool_use: [bash("touch made")] }, { text: "Done." }],
    options: { permissionMode: "default", canUseTool: async (_name, input) => ({ behavior: "allow", updatedInput: input }) },
  });
  const { messages } = await s.ok();
  const states = s.frames.filter((frame) => frame.subtype === "session_state_changed");
  assert.deepEqual(states.map((frame) => frame.state), ["running", "requires_action", "running", "idle"]);
  assert.ok(states.every((frame) => frame.sdk_host_only === true));
  assert.equal(find(messages, "system/session_state_changed"), undefined);
});

scenario("control_cancel_request: a question that an interrupt withdraws", "1.3 control_cancel_request", async (t) => {
  const s = await t.session({
    wire: true,
    replies: [{ tool_use: [bash("touch made")] }, { text: "Here I am." }],
    options: { permissionMode: "default", canUseTool: () => new Promise(() => {}) },
  });
  const live = s.live();
  live.send("first");
  const asked = await s.frame((frame) => frame.type === "control_request" && frame.request.subtype === "can_use_tool");
  await live.query.interrupt();
  const cancelled = await s.frame((frame) => frame.type === "control_cancel_request");
  assert.equal(cancelled.request_id, asked.request_id);
  const result = await live.result();
  assert.deepEqual([result.subtype, result.terminal_reason], ["error_during_execution", "aborted_tools"]);
  assert.equal((await live.say("second")).result, "Here I am.");
  assert.equal(s.has("made"), false);
  await live.end();
});

scenario("permission_denied: by a mode, with nobody to ask; not by a hook", "1.3 system/permission_denied", async (t) => {
  const deny = { hookSpecificOutput: { hookEventName: "PreToolUse", permissionDecision: "deny", permissionDecisionReason: "No." } };
  const s = await t.session({
    replies: [{ tool_use: [bash("touch made")] }, { tool_use: [bash("mkdir other")] }, { text: "Done." }],
    options: { permissionMode: "default", hooks: { PreToolUse: [{ hooks: [async (input) => (input.tool_input.command === "mkdir other" ? deny : {})] }] } },
  });
  const { messages, result } = await s.ok();
  const [asked] = blocks(messages, "assistant");
  const denied = all(messages, "system/permission_denied");
  assert.deepEqual(denied.map(({ tool_name, tool_use_id }) => [tool_name, tool_use_id]), [["Bash", asked.id]]);
  assert.equal(typeof denied[0].message, "string");
  assert.deepEqual(result.permission_denials.map((one) => one.tool_input.command), ["touch made", "mkdir other"]);
});

scenario("thinking_tokens: while the model thinks", "1.3 system/thinking_tokens", async (t) => {
  const s = await t.session({ replies: [{ thinking: "A long thought about plums and pears. ".repeat(40), text: "Done.", chunk_bytes: 40 }], options: { includePartialMessages: true } });
  const { messages } = await s.ok();
  const counts = all(messages, "system/thinking_tokens");
  assert.ok(counts.length > 0, messages.map(kind).join());
  assert.ok(counts.every((one) => one.estimated_tokens > 0 && one.estimated_tokens_delta >= 0));
});

scenario("command_lifecycle: of prompts that have an id", "1.3 command_lifecycle", async (t) => {
  const s = await t.session({ wire: true, replies: [{ text: "One." }, { text: "Two." }] });
  const live = s.live();
  const uuid = "66666666-6666-4666-8666-666666666666";
  await live.say("first");
  await live.say("second", { uuid });
  await live.end();
  const states = s.frames.filter((frame) => frame.type === "command_lifecycle");
  assert.deepEqual(states.map(({ command_uuid, state }) => [command_uuid, state]), ["queued", "started", "completed"].map((state) => [uuid, state]));
});

scenario("keep_alive and unknown frames are ignored; a line that is no JSON ends it", "1.3 keep_alive", async (t) => {
  const s = await t.session({ wire: true, replies: [{ text: "One." }] });
  const live = s.live();
  await live.query.initializationResult();
  s.child.stdin.write('{"type":"keep_alive"}\n{"type":"no_such_type"}\n\n');
  assert.equal((await live.say("first")).result, "One.");
  s.child.stdin.write("this is no JSON\n");
  assert.equal(await s.exited, 1);
});

scenario("replay: prompts come back when asked for", "1.3 user", async (t) => {
  const s = await t.session({ options: { extraArgs: { "replay-user-messages": null } } });
  const live = s.live();
  const uuid = "77777777-7777-4777-8777-777777777777";
  await live.say("first", { uuid });
  await live.end();
  const [replayed] = all(live.messages, "user");
  assert.deepEqual([replayed.isReplay, replayed.uuid, text(replayed.message.content)], [true, uuid, "first"]);
});

const chatter = "Plums. ".repeat(2000);

scenario("compaction by /compact: a boundary, and the model starts from a summary", ["1.3 system/compact_boundary", "1.4 PreCompact", "1.4 PostCompact", "2.7 local slash command"], async (t) => {
  const fired = [];
  const hook = async (input) => (fired.push(input), {});
  const s = await t.session({
    replies: [{ text: chatter }, { text: "Two." }, { match: { last_text_contains: "the third thing" }, text: "Three." }, { text: "<summary>They spoke of the MANGO.</summary>", repeat: true }],
    options: { hooks: { PreCompact: [{ hooks: [hook] }], PostCompact: [{ hooks: [hook] }] } },
  });
  const live = s.live();
  await live.say("the first thing");
  await live.say("the second thing");
  const compacted = await live.say("/compact keep the fruit");
  assert.deepEqual([compacted.subtype, compacted.is_error, compacted.num_turns], ["success", false, 0]);
  const boundary = find(live.messages, "system/compact_boundary");
  assert.equal(boundary.compact_metadata.trigger, "manual");
  assert.ok(boundary.compact_metadata.pre_tokens > 0);
  const states = all(live.messages, "system/status").map((message) => message.status);
  assert.ok(states.includes("compacting"), `${states}`);
  assert.deepEqual(fired.map((input) => [input.hook_event_name, input.trigger]), [["PreCompact", "manual"], ["PostCompact", "manual"]]);
  assert.match(fired[0].custom_instructions, /keep the fruit/);
  assert.match(fired[1].compact_summary, /MANGO/);
  const third = await live.say("the third thing");
  assert.equal(third.result, "Three.");
  const heard = told(s.bodies().at(-1));
  assert.ok(heard.includes("MANGO") && !heard.includes(chatter.slice(0, 200)), heard.slice(0, 500));
  await live.end();
});

scenario("a command that runs behind: started, listed, ended, told", ["1.3 system/task_started", "1.3 system/task_updated", "1.3 system/task_notification", "1.3 system/background_tasks_changed"], async (t) => {
  const s = await t.session({
    replies: [
      { tool_use: [bash("while [ ! -e go ]; do sleep 0.05; done; echo a line", { run_in_background: true, description: "wait" })] },
      { text: "It runs." },
      { text: "It ended.", repeat: true },
    ],
    options: bypass,
  });
  const live = s.live();
  live.send("first");
  const started = await live.until("system/task_started");
  assert.deepEqual([started.task_type, typeof started.description], ["local_bash", "string"]);
  const [asked] = blocks(live.messages, "assistant");
  assert.equal(started.tool_use_id, asked.id);
  assert.equal((await live.result()).result, "It runs.");
  const output = find(live.messages, "user").tool_use_result;
  assert.equal(output.backgroundTaskId, started.task_id);
  writeFileSync(s.path("go"), "");
  const ended = await live.until("system/task_notification");
  assert.deepEqual([ended.task_id, ended.status, ended.tool_use_id], [started.task_id, "completed", asked.id]);
  assert.equal(readFileSync(ended.output_file, "utf8").trim(), "a line");
  // The model is told without a prompt.
  assert.equal((await live.result()).result, "It ended.");
  await live.end();
  const changed = all(live.messages, "system/background_tasks_changed").map((message) => message.tasks.length);
  assert.deepEqual([changed[0], changed.at(-1)], [1, 0]);
  const updates = all(live.messages, "system/task_updated");
  assert.ok(updates.some((message) => message.task_id === started.task_id && message.patch.status === "completed"), JSON.stringify(updates));
});

const agents = { counter: { description: "Counts things.", prompt: "You are the counter with the mark KIWI.", tools: ["Bash"] } };
const delegate = (more) => call("Agent", { description: "count", prompt: "Count the PLUMS.", subagent_type: "counter", run_in_background: false, ...more });
const counted = [
  { match: { last_text_contains: "PLUMS" }, tool_use: [bash("echo seven")] },
  { match: { last_text_contains: "PLUMS" }, text: "There are seven." },
];

scenario("a subagent: task_started, task_progress, task_notification, and whose messages they are", ["1.3 system/task_progress", "1.3 system/task_started", "1.3 assistant"], async (t) => {
  const s = await t.session({ replies: [...counted, { tool_use: [delegate()] }, { text: "Done." }], options: { agents, allowedTools: ["Bash", "Agent"] } });
  const { messages, result } = await s.ok();
  const [asked] = blocks(messages, "assistant");
  const started = find(messages, "system/task_started");
  assert.deepEqual([started.task_type, started.tool_use_id, started.description], ["local_agent", asked.id, "count"]);
  const progress = find(messages, "system/task_progress");
  assert.deepEqual([progress.task_id, progress.last_tool_name], [started.task_id, "Bash"]);
  assert.ok(progress.usage.tool_uses >= 1 && progress.usage.total_tokens > 0);
  const inner = all(messages, "assistant").filter((message) => message.parent_tool_use_id === asked.id);
  assert.deepEqual(inner.map((message) => message.message.content[0].type), ["tool_use"]);
  assert.deepEqual([inner[0].subagent_type, inner[0].task_description], ["counter", "count"]);
  assert.equal(typeof inner[0].agent_id, "string");
  assert.deepEqual([result.num_turns, result.subagent_stats.by_type.counter !== undefined], [2, true]);
  // Four calls: usage is the main loop's, the rest counts as well.
  assert.equal(result.usage.output_tokens, 10);
  assert.equal(result.modelUsage[MODEL].outputTokens, 20);
});

scenario("a subagent behind: launched, and its report comes later", ["1.3 system/task_notification"], async (t) => {
  const s = await t.session({
    replies: [...counted, { match: { last_text_contains: "the first thing" }, tool_use: [delegate({ run_in_background: true })] }, { text: "Noted.", repeat: true }],
    options: { agents, allowedTools: ["Bash", "Agent"] },
  });
  const live = s.live();
  live.send("the first thing");
  const ended = await live.until("system/task_notification");
  assert.equal(ended.status, "completed");
  const [asked] = blocks(live.messages, "assistant");
  const launched = live.messages.find((message) => message.type === "user" && message.parent_tool_use_id === null).tool_use_result;
  assert.equal(launched.status, "async_launched");
  assert.equal(typeof launched.agentId, "string");
  assert.equal(ended.tool_use_id, asked.id);
  await live.query.interrupt().catch(() => {});
  await live.end();
});

scenario("transcripts: the SDK's helpers list, read, fork, rename, tag and delete them", ["1.1 persistSession", "1.3 result/success"], async (t) => {
  const s = await t.session({
    replies: [...counted, { tool_use: [delegate()] }, { text: "Done." }],
    options: { agents, allowedTools: ["Bash", "Agent"] },
  });
  const { result } = await s.ok("the first thing");
  const id = result.session_id;
  await s.helper(async () => {
    const [listed] = await listSessions({ dir: s.cwd });
    assert.deepEqual([listed.sessionId, listed.firstPrompt, listed.cwd], [id, "the first thing", s.cwd]);
    const kept = await getSessionMessages(id, { dir: s.cwd });
    assert.deepEqual(kept.map((message) => message.type), ["user", "assistant", "user", "assistant"]);
    const subagents = await listSubagents(id, { dir: s.cwd });
    assert.equal(subagents.length, 1);
    const inner = await getSubagentMessages(id, subagents[0].agentId ?? subagents[0], { dir: s.cwd });
    assert.deepEqual(inner.map((message) => message.type), ["user", "assistant", "user", "assistant"]);
    await renameSession(id, "Plums", { dir: s.cwd });
    await tagSession(id, "fruit", { dir: s.cwd });
    const info = await getSessionInfo(id, { dir: s.cwd });
    assert.deepEqual([info.customTitle, info.tag], ["Plums", "fruit"]);
    const forked = await forkSession(id, { dir: s.cwd });
    assert.equal((await getSessionMessages(forked.sessionId, { dir: s.cwd })).length, 4);
    await deleteSession(forked.sessionId, { dir: s.cwd });
    assert.equal((await listSessions({ dir: s.cwd })).length, 1);
  });
});

scenario("transcripts: after a compaction, of subagents within subagents, forked at a message", ["1.1 persistSession", "1.3 system/compact_boundary"], async (t) => {
  const nested = { counter: { ...agents.counter, tools: ["Agent"] }, peeler: { description: "Peels.", prompt: "Peel." } };
  const s = await t.session({
    replies: [
      { match: { last_text_contains: "the first thing" }, tool_use: [delegate()] },
      { match: { last_text_contains: "PLUMS" }, tool_use: [call("Agent", { description: "peel", prompt: "Peel the PEARS.", subagent_type: "peeler", run_in_background: false })] },
      { match: { last_text_contains: "PEARS" }, text: "They are peeled." },
      { match: { tool_result_contains: "They are peeled." }, text: "There are seven." },
      { match: { tool_result_contains: "There are seven." }, text: "Seven." },
      { match: { last_text_contains: "the thing between" }, text: "Between." },
      { match: { last_text_contains: "the second thing" }, text: "Two." },
      { match: { last_text_contains: "the last thing" }, text: "Last." },
      { text: "<summary>The mark is KIWI.</summary>" },
    ],
    options: { agents: nested, allowedTools: ["Agent"], model: "claude-sonnet-5" },
  });
  const live = s.live();
  const { session_id: resume } = await live.say("the first thing");
  await live.say("the thing between");
  const dir = { dir: s.cwd };
  const words = (messages) => messages.map((message) => [message.type, text(message.message.content)]);
  const before = await s.helper(async () => {
    const subagents = await listSubagents(resume, dir);
    const inner = await Promise.all(subagents.map((id) => getSubagentMessages(resume, id, dir)));
    assert.deepEqual(inner.map((messages) => messages.length).sort(), [2, 4]);
    const asked = inner.map((messages) => text(messages[0].message.content));
    assert.ok(["PLUMS", "PEARS"].every((word) => asked.some((said) => said.includes(word))), `${asked}`);
    assert.ok(inner.flat().every((message) => typeof message.parent_tool_use_id === "string"));
    // Those of subagents within subagents lie beside those of the first.
    const files = readdirSync(join(s.home, ".claude/projects"), { recursive: true }).filter((name) => name.endsWith(".jsonl"));
    assert.deepEqual(files.map((name) => name.split("/").length).sort(), [2, 4, 4]);
    return getSessionMessages(resume, dir);
  });
  assert.equal(words(before)[0][1], "the first thing");
  await live.say("/compact");
  await live.say("the second thing");
  await live.end();
  const fork = await s.helper(async () => {
    const kept = await getSessionMessages(resume, dir);
    assert.equal(kept[0].type, "user");
    assert.match(words(kept)[0][1], /The mark is KIWI/);
    assert.ok(!words(kept).some(([, said]) => said === "the first thing"));
    assert.deepEqual(words(kept).slice(-2), [["user", "the second thing"], ["assistant", "Two."]]);
    const page = await getSessionMessages(resume, { ...dir, limit: 2, offset: 1 });
    assert.deepEqual(page.map((message) => message.uuid), kept.slice(1, 3).map((message) => message.uuid));
    const forked = await forkSession(resume, { ...dir, upToMessageId: kept.at(-3).uuid, title: "Pears" });
    assert.equal((await getSessionMessages(forked.sessionId, dir)).length, kept.length - 2);
    assert.equal((await getSessionInfo(forked.sessionId, dir)).customTitle, "Pears");
    await tagSession(resume, "fruit", dir);
    await tagSession(resume, null, dir);
    assert.equal((await getSessionInfo(resume, dir)).tag, undefined);
    return forked.sessionId;
  });
  const last = await s.ok("the last thing", { resume: fork });
  assert.deepEqual([last.result.result, last.result.session_id], ["Last.", fork]);
  const heard = told(last.bodies.at(-1));
  assert.ok(heard.includes("The mark is KIWI") && !heard.includes("the second thing"));
});

scenario("Read: free inside the working directory, and its lines have numbers", "1.3 user", async (t) => {
  const s = await t.session({
    files: { "note.txt": "first\nsecond\n" },
    replies: ({ cwd }) => [{ tool_use: [call("Read", { file_path: join(cwd, "note.txt") })] }, { text: "Done." }],
    options: { permissionMode: "default" },
  });
  const { messages, bodies } = await s.ok();
  const { file, type } = find(messages, "user").tool_use_result;
  assert.deepEqual([type, file.filePath, file.startLine], ["text", s.path("note.txt"), 1]);
  assert.match(file.content, /^first\nsecond/);
  assert.match(text(resultsIn(bodies[1])[0].content), /1\tfirst\n\s*2\tsecond/);
});

scenario("lines: a big result is cut, kept on disk, and no line is over 1 MiB", "1.3 user", async (t) => {
  const s = await t.session({
    wire: true,
    replies: [{ tool_use: [bash("yes plum | head -c 3000000")] }, { text: "Done." }],
    options: bypass,
  });
  const { messages, bodies } = await s.ok();
  for (const frame of s.frames) assert.ok(frame.line_bytes < 1024 * 1024, `${kind(frame)}: ${frame.line_bytes}`);
  const { persistedOutputPath, persistedOutputSize } = find(messages, "user").tool_use_result;
  assert.ok(existsSync(persistedOutputPath) && persistedOutputSize === 3_000_000, `${persistedOutputPath}: ${persistedOutputSize}`);
  assert.ok(text(resultsIn(bodies[1])[0].content).length < 100_000);
});

scenario("the prefix that the model reads stays the same from call to call", "1.3 assistant", async (t) => {
  const s = await t.session({
    replies: [{ tool_use: [bash("echo a")] }, { tool_use: [bash("echo b")] }, { text: "One." }, { text: "Two." }],
    options: { allowedTools: ["Bash"] },
  });
  const live = s.live();
  await live.say("the first thing");
  await live.say("the second thing");
  await live.end();
  const bodies = s.bodies();
  const bare = (value) => JSON.parse(JSON.stringify(value, (key, inner) => (key === "cache_control" ? undefined : inner)));
  for (const [before, after] of bodies.slice(1).map((body, index) => [bodies[index], body])) {
    assert.deepEqual(after.tools, before.tools);
    assert.ok(JSON.stringify([after.tools, after.messages, after.system]).includes("cache_control"));
    const [shorter, longer] = [before, after].map((body) => bare(body.messages.filter((message) => message.role !== "system")));
    assert.deepEqual(longer.slice(0, shorter.length), shorter);
  }
});

scenario("/clear: another conversation, which knows nothing of the first", "1.3 conversation_reset", async (t) => {
  const s = await t.session({ replies: [{ text: "One." }, { text: "Two." }] });
  const live = s.live();
  const first = await live.say("the first thing");
  const cleared = await live.say("/clear");
  const reset = find(live.messages, "conversation_reset");
  assert.match(reset.new_conversation_id, UUID);
  assert.deepEqual([cleared.subtype, cleared.num_turns], ["success", 0]);
  assert.notEqual(cleared.session_id, first.session_id);
  const second = await live.say("the second thing");
  assert.equal(second.session_id, cleared.session_id);
  assert.ok(!told(s.bodies()[1]).includes("the first thing"));
  await live.end();
});

scenario("Glob and Grep: when they are named", ["1.3 user", "1.1 tools"], async (t) => {
  const s = await t.session({
    files: { "src/a.py": "one = 1\ntwo = 2\n", "b.txt": "two\n" },
    replies: [
      { tool_use: [call("Glob", { pattern: "**/*.py" })] },
      { tool_use: [call("Grep", { pattern: "two", output_mode: "content", "-n": true, glob: "*.py" })] },
      { tool_use: [call("Grep", { pattern: "TWO", output_mode: "count", "-i": true })] },
      { tool_use: [call("Grep", { pattern: "two" })] },
      { text: "Done." },
    ],
    options: { tools: ["Glob", "Grep"] },
  });
  const { messages } = await s.ok();
  const [glob, content, count, files] = all(messages, "user").map((message) => message.tool_use_result);
  assert.deepEqual([glob.numFiles, glob.truncated, glob.filenames.length], [1, false, 1]);
  assert.match(glob.filenames[0], /src\/a\.py$/);
  assert.equal(content.mode, "content");
  assert.match(content.content, /2:two = 2/);
  assert.deepEqual([count.mode, count.numMatches], ["count", 2]);
  assert.deepEqual([files.mode, files.numFiles], ["files_with_matches", 2]);
});
