"""Stands in for a model's provider: plays a recorded stream, and is as strict as the real ones are about what must come
back. On a loopback port, which it prints. For `check`."""

import http.server
import itertools
import json
import pathlib
import time

HERE = pathlib.Path(__file__).parent


def recorded(name):
    """The pieces of a recorded stream as they come over HTTP, and its events."""
    pieces = [f"{piece}\n\n" for piece in (HERE / name).read_text().split("\n\n") if piece]
    data = [piece[piece.index("data: ") + 6 :] for piece in pieces]
    return pieces, [json.loads(text) for text in data if text.startswith("{")]


class Anthropic:
    """A turn with calls; then, when their results are there, a turn with text that repeats them. To some questions the turn
    is cut."""

    stream, events = recorded("anthropic.sse")
    blocks = [event["content_block"] for event in events if event["type"] == "content_block_start"]
    calls = {block["id"]: block["name"] for block in blocks if block["type"] == "tool_use"}
    first = next(at for at, event in enumerate(events) if "id" in event.get("content_block", ()))

    def declared(self, tool):
        return tool["name"], tool["input_schema"]

    def results(self, messages):
        """The results by id that follow the calls in the conversation; None if it has no calls yet."""
        if len(messages) == 1:
            return None
        _, assistant, user = messages
        made = {block["id"]: block["name"] for block in assistant["content"] if block["type"] == "tool_use"}
        expect(assistant["role"] == "assistant" and made == self.calls, "the assistant's message is another")
        expect(user["role"] == "user", "the results stand in a user's message")
        expect(all(block["type"] == "tool_result" for block in user["content"]), "results come first")
        return [(block["tool_use_id"], block["content"]) for block in user["content"]]

    def text(self, text, reason="end_turn"):
        yield from self.events[:1]
        yield {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
        yield {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}
        yield {"type": "content_block_stop", "index": 0}
        yield from self.end(reason)

    def end(self, reason="max_tokens"):
        yield {"type": "message_delta", "delta": {"stop_reason": reason}, "usage": {"output_tokens": 9}}
        yield {"type": "message_stop"}

    def framed(self, event):
        return f"event: {event['type']}\ndata: {json.dumps(event)}\n\n"


class OpenAi:
    """The same."""

    stream, events = recorded("openai.sse")
    deltas = [choice["delta"] for event in events for choice in event["choices"]]
    begun = [call for delta in deltas for call in delta.get("tool_calls", ()) if "id" in call]
    calls = {call["id"]: call["function"]["name"] for call in begun}
    first = next(at for at, delta in enumerate(deltas) if "tool_calls" in delta)

    def declared(self, tool):
        return tool["function"]["name"], tool["function"]["parameters"]

    def results(self, messages):
        if len(messages) == 1:
            return None
        _, assistant, *rest = messages
        calls = assistant["tool_calls"]
        made = {call["id"]: call["function"]["name"] for call in calls}
        expect(all(call.keys() == {"id", "type", "function"} for call in calls), "a call has a field too many")
        expect(assistant["role"] == "assistant" and made == self.calls, "the assistant's message is another")
        expect(all(message["role"] == "tool" for message in rest), "results are messages of the role `tool`")
        return [(message["tool_call_id"], message["content"]) for message in rest]

    def text(self, text):
        yield self.chunk({"role": "assistant", "content": text})
        yield from self.end("stop")

    def end(self, reason="length"):
        yield self.chunk({}, reason)

    def chunk(self, delta, reason=None):
        return {**self.events[0], "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}

    def framed(self, event):
        return f"data: {json.dumps(event)}\n\n"


class Refused(Exception):
    pass


def expect(is_so, text):
    if not is_so:
        raise Refused(text)


def answer(provider, request):
    """The stream that answers the request."""
    declared = dict(provider.declared(tool) for tool in request["tools"])
    expect(set(provider.calls.values()) <= declared.keys(), f"the model would call tools that are not there: {declared}")
    expect(all(schema["type"] == "object" for schema in declared.values()), "a tool's parameters are an object")
    messages = request["messages"]
    if messages[0]["content"] == "pause":
        roles = [message["role"] for message in messages]
        expect(roles in (["user"], ["user", "assistant"]), "a turn that paused goes on where it was")
        said = provider.text("First half.", "pause_turn") if len(roles) == 1 else provider.text("Second half.")
        return map(provider.framed, said)
    results = provider.results(messages)
    if results is None and messages[0]["content"] == "limit":  # In the middle of the first call.
        return itertools.chain(provider.stream[: provider.first + 2], map(provider.framed, provider.end()))
    if results is None and messages[0]["content"] == "break":  # Before the first call.
        return provider.stream[: provider.first]
    if results is None:
        return provider.stream
    missing = provider.calls.keys() - dict(results)
    expect(not missing, f"tool calls were found without results immediately after: {missing}")
    expect(len(results) == len(provider.calls), "a call has one result")
    said = "; ".join(f"{provider.calls[call]}: {json.dumps(content)}" for call, content in results)
    return map(provider.framed, provider.text(said))


class Handler(http.server.BaseHTTPRequestHandler):
    providers = {"/v1/messages": Anthropic(), "/v1/chat/completions": OpenAi()}

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        try:
            stream = answer(self.providers[self.path.partition("?")[0]], request)
        except Refused as refused:
            body = json.dumps({"error": {"type": "invalid_request_error", "message": str(refused)}}).encode()
            self.send_response(400)
            self.send_header("content-type", "application/json")
            self.end_headers()
            self.wfile.write(body)
            return
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        for piece in stream:
            self.wfile.write(piece.encode())
            time.sleep(0.02)


if __name__ == "__main__":
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()
