"""SVG text from records and numbers: pure functions, without a workspace and without ipywidgets.

A live view shows the text itself; a report wraps it as an `<img>` with alt text and a table.

- `charts`: line charts, the frame and the image that every picture shares
- `traces`: a long series in bounded memory
- `bars`: histograms and shares
- `intervals`: the differences of a verdict
- `token_mask`: a row's tokens by role
- `job_panels`: which curves a job has, and marks where it was steered
- `network`, `layout`, `links`: a part of a graph; `graph_data`: the same as JSON for the explorer
"""

__all__ = [
    "bars", "charts", "graph_data", "intervals", "job_panels", "layout", "links", "network",
    "token_mask", "traces",
]  # fmt: skip
