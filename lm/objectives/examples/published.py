"""Mixtures of denoisers as published: (rate, mode, denoiser), of which rates are relative."""

from lm.objectives.examples.continuation import Continuation, PrefixLM
from lm.objectives.examples.denoiser import Denoiser
from lm.objectives.examples.noise import Reconstruction, SentencePermutation, SpanDeletion, TextInfilling
from lm.objectives.examples.spans import SpanCorruption

Choice = tuple[float, str, Denoiser]

# T5: one denoiser, no mode. The paper's targets end in a sentinel more than those of its published data code.
SPANS: tuple[Choice, ...] = ((1.0, "", SpanCorruption()),)
SPANS_AS_RUN: tuple[Choice, ...] = ((1.0, "", SpanCorruption(final=False)),)

# UL2, table 1 (Tay et al. 2022, arXiv 2205.05131), all seven equally often.
SEVEN: tuple[Choice, ...] = (
    (1.0, "R", SpanCorruption(3.0, 0.15)),
    (1.0, "R", SpanCorruption(8.0, 0.15)),
    (1.0, "S", PrefixLM(0.25)),
    (1.0, "X", SpanCorruption(3.0, 0.5)),
    (1.0, "X", SpanCorruption(8.0, 0.5)),
    (1.0, "X", SpanCorruption(64.0, 0.15)),
    (1.0, "X", SpanCorruption(64.0, 0.5)),
)

# UL2R (Tay et al. 2022, arXiv 2210.11399): half S, a quarter R, a quarter X, of which half has long spans and half a
# high density.
CONTINUED: tuple[Choice, ...] = (
    (0.5, "S", PrefixLM(0.25)),
    (0.25, "R", SpanCorruption(3.0, 0.15)),
    (0.125, "X", SpanCorruption(32.0, 0.15)),
    (0.125, "X", SpanCorruption(3.0, 0.5)),
)

# BART (Lewis et al. 2020, arXiv 1910.13461), section 2.2 and 3: infilling of 30 % in permuted sentences.
INFILLED: tuple[Choice, ...] = ((1.0, "", Reconstruction((SentencePermutation(), TextInfilling(0.3, 3.0)))),)

# AlexaTM 20B (Soltan et al. 2022, arXiv 2208.01448): texts with 15 % taken out, and of every fifth the end to write.
RESTORED: tuple[Choice, ...] = (
    (0.8, "", Reconstruction((SpanDeletion(0.15, 3.0),))),
    (0.2, "CLM", Continuation(0.2, 0.8)),
)

# CodeT5+ (Wang et al. 2023, arXiv 2305.07922), first stage: spans, then together with both kinds of causal modelling.
CAUSAL_TOO: tuple[Choice, ...] = (
    (1.0, "", SpanCorruption()),
    (1.0, "CLM", Continuation(0.1, 0.9)),
    (1.0, "CDec", Continuation(0.0, 0.0)),
)
