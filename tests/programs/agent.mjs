// An agent as users write them: asks the model with the stock client, lets it call a tool, and answers on stdout.
// Address and key come from the environment, as everywhere; nothing here knows that it runs in a sandbox.
//
//   node agent.mjs NODE_MODULES PROMPT
import { writeFileSync } from "node:fs";

// Outside of the workspace, where a bare `import` would not look.
const [modules, prompt] = process.argv.slice(2);
const { Anthropic } = await import(`${modules}/@anthropic-ai/sdk/index.mjs`);

const api = new Anthropic({ maxRetries: 0 });
const tools = [
  {
    name: "save",
    description: "Saves a note.",
    input_schema: { type: "object", properties: { text: { type: "string" } }, required: ["text"] },
  },
];
const messages = [{ role: "user", content: prompt }];

for (;;) {
  const reply = await api.messages.create({ model: process.env.ANTHROPIC_MODEL, max_tokens: 1000, tools, messages });
  const calls = reply.content.filter((block) => block.type === "tool_use");
  for (const block of reply.content) if (block.type === "text") console.log(block.text);
  if (calls.length === 0) break;
  messages.push({ role: "assistant", content: reply.content });
  const results = calls.map((call) => {
    writeFileSync("note.txt", call.input.text);
    console.error(`saved ${call.input.text.length} characters`);
    return { type: "tool_result", tool_use_id: call.id, content: "saved" };
  });
  messages.push({ role: "user", content: results });
}
