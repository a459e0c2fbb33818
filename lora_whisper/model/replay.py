"""The decoder's step as work of fixed shapes in fixed places, which a GPU can record once and replay.

A step of a small batch is hundreds of small kernels, and launching them takes longer than running them. A
CUDA graph launches all of them at once, but it knows nothing of Python: between two changes of the batch, all
that may differ is what stands in memory. So the number of tokens so far is a number in memory, the step looks
at a block of columns of which some are still empty, and hypotheses move inside the cache.
"""

import threading
import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from lora_whisper.model.cache import KVCache
from lora_whisper.model.routing import Routing
from lora_whisper.model.whisper import Whisper

COLUMNS = 64
"""Columns of the cache that a step looks at are a multiple of these; each multiple is recorded by itself."""

Work = Callable[[], Tensor]
"""Computes something from what stands in memory; the result is overwritten by the next call."""
Recorder = Callable[[Work], Work]
"""Makes the same work without its Python; the work has not been done by then."""

_recording = threading.Lock()  # a process can record one graph at a time


class Decoder:
    """Computes the next tokens of a batch: each step anew, or replayed where it pays.

    Args:
        model: of the batch.
        record: makes a step replayable; None to compute each step anew.
    """

    def __init__(self, model: Whisper, record: Recorder | None = None) -> None:
        self._model, self._record = model, record
        self._step: _Step | None = None

    @classmethod
    def fastest(cls, model: Whisper) -> "Decoder":
        """The one for the model's device."""
        return cls(model, CUDARecorder(model.device) if model.device.type == "cuda" else None)

    def next(
        self, tokens: Tensor, cache: KVCache, routing: Routing | None, sources: Tensor | None = None
    ) -> Tensor:
        """Hidden states (B·W, D) of one more token for every row of tokens; overwritten by the next call.

        Args:
            tokens: int64 (B·W, 1).
            cache: of the batch.
            routing: adapters of each row of audio; another one only when the cache has other rows.
            sources: whose past each row of tokens continues, int64 (B·W,); None for its own.
        """
        if self._record is None:
            if sources is not None:
                cache.reorder(sources)
            return self._model.decode(tokens, cache, routing)[:, -1]
        step = self._step
        if step is None or not step.fits(cache):
            step = self._step = _Step(self._model, cache, routing)
        return step(tokens, sources, self._record)

    def forget(self) -> None:
        """Let go of the last batch."""
        self._step = None


class _FixedCache(KVCache):
    """A cache as one step sees it: its first columns, of which `column` is the newest one.

    Attributes:
        column: int64 (1,).
        sources: whose past each row of tokens continues, int64 (B·W,); None if rows are alone.
    """

    def __init__(self, cache: KVCache, n_columns: int) -> None:
        super().__init__([])
        self.heard, self.n_audio, self.width = cache.heard, cache.n_audio, cache.width
        device = cache.buffers[0][0].device
        self.column = torch.zeros(1, dtype=torch.int64, device=device)
        self.sources = torch.arange(self.n_audio * self.width, device=device) if self.width > 1 else None
        self._columns = torch.arange(n_columns, device=device)
        starts = cache.starts
        self._first = None if starts is None else starts.repeat_interleave(self.width).unsqueeze(1)
        self._seen = [(keys[:, :n_columns], values[:, :n_columns]) for keys, values in cache.buffers]
        for buffer in (one for pair in self._seen for one in pair):
            buffer[:, cache.length :] = 0  # what is masked must be finite all the same

    def extend(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """See `KVCache.extend`; columns behind the newest one are there, too."""
        for buffer, new in zip(self._seen[layer], (key, value), strict=True):
            if self.sources is not None:
                buffer.copy_(buffer.index_select(0, self.sources))
            buffer.index_copy_(1, self.column, new.transpose(1, 2))
        keys, values = self._seen[layer]
        return keys.transpose(1, 2), values.transpose(1, 2)

    def positions(self, _: int) -> Tensor | slice:
        """See `KVCache.positions`."""
        return self.column if self._first is None else self.column - self._first

    def own_tokens(self, _: int) -> Tensor | None:
        """See `KVCache.own_tokens`."""
        seen = (self._columns <= self.column).unsqueeze(0)
        return (seen if self._first is None else seen & (self._columns >= self._first))[:, None, None]


class _Step:
    """One more token for every row of tokens, as long as the batch stays as it is and there are columns."""

    def __init__(self, model: Whisper, cache: KVCache, routing: Routing | None) -> None:
        blocks = cache.length // COLUMNS + 1
        self._model, self._cache, self._routing = model, cache, routing
        self._buffers, self._starts = cache.buffers, cache.starts
        self._n_columns = min(blocks * COLUMNS, cache.capacity)
        self._fixed = _FixedCache(cache, self._n_columns)
        n_rows = cache.n_audio * cache.width
        self._tokens = torch.zeros(n_rows, 1, dtype=torch.int64, device=self._fixed.column.device)
        self._ran = False
        self._replay: Work | None = None

    def fits(self, cache: KVCache) -> bool:
        """Whether it may compute the next token of the cache."""
        same = cache.buffers is self._buffers and cache.starts is self._starts
        return same and cache.length < self._n_columns

    def __call__(self, tokens: Tensor, sources: Tensor | None, record: Recorder) -> Tensor:
        """See `Decoder.next`; what is kept for the batch is made the first time, and the second recorded."""
        fixed = self._fixed
        self._tokens.copy_(tokens)
        fixed.column.fill_(self._cache.length)
        if fixed.sources is not None:
            own = torch.arange(len(fixed.sources), device=tokens.device)
            fixed.sources.copy_(own if sources is None else sources)
        self._cache.length += 1
        if not self._ran:
            self._ran = True
            return self._work()
        if self._replay is None:
            self._replay = record(self._work)
        return self._replay()

    def _work(self) -> Tensor:
        return self._model.decode(self._tokens, self._fixed, self._routing)[:, -1]


class CUDARecorder:
    """Records work as CUDA graphs, which share their memory: only the last one may be replayed.

    Args:
        device: where the work is done.
    """

    def __init__(self, device: torch.device) -> None:
        self._pool = torch.cuda.graph_pool_handle()
        self._stream = torch.cuda.Stream(device)
        self._first: torch.cuda.CUDAGraph | None = None

    def __call__(self, work: Work) -> Work:
        """The work as a graph; the work itself, with a warning, if something in it cannot be recorded."""
        here = torch.cuda.current_stream(self._stream.device)
        self._stream.wait_stream(here)
        try:
            if self._first is None:  # memory that no graph has any more cannot be used again
                self._first, _ = self._recorded(lambda: torch.zeros(1, device=self._stream.device))
            graph, output = self._recorded(work)
        except RuntimeError as error:
            warnings.warn(f"without CUDA graphs, more slowly: {error}", stacklevel=2)
            return work
        here.wait_stream(self._stream)

        def replay() -> Tensor:
            graph.replay()
            return output

        return replay

    def _recorded(self, work: Work) -> tuple[torch.cuda.CUDAGraph, Tensor]:
        graph = torch.cuda.CUDAGraph()
        with _recording, torch.cuda.stream(self._stream):
            # not `torch.cuda.graph`: it empties the allocator's cache each time
            graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
            try:
                output = work()
            finally:
                graph.capture_end()
        return graph, output
