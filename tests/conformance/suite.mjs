// Runs all scenarios and checks what they show: every row of the reference has a scenario or a stated reason, every scenario was
// green against the stock CLI as it stands, the stand-in fails, and docs/compatibility.md says what is true.
import { spawn } from "node:child_process";
import { readFileSync, writeFileSync, existsSync } from "node:fs";
import { cpus } from "node:os";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { page } from "./page.mjs";

const here = dirname(fileURLToPath(import.meta.url));
const read = (name) => JSON.parse(readFileSync(join(here, name), "utf8"));
const PAGE = join(here, "../../docs/compatibility.md");
// The part of the scenarios that must fail with an agent that only echoes.
const MUST_FAIL = 0.8;

// Runs every scenario against an agent; `each` gets the outcomes as they come.
async function run(agent, each, env = {}) {
  const outcomes = [];
  const group = (program, file) =>
    new Promise((resolve) => {
      const child = spawn(program, [join(here, file)], {
        env: { ...process.env, AGENT: agent, ...env },
        stdio: ["ignore", "pipe", "inherit"],
      });
      createInterface({ input: child.stdout }).on("line", (line) => {
        const outcome = JSON.parse(line);
        outcomes.push(outcome);
        each(outcome);
      });
      child.on("close", (code) => resolve(code === 0 ? [] : [`${file} ended with ${code}`]));
    });
  const broken = await Promise.all([group("node", "main.mjs"), group(process.env.PYTHON, "main.py")]);
  return { outcomes: outcomes.sort((a, b) => (a.id < b.id ? -1 : 1)), broken: broken.flat() };
}

const indent = (text) => text.replace(/^/gm, "        ");
let passed = 0;
let failed = 0;
const says = (good, line, why) => {
  good ? (passed += 1) : (failed += 1);
  console.log(`${good ? "ok     " : "FAILED "} ${line}${!good && why ? `\n${indent(why)}` : ""}`);
};

// What the tables and the scenarios say of each other.
function rows(outcomes, tables) {
  const shown = new Set(outcomes.flatMap((outcome) => outcome.rows));
  const problems = [];
  const known = new Map(tables.flatMap(({ table, rows }) => rows.map((row) => [`${table} ${row.name}`, row])));
  for (const [id, row] of known) {
    if (!shown.has(id) && !row.reason) problems.push(`${id}: no scenario and no reason`);
    if (shown.has(id) && row.reason) problems.push(`${id}: has a scenario and a reason for none`);
  }
  for (const id of shown) if (!known.has(id)) problems.push(`${id}: no such row`);
  return problems;
}

// Scenarios that were not green with the stock CLI as they stand now.
function unproven(outcomes) {
  const { scenarios } = existsSync(join(here, "stock.json")) ? read("stock.json") : { scenarios: {} };
  return outcomes.filter(({ id, digest }) => scenarios[id]?.digest !== digest || !scenarios[id]?.pass).map(({ id }) => id);
}

async function stock(cli) {
  const version = await new Promise((resolve) => {
    let said = "";
    const child = spawn(cli, ["--version"], { stdio: ["ignore", "pipe", "inherit"] });
    child.stdout.on("data", (data) => (said += data));
    child.on("close", () => resolve(said.trim().split(" ")[0]));
  });
  const { outcomes, broken } = await run(cli, ({ id, pass, error, ms }) => says(pass, `${id} (${ms} ms)`, error));
  for (const why of broken) says(false, why);
  const lock = JSON.parse(readFileSync(join(here, "../sdk/package-lock.json"), "utf8")).packages;
  const before = existsSync(join(here, "stock.json")) && process.env.ONLY ? read("stock.json").scenarios : {};
  const now = Object.fromEntries(outcomes.map(({ id, pass, digest }) => [id, { pass, digest }]));
  const scenarios = Object.fromEntries(Object.entries({ ...before, ...now }).sort(([a], [b]) => (a < b ? -1 : 1)));
  const record = {
    date: new Date().toISOString().slice(0, 10),
    versions: {
      cli: version,
      "npm @anthropic-ai/claude-agent-sdk": lock["node_modules/@anthropic-ai/claude-agent-sdk"].version,
      "PyPI claude-agent-sdk": /^claude-agent-sdk==(\S+)/m.exec(readFileSync(join(here, "../sdk/requirements.txt"), "utf8"))[1],
    },
    scenarios,
  };
  const lines = Object.entries(scenarios).map(([id, one]) => `    ${JSON.stringify(id)}: ${JSON.stringify(one)}`);
  const { scenarios: _, ...head } = record;
  writeFileSync(
    join(here, "stock.json"),
    JSON.stringify(head, null, 2).replace(/\n}$/, `,\n  "scenarios": {\n${lines.join(",\n")}\n  }\n}\n`),
  );
}

async function ours() {
  const expected = read("expected.json");
  const each = ({ id, pass, error, ms }) => {
    const why = expected[id];
    if (!why) return says(pass, `${id} (${ms} ms)`, error);
    if (pass) return says(false, `${id}`, "it passes, but expected.json says that it does not: take it out");
    passed += 1;
    console.log(`ok      ${id}: fails as expected (${why})`);
    if (process.env.VERBOSE) console.log(indent(error));
  };
  const { outcomes, broken } = await run(process.env.AGENT, each, { EXPECTED: JSON.stringify(Object.keys(expected)) });
  for (const why of broken) says(false, why);
  if (process.env.RESULTS) writeFileSync(process.env.RESULTS, JSON.stringify(outcomes, null, 1));
  if (process.env.ONLY) return;

  const tables = read("rows.json");
  const missing = rows(outcomes, tables);
  says(missing.length === 0, "every row of the reference has a scenario or a reason", missing.join("\n"));
  const ids = new Set(outcomes.map(({ id }) => id));
  const gone = Object.keys(expected).filter((id) => !ids.has(id));
  says(gone.length === 0, "every expected failure is a scenario", gone.join("\n"));
  const doubtful = unproven(outcomes);
  says(doubtful.length === 0, "every scenario was green with the stock CLI", `${doubtful.join("\n")}\nrun tests/conformance/run.sh --stock`);

  // The page goes by the data files, not by this run: it must not change with the weather.
  const wanted = page({ tables, outcomes, expected, differs: read("differs.json"), stock: read("stock.json") });
  if (process.env.WRITE) writeFileSync(PAGE, wanted);
  const there = existsSync(PAGE) ? readFileSync(PAGE, "utf8") : "";
  says(there === wanted, "docs/compatibility.md is up to date", "WRITE=1 tests/conformance/run.sh writes it");

  const echo = await run(join(here, "standin.mjs"), () => {}, { TIMEOUT_MS: "6000", JOBS: String(8 * cpus().length) });
  const fooled = echo.outcomes.filter(({ pass }) => pass).map(({ id }) => id);
  const part = 1 - fooled.length / outcomes.length;
  const enough = echo.outcomes.length === outcomes.length && part >= MUST_FAIL;
  says(enough, `a stand-in that only echoes fails ${Math.floor(part * 100)} % of the scenarios`, `these it passes:\n${fooled.join("\n")}`);
}

if (process.argv[2] === "--stock") await stock(process.argv[3]);
else await ours();
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed === 0 ? 0 : 1);
