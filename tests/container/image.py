"""Building the image, on machines with and without a registry: what `run.py` starts with.

Where python:3.11-slim cannot be pulled, the base is made of Debian's own packages. How this machine reaches its package
indexes (mirrors, certificates, passwords) is its own affair. It is mounted while the image is built, stays out of it,
and is blotted out of whatever is printed.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import ssl
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

ROOT = Path(__file__).parents[2]
OFFICIAL_BASE = "docker.io/library/python:3.11-slim"
OWN_BASE = "localhost/lstm-serving-base:bookworm"
IMAGE = "localhost/lstm-serving:cpu"
# Where Debian keeps them, and python:3.11-slim is Debian.
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
PIP_CONFIGURATION = "/etc/pip.conf"
PUBLIC_HOSTS = {"pypi.org", "deb.debian.org", "download.pytorch.org"}
PACKAGES = "buildah podman runc iptables netavark aardvark-dns catatonit uidmap debootstrap"


class Failed(Exception):
    """A step did not work; the message is for people."""


def check_tools(needed: tuple[str, ...]) -> None:
    """Raises `Failed` with the command that installs what is missing."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    missing = [tool for tool in needed if not shutil.which(tool, path=path)]
    if missing:
        raise Failed(
            f"not installed: {', '.join(missing)}; on Debian: apt-get install --no-install-recommends {PACKAGES}"
        )


def run(*command: str | Path, what: str) -> str:
    """The standard output of a command. Raises `Failed` with its last words if it fails, addresses blotted out."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        words = re.sub(r"\b\w+://\S+", "<address>", done.stdout + done.stderr)
        raise Failed(f"{what}: {command[0]} ended with {done.returncode}:\n" + "\n".join(words.splitlines()[-25:]))
    return done.stdout


def base_image() -> str:
    """python:3.11-slim if it is here or can be pulled, else a base of our own making."""
    for image in (OFFICIAL_BASE, OWN_BASE):
        if subprocess.run(["podman", "image", "exists", image], check=False).returncode == 0:
            return image
    if subprocess.run(["podman", "pull", "--quiet", OFFICIAL_BASE], capture_output=True, check=False).returncode == 0:
        return OFFICIAL_BASE
    print(f"{OFFICIAL_BASE} cannot be pulled; making {OWN_BASE} with debootstrap (a minute or two)", flush=True)
    check_tools(("debootstrap",))
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        root = Path(folder) / "root"
        run(
            "/usr/sbin/debootstrap", "--variant=minbase", "--include=python3,python3-venv,ca-certificates",
            "bookworm", root, _debian_mirror(), what="making the base image",
        )  # fmt: skip
        (root / "etc/apt/sources.list").write_text("")
        (root / "usr/bin/python").symlink_to("python3")
        archive = Path(folder) / "root.tar"
        unneeded = ("var/cache/apt", "var/lib/apt/lists", "var/log", "usr/share/doc", "usr/share/man")
        leave_out = [f"--exclude=./{each}/*" for each in unneeded]
        run("tar", "-C", root, *leave_out, "-cf", archive, ".", what="packing the base image")
        run("podman", "import", "--quiet", archive, OWN_BASE, what="importing the base image")
    return OWN_BASE


def build(base: str, folder: Path) -> None:
    """Builds the cpu target from the Dockerfile as it stands, as `IMAGE`. `folder` is for what is mounted meanwhile."""
    pip = folder / "pip.conf"
    settings = {"cert": CERTIFICATES} | _pip_indexes()
    pip.write_text("\n".join(["[global]", *(f"{name} = {value}" for name, value in settings.items()), ""]))
    mounts = ["--volume", f"{pip}:{PIP_CONFIGURATION}:ro"]
    certificates = os.environ.get("SSL_CERT_FILE") or ssl.get_default_verify_paths().cafile or CERTIFICATES
    if Path(certificates).exists():
        mounts += ["--volume", f"{Path(certificates).resolve()}:{CERTIFICATES}:ro"]
    revision = run("git", "-C", ROOT, "rev-parse", "HEAD", what="asking for the revision").strip()
    version = re.search(r'^VERSION = "(.+)"', (ROOT / "commands/version.py").read_text(), re.MULTILINE)
    assert version
    run(
        # Health checks exist in Docker's format alone; --layers keeps what has not changed since the last build.
        "buildah", "bud", "--isolation=chroot", "--format=docker", "--layers", "--target=cpu", *mounts,
        "--build-arg", f"BASE_IMAGE={base}", "--build-arg", f"VERSION={version[1]}", "--build-arg", f"REVISION={revision}",
        "--tag", IMAGE, ROOT,
        what="building the image",
    )  # fmt: skip


def check_nothing_leaked() -> None:
    """Raises `Failed` if the image tells how the machine that built it reaches its package indexes."""
    told = run("podman", "history", "--no-trunc", "--format={{.CreatedBy}}", IMAGE, what="reading the history")
    told += run("podman", "image", "inspect", IMAGE, what="inspecting the image")
    root = Path(run("podman", "image", "mount", IMAGE, what="mounting the image").strip())
    try:
        configuration = [root / PIP_CONFIGURATION[1:], *root.glob("etc/apt/sources.list"), *root.glob("root/.*/pip/*")]
        told += "".join(file.read_text() for file in configuration if file.is_file())
    finally:
        run("podman", "image", "unmount", IMAGE, what="unmounting the image")
    addresses = [*_pip_indexes().values(), _debian_mirror()]
    hosts = {urlsplit(each).hostname for address in addresses for each in address.split()} - PUBLIC_HOSTS - {None}
    if any(host in told for host in hosts if host) or "cert = " in told:
        raise Failed("the image tells which package indexes or certificates the machine that built it uses")


def _debian_mirror() -> str:
    """Where this machine's own apt gets Debian from."""
    for file in [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*.sources"))]:
        text = file.read_text() if file.exists() else ""
        found = re.search(r"^URIs:\s*(\S+)|^deb\s+(?:\[.*?\]\s+)?(\S+)\s+\S+\s+main", text, re.MULTILINE)
        if found:
            return found[1] or found[2]
    return "http://deb.debian.org/debian"


def _pip_indexes() -> dict[str, str]:
    """Which indexes this machine's pip uses, from its files and the environment alike; folders of its own are left out."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False
    )
    found = {}
    for name, value in re.findall(r"\.(index-url|extra-index-url|trusted-host)=(.+)$", listed.stdout, re.MULTILINE):
        kept = [each for each in ast.literal_eval(value).split() if not each.startswith("file:")]
        if kept:
            found[name] = "\n    ".join(kept)
    return found
