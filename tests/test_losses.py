"""The loss against its definition, and its laws: a missing target adds nothing, to the bit."""

from dataclasses import dataclass, replace
from random import Random

import pytest
import torch
import torch.nn.functional as F
from builders import law
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mtl.config import NO_CLASS, UNKNOWN
from mtl.losses import LossSums, classification_sum, multitask_sums

GROUPS = [range(0, 5), range(5, 10)]
CLASSES = 10
ALL = torch.ones(CLASSES, dtype=torch.bool)
MISSING = (UNKNOWN, UNKNOWN)
NONE = (NO_CLASS, NO_CLASS)

pytestmark = pytest.mark.usefixtures("one_thread")


@dataclass(frozen=True)
class Photos:
    """N photos: logits and targets, as `multitask_sums` takes them."""

    class_logits: Tensor  # (N, 10)
    seg_logits: Tensor  # (N, 1, 4, 4)
    class_targets: Tensor  # (N, 2)
    mask_targets: Tensor  # (N, 1, 4, 4)
    has_mask: Tensor  # (N,)

    def __getitem__(self, chosen: Tensor | slice) -> "Photos":
        return Photos(*(value[chosen] for value in vars(self).values()))

    def sums(self, trained: Tensor = ALL) -> LossSums:
        return multitask_sums(**vars(self), group_ids=GROUPS, trained=trained)

    def gradients(self, trained: Tensor = ALL) -> tuple[Tensor, Tensor]:
        """Of the training loss, on the class logits and on the mask logits."""
        class_logits, seg_logits = (logits.clone().requires_grad_() for logits in (self.class_logits, self.seg_logits))
        sums = replace(self, class_logits=class_logits, seg_logits=seg_logits).sums(trained)
        classification, segmentation = sums.means()
        gradients = torch.autograd.grad(classification + 0.5 * segmentation, (class_logits, seg_logits))
        return gradients[0], gradients[1]


def photos(targets: list[tuple[int, int]], has_mask: list[bool], seed: int) -> Photos:
    draw = torch.Generator().manual_seed(seed)
    count = len(targets)
    return Photos(
        4 * torch.randn(count, CLASSES, generator=draw),
        4 * torch.randn(count, 1, 4, 4, generator=draw),
        torch.tensor(targets, dtype=torch.int64).reshape(count, 2),
        torch.rand(count, 1, 4, 4, generator=draw),
        torch.tensor(has_mask, dtype=torch.bool),
    )


KNOWN_TARGETS = st.one_of(
    st.just(NONE),
    st.tuples(st.integers(0, 4), st.just(UNKNOWN)),
    st.tuples(st.just(UNKNOWN), st.integers(5, 9)),
    st.tuples(st.integers(0, 4), st.integers(5, 9)),
)
PHOTO = st.tuples(st.just(MISSING) | KNOWN_TARGETS, st.booleans())
SEEDS = st.integers(0, 2**31 - 1)
TRAINED = st.lists(st.booleans(), min_size=CLASSES, max_size=CLASSES).filter(any).map(torch.tensor)


@st.composite
def batches(draw: st.DrawFn, min_size: int = 0) -> Photos:
    drawn = draw(st.lists(PHOTO, min_size=min_size, max_size=8))
    return photos([target for target, _ in drawn], [mask for _, mask in drawn], draw(SEEDS))


def is_equal(first: LossSums, second: LossSums) -> bool:
    return all(torch.equal(a, b) for a, b in zip(vars(first).values(), vars(second).values(), strict=True))


def known(batch: Photos, trained: Tensor) -> Tensor:
    """(N,) which photos have a class target that counts."""
    targets = batch.class_targets
    return (targets == NO_CLASS).all(1) | ((targets >= 0) & trained[targets.clamp(min=0)]).any(1)


# A missing target


@law
@given(batches(), TRAINED)
def test_a_missing_target_changes_nothing_to_the_bit(batch: Photos, trained: Tensor) -> None:
    labelled, masked = known(batch, trained), batch.has_mask
    sums, of_labelled, of_masked = (part.sums(trained) for part in (batch, batch[labelled], batch[masked]))
    assert torch.equal(sums.classification, of_labelled.classification)
    assert torch.equal(sums.segmentation, of_masked.segmentation)
    assert (sums.classified, sums.segmented) == (labelled.sum(), masked.sum())

    class_gradient, seg_gradient = batch.gradients(trained)
    assert torch.equal(class_gradient[labelled], batch[labelled].gradients(trained)[0])
    assert torch.equal(seg_gradient[masked], batch[masked].gradients(trained)[1])
    assert not class_gradient[~labelled].any()
    assert not seg_gradient[~masked].any()
    assert not class_gradient[:, ~trained].any()


@law
@given(batches(), st.sampled_from([float("nan"), float("inf"), -float("inf"), 1e30]))
def test_no_number_behind_a_missing_target_gets_through(batch: Photos, garbage: float) -> None:
    labelled, masked = known(batch, ALL), batch.has_mask
    spoilt = replace(
        batch,
        class_logits=torch.where(labelled[:, None], batch.class_logits, garbage),
        seg_logits=torch.where(masked[:, None, None, None], batch.seg_logits, garbage),
        mask_targets=torch.where(masked[:, None, None, None], batch.mask_targets, garbage),
    )
    assert is_equal(spoilt.sums(), batch.sums())
    for gradient, expected in zip(spoilt.gradients(), batch.gradients(), strict=True):
        assert torch.equal(gradient, expected)


def test_no_target_at_all_is_a_loss_of_zero() -> None:
    nothing = photos([MISSING] * 3, [False] * 3, seed=0)
    for batch in (nothing, nothing[:0]):
        assert not any(torch.stack([*batch.sums().means(), batch.sums().classified, batch.sums().segmented]))
        assert not any(gradient.any() for gradient in batch.gradients())


def test_an_all_zero_mask_is_a_target_and_an_absent_one_is_not() -> None:
    batch = photos([MISSING] * 2, [True, False], seed=0)
    lesion_free = replace(batch, mask_targets=torch.zeros_like(batch.mask_targets))
    assert lesion_free.sums().segmented == 1
    expected = F.softplus(batch.seg_logits[0]).mean()  # the cross-entropy against 0
    torch.testing.assert_close(lesion_free.sums().segmentation, expected)
    assert lesion_free.gradients()[1][0].all()
    assert not lesion_free.gradients()[1][1].any()


# The definition


def classification_of(batch: Photos, trained: Tensor = ALL) -> float:
    total, count = classification_sum(batch.class_logits, batch.class_targets, GROUPS, trained)
    assert count == len(batch.class_logits)
    return total.item()


@law
@given(st.integers(0, 9), SEEDS, TRAINED)
def test_one_label_is_cross_entropy_over_the_trained_classes(class_id: int, seed: int, trained: Tensor) -> None:
    trained = trained.clone()
    trained[class_id] = True
    batch = photos([(class_id, UNKNOWN) if class_id < 5 else (UNKNOWN, class_id)], [False], seed)
    place = torch.tensor([int(trained[:class_id].sum())])
    expected = F.cross_entropy(batch.class_logits[:, trained], place)
    assert classification_of(batch, trained) == pytest.approx(expected.item(), abs=1e-5)


@law
@given(st.integers(0, 4), st.integers(5, 9), SEEDS, TRAINED)
def test_two_labels_are_the_mean_over_their_groups(skin: int, hair: int, seed: int, trained: Tensor) -> None:
    trained = trained.clone()
    trained[[skin, hair]] = True
    batch = photos([(skin, hair)], [False], seed)
    logits = batch.class_logits.masked_fill(~trained, -torch.inf)
    first = F.cross_entropy(logits[:, :5], torch.tensor([skin]))
    second = F.cross_entropy(logits[:, 5:], torch.tensor([hair - 5]))
    assert classification_of(batch, trained) == pytest.approx(((first + second) / 2).item(), abs=1e-5)


@law
@given(SEEDS, TRAINED)
def test_none_is_cross_entropy_against_the_uniform_distribution(seed: int, trained: Tensor) -> None:
    batch = photos([NONE], [False], seed)
    uniform = torch.full((1, int(trained.sum())), 1 / int(trained.sum()))
    expected = F.cross_entropy(batch.class_logits[:, trained], uniform)
    assert classification_of(batch, trained) == pytest.approx(expected.item(), abs=1e-5)


@law
@given(SEEDS)
def test_a_label_of_an_untrained_class_counts_as_unknown(seed: int) -> None:
    trained = ALL.clone()
    trained[[1, 7]] = False
    labelled = photos([(1, UNKNOWN), (UNKNOWN, 7), (1, 7), (1, 8), (2, 7)], [False] * 5, seed)
    counted = replace(labelled, class_targets=torch.tensor([MISSING, MISSING, MISSING, (UNKNOWN, 8), (2, UNKNOWN)]))
    assert is_equal(labelled.sums(trained), counted.sums(trained))
    assert labelled.sums(trained).classified == 2


@law
@given(SEEDS)
def test_masks_are_binary_cross_entropy_averaged_over_each_photo(seed: int) -> None:
    batch = photos([MISSING] * 3, [True, False, True], seed)
    chosen = batch.has_mask
    expected = F.binary_cross_entropy_with_logits(batch.seg_logits[chosen], batch.mask_targets[chosen])
    torch.testing.assert_close(batch.sums().means()[1], expected)


# Sums


@law
@given(batches(min_size=1), st.data(), TRAINED)
def test_parts_add_up_to_the_whole(batch: Photos, data: st.DataObject, trained: Tensor) -> None:
    cut = data.draw(st.integers(0, len(batch.has_mask)))
    whole, parts = batch.sums(trained), batch[:cut].sums(trained) + batch[cut:].sums(trained)
    assert (parts.classified, parts.segmented) == (whole.classified, whole.segmented)
    for part, of_whole in zip(parts.means(), whole.means(), strict=True):
        torch.testing.assert_close(part, of_whole)


@law
@given(batches(min_size=1), st.randoms(use_true_random=False), TRAINED)
def test_order_changes_nothing(batch: Photos, random: Random, trained: Tensor) -> None:
    order = torch.tensor(random.sample(range(len(batch.has_mask)), len(batch.has_mask)))
    for shuffled, expected in zip(batch[order].sums(trained).means(), batch.sums(trained).means(), strict=True):
        torch.testing.assert_close(shuffled, expected)


@law
@given(batches())
def test_half_precision_logits_are_computed_in_single(batch: Photos) -> None:
    half = replace(batch, class_logits=batch.class_logits.bfloat16(), seg_logits=batch.seg_logits.bfloat16())
    single = replace(half, class_logits=half.class_logits.float(), seg_logits=half.seg_logits.float())
    assert is_equal(half.sums(), single.sums())


@law
@given(st.integers(0, 2**31 - 1), st.floats(0, 0.9))
def test_labels_are_smoothed_as_torch_does_it(seed: int, smoothing: float) -> None:
    batch = photos([(0, UNKNOWN), (UNKNOWN, 7), (UNKNOWN, 9)], [False] * 3, seed)
    total, count = classification_sum(batch.class_logits, batch.class_targets, GROUPS, ALL, label_smoothing=smoothing)
    labels = torch.tensor([0, 7, 9])
    expected = F.cross_entropy(batch.class_logits, labels, reduction="sum", label_smoothing=smoothing)
    torch.testing.assert_close(total, expected)
    assert count == 3


def test_smoothing_spreads_over_trained_classes_only() -> None:
    batch, trained = photos([(0, UNKNOWN), (1, 7)], [False] * 2, 0), ALL.clone()
    trained[4] = trained[8] = False
    total, _ = classification_sum(batch.class_logits, batch.class_targets, GROUPS, trained, label_smoothing=0.1)
    kept = [[c for c in range(CLASSES) if trained[c]], [0, 1, 2, 3], [5, 6, 7, 9]]
    one, skin, hair = (
        F.cross_entropy(batch.class_logits[row : row + 1, ids], torch.tensor([place]), label_smoothing=0.1)
        for row, ids, place in zip((0, 1, 1), kept, (0, 1, 2), strict=True)
    )
    torch.testing.assert_close(total, one + (skin + hair) / 2)
