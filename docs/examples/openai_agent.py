"""An agent over OpenAI Chat Completions; Toolpool runs its tools. Usage: openai_agent.py HOST:PORT QUESTION

For OpenAI, and servers whose streams have an id and an integer index for each call, as the SDK's own reader needs."""

import json
import sys

import openai
from openai.lib.streaming.chat import ChatCompletionStreamState
from provider_turn import connect, list_tools, open_turn
from toolpool.v1 import broker_pb2 as pb


def run(client, stub, question):
    tools = list_tools(stub, pb.DIALECT_OPENAI_CHAT)
    messages = [{"role": "user", "content": question}]
    while True:
        request = dict(model="gpt-5-mini", tools=tools, messages=messages, stream=True)
        state = ChatCompletionStreamState()
        with open_turn(stub, pb.DIALECT_OPENAI_CHAT) as turn:
            for chunk in client.chat.completions.create(**request):
                turn.event(chunk.model_dump_json())
                state.handle_chunk(chunk)
            finished = turn.finish()
        message = state.get_final_completion().choices[0].message.to_dict(exclude_none=True)
        dropped = {call.provider_id for call in finished.dropped}
        calls = [call for call in message.pop("tool_calls", ()) if call["id"] not in dropped]
        for call in calls:
            del call["index"]  # Of the stream; in a message there is none.
        messages.append({**message, "tool_calls": calls} if calls else message)
        answer = json.loads(finished.answer)
        if not answer:
            return message.get("content")
        messages += answer


if __name__ == "__main__":
    print(run(openai.OpenAI(), connect(sys.argv[1]), sys.argv[2]))
