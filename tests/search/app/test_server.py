"""Who may ask the page, and that it hands out nothing but pictures of the gallery: over HTTP, without a browser."""

import contextlib
import json
import os
import shutil
import socket
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest

from csvi.cli import main
from csvi.errors import CsviError
from csvi.search.app.server import LARGEST_UPLOAD, Server, check_open_to

LOGIN = {"username": "csvi", "password": "long enough"}


@contextlib.contextmanager
def running(server):
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        with httpx.Client(base_url=server.address, timeout=20, trust_env=False) as client:
            while True:
                with contextlib.suppress(httpx.ConnectError):
                    client.get("/theme.css")
                    break
                time.sleep(0.02)
            yield client
    finally:
        server.stop()
        thread.join()


@pytest.fixture(scope="module")
def uploads(tmp_path_factory):
    return tmp_path_factory.mktemp("uploads")


@pytest.fixture(scope="module")
def server(desk, uploads):
    """A page that the environment would have open every folder, keep what visitors do, and tell of it."""
    patch = pytest.MonkeyPatch()
    patch.setattr("tempfile.tempdir", str(uploads))
    for name, value in (("ALLOWED_PATHS", "/"), ("ANALYTICS_ENABLED", "True"), ("SHARE", "True")):
        patch.setenv(f"GRADIO_{name}", value)
    with Server(desk, "127.0.0.1", 0) as server:
        yield server
    assert os.environ["GRADIO_ALLOWED_PATHS"] == "/"
    patch.undo()


@pytest.fixture(scope="module")
def client(server):
    with running(server) as client:
        yield client


@pytest.fixture(scope="module")
def config(client):
    return client.get("/config").json()


def upload(client, content, name="probe.jpg"):
    return client.post("/gradio_api/upload", files={"files": (name, content)})


def called(client, config, function, data):
    """Call a function of the page as a browser does; gives the event that ends it."""
    number = next(n for n, each in enumerate(config["dependencies"]) if each["api_name"] == function)
    names = {"fn_index": number, "session_hash": "a-browser"}
    client.post("/gradio_api/queue/join", json={"data": data, **names}).raise_for_status()
    with client.stream("GET", "/gradio_api/queue/data", params={"session_hash": "a-browser"}) as events:
        for line in events.iter_lines():
            if line.startswith("data:") and '"process_completed"' in line:
                return json.loads(line.removeprefix("data:"))


def search(client, config, path, **more):
    """Search with a file that the server is said to have."""
    probe = {"path": path, "orig_name": "probe.jpg", "meta": {"_type": "gradio.FileData"}, **more}
    return called(client, config, "search", [[probe], "detect", [], "any", "", "", 5, False, None])


def test_an_uploaded_probe_is_searched_with(client, config, sysu_root, records, uploads):
    (file,) = upload(client, (sysu_root / records[3].path).read_bytes()).json()
    assert Path(file).is_relative_to(uploads)
    found = search(client, config, file)
    assert found["success"]
    assert "5 of 96 images, in " in found["output"]["data"][1]
    assert found["output"]["data"][2].count("data:image/jpeg;base64,") == 6


def test_files_that_were_not_uploaded_are_no_probes(client, config, sysu_root, records, uploads):
    before = set(uploads.rglob("*"))
    for path in ("/etc/passwd", str(sysu_root / records[3].path), "http://example.com/a.jpg", "https://a.b/c.jpg"):
        found = search(client, config, path)
        assert not found["success"], path
        found = search(client, config, path, is_stream=True)  # which Gradio lets pass
        assert "data:image" not in json.dumps(found)
        assert not found["success"] or found["output"]["data"][1] == "a probe must be a file that was uploaded"
    elsewhere = {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}
    assert not called(client, config, "search", [None, "detect", [], "any", elsewhere, "", 5, False, None])["success"]
    assert {file.read_bytes() for file in set(uploads.rglob("*")) - before if file.is_file()} <= {b""}


def test_no_file_of_the_gallery_or_the_machine_is_served(client, sysu_root, records):
    for path in (sysu_root / records[3].path, "/etc/passwd", "../../../../etc/passwd", sysu_root, Path.cwd()):
        for route in ("/gradio_api/file=", "/file=", "/static/", "/assets/", "/gradio_api/stream/"):
            assert client.get(f"{route}{path}").status_code in (403, 404, 405), (route, path)


def test_a_probe_of_more_than_20_mb_is_refused(client):
    assert upload(client, bytes(LARGEST_UPLOAD + 1)).status_code == 413


def test_every_answer_keeps_the_browser_from_going_elsewhere(client):
    for path in ("/", "/config", "/no-such-page"):
        policy = client.get(path).headers["content-security-policy"]
        assert "default-src 'self'" in policy
        assert "http" not in policy


def test_the_page_answers_to_no_other_name(client):
    assert client.get("/", headers={"Host": "elsewhere.example"}).status_code == 400
    assert client.get("/", headers={"Host": "localhost:1234"}).status_code == 200


def test_nothing_is_told_shared_or_kept(config):
    assert not config["analytics_enabled"]
    assert not config["run_history"]
    assert all(each["api_visibility"] == "private" for each in config["dependencies"])


def test_uploads_go_when_the_page_is_closed(desk, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with Server(desk, "127.0.0.1", 0) as server:
        (folder,) = tmp_path.iterdir()
        with running(server) as client:
            (file,) = upload(client, b"somebody").json()
            assert Path(file).is_relative_to(folder)
    assert list(tmp_path.iterdir()) == []


def test_nobody_asks_without_the_password(desk, sysu_root, records):
    with Server(desk, "127.0.0.1", 0, LOGIN["password"]) as server, running(server) as client:
        image = (sysu_root / records[3].path).read_bytes()
        join = {"data": [], "fn_index": 0, "session_hash": "a"}
        wrong = client.post("/login", data={**LOGIN, "password": "wrong"})
        assert wrong.status_code == 400
        for status in (401, 200):
            assert client.get("/config").status_code == status
            assert upload(client, image).status_code == status
            assert client.post("/gradio_api/queue/join", json=join).status_code == status
            assert client.post("/login", data=LOGIN).status_code == 200


def test_other_machines_need_a_password():
    for host in ("127.0.0.1", "127.8.8.8", "::1", "localhost"):
        check_open_to(host, None)
    for host in ("0.0.0.0", "::", "192.168.0.1", "crops.example"):
        check_open_to(host, "long enough")
        with pytest.raises(CsviError, match=f"--host {host} opens the gallery to other machines: set a password"):
            check_open_to(host, None)
    with pytest.raises(CsviError, match="the password is empty"):
        check_open_to("127.0.0.1", "")


def test_a_port_that_is_taken_is_one_sentence(desk):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(CsviError, match=f"cannot listen at 127.0.0.1, port {port} .*: give another --port"):
            Server(desk, "127.0.0.1", port)
    with pytest.raises(CsviError, match="port 99999"):
        Server(desk, "127.0.0.1", 99999)


def test_the_command_refuses_before_it_opens_anything(capsys, monkeypatch):
    assert main(["app", "--gallery", "nowhere.db", "--host", "0.0.0.0"]) == 1
    assert "--host 0.0.0.0 opens the gallery" in capsys.readouterr().err
    monkeypatch.setenv("CSVI_PASSWORD", "")
    assert main(["app", "--gallery", "nowhere.db"]) == 1
    assert "the password is empty" in capsys.readouterr().err


class Opened:
    """Stands in for the server: notes what is to be served, and is closed by Ctrl-C at once."""

    def __init__(self, desk, host, port, password, hint):
        self.address, self.seen = f"http://{host}:{port}", (desk.root, len(desk.gallery), password, hint)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def run(self):
        print(self.seen)
        raise KeyboardInterrupt


@pytest.mark.slow
def test_the_demo_is_run_and_indexed_once_and_opened(coseg_run, sysu_root, records, tmp_path, monkeypatch, capsys):
    def demo(out):
        shutil.copytree(coseg_run, out / "run")
        (out / "benchmark").symlink_to(sysu_root)
        (out / "run" / "report.html").touch()

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("csvi.search.app.server.Server", Opened)
    monkeypatch.setattr("csvi.commands.demo.run_demo", demo)
    assert main(["app", "--demo", "--port", "80"]) == 0
    first, page, seen, closed = capsys.readouterr().out.splitlines()
    assert first == "csvi demo has not been run in ./demo: it is now, which takes about 4 minutes"
    assert page == "page: http://127.0.0.1:80; Ctrl-C closes it"
    assert (
        f"{len(records)}, None, 'Synthetic people alone. A probe to drop: `demo/benchmark/cam3/0013/0001.jpg`'" in seen
    )
    assert closed == "closed"

    monkeypatch.setattr("csvi.commands.demo.run_demo", lambda out: pytest.fail("run again"))
    monkeypatch.setattr("csvi.search.fill.embedded_on", lambda *_: [])
    assert main(["app", "--demo"]) == 0
    monkeypatch.setenv("CSVI_PASSWORD", "long enough")
    assert main(["app", "--gallery", "demo/gallery.db", "--host", "0.0.0.0"]) == 0
    page, seen, _ = capsys.readouterr().out.splitlines()[-3:]
    assert page == "page: http://0.0.0.0:7860, log in as csvi; Ctrl-C closes it"
    assert seen == repr((tmp_path / "demo" / "benchmark", len(records), "long enough", ""))


def test_without_gradio_the_command_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert main(["app", "--gallery", "gallery.db"]) == 1
    assert "csvi app needs gradio: pip install 'csvi[app]'" in capsys.readouterr().err
