"""The Models tab: what is here, and its ways to the Hugging Face Hub and back."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.events import Dependency

from mtl.errors import HubConflictError, MtlError
from mtl.ui import model_views, views
from mtl.ui.choices import data_choices
from mtl.ui.events import QUIET, in_turn
from mtl.ui.fields import with_chosen
from mtl.ui.labels import label
from mtl.ui.model_desk import ModelDesk
from mtl.ui.tabs.models.forms import Forms, PullForm, render_forms, render_pull
from mtl.ui.texts import Words, words_for
from mtl.ui.transfers import Job, PushOrder
from mtl.ui.visitor import Visitor

CARDS_JS, TIMES_JS = (Path(__file__).parents[2] / name for name in ("cards.js", "times.js"))
POLL_SECONDS = 0.7
# Presses the hidden download button once it has got its file.
SAVE_JS = "() => setTimeout(() => document.querySelector('#mtl-model-file').click(), 100)"
# What was asked for may be out of sight: below on a phone, above after a long way down.
SHOW_JS = """() => setTimeout(() => {
  const side = document.querySelector("#mtl-models-side");
  const { top } = side.getBoundingClientRect();
  if (top < 0 || top > innerHeight / 2) side.scrollIntoView();
}, 200)"""
Profile = gr.OAuthProfile | None
Token = gr.OAuthToken | None


@dataclass(frozen=True)
class Seen:
    """What a page shows, so that only what has changed is sent."""

    cards: str = ""
    job: str = ""
    offers: tuple[bool, ...] = ()
    choices: tuple[tuple[str, str], ...] = ()  # of the Analyse tab's models: label, name
    settled: bool = field(default=True, compare=False)  # else all is sent again


@dataclass(frozen=True)
class JobPart:
    """What is under way, and what can be done with it."""

    card: gr.HTML
    cancel: gr.Button
    use: gr.Button
    download: gr.Button
    overwrite: gr.Button
    close: gr.Button
    file: gr.DownloadButton  # hidden: what was exported, or an evaluation's report

    @property
    def buttons(self) -> list[Any]:
        """In the order of `_offers`."""
        return [self.cancel, self.use, self.download, self.overwrite, self.close]


@dataclass(frozen=True)
class Links:
    """Components of other tabs that this one changes."""

    model: gr.Dropdown  # of the Analyse tab
    tabs: gr.Tabs


@dataclass(frozen=True)
class ModelsTab:
    """What other tabs need of this one."""

    open_push: Callable[..., Any]  # (model's name, request, profile) -> updates of `opened`
    opened: list[Any]


@dataclass(frozen=True)
class _Parts:
    cards: gr.HTML
    job: JobPart
    forms: Forms
    pull_panel: gr.Column  # for those who may pull
    pull: PullForm
    account: gr.HTML
    chosen: gr.State  # str: the model of the open form
    seen: gr.State  # Seen


def build_models_tab(demo: gr.Blocks, desk: ModelDesk, links: Links) -> ModelsTab:
    """Render the tab and wire it; every page shows the same job."""
    parts = _render(desk)
    opener = _Opener(desk, parts)
    look = _Look(desk, parts, links)
    _wire_look(demo, desk, parts, links, look)
    _wire_cards(desk, parts, links, opener)
    _wire_forms(desk, parts, links, look)
    _wire_job(desk, parts, links, look)
    return ModelsTab(opener.open_push, opener.outputs)


# ---- components


def _render(desk: ModelDesk) -> _Parts:
    with gr.Row(equal_height=False, elem_id="mtl-models-tab"):
        with gr.Column(scale=7, min_width=320):
            gr.HTML('<h2 class="mtl-step" data-t="Models here"></h2>')
            script = "".join(path.read_text(encoding="utf-8") for path in (CARDS_JS, TIMES_JS))
            cards = gr.HTML(elem_id="mtl-cards", apply_default_css=False, js_on_load=script)
        with gr.Column(scale=4, min_width=320, elem_id="mtl-models-side"):
            job = _render_job()
            forms = render_forms(desk.data_root)
            with gr.Column(visible=not desk.place.on_space) as pull_panel:
                pull = render_pull()
            account = gr.HTML(elem_id="mtl-account")
            if desk.place.on_space and can_sign_in():
                # Without its picture: that is a file of gradio's own, and the guards give out no such files.
                gr.LoginButton(logout_value="Sign out ({})", icon=None, size="md", elem_id="mtl-login")
    return _Parts(cards, job, forms, pull_panel, pull, account, gr.State(""), gr.State(Seen()))


def can_sign_in() -> bool:
    """Has the Space's owner turned it on?"""
    return bool(os.environ.get("OAUTH_CLIENT_ID"))


def _render_job() -> JobPart:
    card = gr.HTML(elem_id="mtl-job", apply_default_css=False)
    with gr.Row(elem_id="mtl-job-buttons"):
        hidden: dict[str, Any] = {"visible": False, "size": "md", "min_width": 100}
        cancel = gr.Button(label("Cancel"), elem_id="mtl-job-cancel", **hidden)
        use = gr.Button(label("Use this model"), variant="primary", elem_id="mtl-job-use", **hidden)
        download = gr.Button(label("Download"), variant="primary", elem_id="mtl-job-download", **hidden)
        overwrite = gr.Button(label("Push over it"), variant="stop", elem_id="mtl-job-overwrite", **hidden)
        close = gr.Button(label("Close"), elem_id="mtl-job-close", **hidden)
    file = gr.DownloadButton(visible="hidden", elem_id="mtl-model-file")
    return JobPart(card, cancel, use, download, overwrite, close, file)


# ---- what is shown

LOOKING = in_turn("models")


def visitor_of(desk: ModelDesk, profile: Profile) -> Visitor:
    return Visitor(desk.place, profile.username if profile else "")


def _text_of(token: Token) -> str | None:
    return token.token if token else None


def words_of(request: gr.Request) -> Words:
    return words_for(request.headers.get("accept-language"))


def _offers(job: Job | None, visitor: Visitor) -> tuple[bool, ...]:
    """For each of `JobPart.buttons`: is it offered?"""
    if job is None or not visitor.may_see(job.user):
        return (False,) * 5
    # Of the conflicts, a public repository or a tag that stands elsewhere is not for overwriting.
    is_other_head = isinstance(job.error, HubConflictError) and "--overwrite" in str(job.error)
    return (
        job.state == "running" and job.can_cancel and not job.is_cancelled,
        job.kind == "pull" and job.state == "done",
        job.state == "done" and job.file is not None,
        is_other_head,
        job.state != "running",
    )


def _visibility(offers: tuple[bool, ...], seen: tuple[bool, ...]) -> list[Any]:
    return [gr.skip() if offers == seen else gr.update(visible=is_offered) for is_offered in offers]


class _Look:
    """Brings a page up to date."""

    def __init__(self, desk: ModelDesk, parts: _Parts, links: Links):
        self.desk, self.asked = desk, [links.model, parts.seen]
        self.shown = [parts.cards, parts.job.card, *parts.job.buttons, links.model, parts.seen]

    def after(self, event: Dependency, *, show: bool = False) -> None:
        """Once that is done; show: also scroll there."""
        looked = event.then(self.look, self.asked, self.shown, **LOOKING)
        if show:
            looked.then(None, None, None, js=SHOW_JS, **QUIET)

    def look(self, active: str, seen: Seen, request: gr.Request, profile: Profile) -> list[Any]:
        t, visitor, job = words_of(request), visitor_of(self.desk, profile), self.desk.jobs.current
        new = Seen(
            self.desk.cards(active, visitor, t),
            model_views.job_card(job, job is None or visitor.may_see(job.user), t),
            _offers(job, visitor),
            tuple(with_chosen([(name, name) for name in self.desk.shelf.names()], active)),
        )
        again = not seen.settled
        return [
            new.cards if again or new.cards != seen.cards else gr.skip(),
            new.job if again or new.job != seen.job else gr.skip(),
            *_visibility(new.offers, () if again else seen.offers),
            gr.update(choices=list(new.choices)) if new.choices != seen.choices else gr.skip(),
            replace(new, settled=new == seen) if again or new != seen else gr.skip(),
        ]


def _wire_look(demo: gr.Blocks, desk: ModelDesk, parts: _Parts, links: Links, look: _Look) -> None:
    def greet(request: gr.Request, profile: Profile) -> tuple[str, Any]:
        t, visitor = words_of(request), visitor_of(desk, profile)
        line = desk.account(visitor, can_sign_in=can_sign_in(), t=t)
        return f'<p class="mtl-quiet">{escape(line)}</p>', gr.update(visible=not visitor.why_no_change(t))

    gr.Timer(POLL_SECONDS).tick(look.look, look.asked, look.shown, **LOOKING)
    gr.on([demo.load, links.model.change], look.look, look.asked, look.shown, **LOOKING)
    demo.load(greet, None, [parts.account, parts.pull_panel], **QUIET)


# ---- a card's buttons


class _Opener:
    """Opens one form for one model, and closes the others."""

    def __init__(self, desk: ModelDesk, parts: _Parts):
        self.desk, self.parts, forms = desk, parts, parts.forms
        self.outputs = [
            parts.chosen,
            forms.panel,
            forms.title,
            *forms.columns.values(),
            forms.notice,
            forms.data,
            forms.repo_id,
            forms.message,
            forms.question,
        ]

    def open(self, action: str, name: str, visitor: Visitor, t: Words) -> list[Any]:
        model = self.desk.shelf.find(name)
        titles = {
            "evaluate": t("Evaluate {name}", name=name),
            "export": t("Export {name}", name=name),
            "push": t("Push {name} to the Hub", name=name),
            "delete": t("Delete {name}", name=name),
        }
        folders = data_choices(self.desk.data_root)
        is_push, is_delete = action == "push", action == "delete"
        return [
            name,
            gr.update(visible=True),
            f'<h2 class="mtl-step">{escape(titles[action])}</h2>',
            *(gr.update(visible=action == each) for each in self.parts.forms.columns),
            "",
            gr.update(choices=folders, value=folders[-1][1]) if action == "evaluate" else gr.skip(),
            self.desk.suggested_repo(model, visitor) if is_push else gr.skip(),
            "" if is_push else gr.skip(),
            model_views.delete_question(model, self.desk.shelf.size_bytes(name), t) if is_delete else gr.skip(),
        ]

    def open_push(self, name: str, request: gr.Request, profile: Profile) -> list[Any]:
        return self.open("push", name, visitor_of(self.desk, profile), words_of(request))


def _wire_cards(desk: ModelDesk, parts: _Parts, links: Links, opener: _Opener) -> None:
    def act(event: gr.EventData, request: gr.Request, profile: Profile) -> list[Any]:
        action, name = str(event.action), str(event.name)
        stay = [gr.skip()] * len(opener.outputs)
        try:
            if action == "use":
                desk.shelf.find(name)
                return [*stay, *_use(desk, name)]
            if action in parts.forms.columns:
                return [*opener.open(action, name, visitor_of(desk, profile), words_of(request)), gr.skip(), gr.skip()]
        except MtlError as error:
            gr.Warning(words_of(request).told(error))
        return [*stay, gr.skip(), gr.skip()]

    pressed = parts.cards.select(act, None, [*opener.outputs, links.model, links.tabs], **QUIET)
    pressed.success(None, None, None, js=SHOW_JS, **QUIET)
    parts.forms.close.click(lambda: gr.update(visible=False), None, parts.forms.panel, **QUIET)


def _use(desk: ModelDesk, name: str) -> tuple[Any, Any]:
    """Updates of `Links`."""
    return gr.update(choices=desk.shelf.names(), value=name), gr.update(selected="analyse")


# ---- the forms


def _refused(error: MtlError, t: Words) -> str:
    return views.message("error", t("This cannot be done"), t.told(error))


def _wire_forms(desk: ModelDesk, parts: _Parts, links: Links, look: _Look) -> None:
    forms = parts.forms
    begun: list[Any] = [forms.panel, forms.notice]

    def answered(begin: Callable[[], None], t: Words) -> tuple[Any, str]:
        try:
            begin()
        except MtlError as error:
            return gr.skip(), _refused(error, t)
        return gr.update(visible=False), ""

    def evaluate(name: str, data: str, split: Any, request: gr.Request, profile: Profile) -> tuple[Any, str]:
        t = words_of(request)
        return answered(lambda: desk.begin_evaluation(name, data, split, visitor_of(desk, profile), t), t)

    def export(name: str, format_: Any, request: gr.Request, profile: Profile) -> tuple[Any, str]:
        t = words_of(request)
        return answered(lambda: desk.begin_export(name, format_, visitor_of(desk, profile), t), t)

    def push(
        name: str,
        repo_id: str,
        private: bool,
        message: str,
        tag: str,
        license_: str,
        request: gr.Request,
        profile: Profile,
        token: Token,
    ) -> tuple[Any, str]:
        t, order = words_of(request), PushOrder(name, repo_id, private, message.strip(), tag.strip(), license_)
        visitor = visitor_of(desk, profile)
        return answered(lambda: desk.begin_push(order, _text_of(token), visitor, t, overwrite=False), t)

    def delete(name: str, active: str, request: gr.Request, profile: Profile) -> tuple[Any, str, Any]:
        t = words_of(request)
        update, notice = answered(lambda: desk.delete(name, visitor_of(desk, profile), t), t)
        is_gone = not notice and name == active
        # It stays among the choices until the page has looked again: what was asked before this answer names it still.
        return update, notice, gr.update(value=desk.shelf.first) if is_gone else gr.skip()

    def pull(text: str, revision: str, request: gr.Request, profile: Profile, token: Token) -> str:
        t, visitor = words_of(request), visitor_of(desk, profile)
        return answered(lambda: desk.begin_pull(text, revision, _text_of(token), visitor, t), t)[1]

    chosen = parts.chosen
    look.after(forms.evaluate.click(evaluate, [chosen, forms.data, forms.split], begun, **QUIET), show=True)
    look.after(forms.export.click(export, [chosen, forms.format], begun, **QUIET), show=True)
    look.after(forms.push.click(push, [chosen, *forms.order], begun, **QUIET), show=True)
    look.after(forms.delete.click(delete, [chosen, links.model], [*begun, links.model], **QUIET))
    fields = [parts.pull.reference, parts.pull.revision]
    asked_for = [parts.pull.pull.click, parts.pull.reference.submit, parts.pull.revision.submit]
    look.after(gr.on(asked_for, pull, fields, parts.pull.notice, **QUIET), show=True)


# ---- the job's buttons


def _wire_job(desk: ModelDesk, parts: _Parts, links: Links, look: _Look) -> None:
    part = parts.job

    def current(profile: Profile) -> Job | None:
        """None where it is another visitor's."""
        job = desk.jobs.current
        return job if job and visitor_of(desk, profile).may_see(job.user) else None

    def cancel(profile: Profile) -> Any:
        if job := current(profile):
            job.cancel()
        return gr.update(visible=False)

    def close(profile: Profile) -> None:
        if job := current(profile):
            desk.jobs.put_away(job)

    def use(profile: Profile) -> tuple[Any, Any]:
        job = current(profile)
        is_pulled = job is not None and job.subject in desk.shelf.names()
        return _use(desk, job.subject) if job and is_pulled else (gr.skip(), gr.skip())

    def download(profile: Profile) -> Any:
        job = current(profile)
        return str(job.file) if job and job.state == "done" and job.file else gr.skip()

    def overwrite(request: gr.Request, profile: Profile, token: Token) -> str:
        job, t = current(profile), words_of(request)
        try:
            if job and job.order:
                desk.begin_push(job.order, _text_of(token), visitor_of(desk, profile), t, overwrite=True)
        except MtlError as error:
            return _refused(error, t)
        return ""

    look.after(part.cancel.click(cancel, None, part.cancel, **QUIET))
    look.after(part.close.click(close, None, None, **QUIET))
    part.use.click(use, None, [links.model, links.tabs], **QUIET)
    look.after(part.overwrite.click(overwrite, None, parts.pull.notice, **QUIET))
    part.download.click(download, None, part.file, **QUIET).success(None, None, None, js=SAVE_JS, **QUIET)
