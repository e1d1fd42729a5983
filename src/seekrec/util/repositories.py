# SPDX-License-Identifier: Apache-2.0
"""Upload a folder as one commit to a Hub repository."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

from huggingface_hub import CommitInfo, HfApi


class CommitArguments(TypedDict, total=False):
    """What `push_to_hub` takes for a commit, as transformers names it; see [`upload`]."""

    commit_message: str | None
    commit_description: str | None
    private: bool | None
    token: bool | str | None
    revision: str | None
    create_pr: bool


def upload(
    folder: Path,
    *,
    repo_id: str,
    commit_message: str | None,
    repo_type: str = "model",
    commit_description: str | None = None,
    private: bool | None = None,
    token: bool | str | None = None,
    revision: str | None = None,
    create_pr: bool = False,
    replaces: Sequence[str] = (),
) -> CommitInfo:
    """Upload a folder as one commit; the repository and the branch are made if they do not exist.

    Args:
        folder (`Path`): What to upload, with its subfolders.
        repo_id (`str`): `user/name`.
        commit_message (`str`, *optional*): First line of the commit.
        repo_type (`str`): `"model"` or `"dataset"`.
        commit_description (`str`, *optional*): The rest of the commit's message.
        private (`bool`, *optional*): Whether a new repository is private.
        token (`bool` or `str`, *optional*): For the Hub; the one logged in with otherwise.
        revision (`str`, *optional*): Branch; the main branch if not given.
        create_pr (`bool`): Whether the commit is proposed as a pull request.
        replaces (`Sequence[str]`): Patterns of files that go where the folder does not contain them.
    """
    api = HfApi(token=token)
    name = api.create_repo(repo_id, repo_type=repo_type, private=private, exist_ok=True).repo_id
    if revision is not None and not create_pr and not revision.startswith("refs/pr"):
        api.create_branch(name, branch=revision, repo_type=repo_type, exist_ok=True)
    return api.upload_folder(
        repo_id=name,
        repo_type=repo_type,
        folder_path=folder,
        commit_message=commit_message,
        commit_description=commit_description,
        revision=revision,
        create_pr=create_pr,
        delete_patterns=list(replaces) or None,
    )


__all__ = ["CommitArguments", "upload"]
