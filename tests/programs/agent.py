"""An agent without any client: the Messages API, streamed, by the standard library alone.

Prints the reply as it comes. Exits with 3 when the model refuses the request, after saying why on stderr.
"""

import json
import os
import sys
import urllib.error
import urllib.request


def ask(prompt):
    """Yields the events of one streamed reply."""
    body = {
        "model": os.environ["ANTHROPIC_MODEL"],
        "max_tokens": 1000,
        "stream": True,
        "messages": [{"role": "user", "content": prompt}],
    }
    headers = {
        "x-api-key": os.environ["ANTHROPIC_API_KEY"],
        "anthropic-version": "2023-06-01",
        "content-type": "application/json",
    }
    url = os.environ["ANTHROPIC_BASE_URL"] + "/v1/messages"
    with urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode(), headers)) as reply:
        for line in reply:
            if line.startswith(b"data:"):
                yield json.loads(line[5:])


def main():
    prompt = sys.argv[1]
    try:
        for event in ask(prompt):
            if event["type"] == "content_block_delta" and event["delta"]["type"] == "text_delta":
                print(event["delta"]["text"], end="", flush=True)
            elif event["type"] == "message_delta":
                print(f"{event['usage']['output_tokens']} tokens", file=sys.stderr, flush=True)
    except urllib.error.HTTPError as error:
        print(f"refused with {error.code}: {json.load(error)['error']['type']}", file=sys.stderr)
        return 3
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
