// The session helpers of the stock TypeScript Agent SDK read, fork and mark the sessions that wardian-agent keeps.
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { join } from "node:path";
import {
  deleteSession,
  forkSession,
  getSessionInfo,
  getSessionMessages,
  listSessions,
  query,
  renameSession,
  tagSession,
} from "@anthropic-ai/claude-agent-sdk";
import { KEY, Place, main, model, scenario } from "./lib.mjs";

const MODEL = "claude-sonnet-5-5";

// A place to work in and one to keep sessions in; the helpers look there, in this process.
async function place(use, replies) {
  const cwd = use(new Place()).path;
  const home = use(new Place()).path;
  const server = use(await model({ replies }));
  const before = process.env.CLAUDE_CONFIG_DIR;
  process.env.CLAUDE_CONFIG_DIR = join(home, ".claude");
  use({
    [Symbol.dispose]() {
      if (before === undefined) delete process.env.CLAUDE_CONFIG_DIR;
      else process.env.CLAUDE_CONFIG_DIR = before;
    },
  });
  const env = { PATH: process.env.PATH, HOME: home, ANTHROPIC_BASE_URL: server.url, ANTHROPIC_API_KEY: KEY };
  const options = {
    pathToClaudeCodeExecutable: process.env.WARDIAN_AGENT,
    cwd,
    model: MODEL,
    settingSources: [],
    env,
    permissionMode: "acceptEdits",
    allowedTools: ["Bash"],
  };
  const ask = async (prompt, more = {}) => {
    const messages = [];
    for await (const message of query({ prompt, options: { ...options, ...more } })) messages.push(message);
    return messages;
  };
  const bodies = () => server.requests().filter((request) => request.path === "/v1/messages").map((request) => request.body);
  return { cwd, ask, bodies };
}

const result = (messages) => messages.findLast((message) => message.type === "result");
const texts = (body) => body.messages.flatMap((message) => message.content).map((block) => block.text ?? block.type);
const bash = { name: "Bash", input: { command: "echo hello" } };

scenario("a session is listed, named, tagged and deleted", async (use) => {
  const { cwd: dir, ask } = await place(use, [{ text: "One." }, { text: "Two." }]);
  const sessionId = randomUUID();
  await ask("first", { sessionId });
  await ask("second", { resume: sessionId });
  const info = await getSessionInfo(sessionId, { dir });
  assert.deepEqual([info.summary, info.firstPrompt, info.cwd, info.gitBranch], ["second", "first", dir, "HEAD"]);
  assert.ok(Math.abs(info.createdAt - Date.now()) < 60_000);
  await renameSession(sessionId, "A name", { dir });
  await tagSession(sessionId, "blue", { dir });
  const [listed] = await listSessions({ dir });
  assert.deepEqual([listed.customTitle, listed.summary, listed.tag], ["A name", "A name", "blue"]);
  await deleteSession(sessionId, { dir });
  assert.deepEqual(await listSessions({ dir }), []);
});

scenario("a session that was named goes on", async (use) => {
  const { cwd: dir, ask, bodies } = await place(use, [{ text: "One." }, { text: "Two." }]);
  const sessionId = randomUUID();
  await ask("first", { sessionId, title: "Given" });
  assert.equal((await getSessionInfo(sessionId, { dir })).customTitle, "Given");
  await renameSession(sessionId, "Renamed", { dir });
  await ask("second", { resume: sessionId });
  assert.deepEqual(texts(bodies()[1]), ["first", "One.", "second"]);
  assert.equal((await getSessionInfo(sessionId, { dir })).customTitle, "Renamed");
});

scenario("the SDK forks a session, and the fork goes on", async (use) => {
  const replies = [{ text: "I run it.", tool_use: [bash, bash] }, { text: "One." }, { text: "Two." }, { text: "Three." }, { text: "Four." }];
  const { cwd: dir, ask, bodies } = await place(use, replies);
  const sessionId = randomUUID();
  await ask("first", { sessionId });
  await ask("second", { resume: sessionId });
  const kept = await getSessionMessages(sessionId, { dir });
  const kinds = kept.map((message) => message.type);
  assert.deepEqual(kinds, ["user", "assistant", "assistant", "assistant", "user", "user", "assistant", "user", "assistant"]);
  const fork = await forkSession(sessionId, { dir });
  const forked = await ask("third", { resume: fork.sessionId });
  assert.equal(result(forked).result, "Three.");
  assert.equal(result(forked).session_id, fork.sessionId);
  assert.deepEqual(texts(bodies()[3]).slice(-4), ["One.", "second", "Two.", "third"]);
  // Up to the first turn only.
  const part = await forkSession(sessionId, { dir, upToMessageId: kept[6].uuid });
  await ask("other", { resume: part.sessionId });
  assert.deepEqual(texts(bodies()[4]).slice(-2), ["One.", "other"]);
});

scenario("resumeSessionAt, with and without forkSession", async (use) => {
  const replies = [{ text: "One." }, { text: "Two." }, { text: "Three." }, { text: "Four." }, { text: "Five." }];
  const { cwd: dir, ask, bodies } = await place(use, replies);
  const sessionId = randomUUID();
  const first = await ask("first", { sessionId });
  await ask("second", { resume: sessionId });
  const resumeSessionAt = first.find((message) => message.type === "assistant").uuid;
  const forked = await ask("third", { resume: sessionId, resumeSessionAt, forkSession: true });
  assert.deepEqual(texts(bodies()[2]), ["first", "One.", "third"]);
  assert.notEqual(result(forked).session_id, sessionId);
  // $0.00007 a call: what was left out was paid for.
  assert.equal(result(forked).total_cost_usd, 0.00021);
  await ask("fourth", { resume: sessionId, resumeSessionAt });
  await ask("fifth", { resume: sessionId });
  assert.deepEqual(texts(bodies()[4]), ["first", "One.", "fourth", "Four.", "fifth"]);
  const kept = await getSessionMessages(sessionId, { dir });
  const said = kept.map((message) => message.message.content[0].text);
  assert.deepEqual(said, ["first", "One.", "fourth", "Four.", "fifth", "Five."]);
});

scenario("resumeDropsTurn refuses to drop more", async (use) => {
  const { ask } = await place(use, [{ text: "One." }, { text: "Two." }]);
  const sessionId = randomUUID();
  const first = await ask("first", { sessionId });
  await ask("second", { resume: sessionId });
  const resumeSessionAt = first.find((message) => message.type === "assistant").uuid;
  await assert.rejects(
    ask("third", { resume: sessionId, resumeSessionAt, resumeDropsTurn: randomUUID() }),
    /Resume rejected by --resume-drops-turn:/,
  );
});

scenario("a compacted session is read from its summary on", async (use) => {
  const replies = [{ text: "One." }, { text: "<summary>In short.</summary>" }, { text: "Two." }];
  const { cwd: dir, ask, bodies } = await place(use, replies);
  const sessionId = randomUUID();
  await ask("first", { sessionId });
  const compacted = await ask("/compact", { resume: sessionId });
  const boundary = compacted.find((message) => message.subtype === "compact_boundary");
  assert.equal(boundary.compact_metadata.trigger, "manual");
  assert.equal(result(compacted).num_turns, 0);
  await ask("second", { resume: sessionId });
  assert.match(texts(bodies()[2])[0], /In short\./);
  const kept = await getSessionMessages(sessionId, { dir });
  assert.match(kept[0].message.content[0].text, /In short\./);
  assert.equal(kept.at(-1).message.content[0].text, "Two.");
});

main("TypeScript session helpers");
