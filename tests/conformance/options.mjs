// The options of `query()`: table 1.1.
import { randomUUID } from "node:crypto";
import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { MODEL, all, assert, bash, blocks, call, find, kind, lab, nanos, resultsIn, scenario, text, told, toolResults } from "./lib.mjs";
import { createSdkMcpServer, getSessionInfo, tool } from "../sdk/node_modules/@anthropic-ai/claude-agent-sdk/sdk.mjs";
import { z } from "../sdk/node_modules/zod/index.js";

const touch = (name) => bash(`touch ${name}`);
const write = (file_path, content = "x\n") => call("Write", { file_path, content });
const bypass = { permissionMode: "bypassPermissions", allowDangerouslySkipPermissions: true };

// 1.1, in the order of the table.

scenario("additionalDirectories: files there are read and written freely", "1.1 additionalDirectories", async (t) => {
  const s = await t.session({
    files: { "home/extra/note.txt": "first\n" },
    replies: ({ home }) => [
      { tool_use: [call("Read", { file_path: join(home, "extra/note.txt") })] },
      { tool_use: [write(join(home, "extra/new.txt"))] },
      { tool_use: [write(join(home, "elsewhere.txt"))] },
      { text: "Done." },
    ],
    options: ({ home }) => ({ permissionMode: "acceptEdits", additionalDirectories: [join(home, "extra")] }),
  });
  const { messages, result } = await s.ok();
  assert.deepEqual(toolResults(messages).map((block) => block.is_error === true), [false, false, true]);
  assert.ok(existsSync(join(s.home, "extra/new.txt")));
  assert.equal(existsSync(join(s.home, "elsewhere.txt")), false);
  assert.equal(result.permission_denials.length, 1);
});

const agents = {
  counter: { description: "Counts things.", prompt: "You are the counter with the mark KIWI.", tools: ["Read", "Bash"] },
};

scenario("agent: the main thread is one of the agents", "1.1 agent", async (t) => {
  const s = await t.session({ options: { agents, agent: "counter" } });
  const { bodies } = await s.ok();
  assert.match(JSON.stringify(bodies[0].system), /KIWI/);
  const names = bodies[0].tools.map((one) => one.name);
  assert.ok(names.includes("Read") && names.includes("Bash") && !names.includes("Write"), `${names}`);
});

const delegate = (more) => call("Agent", { description: "count", prompt: "Count the PLUMS.", subagent_type: "counter", run_in_background: false, ...more });
const delegation = [
  { match: { last_text_contains: "PLUMS" }, tool_use: [bash("echo seven")], text: "I count." },
  { match: { last_text_contains: "PLUMS" }, text: "There are seven." },
  { tool_use: [delegate()] },
  { text: "Seven, it says." },
];

scenario("agents: one is asked and answers", "1.1 agents", async (t) => {
  const s = await t.session({ replies: delegation, options: { agents, allowedTools: ["Bash", "Agent"] } });
  const { init, messages, result } = await s.ok();
  assert.ok(init.agents.includes("counter"), `${init.agents}`);
  const calls = s.calls();
  const inner = calls.filter((request) => told(request.body).includes("KIWI"));
  assert.equal(calls.length, 4);
  assert.equal(inner.length, 2);
  for (const request of inner) assert.ok(request.headers["x-claude-code-agent-id"]);
  const names = inner[0].body.tools.map((one) => one.name);
  assert.ok(names.includes("Bash") && !names.includes("Write"), `${names}`);
  const [asked] = blocks(messages, "assistant").filter((block) => block.name === "Agent");
  const nested = messages.filter((message) => message.parent_tool_use_id === asked.id);
  assert.ok(nested.some((message) => message.type === "user"), messages.map(kind).join());
  const { tool_use_result } = messages.findLast((message) => message.type === "user");
  assert.deepEqual([tool_use_result.status, tool_use_result.agentType], ["completed", "counter"]);
  assert.match(text(resultsIn(s.bodies().at(-1))[0].content), /There are seven\./);
  assert.equal(result.result, "Seven, it says.");
  assert.equal(result.subagent_stats.spawned, 1);
  assert.equal(result.subagent_stats.completed, 1);
});

scenario("forwardSubagentText: what a subagent says is seen", "1.1 forwardSubagentText", async (t) => {
  for (const forwardSubagentText of [false, true]) {
    const s = await t.session({ replies: delegation, options: { agents, allowedTools: ["Bash", "Agent"], forwardSubagentText } });
    const { messages } = await s.ok();
    const nested = blocks(messages.filter((message) => message.parent_tool_use_id), "assistant");
    assert.ok(nested.some((block) => block.type === "tool_use"));
    assert.equal(nested.some((block) => block.text === "There are seven."), forwardSubagentText);
  }
});

scenario("allowDangerouslySkipPermissions: bypass may be entered later", "1.1 allowDangerouslySkipPermissions", async (t) => {
  const s = await t.session({
    replies: [{ tool_use: [touch("made")] }, { text: "Done." }],
    options: { permissionMode: "default", allowDangerouslySkipPermissions: true },
  });
  const live = s.live();
  await live.query.setPermissionMode("bypassPermissions");
  await live.say("go");
  assert.ok(s.has("made"));
  await live.end();
});

scenario("allowedTools: rules that allow", "1.1 allowedTools", async (t) => {
  const s = await t.session({
    replies: [{ tool_use: [touch("made")] }, { tool_use: [bash("mkdir other")] }, { text: "Done." }],
    options: { permissionMode: "default", allowedTools: ["Bash(touch:*)"] },
  });
  const { init, result } = await s.ok();
  assert.deepEqual([s.has("made"), s.has("other")], [true, false]);
  assert.deepEqual(result.permission_denials.map((one) => one.tool_input.command), ["mkdir other"]);
  assert.ok(init.tools.includes("Write"));
});

scenario("betas: they reach the API", "1.1 betas", async (t) => {
  const s = await t.session({ options: { betas: ["context-1m-2025-08-07"] } });
  await s.ok();
  assert.match(s.calls()[0].headers["anthropic-beta"], /context-1m-2025-08-07/);
});

scenario("canUseTool: allows with another input, and denies", ["1.1 canUseTool", "1.2 can_use_tool", "1.3 control_request"], async (t) => {
  const asked = [];
  const s = await t.session({
    replies: [{ tool_use: [touch("first")] }, { tool_use: [touch("third")] }, { text: "Done." }],
    options: {
      permissionMode: "default",
      canUseTool: async (name, input, { toolUseID, signal, requestId }) => {
        asked.push({ name, command: input.command, toolUseID });
        assert.ok(signal instanceof AbortSignal && typeof requestId === "string");
        if (input.command === "touch first") return { behavior: "allow", updatedInput: { command: "touch second" } };
        return { behavior: "deny", message: "Not on my machine." };
      },
    },
  });
  const { messages, result } = await s.ok();
  const ids = blocks(messages, "assistant").filter((block) => block.type === "tool_use").map((block) => block.id);
  assert.deepEqual(asked, [
    { name: "Bash", command: "touch first", toolUseID: ids[0] },
    { name: "Bash", command: "touch third", toolUseID: ids[1] },
  ]);
  assert.deepEqual(["first", "second", "third"].map((name) => s.has(name)), [false, true, false]);
  const [, denied] = toolResults(messages);
  assert.equal(denied.is_error, true);
  assert.equal(text(denied.content), "Not on my machine.");
  assert.equal(messages.findLast((message) => message.type === "user").tool_use_result, "Error: Not on my machine.");
  assert.deepEqual(result.permission_denials, [{ tool_name: "Bash", tool_use_id: ids[1], tool_input: { command: "touch third" } }]);
  assert.equal(find(messages, "system/permission_denied"), undefined);
});

scenario("canUseTool: deny and interrupt", ["1.1 canUseTool", "1.2 can_use_tool"], async (t) => {
  const s = await t.session({
    replies: [{ tool_use: [touch("made")] }, { text: "Never said." }],
    options: { permissionMode: "default", canUseTool: async () => ({ behavior: "deny", message: "Stop it.", interrupt: true }) },
  });
  const { messages, result, bodies } = await s.ok();
  assert.deepEqual([result.subtype, result.is_error, result.terminal_reason], ["error_during_execution", true, "aborted_tools"]);
  assert.equal(toolResults(messages)[0].is_error, true);
  assert.equal(bodies.length, 1);
});

scenario("canUseTool: what it is told, and a rule that it gives for the session", ["1.1 canUseTool", "1.2 can_use_tool"], async (t) => {
  const asked = [];
  const s = await t.session({
    replies: ({ cwd }) => [{ tool_use: [write(join(cwd, "a"))] }, { tool_use: [write(join(cwd, "b"))] }, { text: "Done." }],
    options: {
      permissionMode: "default",
      canUseTool: async (_name, input, extra) => {
        asked.push(extra);
        return { behavior: "allow", updatedInput: input, updatedPermissions: extra.suggestions };
      },
    },
  });
  const { messages } = await s.ok();
  assert.equal(asked.length, 1);
  assert.deepEqual(asked[0].suggestions, [{ type: "setMode", mode: "acceptEdits", destination: "session" }]);
  assert.ok(s.has("a") && s.has("b"));
  const [decided] = all(messages, "user").flatMap((message) => message.tool_result_meta ?? []);
  assert.equal(decided.permission_decision.decision, "accept");
});

scenario("continue: the newest conversation goes on", "1.1 continue", async (t) => {
  const s = await t.session({ replies: [{ text: "One." }, { text: "Two." }, { text: "Three." }] });
  const first = await s.ok("the first thing");
  const second = await s.ok("the second thing");
  const third = await s.ok("the third thing", { continue: true });
  assert.notEqual(second.init.session_id, first.init.session_id);
  assert.equal(third.init.session_id, second.init.session_id);
  const all = told(third.bodies[2]);
  assert.deepEqual(["first", "second", "third"].map((word) => all.includes(`the ${word} thing`)), [false, true, true]);
  // $0.00007 a call.
  assert.deepEqual([first, second, third].map(({ result }) => nanos(result.total_cost_usd)), [70_000, 70_000, 140_000]);
});

scenario("cwd", "1.1 cwd", async (t) => {
  const s = await t.session({ replies: [{ tool_use: [bash("pwd")] }, { text: "Done." }], options: { allowedTools: ["Bash"] } });
  const { init, messages } = await s.ok();
  assert.equal(init.cwd, s.cwd);
  assert.equal(find(messages, "user").tool_use_result.stdout.trim(), s.cwd);
});

scenario("debugFile: a log is written there", "1.1 debugFile", async (t) => {
  const s = await t.session({ options: ({ home }) => ({ debug: true, debugFile: join(home, "debug.log") }) });
  await s.ok();
  assert.ok(existsSync(join(s.home, "debug.log")));
});

scenario("disallowedTools: a name removes the tool, a rule denies", "1.1 disallowedTools", async (t) => {
  const s = await t.session({
    replies: [{ tool_use: [bash("touch made")] }, { tool_use: [bash("mkdir other")] }, { text: "Done." }],
    options: { ...bypass, disallowedTools: ["Write", "Bash(touch:*)"] },
  });
  const { init, bodies, messages, result } = await s.ok();
  assert.ok(init.tools.includes("Bash") && !init.tools.includes("Write"), `${init.tools}`);
  assert.ok(!bodies[0].tools.some((one) => one.name === "Write"));
  assert.deepEqual([s.has("made"), s.has("other")], [false, true]);
  assert.equal(toolResults(messages)[0].is_error, true);
  assert.equal(result.permission_denials.length, 1);
});

scenario("effort: it reaches the API", "1.1 effort", async (t) => {
  const s = await t.session({ options: { effort: "low" } });
  const { bodies } = await s.ok();
  assert.equal(bodies[0].output_config.effort, "low");
});

scenario("env: what commands see", "1.1 env", async (t) => {
  const s = await t.session({
    replies: [{ tool_use: [bash("echo $FLAVOUR")] }, { text: "Done." }],
    options: { allowedTools: ["Bash"] },
    env: { FLAVOUR: "cherry" },
  });
  const { messages } = await s.ok();
  assert.equal(find(messages, "user").tool_use_result.stdout.trim(), "cherry");
});

scenario("env: CLAUDE_CODE_EXTRA_BODY is in each request", "1.1 env", async (t) => {
  const s = await t.session({ env: { CLAUDE_CODE_EXTRA_BODY: JSON.stringify({ top_k: 5, stream: false }) } });
  const { result, bodies } = await s.ok();
  assert.equal(result.result, "Done.");
  assert.deepEqual([bodies[0].top_k, bodies[0].stream], [5, true]);
  const broken = await t.session({ env: { CLAUDE_CODE_EXTRA_BODY: "[not an object" } });
  assert.equal((await broken.ok()).result.result, "Done.");
});

scenario("extraArgs: flags of one's own", "1.1 extraArgs", async (t) => {
  const s = await t.session({
    replies: [{ tool_use: [bash("true")], repeat: true }],
    options: { allowedTools: ["Bash"], extraArgs: { "max-turns": "1" } },
  });
  const { result } = await s.ok();
  assert.equal(result.subtype, "error_max_turns");
});

scenario("stderr: an unknown flag is said there, and the agent ends with 1", ["1.1 stderr", "1.1 extraArgs", "1.1 spawnClaudeCodeProcess"], async (t) => {
  const s = await t.session({ options: { extraArgs: { "no-such-flag": null } } });
  const { result, error } = await s.turn("go");
  assert.equal(result, undefined);
  assert.match(String(error), /exited with code 1/);
  assert.match(s.stderr, /error: unknown option '--no-such-flag'/);
  const wired = await t.session({ options: { extraArgs: { "no-such-flag": null } }, wire: true });
  await wired.turn("go");
  assert.equal(await wired.exited, 1);
});

scenario("fallbackModel: asked when the model is overloaded", "1.1 fallbackModel", async (t) => {
  const fallbackModel = "claude-haiku-5-5";
  const overloaded = { match: { model: MODEL }, error: { status: 529, headers: { "retry-after": "0" } }, repeat: true };
  const s = await t.session({
    replies: [overloaded, { match: { model: fallbackModel }, text: "I stand in." }],
    options: { fallbackModel },
    env: { CLAUDE_CODE_MAX_RETRIES: "3" },
  });
  const { messages, result } = await s.ok();
  assert.deepEqual([result.is_error, result.result], [false, "I stand in."]);
  assert.equal(messages.findLast((message) => message.type === "assistant").message.model, fallbackModel);
  assert.ok(result.modelUsage[fallbackModel]);
});

scenario("resume and forkSession: the same conversation under another id", ["1.1 resume", "1.1 forkSession", "1.1 sessionId"], async (t) => {
  const sessionId = randomUUID();
  const s = await t.session({ replies: [{ text: "One." }, { text: "Two." }, { text: "Three." }, { text: "Four." }] });
  const first = await s.ok("the first thing", { sessionId });
  assert.equal(first.result.session_id, sessionId);
  const resumed = await s.ok("the second thing", { resume: sessionId });
  const forked = await s.ok("the third thing", { resume: sessionId, forkSession: true });
  const after = await s.ok("the fourth thing", { resume: sessionId });
  assert.equal(resumed.result.session_id, sessionId);
  assert.notEqual(forked.result.session_id, sessionId);
  assert.equal(after.result.session_id, sessionId);
  const bodies = s.bodies().map(told);
  const heard = (body) => ["first", "second", "third", "fourth"].filter((word) => body.includes(`the ${word} thing`));
  assert.deepEqual(bodies.map(heard), [["first"], ["first", "second"], ["first", "second", "third"], ["first", "second", "fourth"]]);
  assert.equal(nanos(resumed.result.total_cost_usd), 140_000);
  assert.equal(resumed.result.modelUsage[MODEL].outputTokens, 10);
});

scenario("resumeSessionAt: what came later is forgotten", "1.1 resumeSessionAt", async (t) => {
  const s = await t.session({ replies: [{ text: "One." }, { text: "Two." }, { text: "Three." }] });
  const first = await s.ok("the first thing");
  const resume = first.result.session_id;
  await s.ok("the second thing", { resume });
  const at = find(first.messages, "assistant").uuid;
  const third = await s.ok("the third thing", { resume, resumeSessionAt: at });
  const heard = told(third.bodies[2]);
  assert.deepEqual(["first", "second", "third"].map((word) => heard.includes(`the ${word} thing`)), [true, false, true]);
});

scenario("includePartialMessages: the API's events in order", ["1.1 includePartialMessages", "1.3 stream_event", "1.3 system/status"], async (t) => {
  const s = await t.session({
    replies: [{ thinking: "Hm.", text: "I look.", tool_use: [bash("echo hi")], pings: 1, chunk_bytes: 4 }, { text: "Done." }],
    options: { includePartialMessages: true, allowedTools: ["Bash"] },
  });
  const { messages } = await s.ok();
  const kinds = messages
    .map((message) => (message.type === "stream_event" ? message.event.type : kind(message)))
    .filter((one) => one !== "content_block_delta" && one !== "system/thinking_tokens");
  const block = ["content_block_start", "assistant", "content_block_stop"];
  const start = ["system/status", "message_start"];
  const end = ["message_delta", "message_stop"];
  assert.deepEqual(kinds, ["system/init", ...start, ...block, ...block, ...block, ...end, "user", ...start, ...block, ...end, "result/success"]);
  const events = all(messages, "stream_event");
  const deltas = events.map((message) => message.event.delta ?? {});
  const sum = (type, field) => deltas.filter((delta) => delta.type === type).map((delta) => delta[field]).join("");
  assert.equal(sum("text_delta", "text"), "I look.Done.");
  assert.equal(sum("thinking_delta", "thinking"), "Hm.");
  assert.deepEqual(JSON.parse(sum("input_json_delta", "partial_json")), { command: "echo hi" });
  const id = events[0].event.message.id;
  assert.equal(events[1].api_message_id, id);
  assert.equal(find(messages, "assistant").message.id, id);
  assert.deepEqual(all(messages, "system/status").map((message) => message.status), ["requesting", "requesting"]);
});

scenario("managedSettings: they deny what others allow", "1.1 managedSettings", async (t) => {
  const s = await t.session({
    replies: [{ tool_use: [touch("made")] }, { text: "Done." }],
    options: { ...bypass, managedSettings: { permissions: { deny: ["Bash(touch:*)"] } } },
  });
  const { result } = await s.ok();
  assert.equal(s.has("made"), false);
  assert.equal(result.permission_denials.length, 1);
});

scenario("thinking: adaptive, a budget, none", ["1.1 thinking", "1.1 maxThinkingTokens"], async (t) => {
  const thinking = async (model, options) => (await (await t.session({ options: { model, ...options } })).ok()).bodies[0].thinking;
  assert.equal((await thinking(MODEL, { thinking: { type: "adaptive" } })).type, "adaptive");
  const old = "claude-haiku-4-5";
  const off = await thinking(old, { thinking: { type: "disabled" } });
  assert.ok(off === undefined || off.type === "disabled", JSON.stringify(off));
  const some = await thinking(old, { thinking: { type: "enabled", budgetTokens: 2048 } });
  assert.deepEqual([some.type, some.budget_tokens], ["enabled", 2048]);
  const more = await thinking(old, { maxThinkingTokens: 4096 });
  assert.deepEqual([more.type, more.budget_tokens], ["enabled", 4096]);
});

const adding = [{ tool_use: [call("mcp__lab__add", { a: 1, b: 2 }), call("mcp__lab__fail", {})] }, { text: "Done." }];

// A turn in which the model uses the tools of `lab`, however they are reached.
async function adds(s) {
  const { messages, init, bodies } = await s.ok();
  const server = init.mcp_servers.find((one) => one.name === "lab");
  assert.ok(["connected", "pending"].includes(server.status), JSON.stringify(server));
  const [three, broken] = resultsIn(bodies.at(-1));
  assert.equal(text(three.content), "It is 3.");
  assert.equal(broken.is_error, true);
  return { messages, init, bodies };
}
const mcp = { allowedTools: ["mcp__lab__add", "mcp__lab__fail"] };

scenario("mcpServers: a program", "1.1 mcpServers", async (t) => {
  const s = await t.session({ replies: adding, options: { ...mcp, mcpServers: { lab } } });
  const { init } = await adds(s);
  assert.ok(init.tools.includes("mcp__lab__add"), `${init.tools}`);
});

scenario("mcpServers: streamable HTTP", "1.1 mcpServers", async (t) => {
  const url = await t.serveLab("--http");
  await adds(await t.session({ replies: adding, options: { ...mcp, mcpServers: { lab: { type: "http", url } } } }));
});

scenario("mcpServers: SSE", "1.1 mcpServers", async (t) => {
  const url = await t.serveLab("--sse");
  await adds(await t.session({ replies: adding, options: { ...mcp, mcpServers: { lab: { type: "sse", url } } } }));
});

const sdkLab = (more = []) => {
  const add = tool("add", "Adds two numbers.", { a: z.number(), b: z.number() }, async ({ a, b }) => ({ content: [{ type: "text", text: `It is ${a + b}.` }] }));
  const fail = tool("fail", "Fails.", {}, async () => {
    throw new Error("It broke.");
  });
  return createSdkMcpServer({ name: "lab", version: "1.0.0", tools: [add, fail, ...more] });
};

scenario("mcpServers: the host's own", ["1.1 mcpServers", "1.2 mcp_message"], async (t) => {
  const s = await t.session({ replies: adding, options: { ...mcp, mcpServers: { lab: sdkLab() } } });
  const { init } = await adds(s);
  assert.deepEqual(init.mcp_servers.find((one) => one.name === "lab").status, "connected");
});

scenario("mcpServers: the host's own tools that only read run side by side", ["1.1 mcpServers", "1.2 mcp_message"], async (t) => {
  const waiting = [];
  const meet = tool("meet", "Waits for another.", { who: z.string() }, async ({ who }) => {
    // Neither ends before both have begun.
    await new Promise((resolve) => {
      waiting.push(resolve);
      if (waiting.length === 2) waiting.forEach((end) => end());
    });
    return { content: [{ type: "text", text: `${who} is here.` }] };
  }, { annotations: { readOnlyHint: true } });
  const s = await t.session({
    replies: [{ tool_use: [call("mcp__lab__meet", { who: "Ada" }), call("mcp__lab__meet", { who: "Bob" })] }, { text: "Done." }],
    options: { allowedTools: ["mcp__lab"], mcpServers: { lab: createSdkMcpServer({ name: "lab", tools: [meet] }) } },
  });
  const { bodies, result } = await s.ok();
  assert.equal(result.result, "Done.");
  assert.deepEqual(resultsIn(bodies[1]).map((block) => text(block.content)), ["Ada is here.", "Bob is here."]);
});

scenario("mcpServers: the host's own tool is asked about, and refused", ["1.1 mcpServers", "1.2 can_use_tool"], async (t) => {
  const asked = [];
  const s = await t.session({
    replies: adding,
    options: {
      permissionMode: "default",
      mcpServers: { lab: sdkLab() },
      canUseTool: async (name, input) => (asked.push([name, input]), { behavior: "deny", message: "Not that one." }),
    },
  });
  const { messages, result } = await s.ok();
  assert.deepEqual(asked, [["mcp__lab__add", { a: 1, b: 2 }], ["mcp__lab__fail", {}]]);
  assert.deepEqual(toolResults(messages).map((block) => text(block.content)), ["Not that one.", "Not that one."]);
  assert.equal(result.permission_denials.length, 2);
});

scenario("mcpServers: a server that does not start", "1.1 mcpServers", async (t) => {
  const s = await t.session({ options: { mcpServers: { lab: { command: "/no/such/program" } } } });
  const live = s.live();
  const result = await live.say("go");
  assert.equal(result.is_error, false);
  const [status] = await live.query.mcpServerStatus();
  assert.deepEqual([status.name, status.status], ["lab", "failed"]);
  await live.end();
});

scenario("mcpServersDelivery: initialize", "1.1 mcpServersDelivery", async (t) => {
  const s = await t.session({ replies: adding, options: { ...mcp, mcpServers: { lab }, mcpServersDelivery: "initialize" }, wire: true });
  await adds(s);
  assert.ok(!s.args.some((arg) => arg.includes("lab.mjs")));
});

scenario("model", "1.1 model", async (t) => {
  const s = await t.session({ options: { model: "claude-opus-4-8" } });
  const { init, bodies, result } = await s.ok();
  assert.equal(init.model, "claude-opus-4-8");
  assert.equal(bodies[0].model, "claude-opus-4-8");
  // 10 tokens in and 5 out at $5 and $25 a million.
  assert.equal(result.total_cost_usd, 0.000175);
});

scenario("model: [1m] is a context of a million tokens", ["1.1 model", "1.1 betas"], async (t) => {
  for (const [model, shown, asked] of [["claude-sonnet-4-5[1m]", "claude-sonnet-4-5[1m]", true], ["claude-sonnet-5[1m]", "claude-sonnet-5", false]]) {
    const s = await t.session({ options: { model } });
    const { init, result, bodies } = await s.ok();
    assert.equal(init.model, shown);
    assert.equal(bodies[0].model, shown.replace("[1m]", ""));
    assert.equal(s.calls()[0].headers["anthropic-beta"].includes("context-1m-2025-08-07"), asked);
    assert.deepEqual([result.modelUsage[shown].contextWindow, result.modelUsage[shown].canonicalModel], [1_000_000, shown.replace("[1m]", "")]);
  }
});

scenario("onElicitation: the host answers what a server asks", ["1.1 onElicitation", "1.2 elicitation"], async (t) => {
  const asked = [];
  const s = await t.session({
    replies: [{ tool_use: [call("mcp__lab__ask", {})] }, { text: "Done." }],
    options: {
      allowedTools: ["mcp__lab__ask"],
      mcpServers: { lab },
      onElicitation: async (request) => {
        asked.push(request);
        return { action: "accept", content: { name: "Ada" } };
      },
    },
  });
  const { bodies } = await s.ok();
  assert.deepEqual([asked.length, asked[0].serverName, asked[0].message], [1, "lab", "Who are you?"]);
  assert.equal(text(resultsIn(bodies[1])[0].content), "accept: Ada");
});

scenario("no onElicitation: declined", "1.1 onElicitation", async (t) => {
  const s = await t.session({
    replies: [{ tool_use: [call("mcp__lab__ask", {})] }, { text: "Done." }],
    options: { allowedTools: ["mcp__lab__ask"], mcpServers: { lab } },
  });
  const { bodies } = await s.ok();
  assert.match(text(resultsIn(bodies[1])[0].content), /^(decline|cancel): nobody$/);
});

const modes = {
  default: [false, false],
  acceptEdits: [true, false],
  plan: [false, false],
  dontAsk: [false, false],
  bypassPermissions: [true, true],
};
for (const [permissionMode, made] of Object.entries(modes)) {
  scenario(`permissionMode ${permissionMode}: what runs without a question`, "1.1 permissionMode", async (t) => {
    const s = await t.session({
      replies: ({ cwd }) => [{ tool_use: [write(join(cwd, "written"))] }, { tool_use: [bash("echo x | tee piped")] }, { text: "Done." }],
      options: { permissionMode, allowDangerouslySkipPermissions: permissionMode === "bypassPermissions" },
    });
    const { init, messages, result } = await s.ok();
    assert.equal(init.permissionMode, permissionMode);
    assert.deepEqual([s.has("written"), s.has("piped")], made);
    assert.deepEqual(toolResults(messages).map((block) => block.is_error !== true), made);
    assert.equal(result.permission_denials.length, made.filter((one) => !one).length);
  });
}

scenario("permissionPrompts none: what would be asked is denied", "1.1 permissionPrompts", async (t) => {
  const s = await t.session({
    replies: [{ tool_use: [touch("made")] }, { text: "Done." }],
    options: { permissionMode: "default", permissionPrompts: "none" },
  });
  const { result } = await s.ok();
  assert.equal(result.permission_denials.length, 1);
  assert.equal(s.has("made"), false);
});

scenario("permissionPromptToolName: an MCP tool answers", "1.1 permissionPromptToolName", async (t) => {
  const s = await t.session({
    replies: [{ tool_use: [touch("yes")] }, { tool_use: [touch("no")] }, { text: "Done." }],
    options: { permissionMode: "default", permissionPromptToolName: "mcp__lab__approve", mcpServers: { lab } },
  });
  const { messages, result } = await s.ok();
  assert.deepEqual([s.has("yes"), s.has("no")], [true, false]);
  assert.match(text(toolResults(messages)[1].content), /The lab says no\./);
  assert.equal(result.permission_denials.length, 1);
});

scenario("persistSession: false keeps no conversation", "1.1 persistSession", async (t) => {
  const s = await t.session({ replies: [{ text: "One." }, { text: "Two." }], options: { persistSession: false } });
  const { result } = await s.ok("the first thing");
  const { error } = await s.turn("the second thing", { persistSession: true, resume: result.session_id });
  assert.match(String(error), /No conversation found/);
});

scenario("planModeInstructions: the model reads them in plan mode", "1.1 planModeInstructions", async (t) => {
  const s = await t.session({ options: { permissionMode: "plan", planModeInstructions: "Plan with PAPAYA." } });
  const { bodies } = await s.ok();
  assert.match(told(bodies[0]), /PAPAYA/);
});

scenario("settings: the flag layer", "1.1 settings", async (t) => {
  const s = await t.session({
    replies: [{ tool_use: [touch("made")] }, { tool_use: [bash("mkdir other")] }, { text: "Done." }],
    options: { permissionMode: "default", settings: { permissions: { allow: ["Bash(touch:*)", "Bash(mkdir:*)"], deny: ["Bash(mkdir:*)"] } } },
  });
  const { result } = await s.ok();
  assert.deepEqual([s.has("made"), s.has("other")], [true, false]);
  assert.equal(result.permission_denials.length, 1);
});

scenario("settings: a file", "1.1 settings", async (t) => {
  const s = await t.session({
    files: { "home/flags.json": { env: { FLAVOUR: "cherry" }, permissions: { allow: ["Bash"] } } },
    replies: [{ tool_use: [bash("echo $FLAVOUR")] }, { text: "Done." }],
    options: ({ home }) => ({ permissionMode: "default", settings: join(home, "flags.json") }),
  });
  const { messages } = await s.ok();
  assert.equal(find(messages, "user").tool_use_result.stdout.trim(), "cherry");
});

const sources = {
  "CLAUDE.md": "The project likes PLUMS.",
  "home/.claude/CLAUDE.md": "The user likes PEARS.",
  "home/.claude/settings.json": { permissions: { deny: ["Bash(touch:*)"] } },
};
const fruits = (body) => ["PLUMS", "PEARS"].filter((fruit) => told(body).includes(fruit));

scenario("settingSources: none, project, user", "1.1 settingSources", async (t) => {
  const heard = {};
  for (const source of ["", "project", "user"]) {
    const s = await t.session({
      files: sources,
      replies: [{ tool_use: [touch("made")] }, { text: "Done." }],
      options: { ...bypass, settingSources: source === "" ? [] : [source] },
    });
    const { bodies } = await s.ok();
    heard[source] = [...fruits(bodies[0]), s.has("made")];
  }
  assert.deepEqual(heard, { "": [true], project: ["PLUMS", true], user: ["PEARS", false] });
});

const skillFile = "---\nname: peel\ndescription: Peels a fruit of any kind\n---\nPeel it with the mark MANGO: $ARGUMENTS\n";

scenario("skills: found, listed and used", "1.1 skills", async (t) => {
  const s = await t.session({
    files: { ".claude/skills/peel/SKILL.md": skillFile },
    replies: [{ tool_use: [call("Skill", { skill: "peel", args: "the apple" })] }, { text: "Done." }],
    options: { settingSources: ["project"], skills: "all" },
  });
  const { init, bodies, messages } = await s.ok();
  assert.ok(init.skills.includes("peel"), `${init.skills}`);
  assert.match(told(bodies[0]), /Peels a fruit of any kind/);
  assert.ok(!told(bodies[0]).includes("MANGO"));
  assert.match(told(bodies[1]), /MANGO: the apple/);
  assert.notEqual(toolResults(messages)[0].is_error, true);
});

scenario("strictMcpConfig: other servers are left alone", "1.1 strictMcpConfig", async (t) => {
  const names = async (options) => {
    const s = await t.session({
      files: { ".mcp.json": { mcpServers: { other: lab } } },
      options: { settingSources: ["project"], settings: { enableAllProjectMcpServers: true }, mcpServers: { lab }, ...options },
    });
    const { init } = await s.ok();
    return init.mcp_servers.map((one) => one.name).sort();
  };
  assert.deepEqual(await names({ strictMcpConfig: true }), ["lab"]);
  assert.deepEqual(await names({}), ["lab", "other"]);
});

scenario("systemPrompt: one's own, none, the preset", "1.1 systemPrompt", async (t) => {
  const system = async (systemPrompt) => {
    const s = await t.session({ options: { systemPrompt } });
    const { system } = (await s.ok()).bodies[0];
    return typeof system === "string" ? system : (system ?? []).map((block) => block.text).join("\n");
  };
  const none = await system(undefined);
  const own = await system("You peel the PLUMS.");
  const parts = await system(["You peel the PLUMS.", "And the PEARS."]);
  const preset = await system({ type: "preset", preset: "claude_code" });
  const appended = await system({ type: "preset", preset: "claude_code", append: "Mind the PLUMS." });
  assert.ok(!none.includes("PLUMS") && own.includes("You peel the PLUMS."));
  assert.ok(parts.includes("PLUMS") && parts.includes("PEARS"));
  assert.ok(preset.length > none.length + 500, `${preset.length} > ${none.length}`);
  assert.ok(appended.includes("Mind the PLUMS.") && appended.length > preset.length);
});

scenario("taskBudget: it reaches the API", "1.1 taskBudget", async (t) => {
  const s = await t.session({ options: { taskBudget: { total: 50_000 } } });
  const { bodies } = await s.ok();
  assert.equal(bodies[0].output_config.task_budget.total, 50_000);
  assert.match(s.calls()[0].headers["anthropic-beta"], /task-budgets/);
});

scenario("toolAliases: another tool answers to the name", "1.1 toolAliases", async (t) => {
  const s = await t.session({
    replies: [{ tool_use: [call("Bash", { a: 1, b: 2 })] }, { text: "Done." }],
    options: { mcpServers: { lab: sdkLab() }, toolAliases: { Bash: "mcp__lab__add" }, allowedTools: ["mcp__lab__add"] },
  });
  const { bodies } = await s.ok();
  assert.equal(text(resultsIn(bodies[1])[0].content), "It is 3.");
});

scenario("tools: the base set", "1.1 tools", async (t) => {
  const offered = async (tools) => {
    const { init, bodies } = await (await t.session({ options: { tools } })).ok();
    return { init: init.tools, body: (bodies[0].tools ?? []).map((one) => one.name).filter((name) => name !== "DeferredToolPlaceholder") };
  };
  const none = await offered([]);
  assert.deepEqual([none.init, none.body], [[], []]);
  const some = await offered(["Read", "Glob", "Grep"]);
  assert.deepEqual([some.init.sort(), some.body.sort()], [["Glob", "Grep", "Read"], ["Glob", "Grep", "Read"]]);
  const preset = await offered({ type: "preset", preset: "claude_code" });
  for (const name of ["Bash", "Read", "Write", "Edit", "WebFetch", "WebSearch", "NotebookEdit", "Skill", "TaskStop"]) {
    assert.ok(preset.init.includes(name), `${name}: ${preset.init}`);
  }
  assert.ok(!preset.init.includes("Glob"));
});

scenario("verbatimPrompts: a slash is a slash", "1.1 verbatimPrompts", async (t) => {
  const s = await t.session({ options: { verbatimPrompts: true } });
  const { result, bodies } = await s.ok("/context");
  assert.equal(bodies.length, 1);
  assert.match(told(bodies[0]), /\/context/);
  assert.equal(result.num_turns, 1);
});

scenario("debug: on, and the turn is the same", "1.1 debug", async (t) => {
  const s = await t.session({ options: { debug: true } });
  const { result } = await s.ok();
  assert.deepEqual([result.subtype, result.result], ["success", "Done."]);
});

scenario("hooks: callbacks by event and matcher", "1.1 hooks", async (t) => {
  const seen = [];
  const note = (name) => async (input, id) => (seen.push([name, input.hook_event_name, input.tool_name, typeof id]), {});
  const s = await t.session({
    replies: [{ tool_use: [bash("true")] }, { text: "Done." }],
    options: {
      allowedTools: ["Bash"],
      hooks: { PreToolUse: [{ matcher: "Write|Edit", hooks: [note("a")] }, { matcher: "Bash", hooks: [note("b"), note("c")] }, { hooks: [note("d")] }] },
    },
  });
  await s.ok();
  assert.deepEqual(seen.sort(), ["b", "c", "d"].map((name) => [name, "PreToolUse", "Bash", "string"]));
});

const commandHook = (event, command, matcher) => ({ hooks: { [event]: [{ ...(matcher ? { matcher } : {}), hooks: [{ type: "command", command }] }] } });

scenario("includeHookEvents: command hooks are seen", ["1.1 includeHookEvents", "1.3 system/hook_started", "1.3 system/hook_response"], async (t) => {
  const seen = async (includeHookEvents) => {
    const s = await t.session({
      replies: [{ tool_use: [bash("true")] }, { text: "Done." }],
      options: { allowedTools: ["Bash"], includeHookEvents, settings: commandHook("PreToolUse", "cat >/dev/null; echo said; echo more >&2", "Bash") },
    });
    const { messages } = await s.ok();
    return messages.filter((message) => /^hook_(started|response)$/.test(message.subtype));
  };
  assert.deepEqual(await seen(false), []);
  const [started, response, ...more] = await seen(true);
  assert.equal(more.length, 0);
  assert.deepEqual([started.subtype, started.hook_name, started.hook_event], ["hook_started", "PreToolUse:Bash", "PreToolUse"]);
  assert.deepEqual([response.subtype, response.hook_id, response.hook_name], ["hook_response", started.hook_id, "PreToolUse:Bash"]);
  assert.deepEqual([response.exit_code, response.outcome, response.stdout, response.stderr], [0, "success", "said\n", "more\n"]);
});

scenario("perTaskStopAffordance: an interrupt spares what runs behind", "1.1 perTaskStopAffordance", async (t) => {
  const s = await t.session({
    replies: [
      { tool_use: [bash("echo $$ > pid; exec sleep 600", { run_in_background: true })] },
      { text: "I will never end", hold: true },
      { text: "Noted.", repeat: true },
    ],
    options: { ...bypass, perTaskStopAffordance: true, includePartialMessages: true },
  });
  const live = s.live();
  live.send("first");
  const { task_id } = await live.until("system/task_started");
  await live.until((message) => message.type === "stream_event" && message.event.delta?.text?.includes("never"));
  while (!s.has("pid") || s.read("pid").trim() === "") await new Promise((resolve) => setTimeout(resolve, 5));
  await live.query.interrupt();
  await live.result();
  process.kill(Number(s.read("pid")), 0);
  await live.query.stopTask(task_id);
  await live.until("system/task_notification");
  await live.end();
});

scenario("plugins: a local one, its command", ["1.1 plugins"], async (t) => {
  const s = await t.session({
    files: {
      "home/fruit/.claude-plugin/plugin.json": { name: "fruit", version: "1.0.0", description: "Fruit" },
      "home/fruit/commands/peel.md": "---\ndescription: Peels\n---\nPeel the MANGO.\n",
    },
    options: ({ home }) => ({ plugins: [{ type: "local", path: join(home, "fruit") }] }),
  });
  const { init, bodies } = await s.ok("/fruit:peel");
  assert.ok(init.plugins.some((plugin) => plugin.name === "fruit"), JSON.stringify(init.plugins));
  assert.ok(init.slash_commands.includes("fruit:peel"));
  assert.match(told(bodies[0]), /Peel the MANGO\./);
});

scenario("projectConfigRoot: the project's settings come from there", "1.1 projectConfigRoot", async (t) => {
  const s = await t.session({
    files: {
      "home/trunk/.claude/settings.json": { permissions: { deny: ["Bash(touch:*)"] } },
      ".claude/settings.json": { permissions: { deny: ["Bash(mkdir:*)"] } },
    },
    replies: [{ tool_use: [touch("made")] }, { tool_use: [bash("mkdir other")] }, { text: "Done." }],
    options: ({ home }) => ({ ...bypass, settingSources: ["project"], projectConfigRoot: join(home, "trunk") }),
  });
  await s.ok();
  assert.deepEqual([s.has("made"), s.has("other")], [false, true]);
});

scenario("promptSuggestions: one after the second turn", ["1.1 promptSuggestions", "1.3 prompt_suggestion"], async (t) => {
  const s = await t.session({ replies: [{ text: "One." }, { text: "Two." }, { text: "peel the pears too" }], options: { promptSuggestions: true } });
  const live = s.live();
  await live.say("peel the plums");
  await live.say("and the apples");
  const { suggestion } = await live.until("prompt_suggestion");
  assert.equal(suggestion, "peel the pears too");
  await live.end();
});

scenario("resumeDropsTurn: what else would be lost refuses the resume", "1.1 resumeDropsTurn", async (t) => {
  const s = await t.session({ replies: [{ text: "One." }, { text: "Two." }, { text: "Three." }] });
  const uuid = "55555555-5555-4555-8555-555555555555";
  const live = s.live();
  await live.say("the first thing");
  const at = find(live.messages, "assistant").uuid;
  await live.say("the second thing", { uuid });
  await live.end();
  const resume = find(live.messages, "system/init").session_id;
  const refused = await s.turn("the third thing", { resume, resumeSessionAt: at, resumeDropsTurn: randomUUID() });
  assert.equal(refused.result.subtype, "error_during_execution");
  assert.match(refused.result.errors[0], /^Resume rejected by --resume-drops-turn:/);
  const { result, bodies } = await s.ok("the third thing", { resume, resumeSessionAt: at, resumeDropsTurn: uuid });
  assert.equal(result.is_error, false);
  assert.ok(!told(bodies.at(-1)).includes("the second thing") && told(bodies.at(-1)).includes("the first thing"));
});

scenario("sessionStore: the conversation is mirrored and taken up again", ["1.1 sessionStore", "1.3 transcript_mirror"], async (t) => {
  const kept = new Map();
  const name = ({ projectKey, sessionId, subpath }) => [projectKey, sessionId, subpath].join("/");
  const sessionStore = {
    append: async (key, entries) => void kept.set(name(key), [...(kept.get(name(key)) ?? []), ...entries]),
    load: async (key) => kept.get(name(key)) ?? null,
  };
  const s = await t.session({ wire: true, replies: [{ text: "One." }, { text: "Two." }], options: { sessionStore }, env: ({ home }) => ({ CLAUDE_CONFIG_DIR: join(home, ".claude") }) });
  const { result } = await s.ok("the first thing");
  const [entries] = [...kept.values()];
  assert.ok(entries.some((entry) => entry.type === "user") && entries.some((entry) => entry.type === "assistant"));
  assert.ok(s.frames.some((frame) => frame.type === "transcript_mirror" && frame.entries.length > 0));
  const fresh = await s.ok("the second thing", { resume: result.session_id });
  assert.match(told(fresh.bodies[1]), /the first thing/);
});

scenario("title: the session has it", "1.1 title", async (t) => {
  const s = await t.session({ options: { title: "Plums and pears" } });
  const { result } = await s.ok();
  const info = await s.helper(() => getSessionInfo(result.session_id, { dir: s.cwd }));
  assert.equal(info.customTitle ?? info.summary, "Plums and pears");
});

scenario("toolConfig and AskUserQuestion: the host's answers", "1.1 toolConfig", async (t) => {
  const question = {
    question: "Which fruit?",
    header: "Fruit",
    multiSelect: false,
    options: [{ label: "Plum", description: "blue", preview: "<b>plum</b>" }, { label: "Pear", description: "green", preview: "<b>pear</b>" }],
  };
  const asked = [];
  const s = await t.session({
    replies: [{ tool_use: [call("AskUserQuestion", { questions: [question] })] }, { text: "Done." }],
    options: {
      toolConfig: { askUserQuestion: { previewFormat: "html" } },
      canUseTool: async (name, input) => {
        asked.push([name, input.questions[0].options.map((option) => option.preview)]);
        return { behavior: "allow", updatedInput: { ...input, answers: { "Which fruit?": "Pear" } } };
      },
    },
  });
  const { messages, bodies } = await s.ok();
  assert.deepEqual(asked, [["AskUserQuestion", ["<b>plum</b>", "<b>pear</b>"]]]);
  assert.deepEqual(find(messages, "user").tool_use_result.answers, { "Which fruit?": "Pear" });
  assert.match(text(resultsIn(bodies[1])[0].content), /Pear/);
});

scenario("onUserDialog: supported kinds are declared, and nothing is asked", "1.1 onUserDialog", async (t) => {
  const s = await t.session({ wire: true, options: { supportedDialogKinds: ["some_kind"], onUserDialog: async () => assert.fail("nothing to ask") } });
  const { result } = await s.ok();
  assert.equal(result.result, "Done.");
});

scenario("sandbox: where it cannot be had, failIfUnavailable says so", "1.1 sandbox", async (t) => {
  const s = await t.session({ options: { sandbox: { enabled: true, bwrapPath: "/no/such/bwrap", socatPath: "/no/such/socat" } } });
  const { error } = await s.turn("go");
  assert.match(`${error} ${s.stderr}`, /sandbox/i);
  assert.equal(s.bodies().length, 0);
});

scenario("pathToClaudeCodeExecutable and spawnClaudeCodeProcess: what is started", ["1.1 pathToClaudeCodeExecutable", "1.1 spawnClaudeCodeProcess"], async (t) => {
  const s = await t.session({ wire: true });
  const { init } = await s.ok();
  assert.deepEqual(s.args.slice(0, 2), ["--output-format", "stream-json"]);
  assert.equal(s.child.spawnfile, process.env.AGENT);
  assert.match(init.claude_code_version, /^\d+\.\d+\.\d+/);
  assert.equal(await s.exited, 0);
});
