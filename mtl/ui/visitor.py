"""Who sits before a page, and what they may do with the models of this server. No gradio here."""

from dataclasses import dataclass

from mtl.place import Place
from mtl.ui.texts import Words


@dataclass(frozen=True)
class Visitor:
    """A visitor as far as the Hub's sign-in tells; nothing of a token."""

    place: Place
    user: str = ""  # the name on the Hub; empty where nobody is signed in

    @property
    def is_host(self) -> bool:
        """On an own machine everybody who reaches the page is; on a Space its owner."""
        return not self.place.on_space or (bool(self.user) and self.user.lower() == self.place.owner.lower())

    def may_see(self, user: str) -> bool:
        """May they see, and cancel, what `user` (empty: nobody in particular) has begun?"""
        return not user or self.is_host or self.user == user

    def why_no_change(self, t: Words) -> str:
        """Why they cannot pull, evaluate or delete here, which takes the host's disk and time; empty where they can."""
        if self.is_host:
            return ""
        return t("On a public Space only its owner, signed in, can pull, evaluate and delete models.")

    def why_no_push(self, t: Words) -> str:
        """Why they cannot push; empty where they can."""
        if not self.place.on_space or self.user:
            return ""
        return t("On a Space models are pushed under your own name: sign in with Hugging Face first.")

    def why_not_taken(self, origin: str, t: Words) -> str:
        """Why they cannot push or export a model of that origin: it may be private on the Hub. Empty where they can."""
        if self.is_host or origin == "shipped" or (origin == "run" and self.place.training_allowed):
            return ""
        return t("This model belongs to the host of this Space: it can be used here, not taken along.")
