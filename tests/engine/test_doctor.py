"""`examine` finds what is wrong, and a broken check stops no other."""

from __future__ import annotations

import pytest

from mezzotint import doctor


@pytest.fixture
def states(monkeypatch, tmp_path):
    monkeypatch.setenv("MEZZOTINT_CACHE", str(tmp_path / "cache"))

    def call():
        found = {}
        for finding in doctor.examine():
            found.setdefault(finding.what, []).append(finding)
        return found

    return call


def test_a_sound_installation_has_no_failures_besides_the_weights(states):
    found = states()
    failing = {what for what, each in found.items() if any(f.state == "fail" for f in each)}
    assert failing <= {"weights"}
    assert {"torch", "device", "triton", "plugins", "cache", "graphs"} <= set(found)


def test_a_store_that_cannot_be_used_is_a_failure(states, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("MEZZOTINT_CACHE", str(tmp_path / "file"))
    (finding,) = states()["cache"]
    assert finding.state == "fail" and "MEZZOTINT_CACHE" in finding.message


def test_a_gpu_that_torch_cannot_use_is_a_failure_with_the_way_out(states, monkeypatch):
    monkeypatch.setattr("mezzotint.settings.detect_device", lambda: "cuda")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    (finding,) = states()["device"]
    assert finding.state == "fail" and "MEZZOTINT_DEVICE=cpu" in finding.message


def test_a_broken_plugin_is_a_warning_and_the_others_count(states, monkeypatch, tmp_path):
    (tmp_path / "broken.py").write_text("import no_such_module\n")
    monkeypatch.setenv("MEZZOTINT_PLUGINS", str(tmp_path / "broken.py"))
    warning, summary = states()["plugins"]
    assert warning.state == "warn" and "no_such_module" in warning.message
    assert summary.state == "ok"


def test_a_check_that_breaks_is_a_finding(states, monkeypatch):
    def boom():
        raise RuntimeError("boom")
        yield

    monkeypatch.setitem(doctor._CHECKS, "torch", boom)
    found = states()
    assert found["torch"][0].state == "fail" and "boom" in found["torch"][0].message
    assert "cache" in found


def test_weights_that_are_pointers_of_git_lfs_are_a_failure(states, monkeypatch, tmp_path):
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "unet.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
    monkeypatch.setattr("mezzotint.registry.Registry.resolve_source", lambda self, uri: tmp_path / "w")
    (finding,) = states()["weights"]
    assert finding.state == "fail" and "unet.safetensors is cut short" in finding.message
