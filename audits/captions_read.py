"""Items with a caption that a model would read the beginning of alone: not measured, and counted as the worst case.

Tables have what was measured, and say what they leave out.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from math import isfinite

import torch
from torch import Tensor

from camcore.degeneracy import Degeneracy
from camcore.engine import DEGENERATE, Row
from camcore.images import Batch
from camcore.imagetext import reads
from camcore.subject import ImageText
from camcore.verdict import Evidence, Table
from fixtures.datasets.captions import Captions


def measured(
    subject: ImageText, batch: Batch, *, captions: Captions, measure: Callable[..., Mapping[str, Tensor]]
) -> dict[str, Tensor]:
    """What a measure gives of the items that the model reads whole; NaN, and the reason, of the others."""
    said = [captions.by_id[one].captions for one in batch.ids]
    read = torch.tensor([reads(subject, [one for wordings in item for one in wordings]) for item in said])
    code = torch.where(read, int(Degeneracy.NONE), int(Degeneracy.TOO_LONG)).double()
    if not read.any():
        return {DEGENERATE: code}
    ids = tuple(one for one, whole in zip(batch.ids, read.tolist(), strict=True) if whole)
    on_device = read.to(batch.images.device)
    part = replace(batch, images=batch.images[on_device], labels=batch.labels[on_device], ids=ids)
    found = measure(subject, part, captions=captions)
    filled = {name: torch.full(read.shape, torch.nan, dtype=torch.float64) for name in found}
    for name, column in found.items():
        filled[name][read] = column.cpu().double()
    return {**filled, DEGENERATE: code}


def shown(
    subject: ImageText,
    batch: Batch,
    rows: Mapping[str, Row],
    *,
    captions: Captions,
    column: str,
    show: Callable[..., Iterable[Evidence]],
) -> Iterable[Evidence]:
    """What is shown of the items that were measured; nothing where none was."""
    read = {one: row for one, row in rows.items() if isfinite(row.get(column, torch.nan))}
    if not read:
        return
    without = len(rows) - len(read)
    for one in show(subject, batch, read, column=column, captions=captions):
        left_out = f"; {without} more have a caption longer than the model reads: the worst case in the claim, not here"
        yield replace(one, title=one.title + left_out) if without and isinstance(one, Table) else one
