"""transformers and PEFT, as peers: training by `Seq2SeqTrainer`, generation with un-merged adapters.

Their encoder takes 30 s and nothing else, so every row is padded to that. Nothing of theirs is changed: what
users configure is configured, by their own arguments.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from benchmarks.measure import require, synchronize
from benchmarks.workload import LORA, Speech
from lora_whisper.audio import SAMPLE_RATE
from lora_whisper.data.batching import IGNORED
from lora_whisper.model.tokenizer import Tokenizer

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import WhisperFeatureExtractor, WhisperForConditionalGeneration

MODULES = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")
"""The same six kinds of layers that ours adapts, by their names."""
GPU_WORKERS = 4
"""Processes that collate batches: features of 30 s take a GPU's time to copy."""
REMEDY = "pip install -c constraints.txt -e '.[bench]'"


def available() -> None:
    """Make sure that they are there, and quiet.

    Raises:
        MissingPeer: one of them is not installed.
    """
    require("transformers", "peft", "accelerate", remedy=REMEDY)
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


def load(folder: str, device: str, dtype: torch.dtype = torch.float32) -> "WhisperForConditionalGeneration":
    """Their model with the weights of a folder that ours reads too."""
    import transformers

    name = "torch_dtype" if transformers.__version__.startswith("4.") else "dtype"
    return transformers.WhisperForConditionalGeneration.from_pretrained(folder, **{name: dtype}).to(device)


def extractor(folder: str) -> "WhisperFeatureExtractor":
    """Their way from samples to log-mel frames of 30 s."""
    from transformers import WhisperFeatureExtractor

    return WhisperFeatureExtractor.from_pretrained(folder)


def with_new_adapter(model: "WhisperForConditionalGeneration") -> "PeftModel":
    """The model with an untrained LoRA of the shape that ours has."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=LORA.rank, lora_alpha=int(LORA.alpha), target_modules=list(MODULES), lora_dropout=0.0, bias="none"
    )
    return get_peft_model(model, config)


def with_adapters(
    model: "WhisperForConditionalGeneration", folders: Mapping[str, Path], trainable: bool = False
) -> "PeftModel":
    """The model with the adapters of these folders, by language, in its own precision."""
    from peft import PeftModel

    names = list(folders)
    adapted = PeftModel.from_pretrained(
        model, folders[names[0]], adapter_name=names[0], is_trainable=trainable, autocast_adapter_dtype=False
    )
    for name in names[1:]:
        adapted.load_adapter(folders[name], adapter_name=name, autocast_adapter_dtype=False)
    return adapted.to(model.device, model.dtype).train(trainable)


class Examples:
    """A data set as their users build it: features of 30 s and label ids, ready or made at each use."""

    def __init__(
        self,
        speech: Sequence[Speech],
        tokenizer: Tokenizer,
        features: "WhisperFeatureExtractor",
        cached: bool,
    ) -> None:
        self._speech, self._tokenizer, self._extractor = speech, tokenizer, features
        self._ready = [self._example(one) for one in speech] if cached else []

    def __len__(self) -> int:
        return len(self._speech)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self._ready[index] if self._ready else self._example(self._speech[index])

    def _example(self, one: Speech) -> dict[str, Any]:
        tokenizer = self._tokenizer
        mel = self._extractor(one.samples, sampling_rate=SAMPLE_RATE).input_features[0]
        labels = [*tokenizer.start_sequence(one.language), *one.text(tokenizer), tokenizer.eot]
        return {"input_features": mel, "labels": labels, "input_ids": labels}  # the last: to group by length


@dataclass(frozen=True, eq=False)
class Collator:
    """The data collator that recipes for fine-tuning Whisper share: pads features and labels."""

    features: "WhisperFeatureExtractor"
    sot: int

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """The batch: input_features (B, M, 3000), labels (B, L)."""
        mels = [{"input_features": one["input_features"]} for one in examples]
        batch = self.features.pad(mels, return_tensors="pt")
        sequences = [torch.tensor(one["labels"]) for one in examples]
        labels = torch.nn.utils.rnn.pad_sequence(sequences, batch_first=True, padding_value=IGNORED)
        starts_alike = bool((labels[:, 0] == self.sot).all())
        return {**batch, "labels": labels[:, 1:] if starts_alike else labels}


@dataclass(frozen=True)
class Training:
    """How their trainer is configured.

    Attributes:
        rows: of a batch.
        bf16: autocast to bf16.
        grouped: batches of rows of similar length.
        device: "cpu" or "cuda".
        folder: where it may write.
    """

    rows: int
    bf16: bool
    grouped: bool
    device: str
    folder: Path

    @cached_property
    def arguments(self) -> Any:
        """Their `Seq2SeqTrainingArguments`."""
        from transformers import Seq2SeqTrainingArguments

        known = {one.name for one in fields(Seq2SeqTrainingArguments)}
        grouping: dict[str, Any] = {}
        if self.grouped and "train_sampling_strategy" in known:
            grouping = {"train_sampling_strategy": "group_by_length"}
        elif self.grouped:  # before transformers 5
            grouping = {"group_by_length": True}
        return Seq2SeqTrainingArguments(
            output_dir=str(self.folder),
            per_device_train_batch_size=self.rows,
            num_train_epochs=1,
            learning_rate=1e-4,
            bf16=self.bf16,
            use_cpu=self.device == "cpu",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            remove_unused_columns=False,
            label_names=["labels"],
            dataloader_num_workers=0 if self.device == "cpu" else GPU_WORKERS,
            dataloader_pin_memory=self.device != "cpu",
            **grouping,
        )


def train_epoch(model: "PeftModel", examples: Examples, collator: Collator, training: Training) -> float:
    """Seconds of one pass over the examples by their trainer, from its loop's begin to the last update.

    Their steps are all alike. Where there are several, the first, which also starts the loaders, counts as
    long as the others do in the mean.
    """
    from accelerate.state import AcceleratorState
    from transformers import PrinterCallback, Seq2SeqTrainer, TrainerCallback

    class Clock(TrainerCallback):
        """Looks at the clock when the loop begins and after each step."""

        def __init__(self) -> None:
            self.times: list[float] = []

        def on_train_begin(self, *_: object, **__: object) -> None:
            self.times.append(time.perf_counter())

        def on_step_end(self, *_: object, **__: object) -> None:
            synchronize()
            self.times.append(time.perf_counter())

    clock = Clock()
    AcceleratorState._reset_state(reset_partial_state=True)  # it keeps the precision of the last trainer
    trainer = Seq2SeqTrainer(
        model=model,
        args=training.arguments,
        train_dataset=examples,
        data_collator=collator,
        callbacks=[clock],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    began, first, *_ = times = clock.times
    steps = len(times) - 1
    return first - began if steps == 1 else (times[-1] - first) * steps / (steps - 1)


@torch.inference_mode()
def generate(
    model: "PeftModel",
    features: Tensor,
    languages: Sequence[str],
    n_tokens: int,
    adapters: Sequence[str] | None = None,
) -> Tensor:
    """Exactly `n_tokens` greedy tokens of each row, (B, n_tokens), in some versions after what starts them.

    Args:
        model: with its adapters.
        features: (B, M, 3000).
        languages: of each row.
        n_tokens: how many follow the start sequence.
        adapters: of each row; None for the one that is set.
    """
    routed = {} if adapters is None else {"adapter_names": list(adapters)}
    found: Tensor = model.generate(
        input_features=features.to(model.device, model.dtype),
        language=list(languages),
        task="transcribe",
        max_new_tokens=n_tokens,
        min_new_tokens=n_tokens,
        num_beams=1,
        do_sample=False,
        **routed,
    )
    if found.shape[0] != len(features) or found.shape[1] < n_tokens:
        raise RuntimeError(f"transformers gave {tuple(found.shape)} tokens, not {(len(features), n_tokens)}")
    return found
