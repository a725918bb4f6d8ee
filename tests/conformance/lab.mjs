#!/usr/bin/env node
// An MCP server without a library, for scenarios: by stdio, or with `--http` by streamable HTTP, or with `--sse` by SSE (its
// address is then the first line on stdout). Tools: add, fail, ask (elicits), approve (answers permission prompts).
import { createServer } from "node:http";
import { randomUUID } from "node:crypto";
import { createInterface } from "node:readline";

const object = (properties = {}) => ({ type: "object", properties, required: Object.keys(properties) });
const number = { type: "number" };
const tools = [
  { name: "add", description: "Adds two numbers.", inputSchema: object({ a: number, b: number }), annotations: { readOnlyHint: true } },
  { name: "fail", description: "Fails.", inputSchema: object() },
  { name: "ask", description: "Asks the user.", inputSchema: object() },
  { name: "approve", description: "Answers prompts.", inputSchema: { type: "object" } },
];
const said = (text, more) => ({ content: [{ type: "text", text }], ...more });

// Answers one message; `ask` sends a request to the client and gives its result.
async function answer({ method, params }, ask) {
  switch (method) {
    case "initialize":
      return {
        protocolVersion: params.protocolVersion,
        capabilities: { tools: {}, resources: {} },
        serverInfo: { name: "lab", version: "1.2.3" },
      };
    case "tools/list":
      return { tools };
    case "resources/list":
      return { resources: [{ uri: "lab://note", name: "note", mimeType: "text/plain" }, { uri: "ui://widget", name: "widget", mimeType: "text/html" }] };
    case "resources/read":
      return { contents: [{ uri: params.uri, mimeType: "text/plain", text: `the text of ${params.uri}` }] };
    case "tools/call":
      return tool(params, ask);
    default:
      return {};
  }
}

async function tool({ name, arguments: args }, ask) {
  switch (name) {
    case "add":
      return said(`It is ${args.a + args.b}.`);
    case "ask": {
      const requestedSchema = { type: "object", properties: { name: { type: "string" } }, required: ["name"] };
      const { action, content } = await ask("elicitation/create", { message: "Who are you?", requestedSchema });
      return said(`${action}: ${content?.name ?? "nobody"}`);
    }
    case "approve": {
      const allow = args.tool_name === "Bash" && args.input.command.startsWith("touch yes");
      return said(JSON.stringify(allow ? { behavior: "allow", updatedInput: args.input } : { behavior: "deny", message: "The lab says no." }));
    }
    default:
      return said("It broke.", { isError: true });
  }
}

// Takes messages, one at a time or at once; `send` writes one to the client.
function peer(send) {
  const waiting = new Map();
  const ask = (method, params) => {
    const id = randomUUID();
    send({ jsonrpc: "2.0", id, method, params });
    return new Promise((resolve) => waiting.set(id, resolve));
  };
  return async (message, reply = send) => {
    if (message.method === undefined) return waiting.get(message.id)?.(message.result ?? {});
    if (message.id === undefined) return;
    reply({ jsonrpc: "2.0", id: message.id, result: await answer(message, ask) });
  };
}

const body = async (request) => {
  let text = "";
  for await (const chunk of request) text += chunk;
  return text === "" ? undefined : JSON.parse(text);
};
const event = (data, name = "message") => `event: ${name}\ndata: ${data}\n\n`;

function listen(handle) {
  const server = createServer(handle);
  server.listen(0, "127.0.0.1", () => console.log(`http://127.0.0.1:${server.address().port}/mcp`));
  process.stdin.on("close", () => process.exit(0)).resume();
}

// The streams of `--http` on which a question to the client may be open.
const streams = new Set();
const take = (message) => streams.forEach((stream) => stream(message));

if (process.argv.includes("--http")) {
  listen(async (request, response) => {
    if (request.method !== "POST") return response.writeHead(405).end();
    const message = await body(request);
    if (message.id === undefined || message.method === undefined) {
      take(message);
      return response.writeHead(202).end();
    }
    response.writeHead(200, { "content-type": "text/event-stream" });
    const stream = peer((out) => response.write(event(JSON.stringify(out))));
    streams.add(stream);
    await stream(message, (out) => response.end(event(JSON.stringify(out))));
    streams.delete(stream);
  });
} else if (process.argv.includes("--sse")) {
  let client;
  listen(async (request, response) => {
    if (request.method === "GET") {
      response.writeHead(200, { "content-type": "text/event-stream" });
      client = peer((out) => response.write(event(JSON.stringify(out))));
      return response.write(event("/message", "endpoint"));
    }
    const message = await body(request);
    response.writeHead(202).end();
    client?.(message);
  });
} else {
  const client = peer((out) => process.stdout.write(JSON.stringify(out) + "\n"));
  createInterface({ input: process.stdin })
    .on("line", (line) => client(JSON.parse(line)))
    .on("close", () => process.exit(0));
}
