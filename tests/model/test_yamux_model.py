"""A client and a server session joined by two pipes, under random interleavings.

Whatever is written, read, cut into pieces or delayed: each stream delivers exactly the bytes that were accepted, in
order, its end after the last of them, and neither session ever finds fault with the other.
"""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from coder.wire.yamux import WINDOW, Finished, Opened, Received, Reset, Session


class End:
    def __init__(self, client):
        self.session = Session(client=client, now=0.0)
        self.pipe = bytearray()  # towards this end
        self.streams = set()
        self.unread = {}  # received, not yet consumed
        self.got = {}
        self.ended = set()
        self.sent = {}
        self.finished = set()
        self.reset = set()


class YamuxMachine(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.ends = [End(client=True), End(client=False)]

    @rule(side=st.integers(0, 1))
    def open(self, side):
        end = self.ends[side]
        if len(end.streams) < 6:
            self.born(end, end.session.open())

    @rule(side=st.integers(0, 1), pick=st.integers(0, 5), size=st.sampled_from([0, 1, 100, 65_537, WINDOW, WINDOW * 2]))
    def send(self, side, pick, size):
        end, stream = self.pick(side, pick)
        if stream is not None and stream not in end.finished:
            mark = len(end.sent[stream])
            data = bytes((mark + i) * 7 & 0xFF for i in range(min(size, 300))) + bytes(max(size - 300, 0))
            end.sent[stream] += data[: end.session.send(stream, data)]

    @rule(side=st.integers(0, 1), pick=st.integers(0, 5), part=st.floats(0, 1))
    def consume(self, side, pick, part):
        end, stream = self.pick(side, pick)
        if stream is not None:
            count = int(end.unread[stream] * part)
            end.unread[stream] -= count
            end.session.consumed(stream, count)

    @rule(side=st.integers(0, 1), pick=st.integers(0, 5))
    def pump(self, side, pick):
        """Fill a window, deliver everything and read it, so that windows turn over."""
        _, stream = self.pick(side, pick)
        if stream is not None:
            self.send(side, pick, WINDOW)
            self.deliver(1 - side, 1 << 22)
            other = self.ends[1 - side]
            other.session.consumed(stream, other.unread.get(stream, 0))
            other.unread[stream] = 0
            self.deliver(side, 1 << 22)

    @rule(side=st.integers(0, 1), pick=st.integers(0, 5))
    def finish(self, side, pick):
        end, stream = self.pick(side, pick)
        if stream is not None:
            end.session.finish(stream)
            end.finished.add(stream)
            self.forget(end, stream)

    @rule(side=st.integers(0, 1), pick=st.integers(0, 5))
    def cut_off(self, side, pick):
        end, stream = self.pick(side, pick)
        if stream is not None:
            end.session.reset(stream)
            end.reset.add(stream)
            end.streams.discard(stream)

    @rule(side=st.integers(0, 1), size=st.sampled_from([1, 11, 13, 5000, 1 << 22]))
    def deliver(self, side, size):
        self.flush()
        end = self.ends[side]
        piece = bytes(end.pipe[:size])
        del end.pipe[:size]
        for event in end.session.receive(piece, 0.0):
            match event:
                case Opened(stream):
                    self.born(end, stream)
                case Received(stream, data):
                    assert stream not in end.ended
                    end.got[stream] += data
                    end.unread[stream] += len(data)
                    assert end.unread[stream] <= WINDOW
                case Finished(stream):
                    end.ended.add(stream)
                    self.forget(end, stream)
                case Reset(stream):
                    end.reset.add(stream)
                    end.streams.discard(stream)

    def flush(self):
        self.ends[1].pipe += self.ends[0].session.take()
        self.ends[0].pipe += self.ends[1].session.take()

    def born(self, end, stream):
        end.streams.add(stream)
        end.unread[stream], end.got[stream], end.sent[stream] = 0, bytearray(), bytearray()

    def forget(self, end, stream):
        if stream in end.finished and stream in end.ended:
            end.streams.discard(stream)

    def pick(self, side, number):
        end = self.ends[side]
        streams = sorted(end.streams)
        return end, streams[number % len(streams)] if streams else None

    @invariant()
    def bytes_arrive_in_order(self):
        for near, far in (self.ends, self.ends[::-1]):
            for stream, got in near.got.items():
                sent = far.sent.get(stream, b"")
                assert sent[: len(got)] == got
                if stream in near.ended and stream not in near.reset | far.reset:
                    assert got == sent

    def teardown(self):
        """Once everything is delivered and read, every byte has arrived."""
        for _ in range(8):
            for side in (0, 1):
                self.deliver(side, 1 << 26)
        self.bytes_arrive_in_order()
        for near, far in (self.ends, self.ends[::-1]):
            for stream, got in near.got.items():
                if stream not in near.reset | far.reset:
                    assert got == far.sent[stream]


YamuxMachine.TestCase.settings = settings(max_examples=50, stateful_step_count=40, deadline=None)
TestYamux = YamuxMachine.TestCase
