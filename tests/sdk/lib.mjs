// What every scenario in JavaScript needs: a model server with a script, and a report with one line a scenario.
import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";

const TIMEOUT_MS = 20_000;
export const KEY = "sk-ant-conformance-key";

// A folder that is gone when the scenario ends.
export class Place {
  constructor() {
    this.path = mkdtempSync(join(tmpdir(), "wardian-sdk-"));
  }
  file(name, text) {
    const path = join(this.path, name);
    writeFileSync(path, text);
    return path;
  }
  [Symbol.dispose]() {
    rmSync(this.path, { recursive: true, force: true });
  }
}

// A model server with this script; `requests()` is what it got so far.
export async function model(script, stderr = "inherit") {
  const place = new Place();
  const file = place.file("script.json", JSON.stringify(script));
  const log = place.file("got.jsonl", "");
  const [program, ...args] = JSON.parse(process.env.MODEL_COMMAND);
  const argv = args.map((arg) => ({ SCRIPT: file, LOG: log })[arg] ?? arg);
  const server = spawn(program, argv, { stdio: ["pipe", "pipe", stderr] });
  const line = await new Promise((resolve, reject) => {
    createInterface({ input: server.stdout }).once("line", resolve);
    server.once("exit", (code) => reject(new Error(`the model server ended with ${code}`)));
  });
  return {
    url: JSON.parse(line).base_url,
    requests: () =>
      readFileSync(log, "utf8")
        .split("\n")
        .filter((text) => text !== "")
        .map((text) => JSON.parse(text)),
    [Symbol.dispose]() {
      server.kill();
      place[Symbol.dispose]();
    },
  };
}

// Node 20 has no `using`: `scope(fn)` gives a `use` that disposes of everything at the end, last first.
async function scope(fn) {
  const used = [];
  const use = (thing) => (used.push(thing), thing);
  try {
    await fn(use);
  } finally {
    for (const thing of used.reverse()) thing[Symbol.dispose]();
  }
}

const scenarios = [];

// Registers a scenario: `fn(use)`.
export function scenario(name, fn) {
  scenarios.push({ name, fn });
}

// Runs them all in order; prints a line each and the sum; sets the exit code.
export async function main(group) {
  const only = process.env.ONLY;
  let passed = 0;
  let failed = 0;
  for (const { name, fn } of scenarios) {
    if (only && !name.includes(only)) continue;
    let timer;
    const late = new Promise((_, reject) => {
      timer = setTimeout(() => reject(new Error(`not done after ${TIMEOUT_MS / 1000} s`)), TIMEOUT_MS);
    });
    try {
      await Promise.race([scope(fn), late]);
      passed += 1;
      console.log(`ok      ${group}: ${name}`);
    } catch (error) {
      failed += 1;
      const text = String(error?.stack ?? error).split("\n").filter((line) => !/^ +at (?!.*\/agent\.mjs|.*\/clients\.mjs)/.test(line));
      console.log(`FAILED  ${group}: ${name}\n${text.join("\n").replace(/^/gm, "        ")}`);
    } finally {
      clearTimeout(timer);
    }
  }
  console.log(`${passed} passed, ${failed} failed`);
  // A scenario that hangs may keep the process alive; its verdict is out.
  process.exit(failed === 0 ? 0 : 1);
}
