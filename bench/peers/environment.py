# SPDX-License-Identifier: MIT
"""The virtual environment that peers are installed into, and what is said about this machine."""
import hashlib
import json
import os
import platform
import subprocess
import sys

from errors import PeersError
from grids import PINS

HERE = os.path.dirname(os.path.abspath(__file__))


# Where the presets and a plain build put our worker, from the project's root.
WORKER_PLACES = ("build/release/bench/bench_peers_worker", "build/bench/bench_peers_worker")


def our_worker(named=None):
    """The path of bench_peers_worker: the one named, else the first that is built."""
    places = [os.path.join(HERE, "..", "..", p) for p in WORKER_PLACES]
    path = named or next(filter(os.path.exists, places), None)
    if path is None:
        raise PeersError("looking for bench_peers_worker", "none in " + " or ".join(WORKER_PLACES),
                         "a path to it", "build it (cmake --preset default && cmake --build "
                         "--preset default --target bench_peers_worker) or name it with --worker")
    if not os.access(path, os.X_OK) or os.path.isdir(path):
        raise PeersError("looking for bench_peers_worker", f"'{path}', which is no program",
                         "the path of a built bench_peers_worker", "check --worker")
    return os.path.abspath(path)


def default_cache():
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(home, "faiss-gmm", "peers")


class VirtualEnvironment:
    """Made once for a Python version and a set of pins, and kept in the cache."""

    def __init__(self, cache):
        version = "{}.{}".format(*sys.version_info)
        pins = hashlib.sha256(json.dumps(PINS).encode()).hexdigest()[:8]
        self.folder = os.path.join(cache, f"venv-{version}-{pins}")
        self.python = os.path.join(self.folder, "bin", "python")

    def make(self):
        """Throws PeersError where there can be none."""
        if os.path.exists(os.path.join(self.folder, "made")):
            return
        made = run_quietly([sys.executable, "-m", "venv", "--clear", self.folder])
        if made.returncode:
            raise PeersError("making a virtual environment for the peers", last_line(made),
                             "a python3 with venv and a cache folder that can be written to",
                             "install python3-venv, or name another folder with --cache")
        with open(os.path.join(self.folder, "made"), "w"):
            pass

    def install(self, name):
        """Installs PINS[name] unless it is there. None, or why that is not possible here."""
        stamp = os.path.join(self.folder, f"installed-{name}")
        if os.path.exists(stamp):
            return None
        pip = [self.python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        done = run_quietly([*pip, *PINS[name]])
        if done.returncode:
            return last_line(done)
        with open(stamp, "w"):
            pass
        return None


def run_quietly(command):
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)


def last_line(done):
    """What a failed command said last: of pip's errors the first, which has the cause."""
    said = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
    errors = [line for line in said if line.lower().startswith("error")]
    return (errors or said[-1:] or [f"exit status {done.returncode}"])[0]


def cpu_model():
    try:
        with open("/proc/cpuinfo") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.split(": ", 1)[1].strip()
    except OSError:
        pass
    return platform.machine()


def git_commit():
    """Of these sources, "-dirty" with changes; "unknown" outside of git."""
    try:
        done = run_quietly(["git", "-C", HERE, "describe", "--always", "--abbrev=12", "--dirty",
                            "--exclude=*"])
    except OSError:
        return "unknown"
    return done.stdout.strip() if done.returncode == 0 else "unknown"


def allowed_cpus():
    return sorted(os.sched_getaffinity(0))
