"""A row through the trainer's eyes: which of its tokens are trained, context, end or cut."""

from typing import Any

import ipywidgets

from ftlab_kit import datasets
from ftlab_kit.errors import KitError
from ftlab_kit.pictures import token_mask
from ftlab_kit.records import DatasetVersion, Model
from ftlab_kit.widgets.display import Html, is_interactive, show_alert
from ftlab_kit.workspace import Workspace


def mask(
    ws: Workspace,
    dataset: DatasetVersion | str | int,
    model: Model | str,
    *,
    row: int = 0,
    max_length: int | None = None,
) -> "MaskView | Html":
    """Return a row's tokens as the trainer will see them; a picture where no one can click.

    Args:
        dataset: A version, its number, or a dataset's name for its newest version.
        model: The model that will be trained; its tokenizer is used.
        row: The first row that is shown, counted from 0.
        max_length: Where rows are cut, in tokens; None takes a config's default.

    Raises:
        NotFound: There is no such dataset or model.
        InputError: The dataset has no such row.
    """
    if is_interactive():
        return MaskView(ws, dataset, model, row=row, max_length=max_length)
    tokens = datasets.mask(ws, dataset, model, row=row, max_length=max_length)
    return Html(token_mask.figure(tokens), token_mask.alt_text(tokens))


class MaskView(ipywidgets.VBox):  # type: ignore[misc]
    """A row's mask, and fields for another row, side or length."""

    def __init__(
        self,
        ws: Workspace,
        dataset: DatasetVersion | str | int,
        model: Model | str,
        *,
        row: int = 0,
        max_length: int | None = None,
    ) -> None:
        """Show a row, and redraw it when a field changes."""
        self._ws, self._version, self._model = ws, datasets.get(ws, dataset), model
        first = datasets.mask(ws, self._version, model, row=row, max_length=max_length)
        last = self._version.n_rows - 1
        self.row = ipywidgets.BoundedIntText(
            row, 0, last, description="row", tooltip=f"0 to {last}"
        )
        self.side = ipywidgets.Dropdown(options=["chosen", "rejected"], description="side")
        self.length = ipywidgets.BoundedIntText(
            first.max_length, 1, 10**6, description="max_length", tooltip="Rows are cut here"
        )
        self._picture = ipywidgets.HTML(token_mask.picture(first))
        fields = [self.row, self.length]
        if self._version.kind == "preference":
            fields.append(self.side)
        super().__init__([ipywidgets.HBox(fields), self._picture])
        for field in fields:
            field.observe(self._show, "value")

    def _show(self, _: Any) -> None:
        try:
            tokens = datasets.mask(
                self._ws,
                self._version,
                self._model,
                row=self.row.value,
                side=self.side.value,
                max_length=self.length.value,
            )
            self._picture.value = token_mask.picture(tokens)
        except KitError as error:
            show_alert(self._picture, str(error))
