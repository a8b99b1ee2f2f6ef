"""Semantic similarity: the cosine between the embeddings of answer and reference.

By sentence-transformers (Reimers and Gurevych 2019, arXiv 1908.10084); -1 to 1. It is high for a
paraphrase, and also for the opposite in similar words.
"""

from collections.abc import Sequence

from ftlab_kit import device, models
from ftlab_kit.evaluators.measures import (
    EvaluationContext,
    EvaluatorResult,
    Example,
    Measure,
    means,
    ratio,
)

REQUIRES = frozenset({"answers", "references"})
REQUIRED_SETTINGS = ()
MEASURES = (Measure("similarity", True, ratio),)


def score(examples: Sequence[Example], context: EvaluationContext) -> EvaluatorResult:
    """Return the cosine of each answered row.

    Raises:
        Unavailable: The embedding model can't be loaded.
    """
    from ftlab_kit.lm.loading import quiet

    folder = models.pull(context.ws, context.config.embedder).path
    with quiet():
        from sentence_transformers import SentenceTransformer

        model = SentenceTransformer(str(folder), device=device.kind(), local_files_only=True)
        answered = [example for example in examples if example.answer]
        texts = [text for example in answered for text in (example.answer, example.reference)]
        vectors = model.encode(texts, normalize_embeddings=True, show_progress_bar=False)  # (2n, d)
    # of unit vectors the dot product is the cosine
    cosines = (vectors[0::2] * vectors[1::2]).sum(-1) if answered else []  # (n,)
    by_row = {example.row: float(value) for example, value in zip(answered, cosines, strict=True)}
    # an empty answer means nothing, so it is unlike any reference
    counts = means("similarity", examples, lambda example: by_row.get(example.row, 0.0))
    return EvaluatorResult(counts, {"embedder": context.config.embedder})
