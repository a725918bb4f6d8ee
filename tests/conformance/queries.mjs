// The methods of `Query` and the control requests behind them: table 1.2.
import { readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { MODEL, all, assert, bash, call, find, lab, nanos, resultsIn, scenario, text, told, toolResults } from "./lib.mjs";

const write = (file_path, content = "x\n") => call("Write", { file_path, content });
const bypass = { permissionMode: "bypassPermissions", allowDangerouslySkipPermissions: true };
const one = [{ text: "One." }, { text: "Two." }];

scenario("setPermissionMode: from now on", "1.2 setPermissionMode", async (t) => {
  const s = await t.session({
    replies: ({ cwd }) => [{ tool_use: [write(join(cwd, "a"))] }, { text: "No." }, { tool_use: [write(join(cwd, "b"))] }, { text: "Yes." }],
    options: { permissionMode: "default" },
  });
  const live = s.live();
  await live.say("write a");
  await live.query.setPermissionMode("acceptEdits");
  await live.say("write b");
  assert.deepEqual([s.has("a"), s.has("b")], [false, true]);
  assert.deepEqual(all(live.messages, "system/init").map((init) => init.permissionMode), ["default", "acceptEdits"]);
  await assert.rejects(live.query.setPermissionMode("bypassPermissions"));
  await live.end();
});

scenario("setModel: from now on", "1.2 setModel", async (t) => {
  const other = "claude-haiku-5-5";
  const s = await t.session({ replies: [{ match: { model: MODEL }, text: "One." }, { match: { model: other }, text: "Two.", repeat: true }] });
  const live = s.live();
  await live.say("first");
  await live.query.setModel(other);
  const second = await live.say("second");
  assert.deepEqual(s.bodies().map((body) => body.model), [MODEL, other]);
  assert.deepEqual(all(live.messages, "system/init").map((init) => init.model), [MODEL, other]);
  assert.ok(second.modelUsage[MODEL] && second.modelUsage[other]);
  await live.end();
});

scenario("setMaxThinkingTokens: from now on", "1.2 setMaxThinkingTokens", async (t) => {
  const s = await t.session({ replies: one, options: { model: "claude-haiku-4-5", thinking: { type: "disabled" } } });
  const live = s.live();
  await live.say("first");
  await live.query.setMaxThinkingTokens(2048);
  await live.say("second");
  const [before, after] = s.bodies().map((body) => body.thinking);
  assert.ok(before === undefined || before.type === "disabled");
  assert.deepEqual([after.type, after.budget_tokens], ["enabled", 2048]);
  await live.end();
});

scenario("setMcpPermissionModeOverride: an unknown server is warned of", "1.2 setMcpPermissionModeOverride", async (t) => {
  const s = await t.session({ options: { mcpServers: { lab } } });
  const live = s.live();
  await live.say("first");
  assert.equal((await live.query.setMcpPermissionModeOverride("lab", "default"))?.warning, undefined);
  assert.equal(typeof (await live.query.setMcpPermissionModeOverride("nope", "default")).warning, "string");
  await live.end();
});

scenario("applyFlagSettings: rules and environment from now on", "1.2 applyFlagSettings", async (t) => {
  const s = await t.session({
    replies: [{ tool_use: [bash("touch a")] }, { text: "One." }, { tool_use: [bash("touch b")] }, { text: "Two." }],
    options: { permissionMode: "default" },
  });
  const live = s.live();
  await live.say("first");
  await live.query.applyFlagSettings({ permissions: { allow: ["Bash(touch:*)"] } });
  await live.say("second");
  assert.deepEqual([s.has("a"), s.has("b")], [false, true]);
  await live.end();
});

scenario("updateSettings: only what is on its list, only in sources that are on", "1.2 updateSettings", async (t) => {
  const s = await t.session({ options: { settingSources: ["local"] } });
  const live = s.live();
  await live.say("first");
  await live.query.updateSettings("localSettings", { outputStyle: "default" });
  assert.equal(JSON.parse(s.read(".claude/settings.local.json")).outputStyle, "default");
  await assert.rejects(live.query.updateSettings("localSettings", { permissions: { allow: ["Bash"] } }));
  await assert.rejects(live.query.updateSettings("userSettings", { effortLevel: "high" }));
  await live.end();
});

scenario("initializationResult: commands, models, agents, account", ["1.2 initializationResult", "1.2 supportedCommands", "1.2 supportedModels", "1.2 supportedAgents", "1.2 accountInfo"], async (t) => {
  const s = await t.session({
    files: { ".claude/commands/peel.md": "---\ndescription: Peels\nargument-hint: fruit\n---\nPeel $ARGUMENTS.\n" },
    options: { settingSources: ["project"], permissionMode: "acceptEdits", agents: { counter: { description: "Counts.", prompt: "Count." } } },
  });
  const live = s.live();
  const began = await live.query.initializationResult();
  const command = (await live.query.supportedCommands()).find((one) => one.name === "peel");
  assert.deepEqual([command.description.includes("Peels"), command.argumentHint], [true, "fruit"]);
  assert.ok((await live.query.supportedCommands()).some((one) => one.name === "compact"));
  const models = await live.query.supportedModels();
  assert.ok(models.some((one) => one.value === "haiku" && one.resolvedModel === "claude-haiku-5-5"), JSON.stringify(models.map(({ value, resolvedModel }) => [value, resolvedModel])));
  for (const model of models) assert.ok(typeof model.displayName === "string" && typeof model.description === "string");
  const agent = (await live.query.supportedAgents()).find((one) => one.name === "counter");
  assert.equal(agent.description, "Counts.");
  assert.ok((await live.query.supportedAgents()).some((one) => one.name === "general-purpose"));
  assert.equal((await live.query.accountInfo()).apiKeySource, "ANTHROPIC_API_KEY");
  assert.equal(began.output_style, "default");
  assert.equal(began.current_permission_mode, "acceptEdits");
  assert.equal(began.hook_on_failure_supported, true);
  assert.ok(Array.isArray(began.capabilities) && began.pid > 0);
  await live.say("hi");
  await live.end();
});

scenario("reinitialize: answered again, the hooks still apply", "1.2 reinitialize", async (t) => {
  let calls = 0;
  const s = await t.session({ replies: one, options: { hooks: { UserPromptSubmit: [{ hooks: [async () => (calls++, {})] }] } } });
  const live = s.live();
  await live.say("first");
  const again = await live.query.reinitialize();
  assert.equal(again.hooks_applied, true);
  assert.ok(again.models.length > 0);
  await live.say("second");
  assert.equal(calls, 2);
  await live.end();
});

scenario("mcpServerStatus: servers, what they are and offer", "1.2 mcpServerStatus", async (t) => {
  const s = await t.session({ options: { mcpServers: { lab } } });
  const live = s.live();
  await live.say("first");
  const [status] = await live.query.mcpServerStatus();
  assert.deepEqual([status.name, status.status, status.scope], ["lab", "connected", "dynamic"]);
  assert.deepEqual(status.serverInfo, { name: "lab", version: "1.2.3" });
  assert.equal(status.config.type, "stdio");
  assert.deepEqual(status.tools.map((tool) => tool.name), ["add", "fail", "ask", "approve"]);
  assert.equal(status.tools[0].annotations.readOnly, true);
  await live.end();
});

scenario("getContextUsage: categories that add up", "1.2 getContextUsage", async (t) => {
  const s = await t.session({ files: { "CLAUDE.md": "Plums. ".repeat(200) }, options: { settingSources: ["project"], mcpServers: { lab } } });
  const live = s.live();
  await live.say("first");
  for (const detail of ["summary", "full"]) {
    const usage = await live.query.getContextUsage({ detail });
    assert.equal(usage.model, MODEL);
    assert.ok(usage.totalTokens > 0 && usage.maxTokens >= 200_000 && usage.percentage >= 0, `${usage.totalTokens} of ${usage.maxTokens}`);
    const ids = usage.categories.map((one) => one.id);
    for (const id of ["system_tools", "memory_files", "free_space"]) assert.ok(ids.includes(id), `${id}: ${ids}`);
    assert.ok(usage.categories.every((one) => ["used", "free", "buffer", "deferred"].includes(one.kind) && one.tokens >= 0));
    assert.ok(usage.gridRows.length > 0 && usage.gridRows.every((row) => row.every((square) => typeof square.isFilled === "boolean")));
    assert.deepEqual(usage.memoryFiles.map((file) => file.path), [s.path("CLAUDE.md")]);
    assert.ok(usage.mcpTools.some((one) => one.serverName === "lab"));
  }
  await live.end();
});

scenario("usage: what the session cost", "1.2 usage", async (t) => {
  const s = await t.session();
  const live = s.live();
  await live.say("first");
  const usage = await live.query.usage_EXPERIMENTAL_MAY_CHANGE_DO_NOT_RELY_ON_THIS_API_YET({ skipBehaviors: true });
  assert.equal(nanos(usage.session.total_cost_usd), 70_000);
  assert.equal(usage.session.model_usage[MODEL].outputTokens, 5);
  assert.deepEqual([usage.rate_limits_available, usage.rate_limits, usage.subscription_type], [false, null, null]);
  await live.end();
});

scenario("readFile: inside, outside, binary, cut", "1.2 readFile", async (t) => {
  const s = await t.session({ files: { "note.txt": "hello\n", "data.bin": Buffer.from([0, 255, 1]) } });
  const live = s.live();
  await live.say("first");
  const note = await live.query.readFile("note.txt");
  assert.deepEqual([note.contents, note.absPath], ["hello\n", s.path("note.txt")]);
  assert.equal((await live.query.readFile("data.bin", { encoding: "base64" })).contents, "AP8B");
  assert.equal((await live.query.readFile("note.txt", { maxBytes: 2 })).contents.startsWith("he"), true);
  assert.equal(await live.query.readFile("/etc/passwd"), null);
  assert.equal(await live.query.readFile("missing.txt"), null);
  await live.end();
});

scenario("rewindFiles: files are as they were at a prompt", ["1.2 rewindFiles", "1.1 enableFileCheckpointing"], async (t) => {
  const s = await t.session({
    files: { "old.txt": "old\n" },
    replies: ({ cwd }) => [
      { text: "One." },
      { tool_use: [call("Read", { file_path: join(cwd, "old.txt") })] },
      { tool_use: [call("Edit", { file_path: join(cwd, "old.txt"), old_string: "old", new_string: "new" }), write(join(cwd, "made.txt"))] },
      { text: "Two." },
    ],
    options: { permissionMode: "acceptEdits", enableFileCheckpointing: true, extraArgs: { "replay-user-messages": null } },
  });
  const live = s.live();
  await live.say("first");
  const uuid = "22222222-2222-4222-8222-222222222222";
  await live.say("second", { uuid });
  assert.deepEqual([s.read("old.txt"), s.has("made.txt")], ["new\n", true]);
  const dry = await live.query.rewindFiles(uuid, { dryRun: true });
  assert.equal(dry.canRewind, true);
  assert.deepEqual(dry.filesChanged.map((path) => path.replace(/.*\//, "")).sort(), ["made.txt", "old.txt"]);
  assert.equal(s.read("old.txt"), "new\n");
  const done = await live.query.rewindFiles(uuid);
  assert.equal(done.canRewind, true);
  assert.deepEqual([s.read("old.txt"), s.has("made.txt")], ["old\n", false]);
  await assert.rejects(live.query.rewindFiles("33333333-3333-4333-8333-333333333333"), /No file checkpoint found/);
  await live.end();
});

scenario("rewindFiles: a fork knows earlier prompts, a conversation that was cleared does not", ["1.2 rewindFiles", "1.1 forkSession"], async (t) => {
  const write = (cwd, name) => ({ tool_use: [call("Write", { file_path: join(cwd, name), content: "x\n" })] });
  const s = await t.session({
    replies: ({ cwd }) => [write(cwd, "a.txt"), { text: "One." }, write(cwd, "b.txt"), { text: "Two." }],
    options: { permissionMode: "acceptEdits", enableFileCheckpointing: true },
  });
  const [first, second] = ["11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"];
  const live = s.live();
  const { session_id: resume } = await live.say("the first thing", { uuid: first });
  await live.say("/clear");
  await live.say("the second thing", { uuid: second });
  const unknown = await live.query.rewindFiles(first, { dryRun: true });
  assert.deepEqual([unknown.canRewind, typeof unknown.error], [false, "string"]);
  assert.equal((await live.query.rewindFiles(second)).canRewind, true);
  assert.deepEqual([s.has("a.txt"), s.has("b.txt")], [true, false]);
  await live.end();
  const fork = s.live({ resume, forkSession: true });
  await fork.query.initializationResult();
  assert.equal((await fork.query.rewindFiles(first)).canRewind, true);
  assert.equal(s.has("a.txt"), false);
  await fork.end();
});

scenario("rewindFiles: off", "1.2 rewindFiles", async (t) => {
  const s = await t.session();
  const live = s.live();
  await live.say("first");
  const answer = await live.query.rewindFiles("33333333-3333-4333-8333-333333333333", { dryRun: true });
  assert.equal(answer.canRewind, false);
  await assert.rejects(live.query.rewindFiles("33333333-3333-4333-8333-333333333333"));
  assert.equal(typeof answer.error, "string");
  await live.end();
});

scenario("seedReadState: the file counts as read", "1.2 seedReadState", async (t) => {
  const edit = (cwd, name) => ({ tool_use: [call("Edit", { file_path: join(cwd, name), old_string: "old", new_string: "new" })] });
  const s = await t.session({
    files: { "a.txt": "old\n" },
    replies: ({ cwd }) => [{ text: "One." }, edit(cwd, "a.txt"), { text: "Two." }],
    options: { permissionMode: "acceptEdits" },
  });
  const live = s.live();
  await live.say("first");
  await live.query.seedReadState(s.path("a.txt"), Math.floor(statSync(s.path("a.txt")).mtimeMs));
  await live.say("second");
  assert.notEqual(toolResults(live.messages)[0].is_error, true);
  assert.equal(s.read("a.txt"), "new\n");
  await live.end();
});

scenario("reconnectMcpServer and toggleMcpServer", ["1.2 reconnectMcpServer", "1.2 toggleMcpServer"], async (t) => {
  const s = await t.session({ replies: one, options: { mcpServers: { lab } } });
  const live = s.live();
  await live.say("first");
  const status = async () => (await live.query.mcpServerStatus()).map((server) => server.status);
  await live.query.toggleMcpServer("lab", false);
  assert.deepEqual(await status(), ["disabled"]);
  await live.say("second");
  assert.ok(!all(live.messages, "system/init")[1].tools.includes("mcp__lab__add"));
  await live.query.toggleMcpServer("lab", true);
  assert.deepEqual(await status(), ["connected"]);
  await live.query.reconnectMcpServer("lab");
  assert.deepEqual(await status(), ["connected"]);
  await assert.rejects(live.query.reconnectMcpServer("nope"), /Server not found: nope/);
  await assert.rejects(live.query.toggleMcpServer("nope", true), /Server not found: nope/);
  await live.end();
});

scenario("setMcpServers: added, removed, failed", "1.2 setMcpServers", async (t) => {
  const s = await t.session({ replies: [...one, { tool_use: [call("mcp__lab__add", { a: 1, b: 2 })] }, { text: "Three." }], options: { allowedTools: ["mcp__lab"] } });
  const live = s.live();
  await live.say("first");
  const added = await live.query.setMcpServers({ lab, broken: { command: "/no/such/program" } });
  assert.deepEqual([added.added.sort(), added.removed], [["broken", "lab"], []]);
  assert.deepEqual(Object.keys(added.errors), ["broken"]);
  await live.say("second");
  assert.ok(all(live.messages, "system/init")[1].tools.includes("mcp__lab__add"));
  await live.say("third");
  assert.equal(text(resultsIn(s.bodies()[3])[0].content), "It is 3.");
  const removed = await live.query.setMcpServers({});
  assert.deepEqual([removed.added, removed.removed.sort(), removed.errors], [[], ["broken", "lab"], {}]);
  await live.end();
});

scenario("readMcpResource: a widget; other schemes are refused", "1.2 readMcpResource", async (t) => {
  const s = await t.session({ options: { mcpServers: { lab } } });
  const live = s.live();
  await live.say("first");
  const { contents } = await live.query.readMcpResource("lab", "ui://widget");
  assert.deepEqual([contents.length, contents[0].uri, contents[0].text], [1, "ui://widget", "the text of ui://widget"]);
  await assert.rejects(live.query.readMcpResource("lab", "lab://note"));
  await assert.rejects(live.query.readMcpResource("nope", "ui://widget"));
  assert.ok(find(live.messages, "system/init").capabilities.includes("mcp_read_resource_v1"));
  await live.end();
});

scenario("reloadSkills: a skill that changed meanwhile", ["1.2 reloadSkills", "1.3 system/commands_changed"], async (t) => {
  const s = await t.session({
    files: { ".claude/skills/peel/SKILL.md": "---\nname: peel\ndescription: Peels\n---\nPeel.\n" },
    replies: one,
    options: { settingSources: ["project"], skills: "all" },
  });
  const live = s.live();
  await live.say("first");
  writeFileSync(s.path(".claude/skills/peel/SKILL.md"), "---\nname: peel\ndescription: Peels twice\n---\nPeel.\n");
  const { skills } = await live.query.reloadSkills();
  assert.match(skills.find((one) => one.name === "peel").description, /Peels twice/);
  const { commands } = await live.until("system/commands_changed");
  assert.match(commands.find((one) => one.name === "peel").description, /Peels twice/);
  await live.end();
});

scenario("reloadPlugins and reloadOutputStyles: the refreshed lists", ["1.2 reloadPlugins", "1.2 reloadOutputStyles"], async (t) => {
  const s = await t.session();
  const live = s.live();
  await live.say("first");
  const reloaded = await live.query.reloadPlugins();
  assert.equal(reloaded.error_count, 0);
  assert.ok(Array.isArray(reloaded.plugins) && Array.isArray(reloaded.commands) && Array.isArray(reloaded.agents) && Array.isArray(reloaded.mcpServers));
  const styles = await live.query.reloadOutputStyles();
  assert.ok(styles.available_output_styles.includes("default"));
  await live.end();
});

const background = (command) => bash(command, { run_in_background: true });

scenario("stopTask: a background command ends; an unknown one is no error", "1.2 stopTask", async (t) => {
  const s = await t.session({
    replies: [{ tool_use: [background("echo $$ > pid; exec sleep 600")] }, { text: "One." }, { text: "Noted.", repeat: true }],
    options: bypass,
  });
  const live = s.live();
  live.send("first");
  const started = await live.until("system/task_started");
  assert.equal(started.task_type, "local_bash");
  await live.result();
  await live.query.stopTask(started.task_id);
  const ended = await live.until("system/task_notification");
  assert.deepEqual([ended.task_id, ended.status], [started.task_id, "stopped"]);
  await live.query.stopTask("nope");
  await live.end();
  assert.throws(() => process.kill(Number(s.read("pid")), 0), /ESRCH/);
});

scenario("backgroundTasks: a command that runs goes to the background", "1.2 backgroundTasks", async (t) => {
  const s = await t.session({
    replies: [{ tool_use: [bash("echo $$ > pid; exec sleep 600")] }, { text: "It runs on." }, { text: "Noted.", repeat: true }],
    options: bypass,
  });
  const live = s.live();
  live.send("first");
  while (!s.has("pid") || s.read("pid").trim() === "") await new Promise((resolve) => setTimeout(resolve, 5));
  assert.equal(await live.query.backgroundTasks("toolu_of_nobody"), false);
  // The call may not be known as a task in its first moments.
  while (find(live.messages, "user") === undefined) {
    assert.equal(await live.query.backgroundTasks(), true);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  const result = await live.result();
  assert.equal(result.result, "It runs on.");
  const moved = find(live.messages, "user").tool_use_result;
  assert.equal(typeof moved.backgroundTaskId, "string");
  process.kill(Number(s.read("pid")), 0);
  await live.query.stopTask(moved.backgroundTaskId);
  await live.until("system/task_notification");
  await live.end();
});

scenario("streamInput: prompts one after the other", "1.2 streamInput", async (t) => {
  const s = await t.session({ replies: one });
  const live = s.live();
  await live.say("the first thing");
  await live.query.streamInput((async function* () {
    yield { type: "user", session_id: "", message: { role: "user", content: "the second thing" }, parent_tool_use_id: null };
  })());
  const second = await live.result();
  assert.deepEqual([second.result, second.result_index, second.num_turns], ["Two.", 1, 1]);
  assert.match(told(s.bodies()[1]), /the first thing.*the second thing/s);
  assert.equal(all(live.messages, "system/init").length, 2);
  await live.end();
});

// Control requests that the SDK has no method for.
const asks = (name, rows, { session, first = true } = {}, fn) =>
  scenario(name, rows, async (t) => {
    const s = await t.session({ wire: true, replies: one, ...session });
    const live = s.live();
    await live.query.initializationResult();
    if (first) await live.say("first", { uuid: "11111111-1111-4111-8111-111111111111" });
    await fn(s, live);
    await live.end();
  });
const succeeds = async (s, request) => {
  const answer = await s.control(request);
  assert.equal(answer.subtype, "success", JSON.stringify(answer));
  return answer.response;
};
const refuses = async (s, request) => {
  const answer = await s.control(request);
  assert.equal(answer.subtype, "error", JSON.stringify(answer));
  return answer.error;
};

asks("an unknown control request is refused by name", ["1.2 an unknown subtype", "1.2 set_color"], {}, async (s, live) => {
  assert.equal(await refuses(s, { subtype: "no_such" }), "Unsupported control request subtype: no_such");
  assert.equal(await refuses(s, { subtype: "set_color", color: "red" }), "Unsupported control request subtype: set_color");
  assert.equal((await live.say("second")).result, "Two.");
});

asks("cancel_async_message: one that waits is taken back", "1.2 cancel_async_message", { first: false, session: { replies: [{ text: "I will never end", hold: true }, { text: "Two." }], options: { includePartialMessages: true } } }, async (s, live) => {
  const uuid = "44444444-4444-4444-8444-444444444444";
  live.send("first");
  await live.until((message) => message.type === "stream_event" && message.event.delta?.text?.includes("never"));
  live.send("second", { uuid });
  await s.frame((frame) => frame.type === "command_lifecycle" && frame.command_uuid === uuid && frame.state === "queued");
  assert.equal((await succeeds(s, { subtype: "cancel_async_message", message_uuid: uuid })).cancelled, true);
  assert.equal((await succeeds(s, { subtype: "cancel_async_message", message_uuid: uuid })).cancelled, false);
  await s.frame((frame) => frame.type === "command_lifecycle" && frame.command_uuid === uuid && frame.state === "cancelled");
  assert.deepEqual(await live.query.interrupt(), { still_queued: [] });
  await live.result();
  assert.equal(s.bodies().length, 1);
});

const fruit = { files: { "src/plum.rs": "", "Plum.md": "", "pear.md": "" } };

asks("file_suggestions: by a part of their path", "1.2 file_suggestions", { session: fruit }, async (s) => {
  let answer;
  // The stock CLI looks for files behind its first answers.
  const until = Date.now() + 20_000;
  do answer = await succeeds(s, { subtype: "file_suggestions", query: "plum" });
  while (answer.suggestions.length === 0 && Date.now() < until);
  assert.deepEqual(answer.suggestions.map((one) => one.path), ["Plum.md", "src/plum.rs"]);
  assert.equal(answer.cwd, s.cwd);
});

asks("get_binary_version", "1.2 get_binary_version", {}, async (s, live) => {
  const { version } = await succeeds(s, { subtype: "get_binary_version" });
  assert.equal(version, find(live.messages, "system/init").claude_code_version);
});

const flagHook = { hooks: { PreToolUse: [{ matcher: "Bash", hooks: [{ type: "command", command: "true" }] }] } };

asks("get_hooks_listing: events and commands", "1.2 get_hooks_listing", { session: { options: { settings: flagHook } } }, async (s) => {
  const { events, hooks } = await succeeds(s, { subtype: "get_hooks_listing" });
  assert.deepEqual(events.map(({ name, hookCount, supportsMatcher }) => [name, hookCount, supportsMatcher]), [["PreToolUse", 1, true]]);
  assert.deepEqual(hooks.map(({ event, matcher, source, type, commandText }) => [event, matcher, source, type, commandText]), [["PreToolUse", "Bash", "flagSettings", "command", "true"]]);
});

asks("get_session_cost: a text", "1.2 get_session_cost", {}, async (s) => {
  assert.match((await succeeds(s, { subtype: "get_session_cost" })).text, new RegExp(`${MODEL}`));
});

asks("get_settings: effective and by source", "1.2 get_settings", { session: { options: { settings: { permissions: { allow: ["Bash(ls:*)"] } } } } }, async (s) => {
  const { effective, sources, applied } = await succeeds(s, { subtype: "get_settings" });
  assert.deepEqual(effective.permissions.allow, ["Bash(ls:*)"]);
  assert.deepEqual(sources.map((one) => one.source), ["flagSettings"]);
  assert.equal(applied.model, MODEL);
});

asks("get_task_output: the end of what a command wrote", "1.2 get_task_output", { first: false, session: { replies: [{ tool_use: [background("echo a line; echo ok > done; sleep 600")] }, { text: "One." }, { text: "Noted.", repeat: true }], options: bypass } }, async (s, live) => {
  live.send("first");
  const { task_id } = await live.until("system/task_started");
  await live.result();
  while (!s.has("done")) await new Promise((resolve) => setTimeout(resolve, 5));
  const { output, total_bytes, truncated } = await succeeds(s, { subtype: "get_task_output", task_id });
  assert.deepEqual([output, total_bytes, truncated], ["a line\n", 7, false]);
  await refuses(s, { subtype: "get_task_output", task_id: "nope" });
  await live.query.stopTask(task_id);
});

asks("list_models", "1.2 list_models", {}, async (s) => {
  const { models } = await succeeds(s, { subtype: "list_models" });
  assert.ok(models.some((one) => one.value === "haiku" && one.resolvedModel === "claude-haiku-5-5"));
});

asks("list_permission_rules: where each comes from", "1.2 list_permission_rules", { session: { options: { settings: { permissions: { deny: ["Bash(rm:*)"] } }, allowedTools: ["Bash(ls:*)"] } } }, async (s) => {
  const { state } = await succeeds(s, { subtype: "list_permission_rules" });
  const rules = state.rules.map(({ behavior, source, rule }) => [behavior, source, rule]).sort();
  assert.deepEqual(rules, [["allow", "cliArg", "Bash(ls:*)"], ["deny", "flagSettings", "Bash(rm:*)"]]);
});

asks("mcp_call: a tool without the model", "1.2 mcp_call", { session: { options: { mcpServers: { lab } } } }, async (s) => {
  const { content } = await succeeds(s, { subtype: "mcp_call", tool: "mcp__lab__add", arguments: { a: 1, b: 2 } });
  assert.deepEqual(content, [{ type: "text", text: "It is 3." }]);
  await refuses(s, { subtype: "mcp_call", tool: "mcp__lab__none", arguments: {} });
  assert.equal(s.bodies().length, 1);
});

asks("register_repo_root: the folder of the session is refused", "1.2 register_repo_root", {}, async (s) => {
  await refuses(s, { subtype: "register_repo_root", directory: s.cwd });
});

asks("rename_session: the title is kept", "1.2 rename_session", {}, async (s, live) => {
  await succeeds(s, { subtype: "rename_session", title: "Plums and pears" });
  await live.say("second");
  await live.end();
  const [file] = s.frames.filter((frame) => frame.type === "result").map((frame) => `${frame.session_id}.jsonl`);
  const path = join(s.home, ".claude/projects", s.cwd.replace(/[^a-zA-Z0-9]/g, "-"), file);
  assert.ok(readFileSync(path, "utf8").includes("Plums and pears"));
});

asks("set_has_subscribers", "1.2 set_has_subscribers", {}, async (s) => {
  await succeeds(s, { subtype: "set_has_subscribers", has_subscribers: true });
});

scenario("hook_callback and mcp_message go by their ids", ["1.2 hook_callback", "1.3 control_request", "1.3 control_response"], async (t) => {
  const s = await t.session({
    wire: true,
    replies: [{ tool_use: [bash("true")] }, { text: "Done." }],
    options: { allowedTools: ["Bash"], hooks: { PreToolUse: [{ matcher: "Bash", hooks: [async () => ({})] }], Stop: [{ hooks: [async () => ({})] }] } },
  });
  await s.ok();
  const asked = s.frames.filter((frame) => frame.type === "control_request").map((frame) => frame.request);
  assert.deepEqual(asked.map(({ subtype, callback_id }) => [subtype, callback_id]), [["hook_callback", "hook_0"], ["hook_callback", "hook_1"]]);
  assert.ok(asked[0].tool_use_id.startsWith("toolu_"));
  const first = s.frames.find((frame) => frame.type === "control_response");
  assert.equal(first.response.subtype, "success");
});
