import subprocess
import sys

from lora_whisper.memory import peak_memory_bytes


def test_what_the_starting_process_held_does_not_count() -> None:
    held = bytearray(b"x") * (300 << 20)
    program = "from lora_whisper.memory import peak_memory_bytes; print(peak_memory_bytes())"
    child = int(subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout)
    assert child < len(held) < peak_memory_bytes()
