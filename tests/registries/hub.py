"""A Hugging Face Hub on loopback: as much of its wire as filing a model and fetching it back takes.

It checks requests as the service does: the token, the shape of every body, that what is received has the size and the
SHA-256 it was announced with, that a commit names only what was sent. What no service would forgive in a client is
kept in ``complaints``, which the fixture wants empty. ``faults`` has it misbehave.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import attrs
import yaml

TOKEN = "hf_annsTokenThatNobodyMaySee0123456789"
READ_ONLY = "hf_bobsTokenThatMayOnlyRead0123456789ab"
#: What signs an address of the store behind the Hub, which is as secret as a token for an hour.
SIGNATURE = "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Signature=5ec2e7f00d5ec2e7f00d5ec2e7f00d5ec2e7f00d"
LFS_JSON = "application/vnd.git-lfs+json"
_OID = re.compile(r"[0-9a-f]{64}")
_LARGE = (".safetensors", ".bin", ".gguf")
#: Cut the connection after the first bytes of a body.
CUT = "cut"
#: A status to answer with, CUT, or what is called first and may return one of these.
Fault = int | str | Callable[[], int | str | None]


@attrs.define(kw_only=True)
class File:
    """A file in a commit; ``sha256`` if it is stored apart."""

    data: bytes
    sha256: str | None = None

    @property
    def blob(self) -> str:
        data = self.data
        if self.sha256 is not None:
            data = b"version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize %d\n" % (
                self.sha256.encode(),
                len(data),
            )
        return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()

    def entry(self, path: str) -> dict[str, Any]:
        lfs = {"oid": self.sha256, "size": len(self.data), "pointerSize": 134}
        found = {"type": "file", "oid": self.blob, "size": len(self.data), "path": path}
        return {**found, "lfs": lfs} if self.sha256 is not None else found


@attrs.define(kw_only=True)
class Repo:
    """A repository: its commits, newest last, and what was sent for it."""

    private: bool
    commits: dict[str, dict[str, File]] = attrs.field(factory=dict)
    tags: dict[str, str] = attrs.field(factory=dict)
    store: dict[str, bytes] = attrs.field(factory=dict)
    parts: dict[tuple[str, int], bytes] = attrs.field(factory=dict)
    sizes: dict[str, int] = attrs.field(factory=dict)

    @property
    def head(self) -> str:
        return next(reversed(self.commits))

    @property
    def files(self) -> dict[str, File]:
        return self.commits[self.head]

    def commit(self, files: dict[str, File]) -> str:
        said = repr([len(self.commits), *((path, file.blob) for path, file in sorted(files.items()))])
        name = hashlib.sha1(said.encode()).hexdigest()
        self.commits[name] = files
        return name

    def find(self, revision: str) -> str | None:
        names = {"main": self.head, **self.tags}
        return names.get(revision, revision if revision in self.commits else None)


class Hub:
    """The service: users, repositories, every request that came, and faults to come."""

    def __init__(self) -> None:
        self.users = {TOKEN: {"name": "ann", "orgs": [{"name": "acme"}]}, READ_ONLY: {"name": "bob", "orgs": []}}
        self.repos: dict[str, Repo] = {}
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.faults: dict[str, list[Fault]] = {}
        self.spoilt: set[str] = set()  # files that the service keeps otherwise than they were sent
        self.part_bytes, self.page = 1 << 30, 3
        self.lock = threading.RLock()
        self.url = ""

    def repo(self, name: str, *, private: bool = True, files: dict[str, bytes] | None = None) -> Repo:
        """Create a repository, as the service does with a first commit."""
        repo = self.repos[name] = Repo(private=private)
        repo.commit({".gitattributes": File(data=b"*.safetensors filter=lfs\n")})
        if files is not None:
            repo.commit({**repo.files, **{path: File(data=data) for path, data in files.items()}})
        return repo

    def sent(self) -> list[str]:
        """Return the hashes of large files that were sent, one for each time."""
        return [found[1] for one in self.requests if (found := re.match(r"PUT /store/.*/([0-9a-f]{64})", one))]

    def commits(self) -> int:
        """Return how many commits were made."""
        return sum("/commit/" in one for one in self.requests)


class Refused(Exception):
    """An answer that is no success."""

    def __init__(self, status: int, message: str, code: str | None = None) -> None:
        self.status, self.message, self.code = status, message, code


@contextmanager
def running() -> Iterator[Hub]:
    """Run a Hub on loopback for a while; it wants to have had nothing to complain of."""
    hub = Hub()
    handler = type("HubHandler", (Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert hub.complaints == []


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    hub: Hub
    protocol_version = "HTTP/1.1"
    wbufsize, disable_nagle_algorithm = 1 << 16, True
    body: bytes

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._handle()

    do_HEAD = do_POST = do_PUT = do_GET  # noqa: N815 - the names that the library calls

    def _handle(self) -> None:
        url = urlsplit(self.path)
        path, self.query = unquote(url.path), parse_qs(url.query)
        length = int(self.headers.get("Content-Length", 0))
        fault = self._fault(f"{self.command} {path}")
        self.body = self.rfile.read(min(length, 1000) if fault == CUT else length)
        if fault == CUT or len(self.body) != length:  # or the client went away
            self.close_connection = True
            return
        if isinstance(fault, int):
            self._answer(fault, {"error": "a fault of the test"})
            return
        try:
            with self.hub.lock:
                self.hub.requests.append(f"{self.command} {path}")
                self._routed(path)
        except Refused as refused:
            headers = {"X-Error-Code": refused.code} if refused.code else {}
            self._answer(refused.status, {"error": refused.message}, {"X-Error-Message": refused.message, **headers})
        except Exception as error:  # noqa: BLE001 - a client must not send what this cannot read
            self.hub.complaints.append(f"{self.command} {path}: {type(error).__name__}: {error}")
            self._answer(500, {"error": "complaint"})

    def _fault(self, request: str) -> int | str | None:
        for part, faults in self.hub.faults.items():
            if part in request and faults:
                fault = faults.pop(0)
                return fault() if callable(fault) else fault
        return None

    def _answer(self, status: int, value: Any = None, headers: dict[str, str] | None = None) -> None:
        data = value if isinstance(value, bytes) else b"" if value is None else json.dumps(value).encode()
        self.send_response(status)
        kind = "application/octet-stream" if isinstance(value, bytes) else "application/json"
        named = {"Content-Type": kind, "Content-Length": str(len(data)), "X-Request-Id": "Root=1-test"}
        for name, text in {**named, **(headers or {})}.items():
            self.send_header(name, text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _want(self, good: object, complaint: str) -> None:
        if not good:
            raise AssertionError(complaint)

    # --- who asks, and for what

    def _user(self) -> dict[str, Any]:
        kind, _, token = self.headers.get("Authorization", "").partition(" ")
        if kind != "Bearer" or token not in self.hub.users:
            raise Refused(401, "Invalid credentials in Authorization header")
        return self.hub.users[token]

    def _repo(self, name: str, *, write: bool = False) -> Repo:
        user = self._user()
        mine = name.partition("/")[0] in {user["name"], *(one["name"] for one in user["orgs"])}
        repo = self.hub.repos.get(name)
        if repo is None or (repo.private and not mine):
            raise Refused(404, "Repository not found", "RepoNotFound")
        if write and not mine:
            raise Refused(403, "You don't have the rights to write to this model")
        return repo

    def _commit_of(self, repo: Repo, revision: str) -> str:
        found = repo.find(revision)
        if found is None:
            raise Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return found

    def _routed(self, path: str) -> None:
        if path == "/api/whoami-v2":
            return self._answer(200, self._user())
        if path == "/api/repos/create":
            return self._create(json.loads(self.body))
        if path == "/api/validate-yaml":
            return self._validate(json.loads(self.body))
        for pattern, answer in _ROUTES:
            if found := re.fullmatch(pattern, path):
                return answer(self, *found.groups())
        raise Refused(404, f"there is no {path}")

    def _create(self, given: dict[str, Any]) -> None:
        self._want(given.get("type", "model") == "model", "a model was to be filed")
        self._want(given.get("visibility") in {"private", "public"}, "who may see it is not said")
        user = self._user()
        owner = given.get("organization") or user["name"]
        if owner not in {user["name"], *(one["name"] for one in user["orgs"])}:
            raise Refused(403, f"You don't have the rights to create a model under the namespace {owner}")
        name = f"{owner}/{given['name']}"
        if name in self.hub.repos:
            raise Refused(409, "You already created this model repo")
        self.hub.repo(name, private=given["visibility"] == "private")
        self._answer(200, {"url": f"{self.hub.url}/{name}", "name": name})

    def _validate(self, given: dict[str, Any]) -> None:
        self._user()
        found = re.match(r"---\n(.*?)\n---\n", given["content"], re.DOTALL)
        tags = yaml.safe_load(found[1]).get("tags", []) if found else []
        if not isinstance(tags, list):
            return self._answer(400, {"errors": [{"message": '"tags" must be an array'}], "warnings": []})
        return self._answer(200, {"errors": [], "warnings": []})

    # --- reading

    def _info(self, name: str, revision: str | None) -> None:
        repo = self._repo(name)
        sha = self._commit_of(repo, revision or "main")
        found = {"_id": "1", "id": name, "modelId": name, "sha": sha, "private": repo.private, "tags": []}
        self._answer(200, {**found, "siblings": [{"rfilename": path} for path in repo.commits[sha]]})

    def _refs(self, name: str) -> None:
        repo = self._repo(name)
        tags = [{"name": tag, "ref": f"refs/tags/{tag}", "targetCommit": sha} for tag, sha in repo.tags.items()]
        branches = [{"name": "main", "ref": "refs/heads/main", "targetCommit": repo.head}]
        self._answer(200, {"branches": branches, "converts": [], "tags": tags})

    def _tree(self, name: str, revision: str, below: str | None) -> None:
        repo = self._repo(name)
        files = repo.commits[self._commit_of(repo, revision)]
        start = int(self.query.get("cursor", ["0"])[0])
        entries = [file.entry(path) for path, file in sorted(files.items()) if path.startswith(below or "")]
        following = start + self.hub.page
        headers = {}
        if following < len(entries):
            query = f"recursive={self.query['recursive'][0]}&cursor={following}"
            headers["Link"] = f'<{self.hub.url}/api/models/{name}/tree/{revision}?{query}>; rel="next"'
        self._answer(200, entries[start:following], headers)

    def _paths(self, name: str, revision: str) -> None:
        repo = self._repo(name)
        files = repo.commits[self._commit_of(repo, revision)]
        wanted = parse_qs(self.body.decode())["paths"]
        self._answer(200, [files[path].entry(path) for path in wanted if path in files])

    def _resolve(self, name: str, revision: str, path: str) -> None:
        repo = self._repo(name)
        sha = self._commit_of(repo, revision)
        file = repo.commits[sha].get(path)
        if file is None:
            raise Refused(404, "Entry not found", "EntryNotFound")
        headers = {"X-Repo-Commit": sha, "ETag": f'"{file.sha256 or file.blob}"', "Accept-Ranges": "bytes"}
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if found is None:
            return self._answer(200, file.data, headers)
        start, end = int(found[1]), min(int(found[2] or len(file.data)), len(file.data) - 1)
        headers["Content-Range"] = f"bytes {start}-{end}/{len(file.data)}"
        return self._answer(206, file.data[start : end + 1], headers)

    # --- writing

    def _preupload(self, name: str, revision: str) -> None:
        repo = self._repo(name, write=True)
        held = repo.commits[self._commit_of(repo, revision)]
        out = []
        for given in json.loads(self.body)["files"]:
            self._want(set(given) == {"path", "sample", "size"}, f"a file is announced with {sorted(given)}")
            self._want(len(base64.b64decode(given["sample"])) == min(512, given["size"]), "a sample has 512 bytes")
            mode = "lfs" if given["path"].endswith(_LARGE) or given["size"] > 1 << 20 else "regular"
            one = {"path": given["path"], "uploadMode": mode, "shouldIgnore": False}
            if given["path"] in held:
                one["oid"] = held[given["path"]].sha256 or held[given["path"]].blob
            out.append(one)
        self._answer(200, {"files": out})

    def _batch(self, name: str) -> None:
        repo, given = self._repo(name, write=True), json.loads(self.body)
        self._want(self.headers["Content-Type"] == self.headers["Accept"] == LFS_JSON, "LFS has a type of its own")
        self._want((given["operation"], given["hash_algo"]) == ("upload", "sha256"), "uploads are named by sha256")
        objects = []
        for one in given["objects"]:
            oid, size = one["oid"], one["size"]
            self._want(_OID.fullmatch(oid) and size > 0, f"{one} is no object")
            found = {"oid": oid, "size": size}
            if oid not in repo.store:
                repo.sizes[oid] = size
                found["actions"] = self._actions(name, oid, size)
            objects.append(found)
        self._answer(200, {"transfer": "basic", "objects": objects}, {"Content-Type": LFS_JSON})

    def _actions(self, name: str, oid: str, size: int) -> dict[str, Any]:
        place = f"{self.hub.url}/store/{name}/{oid}"
        verify = {"href": f"{self.hub.url}/{name}.git/info/lfs/objects/verify"}
        if size <= self.hub.part_bytes:
            return {"upload": {"href": f"{place}?{SIGNATURE}", "header": {}}, "verify": verify}
        count = -(-size // self.hub.part_bytes)
        parts = {str(number): f"{place}?part={number}&{SIGNATURE}" for number in range(1, count + 1)}
        header = {"chunk_size": str(self.hub.part_bytes), **parts}
        return {"upload": {"href": f"{place}/complete?{SIGNATURE}", "header": header}, "verify": verify}

    def _put(self, name: str, oid: str) -> None:
        self._want("Authorization" not in self.headers, "the token was sent to the store")
        self._want("X-Amz-Signature" in self.query, "the address is not signed")
        repo = self.hub.repos[name]
        if "part" in self.query:
            repo.parts[oid, int(self.query["part"][0])] = self.body
            return self._answer(200, headers={"ETag": f'"{hashlib.md5(self.body).hexdigest()}"'})
        self._keep(repo, oid, self.body)
        return self._answer(200)

    def _complete(self, name: str, oid: str) -> None:
        repo, given = self.hub.repos[name], json.loads(self.body)
        self._want(given["oid"] == oid, "another object is completed")
        data = b""
        for number, part in enumerate(given["parts"], 1):
            sent = repo.parts[oid, number]
            self._want(part == {"partNumber": number, "etag": f'"{hashlib.md5(sent).hexdigest()}"'}, "wrong part")
            data += sent
        self._keep(repo, oid, data)
        self._answer(200)

    def _keep(self, repo: Repo, oid: str, data: bytes) -> None:
        if len(data) != repo.sizes[oid] or hashlib.sha256(data).hexdigest() != oid:
            raise Refused(400, "The SHA256 you specified did not match the calculated checksum")
        repo.store[oid] = data

    def _verify(self, name: str) -> None:
        repo, given = self._repo(name, write=True), json.loads(self.body)
        self._want(len(repo.store[given["oid"]]) == given["size"], "what is to be verified is not there")
        self._answer(200, {})

    def _commit(self, name: str, revision: str) -> None:
        repo = self._repo(name, write=True)
        self._want(revision == "main", "commits go to main")
        self._want(self.headers["Content-Type"] == "application/x-ndjson", "a commit is ndjson")
        self._want(self.body.endswith(b"\n"), "the last line is cut off")
        header, *lines = (json.loads(line) for line in self.body.splitlines())
        self._want(header["key"] == "header" and header["value"]["summary"], "the first line is the header")
        if header["value"].get("parentCommit", repo.head) != repo.head:
            raise Refused(412, "A commit has happened since. Please refresh and try again.")
        files = dict(repo.files)
        for line in lines:
            self._apply(repo, files, line["key"], line["value"])
        for path in self.hub.spoilt & set(files):
            data = files[path].data[::-1] + b"!"
            files[path] = File(data=data, sha256=hashlib.sha256(data).hexdigest() if files[path].sha256 else None)
        oid = repo.commit(files)
        url = f"{self.hub.url}/{name}/commit/{oid}"
        self._answer(200, {"success": True, "commitOid": oid, "commitUrl": url, "hookOutput": ""})

    def _apply(self, repo: Repo, files: dict[str, File], key: str, value: dict[str, Any]) -> None:
        path = value["path"]
        self._want(not path.startswith("/") and ".." not in path.split("/"), f"{path} leads out")
        if key == "file":
            self._want(value["encoding"] == "base64", "contents are base64")
            files[path] = File(data=base64.b64decode(value["content"], validate=True))
        elif key == "lfsFile":
            self._want(value["algo"] == "sha256", "large files are named by sha256")
            data = repo.store.get(value["oid"])
            if data is None or len(data) != value["size"]:
                raise Refused(400, f"Your push was rejected: {value['oid']} was not uploaded")
            files[path] = File(data=data, sha256=value["oid"])
        else:
            self._want(key == "deletedFile" and path in files, f"{key} of {path}")
            del files[path]

    def _tag(self, name: str, revision: str) -> None:
        repo, given = self._repo(name, write=True), json.loads(self.body)
        if given["tag"] in repo.tags:
            raise Refused(409, "Tag already exists")
        repo.tags[given["tag"]] = self._commit_of(repo, revision)
        self._answer(200, {})


_NAME = r"([^/]+/[^/]+)"
_ROUTES: tuple[tuple[str, Callable[..., None]], ...] = (
    (rf"/api/models/{_NAME}(?:/revision/(.+))?", Handler._info),
    (rf"/api/models/{_NAME}/refs", Handler._refs),
    (rf"/api/models/{_NAME}/tree/([^/]+)(?:/(.+))?", Handler._tree),
    (rf"/api/models/{_NAME}/paths-info/(.+)", Handler._paths),
    (rf"/api/models/{_NAME}/preupload/(.+)", Handler._preupload),
    (rf"/api/models/{_NAME}/commit/(.+)", Handler._commit),
    (rf"/api/models/{_NAME}/tag/(.+)", Handler._tag),
    (rf"/{_NAME}\.git/info/lfs/objects/batch", Handler._batch),
    (rf"/{_NAME}\.git/info/lfs/objects/verify", Handler._verify),
    (rf"/store/{_NAME}/([0-9a-f]{{64}})", Handler._put),
    (rf"/store/{_NAME}/([0-9a-f]{{64}})/complete", Handler._complete),
    (rf"/{_NAME}/resolve/([^/]+)/(.+)", Handler._resolve),
)
