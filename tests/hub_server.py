# SPDX-License-Identifier: Apache-2.0
"""A Hub on loopback for tests: enough of the protocol to create, push, list and load models and data sets.

Standard library only. Everything is kept in memory. It knows repositories, commits, branches, tags, LFS uploads of one
part, byte ranges and file listings; it knows no users, pull requests, multi-part uploads or Xet. A request it does not
know is answered 501 and noted in `HubServer.unknown`, so that a test can say that there was none.

    with HubServer() as hub:
        subprocess.run([...], env={**os.environ, **hub.environment(tmp_path)})

The environment must be set before `huggingface_hub` is imported: hence the subprocess.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

LFS_SUFFIXES = (".safetensors", ".parquet", ".bin", ".arrow")
TIME = "2024-01-01T00:00:00.000Z"
_KINDS = {"models": "model", "datasets": "dataset", "spaces": "space"}


@dataclass(frozen=True)
class StoredFile:
    """Content of a file, and whether it went through LFS."""

    content: bytes
    is_lfs: bool

    @property
    def oid(self) -> str:
        """SHA-256 for LFS, git's own SHA-1 otherwise."""
        if self.is_lfs:
            return hashlib.sha256(self.content).hexdigest()
        return hashlib.sha1(b"blob %d\0" % len(self.content) + self.content).hexdigest()

    def describe(self, path: str) -> dict:
        entry = {"type": "file", "path": path, "size": len(self.content), "oid": self.oid}
        if self.is_lfs:
            entry["lfs"] = {"oid": self.oid, "size": len(self.content), "pointerSize": 130}
        return entry


@dataclass
class Repository:
    """Commits of one repository; a commit is all its files."""

    kind: str
    name: str
    is_private: bool = False
    token: str | None = None  # who has no other token is answered as if there were no repository
    commits: dict[str, dict[str, StoredFile]] = field(default_factory=dict)
    messages: dict[str, str] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.commit("main", {}, "initial commit")

    def commit(self, branch: str, files: dict[str, StoredFile], message: str) -> str:
        oid = hashlib.sha1(f"{self.kind}/{self.name}/{len(self.commits)}".encode()).hexdigest()
        self.commits[oid], self.messages[oid], self.branches[branch] = files, message, oid
        return oid

    def resolve(self, revision: str) -> str | None:
        revision = revision.removeprefix("refs/heads/")
        if revision in self.commits:
            return revision
        return self.branches.get(revision) or self.tags.get(revision)

    def files(self, revision: str = "main") -> dict[str, bytes]:
        """Content by path, for tests to look at."""
        return {path: file.content for path, file in self.commits[self.resolve(revision)].items()}


class HubServer:
    """The server; a context manager. `url` is where it listens, `repositories` what was pushed."""

    def __init__(self) -> None:
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.objects: dict[str, bytes] = {}
        self.unknown: list[str] = []
        self.lock = threading.RLock()
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> HubServer:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def environment(self, home: str | Path) -> dict[str, str]:
        """Give the variables that make a new process use this Hub, with its caches under `home`."""
        return {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home),
            "HF_HUB_CACHE": str(Path(home, "hub")),
            "HF_DATASETS_CACHE": str(Path(home, "datasets")),
            "HF_TOKEN": "hf_test",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_OFFLINE": "0",
            "HF_DATASETS_OFFLINE": "0",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
        }

    def repository(self, name: str, kind: str = "model") -> Repository:
        return self.repositories[kind, name]


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"
    # Headers and body are two writes: the second would wait 40 ms for the first to be acknowledged.
    disable_nagle_algorithm = True
    routes: list[tuple[str, re.Pattern[str], str]] = []

    def log_message(self, *arguments: object) -> None:
        pass

    def _dispatch(self) -> None:
        path = urlsplit(self.path).path
        self.query = {name: values[-1] for name, values in parse_qs(urlsplit(self.path).query).items()}
        self.body = self._read_body()
        for method, pattern, name in self.routes:
            match = pattern.fullmatch(path)
            if match and self.command in method.split("|"):
                groups = {key: unquote(value) for key, value in match.groupdict().items() if value is not None}
                with self.hub.lock:
                    getattr(self, f"answer_{name}")(**groups)
                return
        self.hub.unknown.append(f"{self.command} {self.path}")
        self.send_json({"error": f"unknown request {self.command} {self.path}"}, 501)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _dispatch  # noqa: N815

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        chunks = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def send_bytes(self, content: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def send_json(self, content: object, status: int = 200, **headers: str) -> None:
        self.send_bytes(json.dumps(content).encode(), status, Content_Type="application/json", **headers)

    def find(self, kind: str, repo: str, revision: str = "main") -> tuple[Repository, str] | None:
        """Give a repository and a commit of it, or answer 404."""
        repository = self.hub.repositories.get((_KINDS.get(kind, kind), repo))
        token = None if repository is None else repository.token
        if repository is None or token not in (None, self.headers.get("Authorization", "").removeprefix("Bearer ")):
            self.send_json({"error": "Repository not found"}, 404, X_Error_Code="RepoNotFound")
            return None
        commit = repository.resolve(revision)
        if commit is None:
            self.send_json({"error": f"Invalid rev id: {revision}"}, 404, X_Error_Code="RevisionNotFound")
            return None
        return repository, commit

    # Repositories

    def answer_whoami(self) -> None:
        self.send_json({"type": "user", "name": "me", "fullname": "Me", "orgs": [], "auth": {"type": "access_token"}})

    def answer_create(self) -> None:
        asked = json.loads(self.body)
        kind = asked.get("type") or "model"
        name = f"{asked.get('organization') or 'me'}/{asked['name']}"
        url = f"{self.hub.url}/{'' if kind == 'model' else kind + 's/'}{name}"
        if (kind, name) in self.hub.repositories:
            self.send_json({"error": "You already created this repo", "url": url}, 409)
            return
        is_private = asked.get("visibility") == "private" or bool(asked.get("private"))
        self.hub.repositories[kind, name] = Repository(kind, name, is_private)
        self.send_json({"url": url, "name": name})

    def answer_delete(self) -> None:
        asked = json.loads(self.body)
        name = f"{asked.get('organization') or 'me'}/{asked['name']}"
        self.hub.repositories.pop((asked.get("type") or "model", name), None)
        self.send_json({})

    def answer_validate(self) -> None:
        self.send_json({"errors": [], "warnings": []})

    def answer_info(self, kind: str, repo: str, revision: str = "main") -> None:
        if found := self.find(kind, repo, revision):
            self.send_json(self._info(*found))

    def _info(self, repository: Repository, commit: str) -> dict:
        files = repository.commits[commit]
        siblings = []
        for path, file in sorted(files.items()):
            entry = file.describe(path)
            siblings.append({"rfilename": path, "size": entry["size"], "blobId": entry["oid"]})
        return {
            "_id": "0" * 24,
            "id": repository.name,
            "modelId": repository.name,
            "author": repository.name.split("/")[0],
            "sha": commit,
            "private": repository.is_private,
            "gated": False,
            "disabled": False,
            "tags": [],
            "downloads": 0,
            "likes": 0,
            "createdAt": TIME,
            "lastModified": TIME,
            "siblings": siblings,
        }

    def answer_search(self, kind: str) -> None:
        wanted = [
            repository
            for (own, _), repository in sorted(self.hub.repositories.items())
            if own == _KINDS[kind]
            and self.query.get("search", "") in repository.name
            and repository.name.startswith(self.query.get("author", ""))
        ]
        self.send_json([self._info(repository, repository.branches["main"]) for repository in wanted])

    # Branches, tags, history

    def answer_refs(self, kind: str, repo: str) -> None:
        if found := self.find(kind, repo):
            repository = found[0]
            listed = {
                name: [
                    {"name": each, "ref": f"refs/{name}/{each}".replace("branches", "heads"), "targetCommit": oid}
                    for each, oid in sorted(targets.items())
                ]
                for name, targets in (("branches", repository.branches), ("tags", repository.tags))
            }
            self.send_json({"converts": [], **listed})

    def answer_commits(self, kind: str, repo: str, revision: str) -> None:
        if found := self.find(kind, repo, revision):
            messages = reversed(found[0].messages.items())
            self.send_json(
                [{"id": oid, "title": title, "message": "", "date": TIME, "authors": []} for oid, title in messages]
            )

    def answer_branch(self, kind: str, repo: str, name: str) -> None:
        asked = json.loads(self.body or b"{}")
        if found := self.find(kind, repo, asked.get("startingPoint", "main")):
            if self.command == "DELETE":
                found[0].branches.pop(name, None)
            else:
                found[0].branches[name] = found[1]
            self.send_json({})

    def answer_tag(self, kind: str, repo: str, name: str) -> None:
        # To create a tag the address names the revision and the body the tag; to delete one the address names the tag.
        if self.command == "DELETE":
            if found := self.find(kind, repo):
                found[0].tags.pop(name, None)
                self.send_json({})
        elif found := self.find(kind, repo, name):
            found[0].tags[json.loads(self.body)["tag"]] = found[1]
            self.send_json({})

    # Files

    def answer_tree(self, kind: str, repo: str, revision: str, path: str = "") -> None:
        if not (found := self.find(kind, repo, revision)):
            return
        files = found[0].commits[found[1]]
        start = f"{path.strip('/')}/" if path.strip("/") else ""
        is_recursive = self.query.get("recursive", "").lower() in ("true", "1")
        entries: dict[str, dict] = {}
        for name, file in sorted(files.items()):
            if not name.startswith(start):
                continue
            folders = name[len(start) :].split("/")[:-1]
            for depth in range(len(folders) if is_recursive else min(len(folders), 1)):
                folder = start + "/".join(folders[: depth + 1])
                oid = hashlib.sha1(folder.encode()).hexdigest()
                entries.setdefault(folder, {"type": "directory", "path": folder, "size": 0, "oid": oid})
            if is_recursive or not folders:
                entries[name] = file.describe(name)
        if start and not entries:
            self.send_json({"error": "Not found"}, 404, X_Error_Code="EntryNotFound", X_Repo_Commit=found[1])
        else:
            self.send_json(list(entries.values()))

    def answer_paths(self, kind: str, repo: str, revision: str) -> None:
        if not (found := self.find(kind, repo, revision)):
            return
        if self.headers.get("Content-Type", "").startswith("application/json"):
            asked = json.loads(self.body)["paths"]
        else:
            asked = parse_qs(self.body.decode()).get("paths", [])
        files = found[0].commits[found[1]]
        listed = []
        for path in [asked] if isinstance(asked, str) else asked:
            if path in files:
                listed.append(files[path].describe(path))
            elif any(name.startswith(f"{path.strip('/')}/") for name in files):
                listed.append({"type": "directory", "path": path, "size": 0, "oid": "0" * 40})
        self.send_json(listed)

    def answer_resolve(self, repo: str, revision: str, path: str, kind: str = "models") -> None:
        if not (found := self.find(kind, repo, revision)):
            return
        file = found[0].commits[found[1]].get(path)
        if file is None:
            self.send_json({"error": "Entry not found"}, 404, X_Error_Code="EntryNotFound", X_Repo_Commit=found[1])
            return
        headers = {"X_Repo_Commit": found[1], "ETag": f'"{file.oid}"', "Accept_Ranges": "bytes"}
        if file.is_lfs:
            headers |= {"X_Linked_Etag": f'"{file.oid}"', "X_Linked_Size": str(len(file.content))}
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if not asked:
            self.send_bytes(file.content, **headers)
            return
        first = int(asked[1])
        last = min(int(asked[2] or len(file.content)), len(file.content) - 1)
        if first > last:
            self.send_bytes(b"", 416, Content_Range=f"bytes */{len(file.content)}")
            return
        headers["Content_Range"] = f"bytes {first}-{last}/{len(file.content)}"
        self.send_bytes(file.content[first : last + 1], 206, **headers)

    # Uploads

    def answer_preupload(self, kind: str, repo: str, revision: str) -> None:
        if not (found := self.find(kind, repo, revision)):
            return
        known = found[0].commits[found[1]]
        listed = []
        for asked in json.loads(self.body)["files"]:
            path = asked["path"]
            mode = "lfs" if path.endswith(LFS_SUFFIXES) else "regular"
            entry = {"path": path, "uploadMode": mode, "shouldIgnore": False}
            # With the object id the client can leave out a file that has not changed.
            listed.append(entry | ({"oid": known[path].oid} if path in known else {}))
        self.send_json({"files": listed})

    def answer_lfs_batch(self, repo: str, kind: str = "models") -> None:
        objects = []
        for asked in json.loads(self.body)["objects"]:
            entry = {"oid": asked["oid"], "size": asked["size"]}
            if asked["oid"] not in self.hub.objects:
                entry["actions"] = {"upload": {"href": f"{self.hub.url}/lfs/{asked['oid']}", "header": {}}}
            objects.append(entry)
        self.send_json({"transfer": "basic", "objects": objects})

    def answer_lfs_upload(self, oid: str) -> None:
        if hashlib.sha256(self.body).hexdigest() != oid:
            self.send_json({"error": "the content does not have this SHA-256"}, 400)
            return
        self.hub.objects[oid] = self.body
        self.send_bytes(b"")

    def answer_commit(self, kind: str, repo: str, revision: str) -> None:
        if not (found := self.find(kind, repo, revision)):
            return
        repository, parent = found
        files, message = dict(repository.commits[parent]), ""
        for line in self.body.splitlines():
            operation = json.loads(line)
            key, value = operation["key"], operation["value"]
            if key == "header":
                message = value.get("summary", "")
            elif key == "file":
                content = value["content"]
                content = base64.b64decode(content) if value.get("encoding") == "base64" else content.encode()
                files[value["path"]] = StoredFile(content, is_lfs=False)
            elif key == "lfsFile":
                if value["oid"] not in self.hub.objects:
                    self.send_json({"error": f"LFS object {value['oid']} was not uploaded"}, 400)
                    return
                files[value["path"]] = StoredFile(self.hub.objects[value["oid"]], is_lfs=True)
            elif key in ("deletedFile", "deletedFolder"):
                path = value["path"].rstrip("/")
                files = {name: file for name, file in files.items() if f"{name}/".find(f"{path}/") != 0}
            else:
                self.hub.unknown.append(f"commit operation {key}")
        oid = repository.commit(revision, files, message)
        self.send_json(
            {"success": True, "commitUrl": f"{self.hub.url}/{repo}/commit/{oid}", "commitOid": oid, "hookOutput": ""}
        )


_API = r"/api/(?P<kind>models|datasets|spaces)"
_REPO = r"(?P<repo>[^/]+/[^/]+)"
_FILES = r"/(?:(?P<kind>datasets|spaces)/)?(?P<repo>[^/]+/[^/]+?)"
_Handler.routes = [
    (method, re.compile(pattern), name)
    for method, pattern, name in [
        ("GET", r"/api/whoami-v2", "whoami"),
        ("POST", r"/api/repos/create", "create"),
        ("DELETE", r"/api/repos/delete", "delete"),
        ("POST", r"/api/validate-yaml", "validate"),
        ("GET", _API, "search"),
        ("GET", rf"{_API}/{_REPO}", "info"),
        ("GET", rf"{_API}/{_REPO}/revision/(?P<revision>[^/]+)", "info"),
        ("GET", rf"{_API}/{_REPO}/refs", "refs"),
        ("GET", rf"{_API}/{_REPO}/commits/(?P<revision>[^/]+)", "commits"),
        ("POST|DELETE", rf"{_API}/{_REPO}/branch/(?P<name>[^/]+)", "branch"),
        ("POST|DELETE", rf"{_API}/{_REPO}/tag/(?P<name>[^/]+)", "tag"),
        ("GET", rf"{_API}/{_REPO}/tree/(?P<revision>[^/]+)(?:/(?P<path>.*))?", "tree"),
        ("POST", rf"{_API}/{_REPO}/paths-info/(?P<revision>[^/]+)", "paths"),
        ("POST", rf"{_API}/{_REPO}/preupload/(?P<revision>[^/]+)", "preupload"),
        ("POST", rf"{_API}/{_REPO}/commit/(?P<revision>[^/]+)", "commit"),
        ("POST", rf"{_FILES}\.git/info/lfs/objects/batch", "lfs_batch"),
        ("PUT", r"/lfs/(?P<oid>[0-9a-f]{64})", "lfs_upload"),
        ("GET|HEAD", rf"{_FILES}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", "resolve"),
    ]
]
