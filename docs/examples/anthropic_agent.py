"""An agent over Anthropic Messages; Toolpool runs its tools. Usage: anthropic_agent.py HOST:PORT QUESTION"""

import json
import sys

import anthropic
from provider_turn import connect, list_tools, open_turn
from toolpool.v1 import broker_pb2 as pb


def run(client, stub, question):
    tools = list_tools(stub, pb.DIALECT_ANTHROPIC)
    messages = [{"role": "user", "content": question}]
    while True:
        request = dict(model="claude-haiku-4-5", max_tokens=4096, tools=tools, messages=messages)
        with open_turn(stub, pb.DIALECT_ANTHROPIC) as turn:
            with client.messages.stream(**request) as stream:
                for event in stream:
                    if event.type.startswith(("message_", "content_block_")):  # The rest is the SDK's, made of these.
                        turn.event(event.model_dump_json())
            finished = turn.finish(paused=["pause_turn"])
        message = stream.get_final_message()
        dropped = {call.provider_id for call in finished.dropped}
        content = [block for block in message.content if block.type != "tool_use" or block.id not in dropped]
        messages.append({"role": "assistant", "content": content})
        answer = json.loads(finished.answer)
        if not answer and finished.stop_reason != "pause_turn":
            return "".join(block.text for block in content if block.type == "text")
        messages += answer


if __name__ == "__main__":
    print(run(anthropic.Anthropic(), connect(sys.argv[1]), sys.argv[2]))
