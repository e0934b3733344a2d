"""docs/gallery.md is what its command makes of the graphs, and has every system."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MEDIA = ROOT / "docs" / "media" / "gallery"
ENTRIES = json.loads((ROOT / "docs" / "gallery.json").read_text("utf-8"))
NO_PICTURE = {"dalle2_embed", "diffuse"}  # give embeddings, or latents


def takes_ports(path: Path) -> bool:
    """Whether a graph is a part of others: nobody can give it such inputs."""
    inputs = json.loads(path.read_text("utf-8")).get("inputs", {})
    return any(value["type"][0].isupper() for value in inputs.values())


SYSTEMS = sorted(
    f"{folder}/{path.stem}"
    for folder in ("frameworks", "text_to_image", "editing", "customization", "video")
    for path in (ROOT / "graphs" / folder).glob("*.json")
    if not takes_ports(path) and path.stem not in NO_PICTURE
)


@pytest.fixture(scope="module")
def gallery():
    spec = importlib.util.spec_from_file_location("gallery", ROOT / "docs" / "gallery.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_system_is_in_the_gallery(name):
    if name not in ENTRIES:
        pytest.fail(
            f'docs/gallery.json has no "{name}". Add its title, which output is the picture, what figure is shown '
            f"and the sentence around it (docs/gallery.py says how), and run `python docs/gallery.py {name}`"
        )


@pytest.mark.parametrize("name", ENTRIES)
def test_an_entry_names_outputs_and_inputs_that_its_graph_has(name):
    doc, entry = json.loads((ROOT / "graphs" / f"{name}.json").read_text("utf-8")), ENTRIES[name]
    assert entry["picture"] in doc["outputs"]
    assert entry.get("inputs", {}).keys() <= doc["inputs"].keys()
    if "say" in entry:
        assert ("figure" in entry) != ("shows" in entry)
        assert entry.get("shows", entry.get("figure", "").partition(".")[0]) in doc["outputs"]
        assert entry["say"].format(1.0) != entry["say"], "the sentence has no place for the figure"


def test_the_page_is_what_the_command_makes_of_the_graphs_and_of_what_was_measured(gallery):
    facts = json.loads((MEDIA / "measured.json").read_text("utf-8"))
    assert (ROOT / "docs" / "gallery.md").read_text("utf-8") == gallery.page(facts), (
        "a graph's description or docs/gallery.json has changed: python docs/gallery.py --page"
    )


def test_every_picture_of_the_page_is_there_and_together_they_are_small():
    measured = json.loads((MEDIA / "measured.json").read_text("utf-8"))
    assert measured.keys() <= ENTRIES.keys()
    assert {path.stem for path in MEDIA.glob("*.webp")} == {name.replace("/", "-") for name in measured}
    assert sum(path.stat().st_size for path in MEDIA.iterdir()) < 2_000_000
