"""Where the application runs, read from the environment: an own machine, or a Hugging Face Space and of which kind.

The variables are those that Spaces set [https://huggingface.co/docs/hub/spaces-overview].
"""

import logging
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mtl.errors import ConfigError

log = logging.getLogger(__name__)

YES = {"1", "true", "yes", "on"}
# Where a Space's persistent storage is mounted, if its owner has added one.
STORAGE = Path("/data")


@dataclass(frozen=True)
class Place:
    """An own machine where `space_id` is empty."""

    space_id: str = ""  # owner/name
    space_host: str = ""  # owner-name.hf.space
    zero_gpu: bool = False  # a worker with a GPU is forked for each call
    training_allowed: bool = False  # by the host, for every visitor of a Space

    @property
    def on_space(self) -> bool:
        return bool(self.space_id)

    @property
    def owner(self) -> str:
        return self.space_id.partition("/")[0]

    def why_no_training(self, user: str | None = None) -> str:
        """One line that says why `user` (a signed-in name on the Hub) cannot train here; empty where they can."""
        if self.zero_gpu:
            return "ZeroGPU lends its GPU to one call at a time, so nothing can be trained here; analysis works"
        if not self.on_space or self.training_allowed or (user and user.lower() == self.owner.lower()):
            return ""
        return "training is off on this public Space; its owner can sign in, or set MTL_ALLOW_TRAINING=1"


def place_of(environ: Mapping[str, str]) -> Place:
    return Place(
        environ.get("SPACE_ID", ""),
        environ.get("SPACE_HOST", ""),
        zero_gpu=environ.get("SPACES_ZERO_GPU", "").lower() in YES,
        training_allowed=environ.get("MTL_ALLOW_TRAINING", "").lower() in YES,
    )


def choose_folder(option: str, given: Path | None, default: Path, place: Place, storage: Path = STORAGE) -> Path:
    """A folder that can be written: the given one or `default`; on a Space rather one that outlives a restart.

    option: what it is called where it is set, for messages. On a Space that gives no folder, one in its storage is
    taken, then `default`, and for want of any a temporary one, with a warning. On an own machine the one that is meant
    is needed: raises ConfigError where it cannot be written.
    """
    wanted = [given or default]
    if place.on_space and given is None and storage.is_dir():
        wanted.insert(0, storage / default.name)
    for folder in wanted:
        if not (reason := why_not_writable(folder)):
            return folder
        if not place.on_space:
            raise ConfigError(f"{option}: {folder} cannot be written ({reason}); name another folder")
    temporary = Path(tempfile.mkdtemp(prefix=f"mtl-{default.name}-"))
    log.warning("%s: %s cannot be written (%s); what is put there is lost at a restart", option, wanted[-1], reason)
    return temporary


def why_not_writable(folder: Path) -> str:
    """Make the folder and write into it: what the system says where that fails, else empty."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Rights alone do not tell: a read-only file system, a full quota, root.
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"probe")
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        return getattr(error, "strerror", None) or str(error)
    return ""
