"""Serves three tools. SIGTERM drains it; a second one ends it. Usage: worker.py HOST:PORT WORKER_ID [SLOTS]"""

import json
import os
import queue
import random
import signal
import sys
import threading
import time
import uuid

import grpc
from toolpool.v1 import types_pb2 as types
from toolpool.v1 import worker_pb2 as pb
from toolpool.v1 import worker_pb2_grpc

CHANNEL_OPTIONS = [
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),  # For a broker that permits large arguments.
    ("grpc.keepalive_time_ms", 20_000),
]


class Worker:
    def __init__(self, address, worker_id, slots, tools, functions):
        self.address, self.worker_id, self.slots = address, worker_id, slots
        self.tools, self.functions = tools, functions
        self.instance_id = uuid.uuid4().hex
        self.lock, self.room = threading.Lock(), threading.Semaphore(slots)
        self.running = {}  # Lease id to an event that is set when the attempt is called off.
        self.unacknowledged = {}  # Lease id to outcome.
        self.outgoing = queue.SimpleQueue()  # Of the present stream. A signal handler may put into it.
        self.draining = self.drain_acknowledged = False
        self.heard = self.wanted_until = 0.0

    def serve(self):
        """Joins, and joins again after every break, until it is drained."""
        pause = 0.1
        while not (self.draining and self.may_leave()):
            began = time.monotonic()
            try:
                self.serve_stream()
            except grpc.RpcError as error:
                if error.code() == grpc.StatusCode.INVALID_ARGUMENT:
                    raise  # Dialling again would not change that.
                print("broker lost:", error.code().name, error.details(), file=sys.stderr, flush=True)
            if self.heard > began:  # It had joined. After the grace, nobody waits for its outcomes.
                self.wanted_until = time.monotonic() + self.grace
            pause = 0.1 if time.monotonic() - began > 10 else min(2 * pause, 10)
            time.sleep(pause * random.uniform(0.5, 1))

    def serve_stream(self):
        outgoing = queue.SimpleQueue()
        with self.lock:  # No attempt may end between the list of leases and the new queue.
            leases = [*self.running, *self.unacknowledged]
            outgoing.put(packet(register=pb.Register(
                worker_id=self.worker_id, instance_id=self.instance_id, tools=self.tools, slots=self.slots,
                running_leases=leases,
            )))
            for outcome in self.unacknowledged.values():
                outgoing.put(packet(outcome=outcome))
            self.outgoing, self.drain_acknowledged = outgoing, False
        if self.draining:
            outgoing.put(packet(drain=pb.Drain()))
        try:
            with grpc.insecure_channel(self.address, options=CHANNEL_OPTIONS) as channel:
                stream = worker_pb2_grpc.WorkerPoolServiceStub(channel).Join(iter(outgoing.get, None))
                for received in stream:
                    self.heard = time.monotonic()
                    for frame in received.frames:
                        self.take(frame, stream, outgoing)
                    if self.drain_acknowledged and self.is_idle():
                        outgoing.put(None)  # A half-close: gone for good. The broker then ends the stream.
        finally:
            outgoing.put(None)  # Ends the thread that sends.

    def take(self, frame, stream, outgoing):
        kind = frame.WhichOneof("frame")
        if kind == "registered":
            self.max_result_bytes = frame.registered.max_result_bytes
            self.grace = frame.registered.reconnect_grace.ToTimedelta().total_seconds()
            start_thread(self.beat, frame.registered, stream, outgoing)
        elif kind == "assignment":
            called_off = threading.Event()
            with self.lock:
                self.running[frame.assignment.lease_id] = called_off
            start_thread(self.run, frame.assignment, called_off)
        elif kind == "cancel":  # Its outcome is still wanted: that frees the slot.
            self.running.get(frame.cancel.lease_id, threading.Event()).set()
        elif kind == "revoked":  # No outcome is wanted.
            with self.lock:
                self.unacknowledged.pop(frame.revoked.lease_id, None)
                self.running.pop(frame.revoked.lease_id, threading.Event()).set()
        elif kind == "outcome_ack":
            with self.lock:
                self.unacknowledged.pop(frame.outcome_ack.lease_id, None)
        elif kind == "drain_ack":
            self.drain_acknowledged = True
        elif kind == "drain" and frame.drain.leave:  # An operator takes this worker out.
            self.draining = True
            outgoing.put(packet(drain=pb.Drain()))
        # A beat has said all by coming, any other `drain` asks for nothing, and unknown frames (None) are skipped.

    def run(self, assignment, called_off):
        outcome = pb.Outcome(lease_id=assignment.lease_id)
        with self.room:  # A revoked attempt that does not stop still takes up room.
            try:
                if called_off.is_set():
                    raise RuntimeError("called off before it began")
                value = self.functions[assignment.tool](json.loads(assignment.arguments), called_off)
                outcome.output.content.add(json=json.dumps(value).encode())
                if outcome.output.ByteSize() > self.max_result_bytes:
                    text = f"The output is larger than {self.max_result_bytes} bytes. Ask for less."
                    code = types.ERROR_CODE_RESULT_TOO_LARGE
                    outcome.error.CopyFrom(types.CallError(code=code, message=text, effect=types.EFFECT_DONE))
            except Exception as error:
                text = f"{type(error).__name__}: {error}"
                outcome.error.CopyFrom(types.CallError(code=types.ERROR_CODE_TOOL_FAILED, message=text))
        with self.lock:
            if self.running.pop(assignment.lease_id, None) is not None:  # Else it was revoked.
                self.unacknowledged[assignment.lease_id] = outcome
                self.outgoing.put(packet(outcome=outcome))

    def beat(self, registered, stream, outgoing):
        interval = registered.beat_interval.ToTimedelta().total_seconds()
        while stream.is_active():
            time.sleep(interval)
            outgoing.put(packet(beat=pb.Beat()))
            if time.monotonic() - self.heard > interval * registered.missed_beats:
                stream.cancel()  # The broker is lost; `serve` dials again.

    def drain(self, *_):
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        self.draining = True
        self.outgoing.put(packet(drain=pb.Drain()))

    def is_idle(self):
        with self.lock:
            return not self.running and not self.unacknowledged

    def may_leave(self):
        return not self.running and (not self.unacknowledged or time.monotonic() > self.wanted_until)


def packet(**frame):
    return pb.JoinRequest(frames=[pb.WorkerFrame(**frame)])


def start_thread(function, *arguments):
    threading.Thread(target=function, args=arguments, daemon=True).start()


# The tools.


def tool(name, description, effects, **properties):
    schema = {"type": "object", "properties": properties, "required": [*properties], "additionalProperties": False}
    schema = json.dumps(schema).encode()
    return types.Tool(name=name, description=description, input_schema=schema, policy=types.Policy(effects=effects))


def count_words(arguments, called_off):
    return {"words": len(arguments["text"].split())}


def wait(arguments, called_off):
    return {"called_off": called_off.wait(arguments["seconds"])}


def block(arguments, called_off):
    time.sleep(arguments["seconds"])
    return {"blocked": arguments["seconds"]}


def main(address, worker_id, slots="4"):
    text, seconds = {"type": "string"}, {"type": "number", "minimum": 0}
    tools = [
        tool("count_words", "Counts the words of a text.", types.EFFECTS_READ_ONLY, text=text),
        tool("wait", "Waits for some seconds, unless it is called off.", types.EFFECTS_SIDE_EFFECTING, seconds=seconds),
        tool("block", "Waits for some seconds, come what may.", types.EFFECTS_READ_ONLY, seconds=seconds),
    ]
    functions = {"count_words": count_words, "wait": wait, "block": block}
    worker = Worker(address, worker_id, int(slots), tools, functions)
    signal.signal(signal.SIGTERM, worker.drain)
    worker.serve()


if __name__ == "__main__":
    main(*sys.argv[1:])
    os._exit(0)  # Not held up by a revoked attempt that does not stop.
