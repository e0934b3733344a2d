"""Makes docs/gallery.md: every system's graph is run as shipped, and its picture, time and figure are kept.

`python docs/gallery.py` runs all of docs/gallery.json; with names (`text_to_image/glide`) only those, with
--page none: the page is then made again of what was measured before. An entry says which output is the picture and
which number is printed: "figure", its place in the outputs (`report.validation.-1.loss`), or "shows", pictures of
the small world, whose share that is right by the checker is taken, for the input `prompt` or its own "prompt"; say
is the sentence around it. "inputs" are given to the graph, where its defaults are not what should be shown.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent
GRAPHS = DOCS.parent / "graphs"
MEDIA = DOCS / "media" / "gallery"
FACTS = MEDIA / "measured.json"
WIDTH = 640  # pixels of a picture, at most
SECTIONS = {
    "frameworks": "Families of generators",
    "text_to_image": "Text to image",
    "editing": "Editing",
    "customization": "Customisation",
    "outlook": "Outlook",
    "video": "Video",
}
ABOUT = """# Gallery

Every system is a graph, and runs headless with what ships. Each picture below is what its command writes, smaller
if it is large. Times are seconds of one processor core. `make gallery` makes this page.
"""


def entries() -> dict[str, dict[str, Any]]:
    return json.loads((DOCS / "gallery.json").read_text("utf-8"))


def document(name: str) -> dict[str, Any]:
    return json.loads((GRAPHS / f"{name}.json").read_text("utf-8"))


def measure(name: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    """Run a graph with nothing cached; write its picture; return the time and the sentence."""
    from mezzotint.api import load
    from mezzotint.plugins import load_registry
    from mezzotint.runtime import Runtime
    from mezzotint.settings import Settings
    from mezzotint.store import MemoryStore

    runtime = Runtime(load_registry(), MemoryStore(), Settings(device="cpu"))
    begun = time.process_time()
    outputs = load(GRAPHS / f"{name}.json", runtime=runtime).run(**entry.get("inputs", {})).outputs
    seconds = time.process_time() - begun
    write_picture(outputs[entry["picture"]], MEDIA / f"{name.replace('/', '-')}.webp")
    said = entry["say"].format(figure(name, entry, outputs)) if "say" in entry else ""
    return {"seconds": round(seconds), "figure": said}


def figure(name: str, entry: Mapping[str, Any], outputs: Any) -> float:
    from mezzotint import Report

    if "shows" in entry:
        from mezzotint_smallworld import check

        inputs = {key: value.get("default") for key, value in document(name)["inputs"].items()}
        prompt = entry.get("prompt") or (inputs | entry.get("inputs", {}))["prompt"]
        prompts = prompt if isinstance(prompt, str) or len(prompt) > 1 else prompt[0]
        return check(outputs[entry["shows"]], prompts=prompts).data["score"]["all"]
    output, *keys = entry["figure"].split(".")
    found = outputs[output]
    for key in keys:
        found = found.data if isinstance(found, Report) else found
        found = found[int(key)] if key.lstrip("-").isdigit() else found[key]
    return found


def write_picture(image: Any, path: Path) -> None:
    """A batch becomes a sheet; what is small is enlarged in whole steps, so that its pixels stay sharp."""
    import numpy
    from PIL import Image as Pillow

    from mezzotint_image import contact_sheet

    if len(image.data) > 1:
        image = contact_sheet([image], columns=min(len(image.data), 4), margin=4)
    pixels = image.data[0].mul(255).round().clamp(0, 255).byte().numpy()
    picture = Pillow.fromarray(numpy.ascontiguousarray(pixels[..., :3]))
    if picture.width > WIDTH:
        size = (WIDTH, round(picture.height * WIDTH / picture.width))
        picture = picture.resize(size, Pillow.Resampling.LANCZOS)
    elif picture.width < WIDTH // 2:
        times = min(4, WIDTH // 2 // picture.width)
        picture = picture.resize((picture.width * times, picture.height * times), Pillow.Resampling.NEAREST)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, quality=82, method=6)


def page(facts: Mapping[str, Mapping[str, Any]]) -> str:
    parts, section = [ABOUT], ""
    known = entries()
    for name, entry in known.items():
        if name not in facts:
            continue
        folder = name.partition("/")[0]
        if folder != section:
            parts.append(f"## {SECTIONS[folder]}\n")
            section = folder
        given = entry.get("inputs", {})
        inputs = "".join(f" --{key.replace('_', '-')} {_word(value)}" for key, value in given.items())
        parts.append(
            f"### {entry['title']}\n\n{document(name)['description']}\n\n"
            f"```console\n$ mezzotint run graphs/{name}.json{inputs}\n```\n\n"
            f"![{entry['title']}](media/gallery/{name.replace('/', '-')}.webp)\n\n"
            f"Measured: {_measured(facts[name])}.\n"
        )
    if missing := [known[name]["title"] for name in known if name not in facts]:
        parts.append(f"Without a picture as yet: {', '.join(missing)}.\n")
    return "\n".join(parts)


def _measured(fact: Mapping[str, Any]) -> str:
    return f"{fact['seconds']} s" + (f"; {fact['figure']}" if fact["figure"] else "")


def _word(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if text.replace("_", "").replace(".", "").isalnum() else f"'{text}'"


def main() -> None:
    parser = argparse.ArgumentParser(description="Make docs/gallery.md.")
    parser.add_argument("names", nargs="*", help="graphs to run, as text_to_image/glide; all without")
    parser.add_argument("--page", action="store_true", help="run nothing, only write the page again")
    given = parser.parse_args()
    known = entries()
    if unknown := [name for name in given.names if name not in known]:
        parser.error(f"{unknown[0]} is not in docs/gallery.json, which has {', '.join(known)}")
    facts = json.loads(FACTS.read_text("utf-8")) if FACTS.exists() else {}
    for name in [] if given.page else given.names or known:
        facts[name] = measure(name, known[name])
        print(f"{name}: {_measured(facts[name])}", flush=True)
        # After each one: a long run that is stopped has lost nothing.
        kept = {key: facts[key] for key in known if key in facts}
        FACTS.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n", "utf-8")
        (DOCS / "gallery.md").write_text(page(kept), "utf-8")
    (DOCS / "gallery.md").write_text(page(facts), "utf-8")


if __name__ == "__main__":
    main()
