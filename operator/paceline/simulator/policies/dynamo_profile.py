"""What NVIDIA Dynamo's profiler would have measured of an engine before deployment: here from its true step times.

An aggregated engine, chunked prefill, `n` requests in the batch, prompts of `isl` and answers of `osl` tokens.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from paceline_core.timing import StepTiming


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineProfile:
    timing: StepTiming
    max_batched_tokens: int
    max_sequences: int

    def prefill_s(self, tokens: float) -> float:
        """A prompt alone, chunk by chunk."""
        done, total_s = 0.0, 0.0
        while done < tokens:
            chunk = min(tokens - done, self.max_batched_tokens)
            total_s += self.timing.step_s(prefills=[(math.ceil(chunk), math.floor(done))])
            done += chunk
        return total_s

    def prefill_tokens_per_s(self, isl: float) -> float:
        return isl / self.prefill_s(isl)

    def decode_itl_s(self, *, batch: float, context: float) -> float:
        timing = self.timing
        return (
            timing.scale * (timing.tokens_s(batch) + timing.decode_attention_s * batch * context)
            + timing.overhead_s
        )

    def batch_that_fits(self, context: float) -> int:
        return max(min(self.max_sequences, int(self.timing.kv_cache_tokens / max(context, 1))), 1)

    def best_decode_tokens_per_s(self, *, itl_target_s: float, context: float) -> float:
        """The highest decode throughput whose ITL meets the target; that of a batch of one where none does."""
        low, high = 1, self.batch_that_fits(context)
        while low < high:
            middle = (low + high + 1) // 2
            fits = self.decode_itl_s(batch=middle, context=context) <= itl_target_s
            low, high = (middle, high) if fits else (low, middle - 1)
        return low / self.decode_itl_s(batch=low, context=context)

    def mixed_itl_s(self, *, batch: float, isl: float, osl: float) -> float:
        """An iteration of a batch in balance: every request's decode and its share of the prefills."""
        timing, prefill = self.timing, batch * isl / max(osl, 1)
        return (
            timing.scale
            * (
                timing.tokens_s(batch + prefill)
                + timing.prefill_attention_s * prefill * isl / 2
                + timing.decode_attention_s * batch * (isl + osl / 2)
            )
            + timing.overhead_s
        )

    def requests_per_s(self, *, isl: float, osl: float, ttft_target_s: float, itl_target_s: float) -> float:
        """Of one aggregated engine: the best batch whose TTFT and ITL meet the targets; of a batch of one where
        none does."""
        batch = self._best_batch(
            isl=isl, osl=osl, long_prompt=isl, ttft_target_s=ttft_target_s, itl_target_s=itl_target_s
        )
        return self._rate(max(batch, 1), isl=isl, osl=osl)

    def tested_requests_per_s(
        self, *, isl: float, osl: float, long_prompt: float, ttft_target_s: float, itl_target_s: float
    ) -> float:
        """The same with a prompt longer than the mean held against the TTFT; 0 where no batch meets both."""
        batch = self._best_batch(
            isl=isl, osl=osl, long_prompt=long_prompt, ttft_target_s=ttft_target_s, itl_target_s=itl_target_s
        )
        return self._rate(batch, isl=isl, osl=osl) if batch else 0.0

    def _rate(self, batch: int, *, isl: float, osl: float) -> float:
        return batch / (osl * self.mixed_itl_s(batch=batch, isl=isl, osl=osl))

    def _best_batch(
        self, *, isl: float, osl: float, long_prompt: float, ttft_target_s: float, itl_target_s: float
    ) -> int:
        """0: not even one request alone meets both."""
        low, high = 0, self.batch_that_fits(isl + osl / 2)
        while low < high:
            batch = (low + high + 1) // 2
            per_iteration = batch * isl / max(osl, 1)
            meets = (
                self.mixed_itl_s(batch=batch, isl=isl, osl=osl) <= itl_target_s
                and self.prefill_s(long_prompt + per_iteration) <= ttft_target_s
            )
            low, high = (batch, high) if meets else (low, batch - 1)
        return low
