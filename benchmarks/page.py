"""docs/benchmarks.md, made of what `python -m benchmarks` wrote: `python -m benchmarks.page JSON …`."""

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

OUT = Path("docs/benchmarks.md")
IN_THE_WAY = Path(__file__).parent / "in_the_way.md"
"""Written by hand after a run: why goals are not met."""
HEADINGS = {
    "startup": "Start-up",
    "training": "Training",
    "agreement": "The same training",
    "decoding": "Decoding",
    "faster": "Decoding, beside faster-whisper",
    "mixed": "Mixed languages",
    "adapters": "Many languages",
    "methods": "Ways to send each row through its own adapter",
    "context": "Short windows",
    "bits": "Few bits a weight",
    "floor": "The arithmetic floor",
    "hotspots": "Where the time goes, before and after",
}

Json = Mapping[str, Any]


def page(results: Sequence[Json]) -> str:
    """The page about one or several machines."""
    parts = [
        "# Benchmarks\n\n"
        "Made by `python -m benchmarks.page` of the JSON that `python -m benchmarks` (`make bench`) and "
        "`benchmarks/gpu.sh` write.\nA ratio says how many times faster ours is: the median of rounds in "
        "which both sides took turns, with\nthe lowest and the highest. Weights are random in real "
        "geometries, speech is noise of the lengths of FLEURS\n(3 to 25 s, 12 s in the mean)."
    ]
    parts += [section(result) for result in results]
    return "\n\n".join([*parts, IN_THE_WAY.read_text(encoding="utf-8").strip()]) + "\n"


def section(result: Json) -> str:
    """One machine."""
    machine = result["machine"]
    title = machine["device"] if machine["device"] != "cpu" else f"{machine['cores']} cores"
    parts = [f"## On {title}", _machine(machine), goals(result["rows"])]
    topics = dict.fromkeys(row["topic"] for row in result["rows"])
    parts += [_topic(topic, [row for row in result["rows"] if row["topic"] == topic]) for topic in topics]
    if result["skipped"]:
        parts.append("\n".join(f"* Not measured: {name} ({why})" for name, why in result["skipped"].items()))
    if all(topic in result["seconds"] for topic in topics):
        minutes = sum(result["seconds"].values()) / 60
        parts.append(f"The run took {minutes:.0f} minutes{' (--quick)' if result['quick'] else ''}.")
    else:
        parts.append("The run was stopped before its end.")
    return "\n\n".join(parts)


def goals(rows: Iterable[Json]) -> str:
    """The table of the rows that have a goal."""
    lines = [
        [row["name"], figure(row), _goal(row), "yes" if row["met"] else "**no**"]
        for row in rows
        if row["goal"] is not None
    ]
    return table(["what", "measured", "goal", "met"], lines)


def figure(row: Json) -> str:
    """What a row says, with its range: a ratio, a difference, or a time."""
    shares = row["name"].endswith("share of the floor")
    for key, form in (("ratio", _percent if shares else _ratio), ("difference", _plain), ("seconds", _time)):
        if row[key] is not None:
            spread = "" if row["low"] is None else f" ({form(row['low'])} to {form(row['high'])})"
            return form(row[key]) + spread
    return "–"


def table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)


def _topic(topic: str, rows: Sequence[Json]) -> str:
    lines = [[row["name"], figure(row), _figures(row["figures"])] for row in rows]
    notes = dict.fromkeys(note for row in rows for note in row["notes"])
    parts = [f"### {HEADINGS.get(topic, topic)}", table(["what", "measured", "in figures"], lines)]
    return "\n\n".join([*parts, *(["\n".join(f"* {note}" for note in notes)] if notes else [])])


def _machine(machine: Json) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    precision = ", ".join(f"{what} in {name}" for what, name in machine["precision"].items())
    return (
        f"{machine['processor']}, {machine['cores']} cores, {machine['threads']} threads, "
        f"{machine['memory_gib']:.0f} GiB; Python {machine['python']}, {versions}; {precision}."
    )


def _goal(row: Json) -> str:
    if row["ratio"] is not None:
        share = row["name"].endswith("share of the floor")
        return f"≥ {_percent(row['goal']) if share else _ratio(row['goal'])}"
    form = _time if row["seconds"] is not None else _plain
    return f"≤ {form(row['goal'])}"


def _figures(figures: Mapping[str, float]) -> str:
    """Figures by name, the unit at the end of the name: `theirs_peak_mib` is `theirs peak 812 MiB`."""
    return "; ".join(_named(name, value) for name, value in figures.items())


def _named(name: str, value: float) -> str:
    units = {
        "audio_s_per_s": "s of audio/s",
        "gflop_per_s": "GFLOP/s",
        "percent": "%",
        "mib": "MiB",
        "ms": "ms",
        "s": "s",
        "g": "G",
    }
    for ending, unit in units.items():
        if name.endswith(f"_{ending}"):
            return f"{name.removesuffix(f'_{ending}').replace('_', ' ')} {_number(value)} {unit}"
    return f"{name.replace('_', ' ')} {_number(value)}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _ratio(value: float) -> str:
    return f"{value:.2f}×"


def _percent(value: float) -> str:
    return f"{100 * value:.0f} %"


def _plain(value: float) -> str:
    return f"{value:.3g}"


def _time(value: float) -> str:
    return f"{1e3 * value:.0f} ms"


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.page", description=__doc__)
    parser.add_argument("results", nargs="+", type=Path, metavar="JSON")
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    results = [json.loads(path.read_text(encoding="utf-8")) for path in arguments.results]
    arguments.out.write_text(page(results), encoding="utf-8")


if __name__ == "__main__":
    main()
