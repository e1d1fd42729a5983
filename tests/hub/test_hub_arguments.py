# SPDX-License-Identifier: Apache-2.0
"""What `from_pretrained` is told of where files come from reaches the catalogue as it reaches the weights."""

import json
import os
import subprocess
import sys
from pathlib import Path

from hub_server import LFS_SUFFIXES, HubServer, Repository, StoredFile
from kite_shop import write_model_folder

SESSION = Path(__file__).with_name("hub_arguments_session.py")


def test_each_argument_reaches_the_catalogue(tmp_path):
    model, _ = write_model_folder(tmp_path / "model")
    files = {
        path.relative_to(tmp_path / "model").as_posix(): StoredFile(path.read_bytes(), path.suffix in LFS_SUFFIXES)
        for path in (tmp_path / "model").rglob("*")
        if path.is_file()
    }
    cache = str(tmp_path / "cache")
    with HubServer() as hub:
        secret = Repository("model", "me/secret", token="s3cr3t")
        old = Repository("model", "me/old")
        nested = Repository("model", "me/nested")
        for repository in (secret, old, nested):
            hub.repositories["model", repository.name] = repository
        secret.commit("main", files, "a model")
        old.tags["v1"] = old.commit("main", files, "a model")
        old.commit("main", {}, "nothing is left")
        nested.commit("main", {f"models/best/{path}": file for path, file in files.items()}, "a model in a folder")
        asked = [
            ("me/secret", {"token": "another"}),
            ("me/secret", {"token": "s3cr3t", "cache_dir": cache}),
            # Without the token nothing comes from the server: all is read from the cache.
            ("me/secret", {"local_files_only": True, "cache_dir": cache}),
            ("me/old", {"revision": "v1"}),
            ("me/nested", {"subfolder": "models/best"}),
        ]
        finished = subprocess.run(
            [sys.executable, str(SESSION), json.dumps(asked), str(tmp_path / "report.json")],
            env={**os.environ, **hub.environment(tmp_path / "home"), "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert finished.returncode == 0, finished.stderr[-4000:]
    refused, *loaded = json.loads((tmp_path / "report.json").read_text())
    assert refused == "OSError"
    assert loaded == [[model.catalog.content_hash] * 2] * 4
    assert not list((tmp_path / "home").rglob("models--me--secret/**/items.parquet"))
