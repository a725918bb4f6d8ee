// The stock Messages API client (npm @anthropic-ai/sdk) against the scripted model server.
import assert from "node:assert/strict";
import Anthropic from "@anthropic-ai/sdk";
import { KEY, main, model, scenario } from "./lib.mjs";

const ask = (text) => ({ model: "claude-sonnet-5-5", max_tokens: 100, messages: [{ role: "user", content: text }] });
const REPLY = {
  thinking: "Let me think.",
  text: "Hello, wörld 🦀!",
  tool_use: [{ name: "Bash", input: { command: 'echo "hi"', list: [1, { a: null }] }, id: "toolu_1" }],
  chunk_bytes: 3,
  pings: 2,
  usage: { input_tokens: 12, output_tokens: 34, cache_read_input_tokens: 56 },
};

async function client(use, script, options = {}) {
  const server = use(await model(script));
  return { server, api: new Anthropic({ baseURL: server.url, apiKey: KEY, maxRetries: 0, ...options }) };
}

scenario("a stream amounts to the plain message", async (use) => {
  const { api, server } = await client(use, { replies: [REPLY, REPLY] });
  const plain = await api.messages.create(ask("hi"));
  const streamed = await api.messages.stream(ask("hi")).finalMessage();
  assert.deepEqual(streamed.content, plain.content);
  assert.deepEqual(
    plain.content.map((block) => block.type),
    ["thinking", "text", "tool_use"],
  );
  assert.deepEqual(plain.content[2].input, REPLY.tool_use[0].input);
  for (const message of [plain, streamed]) {
    assert.equal(message.stop_reason, "tool_use");
    assert.equal(message.model, "claude-sonnet-5-5");
    assert.equal(message.usage.input_tokens, 12);
    assert.equal(message.usage.output_tokens, 34);
    assert.equal(message.usage.cache_read_input_tokens, 56);
  }
  assert.match(plain._request_id, /^req_/);
  assert.deepEqual(
    server.requests().map((request) => [request.path, request.body.stream ?? false]),
    [
      ["/v1/messages", false],
      ["/v1/messages", true],
    ],
  );
});

scenario("text comes in pieces", async (use) => {
  const { api } = await client(use, { replies: [{ text: "0123456789", chunk_bytes: 4 }] });
  const pieces = [];
  const stream = api.messages.stream(ask("hi"));
  stream.on("text", (piece) => pieces.push(piece));
  await stream.finalMessage();
  assert.deepEqual(pieces, ["0123", "4567", "89"]);
});

scenario("errors have their own classes", async (use) => {
  const error = (status, type) => ({ error: { status, type, message: "as scripted", headers: { "x-mark": "1" } } });
  const { api } = await client(use, {
    replies: [error(400), error(403), error(404), error(409), error(429), error(500), error(529), error(402, "billing_error")],
  });
  const classes = [
    Anthropic.BadRequestError,
    Anthropic.PermissionDeniedError,
    Anthropic.NotFoundError,
    Anthropic.ConflictError,
    Anthropic.RateLimitError,
    Anthropic.InternalServerError,
    Anthropic.InternalServerError,
    Anthropic.APIError,
  ];
  for (const kind of classes) {
    const error = await api.messages.create(ask("hi")).then(assert.fail, (error) => error);
    assert.ok(error instanceof kind, `${error} is no ${kind.name}`);
    assert.match(error.message, /as scripted/);
    assert.match(error.requestID, /^req_/);
    assert.equal(error.headers.get("x-mark"), "1");
  }
  const wrong = await api.messages.create({ ...ask("hi"), messages: [] }).then(assert.fail, (error) => error);
  assert.ok(wrong instanceof Anthropic.BadRequestError);
  assert.match(wrong.message, /at least one message/);
});

scenario("a missing key is refused", async (use) => {
  const { api } = await client(use, { replies: [] });
  const keyless = { headers: { "x-api-key": null, authorization: null } };
  await assert.rejects(api.messages.create(ask("hi"), keyless), Anthropic.AuthenticationError);
});

scenario("the client retries, and not when told so", async (use) => {
  const overloaded = { error: { status: 529, headers: { "retry-after-ms": "1" } } };
  const never = { error: { status: 529, headers: { "x-should-retry": "false" } } };
  const { api, server } = await client(
    use,
    { replies: [overloaded, { drop_connection: true }, { text: "at last" }, never, { text: "never given" }] },
    { maxRetries: 3 },
  );
  const message = await api.messages.create(ask("hi"));
  assert.equal(message.content[0].text, "at last");
  await assert.rejects(api.messages.create(ask("hi")), Anthropic.InternalServerError);
  assert.equal(server.requests().length, 4);
});

scenario("a stream that breaks off is an error", async (use) => {
  const { api } = await client(use, {
    replies: [
      { text: "cut in the middle", cut_after_bytes: 700 },
      { text: "cut by a reset", cut_after_events: 4, cut_with: "reset" },
      { text: "ended by an error", error_in_stream_after: 4 },
      { text: "ok" },
    ],
  });
  for (const expected of [/terminated|abort|socket|other side|without/i, /./, /Overloaded/]) {
    const error = await api.messages.stream(ask("hi")).finalMessage().then(assert.fail, (error) => error);
    assert.ok(error instanceof Anthropic.AnthropicError || error instanceof TypeError, String(error));
    assert.match(`${error} ${error.cause}`, expected);
  }
  assert.equal((await api.messages.stream(ask("hi")).finalMessage()).content[0].text, "ok");
});

scenario("a client may leave a stream that is held", async (use) => {
  const { api } = await client(use, { replies: [{ text: "hello", hold: true }, { text: "ok" }] });
  const stream = api.messages.stream(ask("hi"));
  await new Promise((resolve) => stream.once("text", resolve));
  stream.abort();
  await assert.rejects(stream.finalMessage(), Anthropic.APIUserAbortError);
  assert.equal((await api.messages.create(ask("hi"))).content[0].text, "ok");
});

scenario("tokens are counted and models listed", async (use) => {
  const { api } = await client(use, { replies: [], models: ["claude-a", "claude-b", "claude-c"] });
  const { max_tokens, ...question } = ask("hi");
  assert.equal((await api.messages.countTokens(question)).input_tokens, 8);
  const ids = [];
  for await (const one of api.models.list({ limit: 2 })) ids.push(one.id);
  assert.deepEqual(ids, ["claude-a", "claude-b", "claude-c"]);
  assert.equal((await api.models.retrieve("claude-b")).id, "claude-b");
  await assert.rejects(api.models.retrieve("claude-z"), Anthropic.NotFoundError);
});

await main("npm client");
