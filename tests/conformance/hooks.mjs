// Hooks: table 1.4.
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { MODEL, all, assert, bash, blocks, call, eventually, find, kind, lab, resultsIn, scenario, text, told, toolResults } from "./lib.mjs";

const bypass = { permissionMode: "bypassPermissions", allowDangerouslySkipPermissions: true };
const decision = (permissionDecision, more) => ({ hookSpecificOutput: { hookEventName: "PreToolUse", permissionDecision, ...more } });
const context = (hookEventName, additionalContext) => ({ hookSpecificOutput: { hookEventName, additionalContext } });
const isBase = (input, event, s, init) => {
  assert.equal(input.hook_event_name, event);
  assert.deepEqual([input.session_id, input.cwd], [init.session_id, s.cwd]);
  assert.equal(typeof input.transcript_path, "string");
};

scenario("PreToolUse: deny", "1.4 PreToolUse", async (t) => {
  const inputs = [];
  const s = await t.session({
    replies: [{ tool_use: [bash("touch made")] }, { text: "I may not." }],
    options: {
      ...bypass,
      hooks: { PreToolUse: [{ matcher: "Bash", hooks: [async (input, id) => (inputs.push({ ...input, id }), decision("deny", { permissionDecisionReason: "The hook says no." }))] }] },
    },
  });
  const { messages, result, bodies, init } = await s.ok();
  const [asked] = blocks(messages, "assistant");
  assert.equal(inputs.length, 1);
  isBase(inputs[0], "PreToolUse", s, init);
  assert.deepEqual([inputs[0].tool_name, inputs[0].tool_input, inputs[0].tool_use_id, inputs[0].id], ["Bash", { command: "touch made" }, asked.id, asked.id]);
  assert.equal(inputs[0].permission_mode, "bypassPermissions");
  assert.equal(resultsIn(bodies[1])[0].is_error, true);
  assert.match(text(resultsIn(bodies[1])[0].content), /The hook says no\./);
  assert.deepEqual(result.permission_denials.map((one) => one.tool_use_id), [asked.id]);
  assert.equal(s.has("made"), false);
});

scenario("PreToolUse: allow with another input, ask, context", "1.4 PreToolUse", async (t) => {
  const asked = [];
  const s = await t.session({
    replies: [{ tool_use: [bash("touch first")] }, { tool_use: [bash("touch third")] }, { text: "Done." }],
    options: {
      permissionMode: "default",
      hooks: {
        PreToolUse: [{ hooks: [async (input) =>
          input.tool_input.command === "touch first"
            ? decision("allow", { updatedInput: { command: "touch second" }, additionalContext: "Mind the PLUMS." })
            : decision("ask", { permissionDecisionReason: "look twice" })] }],
      },
      canUseTool: async (_name, input) => (asked.push(input.command), { behavior: "deny", message: "No." }),
    },
  });
  const { bodies } = await s.ok();
  assert.deepEqual(["first", "second", "third"].map((name) => s.has(name)), [false, true, false]);
  assert.deepEqual(asked, ["touch third"]);
  assert.match(told(bodies[1]), /Mind the PLUMS\./);
});

scenario("PreToolUse: another input alone is still asked; allow does not beat a deny rule", "1.4 PreToolUse", async (t) => {
  const asked = [];
  const s = await t.session({
    replies: [{ tool_use: [bash("touch first")] }, { tool_use: [bash("mkdir other")] }, { text: "Done." }],
    options: {
      permissionMode: "default",
      disallowedTools: ["Bash(mkdir:*)"],
      hooks: {
        PreToolUse: [{ hooks: [async (input) =>
          input.tool_input.command === "touch first" ? { hookSpecificOutput: { hookEventName: "PreToolUse", updatedInput: { command: "touch second" } } } : decision("allow")] }],
      },
      canUseTool: async (_name, input) => (asked.push(input.command), { behavior: "allow", updatedInput: input }),
    },
  });
  await s.ok();
  assert.deepEqual(asked, ["touch second"]);
  assert.deepEqual(["first", "second", "other"].map((name) => s.has(name)), [false, true, false]);
});

scenario("PreToolUse: defer ends the turn", "1.4 PreToolUse", async (t) => {
  const s = await t.session({
    replies: [{ tool_use: [bash("touch made")] }, { text: "Never said." }],
    options: { ...bypass, hooks: { PreToolUse: [{ hooks: [async () => decision("defer")] }] } },
  });
  const { messages, result, bodies } = await s.ok();
  const [asked] = blocks(messages, "assistant");
  assert.deepEqual([result.subtype, result.is_error, result.terminal_reason], ["success", false, "tool_deferred"]);
  assert.deepEqual(result.deferred_tool_use, { id: asked.id, name: "Bash", input: { command: "touch made" } });
  assert.equal(bodies.length, 1);
  assert.equal(s.has("made"), false);
});

scenario("a callback that fails is no answer; with onFailure block it blocks", ["1.4 PreToolUse", "1.3 system/informational"], async (t) => {
  const run = async (onFailure) => {
    const s = await t.session({
      replies: [{ tool_use: [bash("touch made")] }, { text: "Done." }],
      options: { ...bypass, hooks: { PreToolUse: [{ hooks: [async () => { throw new Error("It broke."); }], ...(onFailure ? { onFailure } : {}) }] } },
    });
    const { messages } = await s.ok();
    return { made: s.has("made"), notice: messages.find((message) => message.tag === "hook_callback_failed") };
  };
  const open = await run();
  assert.equal(open.made, true);
  assert.equal(kind(open.notice), "system/informational");
  assert.equal((await run("block")).made, false);
});

scenario("PostToolUse: the output, another output, context", "1.4 PostToolUse", async (t) => {
  const inputs = [];
  const s = await t.session({
    replies: [{ tool_use: [bash("echo plain")] }, { text: "Done." }],
    options: {
      allowedTools: ["Bash"],
      hooks: {
        PostToolUse: [{ matcher: "Bash", hooks: [async (input) => {
          inputs.push(input);
          const updatedToolOutput = { ...input.tool_response, stdout: "rewritten" };
          return { hookSpecificOutput: { hookEventName: "PostToolUse", updatedToolOutput, additionalContext: "Mind the PLUMS." } };
        }] }],
      },
    },
  });
  const { bodies, init, messages } = await s.ok();
  const [asked] = blocks(messages, "assistant");
  isBase(inputs[0], "PostToolUse", s, init);
  assert.deepEqual([inputs[0].tool_name, inputs[0].tool_use_id, inputs[0].tool_input.command], ["Bash", asked.id, "echo plain"]);
  assert.match(inputs[0].tool_response.stdout, /plain/);
  assert.ok(inputs[0].duration_ms >= 0);
  const said = text(resultsIn(bodies[1])[0].content);
  assert.ok(said.includes("rewritten") && !said.includes("plain"), said);
  assert.match(told(bodies[1]), /Mind the PLUMS\./);
});

scenario("PostToolUse: block tells the model why", "1.4 PostToolUse", async (t) => {
  const s = await t.session({
    replies: [{ tool_use: [bash("echo plain")] }, { text: "Done." }],
    options: { allowedTools: ["Bash"], hooks: { PostToolUse: [{ hooks: [async () => ({ decision: "block", reason: "Not with PLUMS." })] }] } },
  });
  const { bodies, result } = await s.ok();
  assert.match(told(bodies[1]), /Not with PLUMS\./);
  assert.equal(result.result, "Done.");
});

scenario("PostToolUseFailure: a tool that failed", "1.4 PostToolUseFailure", async (t) => {
  const inputs = [];
  const s = await t.session({
    replies: [{ tool_use: [bash("echo oops; exit 3")] }, { text: "Done." }],
    options: {
      allowedTools: ["Bash"],
      hooks: {
        PostToolUse: [{ hooks: [async () => assert.fail("it did not succeed")] }],
        PostToolUseFailure: [{ hooks: [async (input) => (inputs.push(input), context("PostToolUseFailure", "Mind the PLUMS."))] }],
      },
    },
  });
  const { bodies, init } = await s.ok();
  assert.equal(inputs.length, 1);
  isBase(inputs[0], "PostToolUseFailure", s, init);
  assert.deepEqual([inputs[0].tool_name, inputs[0].is_interrupt ?? false], ["Bash", false]);
  assert.match(inputs[0].error, /oops/);
  assert.match(told(bodies[1]), /Mind the PLUMS\./);
});

scenario("PostToolBatch: once, after tools that ran at once", "1.4 PostToolBatch", async (t) => {
  const order = [];
  const s = await t.session({
    replies: [{ tool_use: [bash("echo a"), bash("echo b")] }, { text: "Done." }],
    options: {
      allowedTools: ["Bash"],
      hooks: {
        PreToolUse: [{ hooks: [async () => (order.push("pre"), {})] }],
        PostToolUse: [{ hooks: [async () => (order.push("post"), {})] }],
        PostToolBatch: [{ hooks: [async (input) => (order.push(input.tool_calls), context("PostToolBatch", "Mind the PLUMS."))] }],
      },
    },
  });
  const { bodies } = await s.ok();
  const batch = order.pop();
  assert.deepEqual(order.toSorted?.() ?? [...order].sort(), ["post", "post", "pre", "pre"]);
  assert.equal(order[0], "pre");
  assert.deepEqual(batch.map((one) => [one.tool_name, one.tool_input.command]), [["Bash", "echo a"], ["Bash", "echo b"]]);
  assert.match(text(batch[0].tool_response), /a/);
  assert.match(told(bodies[1]), /Mind the PLUMS\./);
});

scenario("UserPromptSubmit: the prompt, and context for it", "1.4 UserPromptSubmit", async (t) => {
  const inputs = [];
  const s = await t.session({
    options: { hooks: { UserPromptSubmit: [{ hooks: [async (input) => (inputs.push(input), context("UserPromptSubmit", "Mind the PLUMS."))] }] } },
  });
  const { bodies, init } = await s.ok("peel them");
  isBase(inputs[0], "UserPromptSubmit", s, init);
  assert.equal(inputs[0].prompt, "peel them");
  assert.match(told(bodies[0]), /Mind the PLUMS\./);
});

scenario("UserPromptExpansion: a command of the project", "1.4 UserPromptExpansion", async (t) => {
  const inputs = [];
  const s = await t.session({
    files: { ".claude/commands/peel.md": "---\ndescription: Peels\n---\nPeel the MANGO: $ARGUMENTS.\n" },
    options: { settingSources: ["project"], hooks: { UserPromptExpansion: [{ hooks: [async (input) => (inputs.push(input), context("UserPromptExpansion", "Mind the PLUMS."))] }] } },
  });
  const { bodies, init } = await s.ok("/peel thinly");
  assert.ok(init.slash_commands.includes("peel"), `${init.slash_commands}`);
  isBase(inputs[0], "UserPromptExpansion", s, init);
  assert.deepEqual([inputs[0].command_name, inputs[0].command_args], ["peel", "thinly"]);
  assert.match(told(bodies[0]), /Peel the MANGO: thinly\./);
  assert.match(told(bodies[0]), /Mind the PLUMS\./);
});

// A settings file's command hook that keeps what it was given.
const keeps = (event, file, more = "") => ({ hooks: { [event]: [{ hooks: [{ type: "command", command: `cat > ${file}${more}` }] }] } });
const kept = (s, name) => JSON.parse(readFileSync(join(s.home, name), "utf8"));

scenario("SessionStart: a command hook, and context from it", "1.4 SessionStart", async (t) => {
  const s = await t.session({
    replies: [{ text: "One." }, { text: "Two." }],
    options: ({ home }) => ({ settings: keeps("SessionStart", join(home, "got.json"), "; echo Mind the PLUMS.") }),
  });
  const first = await s.ok("first");
  const got = kept(s, "got.json");
  assert.deepEqual([got.hook_event_name, got.source, got.session_id], ["SessionStart", "startup", first.init.session_id]);
  assert.match(told(first.bodies[0]), /Mind the PLUMS\./);
  await s.ok("second", { resume: first.init.session_id });
  assert.equal(kept(s, "got.json").source, "resume");
});

scenario("SessionEnd: a command hook at the end", "1.4 SessionEnd", async (t) => {
  const s = await t.session({ wire: true, options: ({ home }) => ({ settings: keeps("SessionEnd", join(home, "got.json")) }) });
  const { init } = await s.ok();
  await s.exited;
  const got = kept(s, "got.json");
  assert.deepEqual([got.hook_event_name, got.session_id, typeof got.reason], ["SessionEnd", init.session_id, "string"]);
});

scenario("InstructionsLoaded and Setup: a command hook hears of CLAUDE.md", "1.4 InstructionsLoaded", async (t) => {
  const s = await t.session({
    files: { "CLAUDE.md": "Mind the PLUMS." },
    options: ({ home }) => ({ settingSources: ["project"], settings: keeps("InstructionsLoaded", join(home, "got.json")) }),
  });
  await s.ok();
  const got = kept(s, "got.json");
  assert.deepEqual([got.hook_event_name, got.file_path], ["InstructionsLoaded", s.path("CLAUDE.md")]);
});

scenario("command hooks: exit 2 blocks and says why; JSON is an output", "1.4 PreToolUse", async (t) => {
  const run = async (command) => {
    const s = await t.session({
      replies: [{ tool_use: [bash("touch made")] }, { text: "Done." }],
      options: { ...bypass, settings: { hooks: { PreToolUse: [{ matcher: "Bash", hooks: [{ type: "command", command }] }] } } },
    });
    const { bodies } = await s.ok();
    return [s.has("made"), text(resultsIn(bodies[1])[0].content).includes("No PLUMS.")];
  };
  assert.deepEqual(await run("echo No PLUMS. >&2; exit 2"), [false, true]);
  assert.deepEqual(await run(`echo '${JSON.stringify(decision("deny", { permissionDecisionReason: "No PLUMS." }))}'`), [false, true]);
  assert.deepEqual(await run("exit 1"), [true, false]);
});

scenario("Stop: block goes on, and the next time it knows", "1.4 Stop", async (t) => {
  const inputs = [];
  const s = await t.session({
    replies: [{ text: "One." }, { text: "Two." }],
    options: {
      hooks: { Stop: [{ hooks: [async (input) => (inputs.push(input), input.stop_hook_active ? {} : { decision: "block", reason: "Peel the PLUMS first." })] }] },
    },
  });
  const { bodies, result, init, messages } = await s.ok();
  isBase(inputs[0], "Stop", s, init);
  assert.deepEqual(inputs.map((input) => [input.stop_hook_active, input.last_assistant_message]), [[false, "One."], [true, "Two."]]);
  assert.match(told(bodies[1]), /Stop hook feedback:\\n.*Peel the PLUMS first\./);
  assert.deepEqual([result.result, result.subtype], ["Two.", "success"]);
  const synthetic = find(messages, "user");
  assert.ok(synthetic === undefined || synthetic.isSynthetic === true);
});

scenario("StopFailure: the turn ended with an API error", "1.4 StopFailure", async (t) => {
  const inputs = [];
  const s = await t.session({
    replies: [{ error: { status: 400, message: "something is wrong with it" }, repeat: true }],
    options: {
      hooks: {
        Stop: [{ hooks: [async () => assert.fail("it failed")] }],
        StopFailure: [{ hooks: [async (input) => (inputs.push(input), {})] }],
      },
    },
  });
  const { init, result } = await s.ok();
  assert.equal(result.is_error, true);
  assert.equal(inputs.length, 1);
  isBase(inputs[0], "StopFailure", s, init);
  assert.equal(typeof inputs[0].error, "string");
});

const agents = { counter: { description: "Counts things.", prompt: "You are the counter.", tools: ["Bash"] } };
const delegate = call("Agent", { description: "count", prompt: "Count the PLUMS.", subagent_type: "counter", run_in_background: false });

scenario("SubagentStart and SubagentStop: around a subagent, whose tools say whose they are", ["1.4 SubagentStart", "1.4 SubagentStop"], async (t) => {
  const seen = [];
  const hook = async (input) => (seen.push(input), input.hook_event_name === "SubagentStart" ? context("SubagentStart", "Mind the KIWIS.") : {});
  const s = await t.session({
    replies: [
      { match: { last_text_contains: "PLUMS" }, tool_use: [bash("echo seven")] },
      { match: { last_text_contains: "PLUMS" }, text: "There are seven." },
      { tool_use: [delegate] },
      { text: "Done." },
    ],
    options: {
      agents,
      allowedTools: ["Bash", "Agent"],
      hooks: { SubagentStart: [{ hooks: [hook] }], SubagentStop: [{ hooks: [hook] }], PreToolUse: [{ matcher: "Bash", hooks: [hook] }] },
    },
  });
  const { init } = await s.ok();
  const [start, pre, stop] = seen;
  assert.deepEqual(seen.map((input) => input.hook_event_name), ["SubagentStart", "PreToolUse", "SubagentStop"]);
  isBase(start, "SubagentStart", s, init);
  assert.equal(start.agent_type, "counter");
  assert.deepEqual([pre.agent_id, pre.agent_type], [start.agent_id, "counter"]);
  assert.deepEqual([stop.agent_id, stop.agent_type, stop.last_assistant_message], [start.agent_id, "counter", "There are seven."]);
  assert.ok(existsSync(stop.agent_transcript_path), stop.agent_transcript_path);
  assert.ok(s.bodies().some((body) => told(body).includes("Mind the KIWIS.")));
});

scenario("PreModelSwitch and PostModelSwitch: around setModel", ["1.4 PreModelSwitch", "1.4 PostModelSwitch"], async (t) => {
  const other = "claude-haiku-5-5";
  const seen = [];
  const hook = async (input) => (seen.push(input), {});
  const s = await t.session({
    replies: [{ match: { model: MODEL }, text: "One." }, { match: { model: other }, text: "Two.", repeat: true }],
    options: { hooks: { PreModelSwitch: [{ hooks: [hook] }], PostModelSwitch: [{ hooks: [hook] }] } },
  });
  const live = s.live();
  await live.say("first");
  await live.query.setModel(other);
  await live.say("second");
  await live.end();
  assert.deepEqual(seen.map((input) => [input.hook_event_name, input.from_model, input.to_model]), [["PreModelSwitch", MODEL, other], ["PostModelSwitch", MODEL, other]]);
});

scenario("PermissionRequest: it decides in the host's place", "1.4 PermissionRequest", async (t) => {
  const inputs = [];
  const decide = (decision) => ({ hookSpecificOutput: { hookEventName: "PermissionRequest", decision } });
  const s = await t.session({
    replies: [{ tool_use: [bash("touch first")] }, { tool_use: [bash("touch third")] }, { text: "Done." }],
    options: {
      permissionMode: "default",
      hooks: {
        PermissionRequest: [{ hooks: [async (input) => {
          inputs.push(input);
          return input.tool_input.command === "touch first" ? decide({ behavior: "allow", updatedInput: { command: "touch second" } }) : decide({ behavior: "deny", message: "No PLUMS." });
        }] }],
      },
    },
  });
  const { init, bodies } = await s.ok();
  isBase(inputs[0], "PermissionRequest", s, init);
  assert.deepEqual(inputs.map((input) => [input.tool_name, input.tool_input.command]), [["Bash", "touch first"], ["Bash", "touch third"]]);
  assert.deepEqual(["first", "second", "third"].map((name) => s.has(name)), [false, true, false]);
  assert.match(text(resultsIn(bodies[2])[0].content), /No PLUMS\./);
});

scenario("PermissionDenied, Notification: an observer of prompts", "1.4 Notification", async (t) => {
  const seen = [];
  const s = await t.session({
    replies: [{ tool_use: [bash("touch made")] }, { text: "Done." }],
    options: {
      permissionMode: "default",
      hooks: { Notification: [{ hooks: [async (input) => (seen.push(input), {})] }] },
      canUseTool: async (_name, input) => {
        // The stock CLI tells of a prompt after it has waited for some seconds.
        await eventually(() => seen.length > 0);
        return { behavior: "allow", updatedInput: input };
      },
    },
  });
  const { init } = await s.ok();
  isBase(seen[0], "Notification", s, init);
  assert.deepEqual([seen[0].notification_type, typeof seen[0].message], ["permission_prompt", "string"]);
});

scenario("Elicitation and ElicitationResult: before and after the user is asked", ["1.4 Elicitation", "1.4 ElicitationResult"], async (t) => {
  const seen = [];
  const hook = async (input) => (seen.push(input), {});
  const s = await t.session({
    replies: [{ tool_use: [call("mcp__lab__ask", {})] }, { text: "Done." }],
    options: {
      allowedTools: ["mcp__lab__ask"],
      mcpServers: { lab },
      onElicitation: async () => (seen.push("asked"), { action: "accept", content: { name: "Ada" } }),
      hooks: { Elicitation: [{ hooks: [hook] }], ElicitationResult: [{ hooks: [hook] }] },
    },
  });
  const { bodies, init } = await s.ok();
  const [before, asked, after] = seen;
  isBase(before, "Elicitation", s, init);
  assert.equal(asked, "asked");
  assert.deepEqual([before.mcp_server_name, before.message, before.mode], ["lab", "Who are you?", "form"]);
  assert.deepEqual(before.requested_schema.required, ["name"]);
  assert.deepEqual([after.hook_event_name, after.mcp_server_name, after.action, after.content], ["ElicitationResult", "lab", "accept", { name: "Ada" }]);
  assert.equal(text(resultsIn(bodies[1])[0].content), "accept: Ada");
});

scenario("TaskCreated and TaskCompleted: the model's list", ["1.4 TaskCreated", "1.4 TaskCompleted"], async (t) => {
  const seen = [];
  const hook = async (input) => (seen.push([input.hook_event_name, input.task_subject, String(input.task_id)]), {});
  const s = await t.session({
    replies: [
      { tool_use: [call("TaskCreate", { subject: "Peel plums", description: "All of them" })] },
      { tool_use: [call("TaskUpdate", { taskId: "1", status: "completed" })] },
      { text: "Done." },
    ],
    options: { ...bypass, tools: ["TaskCreate", "TaskGet", "TaskList", "TaskUpdate"], hooks: { TaskCreated: [{ hooks: [hook] }], TaskCompleted: [{ hooks: [hook] }] } },
  });
  const { messages } = await s.ok();
  const created = find(messages, "user").tool_use_result;
  assert.deepEqual([created.task.id, created.task.subject], ["1", "Peel plums"]);
  assert.deepEqual(seen, [["TaskCreated", "Peel plums", "1"], ["TaskCompleted", "Peel plums", "1"]]);
});

scenario("CwdChanged: a command changed the folder", "1.4 CwdChanged", async (t) => {
  const s = await t.session({
    files: { "inner/x": "" },
    replies: [{ tool_use: [bash("cd inner")] }, { tool_use: [bash("pwd")] }, { text: "Done." }],
    options: ({ home }) => ({ ...bypass, settings: keeps("CwdChanged", join(home, "got.part"), `; mv ${home}/got.part ${home}/got.json`) }),
  });
  const live = s.live();
  await live.say("go");
  // The stock CLI tells of it when it finds the time.
  await eventually(() => existsSync(join(s.home, "got.json")));
  await live.end();
  assert.equal(all(live.messages, "user")[1].tool_use_result.stdout.trim(), s.path("inner"));
  const got = kept(s, "got.json");
  assert.deepEqual([got.hook_event_name, got.old_cwd, got.new_cwd], ["CwdChanged", s.cwd, s.path("inner")]);
});

scenario("MessageDisplay: what the assistant says", "1.4 MessageDisplay", async (t) => {
  const seen = [];
  const s = await t.session({ options: { hooks: { MessageDisplay: [{ hooks: [async (input) => (seen.push(input), {})] }] } } });
  const { init } = await s.ok();
  assert.ok(seen.length > 0);
  isBase(seen[0], "MessageDisplay", s, init);
});

scenario("ConfigChange: a settings file that changes", "1.4 ConfigChange", async (t) => {
  const seen = [];
  const s = await t.session({
    files: { ".claude/settings.json": {} },
    replies: [{ tool_use: [bash("echo '{\"env\":{\"A\":\"b\"}}' > .claude/settings.json")] }, { text: "One." }],
    options: { ...bypass, settingSources: ["project"], hooks: { ConfigChange: [{ hooks: [async (input) => (seen.push(input), {})] }] } },
  });
  const live = s.live();
  await live.say("first");
  await eventually(() => seen.length > 0);
  assert.equal(seen[0].source, "project_settings");
  await live.end();
});

scenario("Setup: command hooks of --init and --maintenance", "1.4 Setup", async (t) => {
  for (const trigger of ["init", "maintenance"]) {
    const s = await t.session({ options: ({ home }) => ({ extraArgs: { [trigger]: null }, settings: keeps("Setup", join(home, "got.json")) }) });
    await s.ok();
    const got = kept(s, "got.json");
    assert.deepEqual([got.hook_event_name, got.trigger, got.cwd], ["Setup", trigger, s.cwd]);
  }
});

scenario("hook_progress: what a slow hook has written so far", "1.3 system/hook_progress", async (t) => {
  const s = await t.session({
    replies: [{ tool_use: [bash("true")] }, { text: "Done." }],
    options: ({ cwd }) => ({
      ...bypass,
      includeHookEvents: true,
      settings: { hooks: { PreToolUse: [{ hooks: [{ type: "command", command: `echo so far; while [ ! -e ${cwd}/go ]; do sleep 0.05; done` }] }] } },
    }),
  });
  const live = s.live();
  live.send("first");
  const progress = await live.until("system/hook_progress");
  assert.deepEqual([progress.hook_name, progress.hook_event, progress.stdout, progress.stderr], ["PreToolUse:Bash", "PreToolUse", "so far\n", ""]);
  writeFileSync(s.path("go"), "");
  const response = await live.until("system/hook_response");
  assert.equal(response.hook_id, progress.hook_id);
  assert.equal((await live.result()).result, "Done.");
  await live.end();
});

scenario("DirectoryAdded: a folder that the host registers", ["1.4 DirectoryAdded", "1.2 register_repo_root"], async (t) => {
  const seen = [];
  const s = await t.session({
    wire: true,
    files: { "extra/a.txt": "" },
    options: { hooks: { DirectoryAdded: [{ hooks: [async (input) => (seen.push(input), {})] }] } },
  });
  const live = s.live();
  await live.say("first");
  const answer = await s.control({ subtype: "register_repo_root", directory: s.path("extra") });
  assert.equal(answer.subtype, "success", answer.error);
  await eventually(() => seen.length > 0);
  assert.ok(JSON.stringify(seen[0]).includes(s.path("extra")), JSON.stringify(seen[0]));
  await live.end();
});
