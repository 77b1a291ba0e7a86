"""What stands behind the Models tab, the same for every page. No gradio here."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtl.data.folder import DataFolder, Sample, Split
from mtl.errors import DataError, HubError, MtlError, RequestError
from mtl.files import write_text
from mtl.hub.package import EVALUATION_FILE
from mtl.hub.pull import pull
from mtl.hub.push import push
from mtl.hub.reference import parse_reference
from mtl.hub.tokens import find_token
from mtl.place import Place
from mtl.ui import model_views
from mtl.ui.checks import Progress
from mtl.ui.choices import prepare_data, read_choice
from mtl.ui.model_facts import FactReader
from mtl.ui.models import ModelShelf, ShelfModel
from mtl.ui.texts import Words
from mtl.ui.transfers import Job, Jobs, PushOrder
from mtl.ui.visitor import Visitor

if TYPE_CHECKING:
    from mtl.api import MultiTaskModel
    from mtl.export import Format

SPLITTING = ("seed", "val_fraction", "include")  # settings that decide which photos are on which side
CHECKED_PHOTOS = 4  # an export is compared with the network on so many


class ModelDesk:
    """Models, their facts and the job of this server."""

    def __init__(
        self, shelf: ModelShelf, place: Place, data_root: Path, checkpoints_dir: Path, examples: Sequence[Path]
    ):
        """examples: photos that an export is checked with."""
        self.shelf, self.place, self.data_root, self.checkpoints_dir = shelf, place, data_root, checkpoints_dir
        self.examples = list(examples[:CHECKED_PHOTOS])
        self.facts, self.jobs = FactReader(), Jobs()

    # ---- what is shown

    def cards(self, active: str, visitor: Visitor, t: Words) -> str:
        models = [(model, self.facts.get(model), self._allowed(model, visitor, t)) for model in self.shelf.models()]
        return model_views.cards(models, active, t)

    def _allowed(self, model: ShelfModel, visitor: Visitor, t: Words) -> set[str]:
        """What this visitor may do with it."""
        changes = set() if visitor.why_no_change(t) else {"evaluate", "delete"}
        if model.name == self.shelf.first or (model.run and model.run.status().live):
            changes -= {"delete"}
        return {"use"} | changes | (set() if visitor.why_not_taken(model.origin, t) else {"export", "push"})

    def line(self, name: str, t: Words) -> str:
        """Of the chosen model; empty where it is gone."""
        try:
            return model_views.model_line(self.facts.read(self.shelf.find(name)), t)
        except MtlError:
            return ""

    def account(self, visitor: Visitor, *, can_sign_in: bool, t: Words) -> str:
        """Whose token is used, or where to put one; nothing of the token itself."""
        if self.place.on_space:
            if visitor.user:
                return t("Signed in as {name}: you push as yourself.", name=visitor.user)
            if can_sign_in:
                return visitor.why_no_push(t)
            return t("The host of this Space has not turned signing in on (hf_oauth), so nothing can be pushed.")
        if find_token():
            return t("The token of this computer is used, to push and for private models.")
        return t(
            "There is no token on this computer: public models can be pulled; to push, set HF_TOKEN before the start, "
            "or run: hf auth login"
        )

    def suggested_repo(self, model: ShelfModel, visitor: Visitor) -> str:
        """Where it was pushed to or pulled from, else one of the visitor's own."""
        known = read_object(model.folder / "hub.json").get("repo_id")
        if isinstance(known, str):
            return known
        return f"{visitor.user}/{model.folder.name}" if visitor.user else ""

    # ---- what is begun

    def begin_push(self, order: PushOrder, token: str | None, visitor: Visitor, t: Words, *, overwrite: bool) -> None:
        """Raises MtlError where it cannot begin."""
        require(visitor.why_no_push(t))
        token = self._own_token(token)
        if token is None:
            raise HubError(t("there is no token to push with; set HF_TOKEN, or run: hf auth login"))
        repo_id, model = parse_reference(order.repo_id).repo_id, self._taken(order.model, visitor, t)

        def work(job: Job) -> Any:
            return push(
                model.path,
                repo_id,
                message=order.message or None,
                tag=order.tag or None,
                private=order.private,
                license=order.license or None,
                overwrite=overwrite,
                token=token,
                transfer=job.transfer,
            )

        self.jobs.begin(Job("push", repo_id, work, user=visitor.user, order=order))

    def begin_pull(self, text: str, revision: str, token: str | None, visitor: Visitor, t: Words) -> None:
        """Raises MtlError where it cannot begin."""
        require(visitor.why_no_change(t))
        token = self._own_token(token)
        if not text.strip():
            raise HubError(t("no model is named; needed owner/name, hf://owner/name or the address of its page"))
        reference = parse_reference(text, revision.strip() or None)

        def work(job: Job) -> Any:
            # An empty token looks for no other.
            return pull(reference, self.checkpoints_dir, token=token or "", transfer=job.transfer)

        subject = f"{reference.repo_id}@{reference.revision}"
        self.jobs.begin(Job("pull", subject, work, user=visitor.user))

    def begin_evaluation(self, name: str, data: str, split: Split, visitor: Visitor, t: Words) -> None:
        """Raises MtlError where it cannot begin."""
        require(visitor.why_no_change(t))
        model = self.shelf.find(name)

        def work(job: Job) -> Any:
            from mtl.evaluation.evaluate import evaluate

            for _ in prepare_data(self.data_root, data):
                pass
            loaded = self.shelf.get(name)
            folder, samples = self._photos_for(loaded, data, split)
            report = {
                "checkpoint": loaded.checkpoint.name,
                "weights": loaded.checkpoint.revision,
                "data": folder.path.name,
                "split": split,
                **evaluate(samples, loaded.engine, loaded.config, job.report, folder=folder.path),
            }
            job.go_on("draw")
            job.file = self.jobs.folder() / f"{model.folder.name}-evaluation.html"
            write_page(job.file, report, samples, loaded, job.report)
            return report, keep_evaluation(model, report)

        self.jobs.begin(Job("evaluate", name, work, user=visitor.user))

    def _photos_for(self, model: "MultiTaskModel", data: str, split: Split) -> tuple[DataFolder, Sequence[Sample]]:
        """A data folder and its photos of one side, for an evaluation. Raises DataError where they do not fit."""
        from mtl.evaluation.evaluate import require_same_classes

        # Else photos that it was trained on might be on the validation side.
        reading = {key: model.checkpoint.training[key] for key in SPLITTING if key in model.checkpoint.training}
        folder = read_choice(self.data_root, data, reading)
        require_same_classes(model.config, folder.classes.names)
        samples = folder.split(split)
        if not samples:
            raise DataError(f"{data}: no photo is on the {split} side; choose the other side or another folder")
        return folder, samples

    def begin_export(self, name: str, format_: "Format", visitor: Visitor, t: Words) -> None:
        """Raises MtlError where it cannot begin."""
        model = self._taken(name, visitor, t)

        def work(job: Job) -> Any:
            from mtl.export import export

            stem = self.jobs.folder() / model.folder.name
            path = stem.with_name(f"{stem.name}.onnx") if format_ == "onnx" else stem
            report = export(self.shelf.get(name).checkpoint, path, format_, self.examples)
            # safetensors are a folder: weights, config and card.
            job.file = path if format_ == "onnx" else Path(shutil.make_archive(str(stem), "zip", stem))
            return report

        self.jobs.begin(Job("export", name, work, can_cancel=False, user=visitor.user))

    def delete(self, name: str, visitor: Visitor, t: Words) -> None:
        """Raises MtlError where it cannot go."""
        require(visitor.why_no_change(t))
        self.shelf.delete(name)

    def _taken(self, name: str, visitor: Visitor, t: Words) -> ShelfModel:
        """The model, where this visitor may take it along."""
        model = self.shelf.find(name)
        require(visitor.why_not_taken(model.origin, t))
        return model

    def _own_token(self, token: str | None) -> str | None:
        """The visitor's on a Space, and nobody else's there; this computer's elsewhere."""
        return find_token(token or "") if self.place.on_space else find_token()


def require(reason: str) -> None:
    """Raise RequestError where there is a reason against it."""
    if reason:
        raise RequestError(reason)


def write_page(
    path: Path, report: Mapping[str, Any], samples: Sequence[Sample], model: "MultiTaskModel", progress: Progress
) -> None:
    """The report as one HTML file, with the photos that the model does worst on; PhotoError where one is gone."""
    from mtl.evaluation.page import write_report
    from mtl.evaluation.pictures import draw_worst

    write_report(path, report, draw_worst(report, samples, model.engine, model.config, progress))


def keep_evaluation(model: ShelfModel, report: Mapping[str, Any]) -> bool:
    """Write the report beside weights that were made here; what was shipped or pulled stays as it came."""
    if model.origin not in ("run", "own"):
        return False
    try:
        write_text(model.folder / EVALUATION_FILE, json.dumps(report, indent=2) + "\n")
    except OSError:  # a folder that cannot be written
        return False
    return True


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object; empty where there is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
