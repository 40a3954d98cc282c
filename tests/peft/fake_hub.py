"""A part of the Hugging Face Hub's HTTP interface on this machine: repositories, large files, commits."""

import base64
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import yaml

JSON = "application/json"
Fault = Callable[["Handler"], None]


@dataclass
class Repository:
    private: bool
    files: dict[str, bytes] = field(default_factory=dict)
    commits: int = 0


@dataclass
class Hub:
    """What the server has, what it was asked for, and which requests fail."""

    url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)  # method, path, Authorization
    faults: dict[str, Fault] = field(default_factory=dict)  # by a part of the path


class Handler(BaseHTTPRequestHandler):
    hub: Hub  # set by `running`

    def log_message(self, *_: Any) -> None:
        pass

    def answer(self, value: Any, status: int = 200, kind: str = JSON, **headers: str) -> None:
        content = json.dumps(value).encode() if kind == JSON else value
        self.send_response(status)
        for name, text in headers.items():
            self.send_header(name.replace("_", "-"), text)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def handle_request(self) -> None:
        self.path, _, _ = self.path.partition("?")
        self.hub.requests.append((self.command, self.path, self.headers["Authorization"]))
        for part, fault in self.hub.faults.items():
            if part in self.path:
                return fault(self)
        for part, route in ROUTES.items():
            if part in self.path:
                return route(self)
        self.answer({"error": "unknown to this hub"}, 404)  # what the client asks for about itself

    do_GET = do_POST = do_PUT = handle_request

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers["Content-Length"]))

    @property
    def name(self) -> str:
        """The repository in /api/models/ORGANISATION/NAME/..."""
        return "/".join(self.path.split("/")[3:5])

    def info(self) -> None:
        repository = self.hub.repositories.get(self.name)
        if repository is None:
            return self.answer({"error": "Repository not found"}, 404, X_Error_Code="RepoNotFound")
        siblings = [{"rfilename": path} for path in repository.files]
        self.answer({"id": self.name, "private": repository.private, "siblings": siblings, "sha": "a" * 40})

    def create(self) -> None:
        asked = json.loads(self.body())
        name = f"{asked['organization']}/{asked['name']}"
        self.hub.repositories[name] = Repository(private=asked["visibility"] == "private")
        self.answer({"url": f"{self.hub.url}/{name}"})

    def validate(self) -> None:
        front = json.loads(self.body())["content"].split("---\n")[1]
        assert isinstance(yaml.safe_load(front), dict)
        self.answer({"errors": [], "warnings": []})

    def preupload(self) -> None:
        paths = [file["path"] for file in json.loads(self.body())["files"]]
        modes = {path: "lfs" if path.endswith(".safetensors") else "regular" for path in paths}
        self.answer(
            {"files": [{"path": path, "uploadMode": mode, "shouldIgnore": False} for path, mode in modes.items()]}
        )

    def large_files(self) -> None:
        objects = json.loads(self.body())["objects"]
        for entry in objects:
            if entry["oid"] not in self.hub.blobs:
                entry["actions"] = {"upload": {"href": f"{self.hub.url}/store/{entry['oid']}?signature=signed"}}
        self.answer({"transfer": "basic", "objects": objects})

    def store(self) -> None:
        self.hub.blobs[self.path.split("/")[-1]] = self.body()
        self.answer({})

    def commit(self) -> None:
        repository = self.hub.repositories[self.name]
        for line in self.body().splitlines():
            operation = json.loads(line)
            value = operation["value"]
            if operation["key"] == "file":
                repository.files[value["path"]] = base64.b64decode(value["content"])
            elif operation["key"] == "lfsFile":
                repository.files[value["path"]] = self.hub.blobs[value["oid"]]
            elif operation["key"] == "deletedFile":
                del repository.files[value["path"]]
        repository.commits += 1
        commit = "b" * 40
        self.answer({"commitUrl": f"{self.hub.url}/{self.name}/commit/{commit}", "commitOid": commit})


# By a part of the path; the first one that it has.
ROUTES: dict[str, Callable[[Handler], None]] = {
    "/api/repos/create": Handler.create,
    "/api/validate-yaml": Handler.validate,
    "/preupload/": Handler.preupload,
    "/info/lfs/": Handler.large_files,
    "/store/": Handler.store,
    "/commit/": Handler.commit,
    "/api/models/": Handler.info,
}


def status(code: int, message: str = "no") -> Fault:
    """A fault: the request has this answer."""
    return lambda handler: handler.answer({"error": message}, code, X_Error_Message=message)


def die(handler: Handler) -> None:
    """A fault: the connection ends in the middle of the request."""
    handler.rfile.read(min(10, int(handler.headers["Content-Length"] or 0)))
    handler.close_connection = True


def login_page(handler: Handler) -> None:
    """A fault: a network answers in the Hub's place."""
    handler.answer(b"<html>Welcome to the hotel</html>", kind="text/html")


@contextmanager
def running() -> Iterator[Hub]:
    hub = Hub()
    own = type("Own", (Handler,), {"hub": hub})
    with ThreadingHTTPServer(("127.0.0.1", 0), own) as server:
        hub.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield hub
        server.shutdown()
        thread.join()
