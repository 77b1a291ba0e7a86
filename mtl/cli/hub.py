"""`push` and `pull`. A token is no option: it would stay in the shell's history; see `mtl.hub.tokens`."""

import argparse
import json
import os
from dataclasses import asdict
from pathlib import Path

from mtl.cli.options import AddVerb
from mtl.cli.terminal import follow

TOKEN_HELP = "The token comes from HF_TOKEN or from `hf auth login`; the Hub is HF_ENDPOINT, or https://huggingface.co."


def add_verbs(add: AddVerb) -> None:
    push = add("push", run_push, "push a model with its card to the Hugging Face Hub")
    push.add_argument("source", metavar="SOURCE", help="a run's folder, a .pth file or a folder with model.safetensors")
    push.add_argument("repo_id", metavar="OWNER/NAME", help="the repository; it is made where there is none")
    push.add_argument("--message", help="of the commit; unset: the weights and how good they are")
    push.add_argument("--tag", help="a name for this commit, such as v1.0")
    push.add_argument("--public", action="store_true", help="everybody may see it; unset: a new repository is private")
    push.add_argument("--license", help="of the weights, as the Hub names it, such as apache-2.0; unset: research only")
    push.add_argument("--overwrite", action="store_true", help="push onto a head that was not pushed or pulled here")
    push.epilog = TOKEN_HELP

    pull = add("pull", run_pull, "pull a model from the Hugging Face Hub")
    pull.add_argument("reference", metavar="OWNER/NAME[@REVISION]", help="with or without hf://, or its page's address")
    pull.add_argument("--revision", help="a branch, tag or commit; unset: main")
    pull.add_argument(
        "--checkpoints-dir", metavar="DIR", help="where models are kept; unset: MTL_CHECKPOINTS_DIR, or checkpoints"
    )
    pull.epilog = TOKEN_HELP


def run_push(args: argparse.Namespace) -> None:
    from mtl.hub.push import push
    from mtl.hub.transfer import Transfer

    transfer = Transfer("push", args.repo_id)
    pushed = follow(
        transfer,
        lambda: push(
            Path(args.source),
            args.repo_id,
            message=args.message,
            tag=args.tag,
            private=not args.public,
            license=args.license,
            overwrite=args.overwrite,
            transfer=transfer,
        ),
        quiet=args.json,
    )
    if args.json:
        print(json.dumps(asdict(pushed)))
        return
    done = "pushed" if pushed.changed else "unchanged, no new commit"
    tag = f", tag {pushed.tag}" if pushed.tag else ""
    print(f"{done}: {pushed.url} ({'private' if pushed.private else 'public'}), commit {pushed.commit[:7]}{tag}")


def run_pull(args: argparse.Namespace) -> None:
    from mtl.hub.pull import pull
    from mtl.hub.reference import parse_reference
    from mtl.hub.transfer import Transfer
    from mtl.model_files import DEFAULT_CHECKPOINT

    reference = parse_reference(args.reference, args.revision)
    folder = Path(args.checkpoints_dir or os.environ.get("MTL_CHECKPOINTS_DIR") or DEFAULT_CHECKPOINT.parent)
    transfer = Transfer("pull", reference.repo_id)
    pulled = follow(transfer, lambda: pull(reference, folder, transfer=transfer), quiet=args.json)
    if args.json:
        names = {"repo_id": reference.repo_id, "revision": reference.revision, "commit": pulled.commit}
        print(json.dumps({**names, "path": str(pulled.path), "at": pulled.pulled_at, "files": pulled.files}))
        return
    size = sum(file["size"] for file in pulled.files.values()) / 1e6
    print(f"{reference}, commit {pulled.commit[:7]}: {len(pulled.files)} files, {size:.1f} MB\n{pulled.path}")
