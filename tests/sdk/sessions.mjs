// The stock client (npm @anthropic-ai/sdk) against `wardian serve`: agents, environments, sessions, events, files.
import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { openSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import Anthropic, { toFile } from "@anthropic-ai/sdk";
import { KEY, main, model, Place, scenario } from "./lib.mjs";

const { WARDIAN, WARDIAN_AGENT } = process.env;
const TOOLSET = "agent_toolset_20260401";
const text = (text) => ({ type: "text", text });
const message = (words) => ({ type: "user.message", content: [text(words)] });
const bash = (command, more = {}) => ({ tool_use: [{ name: "Bash", input: { command } }], ...more });

// A server with a scripted model behind it, and a client of an administrator.
async function serve(use, replies, { config = "" } = {}) {
  const fake = use(await model({ replies }));
  const place = use(new Place());
  const data = join(place.path, "data");
  const log = join(place.path, "server.log");
  const file = place.file("wardian.toml", config);
  const args = ["--config", file, "--listen", "127.0.0.1:0", "--data-dir", data, "--upstream", fake.url];
  const env = { ...process.env, ANTHROPIC_API_KEY: KEY, WARDIAN_LIBEXEC_DIR: dirname(WARDIAN_AGENT) };
  const stdio = ["ignore", "pipe", openSync(log, "a")];
  const start = async () => {
    const server = spawn(WARDIAN, ["serve", "--allow-no-cgroup", ...args], { env, stdio });
    const ended = new Promise((resolve) => server.once("exit", resolve));
    const ready = new Promise((resolve) => createInterface({ input: server.stdout }).once("line", resolve));
    const line = await Promise.race([ready, ended.then(() => assert.fail(readFileSync(log, "utf8")))]);
    return { server, ended, url: JSON.parse(line).base_url };
  };
  let running = await start();
  use({ [Symbol.dispose]: () => running.server.kill("SIGKILL") });
  const key = (...more) =>
    execFileSync(WARDIAN, ["keys", "create", "--data-dir", data, "--name", "sdk", ...more], { encoding: "utf8" }).trim();
  const client = (apiKey, options = {}) => new Anthropic({ baseURL: running.url, apiKey, maxRetries: 0, ...options });
  const admin = key("--scope", "admin");
  return {
    api: client(admin),
    client,
    key,
    fake,
    log: () => readFileSync(log, "utf8"),
    // Ends the server, by SIGTERM or at once, and starts another in its place.
    restart: async (signal) => {
      running.server.kill(signal);
      await running.ended;
      running = await start();
      return client(admin);
    },
  };
}

// An agent, an environment and a session of both.
async function session(api, { tools = [{ type: TOOLSET }], agent = {}, ...more } = {}) {
  const made = await api.beta.agents.create({ name: "helper", model: "claude-haiku-4-5", tools, ...agent });
  const environment = await api.beta.environments.create({ name: "plain" });
  return api.beta.sessions.create({ agent: made.id, environment_id: environment.id, ...more });
}

const isIdle = (event) => event.type === "session.status_idle";

// The events of a stream until one fits.
async function until(stream, fits = isIdle) {
  const events = [];
  for await (const event of stream) {
    events.push(event);
    if (fits(event)) return events;
  }
  assert.fail(`the stream ended: ${events.map((event) => event.type)}`);
}

// Sends events and reads until the session rests.
async function turn(api, id, ...events) {
  const stream = await api.beta.sessions.events.stream(id);
  await api.beta.sessions.events.send(id, { events });
  return until(stream);
}

async function all(list) {
  const items = [];
  for await (const item of list) items.push(item);
  return items;
}

// What a reader of the stream makes of it: each event at its first place, as it is at last.
function fold(events) {
  const folded = new Map();
  for (const event of events) folded.set(event.id, event);
  return [...folded.values()];
}

const types = (events) => events.map((event) => event.type);
const ofType = (events, type) => events.filter((event) => event.type === type);
const failure = (promise) => promise.then(assert.fail, (error) => error);

scenario("a session from its agent to its last event", async (use) => {
  const { api } = await serve(use, [
    { text: "I look.", ...bash("echo from the sandbox") },
    { match: { tool_result_contains: "from the sandbox" }, text: "Done." },
  ]);
  const one = await session(api, { title: "first", metadata: { project: "x" } });
  assert.match(one.id, /^sesn_/);
  assert.deepEqual([one.type, one.status, one.title, one.metadata], ["session", "idle", "first", { project: "x" }]);
  assert.deepEqual([one.agent.type, one.agent.version, one.agent.name], ["agent", 1, "helper"]);
  assert.deepEqual([one.archived_at, one.budget, one.resources, one.vault_ids], [null, null, [], []]);
  const stream = await api.beta.sessions.events.stream(one.id);
  const sent = await api.beta.sessions.events.send(one.id, { events: [message("Look around.")] });
  assert.deepEqual([sent.data[0].type, sent.data[0].processed_at], ["user.message", null]);
  const events = await until(stream);
  const folded = fold(events);
  assert.equal(folded[0].id, sent.data[0].id);
  assert.ok(folded[0].processed_at);
  const [use_] = ofType(folded, "agent.tool_use");
  assert.deepEqual([use_.name, use_.input, use_.evaluated_permission], ["bash", { command: "echo from the sandbox" }, "allow"]);
  const [result] = ofType(folded, "agent.tool_result");
  assert.equal(result.tool_use_id, use_.id);
  assert.match(result.content[0].text, /from the sandbox/);
  assert.deepEqual(
    ofType(folded, "agent.message").map((event) => event.content[0].text),
    ["I look.", "Done."],
  );
  assert.deepEqual(folded.at(-1).stop_reason, { type: "end_turn" });
  assert.equal(ofType(folded, "span.model_request_start").length, 2);
  assert.equal(ofType(folded, "span.model_request_end")[0].model_usage.input_tokens, 10);
  // The list is what the fold of the stream is.
  assert.deepEqual(await all(api.beta.sessions.events.list(one.id, { limit: 1000 })), folded);
  const after = await api.beta.sessions.retrieve(one.id);
  assert.deepEqual([after.status, after.usage.input_tokens, after.usage.output_tokens], ["idle", 20, 10]);
  assert.deepEqual(after.usage.list_cost, { amount: "1", currency: "USD" });
  assert.ok(after.stats.duration_seconds > 0);
});

scenario("a session begins with events of its own", async (use) => {
  const { api } = await serve(use, [{ echo: true, repeat: true }]);
  const one = await session(api, { initial_events: [message("first words")] });
  const stream = await api.beta.sessions.events.stream(one.id, {}, { headers: { "last-event-id": "0" } });
  const events = fold(await until(stream));
  assert.deepEqual([events[0].type, events[0].content], ["user.message", [text("first words")]]);
  assert.deepEqual(ofType(events, "agent.message")[0].content, [text("first words")]);
});

scenario("lists are paged both ways", async (use) => {
  const { api } = await serve(use, [{ echo: true, repeat: true }]);
  const first = await session(api);
  const ids = [first.id];
  for (let index = 1; index < 5; index++) {
    const next = { agent: first.agent.id, environment_id: first.environment_id };
    ids.push((await api.beta.sessions.create(next)).id);
  }
  ids.reverse();
  const idsOf = (sessions) => sessions.map((one) => one.id);
  assert.deepEqual(idsOf(await all(api.beta.sessions.list({ limit: 2 }))), ids);
  assert.deepEqual(idsOf(await all(api.beta.sessions.list({ limit: 2, order: "asc" }))), ids.toReversed());
  const page = await api.beta.sessions.list({ limit: 2 });
  assert.equal(page.prev_page, null);
  const second = await page.getNextPage();
  const back = await api.beta.sessions.list({ limit: 2, page: second.prev_page });
  assert.deepEqual(idsOf(back.data), ids.slice(0, 2));
  assert.deepEqual(idsOf(await all(api.beta.sessions.list({ agent_id: first.agent.id, statuses: ["idle", "running"] }))), ids);
  assert.deepEqual(await all(api.beta.sessions.list({ statuses: ["terminated"] })), []);
  assert.deepEqual(await all(api.beta.sessions.list({ "created_at[lt]": first.created_at })), []);
  await turn(api, first.id, message("one"));
  await turn(api, first.id, message("two"));
  const events = await all(api.beta.sessions.events.list(first.id));
  assert.deepEqual(await all(api.beta.sessions.events.list(first.id, { limit: 2 })), events);
  assert.deepEqual(await all(api.beta.sessions.events.list(first.id, { limit: 3, order: "desc" })), events.toReversed());
  const asked = ["user.message", "agent.message"];
  const some = await all(api.beta.sessions.events.list(first.id, { types: asked, limit: 1 }));
  assert.deepEqual(types(some), ["user.message", "agent.message", "user.message", "agent.message"]);
});

scenario("errors have their own classes", async (use) => {
  const { api, client, key } = await serve(use, [{ echo: true, repeat: true }]);
  const one = await session(api);
  const make = { agent: one.agent.id, environment_id: one.environment_id };
  const sessions = api.beta.sessions;
  const unknown = "sesn_00000000000000000000000000";
  const reader = client(key("--scope", "read"));
  const other = { idempotencyKey: undefined, headers: { "idempotency-key": "same" } };
  await sessions.create({ ...make, title: "a" }, other);
  const cases = [
    [() => sessions.retrieve(unknown), Anthropic.NotFoundError, /no session/],
    [() => sessions.retrieve("../../etc/passwd"), Anthropic.NotFoundError, /./],
    [() => sessions.events.send(unknown, { events: [message("x")] }), Anthropic.NotFoundError, /no session/],
    [() => sessions.create({ ...make, titel: "x" }), Anthropic.BadRequestError, /did you mean `title`/],
    [() => sessions.create({ ...make, vault_ids: ["vlt_1"] }), Anthropic.BadRequestError, /vault_ids/],
    [() => sessions.events.send(one.id, { events: [] }), Anthropic.BadRequestError, /1 to 50/],
    [
      () => sessions.events.send(one.id, { events: [{ type: "user.define_outcome", description: "x", rubric: { type: "text", content: "y" } }] }),
      Anthropic.BadRequestError,
      /define_outcome/,
    ],
    [() => sessions.events.list(one.id, { types: ["user.massage"] }), Anthropic.BadRequestError, /types/],
    [() => sessions.list({ page: "nonsense" }), Anthropic.BadRequestError, /page/],
    [() => client("sk-wardian-wrong").beta.sessions.list(), Anthropic.AuthenticationError, /API key/],
    [() => reader.beta.sessions.create(make), Anthropic.PermissionDeniedError, /scope/],
    [() => sessions.create({ ...make, title: "b" }, other), Anthropic.UnprocessableEntityError, /./],
    [
      () => api.beta.agents.update(one.agent.id, { version: 7, name: "late" }),
      Anthropic.ConflictError,
      /version/,
    ],
  ];
  for (const [ask, kind, words] of cases) {
    const error = await failure(ask());
    assert.ok(error instanceof kind, `${error.constructor.name} is no ${kind.name}: ${error.message}`);
    assert.match(error.message, words);
    assert.match(error.requestID, /^req_/);
  }
});

scenario("a request that is sent again does nothing again", async (use) => {
  const { api } = await serve(use, [{ echo: true, repeat: true }]);
  const one = await session(api);
  const once = { headers: { "idempotency-key": "one" } };
  const make = { agent: one.agent.id, environment_id: one.environment_id, title: "once" };
  const first = await api.beta.sessions.create(make, once);
  const again = await api.beta.sessions.create(make, once);
  assert.equal(again.id, first.id);
  assert.equal((await all(api.beta.sessions.list())).length, 2);
  const send = () => api.beta.sessions.events.send(one.id, { events: [message("hi")] }, once).catch((error) => error);
  const sent = await send();
  // The key belongs to another route now.
  assert.ok(sent instanceof Anthropic.UnprocessableEntityError, String(sent));
  const key = { headers: { "idempotency-key": "two" } };
  const stream = await api.beta.sessions.events.stream(one.id);
  const [a, b] = [
    await api.beta.sessions.events.send(one.id, { events: [message("hi")] }, key),
    await api.beta.sessions.events.send(one.id, { events: [message("hi")] }, key),
  ];
  assert.equal(a.data[0].id, b.data[0].id);
  assert.equal(ofType(fold(await until(stream)), "user.message").length, 1);
});

scenario("archived, deleted, and what that closes", async (use) => {
  const { api } = await serve(use, [{ echo: true, repeat: true }]);
  const one = await session(api);
  await turn(api, one.id, message("hi"));
  const archived = await api.beta.sessions.archive(one.id);
  assert.ok(archived.archived_at);
  assert.deepEqual(await all(api.beta.sessions.list()), []);
  assert.equal((await all(api.beta.sessions.list({ include_archived: true }))).length, 1);
  const late = await failure(api.beta.sessions.events.send(one.id, { events: [message("more")] }));
  assert.ok(late instanceof Anthropic.BadRequestError || late instanceof Anthropic.ConflictError, String(late));
  const two = await api.beta.sessions.create({ agent: one.agent.id, environment_id: one.environment_id });
  const stream = await api.beta.sessions.events.stream(two.id);
  assert.deepEqual(await api.beta.sessions.delete(two.id), { id: two.id, type: "session_deleted" });
  const told = await all(stream);
  assert.equal(told.at(-1).type, "session.deleted");
  assert.ok((await failure(api.beta.sessions.retrieve(two.id))) instanceof Anthropic.NotFoundError);
  await api.beta.agents.archive(one.agent.id);
  const closed = { agent: one.agent.id, environment_id: one.environment_id };
  assert.match((await failure(api.beta.sessions.create(closed))).message, /agent: it is archived/);
});

scenario("a session is changed", async (use) => {
  const { api } = await serve(use, [{ echo: true, repeat: true }]);
  const budget = (amount) => ({ type: "limit", max_list_cost: { amount, currency: "USD" } });
  const one = await session(api, { title: "a", metadata: { keep: "1", drop: "2" }, budget: budget("100") });
  assert.deepEqual(one.budget, budget("100"));
  const stream = await api.beta.sessions.events.stream(one.id);
  const changed = await api.beta.sessions.update(one.id, { title: null, metadata: { drop: null, more: "3" }, budget: budget("250") });
  assert.deepEqual([changed.title, changed.metadata, changed.budget], [null, { keep: "1", more: "3" }, budget("250")]);
  const [event] = (await until(stream, (event) => event.type === "session.updated")).slice(-1);
  assert.deepEqual([event.title, event.metadata, event.budget], [null, { keep: "1", more: "3" }, budget("250")]);
  const free = await api.beta.sessions.update(one.id, { budget: null });
  assert.equal(free.budget, null);
  assert.match((await failure(api.beta.sessions.update(one.id, { budget: budget("1") }))).message, /budget_create_only/);
});

scenario("overrides replace what the agent has", async (use) => {
  const { api, fake } = await serve(use, [{ echo: true, repeat: true }]);
  const made = await api.beta.agents.create({ name: "helper", model: "claude-haiku-4-5", system: "Be brief." });
  const environment = await api.beta.environments.create({ name: "plain" });
  const agent = { type: "agent_with_overrides", id: made.id, system: "Be a pirate.", tools: [{ type: TOOLSET }] };
  const one = await api.beta.sessions.create({ agent, environment_id: environment.id });
  assert.equal(one.agent.system, "Be a pirate.");
  assert.equal(one.agent.tools[0].type, TOOLSET);
  await turn(api, one.id, message("hi"));
  assert.match(JSON.stringify(fake.requests().at(-1).body.system), /Be a pirate/);
  const wrong = { ...agent, tools: [{ type: "tool" }] };
  const error = await failure(api.beta.sessions.create({ agent: wrong, environment_id: environment.id }));
  assert.match(error.message, /agent\.tools\[0\]\.type/);
});

const ASK = { type: TOOLSET, default_config: { permission_policy: { type: "always_ask" } } };

scenario("a tool that is asked about: allowed, then denied", async (use) => {
  const { api } = await serve(use, [
    { match: { last_text_contains: "first" }, ...bash("echo allowed-ran") },
    { match: { tool_result_contains: "allowed-ran" }, text: "It ran." },
    { match: { last_text_contains: "second" }, ...bash("echo never-ran") },
    { match: { tool_result_contains: "not on my watch" }, text: "I see." },
  ]);
  const one = await session(api, { tools: [ASK] });
  for (const [words, answer, said] of [
    ["first", { result: "allow" }, "It ran."],
    ["second", { result: "deny", deny_message: "not on my watch" }, "I see."],
  ]) {
    const asked = fold(await turn(api, one.id, message(words)));
    const [call] = ofType(asked, "agent.tool_use").slice(-1);
    assert.equal(call.evaluated_permission, "ask");
    assert.deepEqual(asked.at(-1).stop_reason, { type: "requires_action", event_ids: [call.id] });
    const answered = fold(await turn(api, one.id, { type: "user.tool_confirmation", tool_use_id: call.id, ...answer }));
    const [result] = ofType(answered, "agent.tool_result");
    assert.equal(result.tool_use_id, call.id);
    assert.equal(result.is_error ?? false, answer.result === "deny");
    assert.equal(ofType(answered, "agent.message")[0].content[0].text, said);
    assert.deepEqual(answered.at(-1).stop_reason, { type: "end_turn" });
    // An answer counts once.
    const twice = await failure(
      api.beta.sessions.events.send(one.id, { events: [{ type: "user.tool_confirmation", tool_use_id: call.id, result: "allow" }] }),
    );
    assert.ok(twice instanceof Anthropic.BadRequestError || twice instanceof Anthropic.ConflictError, String(twice));
  }
});

scenario("a question outlives the server", async (use) => {
  const served = await serve(use, [
    bash("echo after-restart"),
    { match: { tool_result_contains: "after-restart" }, text: "Still here." },
    { repeat: true, text: "Something else." },
  ]);
  const one = await session(served.api, { tools: [ASK] });
  const asked = fold(await turn(served.api, one.id, message("go")));
  const [call] = ofType(asked, "agent.tool_use");
  const api = await served.restart("SIGKILL");
  assert.equal((await api.beta.sessions.retrieve(one.id)).status, "idle");
  const answered = fold(await turn(api, one.id, { type: "user.tool_confirmation", tool_use_id: call.id, result: "allow" }));
  assert.equal(answered.at(-1).stop_reason.type, "end_turn");
});

const WEATHER = {
  type: "custom",
  name: "get_weather",
  description: "Tells the weather of a city.",
  input_schema: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
};

scenario("a custom tool is run by the client's own helper", async (use) => {
  const { api } = await serve(use, [
    { match: { last_text_contains: "weather" }, tool_use: [{ name: "mcp__custom__get_weather", input: { city: "Bergen" } }] },
    { match: { tool_result_contains: "rain in Bergen" }, text: "It rains." },
  ]);
  const one = await session(api, { tools: [WEATHER] });
  const tool = { ...WEATHER, run: ({ city }) => `rain in ${city}`, parse: (input) => input };
  await api.beta.sessions.events.send(one.id, { events: [message("How is the weather?")] });
  const calls = [];
  for await (const call of api.beta.sessions.events.toolRunner(one.id, { tools: [tool], maxIdleMs: 200 })) calls.push(call);
  assert.deepEqual(
    calls.map((call) => [call.name, call.isError, call.posted]),
    [["get_weather", false, true]],
  );
  const events = await all(api.beta.sessions.events.list(one.id));
  const [use_] = ofType(events, "agent.custom_tool_use");
  assert.deepEqual([use_.name, use_.input], ["get_weather", { city: "Bergen" }]);
  assert.equal(ofType(events, "user.custom_tool_result")[0].custom_tool_use_id, use_.id);
  assert.deepEqual(ofType(events, "agent.message").at(-1).content, [text("It rains.")]);
});

scenario("an interrupt ends a turn, and the next message works", async (use) => {
  const { api } = await serve(use, [
    { match: { last_text_contains: "sleep" }, ...bash("echo begun; sleep 60") },
    { match: { last_text_contains: "hello" }, text: "Hello." },
    { repeat: true, text: "Fine." },
  ]);
  const one = await session(api);
  const stream = await api.beta.sessions.events.stream(one.id);
  await api.beta.sessions.events.send(one.id, { events: [message("sleep")] });
  await until(stream, (event) => event.type === "agent.tool_use");
  const interrupted = fold(await turn(api, one.id, { type: "user.interrupt" }));
  assert.deepEqual(interrupted.at(-1).stop_reason, { type: "end_turn" });
  const next = fold(await turn(api, one.id, message("hello")));
  assert.ok(["Hello.", "Fine."].includes(ofType(next, "agent.message").at(-1).content[0].text));
});

scenario("previews come before the event that they are of", async (use) => {
  const { api } = await serve(use, [{ thinking: "Hm.", text: "0123456789", chunk_bytes: 4 }]);
  const one = await session(api);
  const stream = await api.beta.sessions.events.stream(one.id, { event_deltas: ["agent.message", "agent.thinking"] });
  await api.beta.sessions.events.send(one.id, { events: [message("hi")] });
  const events = await until(stream);
  const [said] = ofType(events, "agent.message");
  const starts = ofType(events, "event_start").map((event) => event.event);
  assert.ok(starts.some((event) => event.type === "agent.message" && event.id === said.id), JSON.stringify(starts));
  assert.ok(starts.some((event) => event.type === "agent.thinking"), JSON.stringify(starts));
  const deltas = ofType(events, "event_delta").filter((event) => event.event_id === said.id);
  assert.equal(deltas.map((event) => event.delta.content.text).join(""), "0123456789");
  const listed = await all(api.beta.sessions.events.list(one.id));
  assert.ok(!types(listed).includes("event_start") && !types(listed).includes("event_delta"));
});

scenario("a stream goes on where it was", async (use) => {
  const { api } = await serve(use, [{ echo: true, repeat: true }]);
  const one = await session(api);
  await turn(api, one.id, message("one"));
  await turn(api, one.id, message("two"));
  const listed = await all(api.beta.sessions.events.list(one.id));
  const whole = await until(await api.beta.sessions.events.stream(one.id, {}, { query: { after: 0 } }), (event) => event.id === listed.at(-1).id);
  assert.deepEqual(fold(whole), listed);
  for (const seq of [1, 4]) {
    const stream = await api.beta.sessions.events.stream(one.id, {}, { headers: { "last-event-id": String(seq) } });
    assert.deepEqual(await until(stream, (event) => event.id === listed.at(-1).id), whole.slice(seq));
  }
  const beyond = await failure(api.beta.sessions.events.stream(one.id, {}, { query: { after: 1000 } }));
  assert.ok(beyond instanceof Anthropic.BadRequestError);
});

scenario("files go up and down, and sessions are given them", async (use) => {
  const { api } = await serve(use, [bash("cat /mnt/session/uploads/*"), { repeat: true, text: "Read." }]);
  const file = await api.beta.files.upload({ file: await toFile(Buffer.from("as it was sent"), "notes.txt") });
  assert.match(file.id, /^file_/);
  const one = await session(api, { resources: [{ type: "file", file_id: file.id }] });
  assert.deepEqual([one.resources[0].type, one.resources[0].file_id], ["file", file.id]);
  const events = fold(await turn(api, one.id, message("read it")));
  assert.match(ofType(events, "agent.tool_result")[0].content[0].text, /as it was sent/);
  const added = await api.beta.sessions.resources.add(one.id, { type: "file", file_id: file.id, mount_path: "/mnt/notes.txt" });
  assert.deepEqual((await all(api.beta.sessions.resources.list(one.id))).map((resource) => resource.id), [one.resources[0].id, added.id]);
  await api.beta.sessions.resources.delete(added.id, { session_id: one.id });
  assert.equal(await (await api.beta.files.download(file.id)).text(), "as it was sent");
  assert.equal((await all(api.beta.files.list())).length, 1);
  await api.beta.files.delete(file.id);
  assert.ok((await failure(api.beta.files.retrieveMetadata(file.id))) instanceof Anthropic.NotFoundError);
});

scenario("money that is used up ends the turn, and more goes on", async (use) => {
  const usage = { input_tokens: 5_000, output_tokens: 100 };
  const { api } = await serve(use, [{ text: "Dear.", usage }, { repeat: true, text: "Never given.", usage }]);
  const one = await session(api, { budget: { type: "limit", max_list_cost: { amount: "1", currency: "USD" } } });
  await turn(api, one.id, message("one"));
  const last = fold(await turn(api, one.id, message("x".repeat(200_000))));
  assert.equal(last.at(-1).stop_reason.type, "budget_reached");
});

await main("npm sessions");
