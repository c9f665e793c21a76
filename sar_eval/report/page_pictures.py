"""Put the pictures of a page's runs inside it, if there is room for all of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sar_eval.report.data import RunRows, read_images
from sar_eval.report.page_data import PageData
from sar_eval.report.pictures import Picture, embed
from sar_eval.storage.run_folder import RunFolder


def embed_all(runs: Sequence[tuple[RunFolder, RunRows]], data: PageData) -> list[dict[int, Picture]] | None:
    """All pictures of each run as data URLs, by row; None, and all data put beside the page, without room.

    Raises:
        BadInput: a stored part cannot be read.
        StorageFailed: a file beside the page cannot be written.
    """
    if data.beside:
        return None
    room, found = data.room(), []
    for folder, rows in runs:
        pictures: dict[int, Picture] = {}
        for number, image in read_images(folder, rows, np.flatnonzero(rows.stored)):
            room -= len(image or b"")
            if room < 0:
                data.put_beside()
                return None
            pictures[number] = embed(image)
        found.append(pictures)
    data.embed()
    return found
