// How turns end: tables 2.6 (interrupts and signals) and 2.7 (results).
import { randomUUID } from "node:crypto";
import { MODEL, all, assert, bash, blocks, call, find, kind, nanos, resultsIn, scenario, text, toolResults } from "./lib.mjs";

const partial = (words) => (message) => message.type === "stream_event" && message.event.delta?.text?.includes(words);

scenario("text: a turn, its result, its price", "2.7 text", async (t) => {
  // $2, $10, $0.10 and $2.50 a million: 0.002 + 0.001 + 0.001 + 0.001.
  const usage = { input_tokens: 1000, output_tokens: 100, cache_read_input_tokens: 10_000, cache_creation_input_tokens: 400 };
  const s = await t.session({ replies: [{ text: "Hello, wörld 🦀!", usage }] });
  const { messages, result, error, init } = await s.ok("hi");
  assert.equal(error, undefined);
  const kinds = messages.map(kind).filter((one) => one !== "system/status");
  assert.deepEqual(kinds, ["system/init", "assistant", "result/success"]);
  assert.equal(result.result, "Hello, wörld 🦀!");
  assert.deepEqual([result.is_error, result.num_turns, result.stop_reason, result.terminal_reason], [false, 1, "end_turn", "completed"]);
  assert.equal(result.api_error_status, null);
  assert.equal(nanos(result.total_cost_usd), 5_000_000);
  assert.equal(result.result_index, 0);
  assert.equal(result.queued_turn_count, 0);
  const { input_tokens, output_tokens, cache_read_input_tokens, cache_creation_input_tokens } = result.usage;
  assert.deepEqual({ input_tokens, output_tokens, cache_read_input_tokens, cache_creation_input_tokens }, usage);
  const used = result.modelUsage[MODEL];
  assert.deepEqual(
    [nanos(used.costUSD), used.inputTokens, used.outputTokens, used.cacheReadInputTokens, used.cacheCreationInputTokens, used.webSearchRequests],
    [5_000_000, 1000, 100, 10_000, 400, 0],
  );
  assert.ok(used.contextWindow > 0 && used.maxOutputTokens > 0);
  assert.equal(used.costBasis, "list");
  assert.deepEqual(result.permission_denials, []);
  for (const field of ["duration_ms", "duration_api_ms", "ttft_ms", "ttft_stream_ms", "time_to_request_ms", "first_content_frame_ms"]) {
    assert.ok(Number.isFinite(result[field]) && result[field] >= 0, `${field}: ${result[field]}`);
  }
  assert.equal(result.subagent_stats.spawned, 0);
  for (const message of messages) assert.equal(message.session_id, init.session_id);
});

scenario("one tool is two turns", "2.7 one tool", async (t) => {
  const s = await t.session({
    replies: [{ text: "I run it.", tool_use: [bash("echo hello; echo oops >&2")] }, { text: "Done." }],
    options: { allowedTools: ["Bash"] },
  });
  const { messages, result, bodies } = await s.ok();
  const kinds = messages.map(kind).filter((one) => one !== "system/status");
  assert.deepEqual(kinds, ["system/init", "assistant", "assistant", "user", "assistant", "result/success"]);
  const { tool_use_result: output } = find(messages, "user");
  assert.match(output.stdout, /hello/);
  assert.equal(output.interrupted, false);
  assert.match(text(resultsIn(bodies[1])[0].content), /hello\n?oops/);
  assert.deepEqual([result.num_turns, result.result, result.terminal_reason], [2, "Done.", "completed"]);
});

scenario("three tools at once are four turns", "2.7 3 parallel tools", async (t) => {
  const s = await t.session({
    replies: [{ tool_use: [bash("echo a"), bash("echo b"), bash("echo c")] }, { text: "Done." }],
    options: { allowedTools: ["Bash"] },
  });
  const { messages, result, bodies } = await s.ok();
  const ids = blocks(messages, "assistant").filter((block) => block.type === "tool_use").map((block) => block.id);
  assert.equal(result.num_turns, 4);
  assert.equal(all(messages, "user").length, 3);
  assert.deepEqual(toolResults(messages).map((block) => block.tool_use_id).sort(), ids.sort());
  assert.equal(resultsIn(bodies[1]).length, 3);
});

scenario("maxTurns: the last tool runs, then the turn ends", ["1.1 maxTurns", "2.7 maxTurns 2", "1.3 result/error_max_turns"], async (t) => {
  const s = await t.session({
    replies: [{ tool_use: [bash("echo x >> runs")], repeat: true }],
    options: { allowedTools: ["Bash", "Edit"], maxTurns: 2 },
  });
  const { result, error, bodies } = await s.ok();
  assert.deepEqual([result.subtype, result.is_error, result.num_turns, result.terminal_reason], ["error_max_turns", true, 3, "max_turns"]);
  assert.equal(result.result, undefined);
  assert.deepEqual(result.errors, ["Reached maximum number of turns (2)"]);
  assert.equal(bodies.length, 2);
  assert.equal(s.read("runs"), "x\nx\n");
  assert.ok(error.message.includes(result.errors[0]), error.message);
});

scenario("maxBudgetUsd: checked after each reply", ["1.1 maxBudgetUsd", "2.7 maxBudgetUsd", "1.3 result/error_max_budget_usd"], async (t) => {
  // 40,000 output tokens at $10 a million are $0.40 a call.
  const usage = { input_tokens: 0, output_tokens: 40_000 };
  const s = await t.session({
    replies: [{ tool_use: [bash("echo x >> runs")], usage, repeat: true }],
    options: { allowedTools: ["Bash", "Edit"], maxBudgetUsd: 0.5 },
  });
  const { result, error } = await s.ok();
  assert.deepEqual([result.subtype, result.is_error, result.num_turns], ["error_max_budget_usd", true, 2]);
  assert.equal(result.terminal_reason, "budget_exhausted");
  assert.equal(nanos(result.total_cost_usd), 800_000_000);
  assert.equal(result.modelUsage[MODEL].outputTokens, 80_000);
  assert.deepEqual(result.errors, ["Reached maximum budget ($0.5)"]);
  // The stock CLI may have begun the second call's tool while that call was still streaming.
  assert.match(s.read("runs"), /^(x\n){1,2}$/);
  assert.ok(error.message.includes(result.errors[0]), error.message);
});

scenario("an API error 400 ends the turn as a success that is an error", "2.7 API 400", async (t) => {
  const s = await t.session({ replies: [{ error: { status: 400, message: "something is wrong with it" }, repeat: true }] });
  const { messages, result, error, bodies } = await s.ok();
  assert.deepEqual([result.subtype, result.is_error, result.num_turns, result.terminal_reason], ["success", true, 1, "api_error"]);
  assert.equal(result.api_error_status, 400);
  assert.equal(result.stop_reason, "stop_sequence");
  assert.match(result.result, /something is wrong with it/);
  assert.deepEqual(result.modelUsage, {});
  const said = find(messages, "assistant");
  assert.equal(said.message.model, "<synthetic>");
  assert.equal(said.error, "unknown");
  // The stock CLI asks some times more, in other ways; not as often as an overloaded model.
  assert.ok(bodies.length < 10, `${bodies.length}`);
  assert.match(error.message, /something is wrong with it/);
});

scenario("an API error 401", "2.7 API 401", async (t) => {
  const s = await t.session({
    replies: [{ error: { status: 401, message: "invalid x-api-key" }, repeat: true }],
    env: { CLAUDE_CODE_MAX_RETRIES: "1" },
  });
  const { messages, result } = await s.ok();
  assert.deepEqual([result.subtype, result.is_error, result.num_turns, result.terminal_reason], ["success", true, 1, "api_error"]);
  assert.equal(result.api_error_status, 401);
  assert.equal(find(messages, "assistant").error, "authentication_failed");
});

scenario("an overloaded model is asked again", ["2.7 529 once", "1.3 system/api_retry"], async (t) => {
  const s = await t.session({ replies: [{ error: { status: 529, headers: { "retry-after": "0" } } }, { text: "At last." }] });
  const { messages, result } = await s.ok();
  assert.deepEqual([result.subtype, result.is_error, result.num_turns, result.result], ["success", false, 1, "At last."]);
  const [retry, ...more] = all(messages, "system/api_retry");
  assert.equal(more.length, 0);
  assert.deepEqual([retry.attempt, retry.error_status, retry.error], [1, 529, "overloaded"]);
  assert.ok(retry.max_retries >= 1 && retry.retry_delay_ms >= 0);
});

scenario("a connection that breaks off is made again", "1.3 system/api_retry", async (t) => {
  const s = await t.session({ replies: [{ drop_connection: true }, { text: "At last." }] });
  const { messages, result } = await s.ok();
  assert.equal(result.result, "At last.");
  const [retry] = all(messages, "system/api_retry");
  assert.deepEqual([retry.attempt, retry.error_status], [1, null]);
});

scenario("failures of several kinds are counted together", "1.3 system/api_retry", async (t) => {
  const overloaded = { error: { status: 529, headers: { "retry-after": "0" } } };
  const s = await t.session({ replies: [overloaded, { drop_connection: true }, { text: "At last." }] });
  const { messages, result } = await s.ok();
  assert.equal(result.result, "At last.");
  assert.deepEqual(all(messages, "system/api_retry").map((retry) => [retry.attempt, retry.error_status]), [[1, 529], [2, null]]);
});

scenario("a prompt that is too long", "2.7 API 400", async (t) => {
  const s = await t.session({ replies: [{ error: { status: 400, message: "prompt is too long: 9 tokens > 8 maximum" }, repeat: true }] });
  const { messages, result, error } = await s.ok();
  assert.deepEqual([result.subtype, result.is_error, result.terminal_reason], ["success", true, "prompt_too_long"]);
  assert.match(result.result, /prompt is too long/i);
  assert.equal(find(messages, "assistant").message.model, "<synthetic>");
  assert.match(error.message, /Claude Code returned an error result: .*prompt is too long/i);
});

scenario("several turns: the usage of each, the cost of all", ["2.7 text", "1.2 streamInput"], async (t) => {
  const s = await t.session({ replies: [{ text: "One." }, { text: "Two." }] });
  const live = s.live();
  const ended = [await live.say("the first thing"), await live.say("the second thing")];
  await live.end();
  assert.deepEqual(ended.map((result) => [result.result, result.num_turns, result.usage.output_tokens]), [["One.", 1, 5], ["Two.", 1, 5]]);
  // 10 tokens in and 5 out a call, at $2 and $10 a million.
  assert.deepEqual(ended.map((result) => nanos(result.total_cost_usd)), [70_000, 140_000]);
  assert.deepEqual(ended.map((result) => result.modelUsage[MODEL].outputTokens), [5, 10]);
});

scenario("no key", "2.7 no key", async (t) => {
  const s = await t.session({ env: { ANTHROPIC_API_KEY: undefined } });
  const { messages, result, bodies } = await s.ok();
  assert.deepEqual([result.subtype, result.is_error, result.num_turns, result.terminal_reason], ["success", true, 1, "api_error"]);
  assert.equal(find(messages, "assistant").error, "authentication_failed");
  assert.equal(bodies.length, 0);
});

scenario("max_tokens: the model is asked to go on", "2.7 max_tokens stop", async (t) => {
  const s = await t.session({ replies: [{ text: "The first half", stop_reason: "max_tokens" }, { text: "and the second." }] });
  const { result, bodies } = await s.ok();
  assert.deepEqual([result.subtype, result.is_error, result.num_turns, result.result], ["success", false, 2, "and the second."]);
  assert.equal(bodies.length, 2);
  assert.equal(bodies[1].messages.filter((message) => message.role !== "system").at(-1).role, "user");
});

const schema = { type: "object", properties: { answer: { type: "number" } }, required: ["answer"], additionalProperties: false };

scenario("structured output ends the turn", ["2.7 structured output", "1.1 outputFormat"], async (t) => {
  const s = await t.session({
    replies: [{ tool_use: [call("StructuredOutput", { answer: 42 })] }],
    options: { outputFormat: { type: "json_schema", schema } },
  });
  const { result, bodies } = await s.ok();
  assert.deepEqual([result.subtype, result.is_error, result.num_turns, result.stop_reason], ["success", false, 2, "tool_use"]);
  assert.deepEqual(result.structured_output, { answer: 42 });
  assert.deepEqual(JSON.parse(result.result), { answer: 42 });
  assert.equal(bodies.length, 1);
  assert.deepEqual(bodies[0].tools.find((tool) => tool.name === "StructuredOutput").input_schema.required, ["answer"]);
});

scenario("structured output that never comes: one nudge", "2.7 structured, model never calls the tool", async (t) => {
  const s = await t.session({
    replies: [{ text: "It is 42.", repeat: true }],
    options: { outputFormat: { type: "json_schema", schema } },
  });
  const { result, bodies } = await s.ok();
  assert.deepEqual([result.subtype, result.is_error, result.num_turns], ["success", false, 2]);
  assert.equal(result.structured_output, undefined);
  assert.equal(bodies.length, 2);
});

scenario("structured output that never fits: the retries end", "1.3 result/error_max_structured_output_retries", async (t) => {
  const s = await t.session({
    replies: [{ tool_use: [call("StructuredOutput", { answer: "many" })], repeat: true }],
    options: { outputFormat: { type: "json_schema", schema } },
  });
  const { result, error } = await s.ok();
  assert.deepEqual([result.subtype, result.is_error], ["error_max_structured_output_retries", true]);
  assert.equal(result.terminal_reason, "structured_output_retry_exhausted");
  assert.equal(result.structured_output, undefined);
  assert.equal(result.errors.length, 1);
  assert.ok(error);
});

scenario("a hook with continue: false stops the turn", "2.7 hook continue:false", async (t) => {
  const s = await t.session({
    replies: [{ tool_use: [bash("echo hi")] }, { text: "Never said." }],
    options: { allowedTools: ["Bash"], hooks: { PostToolUse: [{ hooks: [async () => ({ continue: false, stopReason: "Enough." })] }] } },
  });
  const { result, bodies, error } = await s.ok();
  assert.equal(error, undefined);
  assert.deepEqual([result.subtype, result.is_error, result.num_turns, result.result], ["success", false, 2, ""]);
  assert.equal(result.terminal_reason, "hook_stopped");
  assert.equal(bodies.length, 1);
});

scenario("a prompt that a hook blocks", ["2.7 prompt blocked", "1.3 system/informational"], async (t) => {
  const s = await t.session({
    options: { hooks: { UserPromptSubmit: [{ hooks: [async () => ({ decision: "block", reason: "Not today." })] }] } },
  });
  const { messages, result, bodies } = await s.ok();
  assert.deepEqual([result.subtype, result.is_error, result.num_turns], ["success", false, 0]);
  const notice = find(messages, "system/informational");
  assert.deepEqual([notice.level, notice.prevent_continuation], ["warning", true]);
  assert.match(notice.content, /Not today\./);
  assert.equal(bodies.length, 0);
});

scenario("a local slash command costs no call", "2.7 local slash command", async (t) => {
  const s = await t.session();
  const { result, bodies } = await s.ok("/context");
  assert.deepEqual([result.subtype, result.is_error, result.num_turns], ["success", false, 0]);
  assert.equal(bodies.length, 0);
  assert.equal(result.total_cost_usd, 0);
});

scenario("resume of a conversation that is not there", "2.7 bad resume", async (t) => {
  const resume = randomUUID();
  const s = await t.session({ options: { resume }, wire: true });
  const { result, error } = await s.ok();
  assert.deepEqual([result.subtype, result.is_error, result.num_turns, result.total_cost_usd], ["error_during_execution", true, 0, 0]);
  assert.deepEqual(result.errors, [`No conversation found with session ID: ${resume}`]);
  assert.match(String(error), /No conversation found/);
  assert.equal(await s.exited, 1);
});

scenario("interrupt while the model speaks; the session goes on", ["2.6 interrupt while streaming", "1.2 interrupt", "1.3 result/error_during_execution"], async (t) => {
  const s = await t.session({
    replies: [{ text: "I will never end", hold: true }, { text: "Here I am." }],
    options: { includePartialMessages: true },
  });
  const live = s.live();
  live.send("first");
  await live.until(partial("never"));
  assert.deepEqual(await live.query.interrupt(), { still_queued: [] });
  const first = await live.result();
  assert.deepEqual([first.subtype, first.is_error, first.terminal_reason], ["error_during_execution", true, "aborted_streaming"]);
  assert.equal(first.errors.length, 1);
  assert.ok(blocks(live.messages, "assistant").some((block) => block.text?.startsWith("I will never")));
  assert.ok(all(live.messages, "assistant").some((message) => message.aborted === true));
  const [said] = all(live.messages, "user");
  assert.equal(text(said.message.content), "[Request interrupted by user]");
  const events = live.messages.filter((message) => message.type === "stream_event");
  assert.deepEqual(events.slice(-3).map((message) => message.event.type), ["content_block_stop", "message_delta", "message_stop"]);
  assert.ok(events.at(-1).abandoned_blocks !== undefined);
  const second = await live.say("second");
  assert.deepEqual([second.subtype, second.result, second.session_id], ["success", "Here I am.", first.session_id]);
  await live.end();
});

scenario("interrupt while a command runs; it is killed, the session goes on", "2.6 interrupt while Bash runs", async (t) => {
  const s = await t.session({
    replies: [{ tool_use: [bash("echo $$ > pid; exec sleep 600")] }, { text: "Here I am." }],
    options: { permissionMode: "bypassPermissions", allowDangerouslySkipPermissions: true },
  });
  const live = s.live();
  live.send("first");
  // The command's own first act; there is no event for it that a host could await.
  while (!s.has("pid") || s.read("pid").trim() === "") await new Promise((resolve) => setTimeout(resolve, 5));
  await live.query.interrupt();
  const first = await live.result();
  assert.deepEqual([first.subtype, first.is_error, first.terminal_reason], ["error_during_execution", true, "aborted_tools"]);
  const [stopped] = toolResults(live.messages);
  assert.equal(stopped.is_error, true);
  assert.equal(text(all(live.messages, "user").at(-1).message.content), "[Request interrupted by user for tool use]");
  const second = await live.say("second");
  assert.equal(second.result, "Here I am.");
  assert.throws(() => process.kill(Number(s.read("pid")), 0), /ESRCH/);
  await live.end();
});

scenario("the caller aborts", ["2.6 AbortController / close()", "1.1 abortController"], async (t) => {
  const abortController = new AbortController();
  const s = await t.session({
    replies: [{ text: "I will never end", hold: true }],
    options: { includePartialMessages: true, abortController },
    wire: true,
  });
  const live = s.live();
  live.send("first");
  await live.until(partial("never"));
  abortController.abort();
  await live.ended;
  assert.match(String(live.error), /abort/i);
  assert.equal(await s.exited, 143);
  assert.deepEqual(s.frames.filter((frame) => frame.type === "result"), []);
});

scenario("close() ends the agent", "1.2 close", async (t) => {
  const s = await t.session({ replies: [{ text: "I will never end", hold: true }], options: { includePartialMessages: true }, wire: true });
  const live = s.live();
  live.send("first");
  await live.until(partial("never"));
  live.query.close();
  assert.equal(await s.exited, 143);
  assert.deepEqual(s.frames.filter((frame) => frame.type === "result"), []);
});

scenario("SIGTERM ends it without a result", "2.6 SIGTERM", async (t) => {
  const s = await t.session({ replies: [{ text: "I will never end", hold: true }], options: { includePartialMessages: true }, wire: true });
  const live = s.live();
  live.send("first");
  await live.until(partial("never"));
  s.child.kill("SIGTERM");
  assert.equal(await s.exited, 143);
  await live.ended;
  assert.deepEqual(all(live.messages, "result"), []);
  assert.ok(live.error);
});

scenario("SIGINT ends the turn, and the agent with 0", "2.6 SIGINT", async (t) => {
  const s = await t.session({ replies: [{ text: "I will never end", hold: true }], options: { includePartialMessages: true }, wire: true });
  const live = s.live();
  live.send("first");
  await live.until(partial("never"));
  s.child.kill("SIGINT");
  const result = await s.frame((frame) => frame.type === "result");
  assert.deepEqual([result.subtype, result.is_error], ["error_during_execution", true]);
  assert.equal(await s.exited, 0);
});
