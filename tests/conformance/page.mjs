// Writes docs/compatibility.md from the rows, the scenarios and what is known of them.
const CHAPTERS = [
  ["supported", "Supported", "Every scenario of these rows passes."],
  ["differs", "Differs", "On purpose, and why."],
  ["part", "In part", "Some scenarios of these rows pass; these do not:"],
  ["unsupported", "Not supported", "Refused by name, or without effect:"],
  ["silent", "Nothing to compare", "The SDK settles these by itself, or the official CLI does not show them to a program that drives it without a network:"],
];

// Where each row stands: its chapter and the reason, if there is one to give.
function stand({ table, row, outcomes, expected, differs }) {
  const id = `${table} ${row.name}`;
  const difference = differs.find((one) => one.row === id);
  if (difference) return { chapter: "differs", why: difference.why };
  if (row.reason) return { chapter: row.kind === "unsupported" ? "unsupported" : "silent", why: row.reason };
  const of = outcomes.filter((outcome) => outcome.rows.includes(id));
  const failing = of.filter((outcome) => expected[outcome.id]);
  if (failing.length === 0) return { chapter: "supported", scenarios: of.length };
  const why = [...new Set(failing.map((outcome) => expected[outcome.id]))].join("; ");
  return { chapter: failing.length < of.length ? "part" : "unsupported", why };
}

// The page's text. `differs` has at most five entries.
export function page({ tables, outcomes, expected, differs, stock }) {
  if (differs.length > 5) throw new Error(`${differs.length} differences; five are the most that a reader bears`);
  const rows = tables.flatMap(({ table, rows }) => rows.map((row) => ({ table, name: row.name, ...stand({ table, row, outcomes, expected, differs }) })));
  const count = (table, chapter) => rows.filter((row) => row.table === table && row.chapter === chapter).length;
  const versions = Object.entries(stock.versions).filter(([name]) => name !== "cli").map(([name, version]) => `${name} ${version}`);
  const lines = [
    "# Compatibility with the official Agent SDKs",
    "",
    "Written by `tests/conformance/run.sh` (`WRITE=1`), and checked there: do not edit.",
    "",
    `The official SDKs (${versions.join(", ")}), unmodified, drive \`wardian-agent\` through ${outcomes.length} scenarios, whose model`,
    `follows a script. Each of them was green with the official CLI ${stock.versions.cli} (last on ${stock.date}). They look at kinds, ids,`,
    "flags, counts, money and order; texts are each agent's own. What each scenario asks is in `tests/conformance`.",
    "",
    `| | ${CHAPTERS.map(([, title]) => title.toLowerCase()).join(" | ")} |`,
    `|---|${CHAPTERS.map(() => "---:|").join("")}`,
    ...tables.map(({ table, title }) => `| ${title} | ${CHAPTERS.map(([chapter]) => count(table, chapter) || "").join(" | ")} |`),
  ];
  for (const [chapter, title, about] of CHAPTERS) {
    const here = rows.filter((row) => row.chapter === chapter);
    if (here.length === 0) continue;
    lines.push("", `## ${title}`, "", about, "");
    for (const { table, title } of tables) {
      const these = here.filter((row) => row.table === table);
      if (these.length === 0) continue;
      if (chapter === "supported") {
        lines.push(`- **${title}**: ${these.map((row) => `\`${row.name}\``).join(", ")}`);
      } else {
        const groups = these.reduce((map, row) => map.set(row.why, [...(map.get(row.why) ?? []), row]), new Map());
        for (const [why, of] of groups) lines.push(`- ${title}, ${of.map((row) => `\`${row.name}\``).join(", ")}: ${why}`);
      }
    }
  }
  return `${lines.join("\n")}\n`;
}
