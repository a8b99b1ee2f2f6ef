"""SVG text from records and numbers: pure functions, without a workspace and without ipywidgets."""
