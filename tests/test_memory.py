import subprocess
import sys

from lora_whisper.memory import peak_memory_bytes


def test_what_the_starting_process_held_does_not_count() -> None:
    held = bytearray(b"x") * (300 << 20)
    program = "from lora_whisper.memory import peak_memory_bytes; print(peak_memory_bytes())"
    child = int(subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout)
    assert child < len(held) < peak_memory_bytes()


def test_freed_memory_is_used_again_and_given_back_when_told_so() -> None:
    program = """
import ctypes, sys
from lora_whisper.memory import keep_freed_memory

def faults() -> int:
    import resource
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def touched(times: int) -> int:
    before = faults()
    for _ in range(times):
        bytearray(40 << 20)
    return faults() - before

keep_freed_memory(False)
given_back = touched(5)
keep_freed_memory()
touched(1)
print(given_back, touched(5))
"""
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True)
    given_back, kept = map(int, found.stdout.split())
    assert kept < given_back / 10
