"""The store gives back what was put, or a miss; whatever happens to processes, disks and bytes."""

from __future__ import annotations

import contextlib
import hashlib
import random
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from mezzotint import store as store_module
from mezzotint.codec import type_table
from mezzotint.errors import PluginError, StoreError, UserError
from mezzotint.ports import Image, Latents, Weights
from mezzotint.store import MISS, Cache, MemoryStore, Store, parse_size

GB = 10**9
BIG = 70_000


def key(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


def big(number: float) -> Weights:
    return Weights({"w": torch.full((BIG // 4,), float(number))})


@pytest.fixture
def damage() -> list[tuple[str, Path | None, str]]:
    return []


@pytest.fixture
def store(tmp_path: Path, damage: list[Any]) -> Iterator[Store]:
    with Store(tmp_path / "store", limit_bytes=GB, on_damage=lambda *a: damage.append(a)) as opened:
        yield opened


@pytest.fixture(params=["disk", "memory"])
def cache(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Cache]:
    if request.param == "memory":
        yield MemoryStore()
    else:
        with Store(tmp_path / "either", limit_bytes=GB) as opened:
            yield opened


def reopened(store: Store) -> Store:
    store.close()
    return Store(store.folder, limit_bytes=GB, on_damage=store.on_damage)


def blobs(store: Store) -> list[Path]:
    return sorted((store.folder / "blobs").glob("*/*"))


def quarantined(store: Store) -> list[Path]:
    return sorted((store.folder / "quarantine").iterdir())


def flip(path: Path, at: int = -100) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def python(program: str, *arguments: object) -> subprocess.Popen[str]:
    """A second process that runs `program`; it prints a line when it is under way."""
    head = "import sys, os, time\nfrom mezzotint.store import *\n"
    return subprocess.Popen(
        [sys.executable, "-c", head + textwrap.dedent(program), *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
    )


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


# --- any store ---


@pytest.mark.parametrize("value", [None, False, 0, "", [], {"a": (1, 2.5)}], ids=repr)
def test_what_was_put_is_got_and_none_is_no_miss(cache: Cache, value: Any) -> None:
    assert cache.get("k") is MISS
    cache.put("k", value)
    assert cache.get("k") == value and cache.get("k") is not MISS
    cache.flush()
    assert cache.get("k") == value


def test_a_miss_is_false_and_has_one_identity(cache: Cache) -> None:
    assert not cache.get("k") and cache.get("k") is cache.get_bytes("l")


def test_the_newest_put_counts(cache: Cache) -> None:
    cache.put("k", 1)
    cache.put("k", big(2))
    cache.put("k", 3)
    assert cache.get("k") == 3


def test_contains_many_finds_values_and_bytes_but_not_states(cache: Cache) -> None:
    cache.put("a", 1)
    cache.put("b", big(1))
    cache.put_bytes("c", b"x", "image/png")
    cache.save_state("d", {})
    assert cache.contains_many(["a", "b", "c", "d", "e", "a"]) == {"a", "b", "c"}
    cache.flush()
    assert cache.contains_many(key for key in "abcde") == {"a", "b", "c"}


@pytest.mark.parametrize("size", [0, 10, 65535, 65536, 200_000])
def test_bytes_and_files_come_back_and_are_copied_out(cache: Cache, tmp_path: Path, size: int) -> None:
    data = random.Random(size).randbytes(size)
    (tmp_path / "in").write_bytes(b"skipped" + data)
    with open(tmp_path / "in", "rb") as file:
        file.seek(7)
        cache.put_bytes("file", file, "video/mp4")
    cache.put_bytes("bytes", data, "image/png")
    assert cache.get_bytes("file") == data == cache.get_bytes("bytes")
    copied = cache.copy_to("file", tmp_path / "out")
    assert copied and (copied.media_type, copied.size) == ("video/mp4", size)
    assert copied.sha256 == hashlib.sha256(data).hexdigest()
    assert (tmp_path / "out").read_bytes() == data
    assert cache.copy_to("absent", tmp_path / "never") is MISS
    assert not (tmp_path / "never").exists()


def test_a_copy_is_the_users_own_file(store: Store, tmp_path: Path) -> None:
    store.put_bytes("k", b"x" * BIG, "image/png")
    store.copy_to("k", tmp_path / "out")
    assert (tmp_path / "out").stat().st_nlink == 1
    (tmp_path / "out").write_bytes(b"scribbled on")
    assert store.get_bytes("k") == b"x" * BIG


def test_a_copy_to_a_folder_that_is_not_there_is_a_user_error(cache: Cache, tmp_path: Path) -> None:
    cache.put_bytes("k", b"x", "image/png")
    with pytest.raises(UserError, match=r"cannot write .*absent"):
        cache.copy_to("k", tmp_path / "absent" / "out")


def test_states_are_replaced_loaded_whole_and_dropped(cache: Cache) -> None:
    assert cache.load_state("k") is None
    for step in range(3):
        cache.save_state("k", {"step": step, "x": Latents(torch.full((1, 4, 70, 70), float(step)))})
    state = cache.load_state("k")
    assert state is not None and state["step"] == 2
    cache.save_state("k", {"step": 9, "x": None})
    assert state["x"].data.unique().tolist() == [2.0]
    cache.drop_state("k")
    cache.drop_state("k")
    assert cache.load_state("k") is None


def test_a_state_and_a_value_may_have_the_same_key(cache: Cache) -> None:
    cache.save_state("k", {"step": 1})
    cache.put("k", "done")
    cache.drop_state("k")
    assert cache.get("k") == "done"


def test_digests_of_files_are_remembered_by_stamp(cache: Cache) -> None:
    assert cache.recall_file("/a", "1") is None
    cache.remember_file("/a", "1", "digest")
    cache.flush()
    assert cache.recall_file("/a", "1") == "digest"
    assert cache.recall_file("/a", "2") is None


# --- on disk ---


def test_values_outlive_the_process(store: Store) -> None:
    store.put("small", {"x": torch.ones(3)})
    store.put("large", big(5))
    store.put("image", Image(torch.zeros(1, 2, 2, 3)))
    again = reopened(store)
    assert again.get("small")["x"].tolist() == [1.0] * 3
    assert again.get("large").tensors["w"].unique().tolist() == [5.0]
    assert again.get("image").data.shape == (1, 2, 2, 3)
    again.close()


def test_a_small_value_is_committed_soon_though_nobody_flushes(tmp_path: Path) -> None:
    writer = python(
        """
        s = Store(sys.argv[1], limit_bytes=10**9)
        s.put("k", "precious")
        print("put", flush=True)
        time.sleep(60)
        """,
        tmp_path / "s",
    )
    assert line(writer) == "put"
    time.sleep(1.0)
    kill(writer)
    with Store(tmp_path / "s", limit_bytes=GB) as store:
        assert store.get("k") == "precious"


def test_a_large_value_is_on_disk_when_put_returns(tmp_path: Path) -> None:
    writer = python(
        """
        s = Store(sys.argv[1], limit_bytes=10**9)
        s.put("k", {"text": "x" * 100_000})
        print("put", flush=True)
        os.kill(os.getpid(), 9)
        """,
        tmp_path / "s",
    )
    assert line(writer) == "put"
    kill(writer)
    with Store(tmp_path / "s", limit_bytes=GB) as store:
        assert store.get("k")["text"] == "x" * 100_000


def test_reading_a_cached_value_imports_no_torch(store: Store) -> None:
    store.put("k", {"image": Image(torch.rand(1, 200, 200, 3)), "n": 3})
    store.close()
    program = (
        "import sys\nfrom mezzotint.store import Store\nimport mezzotint.ports\nfrom mezzotint.codec import peek\n"
        "value = Store(sys.argv[1], limit_bytes=10**9).get('k')\n"
        "assert value['n'] == 3 and peek(value['image'], 'data').shape == (1, 200, 200, 3)\n"
        "assert not {'torch', 'numpy', 'networkx', 'pydantic'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", program, store.folder], check=True)


def test_equal_values_are_stored_once(store: Store) -> None:
    store.put("a", big(1))
    store.put("b", big(1))
    store.put("c", big(2))
    assert len(blobs(store)) == 2
    assert store.stats().entries == 3
    assert store.stats().bytes < 2.2 * BIG


def test_replacing_a_large_value_frees_the_old_one_unless_it_is_shared(store: Store) -> None:
    store.put("a", big(1))
    store.put("b", big(1))
    store.put("a", big(2))
    assert len(blobs(store)) == 2
    store.put("b", 0)
    store.flush()
    assert len(blobs(store)) == 1


def test_a_value_of_an_unregistered_class_is_refused(tmp_path: Path) -> None:
    with Store(tmp_path / "s", limit_bytes=GB, types=type_table(Image)) as store:
        with pytest.raises(PluginError, match="Latents is not registered"):
            store.put("k", Latents(torch.ones(1)))
        assert store.get("k") is MISS


def test_a_value_whose_plugin_is_missing_is_a_reported_miss_and_stays(store: Store, damage: list[Any]) -> None:
    store.put("k", Latents(torch.ones(1)))
    store.close()
    with Store(store.folder, limit_bytes=GB, types=type_table(Image), on_damage=store.on_damage) as other:
        assert other.get("k") is MISS
        assert (other.stats().hits, other.stats().misses) == (0, 1)
    assert [(d[0], d[1]) for d in damage] == [("k", None)] and "plugin" in damage[0][2]
    assert store.get("k") is not MISS


def test_ls_tells_what_made_each_entry_and_stats_count(store: Store) -> None:
    store.put("a", 1, node="noise", seconds=0.5)
    store.put_bytes("b", b"x" * BIG, "image/png", node="encode")
    store.save_state("c", {"step": 1})
    store.get("a")
    store.get("nothing")
    rows = {row.key: row for row in store.ls()}
    assert (rows["a"].node, rows["a"].seconds, rows["a"].kind) == ("noise", 0.5, "value")
    assert rows["a"].used > rows["a"].made
    assert (rows["b"].size, rows["b"].media_type, rows["c"].kind) == (BIG, "image/png", "state")
    stats = store.stats()
    assert (stats.entries, stats.hits, stats.misses, stats.limit) == (3, 1, 1, GB)


def test_the_folder_is_the_users_alone(store: Store) -> None:
    store.put("k", big(1))
    store.flush()
    for path in [store.folder, store.folder / "blobs", store.folder / "index.sqlite", blobs(store)[0].parent]:
        assert path.stat().st_mode & 0o077 == 0, path


# --- damage ---


@pytest.mark.parametrize("how", ["flip", "cut", "remove"])
def test_a_damaged_blob_is_a_miss_set_aside_and_reported(store: Store, damage: list[Any], how: str) -> None:
    store.put("k", big(1))
    store.put("whole", big(2))
    bad = next(path for path in blobs(store) if b"\x80\x3f\x00\x00\x80\x3f" in path.read_bytes())
    if how == "flip":
        flip(bad)
    elif how == "cut":
        bad.write_bytes(bad.read_bytes()[:-1])
    else:
        bad.unlink()
    assert store.get("k") is MISS
    assert store.contains_many(["k", "whole"]) == {"whole"}
    assert [d[0] for d in damage] == ["k"]
    assert quarantined(store) == ([] if how == "remove" else [damage[0][1]])
    store.put("k", big(1))
    assert store.get("k").tensors["w"][0] == 1
    assert store.get("whole").tensors["w"][0] == 2


def test_damage_is_noticed_though_the_blob_was_read_before(store: Store) -> None:
    store.put("k", big(1))
    assert store.get("k") is not MISS
    flip(blobs(store)[0])
    assert store.get("k") is MISS


def test_putting_a_value_again_heals_its_damaged_blob(store: Store, damage: list[Any]) -> None:
    store.put("k", big(1))
    flip(blobs(store)[0])
    store.put("other", big(1))
    assert store.get("k").tensors["w"][0] == 1
    assert damage == []


@pytest.mark.parametrize("column", ["body", "key", "media"])
def test_a_damaged_row_is_a_miss_set_aside_and_reported(store: Store, damage: list[Any], column: str) -> None:
    store.put("k", "some value")
    store.flush()
    with contextlib.closing(sqlite3.connect(store.folder / "index.sqlite")) as connection, connection:
        to = {"body": b'"some valuE"', "key": "l", "media": "application/safetensors"}[column]
        connection.execute(f"update entry set {column} = ?", (to,))
    name = "l" if column == "key" else "k"
    assert store.get(name) is MISS
    assert [d[0] for d in damage] == [name]
    assert len(quarantined(store)) == 1
    assert store.contains_many(["k", "l"]) == set()


@pytest.mark.parametrize("opened", [False, True])
def test_a_damaged_index_is_set_aside_and_the_store_starts_anew(
    store: Store, damage: list[Any], opened: bool
) -> None:
    for number in range(100):
        store.put(key(number), "x" * 1000)
    store.close()
    if opened:
        assert store.get(key(1)) is not MISS
        with contextlib.closing(sqlite3.connect(store.folder / "index.sqlite")) as connection:
            connection.execute("pragma wal_checkpoint(truncate)")
    path = store.folder / "index.sqlite"
    size = path.stat().st_size
    with open(path, "r+b") as file:
        file.write(b"\xa5" * size)
    again = store if opened else Store(store.folder, limit_bytes=GB, on_damage=store.on_damage)
    for _ in range(3):
        again.put("new", 1)
        again.flush()
    assert again.get("new") == 1
    assert damage and damage[0][1] in quarantined(store) and "index" in damage[0][2]
    again.close()


def test_an_index_of_another_version_is_refused(store: Store) -> None:
    store.close()
    with contextlib.closing(sqlite3.connect(store.folder / "index.sqlite")) as connection:
        connection.execute("pragma user_version = 99")
    with pytest.raises(StoreError, match="another version of Mezzotint"):
        Store(store.folder, limit_bytes=GB)


def test_verify_reads_everything_and_names_what_is_damaged(store: Store, damage: list[Any]) -> None:
    for number in range(3):
        store.put(key(number), big(number))
        store.put(key(10 + number), number)
        store.get(key(number))
    flip(blobs(store)[0])
    (store.folder / "blobs" / "ab").mkdir(exist_ok=True)
    (store.folder / "blobs" / "ab" / ("ab" * 32)).write_bytes(b"left by a kill")
    report = store.verify()
    assert (report.entries, len(report.damaged), report.leftovers) == (6, 1, 1)
    assert report.damaged[0].key == damage[0][0]
    assert store.verify().damaged == ()


# --- several processes ---

WRITER = """
s = Store(sys.argv[1], limit_bytes=10**9, on_damage=lambda *a: print("DAMAGE", a, flush=True))
print("ready", flush=True)
for i in range(10**9):
    n = i % 20
    s.put(f"small{n}", {"n": n, "text": "x" * 100})
    s.put(f"large{n}", {"n": n, "text": str(n) * 70_000})
    s.put_bytes(f"bytes{n}", bytes([n]) * 70_000, "image/png")
    s.save_state("state", {"i": i, "list": [i] * (20_000 if i % 2 else 10)})
    for m in range(0, 20, 7):
        small, large, data = s.get(f"small{m}"), s.get(f"large{m}"), s.get_bytes(f"bytes{m}")
        assert small is MISS or small["n"] == m
        assert large is MISS or large["text"] == str(m) * 70_000
        assert data is MISS or data == bytes([m]) * 70_000
"""


def test_two_processes_with_the_same_keys_killed_in_the_middle_leave_nothing_half_written(tmp_path: Path) -> None:
    folder, wait = tmp_path / "s", random.Random(7)
    for _ in range(4):
        writers = [python(WRITER, folder), python(WRITER, folder)]
        assert [line(w) for w in writers] == ["ready", "ready"]
        time.sleep(0.3 + 0.3 * wait.random())
        assert [writer.poll() for writer in writers] == [None, None]
        for writer in writers:
            writer.send_signal(signal.SIGKILL)
        for writer in writers:
            assert writer.wait() == -signal.SIGKILL
            assert writer.stdout is not None
            assert writer.stdout.read() == ""
            writer.stdout.close()
        with Store(folder, limit_bytes=GB) as store:
            report = store.verify()
            assert report.entries > 3 and report.damaged == ()
            for row in store.ls():
                if row.kind == "value":
                    value = store.get(row.key)
                    assert value is not MISS
                    number = int(row.key[5:])
                    assert value["text"] == ("x" * 100 if row.key[:5] == "small" else str(number) * 70_000)
            state = store.load_state("state")
            assert state is not None and set(state["list"]) == {state["i"]}
            assert list((folder / "tmp").iterdir()) == []


def test_eviction_in_one_process_never_takes_what_another_has_just_shared(tmp_path: Path) -> None:
    evicter = python(
        """
        s = Store(sys.argv[1], limit_bytes=10**9)
        print("ready", flush=True)
        while True:
            s.gc(0)
        """,
        tmp_path / "s",
    )
    damage: list[Any] = []
    with Store(tmp_path / "s", limit_bytes=GB, on_damage=lambda *a: damage.append(a)) as store:
        assert line(evicter) == "ready"
        until, found = time.monotonic() + 1.5, 0
        while time.monotonic() < until:
            store.put("a", big(1))
            store.put_bytes("b", b"x" * BIG, "image/png")
            found += store.get("a") is not MISS
            found += bool(store.copy_to("b", tmp_path / "out"))
        kill(evicter)
        assert found
        assert damage == []
        assert store.verify().damaged == ()


def test_threads_may_share_a_store(store: Store) -> None:
    import threading

    failures: list[BaseException] = []

    def work(name: int) -> None:
        try:
            for i in range(100):
                store.put(key(i), i)
                store.put(f"{name}-{i}", i)
                assert store.get(key(i)) == i
                if i % 20 == 0:
                    store.put(f"big{i}", big(i))
                    assert store.get(f"big{i}").tensors["w"][0] == i
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert store.stats().entries == 505


# --- bounds ---


def test_the_least_recently_used_go_first(tmp_path: Path) -> None:
    with Store(tmp_path / "s", limit_bytes=GB) as store:
        for number in range(6):
            store.put(key(number), big(number))
        store.get(key(0))
        store.get(key(1))
        report = store.gc(int(3.5 * BIG))
        assert report.entries == 3 and report.kept <= 3.5 * BIG
        assert store.contains_many(map(key, range(6))) == {key(0), key(1), key(5)}
        assert len(blobs(store)) == 3


def test_the_store_bounds_itself_while_it_is_written(tmp_path: Path) -> None:
    with Store(tmp_path / "s", limit_bytes=5 * BIG) as store:
        for number in range(20):
            store.put(key(number), big(number))
            assert sum(path.stat().st_size for path in blobs(store)) <= 5 * BIG
        assert store.get(key(19)) is not MISS
        for number in range(1000):
            store.put(f"small{number}", "x" * 1000)
        store.flush()
        assert store.stats().bytes <= 5 * BIG


def test_the_index_shrinks_with_what_is_evicted(store: Store) -> None:
    for number in range(200):
        store.put(key(number), "x" * 50_000)
    store.flush()
    store.gc(0)
    assert (store.folder / "index.sqlite").stat().st_size < 500_000


def test_evicting_one_of_two_sharers_keeps_the_blob(store: Store) -> None:
    store.put("a", big(1))
    store.put("filler", big(2))
    store.put("b", big(1))
    store.gc(int(1.5 * BIG))
    assert store.contains_many(["a", "b", "filler"]) == {"b"}
    assert store.get("b").tensors["w"][0] == 1


def test_pinned_keys_stay_even_those_put_later(store: Store) -> None:
    store.put("a", big(1))
    with store.pin(["a", "later"]):
        store.put("b", big(2))
        store.put("later", 3)
        store.gc(0)
        assert store.contains_many(["a", "b", "later"]) == {"a", "later"}
    store.gc(0)
    assert store.contains_many(["a", "later"]) == set()


def test_pins_hold_in_other_processes_until_the_pinning_one_dies(store: Store) -> None:
    store.put("a", big(1))
    store.flush()
    holder = python(
        """
        s = Store(sys.argv[1], limit_bytes=10**9)
        with s.pin(["a"]):
            print("pinned", flush=True)
            time.sleep(60)
        """,
        store.folder,
    )
    assert line(holder) == "pinned"
    store.gc(0)
    assert store.contains_many(["a"]) == {"a"}
    holder.send_signal(signal.SIGKILL)
    time.sleep(0.2)  # dead, though nobody has waited for it yet
    store.gc(0)
    assert store.contains_many(["a"]) == set()
    kill(holder)


def test_a_pin_of_a_reused_process_id_is_stale(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.put("a", 1)
    with store.pin(["a"]):
        monkeypatch.setattr("mezzotint.index.process_start", lambda pid: "another time")
        store.gc(0)
    assert store.contains_many(["a"]) == set()


def test_a_store_full_of_pinned_values_still_takes_more(tmp_path: Path) -> None:
    with Store(tmp_path / "s", limit_bytes=BIG) as store, store.pin(map(key, range(10))):
        for number in range(10):
            store.put(key(number), big(number))
        assert len(store.contains_many(map(key, range(10)))) == 10


def test_young_states_outlive_values_and_old_ones_do_not(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    with monkeypatch.context() as past:
        past.setattr(store_module.time, "time", lambda: now - 8 * 86400)
        store.save_state("old", {"x": torch.ones(BIG)})
    with monkeypatch.context() as past:
        past.setattr(store_module.time, "time", lambda: now - 3600)
        store.save_state("young", {"x": torch.zeros(BIG)})
    store.put("value", big(1))
    store.gc(4 * BIG + 1000)
    assert [row.key for row in store.ls()] == ["young"]
    store.gc(0)
    assert store.ls() == []


def test_clear_leaves_nothing_but_what_is_pinned(store: Store, damage: list[Any]) -> None:
    store.put("a", big(1))
    store.put("b", big(2))
    store.remember_file("/a", "1", "d")
    flip(blobs(store)[0])
    store.verify()
    with store.pin(["pinned"]):
        store.put("pinned", 1)
        store.clear()
    assert [row.key for row in store.ls()] == ["pinned"]
    assert blobs(store) == quarantined(store) == []
    assert store.recall_file("/a", "1") is None


# --- disks ---


@contextlib.contextmanager
def mounted(folder: Path, options: str) -> Iterator[Path]:
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True)
    if made.returncode:
        pytest.skip("this user may not mount a tmpfs")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_disk_is_a_clear_error_and_leaves_no_files(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "size=2m") as disk:
        store = Store(disk / "s", limit_bytes=GB)
        store.put("first", big(1))
        wanted = Weights({"w": torch.ones(1_000_000)})
        message = rf"cannot write \d{{7}} bytes to the store {disk}/s \(\d+ bytes free\)"
        with pytest.raises(StoreError, match=message):
            store.put("too large", wanted)
        with pytest.raises(StoreError, match="bytes free"):
            store.save_state("too large", {"w": wanted})
        with pytest.raises(StoreError, match="bytes free"):
            store.put_bytes("too large", b"x" * 4_000_000, "video/mp4")
        assert list((store.folder / "tmp").iterdir()) == [] and len(blobs(store)) == 1
        assert store.contains_many(["too large"]) == set()
        assert store.get("first").tensors["w"][0] == 1
        store.close()


def test_a_disk_that_fills_with_small_values_is_a_clear_error_and_keeps_what_was_committed(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "size=2m") as disk:
        store = Store(disk / "s", limit_bytes=GB)
        store.put("first", "x")
        store.flush()
        with pytest.raises(StoreError, match=r"index of the store .*\(\d+ bytes to write, \d+ bytes free.*full"):
            for number in range(100):
                store.put(key(number), "x" * 60_000)
                store.flush()
        assert store.get("first") == "x"
        assert store.verify().damaged == ()
        store.close()


def test_an_error_of_the_batch_in_the_background_is_raised_by_the_next_call(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "size=1m") as disk:
        store = Store(disk / "s", limit_bytes=GB)
        store.flush()
        for number in range(30):
            store.put(key(number), "x" * 60_000)
        time.sleep(1.0)
        with pytest.raises(StoreError, match="full"):
            store.put("next", 1)
        store.close()


def test_a_folder_that_cannot_be_written_is_refused_at_opening(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError, match=r"cannot use the folder .*file.* as a store"):
        Store(tmp_path / "file", limit_bytes=GB)
    with mounted(tmp_path / "disk", "size=1m") as disk:
        Store(disk / "s", limit_bytes=GB).close()
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        with pytest.raises(StoreError, match=r"cannot use the folder .*Read-only"):
            Store(disk / "s", limit_bytes=GB)
        with pytest.raises(StoreError, match=r"cannot use the folder .*Read-only"):
            Store(disk / "new", limit_bytes=GB)


# --- the user's store ---


def test_the_default_store_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEZZOTINT_CACHE", str(tmp_path / "mine"))
    monkeypatch.setenv("MEZZOTINT_CACHE_LIMIT", "1.5 GiB")
    with Store.open_default() as store:
        assert (store.folder, store.limit_bytes) == (tmp_path / "mine", 3 * 2**29)
    monkeypatch.delenv("MEZZOTINT_CACHE")
    monkeypatch.delenv("MEZZOTINT_CACHE_LIMIT")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    with Store.open_default() as store:
        assert store.folder.name == "mezzotint" and store.limit_bytes == 20 * GB


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("1000", 1000), ("20GB", 20 * GB), ("512 MiB", 2**29), ("1.5k", 1500), ("2TB", 2000 * GB)],
)
def test_sizes_are_read_with_their_units(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "lots", "-1GB", "1 PB", "1e9", "GB"])
def test_what_is_no_size_is_a_user_error_that_names_the_setting(text: str) -> None:
    with pytest.raises(UserError, match="MEZZOTINT_CACHE_LIMIT"):
        parse_size(text, "MEZZOTINT_CACHE_LIMIT")


# --- speed ---


def test_ten_thousand_small_values_are_put_and_looked_up_quickly(store: Store) -> None:
    keys = [key(number) for number in range(10_000)]
    began = time.process_time()
    for number, name in enumerate(keys):
        store.put(name, number)
    store.flush()
    put = time.process_time() - began
    began = time.process_time()
    found = store.contains_many(keys)
    looked_up = time.process_time() - began
    assert len(found) == 10_000
    # Measured 0.5 s and 0.08 s; four times that is a change of the algorithm, not of the machine.
    assert put < 2.0 and looked_up < 0.4
