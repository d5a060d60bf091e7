"""What is kept under a budget: loaded once, pinned while in use, let go in the order of disuse."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from espalier.core.errors import InvalidInput, NotFound, Unavailable
from espalier.serve.residency import Residency

SIZE = 10


class Thing:
    def __init__(self, name: str) -> None:
        self.name = name


class House:
    """Loads things, and knows which are there; `gates` holds back a name's loading until its event is set."""

    def __init__(self, budget_bytes: int = 0, most: int = 0, **options: object) -> None:
        self.loads: list[str] = []
        self.there: dict[str, weakref.ref[Thing]] = {}
        self.most_there = 0
        self.gates: dict[str, threading.Event] = {}
        self.now_s = 0.0
        self._lock = threading.Lock()
        self.rooms: Residency[Thing] = Residency(
            "thing", self._load, self._unload, budget_bytes=budget_bytes, most=most, clock=lambda: self.now_s,
            **options,  # type: ignore[arg-type]
        )  # fmt: skip

    def _load(self, name: str) -> tuple[Thing, int]:
        if name in self.gates:
            assert self.gates[name].wait(20)
        if name.startswith("broken"):
            raise NotFound(f"{name} is broken")
        thing = Thing(name)
        with self._lock:
            self.loads.append(name)
            assert name not in self.there, "loaded twice at the same time"
            self.there[name] = weakref.ref(thing)
            self.most_there = max(self.most_there, len(self.there))
        return thing, SIZE

    def _unload(self, name: str, thing: Thing) -> None:
        with self._lock:
            del self.there[name]

    def use(self, name: str) -> None:
        """Have it loaded, use it, let go of it."""
        lease = self.rooms.acquire(name, lambda: SIZE)
        try:
            assert lease.loaded.result(20).name == name
            assert name in self.there
        finally:
            lease.release()


@pytest.fixture
def make() -> Iterator[Callable[..., House]]:
    made: list[House] = []

    def build(*arguments: int, **options: object) -> House:
        made.append(House(*arguments, **options))
        return made[-1]

    yield build
    for house in made:
        house.rooms.close()


def names(house: House) -> list[str]:
    return [resident.name for resident in house.rooms.residents() if resident.state == "ready"]


def wait_until(true: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline_s
        time.sleep(0.002)


def test_many_who_ask_at_once_have_it_loaded_once(make: Callable[..., House]) -> None:
    house = make()
    with ThreadPoolExecutor(16) as threads:
        list(threads.map(house.use, ["a"] * 64))
    assert house.loads == ["a"]


def test_loading_one_keeps_nobody_waiting_who_asks_another(make: Callable[..., House]) -> None:
    house = make()
    house.gates["slow"] = threading.Event()
    slow = house.rooms.acquire("slow")
    house.use("quick")
    assert not slow.loaded.done()
    house.gates["slow"].set()
    assert slow.loaded.result(20).name == "slow"
    slow.release()


def test_the_one_not_used_longest_goes_first(make: Callable[..., House]) -> None:
    house = make(3 * SIZE)
    for name in ("a", "b", "c", "a", "d"):
        house.now_s += 1
        house.use(name)
    assert names(house) == ["a", "c", "d"]


def test_a_limit_of_number_holds_as_one_of_bytes_does(make: Callable[..., House]) -> None:
    house = make(0, 2)
    for name in ("a", "b", "c"):
        house.now_s += 1
        house.use(name)
    assert names(house) == ["b", "c"]


def test_what_is_in_use_never_goes_and_who_does_not_fit_is_told_the_figures(make: Callable[..., House]) -> None:
    house = make(2_000_000)
    first = house.rooms.acquire("a", lambda: 1_500_000)
    first.loaded.result(20)
    house.rooms.resize("a", 1_500_000)
    with pytest.raises(Unavailable, match=r"b would take 1.0 MB of 2.0 MB; in use now: a \(1.5 MB\)"):
        house.rooms.acquire("b", lambda: 1_000_000).loaded.result(20)
    with pytest.raises(InvalidInput, match=r"would take 3.0 MB, all together may take 2.0 MB"):
        house.rooms.acquire("b", lambda: 3_000_000)
    assert names(house) == ["a"]
    first.release()
    house.use("a")


def test_a_patient_one_waits_until_somebody_has_finished(make: Callable[..., House]) -> None:
    house = make(0, 1, patient=True)
    first = house.rooms.acquire("a")
    first.loaded.result(20)
    second = house.rooms.acquire("b")
    assert not second.loaded.done()
    first.release()
    assert second.loaded.result(20).name == "b"
    second.release()
    assert names(house) == ["b"]


def test_a_failed_loading_is_everybodys_who_waits_and_nobodys_after(make: Callable[..., House]) -> None:
    house = make()
    house.gates["broken"] = threading.Event()
    leases = [house.rooms.acquire("broken") for _ in range(3)]
    house.gates["broken"].set()
    for lease in leases:
        with pytest.raises(NotFound):
            lease.loaded.result(20)
        lease.release()
    assert house.rooms.residents() == []
    assert house.rooms.used_bytes() == 0


def test_evicted_in_use_it_stays_to_the_end_and_who_asks_meanwhile_has_it_anew(make: Callable[..., House]) -> None:
    house = make()
    first = house.rooms.acquire("a")
    first.loaded.result(20)
    gone = house.rooms.evict("a")
    second = house.rooms.acquire("a")
    assert gone is not None and not gone.is_set() and not second.loaded.done() and "a" in house.there
    first.release()
    assert gone.wait(20)
    assert second.loaded.result(20).name == "a"
    second.release()
    assert house.loads == ["a", "a"]


def test_what_was_let_go_is_gone_from_memory_though_old_leases_lie_about(make: Callable[..., House]) -> None:
    house = make()
    lease = house.rooms.acquire("a")
    lease.loaded.result(20)
    thing = house.there["a"]
    lease.release()
    gone = house.rooms.evict("a")
    assert gone is not None and gone.wait(20)
    gc.collect()
    assert thing() is None


def test_who_loaded_a_thing_refers_to_it_no_more_once_another_can_let_go_of_it(make: Callable[..., House]) -> None:
    house = make()
    lock, loader, others = house.rooms._lock, threading.Event(), threading.Event()

    class Late:
        """The lock; the thread that loaded does nothing more for a while, once it has given the lock back."""

        def __enter__(self) -> None:
            lock.acquire()

        def __exit__(self, *_: object) -> None:
            lock.release()
            if threading.current_thread().name.startswith("thing-loading") and not loader.is_set():
                loader.set()
                assert others.wait(20)

    house.rooms._lock = Late()  # type: ignore[assignment]
    lease = house.rooms.acquire("a")
    lease.loaded.result(20)
    thing = house.there["a"]
    assert loader.wait(20)
    lease.release()
    gone = house.rooms.evict("a")
    assert gone is not None and gone.wait(20)
    gc.collect()
    alive = thing() is not None
    others.set()
    assert not alive


def test_only_the_idle_go_for_being_idle_and_never_the_kept(make: Callable[..., House]) -> None:
    house = make(keeps=lambda name: name == "kept")
    busy = house.rooms.acquire("busy")
    busy.loaded.result(20)
    for name in ("old", "kept"):
        house.use(name)
    house.now_s = 100.0
    house.use("new")
    assert house.rooms.evict_idle(50) == ["old"]
    wait_until(lambda: "old" not in house.there)
    assert names(house) == ["busy", "kept", "new"]
    busy.release()


def test_who_leaves_while_it_waits_is_not_loaded_for(make: Callable[..., House]) -> None:
    house = make(0, 1, patient=True)
    first = house.rooms.acquire("a")
    first.loaded.result(20)
    house.rooms.acquire("b").release()
    first.release()
    house.use("c")
    assert "b" not in house.loads


def test_closing_lets_go_of_all_even_of_what_is_being_loaded(make: Callable[..., House]) -> None:
    house = make()
    house.gates["slow"] = threading.Event()
    used, slow = house.rooms.acquire("a"), house.rooms.acquire("slow")
    used.loaded.result(20)
    closing = threading.Thread(target=house.rooms.close)
    closing.start()
    wait_until(lambda: not house.there)
    house.gates["slow"].set()
    closing.join(20)
    assert not house.there and not closing.is_alive()
    used.release()
    slow.release()
    with pytest.raises(Unavailable):
        house.rooms.acquire("a")


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from(["use", "hold", "free", "evict"])), max_size=40),
    st.integers(1, 4),
)
def test_whatever_is_asked_the_limit_holds_and_all_are_served(history: list[tuple[str, str]], most: int) -> None:
    house = House(0, most, patient=True)
    held: dict[str, list[object]] = {}
    try:
        for name, act in history:
            house.now_s += 1
            if act == "hold" and (name in held or len(held) < most):
                lease = house.rooms.acquire(name)
                if not held.get(name):
                    lease.loaded.result(20)
                held.setdefault(name, []).append(lease)
            elif act == "free":
                for lease in held.pop(name, []):
                    lease.release()  # type: ignore[attr-defined]
            elif act == "evict":
                house.rooms.evict(name)
            elif act == "use" and len(held) < most and not held.get(name):
                house.use(name)
            assert house.most_there <= most
    finally:
        for leases in held.values():
            for lease in leases:
                lease.release()  # type: ignore[attr-defined]
        house.rooms.close()
    assert not house.there


def test_under_many_threads_the_limit_holds_and_all_are_served(make: Callable[..., House]) -> None:
    house = make(0, 3, patient=True)

    def work(seed: int) -> None:
        for step in range(60):
            name = "abcdefgh"[(seed * 7 + step * step) % 8]
            if step % 17 == 5:
                house.rooms.evict(name)
            house.use(name)

    with ThreadPoolExecutor(12) as threads:
        list(threads.map(work, range(12)))
    assert house.most_there <= 3
