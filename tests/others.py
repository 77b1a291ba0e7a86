"""`python -m tests.others --data-dir D`: what the shipped model makes of pictures that are nothing like its own.

Its distance from the training photos against that of D's validation photos (AUROC; called unlike), and what it answers:
made noise, even colours and pages of text, this project's made photos, and the real pictures that come with installed
packages (animals, streets, people, microscopy).
"""

import argparse
import importlib.util
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from sklearn.metrics import roc_auc_score

from mtl.analysis.predict import Analysis
from mtl.api import MultiTaskModel
from mtl.config import TrainConfig
from mtl.data.folder import read_folder
from mtl.data.made.photo import CLASS_NAMES, LESION, make_photo
from mtl.photo import PhotoSource

SIDE = 320
PEOPLE = {"astronaut.png", "grace_hopper.jpg"}  # hair and skin in view
PACKAGES = {
    "skimage": "data/*.*",
    "sklearn": "datasets/images/*.jpg",
    "matplotlib": "mpl-data/sample_data/*.jpg",
    "gradio": "media_assets/images/*.jp*g",
}
DRAWN = {"logo.png", "page.png", "text.png", "color.png", "clock_motion.png", "horse.png"}  # no photos of anything


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--checkpoint")
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    model = MultiTaskModel.load(args.checkpoint)
    photos = [sample.photo for sample in read_folder(TrainConfig(data_dir=args.data_dir)).val]
    like = analyse(model, photos)
    tell(model, "validation photos", like, like)
    real = list(real_pictures())
    kinds: dict[str, list[PhotoSource]] = {
        "noise": [noise(seed) for seed in range(40)],
        "even colours": [even(seed) for seed in range(40)],
        "pages of text": [page(seed) for seed in range(40)],
        "made photos": [
            make_photo(kind, seed, (SIDE, SIDE)).image for kind in (LESION, *CLASS_NAMES) for seed in range(4)
        ],
        "other real pictures": [path for path in real if path.name not in PEOPLE],
        "portraits": [path for path in real if path.name in PEOPLE],
    }
    for name, pictures in kinds.items():
        tell(model, name, analyse(model, pictures), like)


def analyse(model: MultiTaskModel, photos: list[PhotoSource]) -> list[Analysis]:
    return [
        analysis for start in range(0, len(photos), 16) for analysis in model.analyze_batch(photos[start : start + 16])
    ]


def tell(model: MultiTaskModel, name: str, found: list[Analysis], like: list[Analysis]) -> None:
    distances, known = (np.array([distance(model, each) for each in part]) for part in (found, like))
    truth = np.repeat([0, 1], [len(known), len(distances)])
    areas = np.array([each.lesion_area_ratio for each in found])
    named = [[answer.answer in answer.names for answer in each.groups] for each in found]
    print(
        json.dumps(
            {
                "pictures": name,
                "number": len(found),
                "auroc": round(float(roc_auc_score(truth, np.concatenate([known, distances]))), 3),
                "called_unlike": round(float(np.mean([unlike(model, each) for each in found])), 3),
                "given_a_class": round(float(np.any(named, axis=1).mean()), 3),
                "marked_area": round(float(areas.mean()), 3),
                "over_1_percent_marked": round(float((areas > 0.01).mean()), 3),
            }
        ),
        flush=True,
    )


def distance(model: MultiTaskModel, analysis: Analysis) -> float:
    familiarity = model.familiarity(analysis)
    assert familiarity is not None, "nothing is kept of this checkpoint's training photos"
    return familiarity.distance


def unlike(model: MultiTaskModel, analysis: Analysis) -> bool:
    familiarity = model.familiarity(analysis)
    return familiarity is not None and familiarity.unlike


def real_pictures() -> Iterator[Path]:
    for package, pattern in PACKAGES.items():
        spec = importlib.util.find_spec(package)
        for place in (spec.submodule_search_locations or []) if spec else []:
            files = sorted(Path(place).glob(pattern))
            yield from (file for file in files if file.suffix in {".png", ".jpg", ".jpeg"} and file.name not in DRAWN)


def noise(seed: int) -> np.ndarray:
    """Of one grain or another, (SIDE, SIDE, 3) uint8."""
    grain = 2 ** (seed % 5)
    cells = np.random.default_rng(seed).integers(0, 256, (SIDE // grain, SIDE // grain, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(cells).resize((SIDE, SIDE)))


def even(seed: int) -> np.ndarray:
    """A colour that turns into another from left to right."""
    first, last = np.random.default_rng(seed).integers(0, 256, (2, 3))
    row = np.linspace(first, last if seed % 2 else first, SIDE)
    return np.broadcast_to(row, (SIDE, SIDE, 3)).astype(np.uint8)


def page(seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    picture = Image.new("RGB", (SIDE, SIDE), "white")
    draw = ImageDraw.Draw(picture)
    for y in range(8, SIDE, 16):
        draw.text((8, y), "".join(random.choice(list("abcdefghij klmnop "), 44)), fill="black")
    return np.asarray(picture)


if __name__ == "__main__":
    main()
