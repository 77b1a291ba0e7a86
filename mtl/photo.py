"""The project's only image decoder: files, bytes, PIL pictures and arrays in; upright sRGB photos and 0/1 masks out.

Every file is treated as hostile. Only a fixed list of formats is opened, sizes are capped before a pixel is decoded,
and whatever goes wrong inside a codec comes out as one PhotoError, a line that names the file but never its folder.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageCms, ImageFile, UnidentifiedImageError

from mtl.errors import PhotoError

PhotoSource = str | Path | bytes | Image.Image | np.ndarray

MAX_PIXELS = 100_000_000
MAX_FILE_BYTES = 600_000_000  # what these take at 16 bits a channel; some formats are read whole
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "AVIF")  # JPEG opens MPO too; naming MPO fails in Pillow 12.3
NEEDED = "needed: a whole JPEG, PNG, WebP, TIFF, BMP, GIF, AVIF, HEIC or DICOM picture"
# What people bring and this decoder does not read yet: (offset, signature, name). A reader belongs into `_opener`.
UNREAD = ((0, b"\xff\x0a", "JPEG XL"), (4, b"JXL ", "JPEG XL"), (4, b"jP  ", "JPEG 2000"))
OF_FILE = "{file}: "  # begins every message
HEAD_BYTES = 132  # what tells the formats apart
HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs")
COSTLY = ("WEBP", "AVIF", "HEIF", "DICOM")  # these decode through further whole copies of the picture

MAX_JPEG_SCANS = 100  # a progressive photo has about ten, and each one costs a pass over the whole picture
DEEP_GREYS = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")  # above 8 bits; Pillow's convert() would saturate them
SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations that swap height and width
STRIP_PX = 4_000_000  # colours are converted in strips of so many pixels: whole copies would pass 1 GB at MAX_PIXELS


def read_photo(source: PhotoSource, *, min_side: int | None = None) -> np.ndarray:
    """Decode a photo to (H, W, 3) uint8 sRGB: turned upright by its EXIF, alpha laid on white, first frame only.

    With `min_side`, a JPEG file may be decoded at 1/2, 1/4 or 1/8 scale, its shorter side staying at least so many
    pixels: for the network, which sees 224. The geometry is that of the whole photo. Raises PhotoError.
    """
    return read_photo_and_size(source, min_side=min_side)[0]


def read_photo_and_size(source: PhotoSource, *, min_side: int | None) -> tuple[np.ndarray, tuple[int, int]]:
    """As `read_photo`, with the (height, width) that the upright photo has at its whole size."""
    with _opened(source) as image:
        scale = _load(image, None if isinstance(source, Image.Image) else min_side)
        full_scale, transform = _full_scale(image), _srgb_transform(image)
        pixels = np.empty((image.height, image.width, 3), np.uint8)
        for top, strip in _strips(image):
            flat = _flatten(strip, full_scale, paper="white")
            srgb = ImageCms.applyTransform(flat, transform) if transform else flat.convert("RGB")
            pixels[top : top + strip.height] = np.asarray(srgb)
        upright = _turn(pixels, _orientation(image))
        return upright, (upright.shape[0] * scale, upright.shape[1] * scale)


def read_mask(path: PhotoSource) -> np.ndarray:
    """Decode a mask to (H, W) uint8, 1 = lesion. Raises PhotoError."""
    return lesion_of(read_grey(path))


def lesion_of(grey: np.ndarray) -> np.ndarray:
    """What of a mask's greys (H, W) means lesion, as 0/1 uint8: above 127, or above 0 where the maximum is 1."""
    return (grey > (0 if grey.max() == 1 else 127)).astype(np.uint8)


def read_grey(path: PhotoSource) -> np.ndarray:
    """Decode a mask to its greys (H, W) uint8.

    Palettes count by their colours; alpha is laid on black, since where nothing is drawn there is no lesion. Turned by
    EXIF, as the photo is. Raises PhotoError.
    """
    with _opened(path) as image:
        _load(image)
        full_scale = _full_scale(image)
        grey = np.empty((image.height, image.width), np.uint8)
        for top, strip in _strips(image):
            grey[top : top + strip.height] = np.asarray(_flatten(strip, full_scale, paper="black").convert("L"))
        return _turn(grey, _orientation(image))


def photo_size(source: PhotoSource) -> tuple[int, int]:
    """(height, width) after EXIF turning, from the header alone: EXIF behind a PNG's pixels is missed.

    Raises PhotoError.
    """
    with _opened(source) as image:
        height, width = image.height, image.width
        return (width, height) if _orientation(image) in SIDEWAYS else (height, width)


def read_spacing(source: PhotoSource) -> float | None:
    """Millimetres per pixel of a DICOM photograph that tells them, equal both ways within 1 %; None for all else.

    Raises PhotoError where the picture cannot be opened.
    """
    with _opened(source) as image:
        return image.info.get("mm_per_px") if image.format == "DICOM" else None


def too_large(path: Path) -> PhotoError:
    """What is said of a file above MAX_FILE_BYTES."""
    came, most = f"{path.stat().st_size / 1e6:,.0f}", f"{MAX_FILE_BYTES / 1e6:.0f}"
    return PhotoError("{size} MB; needed: at most {most} MB, so save it smaller", size=came, most=most)


def resize_photo(image: np.ndarray, size: int | tuple[int, int]) -> np.ndarray:
    """Resize (H, W, 3) uint8 to `size`, a square's side or (height, width): antialiased, half-pixel aligned."""
    height, width = (size, size) if isinstance(size, int) else size
    return np.array(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))


def resize_map(values: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize logits or probabilities (h, w) to (height, width) float32: half-pixel aligned, bilinear.

    Antialiased when shrinking.
    """
    image = Image.fromarray(np.asarray(values, dtype=np.float32))
    return np.array(image.resize((width, height), Image.Resampling.BILINEAR))


@contextmanager
def _opened(source: PhotoSource) -> Iterator[Image.Image]:
    """The picture behind `source`, its size checked, its pixels not yet decoded; all failures become PhotoError."""
    try:
        # Threads share the filters, so a race may leave this one behind: hence it touches these two packages only.
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="PIL|pydicom")
            image = _open(source)
            try:
                _check_size(image)
                yield image
            finally:
                if image is not source:
                    image.close()
    except PhotoError as error:
        raise PhotoError(OF_FILE + error.text, file=_name(source), **error.values) from error.__cause__
    except Exception as error:  # given a hostile file, Pillow's plugins raise nearly every type there is
        told = _explained(error, source)
        raise PhotoError(OF_FILE + told.text, file=_name(source), **told.values) from error


def _open(source: PhotoSource) -> Image.Image:
    if isinstance(source, Image.Image):
        return source
    if isinstance(source, np.ndarray):
        if source.dtype != np.uint8 or source.ndim not in (2, 3) or source.shape[2:] not in ((), (3,), (4,)):
            came = f"shape {source.shape} of {source.dtype}"
            raise PhotoError("{came}; needed: (H, W, 3), (H, W) or (H, W, 4) of uint8", came=came)
        return Image.fromarray(source)
    if isinstance(source, bytes):
        return _opener(source)(BytesIO(source))
    if not Path(source).is_file():  # a folder or a device is not a file either
        raise PhotoError(f"there is no such file; {NEEDED}")
    if Path(source).stat().st_size > MAX_FILE_BYTES:
        raise too_large(Path(source))
    return _opener(_head(source))(str(source))


def _head(source: bytes | str | Path) -> bytes:
    """The first `HEAD_BYTES` of a file."""
    with BytesIO(source) if isinstance(source, bytes) else open(source, "rb") as stream:
        return stream.read(HEAD_BYTES)


def _opener(head: bytes) -> Callable[[Any], Image.Image]:
    """What opens the file that begins so, from its path or stream. The two further readers load when they are needed.

    They are not registered with Pillow: what other code in this process can open stays as it is.
    """
    if head[128:132] == b"DICM":
        from mtl.dicom import DicomPhoto

        return DicomPhoto
    if _is_heif(head):
        from pillow_heif import HeifImageFile

        return HeifImageFile
    return partial(Image.open, formats=FORMATS)


def _is_heif(head: bytes) -> bool:
    """Whether a file of the HEIF family is coded as HEVC. AVIF, of the same family, is Pillow's. ISO/IEC 23008-12."""
    brand = head[8:12]
    general = brand in (b"mif1", b"msf1") and b"avif" not in head[: int.from_bytes(head[:4])]
    return head[4:8] == b"ftyp" and (brand in HEIF_BRANDS or general)


def _check_size(image: Image.Image) -> None:
    cap = MAX_PIXELS // 2 if image.format in COSTLY else MAX_PIXELS
    if not 0 < image.width * image.height <= cap:
        size = f"{image.width} x {image.height}"
        raise PhotoError("{size} pixels; needed: 1 to {most} in all, so save it smaller", size=size, most=f"{cap:,}")


def _load(image: Image.Image, min_side: int | None = None) -> int:
    """Decode `image` in place, and say how many times smaller than it is, as `read_photo` explains.

    The two formats whose decoders are silent about missing pixels get a closer look.
    """
    if not isinstance(image, ImageFile.ImageFile) or image.fp is None:
        image.load()
    elif image.format in ("JPEG", "MPO"):
        image.fp.seek(0)
        width, draft = image.width, _draft_size(image, min_side) if min_side else None
        _load_jpeg(image, image.fp.read(), draft)
        return width // image.width
    elif image.format == "PNG":
        _load_png(image)
    elif image.format == "DICOM":
        _load_dicom(image)
    else:
        image.load()
    return 1


def _draft_size(image: Image.Image, min_side: int) -> tuple[int, int] | None:
    """(width, height) at the smallest scale that keeps `min_side`; None for the whole size.

    Only scales that divide both sides: else the last column stands for less than the others, and the photo would part
    from its mask, which is always decoded whole.
    """
    for scale in (8, 4, 2):
        width, height = image.width // scale, image.height // scale
        if (width * scale, height * scale) == image.size and min(width, height) >= min_side:
            return width, height
    return None


def _load_jpeg(image: ImageFile.ImageFile, data: bytes, size: tuple[int, int] | None) -> None:
    """Decode a JPEG, and refuse one whose data end too early: libjpeg fills the rest with grey, silently."""
    if len(data) * 8 < image.width * image.height / 64:  # a block of 8x8 pixels takes one bit at the very least
        came = f"{image.width} x {image.height}"
        raise PhotoError("{size} pixels in {count} bytes, mostly missing; " + NEEDED, size=came, count=len(data))
    if data.count(b"\xff\xda") > MAX_JPEG_SCANS:
        raise PhotoError(f"a JPEG of more than {MAX_JPEG_SCANS} passes; needed: an ordinary one, so save it anew")
    image.draft(None, size)
    image.load()
    corner = np.asarray(image.crop((image.width - 1, image.height - 1, image.width, image.height)))
    if np.abs(corner.astype(int) - 128).max() <= 1 and _takes_more(image, data, size):
        raise PhotoError(f"the file is cut short; {NEEDED}")


def _takes_more(image: Image.Image, data: bytes, size: tuple[int, int] | None) -> bool:
    """Whether bytes added to the JPEG's last scan change its pixels. In a whole picture the decoder skips them."""
    end = data.find(b"\xff\xd9", data.rfind(b"\xff\xda"))
    with Image.open(BytesIO(data[:end] + bytes(range(1, 255)) * 4 + data[end:]), formats=("JPEG",)) as longer:
        longer.draft(None, size)
        pairs = zip(_strips(image), _strips(longer), strict=True)
        return any(strip.tobytes() != other.tobytes() for (_, strip), (_, other) in pairs)


def _load_png(image: ImageFile.ImageFile) -> None:
    """Decode a PNG over noise in its last row, and refuse one that leaves the noise: its data end too early."""
    noise = Image.effect_noise((image.width, 1), 64).convert(image.mode)
    canvas = Image.new(image.mode, image.size)
    canvas.paste(noise, (0, image.height - 1))
    image.im = canvas.im
    image.load()
    last_row = image.crop((0, image.height - 1, image.width, image.height))
    if image.width >= 64 and last_row.tobytes() == noise.tobytes():  # narrower, and chance might repeat the noise
        raise PhotoError(f"the file is cut short; {NEEDED}")


def _load_dicom(image: ImageFile.ImageFile) -> None:
    """Decode a DICOM photograph; one that holds a JPEG must hold a whole one."""
    from mtl.dicom import DicomPhoto

    assert isinstance(image, DicomPhoto)
    if jpeg := image.jpeg():
        with Image.open(BytesIO(jpeg), formats=("JPEG",)) as frame:
            _check_size(frame)
            _load_jpeg(frame, jpeg, None)
    image.load()


def _strips(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """Cut `image` into strips of whole rows: (top row, strip)."""
    rows = max(1, STRIP_PX // image.width)
    for top in range(0, image.height, rows):
        yield top, image.crop((0, top, image.width, min(top + rows, image.height)))


def _full_scale(image: Image.Image) -> float | None:
    """The value that stands for white in a grey picture of more than 8 bits; None for 8-bit pictures.

    The maximum tells the range, since programs also store 0..255 in 16 bits, and 0..1 or 0..255 as float.
    """
    if image.mode not in DEEP_GREYS:
        return None
    peak = max(float(np.asarray(strip).max()) for _, strip in _strips(image))
    if not np.isfinite(peak):
        raise PhotoError(f"holds pixels that are no numbers (NaN or infinite); {NEEDED}")
    ranges = (1.0, 255.0, 65535.0, 2.0**32 - 1) if image.mode == "F" else (255.0, 65535.0, 2.0**32 - 1)
    return next((white for white in ranges if peak <= white), peak)


def _flatten(image: Image.Image, full_scale: float | None, paper: str) -> Image.Image:
    """Bring any mode to L, RGB, CMYK or LAB, 8 bits a channel; what is transparent is laid on `paper`."""
    if full_scale is not None:
        greys = np.asarray(image) * np.float32(255 / full_scale)
        return Image.fromarray(np.rint(greys.clip(0, 255)).astype(np.uint8))
    if image.has_transparency_data:
        return Image.alpha_composite(Image.new("RGBA", image.size, paper), image.convert("RGBA")).convert("RGB")
    if image.mode in ("L", "RGB", "CMYK", "LAB"):
        return image
    return image.convert("L" if image.mode == "1" else "RGB")


def _srgb_transform(image: Image.Image) -> ImageCms.ImageCmsTransform | None:
    """From the embedded ICC profile to sRGB; None where there is none, or where it is broken or of another mode."""
    mode = _flatten(image.crop((0, 0, 1, 1)), 255.0 if image.mode in DEEP_GREYS else None, "white").mode
    embedded = image.info.get("icc_profile", b"")
    if mode != "LAB" and not embedded:
        return None
    try:
        profile = ImageCms.createProfile("LAB") if mode == "LAB" else ImageCms.ImageCmsProfile(BytesIO(embedded))
        if "sRGB" in ImageCms.getProfileDescription(profile):  # no change, and it would cost 0.4 s for 12 megapixels
            return None
        return ImageCms.buildTransform(profile, ImageCms.createProfile("sRGB"), mode, "RGB")
    except (ImageCms.PyCMSError, OSError):
        return None


def _orientation(image: Image.Image) -> int:
    """EXIF orientation 1 to 8; 1 where there is none or it is broken, and for TIFF and HEIF, which come turned."""
    try:
        # Not image.getexif(): for a PNG that decodes the pixels, and what fails there must not be lost here.
        orientation = Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)
    except Exception:  # broken EXIF, of which every field may raise another type, must not cost the photo
        return 1
    return orientation if orientation in range(1, 9) and image.format not in ("TIFF", "HEIF") else 1


def _turn(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Turn (H, W, ...) upright; the result is contiguous. Orientations: EXIF 2.32, tag 0x0112."""
    if orientation in SIDEWAYS:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def _name(source: PhotoSource) -> str:
    """What a message calls the picture: the file's name without its folder, on one line."""
    if isinstance(source, Image.Image):
        source = str(getattr(source, "filename", "") or "PIL picture")
    if isinstance(source, (str, Path)):
        return "".join(c if c.isprintable() else "?" for c in Path(source).name)
    return "picture bytes" if isinstance(source, bytes) else f"a picture given as {type(source).__name__}"


def _explained(error: Exception, source: PhotoSource) -> PhotoError:
    """What came and what was needed. Pillow's own words are left out: they may hold the path."""
    if isinstance(error, PermissionError):
        return PhotoError("this file may not be read; needed: permission to read it")
    if isinstance(error, Image.DecompressionBombError):
        return PhotoError("too many pixels; needed: at most {most}, so save it smaller", most=f"{MAX_PIXELS:,}")
    if isinstance(error, UnidentifiedImageError) and isinstance(source, (bytes, str, Path)):
        head = _head(source)
        for offset, signature, name in UNREAD:
            if head[offset:].startswith(signature):
                return PhotoError("{name} is not read yet: save it as JPEG or PNG", name=name)
        return PhotoError(f"no picture that can be read; {NEEDED}")
    if "truncated" in str(error):
        return PhotoError(f"the file is cut short; {NEEDED}")
    return PhotoError(f"the file is damaged; {NEEDED}")
