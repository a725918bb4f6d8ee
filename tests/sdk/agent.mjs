// The stock TypeScript Agent SDK (npm @anthropic-ai/claude-agent-sdk) drives wardian-agent.
import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { randomUUID } from "node:crypto";
import { createSdkMcpServer, getSessionMessages, listSessions, query, tool } from "@anthropic-ai/claude-agent-sdk";
import { z } from "zod";
import { KEY, Place, main, model, scenario } from "./lib.mjs";

const MODEL = "claude-sonnet-5-5";

// One session: a place to work in, a model server, and the options that point the SDK at our agent.
async function session(use, replies, options = {}) {
  const place = use(new Place());
  const home = use(new Place());
  const server = use(await model({ replies }));
  const env = { PATH: process.env.PATH, HOME: home.path, ANTHROPIC_BASE_URL: server.url, ANTHROPIC_API_KEY: KEY };
  const all = {
    pathToClaudeCodeExecutable: process.env.WARDIAN_AGENT,
    cwd: place.path,
    model: MODEL,
    settingSources: [],
    env,
    ...options,
    ...(options.env ? { env: { ...env, ...options.env } } : {}),
  };
  return { place, server, options: all };
}

// Runs one prompt to its end: all messages, the result, and what the SDK threw, if it did.
async function turn({ options, server }, prompt) {
  const messages = [];
  let error;
  try {
    for await (const message of query({ prompt, options })) messages.push(message);
  } catch (caught) {
    error = caught;
  }
  const result = messages.findLast((message) => message.type === "result");
  assert.ok(result, `no result; messages: ${messages.map(name)}; error: ${error}`);
  // What the model was told: the bodies of the Messages API calls.
  const bodies = server
    .requests()
    .filter((request) => request.path === "/v1/messages")
    .map((request) => request.body);
  return { messages, result, error, bodies };
}

const name = (message) => (message.subtype ? `${message.type}/${message.subtype}` : message.type);
const blocks = (messages, type) =>
  messages.filter((message) => message.type === type).flatMap((message) => message.message.content);
const call = (tool, input) => ({ name: tool, input });
const bash = (command) => call("Bash", { command });
// The tool results in the last message that the model got.
const results = (body) => body.messages.findLast((message) => message.role === "user").content;
const text = (content) => (typeof content === "string" ? content : content.map((block) => block.text).join("\n"));
const user = (prompt) => ({
  type: "user",
  session_id: "",
  message: { role: "user", content: prompt },
  parent_tool_use_id: null,
});

scenario("a text turn: messages, result, cost", async (use) => {
  // $2, $10, $0.10 and $2.50 a million: 0.002 + 0.001 + 0.001 + 0.001.
  const usage = {
    input_tokens: 1000,
    output_tokens: 100,
    cache_read_input_tokens: 10_000,
    cache_creation_input_tokens: 400,
  };
  const given = await session(use, [{ text: "Hello, wörld 🦀!", usage }], { systemPrompt: "Be brief." });
  const { messages, result, error, bodies } = await turn(given, "hi");
  assert.equal(error, undefined);
  const kinds = messages.map(name).filter((kind) => kind !== "system/status");
  assert.deepEqual(kinds, ["system/init", "assistant", "result/success"]);
  const [init] = messages;
  assert.equal(init.model, MODEL);
  assert.equal(init.cwd, given.place.path);
  assert.ok(["default", "auto"].includes(init.permissionMode), init.permissionMode);
  for (const tool of ["Bash", "Read", "Write", "Edit"]) assert.ok(init.tools.includes(tool), `${init.tools}`);
  assert.match(init.claude_code_version, /^\d+\.\d+\.\d+/);
  const assistant = messages.find((message) => message.type === "assistant");
  assert.deepEqual(assistant.message.content, [{ type: "text", text: "Hello, wörld 🦀!" }]);
  assert.equal(assistant.message.stop_reason, null);
  assert.equal(assistant.parent_tool_use_id, null);
  assert.equal(result.result, "Hello, wörld 🦀!");
  assert.equal(result.is_error, false);
  assert.equal(result.num_turns, 1);
  assert.equal(result.stop_reason, "end_turn");
  assert.equal(result.terminal_reason, "completed");
  assert.equal(result.total_cost_usd, 0.005);
  assert.equal(result.usage.input_tokens, 1000);
  assert.equal(result.usage.output_tokens, 100);
  assert.equal(result.usage.cache_read_input_tokens, 10_000);
  assert.equal(result.modelUsage[MODEL].costUSD, 0.005);
  assert.equal(result.modelUsage[MODEL].outputTokens, 100);
  assert.equal(result.modelUsage[MODEL].cacheCreationInputTokens, 400);
  assert.deepEqual(result.permission_denials, []);
  assert.ok(result.duration_ms >= result.duration_api_ms && result.duration_api_ms >= 0);
  for (const message of messages) {
    assert.equal(message.session_id, init.session_id);
    assert.match(message.uuid, /^[0-9a-f-]{36}$/);
  }
  assert.equal(bodies.length, 1);
  assert.equal(bodies[0].stream, true);
  assert.match(JSON.stringify(bodies[0].system), /Be brief\./);
  assert.equal(text(bodies[0].messages.at(0).content).includes("hi"), true);
});

scenario("one tool: Bash", async (use) => {
  const replies = [{ text: "I run it.", tool_use: [bash("echo hello; echo oops >&2")] }, { text: "Done." }];
  const given = await session(use, replies, { allowedTools: ["Bash"] });
  const { messages, result, bodies } = await turn(given, "run it");
  const kinds = messages.map(name).filter((kind) => kind !== "system/status");
  assert.deepEqual(kinds, ["system/init", "assistant", "assistant", "user", "assistant", "result/success"]);
  const answer = messages.find((message) => message.type === "user");
  assert.match(answer.tool_use_result.stdout, /hello/);
  assert.equal(answer.tool_use_result.interrupted, false);
  assert.match(text(results(bodies[1])[0].content), /hello\n?oops/);
  assert.equal(result.num_turns, 2);
  assert.equal(result.result, "Done.");
});

scenario("one tool: Read, free inside the working directory", async (use) => {
  const given = await session(use, []);
  const file = given.place.file("note.txt", "first\nsecond\n");
  const { options } = given;
  const server = use(
    await model({ replies: [{ tool_use: [call("Read", { file_path: file })] }, { text: "Read." }] }),
  );
  options.env.ANTHROPIC_BASE_URL = server.url;
  const { messages, bodies } = await turn({ options, server }, "read it");
  const { file: read, type } = messages.find((message) => message.type === "user").tool_use_result;
  assert.equal(type, "text");
  assert.equal(read.filePath, file);
  assert.equal(read.startLine, 1);
  assert.match(read.content, /^first\nsecond/);
  assert.match(text(results(bodies[1])[0].content), /1\tfirst\n\s*2\tsecond/);
});

scenario("parallel tools: a user message each", async (use) => {
  const replies = [{ tool_use: [bash("echo a"), bash("echo b"), bash("echo c")] }, { text: "Done." }];
  const given = await session(use, replies, { allowedTools: ["Bash"] });
  const { messages, result, bodies } = await turn(given, "run them");
  const ids = blocks(messages, "assistant").filter((block) => block.type === "tool_use").map((block) => block.id);
  assert.equal(result.num_turns, 4);
  assert.deepEqual(
    blocks(messages, "user").map((block) => block.tool_use_id).sort(),
    [...ids].sort(),
  );
  assert.deepEqual(
    bodies[1].messages.flatMap((message) => message.content).filter((block) => block.type === "tool_result").length,
    3,
  );
});

scenario("canUseTool denies", async (use) => {
  const replies = [{ tool_use: [bash("touch made")] }, { text: "I may not." }];
  const asked = [];
  const given = await session(use, replies, {
    permissionMode: "default",
    canUseTool: async (tool, input, extra) => {
      asked.push({ tool, input, id: extra.toolUseID, signal: extra.signal instanceof AbortSignal });
      return { behavior: "deny", message: "Not on my machine." };
    },
  });
  const { messages, result, bodies } = await turn(given, "make a file");
  const [use1] = blocks(messages, "assistant");
  assert.deepEqual(asked, [{ tool: "Bash", input: { command: "touch made" }, id: use1.id, signal: true }]);
  assert.equal(existsSync(join(given.place.path, "made")), false);
  const [denied] = results(bodies[1]);
  assert.equal(denied.is_error, true);
  assert.match(text(denied.content), /Not on my machine\./);
  assert.deepEqual(result.permission_denials, [
    { tool_name: "Bash", tool_use_id: use1.id, tool_input: { command: "touch made" } },
  ]);
  assert.equal(result.subtype, "success");
});

scenario("canUseTool allows, with another input", async (use) => {
  const replies = [{ tool_use: [bash("touch first")] }, { text: "Done." }];
  const given = await session(use, replies, {
    permissionMode: "default",
    canUseTool: async () => ({ behavior: "allow", updatedInput: { command: "touch second" } }),
  });
  const { result } = await turn(given, "make a file");
  assert.equal(existsSync(join(given.place.path, "first")), false);
  assert.equal(existsSync(join(given.place.path, "second")), true);
  assert.deepEqual(result.permission_denials, []);
});

scenario("nobody to ask: denied", async (use) => {
  const replies = [{ tool_use: [bash("touch made")] }, { text: "I may not." }];
  const given = await session(use, replies, { permissionMode: "default" });
  const { messages, result, bodies } = await turn(given, "make a file");
  const notice = messages.find((message) => name(message) === "system/permission_denied");
  assert.equal(notice?.tool_name, "Bash");
  assert.equal(results(bodies[1])[0].is_error, true);
  assert.equal(result.permission_denials.length, 1);
  assert.equal(existsSync(join(given.place.path, "made")), false);
});

scenario("a PreToolUse hook denies", async (use) => {
  const replies = [{ tool_use: [bash("touch made")] }, { text: "I may not." }];
  const inputs = [];
  const hook = async (input, id) => {
    inputs.push({ ...input, id });
    const permissionDecisionReason = "The hook says no.";
    return { hookSpecificOutput: { hookEventName: "PreToolUse", permissionDecision: "deny", permissionDecisionReason } };
  };
  const other = async () => assert.fail("its matcher names another tool");
  const given = await session(use, replies, {
    allowedTools: ["Bash"],
    hooks: { PreToolUse: [{ matcher: "Write|Edit", hooks: [other] }, { matcher: "Bash", hooks: [hook] }] },
  });
  const { messages, result, bodies } = await turn(given, "make a file");
  const [asked] = blocks(messages, "assistant");
  assert.equal(inputs.length, 1);
  assert.equal(inputs[0].hook_event_name, "PreToolUse");
  assert.equal(inputs[0].tool_name, "Bash");
  assert.deepEqual(inputs[0].tool_input, { command: "touch made" });
  assert.equal(inputs[0].session_id, messages[0].session_id);
  assert.equal(inputs[0].cwd, given.place.path);
  assert.equal(inputs[0].id, asked.id);
  assert.equal(results(bodies[1])[0].is_error, true);
  assert.match(text(results(bodies[1])[0].content), /The hook says no\./);
  assert.equal(result.permission_denials.length, 1);
  assert.equal(existsSync(join(given.place.path, "made")), false);
});

scenario("the file tools and their structured results", async (use) => {
  const given = await session(use, [], {
    permissionMode: "acceptEdits",
    // The searching tools are there for who names them.
    tools: ["Bash", "Edit", "Glob", "Grep", "Read", "Write"],
  });
  const path = join(given.place.path, "src.py");
  const replies = [
    { tool_use: [call("Write", { file_path: path, content: "one = 1\ntwo = 2\n" })] },
    { tool_use: [call("Edit", { file_path: path, old_string: "two = 2", new_string: "two = 3" })] },
    { tool_use: [call("Glob", { pattern: "**/*.py" })] },
    { tool_use: [call("Grep", { pattern: "two", output_mode: "content", "-n": true })] },
    { tool_use: [call("Read", { file_path: join(given.place.path, "missing.txt") })] },
    { tool_use: [call("Nonsense", {})] },
    { tool_use: [call("Read", {})] },
    { text: "Done." },
  ];
  const server = use(await model({ replies }));
  given.options.env.ANTHROPIC_BASE_URL = server.url;
  const { messages, result } = await turn({ options: given.options, server }, "go");
  assert.equal(readFileSync(path, "utf8"), "one = 1\ntwo = 3\n");
  const [write, edit, glob, grep, ...failed] = messages
    .filter((message) => message.type === "user")
    .map((message) => message.tool_use_result);
  assert.equal(write.type, "create");
  assert.equal(write.filePath, path);
  assert.equal(edit.oldString, "two = 2");
  assert.equal(edit.originalFile, "one = 1\ntwo = 2\n");
  assert.ok(edit.structuredPatch.length > 0);
  assert.equal(glob.numFiles, 1);
  assert.match(glob.filenames[0], /src\.py$/);
  assert.equal(grep.mode, "content");
  assert.match(grep.content, /2:two = 3/);
  assert.equal(failed.length, 3);
  for (const said of failed) assert.equal(typeof said, "string");
  assert.equal(result.num_turns, 8);
  assert.equal(result.is_error, false);
  const told = blocks(messages, "user").slice(4);
  assert.ok(told.every((block) => block.is_error === true), JSON.stringify(told));
});

scenario("PreToolUse hooks change the input, and ask the host", async (use) => {
  const replies = [{ tool_use: [bash("touch first")] }, { tool_use: [bash("touch third")] }, { text: "Done." }];
  const output = { hookEventName: "PreToolUse" };
  const hook = async (input) =>
    input.tool_input.command === "touch first"
      ? { hookSpecificOutput: { ...output, permissionDecision: "allow", updatedInput: { command: "touch second" } } }
      : { hookSpecificOutput: { ...output, permissionDecision: "ask", permissionDecisionReason: "look twice" } };
  const asked = [];
  const given = await session(use, replies, {
    hooks: { PreToolUse: [{ hooks: [hook] }] },
    canUseTool: async (_tool, input) => (asked.push(input.command), { behavior: "deny", message: "No." }),
  });
  await turn(given, "go");
  const there = ["first", "second", "third"].map((file) => existsSync(join(given.place.path, file)));
  assert.deepEqual(there, [false, true, false]);
  assert.deepEqual(asked, ["touch third"]);
});

scenario("maxTurns", async (use) => {
  const replies = [{ tool_use: [bash("echo x >> runs")], repeat: true }];
  const given = await session(use, replies, { allowedTools: ["Bash", "Edit"], maxTurns: 2 });
  const { result, error, bodies } = await turn(given, "go on");
  assert.equal(result.subtype, "error_max_turns");
  assert.equal(result.is_error, true);
  assert.equal(result.num_turns, 3);
  assert.equal(result.terminal_reason, "max_turns");
  assert.equal(result.errors.length, 1);
  assert.equal(bodies.length, 2);
  assert.equal(readFileSync(join(given.place.path, "runs"), "utf8"), "x\nx\n");
  assert.ok(error.message.includes(result.errors[0]), error.message);
});

scenario("maxBudgetUsd", async (use) => {
  // 40,000 output tokens at $10 a million are $0.40 a call.
  const usage = { input_tokens: 0, output_tokens: 40_000 };
  const replies = [{ tool_use: [bash("echo x >> runs")], usage, repeat: true }];
  const given = await session(use, replies, { allowedTools: ["Bash", "Edit"], maxBudgetUsd: 0.5 });
  const { result, error } = await turn(given, "go on");
  assert.equal(result.subtype, "error_max_budget_usd");
  assert.equal(result.is_error, true);
  assert.equal(result.num_turns, 2);
  assert.equal(result.terminal_reason, "budget_exhausted");
  assert.equal(result.errors.length, 1);
  assert.equal(result.total_cost_usd, 0.8);
  assert.equal(result.modelUsage[MODEL].outputTokens, 80_000);
  assert.equal(readFileSync(join(given.place.path, "runs"), "utf8"), "x\n");
  assert.ok(error.message.includes(result.errors[0]), error.message);
});

// A prompt stream that is fed by hand.
function feed() {
  const waiting = [];
  let wake = () => {};
  let ended = false;
  return {
    push: (prompt) => (waiting.push(user(prompt)), wake()),
    end: () => ((ended = true), wake()),
    async *[Symbol.asyncIterator]() {
      while (!ended || waiting.length > 0) {
        if (waiting.length > 0) yield waiting.shift();
        else await new Promise((resolve) => (wake = resolve));
      }
    },
  };
}

scenario("interrupt while the model speaks; the session goes on", async (use) => {
  const replies = [{ text: "I will never end", hold: true }, { text: "Here I am." }];
  const given = await session(use, replies, { includePartialMessages: true });
  const prompts = feed();
  const running = query({ prompt: prompts, options: given.options });
  prompts.push("first");
  const messages = [];
  for await (const message of running) {
    messages.push(message);
    const delta = message.type === "stream_event" ? message.event.delta : undefined;
    if (delta?.type === "text_delta" && delta.text.includes("never") && messages.filter((m) => m.interrupting).length === 0) {
      messages.push({ type: "mark", interrupting: true });
      await running.interrupt();
    }
    if (message.type !== "result") continue;
    if (messages.filter((one) => one.type === "result").length === 2) prompts.end();
    else prompts.push("second");
  }
  const [first, second] = messages.filter((message) => message.type === "result");
  assert.equal(first.subtype, "error_during_execution");
  assert.equal(first.is_error, true);
  assert.equal(first.terminal_reason, "aborted_streaming");
  assert.equal(second.subtype, "success");
  assert.equal(second.result, "Here I am.");
  assert.equal(second.session_id, first.session_id);
  // What was said until then is kept, and a user message says that it was broken off.
  assert.ok(blocks(messages, "assistant").some((block) => block.text?.startsWith("I will never")));
  assert.equal(messages.filter((message) => message.type === "user").length, 1);
  const last = given.server.requests().at(-1).body.messages.map((message) => text(message.content));
  assert.ok(last.some((said) => said.includes("first")) && last.some((said) => said.includes("second")), `${last}`);
});

scenario("interrupt while a command runs; it is killed, the session goes on", async (use) => {
  const replies = [{ tool_use: [bash("echo $$ > pid; exec sleep 600")] }, { text: "Here I am." }];
  const given = await session(use, replies, { allowedTools: ["Bash", "Edit"] });
  const prompts = feed();
  const running = query({ prompt: prompts, options: given.options });
  prompts.push("first");
  const pid = join(given.place.path, "pid");
  const results = [];
  const watch = (async () => {
    // The command's own first act; there is no event for it that a host could await.
    while (!existsSync(pid) || readFileSync(pid, "utf8").trim() === "") await new Promise((resolve) => setTimeout(resolve, 5));
    await running.interrupt();
  })();
  for await (const message of running) {
    if (message.type !== "result") continue;
    results.push(message);
    if (results.length === 2) prompts.end();
    else prompts.push("second");
  }
  await watch;
  assert.equal(results[0].subtype, "error_during_execution");
  assert.equal(results[0].terminal_reason, "aborted_tools");
  assert.equal(results[1].result, "Here I am.");
  assert.throws(() => process.kill(Number(readFileSync(pid, "utf8")), 0), /ESRCH/);
});

scenario("two prompts in one stream", async (use) => {
  const given = await session(use, [{ text: "One." }, { text: "Two." }]);
  async function* prompts() {
    yield user("first");
    yield user("second");
  }
  const { messages, bodies } = await turn(given, prompts());
  const kinds = messages.map(name).filter((kind) => kind !== "system/status");
  const each = ["system/init", "assistant", "result/success"];
  assert.deepEqual(kinds, [...each, ...each]);
  const ended = messages.filter((message) => message.type === "result");
  assert.deepEqual(ended.map((message) => message.result), ["One.", "Two."]);
  assert.deepEqual(ended.map((message) => message.num_turns), [1, 1]);
  assert.equal(new Set(messages.map((message) => message.session_id)).size, 1);
  // 10 tokens in and 5 out a call, at $2 and $10 a million; the total goes on, the usage of a turn is its own.
  assert.deepEqual(ended.map((message) => message.total_cost_usd), [0.00007, 0.00014]);
  assert.deepEqual(ended.map((message) => message.usage.output_tokens), [5, 5]);
  assert.deepEqual(
    bodies[1].messages.filter((message) => message.role !== "system").map((message) => message.role),
    ["user", "assistant", "user"],
  );
});

scenario("an API error 400 is the SDK's own exception", async (use) => {
  const replies = [{ error: { status: 400, message: "prompt is too long" } }];
  const given = await session(use, replies);
  const { messages, result, error, bodies } = await turn(given, "hi");
  assert.equal(result.subtype, "success");
  assert.equal(result.is_error, true);
  assert.equal(result.api_error_status, 400);
  assert.equal(result.terminal_reason, "prompt_too_long");
  assert.match(result.result, /400.*prompt is too long/);
  assert.deepEqual(result.modelUsage, {});
  const assistant = messages.find((message) => message.type === "assistant");
  assert.equal(assistant.message.model, "<synthetic>");
  assert.equal(assistant.error !== undefined, true);
  assert.equal(bodies.length, 1);
  assert.match(error.message, /Claude Code returned an error result: .*prompt is too long/);
});

scenario("an overloaded model is asked again", async (use) => {
  const overloaded = { error: { status: 529, headers: { "retry-after": "0" } } };
  const given = await session(use, [overloaded, { drop_connection: true }, { text: "At last." }]);
  const { messages, result } = await turn(given, "hi");
  assert.equal(result.result, "At last.");
  const retries = messages.filter((message) => name(message) === "system/api_retry");
  assert.deepEqual(retries.map((message) => [message.attempt, message.error_status]), [[1, 529], [2, null]]);
});

scenario("includePartialMessages", async (use) => {
  const replies = [
    { thinking: "Hm.", text: "I look.", tool_use: [bash("echo hi")], pings: 1, chunk_bytes: 4 },
    { text: "Done." },
  ];
  const given = await session(use, replies, { includePartialMessages: true, allowedTools: ["Bash"] });
  const { messages } = await turn(given, "hi");
  const kinds = messages
    .map((message) => (message.type === "stream_event" ? message.event.type : name(message)))
    .filter((kind) => kind !== "content_block_delta" && kind !== "system/thinking_tokens");
  const block = ["content_block_start", "assistant", "content_block_stop"];
  const one = ["system/status", "message_start"];
  const end = ["message_delta", "message_stop"];
  assert.deepEqual(kinds, [
    "system/init",
    ...one, ...block, ...block, ...block, ...end,
    "user",
    ...one, ...block, ...end,
    "result/success",
  ]);
  const deltas = messages.filter((message) => message.type === "stream_event").map((message) => message.event.delta ?? {});
  const sum = (type, field) => deltas.filter((delta) => delta.type === type).map((delta) => delta[field]).join("");
  assert.equal(sum("text_delta", "text"), "I look.Done.");
  assert.equal(sum("thinking_delta", "thinking"), "Hm.");
  assert.deepEqual(JSON.parse(sum("input_json_delta", "partial_json")), { command: "echo hi" });
});

scenario("mode and model change in mid-session", async (use) => {
  const write = (path) => ({ tool_use: [call("Write", { file_path: path, content: "x" })] });
  const given = await session(use, []);
  const path = (file) => join(given.place.path, file);
  const server = use(await model({ replies: [
    // Another model is asked for one token first.
    { match: { last_text_contains: "Hi" }, text: "Hi." },
    write(path("a")),
    { text: "No." },
    write(path("b")),
    { text: "Yes." },
  ] }));
  given.options.env.ANTHROPIC_BASE_URL = server.url;
  const prompts = feed();
  const running = query({ prompt: prompts, options: { ...given.options, permissionMode: "default" } });
  prompts.push("write a");
  const ended = [];
  for await (const message of running) {
    if (message.type !== "result") continue;
    ended.push(message);
    if (ended.length === 2) {
      prompts.end();
      continue;
    }
    await running.setPermissionMode("acceptEdits");
    await running.setModel("claude-haiku-5-5");
    prompts.push("write b");
  }
  assert.deepEqual(ended.map((message) => message.result), ["No.", "Yes."]);
  assert.equal(existsSync(path("a")), false);
  assert.equal(existsSync(path("b")), true);
  const models = server.requests().filter((request) => request.path === "/v1/messages").map((request) => request.body.model);
  assert.equal(models[0], MODEL);
  assert.equal(models.at(-1), "claude-haiku-5-5");
});

scenario("the caller aborts", async (use) => {
  const given = await session(use, [{ text: "I will never end", hold: true }], { includePartialMessages: true });
  const abortController = new AbortController();
  const running = query({ prompt: "hi", options: { ...given.options, abortController } });
  const error = await (async () => {
    for await (const message of running) if (message.type === "stream_event") abortController.abort();
  })().catch((error) => error);
  assert.match(String(error), /abort/i);
});

await scenario("resume and continue: the conversation, its id and its costs go on", async (use) => {
  const replies = [{ tool_use: [bash("echo hello")] }, { text: "One." }, { text: "Two." }, { text: "Three." }];
  const given = await session(use, replies, { allowedTools: ["Bash"], sessionId: randomUUID() });
  const { sessionId, ...rest } = given.options;
  const first = await turn(given, "first");
  const resumed = await turn({ ...given, options: { ...rest, resume: sessionId } }, "second");
  const { result, bodies } = await turn({ ...given, options: { ...rest, continue: true } }, "third");
  assert.deepEqual([first, resumed].map((one) => one.result.session_id), [sessionId, sessionId]);
  assert.equal(result.session_id, sessionId);
  assert.equal(result.result, "Three.");
  // $0.00007 a call.
  assert.deepEqual([first.result, resumed.result, result].map((one) => one.total_cost_usd), [0.00014, 0.00021, 0.00028]);
  assert.equal(result.modelUsage[MODEL].outputTokens, 20);
  const said = bodies.at(-1).messages;
  assert.deepEqual(said.map((message) => message.role), ["user", "assistant", "user", "assistant", "user", "assistant", "user"]);
  assert.deepEqual([0, 3, 4, 5, 6].map((index) => said[index].content[0].text), ["first", "One.", "second", "Two.", "third"]);
  assert.match(text(said[2].content[0].content), /hello/);
  // The SDK's own helpers read the transcript, in this process.
  const before = process.env.CLAUDE_CONFIG_DIR;
  process.env.CLAUDE_CONFIG_DIR = join(rest.env.HOME, ".claude");
  try {
    const [listed] = await listSessions({ dir: given.place.path });
    assert.equal(listed.sessionId, sessionId);
    assert.equal(listed.firstPrompt, "first");
    assert.equal(listed.cwd, given.place.path);
    const kept = await getSessionMessages(sessionId, { dir: given.place.path });
    const kinds = kept.map((message) => message.type);
    assert.deepEqual(kinds, ["user", "assistant", "user", "assistant", "user", "assistant", "user", "assistant"]);
    assert.equal(kept[3].message.content[0].text, "One.");
  } finally {
    if (before === undefined) delete process.env.CLAUDE_CONFIG_DIR;
    else process.env.CLAUDE_CONFIG_DIR = before;
  }
});

scenario("resume of a conversation that is not there", async (use) => {
  const resume = randomUUID();
  const { result, error } = await turn(await session(use, [], { resume }), "hi");
  assert.equal(result.subtype, "error_during_execution");
  assert.deepEqual(result.errors, [`No conversation found with session ID: ${resume}`]);
  assert.match(String(error), /No conversation found/);
});

scenario("persistSession: false keeps nothing", async (use) => {
  const given = await session(use, [{ text: "Hello." }], { persistSession: false });
  await turn(given, "hi");
  assert.equal(existsSync(join(given.options.env.HOME, ".claude")), false);
});

scenario("tools of createSdkMcpServer", async (use) => {
  const replies = [
    { tool_use: [call("mcp__lab__add", { a: 1, b: 2 }), call("mcp__lab__add", { a: 3, b: 4 }), call("mcp__lab__fail", {})] },
    { text: "Done." },
  ];
  const running = [];
  const add = tool("add", "Adds two numbers.", { a: z.number(), b: z.number() }, async ({ a, b }) => {
    // Neither ends before both have begun.
    await new Promise((resolve) => {
      running.push(resolve);
      if (running.length === 2) running.forEach((end) => end());
    });
    return { content: [{ type: "text", text: `It is ${a + b}.` }] };
  });
  const fail = tool("fail", "Fails.", {}, async () => {
    throw new Error("It broke.");
  });
  const lab = createSdkMcpServer({ name: "lab", version: "1.0.0", tools: [add, fail] });
  const given = await session(use, replies, {
    mcpServers: { lab },
    allowedTools: ["mcp__lab__add", "mcp__lab__fail"],
    // Else the model is told of them once it has searched for them.
    env: { ENABLE_TOOL_SEARCH: "false" },
  });
  const { messages, result, bodies } = await turn(given, (async function* () { yield user("add"); })());
  const [init] = messages;
  assert.deepEqual(init.mcp_servers.map(({ name, status }) => ({ name, status })), [{ name: "lab", status: "connected" }]);
  assert.ok(init.tools.includes("mcp__lab__add"), `${init.tools}`);
  const [three, seven, broken] = results(bodies[1]);
  assert.deepEqual([three, seven].map((one) => text(one.content)), ["It is 3.", "It is 7."]);
  assert.equal(broken.is_error, true);
  assert.match(text(broken.content), /It broke\./);
  assert.equal(result.result, "Done.");
  const offered = bodies[0].tools.find((one) => one.name === "mcp__lab__add");
  assert.equal(offered.description, "Adds two numbers.");
  assert.deepEqual(offered.input_schema.required, ["a", "b"]);
});

scenario("a tool of createSdkMcpServer is asked about, and refused", async (use) => {
  const replies = [{ tool_use: [call("mcp__lab__add", { a: 1 })] }, { text: "I may not." }];
  const asked = [];
  const add = tool("add", "Adds.", { a: z.number() }, async () => assert.fail("it was refused"));
  const given = await session(use, replies, {
    mcpServers: { lab: createSdkMcpServer({ name: "lab", tools: [add] }) },
    permissionMode: "default",
    canUseTool: async (name, input, { toolUseID }) => {
      asked.push({ name, input, toolUseID });
      return { behavior: "deny", message: "Not that one." };
    },
  });
  const { messages, bodies } = await turn(given, (async function* () { yield user("add"); })());
  const [use_] = blocks(messages, "assistant");
  assert.deepEqual(asked, [{ name: "mcp__lab__add", input: { a: 1 }, toolUseID: use_.id }]);
  assert.match(text(results(bodies[1])[0].content), /Not that one\./);
});

main("TypeScript SDK");
