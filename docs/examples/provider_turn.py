"""What an agent in Python needs to pipe its provider's own stream through Toolpool; any provider, any SDK."""

import contextlib
import json
import queue
import time

import grpc
from google.protobuf import duration_pb2
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


class CutTurn(RuntimeError):
    """The model's turn is not whole, so what it says is no answer."""


class Turn:
    def __init__(self, stub, dialect, local_tools, timeout):
        self.outgoing, self.until = queue.SimpleQueue(), time.monotonic() + timeout
        # The batch has a deadline and the RPC has none: it would end with the RPC's code, and no results.
        deadline = duration_pb2.Duration(seconds=timeout)
        self.send(open=pb.Open(dialect=dialect, local_tools=local_tools, deadline=deadline))
        self.answers = stub.Execute(iter(self.outgoing.get, None))

    def send(self, **frame):
        self.outgoing.put(pb.ExecuteRequest(frames=[pb.AgentFrame(**frame)]))

    def event(self, event):
        """The next event of the provider's stream, as JSON text. A call in it may start at once."""
        if time.monotonic() > self.until:  # The broker takes no more, so the provider need not write more.
            raise CutTurn("the turn's time is over and the model still writes")
        self.send(provider_event=event.encode())

    def finish(self, paused=()):
        """No more of the stream will come. Waits for the calls; gives the turn, with the answer to the provider.

        Raises if the turn was cut. `paused`: stop reasons after which the provider wants the turn back to go on."""
        self.outgoing.put(None)  # The half-close.
        frames = [frame for packet in self.answers for frame in packet.frames]
        if not frames or not frames[-1].HasField("finished"):
            raise RuntimeError("the stream ended before `finished`")
        turn = frames[-1].finished.turn
        if turn.turn_end != pb.TURN_END_COMPLETE and (turn.error or turn.stop_reason not in paused):
            raise CutTurn(f"the model's turn was cut: {turn.error or turn.stop_reason or 'nothing says why'}")
        broken = [call.tool for call in turn.dropped if call.reason == pb.DROP_REASON_NOT_JSON]
        if broken and not json.loads(turn.answer):
            raise CutTurn(f"the arguments are not JSON in the model's calls of {', '.join(broken)}")
        return turn


@contextlib.contextmanager
def open_turn(stub, dialect, local_tools=(), timeout=300):
    """A turn of the model, to which `timeout` gives so many seconds, its calls included. If its stream breaks in the
    middle of the block, what is held will not run."""
    turn = Turn(stub, dialect, local_tools, timeout)
    try:
        next(turn.answers)  # `accepted`. If this fails, no call was sent, and the turn may be opened again.
        yield turn
    except BaseException:
        turn.answers.cancel()  # A reset: the turn is given up.
        raise
    finally:
        turn.outgoing.put(None)  # Ends the thread that sends.
