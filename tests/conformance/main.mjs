// The stock TypeScript Agent SDK drives the agent in $AGENT.
import { main } from "./lib.mjs";
import "./ends.mjs";
import "./options.mjs";
import "./queries.mjs";
import "./messages.mjs";
import "./hooks.mjs";

await main();
