"""Quality and skin tone: of drawn photos that are spoilt in one way each, and of real ones spoilt on purpose."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from builders import law
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from skimage.color import lab2rgb

from mtl.analysis.quality import Quality, QualityIssue, assess_quality
from mtl.analysis.skin_tone import estimate_skin_tone
from mtl.photo import read_mask, read_photo, resize_photo

PHOTOS = Path(__file__).parents[2] / "shared" / "data" / "multitask"
MIDDLE = (150, 200)


def draw_skin(
    lab: tuple[float, float, float] = (68, 13, 18), lesion_at: tuple[int, int] = MIDDLE
) -> tuple[np.ndarray, np.ndarray]:
    """Photo (300, 400, 3) uint8 of fine-grained skin with a dark lesion of radius 50, and its mask (300, 400)."""
    pixels = np.tile(np.float64(lab), (300, 400, 1))
    rng = np.random.default_rng(0)
    pixels[..., 0] += 2 * rng.standard_normal((300, 400)) + 20 * gaussian_filter(rng.standard_normal((300, 400)), 3)
    row, column = np.mgrid[:300, :400]
    mask = np.hypot(row - lesion_at[0], column - lesion_at[1]) < 50
    pixels[mask] *= (0.6, 1, 0.8)
    return (255 * lab2rgb(pixels)).round().astype(np.uint8), mask.astype(np.uint8)


def kinds(quality: Quality) -> set[str]:
    return {issue.kind for issue in quality.issues}


def exposed(photo: np.ndarray, stops: float | np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 as if exposed by so many stops more; sRGB's curve taken as a power of 2.2."""
    linear = (photo / 255) ** 2.2 * np.exp2(stops)
    return (255 * np.minimum(linear, 1) ** (1 / 2.2)).round().astype(np.uint8)


def blurred(photo: np.ndarray, ratio: float = 0.008) -> np.ndarray:
    """Blurred by a Gaussian of so much of the longest side, then with the noise of a sensor."""
    soft = gaussian_filter(photo.astype(np.float32), (ratio * max(photo.shape),) * 2 + (0,))
    noise = np.random.default_rng(0).normal(0, 0.5, photo.shape)
    return np.clip(soft + noise, 0, 255).astype(np.uint8)


def lit_from_one_side(photo: np.ndarray) -> np.ndarray:
    return exposed(photo, np.linspace(-2, 0, photo.shape[1])[:, None])


def with_highlights(photo: np.ndarray) -> np.ndarray:
    height, width = photo.shape[:2]
    row, column = np.mgrid[:height, :width]
    shine = np.zeros((height, width))
    for down, right in np.random.default_rng(0).uniform(0.25, 0.75, (8, 2)):
        distance = np.hypot(row - down * height, column - right * width)
        shine += 400 * np.exp(-((distance / (0.013 * max(height, width))) ** 2))
    return np.clip(photo + shine[..., None], 0, 255).astype(np.uint8)


SPOILT = {
    "blurred": blurred,
    "dark": lambda photo: exposed(photo, -3),
    "overexposed": lambda photo: exposed(photo, 2),
    "uneven light": lit_from_one_side,
    "glare": with_highlights,
}


@pytest.mark.parametrize("lightness", [68, 45])
def test_a_good_photo_has_no_issue(lightness: float) -> None:
    assert assess_quality(*draw_skin((lightness, 13, 18))) == Quality()


@pytest.mark.parametrize("kind", SPOILT)
@pytest.mark.parametrize("enlarged", [1, 4])
def test_each_fault_is_named_at_any_size(kind: str, enlarged: int) -> None:
    photo, mask = draw_skin()
    photo, mask = (np.kron(pixels, np.ones((enlarged, enlarged, 1), np.uint8)) for pixels in (photo, mask[..., None]))
    assert kinds(assess_quality(SPOILT[kind](photo), mask[..., 0])) == {kind}


def test_a_photo_of_nothing_is_answered() -> None:
    assert {"dark", "blurred"} <= kinds(assess_quality(np.zeros((300, 400, 3), np.uint8)))
    assert {"overexposed", "blurred"} <= kinds(assess_quality(np.full((300, 400, 3), 255, np.uint8)))


@pytest.mark.parametrize("size", [(1, 1), (3, 500), (40, 1)])
def test_tiny_photos_are_too_small(size: tuple[int, int]) -> None:
    photo = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    assert "too small" in kinds(assess_quality(photo, np.ones(size, np.uint8)))
    assert "too small" not in kinds(assess_quality(draw_skin()[0]))


@pytest.mark.parametrize(
    ("lesion_at", "edges"),
    [
        ((10, 200), ("top",)),
        ((150, 0), ("left",)),
        ((290, 200), ("bottom",)),
        ((150, 395), ("right",)),
        ((10, 10), ("top", "left")),
        ((54, 200), ()),
    ],
)
def test_the_edges_that_cut_a_lesion_are_named(lesion_at: tuple[int, int], edges: tuple[str, ...]) -> None:
    expected = (QualityIssue("lesion cut off", edges),) if edges else ()
    assert assess_quality(*draw_skin(lesion_at=lesion_at)) == Quality(expected)


def test_specks_and_a_black_rim_cut_nothing_off() -> None:
    photo, mask = draw_skin()
    speck = mask.copy()
    speck[:2, 300:312] = 1
    assert assess_quality(photo, speck) == Quality()
    row, column = np.mgrid[:300, :400]
    rim = np.hypot(row - 150, column - 200) > 190
    photo[rim] = 4
    assert assess_quality(photo, mask | rim.astype(np.uint8)) == Quality()


# Skin tone


@pytest.mark.parametrize(
    ("ita", "category"),
    [
        (70, "very light"),
        (48, "light"),
        (34, "intermediate"),
        (20, "tan"),
        (-10, "brown"),
        (-50, "dark"),
    ],
)
def test_the_tone_of_a_drawn_skin(ita: float, category: str) -> None:
    yellowness = 9.0 if abs(ita) > 60 else 16.0
    photo, mask = draw_skin((50 + yellowness * np.tan(np.radians(ita)), 10, yellowness))
    tone = estimate_skin_tone(photo, mask)
    assert tone is not None
    assert tone.category == category
    assert tone.ita_degrees == pytest.approx(ita, abs=2)


@law
@given(st.integers(40, 110), st.integers(0, 250))
def test_lesion_hair_rim_and_highlights_leave_the_tone(down: int, right: int) -> None:
    plain = estimate_skin_tone(*draw_skin())
    photo, mask = draw_skin(lesion_at=(190, 60))
    photo[down : down + 3, :] = photo[:, right : right + 3] = (30, 22, 20)
    photo[down + 20 : down + 24, right + 60 : right + 66] = 255
    photo[:60, -60:] = 0
    tone = estimate_skin_tone(photo, mask)
    assert tone is not None
    assert plain is not None
    assert tone.ita_degrees == pytest.approx(plain.ita_degrees, abs=1.5)


@pytest.mark.parametrize("colour", [(128, 128, 128), (60, 90, 200), (0, 0, 0), (255, 255, 255), (40, 160, 60)])
def test_where_no_skin_is_seen_there_is_no_tone(colour: tuple[int, int, int]) -> None:
    assert estimate_skin_tone(np.full((50, 60, 3), colour, np.uint8)) is None


def test_a_lesion_all_over_leaves_no_skin() -> None:
    photo, mask = draw_skin()
    assert estimate_skin_tone(photo, np.ones_like(mask)) is None


def test_size_changes_no_tone() -> None:
    photo = draw_skin()[0]
    tones = [estimate_skin_tone(resize_photo(photo, size)) for size in ((300, 400), (1200, 1600))]
    assert tones[0] is not None
    assert tones[1] is not None
    assert tones[0].ita_degrees == pytest.approx(tones[1].ita_degrees, abs=0.5)


# Real photos


def real_photos(start: str, count: int) -> list[tuple[np.ndarray, np.ndarray | None]]:
    """Photos of the validation split, and their masks where they have any."""
    names = json.loads((PHOTOS / "splits.json").read_text())["val"]
    chosen = [name for name in names if name.startswith(start)]
    return [
        (read_photo(next((PHOTOS / "images").rglob(name))), next(map(read_mask, masks_of(name)), None))
        for name in chosen[:: len(chosen) // count]
    ]


def masks_of(name: str) -> Iterator[Path]:
    return (PHOTOS / "masks").rglob(f"{Path(name).stem}.*")


@pytest.mark.skipif(not PHOTOS.is_dir(), reason="needs ../shared/data, which is not part of the repository")
@pytest.mark.parametrize("start", ["isic18_", "hair", "skin"])
def test_few_real_photos_are_flagged_and_most_spoilt_ones(start: str) -> None:
    photos = real_photos(start, 12)
    asis = [kinds(assess_quality(photo, mask)) for photo, mask in photos]
    for kind in SPOILT:
        assert np.mean([kind in found for found in asis]) <= 0.2, kind
    # Hair and skin hold scenes, in which uneven light cannot be told from what there is, and white backgrounds.
    for kind in SPOILT if start == "isic18_" else ("blurred", "dark"):
        spoilt = [kinds(assess_quality(SPOILT[kind](photo), mask)) for photo, mask in photos]
        assert np.mean([kind in found for found in spoilt]) >= 0.65, kind
