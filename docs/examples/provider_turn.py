"""What an agent in Python needs to pipe its provider's own stream through Toolpool; any provider, any SDK."""

import contextlib
import json
import queue

import grpc
from toolpool.v1 import broker_pb2 as pb
from toolpool.v1 import broker_pb2_grpc

CHANNEL_OPTIONS = [
    ("grpc.max_receive_message_length", 80 * 1024 * 1024),  # One result may be 16 MiB, an answer 32 MiB.
    ("grpc.keepalive_time_ms", 20_000),  # A broker that is gone without a word is noticed.
]


def connect(address):
    return broker_pb2_grpc.BrokerServiceStub(grpc.insecure_channel(address, options=CHANNEL_OPTIONS))


def list_tools(stub, dialect):
    """The tools that can be called, as the provider wants them in the request."""
    tools, token = [], ""
    while True:
        page = stub.ListTools(pb.ListToolsRequest(format=dialect, page_token=token))
        tools += json.loads(page.provider_tools)
        token = page.next_page_token
        if not token:
            break
    if dialect == pb.DIALECT_GEMINI and tools:  # It refuses several elements: all functions go into one.
        tools = [{"functionDeclarations": [function for tool in tools for function in tool["functionDeclarations"]]}]
    return tools


class Turn:
    def __init__(self, stub, dialect, local_tools, timeout):
        self.outgoing = queue.SimpleQueue()
        self.send(open=pb.Open(dialect=dialect, local_tools=local_tools))
        self.answers = stub.Execute(iter(self.outgoing.get, None), timeout=timeout)

    def send(self, **frame):
        self.outgoing.put(pb.ExecuteRequest(frames=[pb.AgentFrame(**frame)]))

    def event(self, event):
        """The next event of the provider's stream, as JSON text. A call in it may start at once."""
        self.send(provider_event=event.encode())

    def finish(self):
        """No more of the stream will come. Waits for the calls; gives the turn, with the answer to the provider."""
        self.outgoing.put(None)  # The half-close.
        frames = [frame for packet in self.answers for frame in packet.frames]
        if not frames or not frames[-1].HasField("finished"):
            raise RuntimeError("the stream ended before `finished`")
        return frames[-1].finished.turn


@contextlib.contextmanager
def open_turn(stub, dialect, local_tools=(), timeout=300):
    """A turn of the model. If its stream breaks in the middle of the block, what is held will not run."""
    turn = Turn(stub, dialect, local_tools, timeout)
    try:
        next(turn.answers)  # `accepted`. If this fails, no call was sent, and the turn may be opened again.
        yield turn
    except BaseException:
        turn.answers.cancel()  # A reset: the turn is given up.
        raise
    finally:
        turn.outgoing.put(None)  # Ends the thread that sends.
