"""The compose files and the Dockerfile, as far as they can be tested without an engine: their form, and the services'
commands and checks, run on this machine."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import fields
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

import visrag
from visrag.settings import QueueSettings

ROOT = Path(__file__).parents[1]
BASE, GPU, CLUSTER = "docker-compose.yml", "docker-compose.gpu.yml", "docker-compose.cluster.yml"
STACKS = [(BASE,), (BASE, GPU), (BASE, CLUSTER), (BASE, GPU, CLUSTER)]
SECRET = re.compile(r"PASSWORD|SECRET|TOKEN|AUTH|API_KEY|ACCESS_KEY", re.I)
SET = {"VISRAG_REDIS_PASSWORD": "secret1", "QDRANT__SERVICE__API_KEY": "secret2", "VISRAG_PUBLISH": "10.0.0.5"}
VARIABLE = re.compile(r"\$(?:(\$)|\{(\w+)(?:(:-|:\?)((?:[^{}]|\{[^{}]*\})*))?\})")


def interpolate(text: str, variables: Mapping[str, str]) -> str:
    """``$$``, ``${NAME}``, ``${NAME:-default}`` and ``${NAME:?message}``, as compose has them. Raises KeyError."""

    def value(match: re.Match[str]) -> str:
        escaped, name, operator, rest = match.groups()
        if escaped:
            return "$"
        if found := variables.get(name):
            return found
        if operator == ":?":
            raise KeyError(f"{name} {rest}")
        return interpolate(rest or "", variables)

    return VARIABLE.sub(value, text)


def mapped(value: Any, change: Callable[[str], str]) -> Any:
    """A tree with each of its strings changed, keys left as they are."""
    if isinstance(value, dict):
        return {key: mapped(item, change) for key, item in value.items()}
    if isinstance(value, list):
        return [mapped(item, change) for item in value]
    return change(value) if isinstance(value, str) else value


def merge(first: Any, second: Any, key: str = "") -> Any:
    """Compose's rules for what is in these files: mappings are merged, lists joined, commands and values replaced."""
    if isinstance(first, dict) and isinstance(second, dict):
        return first | {key: merge(first[key], item, key) if key in first else item for key, item in second.items()}
    if isinstance(first, list) and key not in ("command", "entrypoint", "test"):
        return [*first, *second]
    return second


def compose(*files: str, **variables: str) -> dict[str, Any]:
    """The files merged, with these variables and no others."""
    merged: Any = {}
    for file in files:
        content = yaml.safe_load((ROOT / file).read_text(encoding="utf-8"))
        merged = merge(merged, mapped(content, lambda text: interpolate(text, variables)))
    return dict(merged)


def strings(value: Any) -> Iterator[str]:
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from strings(item)
    if isinstance(value, str):
        yield value


# The form


def check(path: Path) -> subprocess.CompletedProcess[str]:
    """Hold a file against the schema of the compose specification."""
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("files", STACKS, ids=" ".join)
def test_the_files_follow_the_specification(files: tuple[str, ...], tmp_path: Path) -> None:
    merged = tmp_path / "merged.json"
    merged.write_text(json.dumps(compose(*files, **SET)), encoding="utf-8")
    for path in (ROOT / files[-1], merged):
        done = check(path)
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_schema_refuses_what_is_no_compose_file(tmp_path: Path) -> None:
    broken = compose(BASE)
    broken["services"]["redis"]["port"] = ["6379"]
    (tmp_path / "broken.json").write_text(json.dumps(broken), encoding="utf-8")
    done = check(tmp_path / "broken.json")
    assert done.returncode == 1
    assert "'port' was unexpected" in done.stdout


def test_interpolation() -> None:
    assert interpolate("$${A} ${A} ${B:-x${A}y} ${C:-d}${D}", {"A": "1", "C": "", "B": ""}) == "${A} 1 x1y d"
    assert interpolate("${B:-x${A:-z}y}${A:-}", {"B": "2"}) == "2"
    with pytest.raises(KeyError, match="A is needed"):
        interpolate("${A:?is needed}", {"A": ""})


def test_every_variable_is_one_that_the_test_understands() -> None:
    for file in (BASE, GPU, CLUSTER):
        assert "$" not in VARIABLE.sub("", (ROOT / file).read_text(encoding="utf-8"))


@pytest.mark.parametrize("files", [(BASE,), (BASE, GPU)], ids=" ".join)
def test_nothing_is_published_beyond_this_machine(files: tuple[str, ...]) -> None:
    ports = {name: service["ports"] for name, service in compose(*files)["services"].items() if "ports" in service}
    assert ports == {"flower": ["127.0.0.1:5555:5555"], "api": ["127.0.0.1:8080:8080"]}
    assert compose(*files, VISRAG_API_PORT="9000")["services"]["api"]["ports"] == ["127.0.0.1:9000:8080"]
    for service in compose(*files)["services"].values():
        assert "network_mode" not in service
        assert "privileged" not in service


def test_servers_are_published_only_with_an_address_and_secrets() -> None:
    services = compose(BASE, CLUSTER, **SET)["services"]
    assert services["redis"]["ports"] == ["10.0.0.5:6379:6379"]
    assert services["qdrant"]["ports"] == ["10.0.0.5:6333:6333", "10.0.0.5:6334:6334"]
    assert services["api"]["ports"] == ["127.0.0.1:8080:8080", "10.0.0.5:8080:8080"]
    for name in SET:
        with pytest.raises(KeyError, match=f"{name} must be"):
            compose(BASE, CLUSTER, **{key: value for key, value in SET.items() if key != name})


def test_no_secret_has_a_value_in_the_files() -> None:
    for name, service in compose(BASE, GPU)["services"].items():
        for key, value in service.get("environment", {}).items():
            assert not (SECRET.search(key) and value), f"{name}: {key}"
        for text in strings(service):
            assert not re.search(r"://[^/@]*[^/@:]@", text), f"{name}: {text}"
        assert not [line for line in service.get("build", {}).get("args", {}) if SECRET.search(line)]
    assert compose(BASE)["services"]["redis"]["command"][-2:] == ["--requirepass", ""]
    example = (ROOT / ".env.example").read_text(encoding="utf-8")
    assert not [line for line in example.splitlines() if line and not line.startswith("#")]


def test_secrets_that_are_set_arrive() -> None:
    services = compose(BASE, **SET)["services"]
    assert services["redis"]["command"][-1] == services["redis"]["environment"]["REDISCLI_AUTH"] == "secret1"
    for name in ("ingest", "render", "text", "encode", "api", "cli"):
        assert services[name]["environment"]["VISRAG_BROKER"] == "redis://:secret1@redis:6379/0"
        assert services[name]["environment"]["VISRAG_QDRANT_API_KEY"] == "secret2"
    assert services["flower"]["environment"]["CELERY_BROKER_URL"] == "redis://:secret1@redis:6379/0"
    # Without a value, so that it is not set unless it is set outside: Qdrant would take an empty key for a key.
    assert services["qdrant"]["environment"]["QDRANT__SERVICE__API_KEY"] is None


@pytest.mark.parametrize("files", STACKS, ids=" ".join)
def test_what_services_refer_to_is_there(files: tuple[str, ...]) -> None:
    merged = compose(*files, **SET)
    mounted = set()
    for service in merged["services"].values():
        mounted |= {volume.split(":")[0] for volume in service.get("volumes", []) if isinstance(volume, str)}
        assert set(service.get("depends_on", {})) <= set(merged["services"])
        assert all(merged["services"][name]["healthcheck"]["test"] for name in service.get("depends_on", {}))
    assert mounted == set(merged["volumes"])


def test_services_are_held_short() -> None:
    for name, service in compose(BASE)["services"].items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["logging"]["options"] == {"max-size": "10m", "max-file": "3"}, name
        assert service["restart"] == ("no" if name == "cli" else "unless-stopped"), name


def test_only_the_encode_workers_and_the_server_get_a_gpu() -> None:
    plain, services = compose(BASE)["services"], compose(BASE, GPU)["services"]
    assert [name for name, service in services.items() if "deploy" in service] == ["encode", "api"]
    assert [name for name, service in services.items() if service["image"] == "visrag:cuda"] == ["encode", "api"]
    for name in ("encode", "api"):
        (device,) = services[name]["deploy"]["resources"]["reservations"]["devices"]
        assert device == {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}
        assert services[name]["environment"] == {**plain[name]["environment"], "VISRAG_DEVICE": "cuda"}
        assert services[name]["command"] == plain[name]["command"]


def test_every_step_has_a_worker() -> None:
    steps = [part for service in compose(BASE)["services"].values() for part in service.get("command", [])]
    assert {"ingest", "render", "text", "encode"} <= set(steps)


def test_every_setting_of_the_queue_can_be_set() -> None:
    settings = {f"VISRAG_{field.name.upper()}" for field in fields(QueueSettings)}
    environment = {key for key in compose(BASE)["services"]["ingest"]["environment"] if key.startswith("VISRAG_")}
    assert environment == settings | {"VISRAG_QDRANT_API_KEY", "VISRAG_DTYPE"}


def test_the_index_is_on_the_services_that_are_there() -> None:
    from visrag.store.qdrant_connection import Address

    services = compose(BASE)["services"]
    address = Address.parse(services["render"]["environment"]["VISRAG_INDEX"])
    assert (address.host, address.port, address.collection) == ("qdrant", 6333, "visrag")
    assert address.files == "file:///data/files"
    names = ("ingest", "render", "text", "encode", "api", "cli")
    assert all("data:/data" in services[name]["volumes"] for name in names)


def test_the_server_and_the_command_that_makes_its_keys_agree() -> None:
    services = compose(BASE)["services"]
    keys = {name: service.get("environment", {}).get("VISRAG_KEYS") for name, service in services.items()}
    path = "/data/visrag-keys.json"
    assert {name: path for name, path in keys.items() if path} == {"api": path, "cli": path}
    assert services["api"]["environment"]["VISRAG_HOST"] == "0.0.0.0"
    _, target = services["api"]["ports"][0].rsplit(":", 1)
    assert services["api"]["environment"]["VISRAG_PORT"] == target
    assert f"/dev/tcp/127.0.0.1/{target};" in services["api"]["healthcheck"]["test"][-1]


def test_the_server_may_read_what_the_ingest_workers_read() -> None:
    services = compose(BASE)["services"]
    root = services["api"]["environment"]["VISRAG_ROOTS"]
    mounts = [
        [volume for volume in services[name]["volumes"] if isinstance(volume, dict) and volume["target"] == root]
        for name in ("api", "ingest")
    ]
    assert mounts[0] == mounts[1]
    assert [mount["read_only"] for mount in mounts[0]] == [True]


def test_every_volume_of_the_image_is_its_user_s() -> None:
    (made,) = re.findall(r"install -d -o visrag -g visrag (.*)", "\n".join(dockerfile("RUN")))
    services = [service for service in compose(BASE)["services"].values() if "build" in service]
    volumes = [volume for service in services for volume in service["volumes"]]
    assert {volume.split(":")[1] for volume in volumes if isinstance(volume, str)} <= set(made.split())


def test_what_the_example_names_is_a_variable_of_the_files() -> None:
    example = (ROOT / ".env.example").read_text(encoding="utf-8")
    named = set(re.findall(r"^#(\w+)=", example, re.M)) - {"COMPOSE_PROFILES", "COMPOSE_FILE"}
    given: set[str] = set()
    for file in (BASE, GPU, CLUSTER):
        text = (ROOT / file).read_text(encoding="utf-8")
        given |= {match[2] for match in VARIABLE.finditer(text) if match[2]}
        services = yaml.safe_load(text)["services"].values()
        given |= {key for service in services for key, value in service.get("environment", {}).items() if value is None}
    assert named <= given
    profiles = {profile for service in compose(BASE)["services"].values() for profile in service.get("profiles", [])}
    (started,) = re.findall(r"^#COMPOSE_PROFILES=(.*)", example, re.M)
    assert set(started.split(",")) <= profiles


def test_images_are_pinned() -> None:
    images = {service["image"] for service in compose(BASE, GPU)["services"].values()} - {"visrag:cpu", "visrag:cuda"}
    for image in (*images, *(f"python:{line.split('=')[1]}" for line in dockerfile("ARG") if "PYTHON" in line)):
        assert re.search(r":v?\d+\.\d+\.\d+", image), image


# The Dockerfile


def dockerfile(instruction: str) -> list[str]:
    """The arguments of each such instruction of the Dockerfile, continued lines joined."""
    lines = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", "").splitlines()
    return [line.removeprefix(instruction).strip() for line in lines if line.startswith(f"{instruction} ")]


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return dict(tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"])


def test_what_is_copied_is_there_and_not_ignored() -> None:
    kept = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    copied = [source for line in dockerfile("COPY") for source in line.split()[:-1]]
    assert sorted(set(copied)) == sorted(kept)
    for source in copied:
        assert (ROOT / source).exists(), source


def test_everything_that_a_wheel_is_built_of_is_copied(project: dict[str, Any]) -> None:
    copied = {source for line in dockerfile("COPY") for source in line.split()[:-1]}
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    packages = {pattern.rstrip("*") for pattern in tool["packages"]["find"]["include"]}
    assert {"pyproject.toml", project["readme"], *project["license-files"], *packages} == copied


def test_the_entry_point_is_a_program_of_the_package(project: dict[str, Any]) -> None:
    (program,) = json.loads(dockerfile("ENTRYPOINT")[0])
    assert program in project["scripts"]


def test_the_user_is_not_root() -> None:
    assert dockerfile("USER") == ["visrag"]


@pytest.mark.parametrize("service", ["ingest", "encode", "api"])
def test_the_requirements_are_those_of_the_package(service: str, project: dict[str, Any], tmp_path: Path) -> None:
    extras = compose(BASE, GPU)["services"][service]["build"]["args"]["EXTRAS"]
    assert {"queue", "qdrant", "s3", "server"} <= set(extras.split(","))
    (command,) = [line for line in dockerfile("RUN") if "tomllib" in line]
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    listing = command.split(" && ")[0].replace("/tmp/", f"{tmp_path}/").replace("python ", f"{sys.executable} ")
    subprocess.run(["sh", "-c", listing], env={**os.environ, "EXTRAS": extras}, check=True)
    wanted = [line for extra in extras.split(",") for line in project["optional-dependencies"][extra]]
    assert (tmp_path / "requirements.txt").read_text().splitlines() == [*project["dependencies"], *wanted]
    assert f"EXTRAS={compose(BASE)['services']['ingest']['build']['args']['EXTRAS']}" in dockerfile("ARG")


# The commands, on this machine


def free_port() -> int:
    with closing(socket.socket()) as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def seconds(text: str) -> float:
    assert text.endswith("s"), text
    return float(text[:-1])


class Machine:
    """What the containers would have of their own, on this machine: ports, folders, programs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.redis, self.flower, self.api = free_port(), free_port(), free_port()
        self.metrics: dict[str, int] = {}
        self.logs: dict[str, Path] = {}
        self.services = compose(BASE)["services"]

    def path(self, name: str) -> Path:
        path = self.folder / name
        path.mkdir(exist_ok=True)
        return path

    def here(self, name: str) -> Callable[[str], str]:
        """How the strings of a service read on this machine."""
        port = self.metrics.setdefault(name, free_port())
        changes = {
            r"^qdrant://.*": str(self.folder / "index"),
            r"@redis:6379": f"@127.0.0.1:{self.redis}",
            r"\b9808\b": str(port),
            r"\b5555\b": str(self.flower),
            r"\b8080\b": str(self.api),
            r"^0\.0\.0\.0$": "127.0.0.1",
            r"^/(data|inbox|documents|cache)(?=/|$)": f"{self.folder}/\\1",
        }

        def change(text: str) -> str:
            for pattern, new in changes.items():
                text = re.sub(pattern, new, text)
            return text

        return change

    def environment(self, name: str) -> dict[str, str]:
        given = mapped(self.services[name].get("environment", {}), self.here(name))
        outer = {key: value for key, value in os.environ.items() if not key.startswith(("VISRAG_", "FLOWER_"))}
        return {**outer, **{key: value for key, value in given.items() if value is not None}}

    def command(self, name: str, *arguments: str) -> list[str]:
        """The command of a service, or the one given in its place, with the entry point of the image."""
        command = [*arguments] or mapped(self.services[name]["command"], self.here(name))
        if "build" in self.services[name]:
            command = [*json.loads(dockerfile("ENTRYPOINT")[0]), *command]
        beside = Path(sys.executable).with_name(command[0])
        return [str(beside) if beside.exists() else command[0], *command[1:]]

    @contextmanager
    def running(self, name: str, *more: str) -> Iterator[subprocess.Popen[bytes]]:
        """A service, which has to end by itself at SIGTERM within its grace period."""
        self.logs[name] = self.folder / f"{name}.log"
        with self.logs[name].open("wb") as log:
            process = subprocess.Popen(
                [*self.command(name), *more], env=self.environment(name), cwd=self.path("work"),
                stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        try:
            yield process
            assert process.poll() is None, f"{name} ended: {self.logs[name].read_text()}"
            process.send_signal(signal.SIGTERM)
            code = process.wait(seconds(self.services[name]["stop_grace_period"]))
            ends = (0, -signal.SIGTERM) if name == "api" else (0,)  # uvicorn raises it again
            assert code in ends, f"{name} ended with {code}: {self.logs[name].read_text()}"
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def healthy(self, name: str) -> bool:
        """What the service's own check says."""
        kind, *test = mapped(self.services[name]["healthcheck"]["test"], self.here(name))
        assert kind == "CMD"
        if name == "redis":
            test[1:1] = ["-p", str(self.redis)]
        limit = seconds(self.services[name]["healthcheck"]["timeout"])
        done = subprocess.run(test, env=self.environment(name), capture_output=True, timeout=limit, check=False)
        return done.returncode == 0

    def wait_until_healthy(self, name: str, process: subprocess.Popen[bytes]) -> None:
        end = time.monotonic() + seconds(self.services[name]["healthcheck"]["start_period"])
        while not self.healthy(name):
            assert process.poll() is None, f"{name} ended: {self.logs[name].read_text()}"
            assert time.monotonic() < end, f"{name} is not healthy: {self.logs[name].read_text()}"
            time.sleep(0.2)


def need(found: object, what: str) -> None:
    """A missing program fails in CI and skips elsewhere."""
    if not found:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"no {what}")


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@contextmanager
def broker(machine: Machine) -> Iterator[None]:
    """Redis, by the file's command; only its port, address and folder are added."""
    need(shutil.which("redis-server"), "redis-server")
    there = ("--port", str(machine.redis), "--bind", "127.0.0.1", "--dir", str(machine.path("redis")))
    assert not machine.healthy("redis")
    with machine.running("redis", *there) as process:
        machine.wait_until_healthy("redis", process)
        yield


def redis_cli(machine: Machine, *command: str, password: str = "") -> str:
    arguments = ["redis-cli", "-p", str(machine.redis), *command]
    environment = {**os.environ, "REDISCLI_AUTH": password}
    return subprocess.run(arguments, env=environment, capture_output=True, text=True, check=True).stdout


def test_redis_keeps_what_it_is_given(machine: Machine) -> None:
    with broker(machine):
        assert redis_cli(machine, "set", "a", "1").strip() == "OK"
        told = redis_cli(machine, "config", "get", "append*", "maxmemory*", "save", "requirepass").splitlines()
        found = dict(zip(told[::2], told[1::2], strict=True))
        assert found["appendonly"] == "yes"
        assert found["appendfsync"] == "everysec"
        assert found["maxmemory-policy"] == "noeviction"
        assert found["maxmemory"] == str(256 * 2**20)
        assert found["save"] == found["requirepass"] == ""
    with broker(machine):
        assert redis_cli(machine, "get", "a").strip() == "1"


def test_redis_asks_for_a_password_that_is_set(machine: Machine) -> None:
    machine.services = compose(BASE, **SET)["services"]
    with broker(machine):
        assert redis_cli(machine, "get", "a").startswith("NOAUTH")
        assert redis_cli(machine, "get", "a", password="secret1").strip() == ""


@pytest.mark.parametrize(("status", "healthy"), [(200, True), (503, False)])
def test_the_check_of_qdrant(status: int, healthy: bool, machine: Machine) -> None:
    asked = []

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(b"all shards are ready")

        def log_message(self, *arguments: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        test = machine.services["qdrant"]["healthcheck"]["test"]
        assert [text for text in test if "/6333" in text] == test[-1:]
        machine.services["qdrant"]["healthcheck"]["test"] = [
            *test[:-1],
            test[-1].replace("6333", str(server.server_port)),
        ]
        assert machine.healthy("qdrant") is healthy
        thread.join()
    assert asked == ["/readyz"]
    assert not machine.healthy("qdrant")  # no one listens any more


def test_flower(machine: Machine) -> None:
    need(Path(sys.executable).with_name("celery").exists(), "celery: pip install 'visrag[queue]'")
    listed = subprocess.run([sys.executable, "-c", "import flower"], capture_output=True, check=False)
    need(listed.returncode == 0, "flower: pip install --group test")
    need(shutil.which("wget"), "wget")
    machine.services["flower"]["stop_grace_period"] = "10s"  # compose's default
    with broker(machine), machine.running("flower") as process:
        machine.wait_until_healthy("flower", process)


def test_the_server_refuses_to_start_without_a_key(machine: Machine) -> None:
    machine.path("data")
    environment = {**machine.environment("api"), "VISRAG_HOST": machine.services["api"]["environment"]["VISRAG_HOST"]}
    command = machine.command("api")
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2, done.stderr
    assert "visrag keys create --role admin" in done.stderr


def test_the_server_lets_in_who_has_a_key(machine: Machine, samples: Path) -> None:
    machine.path("data")
    key = ask(machine, "keys", "create", "--role", "admin").strip()
    shutil.copy(samples / "observatory-handbook.md", machine.path("documents") / "handbook.md")
    assert not machine.healthy("api")
    with machine.running("api") as process:
        machine.wait_until_healthy("api", process)
        with httpx.Client(base_url=f"http://127.0.0.1:{machine.api}/v1", trust_env=False) as client:
            assert client.get("/collections").status_code == 401
            client.headers["Authorization"] = f"Bearer {key}"
            (collection,) = client.get("/collections").json()["collections"]
            assert collection == {"name": "index", "documents": 0, "pages": 0, "ingest": True}
            take = "/collections/index/documents/from-uri"
            assert client.post(take, json={"uri": str(machine.folder / "data")}).status_code == 403
            taken = client.post(take, json={"uri": str(machine.folder / "documents")})
            assert [document["document"] for document in taken.json()["documents"]] == ["handbook.md"]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_workers_do_their_work_together(machine: Machine, samples: Path) -> None:
    inbox = machine.path("inbox")
    machine.path("data")
    key = ask(machine, "keys", "create", "--role", "writer").strip()
    with broker(machine), ExitStack() as stack:
        names = ["ingest", "render", "text", "encode", "api"]
        processes = {name: stack.enter_context(machine.running(name)) for name in names}
        for name, process in processes.items():
            machine.wait_until_healthy(name, process)
        shutil.copy(samples / "harrowmere-annual-report.pdf", inbox / "report.pdf")
        end = time.monotonic() + 200
        while (inbox / "report.pdf").exists():
            assert time.monotonic() < end, {name: path.read_text() for name, path in machine.logs.items()}
            time.sleep(0.5)
        told = json.loads(ask(machine, *machine.services["cli"]["command"], "--json"))
        assert told["documents"] == {"queued": 0, "working": 0, "indexed": 1, "partial": 0, "failed": 0}
        assert "report.pdf" in ask(machine, "search", "How many passengers can stand in a Kestrel tram?", "--json")
        with visrag.Client(f"http://127.0.0.1:{machine.api}", key) as client:
            assert client.ingest(samples / "observatory-handbook.md").failures == []
            assert [document.name for document in client.documents()] == ["observatory-handbook.md", "report.pdf"]
            hit, *_ = client.search("How many passengers can stand in a Kestrel tram?")
            assert (hit.document, hit.page) == ("report.pdf", 6)
            assert hit.image().size[0] > 0
        assert list((machine.folder / "cache" / "pages").iterdir())


def ask(machine: Machine, *arguments: str) -> str:
    """What a command of the service `cli` prints."""
    command, environment = machine.command("cli", *arguments), machine.environment("cli")
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
