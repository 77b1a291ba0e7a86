"""The decoder: what it makes of ordinary, odd and hostile pictures, and the geometry of resizing."""

import csv
import struct
import time
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from mtl.errors import PhotoError
from mtl.photo import photo_size, read_mask, read_photo, resize_map, resize_photo

CORPORA = Path(__file__).parents[2] / "shared" / "corpora"


def encode(image: Image.Image | np.ndarray, format: str, **options: object) -> bytes:
    buffer = BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(buffer, format, **options)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    """(240, 320, 3): smooth colours that differ in every corner."""
    blocks = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return np.array(Image.fromarray(blocks).resize((320, 240), Image.Resampling.BICUBIC))


def png_of(header: tuple[int, ...], raw: bytes) -> bytes:
    """A PNG with this IHDR (width, height, depth, colour, 0, 0, 0) and these unpacked rows."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    parts = ((b"IHDR", struct.pack(">IIBBBBB", *header)), (b"IDAT", zlib.compress(raw)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def with_jpeg_size(jpeg: bytes, height: int, width: int) -> bytes:
    """The same data behind a header that claims another size."""
    start = max(jpeg.find(b"\xff\xc0"), jpeg.find(b"\xff\xc2")) + 5
    return jpeg[:start] + struct.pack(">HH", height, width) + jpeg[start + 4 :]


# Photos


def turned(image: Image.Image, orientation: int) -> Image.Image:
    """Lay an upright picture down, so that this EXIF orientation brings it back."""
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    return image.transpose(undo[orientation]) if orientation in undo else image


@pytest.mark.parametrize("format", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_gives_the_same_upright_photo(photo: np.ndarray, format: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if format == "WEBP" else {}
    file = encode(turned(Image.fromarray(photo), orientation), format, exif=exif, **options)
    assert np.array_equal(read_photo(file), photo)
    assert photo_size(file) == photo.shape[:2]


# HEIC, as telephones write it


def encode_heic(photo: np.ndarray, **options: object) -> bytes:
    """Without loss but for the rounding of its colours."""
    buffer = BytesIO()
    pillow_heif.from_pillow(Image.fromarray(photo)).save(buffer, quality=-1, chroma=444, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_heic_is_turned_once(photo: np.ndarray, orientation: int) -> None:
    """Telephones say the orientation twice, in the container and in EXIF, of which the container's counts."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = encode_heic(np.asarray(turned(Image.fromarray(photo), orientation)), exif=exif.tobytes())
    assert exif.tobytes().removeprefix(b"Exif\0\0") in file
    assert np.abs(read_photo(file).astype(int) - photo).max() <= 2
    assert photo_size(file) == photo.shape[:2]


def test_heic_of_10_bits(photo: np.ndarray) -> None:
    file = BytesIO()
    size = (photo.shape[1], photo.shape[0])
    pillow_heif.encode("RGB;16", size, (photo.astype(np.uint16) * 257).tobytes(), file, quality=-1, chroma=444)
    assert pillow_heif.open_heif(file).info["bit_depth"] == 10
    assert np.abs(read_photo(file.getvalue()).astype(int) - photo).max() <= 2


def test_heic_in_tiles_and_from_a_file(photo: np.ndarray, tmp_path: Path) -> None:
    (tmp_path / "IMG_1.HEIC").write_bytes(encode_heic(photo, tile_size=128))
    assert np.abs(read_photo(tmp_path / "IMG_1.HEIC").astype(int) - photo).max() <= 2


def test_the_profile_of_heic_is_converted_to_srgb(photo: np.ndarray) -> None:
    decoded = read_photo(encode_heic(photo, icc_profile=sbgr_profile()))
    assert np.abs(decoded.astype(int) - photo[..., ::-1]).max() <= 3


def test_heic_with_alpha_is_laid_on_white() -> None:
    rgba = np.zeros((64, 64, 4), np.uint8)
    rgba[:, 32:] = (200, 0, 0, 255)
    decoded = read_photo(encode_heic(rgba)).astype(int)
    assert np.abs(decoded[0, [0, 63]] - [[255, 255, 255], [200, 0, 0]]).max() <= 2


@pytest.mark.parametrize("brand", [b"heic", b"heix", b"mif1"])
def test_heic_goes_by_its_brands(photo: np.ndarray, brand: bytes) -> None:
    file = encode_heic(photo)
    assert read_photo(file[:8] + brand + file[12:]).shape == photo.shape


def test_avif_under_the_general_brand_stays_with_pillow(photo: np.ndarray) -> None:
    file = encode(photo, "AVIF", quality=95)
    assert read_photo(file[:8] + b"mif1" + file[12:]).shape == photo.shape


@pytest.mark.parametrize("claimed", [(20_000, 20_000), (7_000, 7_000), (40, 30)])
def test_heic_whose_header_lies_about_its_size_is_refused(photo: np.ndarray, claimed: tuple[int, int]) -> None:
    file = encode_heic(photo)
    assert refusal(file.replace(struct.pack(">II", 320, 240), struct.pack(">II", *claimed)))


@pytest.mark.parametrize("kept", [0.02, 0.3, 0.9, 0.99])
def test_a_cut_heic_is_refused(photo: np.ndarray, kept: float) -> None:
    file = encode_heic(photo)
    assert "needed" in refusal(file[: int(len(file) * kept)])


def test_what_others_can_open_stays_as_it_is(photo: np.ndarray) -> None:
    read_photo(encode_heic(photo))
    assert "HEIF" not in Image.OPEN


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_turns_nothing(photo: np.ndarray, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert np.array_equal(read_photo(encode(photo, "PNG", exif=exif)), photo)


def test_a_mask_is_turned_like_its_photo() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    mask = np.zeros((20, 30), np.uint8)
    mask[:5, :7] = 255
    file = encode(turned(Image.fromarray(mask), 6), "PNG", exif=exif)
    assert np.array_equal(read_mask(file), mask // 255)


@pytest.mark.parametrize(
    "ramp",
    [
        np.linspace(0, 65535, 256).astype(np.uint16),
        np.linspace(0, 65535, 256).astype(np.int32),
        np.linspace(0, 1, 256).astype(np.float32),
        np.linspace(0, 255, 256).astype(np.float32),
    ],
    ids=["uint16", "int32", "float 0..1", "float 0..255"],
)
def test_deep_greys_are_scaled_and_not_saturated(ramp: np.ndarray) -> None:
    photo = read_photo(encode(np.tile(ramp, (16, 1)), "TIFF"))
    assert photo.shape == (16, 256, 3)
    assert photo.mean() == pytest.approx(127.5, abs=2)
    assert np.abs(photo[0, :, 0].astype(int) - np.arange(256)).max() <= 1


def test_a_16_bit_png_is_scaled() -> None:
    ramp = np.tile(np.linspace(0, 65535, 256).astype(np.uint16), (16, 1))
    assert read_photo(encode(ramp, "PNG")).mean() == pytest.approx(127.5, abs=2)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_pixels_that_are_no_numbers_are_refused(value: float) -> None:
    with pytest.raises(PhotoError, match="no numbers"):
        read_photo(encode(np.full((8, 8), value, np.float32), "TIFF"))


def test_alpha_is_laid_on_white() -> None:
    rgba = np.zeros((2, 3, 4), np.uint8)
    rgba[:, 1] = (200, 0, 0, 255)
    rgba[:, 2] = (0, 0, 0, 128)
    expected = [[255, 255, 255], [200, 0, 0], [127, 127, 127]]
    for source in (encode(rgba, "PNG"), Image.fromarray(rgba), rgba):
        assert read_photo(source)[0].tolist() == expected


def test_cmyk_is_converted(photo: np.ndarray) -> None:
    decoded = read_photo(encode(Image.fromarray(photo).convert("CMYK"), "JPEG", quality=95))
    assert np.abs(decoded.astype(int) - photo).mean() < 4


def sbgr_profile() -> bytes:
    """sRGB's profile with the primaries of red and blue exchanged: a conversion must exchange the channels."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for old, new in ((b"rXYZ", b"____"), (b"bXYZ", b"rXYZ"), (b"____", b"bXYZ")):
        profile = profile.replace(old, new)
    return profile.replace("sRGB".encode("utf-16-be"), "sBGR".encode("utf-16-be"))


def test_an_embedded_profile_is_converted_to_srgb(photo: np.ndarray) -> None:
    decoded = read_photo(encode(photo, "PNG", icc_profile=sbgr_profile()))
    assert np.abs(decoded.astype(int) - photo[..., ::-1]).max() <= 2


def test_lab_is_converted_to_srgb() -> None:
    lab = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
    red = Image.new("RGB", (16, 16), (200, 40, 60))
    decoded = read_photo(encode(ImageCms.applyTransform(red, lab), "TIFF"))
    assert np.abs(decoded.astype(int) - np.array(red)).max() <= 6  # LAB of 8 bits is coarse


@pytest.mark.parametrize("profile", [b"no profile", ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()])
def test_a_broken_or_foreign_profile_leaves_the_colours(photo: np.ndarray, profile: bytes) -> None:
    assert np.array_equal(read_photo(encode(photo, "PNG", icc_profile=profile)), photo)


def test_the_first_frame_of_an_animation_is_read(photo: np.ndarray) -> None:
    first, second = Image.fromarray(photo), Image.fromarray(255 - photo)
    file = encode(first, "WEBP", save_all=True, append_images=[second], lossless=True)
    assert np.array_equal(read_photo(file), photo)


def test_a_photo_larger_than_a_strip_comes_out_whole() -> None:
    photo = np.random.default_rng(1).integers(0, 256, (2500, 2000, 3), dtype=np.uint8)
    assert np.array_equal(read_photo(photo), photo)


@pytest.mark.parametrize("min_side", [1, 100, 224, 239, 240, 5000])
def test_min_side_is_kept_unless_the_photo_is_smaller(photo: np.ndarray, min_side: int) -> None:
    decoded = read_photo(encode(photo, "JPEG"), min_side=min_side)
    height, width = decoded.shape[:2]
    assert min(min_side, 240) <= height <= 240
    assert width == pytest.approx(height * 320 / 240, abs=1)


def test_a_small_min_side_reads_less(photo: np.ndarray) -> None:
    assert read_photo(encode(photo, "JPEG"), min_side=60).shape == (60, 80, 3)


@pytest.mark.parametrize("sides", [(1793, 1793), (1792, 1793), (1793, 1792), (1796, 1792), (1794, 1792), (1792, 1792)])
def test_reading_less_moves_nothing(sides: tuple[int, int]) -> None:
    height, width = sides
    photo = np.zeros((height, width, 3), np.uint8)
    photo[-80:] = photo[:, -80:] = 255
    file = encode(photo, "JPEG", quality=100, subsampling=0)
    less, whole = (resize_photo(read_photo(file, min_side=side), 224) for side in (224, None))
    # What is bright in a column or row, in pixels of the square: the bands' breadths.
    for axis in (0, 1):
        assert less[..., 0].mean(axis=axis).sum() == pytest.approx(whole[..., 0].mean(axis=axis).sum(), rel=0.002)
        breadths = [picture[..., 0].take(20, axis=axis).sum() / 255 for picture in (less, whole)]
        assert breadths[0] == pytest.approx(breadths[1], abs=0.05)


def test_a_pil_picture_of_the_caller_stays_as_it_is(photo: np.ndarray) -> None:
    image = Image.open(BytesIO(encode(photo, "JPEG")))
    read_photo(image, min_side=10)
    assert image.size == (320, 240)
    assert np.array_equal(np.asarray(image), read_photo(encode(photo, "JPEG")))


@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 3), (6, 5, 4)])
def test_arrays_are_taken(shape: tuple[int, ...]) -> None:
    photo = read_photo(np.full(shape, 255, np.uint8))
    assert photo.shape == (6, 5, 3)
    assert photo.dtype == np.uint8
    assert (photo == 255).all()


@pytest.mark.parametrize(
    "array",
    [np.zeros((6, 5, 3), np.float32), np.zeros((6, 5, 2), np.uint8), np.zeros(6, np.uint8), np.zeros((0, 5), np.uint8)],
    ids=["float", "two channels", "flat", "empty"],
)
def test_other_arrays_are_refused(array: np.ndarray) -> None:
    with pytest.raises(PhotoError, match="needed"):
        read_photo(array)


def test_the_result_never_shares_the_callers_memory() -> None:
    source = np.zeros((6, 5, 3), np.uint8)
    read_photo(source)[:] = 255
    assert not source.any()


# Refusals


def refusal(source: bytes | Path) -> str:
    with pytest.raises(PhotoError) as caught:
        read_photo(source)
    return str(caught.value)


def test_more_pixels_than_the_cap_are_refused_before_decoding() -> None:
    file = encode(Image.new("1", (10_001, 10_000)), "PNG")
    started = time.monotonic()
    assert "10001 x 10000" in refusal(file)
    assert time.monotonic() - started < 0.5
    assert "pixels" in refusal(png_of((60_000, 60_000, 8, 2, 0, 0, 0), b""))


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("size", [(12_000, 12_000), (8_000, 8_000), (600, 320), (256, 320)])
def test_a_jpeg_header_that_claims_more_than_the_data_is_refused(
    photo: np.ndarray, progressive: bool, size: tuple[int, int]
) -> None:
    assert refusal(with_jpeg_size(encode(photo, "JPEG", progressive=progressive), *size))


@pytest.mark.parametrize("kept", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("end", [b"", b"\xff\xd9"], ids=["no end marker", "end marker"])
def test_a_cut_jpeg_is_refused(photo: np.ndarray, kept: float, end: bytes) -> None:
    file = encode(photo, "JPEG", quality=95)
    assert "cut short" in refusal(file[: int(len(file) * kept)] + end)


@pytest.mark.parametrize("options", [{}, {"optimize": True}, {"progressive": True}], ids=str)
def test_a_photo_that_is_truly_grey_passes(options: dict[str, bool]) -> None:
    grey = np.full((300, 500, 3), 128, np.uint8)
    assert np.array_equal(read_photo(encode(grey, "JPEG", **options)), grey)


def test_a_png_of_too_few_rows_is_refused() -> None:
    rows = b"".join(b"\0" + bytes([90]) * 300 for _ in range(10))
    assert read_photo(png_of((100, 10, 8, 2, 0, 0, 0), rows)).shape == (10, 100, 3)
    assert "cut short" in refusal(png_of((100, 11, 8, 2, 0, 0, 0), rows))


def test_a_jpeg_of_very_many_scans_is_refused(photo: np.ndarray) -> None:
    file = encode(photo, "JPEG", progressive=True)
    last_scan = file[file.rfind(b"\xff\xda") : -2]
    assert "passes" in refusal(file[:-2] + last_scan * 200 + file[-2:])


@pytest.mark.parametrize("format", ["PNG", "GIF", "BMP", "TIFF", "WEBP", "AVIF"])
def test_half_a_file_is_refused(photo: np.ndarray, format: str) -> None:
    file = encode(photo, format)
    assert "needed" in refusal(file[: len(file) // 2])


@pytest.mark.parametrize("format", ["EPS", "PDF", "ICO", "TGA", "PPM"])
def test_formats_outside_the_list_are_refused(photo: np.ndarray, format: str) -> None:
    assert "JPEG, PNG" in refusal(encode(photo, format))


@pytest.mark.parametrize(
    ("content", "name"),
    [(b"\xff\x0a" + bytes(40), "JPEG XL"), (b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(40), "JPEG 2000")],
)
def test_formats_that_are_not_read_yet_are_named(tmp_path: Path, content: bytes, name: str) -> None:
    (tmp_path / "IMG_1.jpg").write_bytes(content)
    assert refusal(tmp_path / "IMG_1.jpg") == f"IMG_1.jpg: {name} is not read yet: save it as JPEG or PNG"
    assert f"{name} is not read yet" in refusal(content)


def test_messages_name_the_file_on_one_line_and_not_its_folder(tmp_path: Path) -> None:
    (tmp_path / "a\nb.png").write_bytes(b"nothing")
    (tmp_path / "empty.jpg").touch()
    for path in (tmp_path / "a\nb.png", tmp_path / "empty.jpg", tmp_path / "missing.jpg", tmp_path):
        message = refusal(path)
        assert message.startswith(path.name.replace("\n", "?") + ": ")
        assert "needed" in message
        assert "\n" not in message
        assert str(tmp_path.parent) not in message


# Masks


@pytest.mark.parametrize("format", ["PNG", "GIF", "BMP", "TIFF"])
@pytest.mark.parametrize("lesion", [1, 128, 255])
def test_masks_of_every_format_and_value(format: str, lesion: int) -> None:
    mask = np.zeros((30, 70), np.uint8)
    mask[5:9, 10:60] = lesion
    read = read_mask(encode(mask, format))
    assert read.dtype == np.uint8
    assert np.array_equal(read, mask > 0)


def test_grey_is_cut_above_127() -> None:
    assert read_mask(np.array([[0, 1, 127, 128, 255]], np.uint8)).tolist() == [[0, 0, 0, 1, 1]]


def test_an_empty_mask_stays_empty() -> None:
    assert not read_mask(encode(np.zeros((9, 9), np.uint8), "PNG")).any()


@pytest.mark.parametrize("peak", [1, 255, 65535])
def test_16_bit_masks_are_scaled(peak: int) -> None:
    mask = np.zeros((8, 70), np.uint16)
    mask[2:4, 3:9] = peak
    assert np.array_equal(read_mask(encode(mask, "PNG")), mask > 0)


def test_a_palette_counts_by_its_colours() -> None:
    mask = Image.fromarray(np.array([[0, 1, 2]], np.uint8), "L")
    mask.putpalette([255, 255, 255, 0, 0, 0, 255, 255, 0])
    assert read_mask(encode(mask, "PNG")).tolist() == [[1, 0, 1]]


def test_one_bit_masks() -> None:
    assert read_mask(encode(Image.fromarray(np.array([[True, False]])), "PNG")).tolist() == [[1, 0]]


def test_a_mask_drawn_on_nothing() -> None:
    rgba = np.full((1, 2, 4), 255, np.uint8)
    rgba[0, 1, 3] = 0
    assert read_mask(encode(rgba, "PNG")).tolist() == [[1, 0]]


# Geometry

sides = st.integers(40, 600)


@settings(max_examples=60, deadline=None)
@given(sides, sides, st.data())
def test_mask_to_network_and_back_keeps_the_centre_of_mass(height: int, width: int, data: st.DataObject) -> None:
    """(H, W) -> (112, 112) -> (H, W), for rectangles that the edges do not cut, at any aspect ratio."""
    spans = []
    for side in (height, width):
        margin = 4 * max(1, side // 112 + 1)
        start = data.draw(st.integers(margin, side - margin - 4))
        spans.append((start, data.draw(st.integers(start + 4, side - margin))))
    (top, bottom), (left, right) = spans
    mask = np.zeros((height, width), np.float32)
    mask[top:bottom, left:right] = 1
    back = resize_map(resize_map(mask, 112, 112), height, width)
    y, x = (np.average(np.arange(n), weights=back.sum(axis)) for n, axis in ((height, 1), (width, 0)))
    assert abs(y - (top + bottom - 1) / 2) < 0.5
    assert abs(x - (left + right - 1) / 2) < 0.5


@pytest.mark.parametrize(("size", "shape"), [(224, (224, 224, 3)), ((50, 90), (50, 90, 3))])
def test_photos_are_resized_whole(photo: np.ndarray, size: int | tuple[int, int], shape: tuple[int, ...]) -> None:
    resized = resize_photo(photo, size)
    assert resized.shape == shape
    assert resized.dtype == np.uint8
    assert resized.mean() == pytest.approx(photo.mean(), abs=1)


def test_shrinking_is_antialiased() -> None:
    stripes = np.tile(np.array([0, 255], np.uint8), (64, 32))
    shrunk = resize_photo(np.stack([stripes] * 3, axis=-1), 8)
    assert np.abs(shrunk.astype(int) - 127).max() <= 6  # the filter is cut off at the edges
    assert resize_map(stripes.astype(np.float32), 8, 8) == pytest.approx(127.5, abs=6)


def test_enlarging_is_half_pixel_aligned() -> None:
    enlarged = resize_map(np.array([[0.0, 1.0]], np.float32), 1, 4)
    assert enlarged.dtype == np.float32
    assert enlarged[0] == pytest.approx([0, 0.25, 0.75, 1])


# The corpora: folders of odd and hostile files that stand beside this repository and are not part of it


def corpus_rows() -> list[dict[str, str]]:
    if not CORPORA.is_dir():
        return []
    with open(CORPORA / "index.csv", newline="") as stream:
        return [row for row in csv.DictReader(stream) if row["kind"] in ("images_odd", "images_bad")]


@pytest.mark.skipif(not CORPORA.is_dir(), reason="needs ../shared/corpora, which is not part of the repository")
@pytest.mark.parametrize("row", corpus_rows(), ids=lambda row: row["file"].removeprefix("images_"))
def test_corpus(row: dict[str, str]) -> None:
    path, started = CORPORA / row["file"], time.monotonic()
    photo = message = None
    try:
        photo = read_photo(path)
    except PhotoError as error:
        message = str(error)
    assert time.monotonic() - started < 10
    if message is not None:
        assert row["expected"] in ("error", "either"), message
        assert str(CORPORA) not in message
        assert "Traceback" not in message
        assert "\n" not in message
    else:
        assert row["expected"] in ("result", "either") or "or a result if" in row["note"]
        check_against(row, photo)


def check_against(row: dict[str, str], photo: np.ndarray) -> None:
    """Compare with what the row tells: size, pixels of another decoder, or what its note says."""
    assert photo_size(CORPORA / row["file"]) == photo.shape[:2]
    if row["width"]:
        assert photo.shape[:2] == (int(row["height"]), int(row["width"]))
    if row["oracle"]:
        difference = np.abs(photo.astype(int) - read_photo(CORPORA / row["oracle"]))
        # The orientation photos each bear their own number, so only most of their pixels agree.
        assert difference.mean() < 4 if "orientation" in row["oracle"] else difference.max() <= 2
    if "red block top-left" in row["note"]:
        assert np.abs(photo[5, 5].astype(int) - (255, 0, 0)).max() <= 3
    if "mean 127.5" in row["note"]:
        assert photo.mean() == pytest.approx(127.5, abs=2)


def test_a_file_too_large_to_be_a_photo_is_not_read(tmp_path: Path) -> None:
    huge = tmp_path / "huge.jpg"
    with huge.open("wb") as file:
        file.write(b"\xff\xd8\xff")
        file.truncate(700_000_000)  # takes no space on the disk
    with pytest.raises(PhotoError, match=r"huge\.jpg: 700 MB; needed: at most 600 MB"):
        read_photo(huge)
