#!/usr/bin/env node
// The least that the SDKs take for an agent: it answers every control request with an empty success and repeats every prompt.
// No scenario of any worth passes with it: `run.sh` runs them all against it, and at least 80 % must fail.
import { randomUUID } from "node:crypto";
import { createInterface } from "node:readline";

const session_id = randomUUID();
const write = (frame) => process.stdout.write(JSON.stringify({ uuid: randomUUID(), session_id, ...frame }) + "\n");
const text = (content) => (typeof content === "string" ? content : content.map((block) => block.text ?? "").join(""));
const usage = { input_tokens: 0, output_tokens: 0, cache_read_input_tokens: 0, cache_creation_input_tokens: 0 };

createInterface({ input: process.stdin })
  .on("line", (line) => {
    const frame = JSON.parse(line);
    if (frame.type === "control_request") {
      write({ type: "control_response", response: { subtype: "success", request_id: frame.request_id, response: {} } });
    }
    if (frame.type !== "user") return;
    const said = text(frame.message.content);
    write({ type: "system", subtype: "init", claude_code_version: "2.1.330", tools: [], mcp_servers: [] });
    const message = {
      id: `msg_${randomUUID()}`,
      type: "message",
      role: "assistant",
      model: "echo",
      content: [{ type: "text", text: said }],
      stop_reason: null,
      stop_sequence: null,
      usage,
    };
    write({ type: "assistant", message, parent_tool_use_id: null });
    write({
      type: "result",
      subtype: "success",
      is_error: false,
      result: said,
      num_turns: 1,
      duration_ms: 1,
      duration_api_ms: 1,
      total_cost_usd: 0,
      usage,
      modelUsage: {},
      permission_denials: [],
      stop_reason: "end_turn",
      terminal_reason: "completed",
    });
  })
  .on("close", () => process.exit(0));
