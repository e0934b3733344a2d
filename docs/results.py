"""Makes docs/results.md: the leaderboards' graphs with many captions, as tables beside the survey's.

`python docs/results.py` runs graphs/evaluation/leaderboard.json for one object per caption and for two, and
video_leaderboard.json beside it; --count and --clips say for how many captions. What was measured is kept in
docs/results.json and docs/video_results.json, of which --page writes the page again. Steps that are in the user's
store do not run again: a system that changed is measured at its own cost.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent
GRAPH = DOCS.parent / "graphs" / "evaluation" / "leaderboard.json"
FACTS = DOCS / "results.json"
VIDEO_GRAPH = GRAPH.with_name("video_leaderboard.json")
VIDEO_FACTS = DOCS / "video_results.json"
TITLES = {1: "One object", 2: "Two objects"}
# Fréchet inception distances on MS-COCO at 256 pixels, 30,000 captions, as the survey's table 1 gives them.
SURVEY = {"LAFITE": 26.94, "DALL-E": 17.89, "LDM": 12.63, "GLIDE": 12.24, "DALL-E 2": 10.39, "Imagen": 7.27}
ABOUT = """# Results

Our own table of text-to-image systems, in the manner of the survey's table 1. Every system is the one that is
bundled here, a few megabytes trained on two processor cores in minutes, run by its own graph on the same captions
of the small world. The captions are of combinations that none of the systems was trained on.

```console
$ mezzotint run graphs/evaluation/leaderboard.json --count {count}
```

`make results` runs it and fills the tables, each in one run. GLIDE, Imagen and DALL-E 2's decoder were trained on
pictures of one object.

- **obeyed**: per cent of the pictures that are right in everything the caption says, by the small world's checker,
  which reads pixels, and the 95 % bootstrap interval. The columns after it are the same by aspect.
- **difference**: to the share that latent diffusion obeys, in points, resampled in pairs over the captions; `*`
  where 0 lies outside of the 95 % interval.
- **CLIP score**: by the bundled CLIP, which was trained on captions of the training split alone.
- **FID**, **KID**: Fréchet and kernel distances to {reference} of the world's own pictures, in features of the
  bundled denoiser's middle block. That network is a part of "latent diffusion", which may please it. "The world
  itself" is other pictures of the world: what a perfect system would get.
"""
SURVEYS = """## The survey's table 1

Zero-shot FID on MS-COCO at 256 pixels, in Inception's features, of the published systems:

{rows}

**The two do not compare.** Theirs are of photographs, of models a thousand times as large, in the features of
another network; ours are of drawn shapes. Only the order could be set beside the order, and even that says little:
our systems share parts, and each had as many minutes of training as could be spared.
"""

VIDEO = """## Video, {count} captions

Our own table of text-to-video systems, of captions of one object whose combination of colour, shape and motion
none of the systems was trained on.

```console
$ mezzotint run graphs/evaluation/video_leaderboard.json --count {count} --steps {steps}
```

- **obeyed**: per cent of the clips that are right in everything, by the checker of clips, and the 95 % bootstrap
  interval. **motion**, **object** (shape, colour and number), **ground**, **layout** and **speed** are the same by
  aspect, **steady** the share of frames that go with the others of their clip.
- **consistency**: mean cosine of neighbouring frames in the bundled CLIP, in per cent. What stands still has the
  highest.
- **FVD**, **KVD**: Fréchet and kernel distances to {reference} of the world's own clips, in features of
  [bundled:video_features](models/video_features.md); **IS**: the Inception score of its classes of motion, between
  1 and 11. All three depend on how many clips there are: compare them within the table.

"The world itself" is what a perfect system would get, "a still picture" what the bundled model of pictures gets,
every frame being the same.

{rows}
"""
SURVEYS_VIDEO = """## The survey's table 2

It compares video systems by Inception score and FVD on UCF-101 and SkyTimelapse. The page that holds it is
**missing** from the copy of the survey that this project has, so none of its figures stand here. The table of our
own clips above is in its place, and **would not compare** with it: other data, networks a thousand times as small,
and other features than those of I3D and C3D.
"""


def measure(count: int, things: int) -> dict[str, Any]:
    """The leaderboard's table for so many captions."""
    from mezzotint.api import load
    from mezzotint.runtime import default_runtime

    made = load(GRAPH, runtime=default_runtime()).run(count=count, things=things)
    return {"count": count, "things": things, **made.outputs["table"].data}


def measure_video(count: int, steps: int) -> dict[str, Any]:
    """The video leaderboard's table for so many captions."""
    from mezzotint.api import load
    from mezzotint.runtime import default_runtime

    made = load(VIDEO_GRAPH, runtime=default_runtime()).run(count=count, steps=steps)
    return {"count": count, "steps": steps, **made.outputs["table"].data}


def page(facts: Sequence[Mapping[str, Any]], video: Mapping[str, Any]) -> str:
    inputs = json.loads(GRAPH.read_text("utf-8"))["inputs"]
    parts = [ABOUT.format(count=facts[0]["count"], reference=inputs["reference_count"]["default"])]
    for each in facts:
        parts.append(f"## {TITLES[each['things']]}, {each['count']} captions\n\n{system_table(each['rows'])}\n")
    rows = [[name, f"{figure:.2f}"] for name, figure in SURVEY.items()]
    parts.append(SURVEYS.format(rows=table(["system", "FID"], rows)))
    return "\n".join([*parts, video_part(video), SURVEYS_VIDEO])


def video_part(video: Mapping[str, Any]) -> str:
    reference = json.loads(VIDEO_GRAPH.read_text("utf-8"))["inputs"]["reference_count"]["default"]
    told = {"count": video["count"], "steps": video["steps"], "reference": reference}
    return VIDEO.format(**told, rows=video_table(video["rows"]))


def video_table(rows: Sequence[Mapping[str, Any]]) -> str:
    aspects = ("motion", "object", "background", "layout", "speed", "steady")
    called = [name.replace("background", "ground") for name in aspects]
    columns = ["system", "obeyed", *called, "consistency", "FVD", "KVD", "IS"]
    return table(columns, [_video_cells(row, aspects) for row in rows])


def _video_cells(row: Mapping[str, Any], aspects: Sequence[str]) -> list[str]:
    low, high = 100 * row["share_low"], 100 * row["share_high"]
    return [
        row["label"],
        f"{row['accuracy']:.0f} ({low:.0f} to {high:.0f})",
        *("" if row[aspect] is None else f"{row[aspect]:.0f}" for aspect in aspects),
        f"{row['consistency']:.1f}",
        f"{row['fvd']:.1f}",
        f"{row['kvd']:.2f}",
        f"{row['inception_score']:.1f}",
    ]


def system_table(rows: Sequence[Mapping[str, Any]]) -> str:
    aspects = [name for name in ("background", "colour", "shape", "size", "place", "relation") if name in rows[0]]
    columns = ["system", "obeyed", *aspects, "difference", "CLIP score", "FID", "KID"]
    return table(columns, [_cells(row, aspects) for row in rows])


def _cells(row: Mapping[str, Any], aspects: Sequence[str]) -> list[str]:
    low, high = 100 * row["share_low"], 100 * row["share_high"]
    star = "\\*" if row["significant"] else ""
    return [
        row["label"],
        f"{row['accuracy']:.0f} ({low:.0f} to {high:.0f})",
        *("" if row[aspect] is None else f"{row[aspect]:.0f}" for aspect in aspects),
        f"{100 * row['versus']:+.0f}{star}",
        f"{row['clip_score']:.1f}",
        f"{row['fid']:.1f}",
        f"{row['kid']:.3f}",
    ]


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="Make docs/results.md.")
    parser.add_argument("--count", type=int, default=100, help="captions in each table")
    parser.add_argument(
        "--things", type=int, nargs="+", choices=TITLES, default=[*TITLES], help="objects per caption"
    )
    parser.add_argument("--clips", type=int, default=48, help="captions in the table of video")
    parser.add_argument("--steps", type=int, default=20, help="sampling steps of the systems of video")
    parser.add_argument("--only", choices=["pictures", "video"], help="measure these alone")
    parser.add_argument("--page", action="store_true", help="run nothing, only write the page again")
    given = parser.parse_args()
    facts = json.loads(FACTS.read_text("utf-8")) if FACTS.exists() else []
    for things in [] if given.page or given.only == "video" else given.things:
        others = [each for each in facts if each["things"] != things]
        facts = sorted([*others, measure(given.count, things)], key=lambda each: each["things"])
        FACTS.write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", "utf-8")
    if not given.page and given.only != "pictures":
        found = json.dumps(measure_video(given.clips, given.steps), indent=1, ensure_ascii=False)
        VIDEO_FACTS.write_text(found + "\n", "utf-8")
    video = json.loads(VIDEO_FACTS.read_text("utf-8"))
    (DOCS / "results.md").write_text(page(facts, video), "utf-8")


if __name__ == "__main__":
    main()
