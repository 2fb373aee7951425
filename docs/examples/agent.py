"""Runs calls as one model turn, streamed block by block. Usage: agent.py HOST:PORT TOOL JSON [TOOL JSON ...]"""

import queue
import sys

import grpc
from toolpool.v1 import broker_pb2 as pb
from toolpool.v1 import broker_pb2_grpc, types_pb2

CHANNEL_OPTIONS = [
    ("grpc.max_receive_message_length", 80 * 1024 * 1024),  # One result may be 16 MiB; gRPC's default is 4 MiB.
    ("grpc.keepalive_time_ms", 20_000),  # A broker that is gone without a word is noticed.
]


def run_turn(stub, blocks, timeout):
    """Streams blocks, each an id, a tool and pieces of JSON text. Returns the results by id."""
    outgoing = queue.SimpleQueue()
    send = lambda **frame: outgoing.put(pb.ExecuteRequest(frames=[pb.AgentFrame(**frame)]))
    send(open=pb.Open())
    answers = stub.Execute(iter(outgoing.get, None), timeout=timeout)
    try:
        first = next(answers)  # `accepted`. If this fails, no call was sent, and the turn may be opened again.
        for index, (call_id, tool, pieces) in enumerate(blocks):
            send(block_start=pb.BlockStart(index=index, id=call_id, tool=tool))
            for piece in pieces:
                send(block_delta=pb.BlockDelta(index=index, fragment=piece))
            send(block_stop=pb.BlockStop(index=index))
        send(seal=pb.Seal(turn_end=pb.TURN_END_COMPLETE))
        frames = [frame for packet in (first, *answers) for frame in packet.frames]
        if not frames[-1].HasField("finished"):
            raise RuntimeError("the stream ended before `finished`")
        return {frame.result.id: frame.result for frame in frames if frame.HasField("result")}
    except BaseException:
        answers.cancel()  # A reset. A half-close would seal the turn as complete, and run what is held.
        raise
    finally:
        outgoing.put(None)  # The half-close, which also ends the thread that sends.


def main(address, *rest):
    calls = zip(rest[::2], rest[1::2], strict=True)
    pieces = lambda text: [text[at : at + 7] for at in range(0, len(text), 7)]  # As a model would write them.
    blocks = [(f"call_{n}", tool, pieces(arguments.encode())) for n, (tool, arguments) in enumerate(calls)]
    with grpc.insecure_channel(address, options=CHANNEL_OPTIONS) as channel:
        results = run_turn(broker_pb2_grpc.BrokerServiceStub(channel), blocks, timeout=60)
    for call_id, tool, _ in blocks:
        result = results[call_id]
        if result.HasField("output"):
            print(call_id, tool, "OUTPUT", *(piece.text or piece.json.decode() for piece in result.output.content))
        else:
            print(call_id, tool, types_pb2.ErrorCode.Name(result.error.code), result.error.message)
    return 0 if all(result.HasField("output") for result in results.values()) else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
