"""DICOM photographs: the first frame of one, as the picture that `photo.py` goes on with. Read through pydicom.

The file is treated as hostile: only the elements of `TAGS` are kept, so no name or date ever leaves this module; the
header's length, the size and the compression are checked before a pixel is decoded.
"""

import logging
from io import BytesIO
from typing import IO, Any, cast

import numpy as np
from PIL import Image, ImageFile
from pydicom.dataset import Dataset, FileDataset
from pydicom.encaps import get_frame
from pydicom.filereader import read_dataset, read_partial
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut, apply_windowing
from pydicom.tag import BaseTag, Tag
from pydicom.uid import (
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    RLELossless,
)

from mtl.errors import PhotoError

# Its messages quote the header's values, names among them, which belong into no log.
logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)

NEEDED = "needed: a photograph in DICOM, so export it as JPEG or PNG"
MAX_HEADER_BYTES = 4_000_000  # of elements before the pixels; a photograph has some thousand and a colour profile
MAX_BYTES = 320_000_000  # a frame of 50 megapixels at 16 bits a channel; pixels that lie uncompressed are read whole
MAX_FRAMES = 10_000  # and as many parts that they may lie in: each takes time, though only the first is shown
MAX_JPEG_2000_PIXELS = 25_000_000  # its decoder takes 20 bytes for each
MAX_RLE_BYTES = 8_000_000  # unpacked they may become 64 times as many, and pydicom counts only afterwards

JPEG = (JPEGBaseline8Bit, JPEGExtended12Bit)
JPEG_2000 = (JPEG2000Lossless, JPEG2000)
UNCOMPRESSED = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian)
READ = (*UNCOMPRESSED, *JPEG, *JPEG_2000, RLELossless)

# Scanners and X-rays (DICOM PS3.3, C.7.3.1.1.1). Cameras say XC, DMS, OP or GM, and exported photographs often OT.
NO_CAMERA = (
    "BMD", "CR", "CT", "CTPROTOCOL", "DX", "ECG", "IO", "IVOCT", "IVUS", "MG", "MR", "NM", "OCT", "PT", "PX", "RF",
    "RG", "RTDOSE", "RTIMAGE", "SEG", "TG", "US", "XA",
)  # fmt: skip
GREY = ("MONOCHROME1", "MONOCHROME2")
COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
SPACINGS = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")  # mm between (rows, columns)
MM_PER_PX = (1e-4, 10.0)  # a photograph's pixel measures something between
PIXEL_DATA = Tag("PixelData")
TAGS: list[BaseTag | int] = [
    Tag(keyword)
    for keyword in (
        "Modality", "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PlanarConfiguration",
        "PhotometricInterpretation", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "ICCProfile",
        "RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth", "VOILUTFunction",
        "RedPaletteColorLookupTableDescriptor", "RedPaletteColorLookupTableData", "GreenPaletteColorLookupTableData",
        "GreenPaletteColorLookupTableDescriptor", "BluePaletteColorLookupTableDescriptor",
        "BluePaletteColorLookupTableData", "SharedFunctionalGroupsSequence", *SPACINGS,
    )
]  # fmt: skip


class DicomPhoto(ImageFile.ImageFile):
    """The first frame as a Pillow picture of mode L, RGB or YCbCr, 8 bits a channel.

    `info` holds `icc_profile` and `mm_per_px` where the file has them, and nothing else. Raises PhotoError for what is
    no photograph, and anything at all for a broken file.
    """

    format = "DICOM"
    format_description = "DICOM photograph"

    def _open(self) -> None:
        self._header = header = _read_header(_require_stream(self.fp))
        _require_photograph(header)
        self._size = (header.Columns, header.Rows)
        self._mode = "L" if header.PhotometricInterpretation in GREY else "RGB"
        self.info = {"icc_profile": header.get("ICCProfile") or b""}
        if (spacing := _spacing(header)) is not None:
            self.info["mm_per_px"] = spacing

    def load(self) -> Any:
        """Decode the frame, unless that is done; the header and the compressed pixels are let go."""
        if self._im is None:
            _read_pixels(_require_stream(self.fp), self._header)
            pixels, mode = _decode(self._header)
            del self._header
            frame = Image.frombytes(mode, self.size, pixels.tobytes())
            self.im, self._mode = frame.im, mode
        return super().load()

    def jpeg(self) -> bytes | None:
        """The first frame's own file where it is a JPEG, before it is decoded."""
        if self._header.file_meta.TransferSyntaxUID not in JPEG:
            return None
        _read_pixels(_require_stream(self.fp), self._header)
        return _first_frame(self._header)


def _require_stream(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None, "the file is closed"
    return stream


def _read_header(file: IO[bytes]) -> FileDataset:
    """The elements of `TAGS` that stand before the pixels; `file` is left where the pixels begin."""
    if file.seek(0, 2) > MAX_BYTES:
        size, most = f"{file.tell() / 1e6:,.0f}", f"{MAX_BYTES / 1e6:.0f}"
        raise PhotoError("a DICOM file of {size} MB; needed: at most {most} MB", size=size, most=most)
    file.seek(0)
    start = file.read(MAX_HEADER_BYTES)
    # pydicom would unpack such a file whole while it looks for the header's end, however much comes out.
    if DeflatedExplicitVRLittleEndian.encode() in start:
        raise PhotoError(f"a DICOM file that is packed as a whole; {NEEDED}")
    head = BytesIO(start)
    header = read_partial(head, stop_when=lambda tag, vr, length: tag == PIXEL_DATA, specific_tags=TAGS)
    file.seek(head.tell())
    if head.read(4) not in (b"\xe0\x7f\x10\x00", b"\x7f\xe0\x00\x10"):
        raise PhotoError(f"a DICOM file without a picture in it; {NEEDED}")
    return header


def _read_pixels(file: IO[bytes], header: FileDataset) -> None:
    """Put the pixels, as they lie in the file, into `header`; what stands behind them is not read."""
    if PIXEL_DATA in header:
        return
    implicit, little_endian = header.original_encoding

    def behind(tag: BaseTag, vr: str | None, length: int) -> bool:
        return tag != PIXEL_DATA

    header.update(read_dataset(cast(Any, file), bool(implicit), bool(little_endian), stop_when=behind))
    syntax = header.file_meta.TransferSyntaxUID
    if syntax not in UNCOMPRESSED and header.PixelData.count(b"\xfe\xff\x00\xe0") > MAX_FRAMES:
        raise PhotoError(f"a DICOM picture in too many parts; {NEEDED}")


def _require_photograph(header: FileDataset) -> None:
    """Refuse compressions that are not read, scans, and pixels that are no photograph's."""
    syntax = UID(header.file_meta.TransferSyntaxUID)
    if syntax not in READ:
        name = syntax.name[:60] if syntax.is_transfer_syntax else "?"
        raise PhotoError("DICOM compressed as {name}; " + NEEDED, name=name)
    if (modality := header.get("Modality")) in NO_CAMERA:
        raise PhotoError("a DICOM picture of the kind {modality}; " + NEEDED, modality=modality)
    bits, depth = header.BitsAllocated, header.BitsStored
    colours = header.PhotometricInterpretation
    samples = 3 if colours in COLOUR else 1
    known = colours in (*GREY, *COLOUR, "PALETTE COLOR") and header.SamplesPerPixel == samples
    # pydicom looks colours up by 8 bits, so more of them would come out wrong.
    deepest = 8 if colours == "PALETTE COLOR" or syntax in JPEG else bits
    unsigned = header.PixelRepresentation == 0 or colours in GREY
    if not (known and bits in (8, 16) and 1 <= depth <= deepest and unsigned):
        values = {"colours": _words(colours), "depth": _words(depth)}
        raise PhotoError("a DICOM file of {colours} pixels at {depth} bits; " + NEEDED, **values)
    if not 1 <= int(header.get("NumberOfFrames") or 1) <= MAX_FRAMES:
        raise PhotoError(f"a DICOM film of too many pictures; {NEEDED}")
    if syntax in JPEG_2000 and header.Rows * header.Columns > MAX_JPEG_2000_PIXELS:
        raise PhotoError("over {most} pixels as JPEG 2000; " + NEEDED, most=f"{MAX_JPEG_2000_PIXELS:,}")


def _words(value: object) -> str:
    """What a hostile header says, short and on one line."""
    return "".join(c for c in str(value)[:20] if c.isalnum() or c in "_ ") or "unnamed"


def _spacing(header: Dataset) -> float | None:
    """Millimetres a pixel, where rows and columns are equally far apart within 1 %; else None."""
    try:
        groups = header.get("SharedFunctionalGroupsSequence") or [Dataset()]
        measures = groups[0].get("PixelMeasuresSequence") or [Dataset()]
        pairs = [holder.get(keyword) for holder in (header, measures[0]) for keyword in SPACINGS]
        down, across = next(tuple(float(value) for value in pair) for pair in pairs if pair)
    except Exception:  # broken elements, of which each may raise another type, must not cost the photo
        return None
    square = all(MM_PER_PX[0] <= value <= MM_PER_PX[1] for value in (down, across)) and abs(down / across - 1) <= 0.01
    return (down + across) / 2 if square else None


def _first_frame(header: FileDataset) -> bytes:
    """The compressed first frame."""
    return get_frame(header.PixelData, 0, number_of_frames=int(header.get("NumberOfFrames") or 1))


def _decode(header: FileDataset) -> tuple[np.ndarray, str]:
    """The first frame (H, W) or (H, W, 3) uint8, and its Pillow mode."""
    syntax = header.file_meta.TransferSyntaxUID
    if syntax not in UNCOMPRESSED:
        _require_own_size(_first_frame(header), header)
    frame, made = get_decoder(syntax).as_array(header, index=0, raw=True)
    del header.PixelData
    colours = str(made["photometric_interpretation"])
    if colours in COLOUR:
        white = 2**header.BitsStored - 1
        table = np.rint(np.arange(white + 1) * (255 / white)).astype(np.uint8)
        return _looked_up(table, frame, 0), "YCbCr" if colours.startswith("YBR_FULL") else "RGB"
    if colours == "PALETTE COLOR":
        return _looked_up(_palette(header), frame, 0), "RGB"
    lowest = -(2 ** (header.BitsStored - 1)) if header.PixelRepresentation else 0
    return _looked_up(_greys(header, frame, lowest), frame, lowest), "L"


def _require_own_size(frame: bytes, header: FileDataset) -> None:
    """Refuse a frame that would unpack to something else than the header's size, which was checked."""
    if header.file_meta.TransferSyntaxUID == RLELossless:
        if len(frame) > MAX_RLE_BYTES:
            raise PhotoError("run-length coded DICOM of over {most} MB; " + NEEDED, most=f"{MAX_RLE_BYTES / 1e6:.0f}")
        return
    with Image.open(BytesIO(frame), formats=("JPEG", "JPEG2000")) as picture:
        if picture.size != (header.Columns, header.Rows):
            raise PhotoError(f"its header and its picture differ in size; {NEEDED}")


def _palette(header: FileDataset) -> np.ndarray:
    """The colours of the pixels' values (N, 3) uint8."""
    if "RedPaletteColorLookupTableData" not in header:
        raise PhotoError(f"a DICOM file without the table of its colours; {NEEDED}")
    colours = apply_color_lut(np.arange(2**header.BitsStored), header)[:, :3]
    return (colours >> 8 if colours.max() > 255 else colours).astype(np.uint8)


def _greys(header: FileDataset, frame: np.ndarray, lowest: int) -> np.ndarray:
    """The greys of the pixels' values from `lowest` on (N,) uint8: rescaled, then through the first window.

    Without a window, 8 bits keep their whole range, and deeper pixels are stretched from their darkest to their
    brightest, as viewers do. Source: DICOM PS3.3, C.7.6.3.1.2 (MONOCHROME1 is white at its lowest), C.11.1 and C.11.2.
    """
    values = np.asarray(apply_modality_lut(np.arange(lowest, lowest + 2**header.BitsStored), header), np.float64)
    if "WindowCenter" in header and "WindowWidth" in header:
        shown, ends = apply_windowing(values, header), values[[0, -1]]
    elif header.BitsStored <= 8:
        shown, ends = values, values[[0, -1]]
    else:
        inside = np.clip([int(frame.min()) - lowest, int(frame.max()) - lowest], 0, len(values) - 1)
        shown, ends = values, values[inside]
    span = np.ptp(ends) or 1.0
    greys = (shown - ends.min()) * (255 / span)
    if not np.isfinite(greys).all():
        raise PhotoError(f"a DICOM file whose brightness is no number; {NEEDED}")
    greys = np.rint(greys.clip(0, 255)).astype(np.uint8)
    return 255 - greys if header.PhotometricInterpretation == "MONOCHROME1" else greys


def _looked_up(table: np.ndarray, frame: np.ndarray, lowest: int) -> np.ndarray:
    """`table` (N, ...) at each pixel of `frame`, row by row: as indices, all pixels at once would take 8 bytes each."""
    shown = np.empty(frame.shape + table.shape[1:], np.uint8)
    for row, values in enumerate(frame):
        shown[row] = table[(values.astype(np.intp) - lowest).clip(0, len(table) - 1)]
    return shown
