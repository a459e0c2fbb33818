import importlib.util
import shutil

import numpy as np
import pytest

from lora_whisper.data import pico, recorded
from lora_whisper.errors import AudioError

needs_both = pytest.mark.skipif(
    not (shutil.which("flite") and importlib.util.find_spec("ttspico")),
    reason="flite or ttspico is not installed",
)
needs_pico = pytest.mark.skipif(not importlib.util.find_spec("ttspico"), reason="ttspico is not installed")


def test_a_language_is_known_by_its_tag() -> None:
    assert recorded.LANGUAGES == ("de", "en", "es", "fr", "it")
    assert recorded.speaks("en-GB") and recorded.speaks("de")
    assert not recorded.speaks("pl") and not recorded.speaks("eng")


@needs_both
@pytest.mark.parametrize("language", recorded.LANGUAGES)
def test_speech_depends_on_the_generator_alone(language: str) -> None:
    first, again, other = (recorded.speak("a 12 b", language, np.random.default_rng(s)) for s in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert len(other) != len(first)
    assert first.dtype == np.float32 and 0.3 < len(first) / 16000 < 3
    assert 0.9 < np.abs(first).max() <= 1


@needs_pico
def test_pico_says_everything_anew() -> None:
    """Its engine remembers: a second utterance of the same text would sound otherwise."""
    first = pico.speak("Guten Morgen.", "de-DE", np.random.default_rng(0))
    pico.speak("Etwas anderes, und viel länger.", "de-DE", np.random.default_rng(1))
    np.testing.assert_array_equal(pico.speak("Guten Morgen.", "de-DE", np.random.default_rng(0)), first)


@needs_pico
def test_what_pico_cannot_say_is_named() -> None:
    with pytest.raises(AudioError, match="Pico could not speak ''"):
        pico.speak("", "de-DE", np.random.default_rng(0))
    assert len(pico.speak("a < b", "en-US", np.random.default_rng(0)))
