"""Which runs the studies need, at which size, and in which order they are done."""

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from lora_whisper.errors import UsageError
from lora_whisper.files import prepare_folder, write_text
from lora_whisper.studies.arms import STUDIES, Arm, scaling_arms, similarity_arms
from lora_whisper.studies.bench import Bench, prepare_speech
from lora_whisper.studies.runs import Job, run
from lora_whisper.training.trainer import TrainConfig

NAMES = ("multilingual", "capacity", "expansion", "similarity", "moe-cost", "scaling")
BASE, NEW = ("pl", "pt", "it", "zh"), ("da", "el", "cy", "ja")
"""The languages of the paper."""
FIVE_BASES, FAR_AND_NEAR = ("pl", "pt", "it", "zh", "sv"), ("da", "cy")
MANY = tuple(str.split("pl pt it zh da el cy ja en de es fr nl sv nb fi hu ro cs sk sl tr az ru"))
"""Languages of the scaling study; it takes the first 4, 8, …."""


@dataclass(frozen=True)
class Part:
    """A bench and the arms that run on it; `name` is that of its folder."""

    name: str
    bench: Bench
    arms: tuple[Arm, ...]

    def jobs(self, root: Path) -> list[Job]:
        """Every run, those that others go on from first."""
        arms = sorted(self.arms, key=lambda arm: bool(arm.after))
        return [Job(arm, self.bench, root / self.name, seed) for seed in self.bench.seeds for arm in arms]


FOR_MINI = TrainConfig(epochs=6, learning_rate=2e-3, batch_s=20.0)
"""Of adapters, found on development speech of another seed (docs/log.md)."""


@dataclass(frozen=True)
class Size:
    """How large the studies are.

    Attributes:
        base: training utterances of each base language, in their order; uneven, as in MLS and FLEURS. Here
            and below 0 takes all that a manifest has.
        new: the same of the new languages.
        many: training utterances of each language of the scaling study.
        many_test: test utterances there.
        counts: numbers of languages there.
        dev: development utterances of each language.
        test: test utterances of each language.
        seeds: of the runs.
        training: of adapters.
        full_learning_rate: where all weights are trained.
        rank: of the adapters.
    """

    base: tuple[int, ...] = (210, 330, 500, 200)
    new: tuple[int, ...] = (120, 150, 170, 110)
    many: int = 40
    many_test: int = 60
    counts: tuple[int, ...] = (4, 12, 24)
    dev: int = 40
    test: int = 150
    seeds: tuple[int, ...] = (0, 1, 2)
    training: TrainConfig = FOR_MINI
    full_learning_rate: float = 5e-4
    rank: int = 32


FULL = Size()
WHOLE = replace(
    FULL,
    base=(0,) * 4,
    new=(0,) * 4,
    many=0,
    many_test=0,
    dev=0,
    test=0,
    training=TrainConfig(),
    full_learning_rate=1e-5,
)
"""For recordings: all of them, with the paper's training; all weights learn at a tenth of its rate."""
QUICK = Size(
    base=(16, 20, 24, 16),
    new=(16, 16, 16, 16),
    many=12,
    many_test=8,
    counts=(4, 8),
    dev=4,
    test=8,
    seeds=(0,),
    training=replace(FOR_MINI, epochs=2),
)
"""For a look at the whole grid, not for conclusions."""


def parts(names: Sequence[str], size: Size, backbone: str, manifests: tuple[Path, ...] = ()) -> list[Part]:
    """The benches and arms of the studies named.

    Raises:
        UsageError: there is no such study.
    """
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        raise UsageError(f"no study is called {unknown[0]!r}; there are {', '.join(NAMES)} and all")
    common = Bench({}, {}, size.dev, size.test, size.seeds, backbone, manifests, rank=size.rank)
    common = replace(common, training=size.training, full_learning_rate=size.full_learning_rate)
    found = []
    wanted = [arm for name in names for arm in STUDIES.get(name, ())]
    if wanted:
        bench = replace(
            common, base=dict(zip(BASE, size.base, strict=True)), new=dict(zip(NEW, size.new, strict=True))
        )
        found.append(Part("paper", bench, _with_what_they_need(wanted)))
    if "similarity" in names:
        new = dict.fromkeys(FAR_AND_NEAR, min(size.new))
        bench = replace(common, base=dict.fromkeys(FIVE_BASES, min(size.base)), new=new)
        found.append(Part("similarity", bench, _with_what_they_need(similarity_arms(FIVE_BASES))))
    if "scaling" in names:
        for count in size.counts:
            bench = replace(common, base=dict.fromkeys(MANY[:count], size.many), test=size.many_test)
            found.append(Part(f"scaling-{count}", bench, scaling_arms(count)))
    return found


def _with_what_they_need(wanted: Sequence[Arm]) -> tuple[Arm, ...]:
    """The arms, each once, and those that they go on from."""
    known = {arm.name: arm for arms in STUDIES.values() for arm in arms}
    needed = [known[arm.after] for arm in wanted if arm.after]
    return tuple(dict.fromkeys([*needed, *wanted]))


def do(
    planned: Sequence[Part],
    root: Path,
    say: Callable[[str], None],
    processes: int = 1,
    executor: Executor | None = None,
) -> None:
    """Do the runs that have not been done yet.

    Args:
        planned: what to do.
        root: folder of the studies.
        say: is told what is going on.
        processes: how many runs are done beside each other, on a share of the cores each.
        executor: does the runs; by default each in a process of its own, so that its memory can be measured.

    Raises:
        UsageError: the folder holds runs of another size.
    """
    for part in planned:
        folder = prepare_folder(root / part.name)
        _remember(part, folder / "bench.txt")
        prepare_speech(part.bench, folder / "speech", say)
    jobs = [job for part in planned for job in part.jobs(root)]
    waiting = [job for job in jobs if not job.done]
    say(f"{len(jobs) - len(waiting)} of {len(jobs)} runs are done")
    running: dict[Future[None], Job] = {}
    with executor or one_process_each(processes) as pool:
        while waiting or running:
            for job in [job for job in waiting if job.ready][: processes - len(running)]:
                waiting.remove(job)
                say(f"{len(waiting)} left  {job.folder.relative_to(root)}: {job.arm.about}")
                running[pool.submit(run, job)] = job
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                future.result()
                del running[future]


def one_process_each(beside: int) -> Executor:
    """Does each job in a fresh process, so many beside each other."""
    threads = max(1, torch.get_num_threads() // beside)
    return ProcessPoolExecutor(
        beside,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=torch.set_num_threads,
        initargs=(threads,),
        max_tasks_per_child=1,
    )


def _remember(part: Part, path: Path) -> None:
    """Write what the bench is, or compare it with what it was; seeds may be added."""
    known = {name: value for name, value in asdict(part.bench).items() if name != "seeds"}
    now = "\n".join(f"{name}: {value!r}" for name, value in known.items()) + "\n"
    if path.exists() and path.read_text(encoding="utf-8") != now:
        raise UsageError(f"{path.parent}: holds runs of another size or backbone; choose another --out")
    write_text(path, now)
