"""Where the application runs, read from the environment: an own machine, or a Hugging Face Space and of which kind.

The variables are those that Spaces set [https://huggingface.co/docs/hub/spaces-overview].
"""

from collections.abc import Mapping
from dataclasses import dataclass

YES = {"1", "true", "yes", "on"}


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
