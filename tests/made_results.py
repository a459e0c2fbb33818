"""Results as `evaluate` would make them, small and hostile enough to test reports with."""

from pathlib import Path

import numpy as np
import soundfile

from lora_whisper.evaluation.results import EvaluationResult, Failure, UtteranceResult

SAID = {
    "pl": "Dzień dobry, Polsko!",
    "cy": "Mae'r <b>ci</b> yn fawr",
    "zh": "你好，世界！",
    "ar": "صباح الخير يا عالم",
}
GOOD = {"pl": "dzień dobry polsko", "cy": "mae'r ci yn fawr", "zh": "你好世间", "ar": "صباح الخير يا عالم"}
BAD = {"pl": "dzeń dobra", "cy": "may b & <ki> b in vaur oh", "zh": "尼好是", "ar": "صباح خير"}
N_UTTERANCES = 6


def made_result(heard: dict[str, str], *, adapters: dict[str, str] | None = None) -> EvaluationResult:
    """Six utterances of three speakers per language; the first five of each are heard as `heard` says."""
    return EvaluationResult(
        manifest="test.jsonl",
        backbone="mini",
        backbone_fingerprint="sha256:aa",
        adapters=adapters or {},
        normalizer="lora-whisper-v1",
        git_revision=None,
        seed=0,
        package_version="0.1.0",
        utterances=tuple(
            UtteranceResult(
                id=f"{tag}-{number}",
                language=tag,
                reference=SAID[tag],
                hypothesis=heard[tag] if number < N_UTTERANCES - 1 else SAID[tag],
                predicted_language="en" if number == 0 else tag,
                duration_s=1.0 + 3 * (number % 2),
                speaker=f"<voice {number % 3}>",
                audio=f"audio/{tag}-{number}.wav",
            )
            for tag in heard
            for number in range(N_UTTERANCES)
        ),
        failures=(Failure("lost <i>.wav", "lost <i>.wav: no such audio file"),),
    )


def made_audio(folder: Path, seconds: float = 0.5) -> Path:
    """A folder with a beep for each of these utterances."""
    (folder / "audio").mkdir(parents=True)
    times = np.arange(int(16000 * seconds)) / 16000
    for tag in SAID:
        for number in range(N_UTTERANCES):
            soundfile.write(
                folder / "audio" / f"{tag}-{number}.wav", 0.3 * np.sin(2760 * times), 16000, subtype="PCM_16"
            )
    return folder
