"""The studies' report, from the files of their runs alone: Markdown, plots, and `studies.json`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from lora_whisper.evaluation.metrics import Rate, Unit
from lora_whisper.evaluation.plots import Line, Marks, curves, side_by_side, standalone
from lora_whisper.files import prepare_folder, write_json, write_text
from lora_whisper.languages import language
from lora_whisper.studies.analysis import (
    Gain,
    Spread,
    System,
    chosen,
    corrected,
    forgetting,
    gains,
    load_system,
    steps_to,
    word_languages,
)
from lora_whisper.studies.arms import CHOICES, CONVOLVED, STUDIES
from lora_whisper.studies.distance import distances
from lora_whisper.studies.grid import Part

Section = tuple[str, dict[str, Any]]
"""Markdown, and the same as JSON."""


def write_report(planned: Sequence[Part], names: Sequence[str], root: Path, out: Path) -> dict[str, Any]:
    """Write studies.md, studies.json and plots to `out`; return what is in the JSON.

    Raises:
        UsageError: a run has not been done.
        MissingExtra: matplotlib or espeak-ng is not installed.
    """
    prepare_folder(out)
    by_name = {part.name: part for part in planned}
    found: dict[str, Any] = {}
    texts = [_introduction(planned)]
    paper = by_name.get("paper")
    writers: dict[str, Callable[[], Section]] = {}
    if paper:
        writers = {
            "multilingual": lambda: multilingual(paper, root / "paper", out),
            "capacity": lambda: beside(
                paper, root / "paper", "capacity", "Rank, layers, and all weights", "full"
            ),
            "expansion": lambda: expansion(paper, root / "paper", out),
            "moe-cost": lambda: beside(
                paper, root / "paper", "moe-cost", "One adapter against a mixture", "scratch"
            ),
        }
    if "similarity" in by_name:
        writers["similarity"] = lambda: starts(by_name["similarity"], root / "similarity", out)
    scaling = [part for part in planned if part.name.startswith("scaling")]
    if scaling:
        writers["scaling"] = lambda: sharing(scaling, root, out)
    for name in names:
        text, found[name] = writers[name]()
        texts.append(text)
    if "expansion" in found:
        found["forgetting"] = found["expansion"]["forgetting"]
    write_text(out / "studies.md", "\n\n".join(texts) + "\n")
    write_json(out / "studies.json", found)
    return found


def multilingual(part: Part, root: Path, out: Path) -> Section:
    """The paper's first claim: adapters for each language against one model for all."""
    tags = tuple(part.bench.base)
    systems = _load(part, root, [arm.name for arm in STUDIES["multilingual"]])
    ours = [systems[name] for name in ("language-lora", "language-lora-conv")]
    others = [one for one in systems.values() if one not in ours]
    found = [gain for one in ours for unit in _units(tags) for gain in _against(one, others, tags, unit)]
    write_text(out / "multilingual.svg", _rates_plot(list(systems.values()), tags))
    text = [
        "## Multilingual recognition",
        _rates_table(list(systems.values()), tags),
        "![rates](multilingual.svg)",
        _gains_table(found),
        _costs_table(list(systems.values())),
    ]
    headline = next(gain for gain in found if gain.baseline == "full")
    return "\n\n".join(text), _headline(headline) | {"gains": [asdict(one) for one in found]}


def expansion(part: Part, root: Path, out: Path) -> Section:
    """The paper's second claim: new languages, and what becomes of the old ones."""
    new, old = tuple(part.bench.new), tuple(part.bench.base)
    systems = _load(part, root, [arm.name for arm in STUDIES["expansion"]])
    arms = {arm.name: arm for arm in STUDIES["expansion"]}
    before = _load(part, root, list(dict.fromkeys(arm.after or "bare" for arm in arms.values())))
    best = chosen([systems[arm.name] for arm in CHOICES], new, "automatic")
    shown = [*systems.values(), best]
    isolated = [systems[name] for name in ("bare-new", "full-new-each", "scratch")]
    baseline = min(isolated, key=lambda one: one.mean(new, "character").mean)
    ours = [systems[name] for name in ("warm-closest", "moe", *CONVOLVED)] + [best]
    found = [gain for unit in _units(new) for gain in gains(ours, baseline, _of_unit(new, unit), unit)]
    found += [
        gain
        for unit in _units(new)
        for gain in _against(best, [one for one in systems.values() if one is not baseline], new, unit)
    ]
    lost = [
        forgetting(one, before[arms[name].after or "bare"], old)
        for name, one in systems.items()
        if set(old) <= set(one.languages)
    ]
    write_text(out / "expansion.svg", _rates_plot(shown, new))
    write_text(out / "expansion-curves.svg", _curves_plot([systems[arm.name] for arm in CHOICES], new))
    rows = [
        [one.system, _spread(one.before), _spread(one.after), f"{one.backward_transfer:+.1f}",
         f"{100 * one.rewritten:.1f} %"]
        for one in lost
    ]  # fmt: skip
    choices = [run.facts["choices"] for run in best.runs]
    text = [
        "## Language expansion",
        _rates_table(shown, new),
        "![rates](expansion.svg)",
        f"Baseline: **{baseline.name}**, the best of those that cannot forget.",
        _gains_table(found),
        "### The old languages afterwards",
        _table(["arm", "CER before", "CER after", "points", "transcripts that changed"], rows),
        "### Steps that a warm start takes",
        "Until the development CER is as low as scratch's lowest, as a share of scratch's steps.",
        _table(
            ["arm", *new],
            [
                [name, *(_steps_share(systems[name], systems["scratch"], tag) for tag in new)]
                for name in ("warm-closest", "warm-random", "warm-farthest")
            ],
        ),
        "### What the automatic choice took",
        _table(["seed", *new], [[str(n), *(one[tag] for tag in new)] for n, one in enumerate(choices)]),
        "![development CER](expansion-curves.svg)",
        _costs_table(list(systems.values())),
    ]
    kept = [one for one in lost if arms[one.system].isolated]
    headline = next(one for one in found if one.system == "automatic" and one.baseline == baseline.name)
    return "\n\n".join(text), _headline(headline) | {
        "gains": [asdict(one) for one in found],
        "forgetting": max(abs(one.after.mean - one.before.mean) for one in kept),
        "rewritten": max(one.rewritten for one in kept),
    }


def beside(part: Part, root: Path, study: str, title: str, baseline: str) -> Section:
    """All arms of a study against one of them: rates, gains, and what each costs."""
    arms = STUDIES[study]
    tags = tuple(part.bench.base if arms[0].learns == "base" else part.bench.new)
    systems = _load(part, root, [arm.name for arm in arms])
    others = [one for name, one in systems.items() if name != baseline]
    found = [
        gain for unit in _units(tags) for gain in gains(others, systems[baseline], _of_unit(tags, unit), unit)
    ]
    text = [f"## {title}", _rates_table(list(systems.values()), tags)]
    text += [_gains_table(found), _costs_table(list(systems.values()))]
    return "\n\n".join(text), {"gains": [asdict(one) for one in found]}


def starts(part: Part, root: Path, out: Path) -> Section:
    """Warm starts from near and far: which similarity foretells what they bring."""
    base, new = tuple(part.bench.base), tuple(part.bench.new)
    systems = _load(part, root, [arm.name for arm in part.arms if arm.learns == "new"])
    scratch, far = systems["scratch"], distances(new, base)
    rows, points = [], []
    found: dict[str, list[Gain]] = {}
    for tag in new:
        heard = scratch.runs[0].facts["likeness"][tag]
        warm = [systems[f"from-{source}"] for source in base]
        found[tag] = gains(warm, scratch, [tag], "character")
        for source, one, gain in zip(base, warm, found[tag], strict=True):
            rate = one.mean([tag], "character")
            rows.append(
                [tag, source, f"{heard[source]:.3f}", f"{far[tag][source]:.2f}", _spread(rate),
                 *_gain_cells(gain), _steps_share(one, scratch, tag)]
            )  # fmt: skip
            points.append((heard[source], far[tag][source], rate.mean))
        rows.append([tag, "scratch", *[""] * 2, _spread(scratch.mean([tag], "character")), *[""] * 3, "1"])
    heard_rank, word_rank = (
        _rank_correlation([p[i] for p in points], [p[2] for p in points]) for i in (0, 1)
    )
    lines = [systems[name] for name in systems]
    write_text(out / "similarity-curves.svg", _curves_plot(lines, new))
    head = ["language", "started from", "similarity", "word distance", "CER", "gain over scratch"]
    head += ["p, bootstrap", "p, matched pairs", "steps to scratch's CER"]
    text = [
        "## Warm starts from near and far",
        "Similarity: language-ID probability. Word distance: LDND of number words (`studies/distance.py`). "
        "Steps: until the development CER is as low as scratch's lowest, as a share of scratch's steps.",
        _table(head, rows),
        f"Rank correlation with the CER reached: similarity {heard_rank:+.2f}, word distance "
        f"{word_rank:+.2f} ({len(points)} pairs).",
        "![development CER](similarity-curves.svg)",
    ]
    return "\n\n".join(text), {
        "gains": {tag: [asdict(one) for one in some] for tag, some in found.items()},
        "rank_correlation": {"similarity": heard_rank, "word_distance": word_rank},
    }


def sharing(parts: Sequence[Part], root: Path, out: Path) -> Section:
    """One adapter for each language against one for each cluster, as languages become more."""
    rows: list[list[str]] = []
    numbers: list[dict[str, Any]] = []
    for part in parts:
        tags = tuple(part.bench.base)
        systems = _load(part, root / part.name, [arm.name for arm in part.arms])
        each = systems["language-lora"]
        others = [one for one in systems.values() if one is not each]
        found = {gain.system: gain for gain in gains(others, each, tags, "character")}
        for name, one in systems.items():
            mean, cost = one.mean(tags, "character"), one.fact("parameters")
            groups = len(one.runs[0].facts["groups"])
            rows.append(
                [str(len(tags)), name, str(groups), _spread(mean), *_gain_cells(found.get(name)),
                 f"{cost.mean / 1e6:.2f}", f"{one.fact('train_s').mean:.0f}"]
            )  # fmt: skip
            numbers.append({"languages": len(tags), "arm": name, "adapters": groups, "cer": mean.mean,
                            "parameters": cost.mean,
                            "gain": asdict(found[name]) if name in found else None})  # fmt: skip
    sizes = sorted({one["languages"] for one in numbers})
    names = list(dict.fromkeys("clusters" if "clusters" in one["arm"] else one["arm"] for one in numbers))
    lines = [Line(name, sizes, [_lowest(numbers, size, name) for size in sizes]) for name in names]
    write_text(out / "scaling.svg", standalone(curves(lines, "CER", percent=True, over="languages")))
    head = ["languages", "arm", "adapters", "mean CER", "gain over an adapter for each"]
    head += ["p, bootstrap", "p, matched pairs", "parameters (M)", "training (s)"]
    text = ["## Sharing adapters within clusters", _table(head, rows), "![CER](scaling.svg)"]
    return "\n\n".join(text), {"points": numbers}


def _gain_cells(gain: Gain | None) -> list[str]:
    """A gain and its p-values; blank for what the others are compared with."""
    if gain is None:
        return [""] * 3
    return [_signed(gain.relative), _p_value(gain.p_adjusted), _p_value(gain.pairs_p_adjusted)]


def _lowest(numbers: Sequence[Mapping[str, Any]], size: int, name: str) -> float:
    return min(
        (one["cer"] for one in numbers if one["languages"] == size and one["arm"].startswith(name)),
        default=float("nan"),
    )


def _load(part: Part, root: Path, names: Sequence[str]) -> dict[str, System]:
    return {name: load_system(root, name, part.bench.seeds) for name in names}


def _introduction(planned: Sequence[Part]) -> str:
    first = planned[0].bench
    return (
        f"# Studies\n\nBackbone `{first.backbone}`, rank {first.rank}, {first.training.epochs} epochs at "
        f"{first.training.learning_rate:g} (all weights: {first.full_learning_rate:g}), "
        f"seeds {', '.join(map(str, first.seeds))}, {first.test or 'all'} test utterances a language. "
        "Rates are corpus-level, mean ± standard deviation over seeds; means over languages weigh languages "
        "alike. Intervals: bootstrap over speakers (utterances where unknown), all seeds together. "
        "p-values: the same bootstrap, and the matched-pairs test on the errors in each utterance, all seeds "
        "and languages together; both Holm-corrected within each comparison. WER and CER are never mixed."
    )


def _units(tags: Sequence[str]) -> list[Unit]:
    return ["character", "word"] if word_languages(tags) else ["character"]


def _of_unit(tags: Sequence[str], unit: Unit) -> Sequence[str]:
    return word_languages(tags) if unit == "word" else tags


def _against(system: System, others: Sequence[System], tags: Sequence[str], unit: Unit) -> list[Gain]:
    """The gain of one system over each of several."""
    scored = _of_unit(tags, unit)
    return corrected([gains([system], other, scored, unit)[0] for other in others])


def _headline(gain: Gain) -> dict[str, Any]:
    return {
        "relative_gain": asdict(gain.relative),
        "system": gain.system,
        "baseline": gain.baseline,
        "p": gain.p_adjusted,
        "unit": "CER" if gain.unit == "character" else "WER",
    }


def _rates_table(systems: Sequence[System], tags: Sequence[str]) -> str:
    words = word_languages(tags)
    units = {tag: language(tag).unit for tag in tags}
    head = ["arm", *(f"{tag} {'WER' if units[tag] == 'word' else 'CER'}" for tag in tags)]
    head += ["mean CER", f"mean WER ({', '.join(words)})", "mean CER, language recognised"]
    rows = []
    for one in systems:
        heard = one.recognised(tags, "character") if set(tags) <= set(one.languages) else None
        cells = [_spread(one.mean([tag], units[tag])) for tag in tags]
        cells += [_spread(one.mean(tags, "character")), _spread(one.mean(words, "word")) if words else "—"]
        rows.append([f"{one.name}: {one.about}", *cells, _spread(heard) if heard else "—"])
    return _table(head, rows)


def _costs_table(systems: Sequence[System]) -> str:
    head = ["arm", "parameters trained (M)", "training (s)", "decoding (s)", "peak memory (MiB)"]
    rows = [
        [
            one.name,
            f"{one.fact('parameters').mean / 1e6:.2f}",
            f"{one.fact('train_s').mean:.0f}",
            f"{one.fact('decode_s').mean:.1f}",
            f"{one.fact('peak_memory_bytes').mean / 2**20:.0f}",
        ]
        for one in systems
    ]
    return _table(head, rows)


def _gains_table(found: Sequence[Gain]) -> str:
    rows = [
        [one.system, one.baseline, "CER" if one.unit == "character" else "WER", *_gain_cells(one)]
        for one in found
    ]
    return _table(["arm", "against", "in", "relative gain", "p, bootstrap", "p, matched pairs"], rows)


def _p_value(p: float) -> str:
    return "< 0.0001" if p < 0.0001 else f"{p:.4f}"


def _signed(rate: Rate) -> str:
    return f"{100 * rate.rate:+.1f} % ({100 * rate.low:+.1f} to {100 * rate.high:+.1f})"


def _rates_plot(systems: Sequence[System], tags: Sequence[str]) -> str:
    """Mean CER of each system with one standard deviation over seeds to each side."""
    marks = []
    for one in systems:
        spread = one.mean(tags, "character")
        low, high = max(0.0, spread.mean - spread.sd), spread.mean + spread.sd
        marks.append(Marks(one.name, [Rate(spread.mean, low, high)]))
    return standalone(side_by_side(marks, "mean CER", "of each arm, with one standard deviation over seeds"))


def _curves_plot(systems: Sequence[System], tags: Sequence[str]) -> str:
    """Mean development CER over the languages and seeds, by epoch."""
    lines = []
    for one in systems:
        courses = [[epoch["cer"] for epoch in run.facts["epochs"][tag]] for run in one.runs for tag in tags]
        means = [fmean(values) for values in zip(*courses, strict=False)]
        lines.append(Line(one.name, list(range(1, len(means) + 1)), means))
    return standalone(curves(lines, "development CER", percent=True))


def _steps_share(warm: System, scratch: System, tag: str) -> str:
    """Mean share of scratch's steps until the warm start is as good, and how often it never is."""
    shares = []
    for run, reference in zip(warm.runs, scratch.runs, strict=True):
        epochs = reference.facts["epochs"][tag]
        best = min(epochs, key=lambda one: one["cer"])
        steps = steps_to(run, tag, best["cer"])
        shares.append(steps / best["step"] if steps else None)
    reached = [share for share in shares if share is not None]
    if not reached:
        return "never"
    missed = (
        f" (never in {len(shares) - len(reached)} of {len(shares)})" if len(reached) < len(shares) else ""
    )
    return f"{fmean(reached):.2f}{missed}"


def _rank_correlation(left: Sequence[float], right: Sequence[float]) -> float:
    """Spearman's, ties in order of appearance."""
    one, other = (np.argsort(np.argsort(values)) - (len(values) - 1) / 2 for values in (left, right))
    return float(one @ other / (one @ one))


def _spread(spread: Spread) -> str:
    return f"{100 * spread.mean:.1f} ± {100 * spread.sd:.1f} %"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
