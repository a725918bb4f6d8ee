"""The stock Messages API client (PyPI anthropic) against the scripted model server."""

import re

import anthropic

from lib import KEY, main, model, scenario


def ask(text):
    return {"model": "claude-sonnet-5-5", "max_tokens": 100, "messages": [{"role": "user", "content": text}]}


REPLY = {
    "thinking": "Let me think.",
    "text": "Hello, wörld 🦀!",
    "tool_use": [{"name": "Bash", "input": {"command": 'echo "hi"', "list": [1, {"a": None}]}, "id": "toolu_1"}],
    "chunk_bytes": 3,
    "pings": 2,
    "usage": {"input_tokens": 12, "output_tokens": 34, "cache_read_input_tokens": 56},
}


def client(server, **options):
    return anthropic.AsyncAnthropic(base_url=server.url, api_key=KEY, **{"max_retries": 0, **options})


async def final(api, text="hi"):
    async with api.messages.stream(**ask(text)) as stream:
        return await stream.get_final_message()


async def error_of(awaitable):
    try:
        result = await awaitable
    except anthropic.AnthropicError as error:
        return error
    raise AssertionError(f"no error but {result}")


@scenario("a stream amounts to the plain message")
async def _():
    with model({"replies": [REPLY, REPLY]}) as server:
        async with client(server) as api:
            plain = await api.messages.create(**ask("hi"))
            streamed = await final(api)
            assert [block.type for block in plain.content] == ["thinking", "text", "tool_use"]
            blocks = [[block.to_dict() for block in message.content] for message in (plain, streamed)]
            assert blocks[0] == blocks[1], blocks
            assert plain.content[2].input == REPLY["tool_use"][0]["input"]
            for message in (plain, streamed):
                assert (message.stop_reason, message.model) == ("tool_use", "claude-sonnet-5-5")
                usage = message.usage
                assert (usage.input_tokens, usage.output_tokens, usage.cache_read_input_tokens) == (12, 34, 56)
            assert plain._request_id.startswith("req_")


@scenario("text comes in pieces")
async def _():
    with model({"replies": [{"text": "0123456789", "chunk_bytes": 4}]}) as server:
        async with client(server) as api, api.messages.stream(**ask("hi")) as stream:
            assert [piece async for piece in stream.text_stream] == ["0123", "4567", "89"]


@scenario("errors have their own classes")
async def _():
    kinds = {
        400: anthropic.BadRequestError,
        403: anthropic.PermissionDeniedError,
        404: anthropic.NotFoundError,
        409: anthropic.ConflictError,
        429: anthropic.RateLimitError,
        500: anthropic.InternalServerError,
        529: anthropic.InternalServerError,
    }
    replies = [{"error": {"status": status, "message": "as scripted"}} for status in kinds]
    with model({"replies": replies}) as server:
        async with client(server) as api:
            for status, kind in kinds.items():
                error = await error_of(api.messages.create(**ask("hi")))
                assert isinstance(error, kind) and error.status_code == status, repr(error)
                assert "as scripted" in str(error) and error.request_id.startswith("req_")
            error = await error_of(api.messages.create(**{**ask("hi"), "messages": []}))
            assert isinstance(error, anthropic.BadRequestError) and "at least one message" in str(error)


@scenario("the client retries, and not when told so")
async def _():
    overloaded = {"error": {"status": 529, "headers": {"retry-after-ms": "1"}}}
    never = {"error": {"status": 529, "headers": {"x-should-retry": "false"}}}
    replies = [overloaded, {"drop_connection": True}, {"text": "at last"}, never, {"text": "never given"}]
    with model({"replies": replies}) as server:
        async with client(server, max_retries=3) as api:
            message = await api.messages.create(**ask("hi"))
            assert message.content[0].text == "at last"
            assert isinstance(await error_of(api.messages.create(**ask("hi"))), anthropic.InternalServerError)
            assert len(server.requests()) == 4


@scenario("a stream that breaks off is an error")
async def _():
    replies = [
        {"text": "cut in the middle", "cut_after_bytes": 700},
        {"text": "cut by a reset", "cut_after_events": 4, "cut_with": "reset"},
        {"text": "ended by an error", "error_in_stream_after": 4},
        {"text": "ok"},
    ]
    with model({"replies": replies}) as server:
        async with client(server) as api:
            for expected in ("", "", "Overloaded"):
                try:
                    await final(api)
                except Exception as error:
                    assert re.search(expected, str(error)), repr(error)
                else:
                    raise AssertionError("a broken stream is no message")
            assert (await final(api)).content[0].text == "ok"


@scenario("a client may leave a stream that is held")
async def _():
    with model({"replies": [{"text": "hello", "hold": True}, {"text": "ok"}]}) as server:
        async with client(server) as api:
            async with api.messages.stream(**ask("hi")) as stream:
                async for piece in stream.text_stream:
                    assert piece == "hello"
                    break
            assert (await final(api)).content[0].text == "ok"


@scenario("tokens are counted and models listed")
async def _():
    with model({"replies": [], "models": ["claude-a", "claude-b", "claude-c"]}) as server:
        async with client(server) as api:
            question = ask("hi")
            del question["max_tokens"]
            assert (await api.messages.count_tokens(**question)).input_tokens == 8
            assert [one.id async for one in api.models.list(limit=2)] == ["claude-a", "claude-b", "claude-c"]
            assert (await api.models.retrieve("claude-b")).id == "claude-b"
            assert isinstance(await error_of(api.models.retrieve("claude-z")), anthropic.NotFoundError)


main("PyPI client")
