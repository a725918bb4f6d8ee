"""A second opinion on what replies cost, by fractions. Reads one JSON case a line, writes its nano-dollars.

A case is {"model", "usage", "at"} or {"sse", "at"}: the text of a streamed reply. Shares only prices.json with the crate.
"""
import json, math, pathlib, sys
from fractions import Fraction

TABLE = json.loads((pathlib.Path(__file__).parent.parent / "data" / "prices.json").read_text())
CLASSES = ("input", "output", "cache_write_5m", "cache_write_1h", "cache_read")


def rows_at(at):
    found = {}
    for name, model in TABLE["models"].items():
        begun = [row for row in model["rates"] if row.get("effective_from", "") <= at]
        found[name] = (model["family"], (begun or model["rates"])[-1 if begun else 0])
    return found


def call_cost(model, usage, whole, at):
    rows = rows_at(at)
    split = usage.get("cache_creation") or {}
    hour = split.get("ephemeral_1h_input_tokens") or 0
    five = max(split.get("ephemeral_5m_input_tokens") or 0, (usage.get("cache_creation_input_tokens") or 0) - hour)
    tokens = [usage.get("input_tokens") or 0, usage.get("output_tokens") or 0, five, hour, usage.get("cache_read_input_tokens") or 0]
    if model in rows:
        row = rows[model][1]
        prices = [Fraction(row[name]) for name in CLASSES]
        tier = row.get("tier")
        if tier and sum(tokens) - tokens[1] > tier["above_prompt_tokens"]:
            prices = [Fraction(tier[name]) for name in CLASSES]
    else:
        family = [r for f, row in rows.values() if f in model.split("-") for r in (row, row.get("tier")) if r]
        prices = [max([Fraction(TABLE["unknown_model"][name])] + [Fraction(r[name]) for r in family]) for name in CLASSES]
        row = {"geo_us": max(Fraction(r.get("geo_us", 1)) for _, r in rows.values())}
    says = lambda field: usage.get(field) or whole.get(field)
    factor = Fraction(1)
    if says("inference_geo") == "us":
        factor *= Fraction(row.get("geo_us", 1))
    if says("speed") == "fast":
        factor *= Fraction(row["fast"] if "fast" in row else max(Fraction(r.get("fast", 1)) for _, r in rows.values()))
    if says("service_tier") == "batch":
        factor *= Fraction(row.get("batch", 1))
    return sum(count * price for count, price in zip(tokens, prices)) / 1_000_000 * factor


def cost(model, usage, at):
    calls = [(call.get("model") or model, call) for call in usage.get("iterations") or []] or [(model, usage)]
    searches = (usage.get("server_tool_use") or {}).get("web_search_requests") or 0
    dollars = sum(call_cost(name, call, usage, at) for name, call in calls)
    return math.ceil((dollars + searches * Fraction(TABLE["web_search_per_1k"]) / 1000) * 1_000_000_000)


def merge(usage, later):
    for name, value in later.items():
        if isinstance(value, dict):
            merge(usage.setdefault(name, {}), value)
        elif isinstance(value, int):
            usage[name] = max(usage.get(name) or 0, value)
        elif value is not None:
            usage[name] = value


def from_stream(text):
    model, usage = None, {}
    for line in text.splitlines():
        if line.startswith("data:"):
            event = json.loads(line[5:])
            if event["type"] == "message_start":
                model = event["message"]["model"]
                merge(usage, event["message"].get("usage") or {})
            elif event["type"] == "message_delta":
                merge(usage, event.get("usage") or {})
    return model, usage


for line in sys.stdin:
    case = json.loads(line)
    model, usage = from_stream(case["sse"]) if "sse" in case else (case["model"], case["usage"])
    print(cost(model, usage, case["at"]))
