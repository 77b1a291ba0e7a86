"""A Hugging Face Hub on 127.0.0.1 that speaks enough of the protocol for the real client, with faults to switch on.

    with LoopbackHub() as hub:
        token = hub.add_user("ada")
        HfApi(hub.url, token).create_repo("ada/skin", private=True)
        hub.faults["download"] = Fault("status", status=503)

Kept as the Hub keeps it: commits with parents, branches and tags; large files (*.safetensors, *.png) by their SHA-256,
uploaded to and downloaded from another host (`localhost`), as the Hub's storage is; all else by its git blob id.
"""

import asyncio
import base64
import hashlib
import json
import re
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal
from urllib.parse import unquote

import uvicorn
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

LARGE = (".safetensors", ".png", ".onnx", ".bin", ".pth")
CHUNK_BYTES = 1 << 16
REPO = r"(?P<repo>[^/]+/[^/]+)"
# What a fault or the log calls a request: method, raw path.
ROUTES = [
    ("whoami", "GET", r"/api/whoami-v2"),
    ("create", "POST", r"/api/repos/create"),
    ("delete", "DELETE", r"/api/repos/delete"),
    ("validate", "POST", r"/api/validate-yaml"),
    ("preupload", "POST", rf"/api/models/{REPO}/preupload/(?P<revision>[^/]+)"),
    ("commit", "POST", rf"/api/models/{REPO}/commit/(?P<revision>[^/]+)"),
    ("commits", "GET", rf"/api/models/{REPO}/commits/(?P<revision>[^/]+)"),
    ("tree", "GET", rf"/api/models/{REPO}/tree/(?P<revision>[^/]+)"),
    ("paths", "POST", rf"/api/models/{REPO}/paths-info/(?P<revision>[^/]+)"),
    ("refs", "GET", rf"/api/models/{REPO}/refs"),
    ("tag", "POST", rf"/api/models/{REPO}/tag/(?P<revision>[^/]+)"),
    ("untag", "DELETE", rf"/api/models/{REPO}/tag/(?P<revision>[^/]+)"),
    ("branch", "POST", rf"/api/models/{REPO}/branch/(?P<revision>[^/]+)"),
    ("info", "GET", rf"/api/models/{REPO}(/revision/(?P<revision>[^/]+))?"),
    ("batch", "POST", rf"/{REPO}\.git/info/lfs/objects/batch"),
    ("verify", "POST", r"/lfs/verify"),
    ("upload", "PUT", r"/storage/(?P<oid>[0-9a-f]{64})"),
    ("storage", "GET", r"/storage/(?P<oid>[0-9a-f]{64})"),
    ("head", "HEAD", rf"/{REPO}/resolve/(?P<revision>[^/]+)/(?P<path>.+)"),
    ("download", "GET", rf"/{REPO}/resolve/(?P<revision>[^/]+)/(?P<path>.+)"),
]  # fmt: skip
WRITING = {"create", "delete", "preupload", "commit", "tag", "untag", "branch", "batch"}


@dataclass
class Fault:
    """What goes wrong. Bodies (drip, cut, short, corrupt) concern downloads; a large file's is that of `storage`."""

    kind: Literal["status", "hang", "close", "drip", "cut", "short", "corrupt"]  # cut: broken off; short: it says so
    status: int = 503
    retry_after: float | str | None = None  # seconds, or a date
    times: int = 1_000_000  # then it is over
    bytes_per_second: int = 100  # of a drip
    after_bytes: int | None = None  # hang: in the body, after so many; cut and short: half the body if not given
    done: bool = False  # the request is worked off and the answer is lost


@dataclass(frozen=True)
class Call:
    """A request that came."""

    route: str
    method: str
    path: str
    status: int
    user: str
    authorized: bool  # a token came with it
    host: str
    at: float  # seconds, monotonic


@dataclass(frozen=True)
class Blob:
    """A file's content: `sha256` where it is a large one."""

    oid: str
    size: int
    sha256: str = ""


@dataclass(frozen=True)
class Commit:
    sha: str
    parent: str
    title: str
    message: str
    user: str
    date: str
    files: dict[str, Blob]


@dataclass
class Repo:
    id: str
    private: bool
    commits: dict[str, Commit] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    gated: bool = False

    @property
    def head(self) -> Commit:
        return self.commits[self.branches["main"]]

    def find(self, revision: str) -> Commit | None:
        sha = self.branches.get(revision) or self.tags.get(revision) or revision
        return self.commits.get(sha) or next((c for c in self.commits.values() if revision == c.sha[:7]), None)

    def log(self) -> list[Commit]:
        """The commits of main, the newest first."""
        return list(self.history(self.head))

    def history(self, commit: Commit) -> list[Commit]:
        found = [commit]
        while found[-1].parent:
            found.append(self.commits[found[-1].parent])
        return found

    def commit(self, branch: str, files: dict[str, Blob], title: str, message: str, user: str) -> Commit:
        parent, date = self.branches.get(branch, ""), datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
        oids = {name: blob.oid for name, blob in files.items()}
        content = json.dumps([parent, oids, title, message, user, date, len(self.commits)])
        commit = Commit(hashlib.sha1(content.encode()).hexdigest(), parent, title, message, user, date, files)
        self.commits[commit.sha] = commit
        self.branches[branch] = commit.sha
        return commit


@dataclass(frozen=True)
class User:
    name: str
    role: Literal["read", "write"]


class Refusal(Exception):  # noqa: N818
    """An answer of 4xx, as the Hub words it."""

    def __init__(self, status: int, message: str, code: str = "", **more: Any):
        super().__init__(message)
        headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
        self.response = JSONResponse({"error": message, **more}, status, headers)


@dataclass
class _Asked:
    """A request on its way through the handlers."""

    request: Request
    values: dict[str, str]
    user: User | None

    async def json(self) -> Any:
        return json.loads(await self.request.body() or b"{}")


class LoopbackHub:
    """Serves from a thread of its own between `with` and its end, or between start() and stop()."""

    def __init__(self) -> None:
        self.faults: dict[str, Fault] = {}  # by route's name; "*" is all
        self.repos: dict[str, Repo] = {}
        self.tokens: dict[str, User] = {}
        self.log: list[Call] = []
        self.contents: dict[str, bytes] = {}  # by blob id, or by SHA-256
        self._socket: socket.socket | None = None
        self._port = 0

    def __enter__(self) -> "LoopbackHub":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Listen; after stop() on the same port again."""
        self._socket = socket.create_server(("127.0.0.1", self._port))
        self._port = self._socket.getsockname()[1]
        self._stopping = False
        app = FastAPI(openapi_url=None)
        app.add_route("/{path:path}", self._answer, methods=["GET", "HEAD", "POST", "PUT", "DELETE"])
        config = uvicorn.Config(app, log_config=None, lifespan="off", timeout_graceful_shutdown=1)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """From now on connections are refused."""
        if self._socket is None:
            return
        self._stopping = True
        self._server.should_exit = True
        self._thread.join(10)
        self._socket.close()
        self._socket = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def storage_url(self) -> str:
        return f"http://localhost:{self._port}/storage"

    def add_user(self, name: str, role: Literal["read", "write"] = "write") -> str:
        """A user, and a token of theirs."""
        token = f"hf_{name}{role}{len(self.tokens):08}abcdefghijklmnopqrstuvwxyz"[:37]
        self.tokens[token] = User(name, role)
        return token

    def put(
        self,
        repo_id: str,
        files: dict[str, bytes],
        *,
        title: str = "Upload",
        branch: str = "main",
        private: bool = False,
    ) -> Commit:
        """A commit as if somebody had pushed it; the repository is made where there is none."""
        repo = self.repos.get(repo_id) or self._create(repo_id, private, repo_id.split("/")[0])
        head = repo.find(branch) or repo.head
        blobs = {name: self._keep(name, data) for name, data in files.items()}
        return repo.commit(branch, head.files | blobs, title, "", repo_id.split("/")[0])

    def read(self, repo_id: str, path: str, revision: str = "main") -> bytes:
        commit = self.repos[repo_id].find(revision)
        assert commit is not None, revision
        blob = commit.files[path]
        return self.contents[blob.sha256 or blob.oid]

    def calls(self, route: str) -> list[Call]:
        return [call for call in self.log if call.route == route]

    def _keep(self, name: str, data: bytes) -> Blob:
        if name.endswith(LARGE):
            sha256 = hashlib.sha256(data).hexdigest()
            self.contents[sha256] = data
            return _large(sha256, len(data))
        oid = _blob_id(data)
        self.contents[oid] = data
        return Blob(oid, len(data))

    def _create(self, repo_id: str, private: bool, user: str) -> Repo:
        repo = self.repos[repo_id] = Repo(repo_id, private)
        attributes = "".join(f"*{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in LARGE).encode()
        repo.commit("main", {".gitattributes": self._keep(".gitattributes", attributes)}, "initial commit", "", user)
        return repo

    # Every request: find its route, its user, its fault; then the handler of that name.

    async def _answer(self, request: Request) -> Response:
        route, values = _route_of(request.method, request.scope["raw_path"].decode())
        user, status = None, 500
        try:
            user = self._user_of(request, route)
            response = await self._with_fault(route, _Asked(request, values, user))
            status = response.status_code
            return response
        except Refusal as refusal:
            status = refusal.response.status_code
            return refusal.response
        finally:
            path, host = request.scope["raw_path"].decode(), request.headers.get("host", "")
            authorized, name = "authorization" in request.headers, user.name if user else ""
            call = Call(route, request.method, path, status, name, authorized, host, time.monotonic())
            self.log.append(call)

    def _user_of(self, request: Request, route: str) -> User | None:
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        if token and token not in self.tokens:
            raise Refusal(401, "Invalid credentials in Authorization header")
        user = self.tokens.get(token)
        if route in WRITING and user is None:
            raise Refusal(401, "Invalid username or password.")
        return user

    async def _with_fault(self, route: str, asked: _Asked) -> Response:
        fault = self.faults.get(route) or self.faults.get("*")
        if fault is None or fault.times <= 0:
            return await self._handle(route, asked)
        fault.times -= 1
        if fault.kind == "status" and not fault.done:
            return _status(fault)
        if fault.kind in ("hang", "close") and fault.after_bytes is None and not fault.done:
            return await self._nothing(fault, asked.request)
        response = await self._handle(route, asked)
        if fault.kind == "status":
            return _status(fault)
        if fault.done:
            return await self._nothing(fault, asked.request)
        return self._spoil(response, fault, asked.request)

    async def _nothing(self, fault: Fault, request: Request) -> Response:
        """Close the connection without an answer, or keep it open until the client goes."""
        while fault.kind == "hang" and not self._stopping and not await request.is_disconnected():
            await asyncio.sleep(0.02)
        await self._hang_up(request)
        return Response()

    async def _hang_up(self, request: Request) -> None:
        for connection in self._server.server_state.connections:
            if getattr(connection, "client", None) == tuple(request.client or ()):
                connection.transport.close()  # type: ignore[union-attr]
        await asyncio.sleep(0.05)  # uvicorn hears of it, and sends no more

    def _spoil(self, response: Response, fault: Fault, request: Request) -> Response:
        body, headers, status = bytes(response.body), dict(response.headers), response.status_code
        half = len(body) // 2 if fault.after_bytes is None else min(fault.after_bytes, len(body))
        if fault.kind == "corrupt":
            wrong = bytes(255 - byte for byte in body[half : half + 1])
            return Response(body[:half] + wrong + body[half + 1 :], status, headers)
        if fault.kind == "short":
            return Response(body[:half], status, headers | {"content-length": str(half)})
        if fault.kind == "drip":
            return StreamingResponse(self._drops(body, fault.bytes_per_second), status, headers)
        return StreamingResponse(self._begin(body[:half], fault, request), status, headers)

    async def _drops(self, body: bytes, bytes_per_second: int) -> AsyncIterator[bytes]:
        step = max(1, bytes_per_second // 10)
        for start in range(0, len(body), step):
            if self._stopping:
                return
            yield body[start : start + step]
            await asyncio.sleep(0.1)

    async def _begin(self, body: bytes, fault: Fault, request: Request) -> AsyncIterator[bytes]:
        """A part of the body, and then nothing."""
        for start in range(0, len(body), CHUNK_BYTES):
            yield body[start : start + CHUNK_BYTES]
        while fault.kind == "hang" and not self._stopping:
            await asyncio.sleep(0.02)
        await self._hang_up(request)

    async def _handle(self, route: str, asked: _Asked) -> Response:
        handler: Callable[[_Asked], Any] = getattr(self, f"_on_{route}")
        return await handler(asked)

    # What the Hub does.

    def _repo(self, asked: _Asked) -> Repo:
        repo = self.repos.get(asked.values["repo"])
        owner = asked.values["repo"].split("/")[0]
        if repo is None or (repo.private and (asked.user is None or asked.user.name != owner)):
            raise Refusal(404 if asked.user else 401, "Repository not found", "RepoNotFound")
        if repo.gated and (asked.user is None or asked.user.name != owner):
            raise Refusal(403, "Access to this model is restricted", "GatedRepo")
        return repo

    def _commit_of(self, asked: _Asked) -> Commit:
        revision = asked.values.get("revision") or "main"
        commit = self._repo(asked).find(revision)
        if commit is None:
            raise Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return commit

    def _writable(self, asked: _Asked) -> tuple[Repo, User]:
        repo, user = self._repo(asked), asked.user
        assert user is not None  # _user_of
        _must_write(user, repo.id.split("/")[0])
        return repo, user

    async def _on_unknown(self, asked: _Asked) -> Response:
        raise Refusal(404, "Sorry, we can't find the page you are looking for.")

    async def _on_whoami(self, asked: _Asked) -> Response:
        if asked.user is None:
            raise Refusal(401, "Invalid username or password.")
        access = {"displayName": "test", "role": asked.user.role}
        return JSONResponse(
            {"type": "user", "name": asked.user.name, "fullname": asked.user.name, "orgs": []}
            | {"auth": {"type": "access_token", "accessToken": access}}
        )

    async def _on_create(self, asked: _Asked) -> Response:
        wanted, user = await asked.json(), asked.user
        assert user is not None  # _user_of
        owner = wanted.get("organization") or user.name
        _must_write(user, owner)
        repo_id = f"{owner}/{wanted['name']}"
        if repo_id in self.repos:
            raise Refusal(409, "You already created this model repo", url=f"{self.url}/{repo_id}")
        private = wanted.get("visibility") == "private" or bool(wanted.get("private"))
        self._create(repo_id, private, user.name)
        return JSONResponse({"url": f"{self.url}/{repo_id}", "name": repo_id, "id": repo_id})

    async def _on_delete(self, asked: _Asked) -> Response:
        wanted, user = await asked.json(), asked.user
        assert user is not None  # _user_of
        asked.values["repo"] = f"{wanted.get('organization') or user.name}/{wanted['name']}"
        repo, _ = self._writable(asked)
        del self.repos[repo.id]
        return Response()

    async def _on_validate(self, asked: _Asked) -> Response:
        return JSONResponse({"errors": [], "warnings": []})

    async def _on_preupload(self, asked: _Asked) -> Response:
        self._writable(asked)
        known = self._commit_of(asked).files
        answer = []
        for file in (await asked.json())["files"]:
            large, blob = file["path"].endswith(LARGE), known.get(file["path"])
            there = {"oid": blob.sha256 or blob.oid} if blob else {}
            answer.append(
                {"path": file["path"], "uploadMode": "lfs" if large else "regular", "shouldIgnore": False} | there
            )
        return JSONResponse({"files": answer})

    async def _on_batch(self, asked: _Asked) -> Response:
        self._writable(asked)
        objects: list[dict[str, Any]] = []
        for wanted in (await asked.json())["objects"]:
            actions = {
                "upload": {"href": f"{self.storage_url}/{wanted['oid']}?X-Amz-Signature=test"},
                "verify": {"href": f"{self.url}/lfs/verify"},
            }
            objects.append({**wanted} if wanted["oid"] in self.contents else {**wanted, "actions": actions})
        return JSONResponse({"transfer": "basic", "objects": objects})

    async def _on_upload(self, asked: _Asked) -> Response:
        content = await asked.request.body()
        if hashlib.sha256(content).hexdigest() != asked.values["oid"]:
            raise Refusal(400, "The content does not have this SHA-256")
        self.contents[asked.values["oid"]] = content
        return Response()

    async def _on_verify(self, asked: _Asked) -> Response:
        wanted = await asked.json()
        if len(self.contents.get(wanted["oid"], b"")) != wanted["size"]:
            raise Refusal(404, "Object not found")
        return JSONResponse({})

    async def _on_commit(self, asked: _Asked) -> Response:
        repo, user = self._writable(asked)
        base = self._commit_of(asked)
        lines = [json.loads(line) for line in (await asked.request.body()).splitlines() if line]
        header = lines[0]["value"]
        if header.get("parentCommit") not in (None, base.sha):
            raise Refusal(412, "A commit has happened since. Please refresh and try again.")
        files = dict(base.files)
        for line in lines[1:]:
            self._apply(line["key"], line["value"], files)
        branch = asked.values["revision"]
        commit = repo.commit(branch, files, header["summary"], header.get("description", ""), user.name)
        url = f"{self.url}/{repo.id}/commit/{commit.sha}"
        return JSONResponse({"success": True, "commitOid": commit.sha, "commitUrl": url, "hookOutput": ""})

    def _apply(self, key: str, value: dict[str, Any], files: dict[str, Blob]) -> None:
        path = value["path"]
        if key == "file":
            files[path] = self._keep(f"{path}.regular", base64.b64decode(value["content"]))
        elif key == "lfsFile":
            if value["oid"] not in self.contents:
                raise Refusal(400, f"LFS pointer points to a file that does not exist: {path}")
            files[path] = _large(value["oid"], value["size"])
        elif key == "deletedFile" and path in files:
            del files[path]
        else:
            raise Refusal(404, f"A file with this name doesn't exist: {path}", "EntryNotFound")

    async def _on_commits(self, asked: _Asked) -> Response:
        history = self._repo(asked).history(self._commit_of(asked))
        return JSONResponse(
            [
                {"id": c.sha, "title": c.title, "message": c.message, "date": c.date, "authors": [{"user": c.user}]}
                for c in history
            ]
        )

    async def _on_refs(self, asked: _Asked) -> Response:
        repo = self._repo(asked)
        branches = [_ref("heads", name, sha) for name, sha in repo.branches.items()]
        tags = [_ref("tags", name, sha) for name, sha in repo.tags.items()]
        return JSONResponse({"branches": branches, "converts": [], "tags": tags, "pullRequests": []})

    async def _on_tag(self, asked: _Asked) -> Response:
        repo, _ = self._writable(asked)
        commit, name = self._commit_of(asked), (await asked.json())["tag"]
        if name in repo.tags:
            raise Refusal(409, "Tag reference exists already")
        repo.tags[name] = commit.sha
        return Response()

    async def _on_untag(self, asked: _Asked) -> Response:
        repo, _ = self._writable(asked)
        if repo.tags.pop(asked.values["revision"], None) is None:
            raise Refusal(404, "Invalid rev id", "RevisionNotFound")
        return Response()

    async def _on_branch(self, asked: _Asked) -> Response:
        repo, _ = self._writable(asked)
        start = repo.find((await asked.json()).get("startingPoint") or "main")
        if asked.values["revision"] in repo.branches:
            raise Refusal(409, "Reference already exists")
        repo.branches[asked.values["revision"]] = (start or repo.head).sha
        return Response()

    async def _on_info(self, asked: _Asked) -> Response:
        repo, commit = self._repo(asked), self._commit_of(asked)
        blobs = asked.request.query_params.get("blobs", "").lower() == "true"
        siblings = [
            {"rfilename": name} | (_sizes(blob, "blobId", "sha256") if blobs else {})
            for name, blob in commit.files.items()
        ]
        return JSONResponse(
            {"_id": repo.id, "id": repo.id, "modelId": repo.id, "author": repo.id.split("/")[0], "sha": commit.sha}
            | {"private": repo.private, "gated": "manual" if repo.gated else False, "disabled": False}
            | {"lastModified": commit.date, "tags": [], "downloads": 0, "likes": 0, "siblings": siblings}
        )

    async def _on_tree(self, asked: _Asked) -> Response:
        files = self._commit_of(asked).files
        return JSONResponse([{"type": "file", "path": n} | _sizes(b, "oid", "oid") for n, b in files.items()])

    async def _on_paths(self, asked: _Asked) -> Response:
        files, wanted = self._commit_of(asked).files, (await asked.json())["paths"]
        return JSONResponse(
            [{"type": "file", "path": n} | _sizes(b, "oid", "oid") for n, b in files.items() if n in wanted]
        )

    async def _on_head(self, asked: _Asked) -> Response:
        response = await self._on_download(asked)
        return Response(status_code=response.status_code, headers=dict(response.headers))

    async def _on_download(self, asked: _Asked) -> Response:
        commit, path = self._commit_of(asked), asked.values["path"]
        blob = commit.files.get(path)
        if blob is None:
            raise Refusal(404, "Entry not found", "EntryNotFound")
        headers = {"X-Repo-Commit": commit.sha, "ETag": f'"{blob.oid}"'}
        if blob.sha256:
            headers |= {"X-Linked-Size": str(blob.size), "X-Linked-Etag": f'"{blob.sha256}"'}
            query = f'response-content-disposition=inline; filename="{path}"'
            return Response(
                status_code=302, headers=headers | {"Location": f"{self.storage_url}/{blob.sha256}?{query}"}
            )
        return _ranged(asked.request, self.contents[blob.oid], headers)

    async def _on_storage(self, asked: _Asked) -> Response:
        content = self.contents.get(asked.values["oid"])
        if content is None:
            raise Refusal(404, "Not found")
        return _ranged(asked.request, content, {"ETag": f'"{asked.values["oid"]}"'})


def _route_of(method: str, path: str) -> tuple[str, dict[str, str]]:
    for route, wanted, pattern in ROUTES:
        if method == wanted and (found := re.fullmatch(pattern, path)):
            return route, {name: unquote(value) for name, value in found.groupdict().items() if value}
    return "unknown", {}


def _must_write(user: User, owner: str) -> None:
    if user.role != "write":
        raise Refusal(403, f"Forbidden: the token of {user.name} can only read")
    if user.name != owner:
        raise Refusal(403, f"You don't have the rights to create a model under the namespace {owner!r}")


def _blob_id(data: bytes) -> str:
    """Git's [https://git-scm.com/book/en/v2/Git-Internals-Git-Objects]."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _pointer(sha256: str, size: int) -> bytes:
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()


def _large(sha256: str, size: int) -> Blob:
    return Blob(_blob_id(_pointer(sha256, size)), size, sha256)


def _sizes(blob: Blob, id_name: str, sha_name: str) -> dict[str, Any]:
    values: dict[str, Any] = {id_name: blob.oid, "size": blob.size}
    if blob.sha256:
        pointer_size = len(_pointer(blob.sha256, blob.size))
        values["lfs"] = {sha_name: blob.sha256, "size": blob.size, "pointerSize": pointer_size}
    return values


def _ref(kind: str, name: str, sha: str) -> dict[str, str]:
    return {"name": name, "ref": f"refs/{kind}/{name}", "targetCommit": sha}


def _ranged(request: Request, content: bytes, headers: dict[str, str]) -> Response:
    wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("range", ""))
    if wanted is None:
        return Response(content, 200, headers, "application/octet-stream")
    first, last = int(wanted[1]), int(wanted[2] or len(content) - 1)
    if first >= len(content):
        return Response(status_code=416, headers={"Content-Range": f"bytes */{len(content)}"})
    headers = headers | {"Content-Range": f"bytes {first}-{last}/{len(content)}"}
    return Response(content[first : last + 1], 206, headers, "application/octet-stream")


def _status(fault: Fault) -> Response:
    headers = {} if fault.retry_after is None else {"Retry-After": str(fault.retry_after)}
    return JSONResponse({"error": f"fault {fault.status}"}, fault.status, headers)
