"""Models are loaded once, shared by readers, kept apart for writers, bounded, and never waited for in vain."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import torch

from mezzotint.errors import PluginError
from mezzotint.pool import ModelPool, model_bytes, pool_key
from mezzotint.values import Recipe, Source

pytestmark = pytest.mark.timeout(60)


class Model:
    def __init__(self, nbytes: int = 10) -> None:
        self.nbytes = nbytes


def recipe(name: str = "a", **config: Any) -> Recipe:
    return Recipe(Source("uri", "/path", name), "models.unet", config)


def never() -> Model:
    raise AssertionError("loaded again")


def eventually(condition: Callable[[], bool]) -> bool:
    until = time.monotonic() + 10
    while not condition() and time.monotonic() < until:
        time.sleep(0.005)
    return condition()


class Worker:
    """A node in a thread of its own, which leases what it is told to, when it is told to."""

    def __init__(self, pool: ModelPool) -> None:
        self.pool = pool
        self.held: list[Any] = []
        self.stack = ExitStack()
        self.orders: list[Callable[[], None]] = []
        self.idle = threading.Event()
        self.more = threading.Condition()
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        while True:
            with self.more:
                self.idle.set()
                self.more.wait_for(lambda: bool(self.orders))
                order = self.orders.pop(0)
            try:
                order()
            except StopIteration:
                return
            except BaseException as error:
                self.error = error

    def _order(self, order: Callable[[], None]) -> None:
        with self.more:
            self.idle.clear()
            self.orders.append(order)
            self.more.notify()

    def lease(self, name: str, *, exclusive: bool = False, wait: bool = True) -> None:
        def order() -> None:
            lease = self.pool.lease(recipe(name), Model, exclusive=exclusive)
            self.held.append(self.stack.enter_context(lease))

        self._order(order)
        if wait:
            assert self.idle.wait(10), "the lease was not given"

    def release(self) -> None:
        self._order(self.stack.close)
        assert self.idle.wait(10)

    def blocked(self) -> bool:
        return not self.idle.wait(0.1)

    def stop(self) -> None:
        def order() -> None:
            self.stack.close()
            raise StopIteration

        self._order(order)
        self.thread.join(10)
        assert not self.thread.is_alive()
        if self.error is not None:
            raise self.error


@pytest.fixture
def pool() -> ModelPool:
    return ModelPool(100)


@pytest.fixture
def workers(pool: ModelPool) -> Iterator[list[Worker]]:
    made = [Worker(pool) for _ in range(3)]
    yield made
    for worker in made:
        worker.stop()


def test_a_model_is_loaded_once_and_lent_again(pool: ModelPool) -> None:
    with pool.lease(recipe(), Model, exclusive=False) as first:
        pass
    with pool.lease(recipe(), never, exclusive=True) as second:
        assert second is first
    stats = pool.stats()
    assert (stats.loads, stats.hits, stats.models, stats.bytes, stats.leased) == (1, 1, 1, 10, 0)


def test_patches_do_not_count_for_the_key_and_all_else_does() -> None:
    base = pool_key(recipe(width=8, depth=2), "cpu", "float32")
    assert pool_key(recipe(depth=2, width=8).patched(), "cpu", "float32") == base
    others = [
        pool_key(recipe(width=9, depth=2), "cpu", "float32"),
        pool_key(recipe("b", width=8, depth=2), "cpu", "float32"),
        pool_key(recipe(width=8, depth=2).replace(loader="x"), "cpu", "float32"),
        pool_key(recipe(width=8, depth=2), "cuda:0", "float32"),
        pool_key(recipe(width=8, depth=2), "cpu", "float16"),
    ]
    assert len({base, *others}) == 6
    with pytest.raises(PluginError, match="holds tensors"):
        pool_key(recipe(w=torch.ones(1)), "cpu", "float32")


def test_readers_share_and_an_exclusive_lease_waits_for_them(pool: ModelPool, workers: list[Worker]) -> None:
    one, two, three = workers
    one.lease("a")
    two.lease("a")
    assert one.held == two.held
    three.lease("a", exclusive=True, wait=False)
    assert three.blocked()
    one.release()
    assert three.blocked()
    two.release()
    assert three.idle.wait(10)
    assert three.held == one.held
    one.lease("a", wait=False)
    assert one.blocked()
    three.release()
    assert one.idle.wait(10)
    assert pool.stats().loads == 1


def test_new_readers_let_a_waiting_exclusive_lease_go_first(pool: ModelPool, workers: list[Worker]) -> None:
    one, two, three = workers
    one.lease("a")
    two.lease("a", exclusive=True, wait=False)
    assert two.blocked()
    three.lease("a", wait=False)
    assert three.blocked()
    one.lease("a")  # has it already: waiting would be for itself
    one.release()
    assert two.idle.wait(10) and three.blocked()
    two.release()
    assert three.idle.wait(10)
    assert pool.stats().loads == 1


def test_concurrent_first_leases_load_once(pool: ModelPool) -> None:
    started, go, loads, got = threading.Event(), threading.Event(), [], []

    def load() -> Model:
        loads.append(1)
        started.set()
        assert go.wait(10)
        return Model()

    def work() -> None:
        with pool.lease(recipe(), load, exclusive=False) as model:
            got.append(model)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    assert started.wait(10)
    with pool.lease(recipe("b"), Model, exclusive=True):
        pass  # loading does not hold up other models
    go.set()
    for thread in threads:
        thread.join(10)
    assert len(loads) == 1 and len(got) == 8 and len(set(map(id, got))) == 1


def test_a_load_that_fails_is_raised_and_the_next_one_tries_again(pool: ModelPool) -> None:
    def fail() -> Model:
        raise OSError("no such file")

    with pytest.raises(OSError, match="no such file"), pool.lease(recipe(), fail, exclusive=False):
        pass
    assert pool.stats().models == 0
    with pool.lease(recipe(), Model, exclusive=True) as model:
        assert isinstance(model, Model)


def test_a_failed_load_wakes_those_who_waited_for_it(pool: ModelPool) -> None:
    started, go, got = threading.Event(), threading.Event(), []

    def fail() -> Model:
        started.set()
        assert go.wait(10)
        raise OSError("gone")

    def first() -> None:
        with pytest.raises(OSError), pool.lease(recipe(), fail, exclusive=False):
            pass

    def second() -> None:
        with pool.lease(recipe(), Model, exclusive=False) as model:
            got.append(model)

    threads = [threading.Thread(target=first)]
    threads[0].start()
    assert started.wait(10)
    threads.append(threading.Thread(target=second))
    threads[1].start()
    go.set()
    for thread in threads:
        thread.join(10)
    assert len(got) == 1


def test_the_least_recently_used_idle_models_go_when_there_is_no_room() -> None:
    told: list[int] = []
    pool = ModelPool(30, on_evict=lambda: told.append(1))
    for name in "abc":
        with pool.lease(recipe(name), Model, exclusive=False):
            pass
    with pool.lease(recipe("a"), never, exclusive=False):
        pass
    assert told == []
    with pool.lease(recipe("d"), Model, exclusive=False):
        pass
    assert told == [1] and pool.stats().bytes == 30 and pool.stats().evictions == 1
    with pool.lease(recipe("a"), never, exclusive=False), pool.lease(recipe("c"), never, exclusive=False):
        pass
    with pool.lease(recipe("b"), Model, exclusive=False):
        pass
    assert pool.stats().loads == 5


def test_models_in_use_are_never_evicted_and_go_when_they_are_given_back() -> None:
    pool = ModelPool(15)
    with pool.lease(recipe("a"), Model, exclusive=False) as a:
        with pool.lease(recipe("b"), Model, exclusive=False):
            assert pool.stats().bytes == 20
            with pool.lease(recipe("a"), never, exclusive=False) as again:
                assert again is a
        assert pool.stats().models == 1
    with pool.lease(recipe("a"), never, exclusive=False):
        pass


def test_room_is_made_before_loading_when_the_size_is_known() -> None:
    pool = ModelPool(15)
    with pool.lease(recipe("a"), Model, exclusive=False):
        pass

    def load() -> Model:
        assert pool.stats().models == 1  # the one that is being loaded
        return Model()

    with pool.lease(recipe("b"), load, exclusive=False, size_hint=10):
        pass


def test_one_node_that_wants_a_model_plain_and_patched_gets_two(pool: ModelPool) -> None:
    for first, second in [(True, False), (False, True), (True, True)]:
        with (
            pool.lease(recipe(), Model, exclusive=first) as one,
            pool.lease(recipe(), Model, exclusive=second) as two,
        ):
            assert one is not two
    with pool.lease(recipe(), Model, exclusive=False) as one, pool.lease(recipe(), Model, exclusive=False) as two:
        assert one is two
    assert pool.stats().loads == 2


def test_a_node_of_many_threads_is_one_owner(pool: ModelPool) -> None:
    got: list[Any] = []

    def lease(owner: Hashable) -> None:
        with pool.lease(recipe(), Model, exclusive=True, owner=owner) as model:
            got.append(model)

    with pool.lease(recipe(), Model, exclusive=True, owner="node") as held:
        thread = threading.Thread(target=lease, args=("node",))
        thread.start()
        thread.join(10)
        assert len(got) == 1 and got[0] is not held


def test_two_nodes_that_hold_what_the_other_wants_both_go_on(pool: ModelPool, workers: list[Worker]) -> None:
    one, two, _ = workers
    one.lease("a", exclusive=True)
    two.lease("b", exclusive=True)
    one.lease("b", exclusive=True, wait=False)
    assert one.blocked()
    two.lease("a", exclusive=True)
    assert two.held[1] is not one.held[0]
    two.release()
    assert one.idle.wait(10)


def test_two_readers_that_both_want_to_write_both_go_on(pool: ModelPool, workers: list[Worker]) -> None:
    one, two, _ = workers
    one.lease("a")
    two.lease("a")
    one.lease("a", exclusive=True)
    two.lease("a", exclusive=True, wait=False)
    assert two.blocked()  # until the copy made for the other is free: that is not for ever
    one.release()
    assert two.idle.wait(10)
    assert one.held[0] is two.held[0] and one.held[1] is two.held[1] is not one.held[0]


def test_a_ring_of_three_nodes_is_broken(pool: ModelPool, workers: list[Worker]) -> None:
    for worker, name in zip(workers, "abc", strict=True):
        worker.lease(name, exclusive=True)
    workers[0].lease("b", wait=False)
    workers[1].lease("c", wait=False)
    assert workers[0].blocked() and workers[1].blocked()
    workers[2].lease("a")
    workers[2].release()
    assert workers[1].idle.wait(10)
    workers[1].release()
    assert workers[0].idle.wait(10)


def test_an_instance_whose_exclusive_lease_failed_is_not_lent_again(pool: ModelPool) -> None:
    with pytest.raises(ValueError), pool.lease(recipe(), Model, exclusive=True):
        raise ValueError
    assert pool.stats().models == 0
    with pytest.raises(ValueError), pool.lease(recipe(), Model, exclusive=False):
        raise ValueError
    assert pool.stats().models == 1 and pool.stats().leased == 0


def test_clear_drops_what_is_idle(pool: ModelPool) -> None:
    with pool.lease(recipe("a"), Model, exclusive=False):
        with pool.lease(recipe("b"), Model, exclusive=False):
            pass
        pool.clear()
        assert pool.stats().models == 1
    pool.clear()
    assert pool.stats().bytes == 0


def test_sizes_count_shared_parameters_once_and_buffers_too() -> None:
    module = torch.nn.Linear(3, 4)
    module.register_buffer("scale", torch.ones(5, dtype=torch.float16))
    module.tied = module.weight
    assert model_bytes(module) == 4 * (12 + 4) + 10
    assert model_bytes({"unet": module, "tokenizer": object(), "more": [Model(7)]}) == 74 + 7


def test_many_threads_with_random_leases_all_finish(pool: ModelPool) -> None:
    import random

    writing: dict[int, int] = {}
    failures: list[str] = []
    lock = threading.Lock()

    def work(seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(60):
            with ExitStack() as stack:
                for _ in range(rng.randint(1, 3)):
                    exclusive = rng.random() < 0.5
                    lease = pool.lease(recipe(rng.choice("abc")), lambda: Model(30), exclusive=exclusive)
                    model = stack.enter_context(lease)
                    with lock:
                        held = writing.get(id(model), 0)
                        if held < 0 or (exclusive and held):
                            failures.append("an exclusive lease was not alone")
                        writing[id(model)] = -1 if exclusive else held + 1
                    stack.callback(give_back, id(model), exclusive)

    def give_back(model: int, exclusive: bool) -> None:
        with lock:
            writing[model] = 0 if exclusive else writing[model] - 1

    threads = [threading.Thread(target=work, args=(n,), daemon=True) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(40)
    assert not any(thread.is_alive() for thread in threads), "a deadlock"
    assert failures == []
    assert pool.stats().leased == 0 and pool.stats().bytes <= 100


def test_the_pool_imports_no_torch() -> None:
    program = "import sys, mezzotint.pool; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)
