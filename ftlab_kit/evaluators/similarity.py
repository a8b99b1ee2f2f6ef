"""Similarity of meaning: the cosine between the embeddings of answer and reference.

By sentence-transformers (Reimers and Gurevych 2019, arXiv 1908.10084); -1 to 1. It is high for what
is said in other words, and also for the opposite said in the same ones.
"""

from collections.abc import Sequence

from ftlab_kit import device, models
from ftlab_kit.evaluators.measures import Ask, Case, Measure, Scored, means, ratio
from ftlab_kit.lm.loading import quiet

NEEDS = frozenset({"answers", "references"})
WANTS = ()
MEASURES = (Measure("similarity", True, ratio),)


def score(cases: Sequence[Case], ask: Ask) -> Scored:
    """Return the cosine of each answered row.

    Raises:
        Unavailable: The embedding model can't be had.
    """
    folder = models.pull(ask.ws, ask.config.embedder).path
    with quiet():
        from sentence_transformers import SentenceTransformer

        model = SentenceTransformer(str(folder), device=device.kind(), local_files_only=True)
        known = [case for case in cases if case.answer]
        texts = [text for case in known for text in (case.answer or "", case.reference)]
        found = model.encode(texts, normalize_embeddings=True, show_progress_bar=False)
    cosines = (found[0::2] * found[1::2]).sum(-1) if known else []  # (n,)
    by_row = {case.row: float(value) for case, value in zip(known, cosines, strict=True)}
    # an empty answer means nothing, which is like no reference
    counts = means("similarity", cases, lambda case: by_row.get(case.row, 0.0))
    return Scored(counts, {"embedder": ask.config.embedder})
