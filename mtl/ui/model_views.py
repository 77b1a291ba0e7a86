"""How models and what happens to them read: plain data in, HTML out. Everything that came from outside is escaped."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

from mtl.config import ModelConfig
from mtl.errors import HubConflictError
from mtl.hub.card_body import figure_at, one_line
from mtl.hub.transfer import TransferFile
from mtl.ui.model_facts import ModelFacts
from mtl.ui.models import ShelfModel
from mtl.ui.run_views import UNKNOWN, duration, moment, size
from mtl.ui.texts import Words
from mtl.ui.transfers import Job

HASH_DIGITS = 12
SILENT_SECONDS = 3.0  # from so long a silence on it is told

# ---- cards


def cards(models: Sequence[tuple[ShelfModel, ModelFacts | None, set[str]]], active: str, t: Words) -> str:
    """All models, each with what is known of it and what may be done with it."""
    shown = "".join(_card(model, facts, active == model.name, allowed, t) for model, facts, allowed in models)
    return f'<div class="mtl-models">{shown}</div>'


def _card(model: ShelfModel, facts: ModelFacts | None, is_active: bool, allowed: set[str], t: Words) -> str:
    badge = f'<span class="badge">{t("in use")}</span>' if is_active else ""
    body = f'<p class="mtl-quiet">{t("Reading the weights")}…</p>' if facts is None else _body(facts, t)
    return (
        f'<article class="mtl-model{" active" if is_active else ""}" data-name="{escape(model.name)}">'
        f"<header><h3>{escape(model.name)}</h3>{badge}</header>"
        f'<p class="mtl-quiet">{_origin(model, t)}</p>{body}{_actions(model, facts, is_active, allowed, t)}</article>'
    )


def _origin(model: ShelfModel, t: Words) -> str:
    if model.pulled:
        return t("pulled from the Hub, commit {commit}", commit=escape(model.pulled.commit[:HASH_DIGITS]))
    if model.run:
        return t("run, still being trained") if model.run.status().live else t("trained here")
    return t("shipped with this program") if model.origin == "shipped" else t("the model that was started with")


def _body(facts: ModelFacts, t: Words) -> str:
    if facts.problem or facts.config is None:
        why = escape(t.told(facts.problem)) if facts.problem else ""
        return f'<div class="mtl-message error"><b>{t("This model cannot be used")}</b>{why}</div>'
    pairs = {
        t("revision"): f"<code>{escape(facts.revision)}</code>",
        t("date"): moment(facts.date),
        t("size"): size(facts.size),
    }
    return _figures(facts, t) + _pairs(pairs) + _calibration(facts.config, t) + _classes(facts, t)


def _calibration(config: ModelConfig, t: Words) -> str:
    """How its answers are read: "calibrated, temperature 1.43 · mask cut at 0.45", and the groups it never names."""
    fitted = t("not calibrated")
    if config.temperature != 1.0:
        fitted = t("calibrated, temperature {temperature}", temperature=t.number(config.temperature, 2))
    words = [fitted, t("mask cut at {threshold}", threshold=t.number(config.mask_threshold, 2))]
    if config.unnamed_groups:
        groups = ", ".join(escape(t(group)) for group in config.unnamed_groups)
        words.append(t("never named: {groups}", groups=groups))
    return f'<p class="mtl-quiet">{" · ".join(words)}</p>'


def _pairs(pairs: Mapping[str, str]) -> str:
    """Labels and what is HTML already."""
    return f'<dl class="mtl-facts">{"".join(f"<div><dt>{k}</dt><dd>{v}</dd></div>" for k, v in pairs.items())}</dl>'


def _classes(facts: ModelFacts, t: Words) -> str:
    assert facts.config is not None
    names = zip(facts.config.classes.names, facts.config.trained, strict=True)
    lists: dict[bool, list[str]] = {True: [], False: []}
    for name, is_trained in names:
        lists[is_trained].append(escape(t(name)))
    missing = f"<p>{t('not trained')}: {', '.join(lists[False])}</p>" if lists[False] else ""
    mask = "" if facts.config.mask_trained else f"<p>{t('Its mask is not trained: it finds no lesions.')}</p>"
    return (
        f"<details><summary>{class_words(facts, t)}</summary><p>{', '.join(lists[True])}</p>{missing}</details>{mask}"
    )


def class_words(facts: ModelFacts, t: Words) -> str:
    """ "9 of 10 classes"."""
    trained = facts.config.trained if facts.config else ()
    if all(trained):
        return t("{n} classes", n=len(trained))
    return t("{n} of {total} classes trained", n=sum(trained), total=len(trained))


def _actions(model: ShelfModel, facts: ModelFacts | None, is_active: bool, allowed: set[str], t: Words) -> str:
    """A model that cannot be read can be deleted only; the one in use needs no second choice."""
    is_good = facts is not None and facts.problem is None
    offered = (allowed if is_good else allowed & {"delete"}) - ({"use"} if is_active else set())
    words = {
        "use": t("Use"),
        "evaluate": t("Evaluate"),
        "export": t("Export"),
        "push": t("Push"),
        "delete": t("Delete"),
    }
    buttons = [_action(action, word, model, t) for action, word in words.items() if action in offered]
    return f'<div class="actions">{"".join(buttons)}</div>'


def _action(action: str, word: str, model: ShelfModel, t: Words) -> str:
    spoken = t("{action}: {model}", action=word, model=model.name)
    kind = ' class="main"' if action == "use" else ""
    return (
        f'<button type="button"{kind} data-do="{action}" data-name="{escape(model.name)}"'
        f' aria-label="{escape(spoken)}">{word}</button>'
    )


# ---- figures


class Score(NamedTuple):
    """A figure, and its 95 % interval, empty where none is known."""

    value: str
    interval: str = ""

    def __str__(self) -> str:
        return f"{self.value} ({self.interval})" if self.interval else self.value


def _figures(facts: ModelFacts, t: Words) -> str:
    """Nothing where nothing was measured."""
    figures, source = key_figures(facts, t)
    if not figures:
        return ""
    items = "".join(f"<div><dt>{name}</dt><dd>{_score(score)}</dd></div>" for name, score in figures.items())
    return f'<dl class="figures">{items}</dl><p class="mtl-quiet">{escape(source)}</p>'


def _score(score: Score) -> str:
    return f"{score.value}<small>{score.interval}</small>" if score.interval else score.value


def key_figures(facts: ModelFacts, t: Words) -> tuple[dict[str, Score], str]:
    """Name -> score of what was measured, and on what: the evaluation, else the validation while it was trained."""
    if facts.evaluation:
        return evaluation_figures(facts.evaluation, t), evaluated_on(facts.evaluation, t)
    named = {
        "val_dice": t("Dice"),
        "val_jaccard": t("Jaccard"),
        "val_balanced_accuracy": t("balanced accuracy"),
    }
    found = {name: figure_at(facts.metrics, key) for key, name in named.items()}
    scores = {name: Score(t.number(value, 3)) for name, value in found.items() if value is not None}
    return scores, t("validation while it was trained, epoch {n}", n=facts.epoch)


def evaluation_figures(report: Mapping[str, Any], t: Words) -> dict[str, Score]:
    """Name -> score of those figures of an evaluation that have one."""
    paths = {
        t("Dice"): ("segmentation", "dice"),
        t("Jaccard"): ("segmentation", "jaccard"),
        t("balanced accuracy"): ("classification", "balanced_accuracy"),
        t("AUROC"): ("classification", "macro_auroc"),
    }
    found = {name: figure_at(report, *path) for name, path in paths.items()}
    return {
        name: Score(t.number(value, 3), _interval(report, paths[name], t))
        for name, value in found.items()
        if value is not None
    }


def _interval(report: Mapping[str, Any], path: Sequence[str], t: Words) -> str:
    """ "0.790 to 0.831"; empty in reports that have none."""
    low, high = (figure_at(report, "intervals", *path, bound) for bound in ("low", "high"))
    if low is None or high is None:
        return ""
    return t("{low} to {high}", low=t.number(low, 3), high=t.number(high, 3))


def evaluated_on(report: Mapping[str, Any], t: Words) -> str:
    """ "evaluated on 249 photos, skin, val"; a report that was pulled may hold anything."""
    photos = figure_at(report, "photos")
    words = t("evaluated on {n} photos", n=UNKNOWN if photos is None else t.number(photos))
    return ", ".join([words, *(one_line(report[key]) for key in ("data", "split") if report.get(key))])


def model_line(facts: ModelFacts, t: Words) -> str:
    """Of the chosen model, below its name: revision, date, classes and the first figure."""
    if facts.problem:
        return ""
    figures, _ = key_figures(facts, t)
    first = [f"{name} {value}" for name, value in list(figures.items())[:1]]
    parts = [f"<code>{escape(facts.revision)}</code>", moment(facts.date), class_words(facts, t), *first]
    return f'<p class="mtl-quiet mtl-model-line">{" · ".join(parts)}</p>'


# ---- what happens now


def job_card(job: Job | None, may_see: bool, t: Words) -> str:
    """The job of this server; empty where there is none. may_see: else nothing of it is told but that it is there."""
    if job is None:
        return ""
    if not may_see:
        busy = t("Another visitor's model is on its way.")
        return f'<div class="mtl-message quiet"><b>{busy}</b></div>' if job.state == "running" else ""
    if job.state == "running":
        return _running(job, t)
    words = {"done": _done, "cancelled": _cancelled, "failed": _failed}[job.state](job, t)
    return words + _file_list(job, t)


def job_title(job: Job, t: Words) -> str:
    subject = job.subject
    titles = {
        "push": t("Pushing to {name}", name=subject),
        "pull": t("Pulling {name}", name=subject),
        "evaluate": t("Evaluating {name}", name=subject),
        "export": t("Exporting {name}", name=subject),
    }
    return titles[job.kind]


def _running(job: Job, t: Words) -> str:
    share = _share(job)
    fill = f'<div class="fill" style="width:{100 * share:.1f}%"></div>' if share else '<div class="fill busy"></div>'
    said = t("Cancelling") + "…" if job.is_cancelled else _message(job, t)
    return (
        f'<div class="mtl-progress mtl-live mtl-job"><div class="line"><b>{escape(job_title(job, t))}</b>'
        f"<span>{_left(job, t)}</span></div>"
        f'<div class="track" role="progressbar" aria-label="{escape(job_title(job, t))}" aria-valuemin="0"'
        f' aria-valuemax="100" aria-valuenow="{100 * share:.0f}">{fill}</div>'
        f'<p class="line mtl-quiet"><span>{escape(said)}</span><span>{_pace(job, t)}</span></p>'
        f"{_files(job, t)}</div>"
    )


def _share(job: Job) -> float:
    done, total = (job.transfer.bytes_done, job.transfer.bytes_total) if job.transfer else (job.done, job.total)
    return done / total if total and not job.is_reckoning else 0.0


def _message(job: Job, t: Words) -> str:
    if job.transfer is None:
        return _work(job, t)
    silent = job.transfer.seconds_silent
    waits = t("nothing has come for {s} s", s=round(silent)) if silent > SILENT_SECONDS else ""
    return "; ".join(part for part in (job.transfer.message, waits) if part)


def _work(job: Job, t: Words) -> str:
    """What is done now, where nothing goes to the Hub or comes from there."""
    if job.kind == "export":
        return t("Checking it against the network on photos")
    if job.step == "draw":
        return t("Drawing the photos that it does worst on")
    return t("Working out intervals, and figures by skin tone and source") if job.is_reckoning else ""


def _pace(job: Job, t: Words) -> str:
    if job.transfer is None:
        return t("{done} of {total} photos", done=job.done, total=job.total) if job.total else ""
    if not job.transfer.bytes_total:
        return ""
    moved = t("{done} of {total}", done=size(job.transfer.bytes_done), total=size(job.transfer.bytes_total))
    pace = job.bytes_per_second
    return f"{moved}, {size(round(pace))}/s" if pace else moved


def _left(job: Job, t: Words) -> str:
    left = job.seconds_left
    return "" if left is None or job.is_cancelled else t("{time} left", time=duration(left))


def _files(job: Job, t: Words) -> str:
    if job.transfer is None or not job.transfer.files:
        return ""
    rows = "".join(_file(file, job.state == "failed", t) for file in list(job.transfer.files))
    return f'<ul class="mtl-moves">{rows}</ul>'


def _file_list(job: Job, t: Words) -> str:
    """Of a transfer that has ended: folded, unless it failed on its way."""
    if job.transfer is None or not job.transfer.files or job.state == "cancelled":
        return ""
    files = _files(job, t)
    if job.state == "failed":
        return files if job.transfer.bytes_done else ""
    return f"<details><summary>{t('{n} files', n=len(job.transfer.files))}</summary>{files}</details>"


def _file(file: TransferFile, is_over: bool, t: Words) -> str:
    states = {
        "waiting": t("waiting"),
        "moving": t("on its way"),
        "checking": t("being checked"),
        "done": t("done"),
        "unchanged": t("there already"),
    }
    word = t("broken off") if is_over and file.state in ("moving", "checking") else states[file.state]
    share = 1.0 if file.state in ("done", "unchanged") else file.done / file.size if file.size else 0.0
    digits = file.sha256[:HASH_DIGITS]
    hashed = f'<code title="SHA-256 {escape(file.sha256)}">{escape(digits)}</code>' if digits else ""
    return (
        f'<li class="{file.state}"><span class="name">{escape(file.name)}</span>'
        f'<span class="state">{word}</span>'
        f'<span class="size">{size(file.size)} {hashed}</span>'
        f'<span class="track"><span class="fill" style="width:{100 * share:.1f}%"></span></span></li>'
    )


# ---- how it ended


def _done(job: Job, t: Words) -> str:
    headline, lines = {"push": _pushed, "pull": _pulled, "evaluate": _evaluated, "export": _exported}[job.kind](job, t)
    body = "".join(f"<p>{line}</p>" for line in lines)
    return f'<div class="mtl-message good mtl-job" role="status"><b>{escape(headline)}</b>{body}</div>'


def _pushed(job: Job, t: Words) -> tuple[str, list[str]]:
    pushed = job.result
    headline = t("{name} is on the Hub", name=pushed.repo_id)
    if not pushed.changed:
        headline = t("{name} has this model already", name=pushed.repo_id)
    commit = t("commit {commit}", commit=escape(pushed.commit[:HASH_DIGITS]))
    tag = t("tag {tag}", tag=escape(pushed.tag)) if pushed.tag else ""
    load = f'<code>MultiTaskModel.load("hf://{escape(pushed.repo_id)}")</code>'
    seen = t("private") if pushed.private else t("public")
    where = ", ".join(part for part in (commit, tag, seen) if part)
    lines = [f"{_link(pushed.url, t('Open its page'))} · {where}", t("Load it anywhere: {code}", code=load)]
    return headline, [*lines, escape(pushed.note)] if pushed.note else lines


def _pulled(job: Job, t: Words) -> tuple[str, list[str]]:
    pulled = job.result
    total = sum(file["size"] for file in pulled.files.values())
    told = t("{n} files, {size}, each checked against the Hub's hash", n=len(pulled.files), size=size(total))
    commit = t("commit {commit}", commit=escape(pulled.commit[:HASH_DIGITS]))
    return t("{name} is here", name=f"{pulled.reference.repo_id}@{pulled.reference.revision}"), [told, commit]


def _evaluated(job: Job, t: Words) -> tuple[str, list[str]]:
    report, is_kept = job.result
    figures = ", ".join(f"{name} {score}" for name, score in evaluation_figures(report, t).items())
    kept = (
        t("It is on the model's card now.")
        if is_kept
        else t("It is told here only: what was shipped or pulled stays as it came.")
    )
    return t("{name} was evaluated", name=job.subject), [
        figures or t("Nothing could be measured: these photos have neither labels nor masks."),
        f"{escape(evaluated_on(report, t))}. {kept}",
        t("The report has all figures, in brackets their 95 % intervals, and the photos that it does worst on."),
    ]


def _exported(job: Job, t: Words) -> tuple[str, list[str]]:
    report = job.result
    told = t(
        "{format}, {size}; on {n} photos it differs from the network by at most {difference}",
        format=escape(report.format),
        size=size(report.bytes),
        n=report.photos,
        difference=f"{report.largest_difference:.1e}",
    )
    return t("{name} is exported", name=job.subject), [told]


def _link(address: str, words: str) -> str:
    """Only to where a browser may be sent."""
    if not address.startswith(("https://", "http://")):
        return ""
    return f'<a href="{escape(address)}" target="_blank" rel="noopener noreferrer">{words}</a>'


def _cancelled(job: Job, t: Words) -> str:
    said = t("Nothing has changed.")
    return f'<div class="mtl-message quiet mtl-job" role="status"><b>{t("Cancelled")}</b>{said}</div>'


def _failed(job: Job, t: Words) -> str:
    headlines = {
        "push": t("{name} could not be pushed", name=job.subject),
        "pull": t("{name} could not be pulled", name=job.subject),
        "evaluate": t("{name} could not be evaluated", name=job.subject),
        "export": t("{name} could not be exported", name=job.subject),
    }
    assert job.error is not None
    kind = "warning" if isinstance(job.error, HubConflictError) else "error"
    same = f"<p>{t('The models here are as they were.')}</p>" if job.transfer else ""
    return (
        f'<div class="mtl-message {kind} mtl-job" role="alert"><b>{escape(headlines[job.kind])}</b>'
        f"{escape(t.told(job.error))}{same}</div>"
    )


# ---- questions


def delete_question(model: ShelfModel, bytes_there: int, t: Words) -> str:
    """Names what goes."""
    goes = t("The whole run goes: weights, curves, samples and log.") if model.run else t("The pulled files go.")
    stays = t("Photos stay.") if model.run else t("What is on the Hub stays.")
    return (
        f'<div class="mtl-message warning"><b>{escape(t("Delete {name} for good?", name=model.name))}</b>'
        f"{size(bytes_there)}. {goes} {stays}</div>"
    )
