import hashlib
import http.server
import logging
import signal
import threading
import time

import hypothesis
import pytest
import slurm_cluster
import support

# How fast an example is says something about the machine only.
hypothesis.settings.register_profile(
    "whatever the load", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("whatever the load")


LOGGERS = ("vmb_d2.engine", "vmb_d2.utils.progress")


@pytest.fixture(scope="session", autouse=True)
def _ctrl_c():
    """Python's own handler, also where the shell starts its jobs with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(autouse=True)
def _log_levels():
    """As they were: some programs, run in this process, set those of the package's loggers."""
    before = {name: logging.getLogger(name).level for name in LOGGERS}
    yield
    for name, level in before.items():
        logging.getLogger(name).setLevel(level)


@pytest.fixture(scope="session", autouse=True)
def _scratch_folder():
    yield
    support.remove_scratch()


class FaultyHandler(http.server.BaseHTTPRequestHandler):
    """Serves ``server.files`` by their paths, else ``server.content``, if it isn't None.

    What goes wrong is up to ``server.faults``, one a request.
    """

    def do_GET(self):
        self.server.requests.append(self.path)
        fault = self.server.faults.pop(0) if self.server.faults else None
        content = self.server.files.get(self.path, self.server.content)
        if fault == 404 or content is None:
            self.send_error(404, "Not Found")
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if fault == "break":
            self.wfile.write(content[:100_000])
            return
        if fault == "stall":
            self.wfile.write(content[:100_000])
            if not self.server.stalled.wait(60):
                self.server.requests.append("the client waited for a minute")
            return
        if fault == "slow":
            time.sleep(1)
        self.wfile.write(content)

    def do_HEAD(self):
        """As Hugging Face's hub answers."""
        content = self.server.files.get(self.path)
        self.send_response(404 if content is None else 200)
        if content is None:
            self.send_header("X-Error-Code", "EntryNotFound")
        else:
            self.send_header("Content-Length", str(len(content)))
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", "0" * 40)
        self.end_headers()

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    """An HTTP server on this machine that can misbehave; it counts the requests."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), FaultyHandler) as server:
        server.content = bytes(range(1, 251)) * 1200
        server.files, server.requests, server.faults = {}, [], []
        server.stalled = threading.Event()
        server.url = f"http://127.0.0.1:{server.server_port}/models/x.pth"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.stalled.set()
        server.shutdown()
        thread.join()


@pytest.fixture(scope="session")
def slurm():
    """A Slurm cluster. Where Slurm is installed, a test that can't have it is in error."""
    if missing := slurm_cluster.missing_programs():
        pytest.skip(f"no {', no '.join(missing)} here: apt-get install slurm-wlm munge")
    cluster = slurm_cluster.Cluster()
    yield cluster
    cluster.stop()


@pytest.fixture
def out(tmp_path):
    """An output folder, to be made."""
    return tmp_path / "out"


@pytest.fixture
def state():
    """A tiny FPN model's state dict in VMB's layout."""
    return support.vmb_state(support.TINY_FPN)


@pytest.fixture
def model():
    """The description of the model that ``state`` is of."""
    return support.description(support.TINY_FPN)
