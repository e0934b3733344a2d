"""Ctrl-C, SIGTERM, time-outs and kill -9, each on a real process."""

from __future__ import annotations

import json
import signal
import time

import pytest


@pytest.fixture
def slow_graph(write):
    return write(
        {
            "quick": {"use": "arith.add@1", "inputs": {"a": 1}},
            "slow": {"use": "arith.slow@1", "inputs": {"value": {"ref": "quick"}, "steps": 100, "pause": 0.02}},
        }
    )


def wait_for(log, line, seconds=60.0):
    deadline = time.monotonic() + seconds
    while line not in log():
        assert time.monotonic() < deadline, f"never saw {line!r}"
        time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_signal_stops_at_the_next_step_and_keeps_what_is_finished(start, cli, log, slow_graph, place, number):
    process = start("run", slow_graph)
    wait_for(log, "step 3")
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "stopping at the next step" in err and "the same command goes on from there" in err
    assert out == "" and "Traceback" not in err
    assert list((place / "outputs").iterdir()) == []
    reached = max(int(line.removeprefix("step ")) for line in log() if line.startswith("step"))
    again = start("run", slow_graph)
    wait_for(log, f"slow from {reached}")
    again.kill()
    assert log().count("add 1 0") == 1


def test_a_second_signal_ends_the_process_at_once(start, log, write):
    graph = write({"s": {"use": "arith.stubborn@1", "inputs": {"value": 1}}})
    process = start("run", graph)
    wait_for(log, "stubborn")
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=10) == 130


def test_a_node_that_never_ends_is_named_and_the_process_exits(start, log, write, place):
    graph = write(
        {
            "good": {"use": "arith.add@1", "inputs": {"a": 1}},
            "endless": {"use": "arith.stubborn@1", "inputs": {"value": 1}},
        },
        outputs={"good": {"ref": "good"}, "endless": {"ref": "endless"}},
    )
    process = start("run", graph, "--timeout", "0.2")
    out, err = process.communicate(timeout=40)
    assert process.returncode == 1
    assert "node 'endless'" in err and "out of time" in err and "Traceback" not in err
    (file,) = (place / "outputs").iterdir()
    assert json.loads(file.read_text()) == 1.0 and str(file.name) in out
    (record,) = (place / "runs").glob("*/run.json")
    assert json.loads(record.read_text())["status"] == "failed"


def test_a_node_that_minds_its_time_out_is_stopped(cli, write):
    graph = write({"slow": {"use": "arith.slow@1", "inputs": {"value": 1, "steps": 1000, "pause": 0.01}}})
    done = cli("run", graph, "--timeout", "0.1")
    assert done.code == 1 and "node 'slow' ran out of time" in done.err


def test_a_killed_run_goes_on_from_its_last_saved_step(start, cli, log, slow_graph):
    process = start("run", slow_graph)
    wait_for(log, "step 5")
    process.kill()
    process.wait()
    done = start("run", slow_graph)
    _, err = done.communicate(timeout=60)
    assert done.returncode == 0, err
    resumed = [int(line.removeprefix("slow from ")) for line in log() if line.startswith("slow from")]
    assert resumed[0] == 0 and resumed[1] >= 5
    assert log().count("step 1") == 1
