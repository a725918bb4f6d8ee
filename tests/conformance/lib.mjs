// What every scenario in JavaScript needs: a session with a scripted model behind it, and a pool that runs scenarios at once.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, realpathSync, existsSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { KEY, Place, model as serve } from "../sdk/lib.mjs";
import { query } from "../sdk/node_modules/@anthropic-ai/claude-agent-sdk/sdk.mjs";

export { KEY, assert };
export const MODEL = "claude-sonnet-5-5";
const TIMEOUT_MS = Number(process.env.TIMEOUT_MS ?? 90_000);

export const kind = (message) => (message.subtype ? `${message.type}/${message.subtype}` : message.type);
export const call = (name, input, id) => ({ name, input, ...(id ? { id } : {}) });
export const bash = (command, more) => call("Bash", { command, ...more });
export const text = (content) =>
  typeof content === "string" ? content : content.map((block) => block.text ?? "").join("\n");
export const user = (prompt, more) => ({
  type: "user",
  session_id: "",
  message: { role: "user", content: prompt },
  parent_tool_use_id: null,
  ...more,
});
// Every content block of the messages of a type.
export const blocks = (messages, type) =>
  messages.filter((message) => message.type === type && Array.isArray(message.message.content)).flatMap((message) => message.message.content);
export const toolResults = (messages) => blocks(messages, "user").filter((block) => block.type === "tool_result");
// The tool results that a request to the model carries at its end.
export const resultsIn = (body) => {
  const last = body.messages.findLastIndex((message) => message.role === "assistant");
  return body.messages.slice(last + 1).flatMap((message) => message.content).filter((block) => block.type === "tool_result");
};
// All that the model was told in a request, as one text.
export const told = (body) => JSON.stringify([body.system, body.messages]);
export const find = (messages, wanted) => messages.find((message) => kind(message) === wanted);
export const all = (messages, wanted) => messages.filter((message) => kind(message) === wanted);

// Dollars as billionths, without what binary fractions leave.
export const nanos = (usd) => Math.round(usd * 1e9);

// Waits for what no event tells of.
export async function eventually(holds) {
  const until = Date.now() + TIMEOUT_MS / 2;
  while (!holds() && Date.now() < until) await new Promise((resolve) => setTimeout(resolve, 10));
  assert.ok(holds(), `not so after ${TIMEOUT_MS / 2} ms: ${holds}`);
}

// Prompts that are fed by hand.
function feed() {
  const waiting = [];
  let wake = () => {};
  let ended = false;
  return {
    push: (message) => (waiting.push(message), wake()),
    end: () => ((ended = true), wake()),
    async *[Symbol.asyncIterator]() {
      for (;;) {
        if (waiting.length > 0) yield waiting.shift();
        else if (ended) return;
        else await new Promise((resolve) => (wake = resolve));
      }
    },
  };
}

let helpers = Promise.resolve();

// One conversation with the agent under test: a folder, a home, a model server, and the options for the SDK.
class Session {
  constructor(scope, cwd, home, server, options) {
    Object.assign(this, { scope, cwd, home, server, options });
    this.frames = [];
    this.stderr = "";
  }
  // The bodies of the Messages API calls, without the one-token probes.
  bodies() {
    return this.calls().map((request) => request.body);
  }
  calls() {
    return this.server.requests().filter((request) => request.path === "/v1/messages" && request.body.max_tokens !== 1);
  }
  path(name) {
    return join(this.cwd, name);
  }
  has(name) {
    return existsSync(this.path(name));
  }
  read(name) {
    return readFileSync(this.path(name), "utf8");
  }
  start(prompt, options) {
    const running = query({ prompt, options: { ...this.options, stderr: (data) => (this.stderr += data), ...options } });
    this.scope.use({ [Symbol.dispose]: () => running.close() });
    return running;
  }
  // Runs prompts to their end: all messages, the last result, and what the SDK threw, if it did.
  async turn(prompt, options) {
    const messages = [];
    let error;
    try {
      for await (const message of this.start(prompt, options)) messages.push(message);
    } catch (caught) {
      error = caught;
    }
    const result = messages.findLast((message) => message.type === "result");
    return { messages, result, error, bodies: this.bodies(), init: find(messages, "system/init") };
  }
  // A turn that must end with a result.
  async ok(prompt = "go", options) {
    const ran = await this.turn(prompt, options);
    assert.ok(ran.result, `no result; messages: ${ran.messages.map(kind)}; error: ${ran.error}; stderr: ${this.stderr}`);
    return ran;
  }
  // A session that is fed by hand.
  live(options) {
    return new Live(this, options);
  }
  // Spawns the agent ourselves where the SDK would, so that raw frames (`frames`), the process and its end can be seen.
  spawner() {
    return ({ command, args, cwd, env }) => {
      this.args = args;
      const child = spawn(command, args, { cwd, env, stdio: ["pipe", "pipe", "pipe"] });
      this.child = child;
      this.exited = new Promise((resolve) => child.once("exit", (code, signal) => resolve(signal ?? code)));
      this.scope.use({ [Symbol.dispose]: () => child.kill("SIGKILL") });
      child.stderr.on("data", (data) => (this.stderr += data));
      this.waiting = [];
      const lines = createInterface({ input: child.stdout });
      this.heard = new Promise((resolve) => lines.once("close", resolve));
      lines.on("line", (line) => {
        const frame = JSON.parse(line);
        this.frames.push({ ...frame, line_bytes: Buffer.byteLength(line) });
        this.waiting = this.waiting.filter(({ wanted, resolve }) => !(wanted(frame) && (resolve(frame), true)));
      });
      return child;
    };
  }
  // Calls one of the SDK's session helpers, which read the transcripts of this process' home: one scenario at a time.
  async helper(fn) {
    const mine = helpers.then(async () => {
      const before = process.env.CLAUDE_CONFIG_DIR;
      process.env.CLAUDE_CONFIG_DIR = join(this.home, ".claude");
      try {
        return await fn();
      } finally {
        if (before === undefined) delete process.env.CLAUDE_CONFIG_DIR;
        else process.env.CLAUDE_CONFIG_DIR = before;
      }
    });
    helpers = mine.catch(() => {});
    return mine;
  }
  // A frame that the agent wrote or will write.
  frame(wanted) {
    const there = this.frames.find(wanted);
    if (there) return Promise.resolve(there);
    const coming = new Promise((resolve) => this.waiting.push({ wanted, resolve }));
    // Its end may be known before its last lines are read.
    const ended = Promise.all([this.exited, this.heard]).then(([how]) => assert.fail(`the agent ended (${how}) without that frame: ${this.frames.map(kind)}`));
    return Promise.race([coming, ended]);
  }
  // A control request that the SDK has no method for; its `response`.
  async control(request) {
    const request_id = `asked-${(this.asked = (this.asked ?? 0) + 1)}`;
    this.child.stdin.write(JSON.stringify({ type: "control_request", request_id, request }) + "\n");
    const { response } = await this.frame((frame) => frame.type === "control_response" && frame.response.request_id === request_id);
    return response;
  }
}

class Live {
  constructor(session, options) {
    this.session = session;
    this.prompts = feed();
    this.query = session.start(this.prompts, options);
    this.messages = [];
    this.seen = 0;
    this.wake = () => {};
    this.ended = (async () => {
      try {
        for await (const message of this.query) {
          this.messages.push(message);
          this.wake();
        }
      } catch (error) {
        this.error = error;
      }
      this.over = true;
      this.wake();
    })();
  }
  send(prompt, more) {
    this.prompts.push(user(prompt, more));
  }
  // The next message that fits, after the one that was awaited before.
  async until(wanted) {
    const fits = typeof wanted === "string" ? (message) => kind(message) === wanted : wanted;
    for (;;) {
      while (this.seen < this.messages.length) {
        const message = this.messages[this.seen++];
        if (fits(message)) return message;
      }
      assert.ok(!this.over, `ended before ${wanted}; messages: ${this.messages.map(kind)}; error: ${this.error}; stderr: ${this.session.stderr}`);
      await new Promise((resolve) => (this.wake = resolve));
    }
  }
  result() {
    return this.until((message) => message.type === "result");
  }
  async say(prompt, more) {
    this.send(prompt, more);
    return this.result();
  }
  // Ends the input and waits for the agent's end.
  async end() {
    this.prompts.end();
    await this.ended;
    return this;
  }
  // Waits until the model has been asked `count` times.
  async asked(count) {
    while (this.session.calls().length < count) {
      assert.ok(!this.over, `ended before call ${count}: ${this.messages.map(kind)}`);
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  }
}

// How the SDK is told of the MCP server in lab.mjs.
const LAB = join(dirname(fileURLToPath(import.meta.url)), "lab.mjs");
export const lab = { command: process.execPath, args: [LAB] };

class Scope {
  used = [];
  // Starts lab.mjs with `--http` or `--sse`; its address.
  async serveLab(how) {
    const server = spawn(process.execPath, [LAB, how], { stdio: ["pipe", "pipe", "inherit"] });
    this.use({ [Symbol.dispose]: () => server.kill() });
    return new Promise((resolve) => createInterface({ input: server.stdout }).once("line", resolve));
  }
  use(thing) {
    this.used.push(thing);
    return thing;
  }
  // `replies`: the model's script, or a function of the session's folders that makes it. `files`: to be there beforehand,
  // `home/…` in the home folder. `wire`: the agent is spawned by `Session.spawner`.
  async session({ replies = [{ text: "Done." }], files = {}, options = {}, env = {}, wire = false } = {}) {
    const cwd = realpathSync(this.use(new Place()).path);
    const home = realpathSync(this.use(new Place()).path);
    const script = { replies: typeof replies === "function" ? replies({ cwd, home }) : replies };
    for (const [name, content] of Object.entries(typeof files === "function" ? files({ cwd, home }) : files)) {
      const path = name.startsWith("home/") ? join(home, name.slice(5)) : join(cwd, name);
      mkdirSync(dirname(path), { recursive: true });
      writeFileSync(path, typeof content === "object" && !Buffer.isBuffer(content) ? JSON.stringify(content) : content);
    }
    const server = this.use(await serve(script, "ignore"));
    const all = {
      pathToClaudeCodeExecutable: process.env.AGENT,
      cwd,
      model: MODEL,
      settingSources: [],
      ...(typeof options === "function" ? options({ cwd, home }) : options),
      env: {
        PATH: process.env.PATH,
        HOME: home,
        ANTHROPIC_BASE_URL: server.url,
        ANTHROPIC_API_KEY: KEY,
        CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC: "1",
        IS_SANDBOX: "1",
        ...(typeof env === "function" ? env({ cwd, home }) : env),
      },
    };
    const session = new Session(this, cwd, home, server, all);
    if (wire) all.spawnClaudeCodeProcess = session.spawner();
    return session;
  }
  end() {
    for (const thing of this.used.reverse()) {
      try {
        thing[Symbol.dispose]();
      } catch {}
    }
  }
}

const scenarios = [];

// Registers a scenario: which rows of the reference it shows, and `fn(t)` with `t.session(…)`.
export function scenario(name, rows, fn) {
  const id = `ts: ${name}`;
  assert.ok(!scenarios.some((one) => one.id === id), `two scenarios are called ${name}`);
  scenarios.push({ id, rows: [rows].flat(), fn, digest: createHash("sha256").update(String(fn)).digest("hex").slice(0, 12) });
}

// One that is known to fail may hang: it gets less time.
const EXPECTED = JSON.parse(process.env.EXPECTED ?? "[]");
const EXPECTED_TIMEOUT_MS = 6_000;

async function run({ id, rows, fn, digest }) {
  const scope = new Scope();
  const started = performance.now();
  let timer;
  const limit = EXPECTED.includes(id) ? Math.min(EXPECTED_TIMEOUT_MS, TIMEOUT_MS) : TIMEOUT_MS;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not done after ${limit / 1000} s`)), limit);
  });
  const outcome = { id, rows, digest, pass: true };
  try {
    await Promise.race([fn(scope), late]);
  } catch (error) {
    outcome.pass = false;
    const lines = String(error?.stack ?? error).split("\n");
    outcome.error = lines.filter((line) => !/^ +at /.test(line) || /conformance\/(?!lib)/.test(line)).slice(0, 25).join("\n").slice(0, 4000);
  } finally {
    clearTimeout(timer);
    scope.end();
  }
  outcome.ms = Math.round(performance.now() - started);
  return outcome;
}

// Runs them, `JOBS` at a time; one line of JSON each, in the order they end.
export async function main() {
  const chosen = scenarios.filter(({ id }) => !process.env.ONLY || new RegExp(process.env.ONLY).test(id));
  if (process.env.LIST) {
    for (const { id, rows, digest } of chosen) console.log(JSON.stringify({ id, rows, digest }));
    return;
  }
  // An abandoned query may reject later, when its scenario has its verdict.
  process.on("unhandledRejection", () => {});
  const worker = async () => {
    while (chosen.length > 0) console.log(JSON.stringify(await run(chosen.shift())));
  };
  await Promise.all(Array.from({ length: Number(process.env.JOBS ?? 4) }, worker));
  process.exit(0);
}
