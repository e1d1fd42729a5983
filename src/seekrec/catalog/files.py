# SPDX-License-Identifier: Apache-2.0
"""Read and write the folder of a catalogue: it is replaced as a unit, and its hashes are checked when it is read.

`catalog.json` contains the settings, the SHA-256 of each part's content and one over all of them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypedDict, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file
from safetensors.torch import load_file as load_tensors
from safetensors.torch import save_file as save_tensors

from seekrec.catalog.checks import VIEWS
from seekrec.catalog.parts import CatalogParts, model_digest
from seekrec.errors import CatalogError, NotFiniteError
from seekrec.identifiers.configuration_dual_rqvae import DualRQVAEConfig, IdentifierConfig, ResidualKMeansConfig
from seekrec.identifiers.modeling_dual_rqvae import DualRQVAEModel
from seekrec.identifiers.modeling_identifier import IdentifierModel
from seekrec.identifiers.residual_kmeans import ResidualKMeans
from seekrec.schema import View
from seekrec.util.files import recover_folder, replace_folder
from seekrec.util.finite import check_weights
from seekrec.util.hashing import array_digest, json_digest, table_digest
from seekrec.util.memory_maps import row_blocks
from seekrec.util.tensor_files import reserve_tensors, write_rows

PartT = TypeVar("PartT")

CATALOG_FILE = "catalog.json"
CONFIG_FILE = "identifier_config.json"
# The folder of a model that contains its catalogue.
CATALOG_FOLDER = "catalog"
PART_FILES = {
    "items": "items.parquet",
    "codes": "codes.safetensors",
    "embeddings": "embeddings.safetensors",
    "identifier_model": "identifier_model.safetensors",
}
FORMAT_VERSION = 1
# Real tables of items unpack to some 2 to 50 times their bytes.
_MAX_BLOAT = 1000
_MIN_LIMIT = 1 << 28  # bytes that any table may take
_LEARNERS: dict[str, tuple[type[IdentifierConfig], Callable[..., IdentifierModel]]] = {
    DualRQVAEConfig.model_type: (DualRQVAEConfig, DualRQVAEModel),
    ResidualKMeansConfig.model_type: (ResidualKMeansConfig, ResidualKMeans),
}


def write_catalog(folder: Path, catalog: CatalogParts) -> None:
    """Write the files of [`Catalog.save`]."""
    description = {
        "version": FORMAT_VERSION,
        "settings": catalog.settings(),
        "parts": catalog.part_hashes(),
        "content_hash": catalog.content_hash,
        "identifier_hash": catalog.identifier_hash,
    }
    own = {CATALOG_FILE, CONFIG_FILE, *PART_FILES.values()}
    with replace_folder(folder, keep=lambda name: name not in own) as new:
        # Not "compliant": that renames the fields of lists, and a table must come back with the types it had.
        items = new / PART_FILES["items"]
        pq.write_table(catalog.items, items, compression="zstd", use_compliant_nested_type=False)
        save_file(catalog.code_arrays(), new / PART_FILES["codes"])
        if catalog.embeddings:
            _write_embeddings(new / PART_FILES["embeddings"], catalog.embeddings)
        if catalog.identifier_model is not None:
            tensors = {
                name: tensor.detach().cpu().clone() for name, tensor in catalog.identifier_model.state_dict().items()
            }
            save_tensors(tensors, new / PART_FILES["identifier_model"])
            config = catalog.identifier_model.config.to_json_string(use_diff=False)
            (new / CONFIG_FILE).write_text(config, "utf-8")
        content = json.dumps(description, indent=2, ensure_ascii=False) + "\n"
        (new / CATALOG_FILE).write_text(content, "utf-8")


class BuildArguments(TypedDict):
    """The arguments of [`Catalog.build`]."""

    items: pa.Table
    codes: Mapping[View, np.ndarray] | None
    num_shared_levels: int
    codebook_size: int
    embeddings: Mapping[View, np.ndarray | None] | None
    identifier_model: IdentifierModel | None
    semantic_encoder_name: str | None
    is_removed: np.ndarray
    is_predicted: np.ndarray


@dataclass(frozen=True)
class SavedCatalog:
    """The content of a catalogue's files, each part checked against its hash.

    Args:
        path (`Path`): The file `catalog.json`.
        fields (`BuildArguments`): The arguments of [`Catalog.build`].
        parts (`dict[str, str]`): SHA-256 of each part.
        content_hash (`str`): SHA-256 of the whole, as the file says.
    """

    path: Path
    fields: BuildArguments
    parts: dict[str, str]
    content_hash: str

    def check_settings(self, settings: Mapping[str, object]) -> None:
        """Refuse a catalogue whose settings are not those that were saved with its parts.

        Args:
            settings (`Mapping[str, object]`): [`CatalogParts.settings`] of the catalogue that was built.

        Raises:
            CatalogError: If they do not give the hash of the whole.
        """
        named = {**settings, "semantic_encoder_name": self.fields["semantic_encoder_name"]}
        found = json_digest([named, self.parts])
        if found != self.content_hash:
            raise CatalogError(
                f"{self.path} does not match its own hash {self.content_hash[:12]} (found {found[:12]}): it was "
                "edited. Save the catalogue again or fetch it again."
            )


def read_catalog(folder_or_repo: str | Path, revision: str | None) -> SavedCatalog:
    """Read the files of a catalogue and check each part against its hash.

    Raises:
        CatalogError: As [`Catalog.load`] says.
    """
    folder = _find_folder(folder_or_repo, revision)
    description = _read(folder / CATALOG_FILE, lambda path: json.loads(path.read_text(encoding="utf-8")))
    if not isinstance(description, dict) or description.get("version") != FORMAT_VERSION:
        version = description.get("version") if isinstance(description, dict) else None
        raise CatalogError(
            f"{folder / CATALOG_FILE} has version {version!r}, this package reads {FORMAT_VERSION}; save the "
            "catalogue again."
        )
    _check_description(folder / CATALOG_FILE, description)
    _check_sizes(folder)
    hashes: dict[str, str] = description["parts"]
    items = _read_part(folder, hashes, "items", _read_items, table_digest)
    codes = _read_part(folder, hashes, "codes", load_file, array_digest)
    embeddings, model = None, None
    if "embeddings" in hashes:
        digest = partial(array_digest, dtype=np.float32)
        embeddings = _read_part(folder, hashes, "embeddings", _read_embeddings, digest)
    if "identifier_model" in hashes:
        model = _read_part(folder, hashes, "identifier_model", _read_model, model_digest)
    settings = description["settings"]
    expected = {f"{view}_codes" for view in settings["views"]} | {"is_removed", "is_predicted"}
    if codes.keys() != expected:
        raise CatalogError(
            f"{folder / PART_FILES['codes']} contains {', '.join(sorted(codes))}, not {', '.join(sorted(expected))}; "
            "save the catalogue again or fetch it again."
        )

    fields: BuildArguments = {
        "items": items,
        "codes": {view: codes[f"{view}_codes"] for view in settings["views"]} or None,
        "num_shared_levels": settings["num_shared_levels"],
        "codebook_size": settings["codebook_size"],
        "embeddings": embeddings,
        "identifier_model": model,
        "semantic_encoder_name": settings["semantic_encoder_name"],
        "is_removed": codes["is_removed"],
        "is_predicted": codes["is_predicted"],
    }
    return SavedCatalog(folder / CATALOG_FILE, fields, hashes, description["content_hash"])


def _read_part(
    folder: Path, hashes: Mapping[str, str], name: str, reader: Callable[[Path], PartT], digest: Callable[[PartT], str]
) -> PartT:
    """Read one part and check it against its hash."""
    path = folder / PART_FILES[name]
    part = _read(path, reader)
    found, expected = digest(part), hashes[name]
    if found != expected:
        raise CatalogError(
            f"{path} has content hash {found[:12]}, but {CATALOG_FILE} says {expected[:12]}: the file was changed or "
            "belongs to another catalogue. Save the catalogue again or fetch it again."
        )
    return part


def _check_description(path: Path, description: Mapping[str, Any]) -> None:
    """Check the types of the values read from `catalog.json`."""

    def check(name: str, value: object, is_right: bool) -> None:
        if not is_right:
            raise CatalogError(f"{path} has {name} {value!r}; save the catalogue again or fetch it again.")

    for name, kind in (("content_hash", str), ("parts", dict), ("settings", dict)):
        if name not in description:
            raise CatalogError(f"{path} has no {name!r}; save the catalogue again.")
        check(name, description[name], isinstance(description[name], kind))
    parts, settings = description["parts"], description["settings"]
    check("parts", parts, {"items", "codes"} <= parts.keys() <= PART_FILES.keys())
    for part, digest in parts.items():
        check(f"parts[{part!r}]", digest, isinstance(digest, str))
    for name in ("num_shared_levels", "codebook_size"):
        value = settings.get(name)
        check(f"settings[{name!r}]", value, isinstance(value, int) and not isinstance(value, bool) and value >= 0)
    views, encoder = settings.get("views"), settings.get("semantic_encoder_name", 0)
    check("settings['views']", views, isinstance(views, list) and all(view in VIEWS for view in views))
    check("settings['semantic_encoder_name']", encoder, encoder is None or isinstance(encoder, str))


def _check_sizes(folder: Path) -> None:
    """Refuse files that claim to hold far more than their size, before memory is allocated."""
    path = folder / PART_FILES["items"]
    metadata = _read(path, pq.read_metadata)
    # The codes are not compressed: a table of as many rows has as many bytes next to it.
    num_rows = _read(folder / PART_FILES["codes"], _num_rows)
    if metadata.num_rows != num_rows:
        raise CatalogError(
            f"{path} has {metadata.num_rows} rows, {PART_FILES['codes']} has {num_rows}: they belong to different "
            "catalogues. Save the catalogue again or fetch it again."
        )
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    num_bytes = sum(group.total_byte_size for group in groups)
    if num_bytes > max(_MAX_BLOAT * path.stat().st_size, _MIN_LIMIT):
        raise CatalogError(
            f"{path} has {path.stat().st_size} bytes and says it unpacks to {num_bytes}; it is damaged, or made to "
            "fill the memory. Fetch it again."
        )


def _num_rows(path: Path) -> int:
    with safe_open(path, "np") as arrays:
        return int(arrays.get_slice("is_removed").get_shape()[0])


def _read_items(path: Path) -> pa.Table:
    """Read the table in pieces: values that repeat take few bytes in the file, however long they are."""
    most = max(_MAX_BLOAT * path.stat().st_size, _MIN_LIMIT)
    with pq.ParquetFile(path) as file:
        batches, num_bytes = [], 0
        for batch in file.iter_batches(batch_size=256):
            num_bytes += batch.nbytes
            if num_bytes > most:
                raise CatalogError(
                    f"{path} has {path.stat().st_size} bytes and unpacks to more than {most}; it is damaged, or made "
                    "to fill the memory. Fetch it again."
                )
            batches.append(batch)
        return pa.Table.from_batches(batches, schema=file.schema_arrow)


def _read(path: Path, reader: Callable[[Path], PartT]) -> PartT:
    if not path.is_file():
        raise CatalogError(
            f"{path} does not exist: the folder is not a catalogue, or saving it was interrupted. Save it again or "
            "fetch it again."
        )
    try:
        return reader(path)
    except (OSError, ValueError, KeyError, RuntimeError, pa.ArrowException, SafetensorError) as error:
        if isinstance(error, CatalogError):
            raise
        raise CatalogError(
            f"{path} cannot be read ({type(error).__name__}: {error}): it is truncated or damaged. Save the catalogue "
            "again or fetch it again."
        ) from error


def _write_embeddings(path: Path, embeddings: Mapping[View, np.ndarray]) -> None:
    """Write vectors as they are stored, in half precision, a block at a time."""
    shapes = {str(view): torch.Size(array.shape) for view, array in embeddings.items()}
    reserve_tensors(path, {name: torch.empty(0, dtype=torch.float16) for name in shapes}, shapes)
    for view, array in embeddings.items():
        for start, block in row_blocks(array):
            write_rows(path, view, torch.tensor(block).half(), first=start)


def _read_embeddings(path: Path) -> dict[View, np.ndarray]:
    """Read vectors as they are stored; [`Catalog.build`] makes them what they are in memory."""
    tensors = load_tensors(path)
    return {view: tensors[view].numpy() for view in VIEWS if view in tensors}


def _read_model(path: Path) -> IdentifierModel:
    config_path = path.with_name(CONFIG_FILE)
    settings = _read(config_path, lambda file: json.loads(file.read_text(encoding="utf-8")))
    kind = settings.get("model_type")
    if kind not in _LEARNERS:
        raise CatalogError(f"{config_path} has model_type {kind!r}; this package reads {', '.join(_LEARNERS)}.")
    config_class, model_class = _LEARNERS[kind]
    with safe_open(path, "np") as tensors:
        count = len(tensors.keys())
    for name, value in settings.items():
        if name.endswith(("levels", "layers")) and isinstance(value, int) and value > count:
            raise CatalogError(
                f"{config_path} has {name} {value}, but {path.name} contains {count} tensors: it is damaged or "
                "another catalogue's. Save the catalogue again or fetch it again."
            )
    with torch.device("meta"):
        model = model_class(config_class.from_dict(settings))
    model.load_state_dict(load_tensors(path), strict=True, assign=True)
    try:
        check_weights(model, str(path))
    except NotFiniteError as error:
        raise CatalogError(str(error)) from error
    return model.eval()


def _find_folder(folder_or_repo: str | Path, revision: str | None) -> Path:
    folder = Path(folder_or_repo)
    if not folder.exists():
        recover_folder(folder)
    if not folder.exists() and isinstance(folder_or_repo, str) and folder_or_repo.count("/") == 1:
        folder = _fetch(folder_or_repo, revision)
    inside = folder / CATALOG_FOLDER
    return inside if not (folder / CATALOG_FILE).is_file() and (inside / CATALOG_FILE).is_file() else folder


def _fetch(repo_id: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    names = [CATALOG_FILE, CONFIG_FILE, *PART_FILES.values()]
    patterns = names + [f"{CATALOG_FOLDER}/{name}" for name in names]
    try:
        return Path(snapshot_download(repo_id, revision=revision, allow_patterns=patterns))
    # No connection is an OSError; a name that cannot be one of the Hub a ValueError.
    except (OSError, HfHubHTTPError, HFValidationError) as error:
        raise CatalogError(
            f"There is no folder {repo_id}, and no repository {repo_id} could be read from the Hub "
            f"({type(error).__name__}); check the path, or the name and the connection."
        ) from error
