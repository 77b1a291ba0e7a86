"""DICOM photographs: colours of every kind, spacing, and what a hostile or foreign file comes to."""

import logging
import struct
import subprocess
import sys
import time
import warnings
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from builders import law
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
)
from test_photo import encode, sbgr_profile

from mtl.errors import PhotoError
from mtl.photo import photo_size, read_photo, read_spacing

SAMPLES = Path(pydicom.__file__).parent / "data" / "test_files"  # they come with pydicom


def dicom(
    pixels: bytes | np.ndarray, shape: tuple[int, ...], *, bits: int = 8, syntax: str = "", **elements: Any
) -> bytes:
    """A DICOM file of `pixels`, which are (rows, columns) or (rows, columns, 3), with further elements by keyword."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = syntax or ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.77.1.4"
    ds.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    colour = len(shape) == 3
    ds.PatientName, ds.Modality = "Roe^Jane", "XC"
    ds.Rows, ds.Columns, ds.SamplesPerPixel = shape[0], shape[1], 3 if colour else 1
    ds.PlanarConfiguration = 0
    ds.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16 if bits > 8 else 8, bits, bits - 1, 0
    with warnings.catch_warnings(action="ignore"):  # some values are wrong on purpose
        for keyword, value in elements.items():
            setattr(ds, keyword, value)
        ds.PixelData = pixels if isinstance(pixels, bytes) else pixels.tobytes()
        ds["PixelData"].VR = "OW" if bits > 8 else "OB"
        file = BytesIO()
        ds.save_as(file, enforce_file_format=True)
        return file.getvalue()


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    """(60, 80, 3): smooth colours that differ in every corner."""
    blocks = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return np.array(Image.fromarray(blocks).resize((80, 60), Image.Resampling.BICUBIC))


def refusal(source: bytes | Path) -> str:
    with pytest.raises(PhotoError) as caught:
        read_photo(source)
    assert "\n" not in str(caught.value)
    assert "needed" in str(caught.value)
    return str(caught.value)


# Colours


@law
@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.sampled_from([ExplicitVRLittleEndian, ImplicitVRLittleEndian]),
    st.randoms(),
)
def test_uncompressed_colours_come_out_as_they_are(height: int, width: int, syntax: str, random: Any) -> None:
    photo = np.frombuffer(random.randbytes(height * width * 3), np.uint8).reshape(height, width, 3)
    file = dicom(photo, photo.shape, syntax=syntax)
    assert np.array_equal(read_photo(file), photo)
    assert photo_size(file) == (height, width)


@pytest.mark.parametrize("bits", [10, 12, 16])
def test_deep_colours_are_scaled(photo: np.ndarray, bits: int) -> None:
    deep = np.rint(photo * ((2**bits - 1) / 255)).astype(np.uint16)
    assert np.array_equal(read_photo(dicom(deep, deep.shape, bits=bits)), photo)


def test_colours_in_planes(photo: np.ndarray) -> None:
    planes = np.ascontiguousarray(photo.transpose(2, 0, 1))
    assert np.array_equal(read_photo(dicom(planes, photo.shape, PlanarConfiguration=1)), photo)


def test_big_endian() -> None:
    ramp = np.tile(np.arange(0, 65536, 257, dtype=np.uint16), (4, 1))
    file = BytesIO()
    swapped = dicom(ramp.byteswap(), ramp.shape, bits=16)
    ds = pydicom.dcmread(BytesIO(swapped))
    ds.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    pydicom.dcmwrite(file, ds, implicit_vr=False, little_endian=False)
    assert np.array_equal(read_photo(file.getvalue())[..., 0], np.tile(np.arange(256), (4, 1)))


def test_brightness_and_colour_differences(photo: np.ndarray) -> None:
    ybr = np.asarray(Image.fromarray(photo).convert("YCbCr"))
    decoded = read_photo(dicom(ybr, ybr.shape, PhotometricInterpretation="YBR_FULL"))
    assert np.abs(decoded.astype(int) - photo).max() <= 3


def test_halved_colour_differences(photo: np.ndarray) -> None:
    ybr = np.asarray(Image.fromarray(photo).convert("YCbCr"))
    pairs = np.stack([ybr[:, ::2, 0], ybr[:, 1::2, 0], ybr[:, ::2, 1], ybr[:, ::2, 2]], axis=2)
    decoded = read_photo(dicom(pairs, photo.shape, PhotometricInterpretation="YBR_FULL_422"))
    shared = np.concatenate([ybr[..., :1], ybr[:, ::2, 1:].repeat(2, axis=1)], axis=2)
    assert np.array_equal(decoded, np.asarray(Image.fromarray(shared, "YCbCr").convert("RGB")))


def test_jpeg(photo: np.ndarray) -> None:
    jpeg = encode(photo, "JPEG", quality=95)
    file = dicom(encapsulate([jpeg]), photo.shape, syntax=JPEGBaseline8Bit, PhotometricInterpretation="YBR_FULL_422")
    assert np.abs(read_photo(file).astype(int) - read_photo(jpeg)).max() <= 1


def test_jpeg_2000(photo: np.ndarray) -> None:
    coded = encode(photo, "JPEG2000", no_jp2=True, irreversible=False)
    file = dicom(encapsulate([coded]), photo.shape, syntax=JPEG2000Lossless, PhotometricInterpretation="YBR_RCT")
    assert np.array_equal(read_photo(file), photo)


def test_run_lengths_and_only_the_first_frame(photo: np.ndarray) -> None:
    frames = np.stack([photo, 255 - photo])
    plain = dicom(frames, photo.shape, NumberOfFrames=2)
    assert np.array_equal(read_photo(plain), photo)
    ds = pydicom.dcmread(BytesIO(plain))
    ds.compress(RLELossless)
    file = BytesIO()
    ds.save_as(file)
    assert np.array_equal(read_photo(file.getvalue()), photo)


def test_a_palette() -> None:
    colours = np.random.default_rng(2).integers(0, 256, (256, 3), dtype=np.uint8)
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    names = {"Red": 0, "Green": 1, "Blue": 2}
    tables = {
        **{f"{name}PaletteColorLookupTableDescriptor": [256, 0, 16] for name in names},
        **{
            f"{name}PaletteColorLookupTableData": (colours[:, n] * np.uint16(257)).tobytes()
            for name, n in names.items()
        },
    }
    file = dicom(values, values.shape, PhotometricInterpretation="PALETTE COLOR", **tables)
    assert np.array_equal(read_photo(file), colours[values])


def test_an_embedded_profile_is_converted_to_srgb(photo: np.ndarray) -> None:
    decoded = read_photo(dicom(photo, photo.shape, ICCProfile=sbgr_profile()))
    assert np.abs(decoded.astype(int) - photo[..., ::-1]).max() <= 2


# Greys

LEVELS = np.arange(256)


def greys(values: np.ndarray, bits: int = 8, **elements: Any) -> np.ndarray:
    """The greys that a file of one row of values comes to."""
    decoded = read_photo(dicom(values[None], (1, len(values)), bits=bits, **elements))
    assert np.array_equal(decoded[..., 0], decoded[..., 1])
    return decoded[0, :, 0].astype(int)


@pytest.mark.parametrize("values", [LEVELS, LEVELS[60:100]], ids=["all", "some"])
def test_8_bits_keep_their_range(values: np.ndarray) -> None:
    assert np.array_equal(greys(values.astype(np.uint8)), values)
    assert np.array_equal(greys(values.astype(np.uint8), PhotometricInterpretation="MONOCHROME1"), 255 - values)


def test_deep_greys_are_stretched() -> None:
    values = np.linspace(300, 3000, 256).astype(np.uint16)
    assert np.abs(greys(values, 12) - LEVELS).max() <= 1
    signed = np.linspace(-1500, 1500, 256).astype(np.int16)
    assert np.abs(greys(signed, 12, PixelRepresentation=1) - LEVELS).max() <= 1
    assert np.abs(greys(values, 12, RescaleSlope=-1, RescaleIntercept=7) - LEVELS[::-1]).max() <= 1


def test_a_window_is_applied_after_the_rescaling() -> None:
    values = np.arange(4096, dtype=np.uint16)[::16]
    shown = greys(values, 12, RescaleSlope=2, RescaleIntercept=-1000, WindowCenter=[1000, 5], WindowWidth=[2000, 9])
    assert np.abs(shown - np.clip((values * 2.0 - 1000) / 2000 * 255, 0, 255)).max() <= 1


def test_an_even_grey_photo_passes() -> None:
    assert np.ptp(greys(np.full(9, 700, np.uint16), 12)) == 0


# Spacing


@pytest.mark.parametrize("keyword", ["PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing"])
def test_spacing_is_read(keyword: str) -> None:
    file = dicom(bytes(12), (2, 2, 3), **{keyword: ["0.0500", "0.0502"]})
    assert read_spacing(file) == pytest.approx(0.0501)


def test_spacing_of_functional_groups() -> None:
    measures, groups = Dataset(), Dataset()
    measures.PixelSpacing = [0.02, 0.02]
    groups.PixelMeasuresSequence = [measures]
    assert read_spacing(dicom(bytes(12), (2, 2, 3), SharedFunctionalGroupsSequence=[groups])) == 0.02


@pytest.mark.parametrize("spacing", [[0.05, 0.06], [0, 0], [-0.1, -0.1], ["1e300", "1e300"], 0.05, None])
def test_other_spacing_is_none(spacing: Any) -> None:
    assert read_spacing(dicom(bytes(12), (2, 2, 3), PixelSpacing=spacing)) is None


def test_only_dicom_has_spacing(photo: np.ndarray) -> None:
    assert read_spacing(photo) is None
    assert read_spacing(encode(photo, "JPEG", dpi=(300, 300))) is None


# Privacy


def test_names_stay_in_the_file(
    photo: np.ndarray, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing of the header beside the pixels' own elements is kept, and no log quotes any of it."""
    from mtl.dicom import DicomPhoto

    file = dicom(photo, photo.shape, PatientID="S" * 65, PatientBirthDate="19700101", PixelSpacing=[0.1, 0.1])
    with caplog.at_level(logging.DEBUG), DicomPhoto(BytesIO(file)) as image:
        assert "PatientName" not in image._header
        image.load()
        assert set(image.info) == {"icc_profile", "mm_per_px"}
        refusal(file[:-9])
    assert "Roe" not in caplog.text + "".join(capsys.readouterr())
    assert "SSS" not in caplog.text


def test_pydicom_loads_when_a_dicom_comes(photo: np.ndarray) -> None:
    code = "import sys, mtl.photo; mtl.photo.read_photo(sys.stdin.buffer.read()); print('pydicom' in sys.modules)"
    for file, loaded in ((encode(photo, "PNG"), "False"), (dicom(photo, photo.shape), "True")):
        run = subprocess.run([sys.executable, "-c", code], input=file, capture_output=True, timeout=60, check=True)
        assert run.stdout.decode().strip() == loaded


# Refusals


@pytest.mark.parametrize(
    ("elements", "words"),
    [
        ({"Modality": "CT"}, "kind CT"),
        ({"SamplesPerPixel": 4}, "8 bits"),
        ({"BitsAllocated": 32, "BitsStored": 32, "HighBit": 31}, "32 bits"),
        ({"PhotometricInterpretation": "CMYK"}, "CMYK"),
        ({"PhotometricInterpretation": "HSV\nhsv"}, "HSVhsv"),
        ({"PixelRepresentation": 1}, "RGB"),
        ({"NumberOfFrames": 2**31 - 1}, "film"),
        ({"Rows": 65_535, "Columns": 65_535}, "pixels"),
        ({"Rows": 0}, "needed"),
        ({"Rows": 61}, "damaged"),
    ],
)
def test_what_is_no_photograph_is_refused(photo: np.ndarray, elements: dict[str, Any], words: str) -> None:
    started = time.monotonic()
    assert words in refusal(dicom(photo, photo.shape, **elements))
    assert time.monotonic() - started < 0.5


@pytest.mark.parametrize("slope", ["1e308", "nan", "inf"])
def test_a_brightness_that_is_no_number_is_refused(slope: str) -> None:
    refusal(dicom(bytes(8), (2, 2), bits=16, RescaleSlope=slope, RescaleIntercept="1e308"))


def test_compressions_that_are_not_read_are_named() -> None:
    assert "JPEG-LS" in refusal(dicom(encapsulate([b"\xff\xd8"]), (2, 2), syntax=JPEGLSLossless))


def test_a_file_packed_as_a_whole_is_not_unpacked() -> None:
    assert "packed" in refusal(SAMPLES / "image_dfl.dcm")


@pytest.mark.parametrize("name", ["rtplan.dcm", "test-SR.dcm", "waveform_ecg.dcm", "no_meta_group_length.dcm"])
def test_files_without_a_picture_are_refused(name: str) -> None:
    assert "without a picture" in refusal(SAMPLES / name)


@pytest.mark.parametrize("kept", [0.3, 0.6, 0.9])
def test_a_cut_jpeg_within_is_refused(photo: np.ndarray, kept: float) -> None:
    jpeg = encode(photo, "JPEG", quality=95)
    part = encapsulate([jpeg[: int(len(jpeg) * kept)] + b"\xff\xd9"])
    assert refusal(dicom(part, photo.shape, syntax=JPEGBaseline8Bit, PhotometricInterpretation="YBR_FULL_422"))


def test_a_frame_of_another_size_is_refused(photo: np.ndarray) -> None:
    for format, syntax in (("JPEG", JPEGBaseline8Bit), ("JPEG2000", JPEG2000Lossless)):
        file = dicom(encapsulate([encode(photo, format)]), (61, 80, 3), syntax=syntax)
        assert "differ in size" in refusal(file)


def test_bombs_are_refused_soon(photo: np.ndarray) -> None:
    file = dicom(photo, photo.shape)
    pixels_at = file.index(b"\xe0\x7f\x10\x00")
    element = struct.pack("<HH2sH", 0x0009, 0x1001, b"LO", 0)
    sequence = struct.pack("<HH2sHLHHL", 0x0040, 0x0100, b"SQ", 0, 2**32 - 1, 0xFFFE, 0xE000, 2**32 - 1)
    run = b"\x81\x00" * 1_400_000
    segments = struct.pack("<16L", 3, 64, 64 + len(run), 64 + 2 * len(run), *[0] * 12) + run * 3
    empty = struct.pack("<HHL", 0xFFFE, 0xE000, 0)
    jpeg = {"syntax": JPEGBaseline8Bit, "PhotometricInterpretation": "YBR_FULL_422"}
    bombs = {
        "many elements": file[:pixels_at] + element * 1_000_000 + file[pixels_at:],
        "deep sequences": file[:pixels_at] + sequence * 50_000 + file[pixels_at:],
        "run lengths": dicom(encapsulate([segments]), photo.shape, syntax=RLELossless),
        "many parts": dicom(empty * 1_000_000, photo.shape, **jpeg),
    }
    for name, bomb in bombs.items():
        started = time.monotonic()
        assert refusal(bomb), name
        assert time.monotonic() - started < 10, name  # a second, on an idle machine
    assert np.array_equal(read_photo(file + element * 1_000_000), photo)  # what follows the pixels is not read


WHOLE = dicom(np.arange(300, dtype=np.uint8), (10, 10, 3), WindowCenter=5, WindowWidth=9, PixelSpacing=[0.1, 0.1])


@law
@given(
    st.lists(st.tuples(st.integers(132, len(WHOLE) - 301), st.integers(0, 255)), max_size=4),
    st.integers(132, len(WHOLE)),
)
def test_damage_gives_a_photo_or_one_line(changes: list[tuple[int, int]], kept: int) -> None:
    file = bytearray(WHOLE)
    for at, value in changes:
        file[at] = value
    message = "one line; needed"
    try:
        assert read_photo(bytes(file[:kept])).dtype == np.uint8
    except PhotoError as error:
        message = str(error)
    assert "needed" in message
    assert "\n" not in message


# Other programs' files


@pytest.mark.parametrize(
    "name",
    [
        "SC_rgb_dcmtk_+eb+cr.dcm", "SC_rgb_dcmtk_+eb+cy+n1.dcm", "SC_rgb_dcmtk_+eb+cy+np.dcm", "SC_rgb_gdcm_KY.dcm",
        "SC_rgb_dcmtk_+eb+cy+s4.dcm", "SC_rgb_jpeg_dcmtk.dcm", "SC_rgb_jpeg_lossy_gdcm.dcm", "SC_rgb_rle.dcm",
        "SC_rgb_rle_16bit.dcm", "SC_rgb_rle_16bit_2frame.dcm", "SC_ybr_full_422_uncompressed.dcm",
    ],
)  # fmt: skip
def test_other_programs_files_show_the_same_bars(name: str) -> None:
    """Red, light red, green, light green, blue, light blue, black, greys, white, ten rows each."""
    bars = [(255, 0, 0), (255, 128, 128), (0, 255, 0), (128, 255, 128), (0, 0, 255), (128, 128, 255), (0, 0, 0)]
    decoded = read_photo(SAMPLES / name)
    assert decoded.shape == (100, 100, 3)
    assert np.abs(decoded[5:70:10, 50].astype(int) - bars).max() <= 8
    assert read_spacing(SAMPLES / name) == 1.0
