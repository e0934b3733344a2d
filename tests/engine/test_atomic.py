"""A file written atomically exists whole or not at all, whatever happens to its writer."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mezzotint.atomic import open_atomic, write_bytes


def test_a_file_is_written_and_replaced(tmp_path: Path) -> None:
    write_bytes(tmp_path / "f", b"one")
    write_bytes(str(tmp_path / "f"), b"two")
    assert (tmp_path / "f").read_bytes() == b"two"
    assert os.listdir(tmp_path) == ["f"]


def test_an_error_in_the_block_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    write_bytes(tmp_path / "f", b"old")
    with pytest.raises(KeyboardInterrupt), open_atomic(tmp_path / "f") as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert (tmp_path / "f").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["f"]


def test_the_name_appears_only_at_the_end(tmp_path: Path) -> None:
    with open_atomic(tmp_path / "f") as file:
        file.write(b"x" * 100_000)
        file.flush()
        assert not (tmp_path / "f").exists()
    assert (tmp_path / "f").stat().st_size == 100_000


def test_the_mode_follows_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        write_bytes(tmp_path / "f", b"")
    finally:
        os.umask(old)
    assert (tmp_path / "f").stat().st_mode & 0o777 == 0o640


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    # A limit on the size of files fails in the same place as a full disk, and needs no rights.
    program = (
        "import resource, signal, sys\nfrom mezzotint.atomic import write_bytes\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "try:\n    write_bytes(sys.argv[1], b'x' * 1_000_000)\nexcept OSError:\n    sys.exit(7)"
    )
    write_bytes(tmp_path / "f", b"old")
    assert subprocess.run([sys.executable, "-c", program, tmp_path / "f"]).returncode == 7
    assert (tmp_path / "f").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["f"]


def test_a_kill_in_the_middle_leaves_one_whole_file_under_the_name(tmp_path: Path) -> None:
    program = (
        "import sys, itertools\nfrom mezzotint.atomic import write_bytes\n"
        "for i in itertools.count():\n"
        "    write_bytes(sys.argv[1], bytes([i % 256]) * 3_000_000)\n"
        "    print('written', flush=True)"
    )
    for number in range(5):
        writer = subprocess.Popen([sys.executable, "-c", program, tmp_path / "f"], stdout=subprocess.PIPE)
        assert writer.stdout is not None and writer.stdout.readline()
        time.sleep(0.013 * number)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        data = (tmp_path / "f").read_bytes()
        assert len(data) == 3_000_000 and len(set(data)) == 1


def test_a_folder_that_is_not_there_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_bytes(tmp_path / "absent" / "f", b"")
