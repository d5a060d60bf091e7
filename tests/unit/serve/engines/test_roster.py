"""Who may be asked and who is being answered: nobody is let go in the middle, and nobody waits for nothing."""

from __future__ import annotations

import threading

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from espalier.core.errors import Conflict, NotFound, Unavailable
from espalier.serve.engines.line import Reply
from espalier.serve.engines.metrics import read_gauges
from espalier.serve.engines.roster import Roster

DIGESTS = ("a", "b", "c")


class RosterMachine(RuleBasedStateMachine):
    """Against the plainest model: a set of what is loaded, a list of who is inside."""

    def __init__(self) -> None:
        super().__init__()
        self.roster = Roster()
        self.loaded: dict[str, str] = {}
        self.inside: list[tuple[str, object]] = []

    @rule(digest=st.sampled_from(DIGESTS), name=st.sampled_from(["x", "y"]))
    def add(self, digest: str, name: str) -> None:
        self.roster.add(digest, name)
        self.loaded[digest] = name

    @rule(digest=st.sampled_from(("", *DIGESTS)), tokens=st.integers(1, 100))
    def come(self, digest: str, tokens: int) -> None:
        visit = self.roster.visit(digest, tokens)
        if digest and digest not in self.loaded:
            with pytest.raises(NotFound):
                visit.__enter__()
            return
        _, name = visit.__enter__()
        assert name == self.loaded.get(digest, "")
        self.inside.append((digest, visit))

    @precondition(lambda self: self.inside)
    @rule(data=st.data())
    def go(self, data: st.DataObject) -> None:
        place = data.draw(st.integers(0, len(self.inside) - 1))
        _, visit = self.inside.pop(place)
        visit.__exit__(None, None, None)  # type: ignore[attr-defined]

    @rule(digest=st.sampled_from(DIGESTS))
    def drain(self, digest: str) -> None:
        if any(own == digest for own, _ in self.inside):
            return  # it would wait; the threaded tests below do
        gone: list[str] = []
        if digest not in self.loaded:
            with pytest.raises(NotFound):
                self.roster.drain(digest, gone.append)
            return
        self.roster.drain(digest, gone.append)
        assert gone == [self.loaded.pop(digest)]

    @invariant()
    def tells_the_truth(self) -> None:
        assert sorted(self.roster.digests()) == sorted(self.loaded)
        load = self.roster.load()
        assert load.running + load.waiting == len(self.inside)
        assert (load.tokens_in_flight > 0) == bool(self.inside)


RosterMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=25)
TestRoster = RosterMachine.TestCase


def test_letting_go_waits_for_who_is_inside_and_lets_nobody_in() -> None:
    roster, gone = Roster(), threading.Event()
    roster.add("a", "x")
    with roster.visit("a", 5):
        draining = threading.Thread(target=roster.drain, args=("a", lambda name: gone.set()))
        draining.start()
        while roster.digests():
            pass
        with pytest.raises(Conflict), roster.visit("a", 5):
            pass
        with pytest.raises(Conflict):
            roster.drain("a", lambda name: None)
        assert not gone.is_set()
        with roster.visit("", 5):
            pass  # the base is nobody's business here
    draining.join()
    assert gone.is_set() and roster.digests() == []


def test_what_could_not_be_let_go_may_be_asked_again() -> None:
    roster = Roster()
    roster.add("a", "x")

    def refuse(name: str) -> None:
        raise Unavailable("the server is away")

    with pytest.raises(Unavailable):
        roster.drain("a", refuse)
    with roster.visit("a", 5) as (_, name):
        assert name == "x"


def test_what_is_forgotten_while_it_is_let_go_may_come_again() -> None:
    roster, told = Roster(), list[str]()
    roster.add("a", "x")

    def stop(name: str) -> None:  # the server ends in the middle of it
        roster.clear()
        told.append(name)

    roster.drain("a", stop)
    roster.add("a", "y")
    with roster.visit("a", 5):
        draining = threading.Thread(target=roster.drain, args=("a", told.append))
        draining.start()
        while roster.digests():
            pass
        roster.clear()
    draining.join()
    assert told == ["x"]  # nobody is left to be told to let go
    roster.add("a", "z")
    with roster.visit("a", 5) as (_, name):
        assert name == "z"


def test_a_request_waits_until_its_first_piece_and_the_servers_own_word_comes_first() -> None:
    roster = Roster()
    with roster.visit("", 7) as (visit, _):
        assert (roster.load().running, roster.load().waiting, roster.load().tokens_in_flight) == (0, 1, 7)
        visit.since_s -= 5.0
        assert roster.load().queue_s >= 5.0
        visit.begun = True
        assert (roster.load().running, roster.load().waiting, roster.load().queue_s) == (1, 0, 0.0)
        assert (roster.load(running=5, waiting=3).running, roster.load(running=5, waiting=3).waiting) == (5, 3)


@pytest.mark.parametrize(
    ("text", "gauges"),
    [
        (b'# TYPE a gauge\na{engine="0",m="x y"} 2.0\na{engine="1"} 3\nb 1 1700000000\n', {"a": 5.0, "b": 1.0}),
        (b'vllm:num_requests_running{model_name="}"} 1.0', {"vllm:num_requests_running": 1.0}),
        (b"a NaN\nb +Inf\nc\nd x\n\n\xff\n", {}),
    ],
)
def test_gauges_are_summed_over_their_labels_and_what_is_no_number_left_out(
    text: bytes, gauges: dict[str, float]
) -> None:
    assert read_gauges(Reply(200, text)) == gauges


def test_a_server_without_metrics_has_none() -> None:
    assert read_gauges(Reply(404, b"a 1")) == {}
