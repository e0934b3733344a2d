"""A path written in a graph stays in the graph's folder; one that the caller gave may lie anywhere."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mezzotint.errors import UserError
from mezzotint.paths import FileAccess, bundled_name, bundled_path


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A folder with a picture, beside another one with a secret, and links between them."""
    here, other = tmp_path / "here", tmp_path / "other"
    (here / "sub").mkdir(parents=True)
    other.mkdir()
    (here / "a.png").touch()
    (here / "sub" / "b.png").touch()
    (other / "secret.png").touch()
    (here / "link.png").symlink_to(other / "secret.png")
    (here / "door").symlink_to(other)
    (here / "inner.png").symlink_to(here / "sub" / "b.png")
    (here / "loop").symlink_to(here / "loop")
    (tmp_path / "here2").mkdir()
    (tmp_path / "here2" / "c.png").touch()
    return here


@pytest.mark.parametrize(
    "text", ["a.png", "sub/b.png", "./a.png", "sub/../a.png", "inner.png", "../here/a.png", "sub"]
)
def test_what_lies_in_the_graphs_folder_may_be_read(here: Path, text: str) -> None:
    assert FileAccess(here).resolve(text).is_relative_to(here.resolve())


@pytest.mark.parametrize(
    "text",
    [
        "../other/secret.png",
        "link.png",
        "door/secret.png",
        "/etc/passwd",
        "../here2/c.png",
        "..",
        "sub/../../x",
        "/",
    ],
)
def test_a_written_path_that_leaves_the_folder_is_refused_links_followed(here: Path, text: str) -> None:
    with pytest.raises(UserError, match=r"leaves the folder .*; allow its folder with --allow"):
        FileAccess(here).resolve(text)


def test_a_folder_that_the_caller_allows_is_open_too(here: Path) -> None:
    access = FileAccess(here, (here.parent / "other",))
    assert access.resolve("link.png").name == "secret.png"
    assert access.resolve("../other/secret.png").name == "secret.png"
    with pytest.raises(UserError, match="leaves the folder"):
        access.resolve("../here2/c.png")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no.png", "there is no file"),
        ("loop", "cannot be followed|there is no file"),
        ("x" * 5000, "cannot be"),
        ("a\0.png", "NUL"),
        ("", "cannot be empty"),
        ("\ud800.png", "cannot be followed"),
        ("bundled:graphs/\ud800", "cannot be followed"),
        ("bundled:graphs/a\0", "NUL"),
        ("bundled:graphs/no.json", "there is no bundled graph"),
        ("bundled:graphs/../pyproject.toml", "there is no bundled graph"),
    ],
    ids=range(10),
)
def test_a_path_that_is_none_gets_one_message_whoever_gave_it(here: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        FileAccess(here).resolve(text)
    with pytest.raises(UserError, match=message):
        FileAccess.resolve_trusted(str(here / text) if text in ("no.png", "loop") else text)


def test_a_graph_without_a_folder_reads_nothing_of_its_own(here: Path) -> None:
    with pytest.raises(UserError, match="a graph that has no folder; give it as an input"):
        FileAccess(None).resolve(str(here / "a.png"))
    assert FileAccess(None, (here,)).resolve("a.png") == here / "a.png"


def test_the_callers_path_is_relative_to_the_working_folder(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(here / "sub")
    assert FileAccess.resolve_trusted("../../other/secret.png").name == "secret.png"
    monkeypatch.setenv("HOME", str(here))
    assert FileAccess.resolve_trusted("~/a.png") == here / "a.png"


def test_a_home_that_is_not_there_is_an_error_and_no_crash() -> None:
    with pytest.raises(UserError, match=r"cannot be followed|no file"):
        FileAccess.resolve_trusted("~nobody-of-this-name/a.png")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_entered_is_named(here: Path) -> None:
    (here / "sub").chmod(0)
    try:
        with pytest.raises(UserError, match="cannot be read"):
            FileAccess(here).resolve("sub/b.png")
    finally:
        (here / "sub").chmod(0o755)


def test_a_bundled_graph_has_the_same_name_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "graphs"
    root.mkdir()
    (root / "a.json").touch()
    monkeypatch.setattr("mezzotint.paths._graph_roots", lambda: [root])
    path = bundled_path("bundled:graphs/a.json")
    assert path == root.resolve() / "a.json"
    assert bundled_name(path) == "bundled:graphs/a.json"
    assert bundled_name(tmp_path) is None
    assert bundled_path("a.json") is None
    assert FileAccess(None).resolve("bundled:graphs/a.json") == path
