"""Small pictures of a data folder's photos with their lesions drawn: a few that show what is in it. No gradio here."""

import random
import threading
from collections import OrderedDict, defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from mtl.config import NO_CLASS, Classes, TrainConfig
from mtl.data.folder import SPLITS, DataFolder, Sample, Split
from mtl.data.labels import Target
from mtl.errors import PhotoError
from mtl.photo import read_mask, read_photo, resize_map, resize_photo

# With scipy and scikit-image, for which the page does not wait.
if TYPE_CHECKING:
    from mtl.data.generate import MaskMaker

TILES = 12
TILE_PX = 240  # longest side; shown at about 160, so sharp on dense screens too
SIDE_WORDS: dict[Split, str] = {"train": "training", "val": "validation"}


@dataclass(frozen=True)
class Tile:
    """One photo of the grid; without a picture where it cannot be read."""

    label: str
    mask: str  # what is known of its mask
    side: str
    jpeg: bytes = b""  # encoded anew, so that no place or name of the camera's goes along
    problem: str = ""


class SampleGrids:
    """The grids that were drawn lately; safe to call from any thread."""

    KEPT = 16

    def __init__(self) -> None:
        self._grids: OrderedDict[tuple[str, int], list[Tile]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: str, folder: DataFolder, config: TrainConfig, draw: int) -> list[Tile]:
        """See `draw_tiles`; `key` is another one where the folder or the generated masks are."""
        with self._lock:  # so that two pages do not draw the same
            if (key, draw) not in self._grids:
                self._grids[key, draw] = draw_tiles(folder, config, draw)
            while len(self._grids) > self.KEPT:
                self._grids.popitem(last=False)
            return self._grids[key, draw]


def draw_tiles(folder: DataFolder, config: TrainConfig, draw: int) -> list[Tile]:
    """Pictures of a few photos, another choice for another `draw`; lesion photos get the masks of `generated_masks`.

    Raises MtlError where that names a model that cannot be used.
    """
    from mtl.data.generate import is_lesion_photo
    from mtl.training.masks import mask_maker

    make_mask = mask_maker(config)

    def draw_one(chosen: tuple[Split, Sample]) -> Tile:
        side, sample = chosen
        gets_mask = side == "train" and sample.mask is None and is_lesion_photo(sample, config)
        return _tile(side, sample, folder.classes, make_mask if gets_mask else None)

    with ThreadPoolExecutor(4, thread_name_prefix="tiles") as pool:
        return list(pool.map(draw_one, pick_samples(folder, draw)))


def pick_samples(folder: DataFolder, draw: int, count: int = TILES) -> list[tuple[Split, Sample]]:
    """Up to `count` photos in the order of sides and labels: each kind of photo once before any comes twice.

    Photos are of one kind where side, label and having a mask are the same.
    """
    chance = random.Random(draw)
    kinds: dict[tuple[Split, Target, bool], list[Sample]] = defaultdict(list)
    for side in SPLITS:
        for sample in folder.split(side):
            kinds[side, sample.target, sample.mask is not None].append(sample)
    turns = []
    for (side, *_), members in kinds.items():
        chance.shuffle(members)
        # Validation photos in the second half of a turn: what is learned from is looked at first.
        turns += [(turn + (side == "val") / 2, chance.random(), side, sample) for turn, sample in enumerate(members)]
    chosen = sorted(turns, key=lambda turn: turn[:2])[:count]
    return sorted(
        ((side, sample) for _, _, side, sample in chosen), key=lambda c: (SPLITS.index(c[0]), c[1].target, c[1].name)
    )


def _tile(side: Split, sample: Sample, classes: Classes, make_mask: "MaskMaker | None") -> Tile:
    from mtl.analysis.overlay import draw_overlay

    label = label_words(sample.target, classes)
    try:
        photo = _shrink(read_photo(sample.photo, min_side=TILE_PX))
        mask, words = _mask_of(sample, photo, make_mask)
    except (PhotoError, OSError) as error:
        return Tile(label, "cannot be read", SIDE_WORDS[side], problem=str(error))
    drawn = photo if mask is None else draw_overlay(photo, mask)
    return Tile(label, words, SIDE_WORDS[side], _jpeg(drawn))


def _mask_of(sample: Sample, photo: np.ndarray, make_mask: "MaskMaker | None") -> tuple[np.ndarray | None, str]:
    """The mask at the small photo's size, and what is said of it."""
    if sample.mask is not None:
        whole = read_mask(sample.mask)
        return _fit(whole, photo), "lesion" if whole.any() else "no lesion"
    if make_mask is None:
        return None, "no mask"
    generated = make_mask(photo)
    return (None, "no mask generated") if generated is None else (_fit(generated, photo), "generated mask")


def _fit(mask: np.ndarray, photo: np.ndarray) -> np.ndarray:
    return (resize_map(mask, *photo.shape[:2]) >= 0.5).astype(np.uint8)


def label_words(target: Target, classes: Classes) -> str:
    """ "dry", "dry, curly", "none", "no label"."""
    if NO_CLASS in target:
        return "none"
    return ", ".join(classes.names[class_id] for class_id in target if class_id >= 0) or "no label"


def _shrink(photo: np.ndarray) -> np.ndarray:
    height, width = photo.shape[:2]
    scale = min(1.0, TILE_PX / max(height, width))
    return photo if scale == 1 else resize_photo(photo, (max(1, round(height * scale)), max(1, round(width * scale))))


def _jpeg(pixels: np.ndarray) -> bytes:
    stream = BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=85)
    return stream.getvalue()
