"""Test-time augmentation: the network asked again about mirrored and turned views of a photo, and the mean of it all.

The mean is the same for a photo and its mirrored one (with "turns" for a turned one, too), with the mask to match.
"""

from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

import numpy as np

from mtl.errors import ConfigError

if TYPE_CHECKING:
    from mtl.analysis.engine import Engine, Outputs

Tta = Literal["off", "flips", "turns"]


class View(NamedTuple):
    """Squares turned by quarters against the clock, then mirrored left-right or not."""

    quarters: int
    mirrored: bool

    def of(self, squares: np.ndarray) -> np.ndarray:
        """(N, S, S, ...) -> the same shape, each square seen so."""
        turned = np.rot90(squares, self.quarters, axes=(1, 2))
        # PyTorch takes no array that is read backwards.
        return np.ascontiguousarray(np.flip(turned, 2) if self.mirrored else turned)

    def undo(self, maps: np.ndarray) -> np.ndarray:
        """The inverse of `of`."""
        turned = np.flip(maps, 2) if self.mirrored else maps
        return np.rot90(turned, -self.quarters, axes=(1, 2))


# The photo as it is comes first.
VIEWS: dict[Tta, tuple[View, ...]] = {
    "off": (View(0, False),),
    "flips": tuple(View(quarters, mirrored) for quarters in (0, 2) for mirrored in (False, True)),
    "turns": tuple(View(quarters, mirrored) for quarters in range(4) for mirrored in (False, True)),
}


class TurnedEngine:
    """Another engine's mean over several views of each square; what kind of picture it is, of the first view alone."""

    def __init__(self, engine: "Engine", views: tuple[View, ...]):
        self._engine, self._views = engine, views

    def __call__(self, squares: np.ndarray) -> "Outputs":
        """One view after the other, so that a batch takes no more memory than without them."""
        plain = self._engine(self._views[0].of(squares))
        # In float64 the order of the views, which is another one for a mirrored photo, does not show in the sum.
        class_logits, mask_logits = plain.class_logits.astype(np.float64), plain.mask_logits.astype(np.float64)
        for view in self._views[1:]:
            seen = self._engine(view.of(squares))
            class_logits += seen.class_logits
            mask_logits += view.undo(seen.mask_logits)
        return plain._replace(class_logits=self._mean(class_logits), mask_logits=self._mean(mask_logits))

    def _mean(self, total: np.ndarray) -> np.ndarray:
        return (total / len(self._views)).astype(np.float32)


def with_views(engine: "Engine", kind: Tta) -> "Engine":
    """An engine that averages over the views of `kind`; the engine itself for "off". Raises ConfigError."""
    require_tta(kind)
    return engine if kind == "off" else TurnedEngine(engine, VIEWS[kind])


def require_tta(kind: object) -> None:
    """Raise ConfigError where it is no kind of views."""
    if kind not in get_args(Tta):
        raise ConfigError(f"tta: got {kind}; needed off, flips or turns")
