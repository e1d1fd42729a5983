# SPDX-License-Identifier: Apache-2.0
"""What users do with the Hub, in processes of their own: `python push_session.py FOLDER`.

It runs in a subprocess of the tests, because huggingface_hub reads its address when it is imported, and forks: `push`
publishes what lies in the folder, reads what it is asked to and writes `push.json`; `load`, which has not imported
seekrec and finds an empty cache, reads it back and writes `load.json`.
"""

import contextlib
import io
import json
import multiprocessing
import os
import re
import runpy
import sys
from pathlib import Path

import datasets
from huggingface_hub import HfApi
from transformers import AutoConfig, AutoModel, AutoProcessor, pipeline

ROOT = Path(__file__).parents[2]
OTHERS = ("gensr", "intsr", "synergen")
OPTIONAL = {"duckdb", "faiss", "fastapi", "matplotlib", "prometheus_client", "psycopg", "ray", "sqlalchemy", "uvicorn"}


def run_recipe(*options):
    printed = io.StringIO()
    sys.argv = ["push_to_hub.py", *map(str, options)]
    with contextlib.redirect_stdout(printed):
        runpy.run_path(str(ROOT / "recipes" / "push_to_hub.py"), run_name="__main__")
    return printed.getvalue()


def run_code(card):
    """What the card's code blocks print, one after the other."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        namespace = {}
        for block in re.findall(r"```python\n(.*?)```", card, re.DOTALL):
            exec(block, namespace)
    return printed.getvalue()


def plain(answers):
    return [[(item.item_id, item.title, item.score) for item in answer] for answer in answers]


def push(folder):
    import seekrec
    from seekrec.events.readers import read_hub
    from seekrec.recipes.t5 import add_lora

    options = ["--model_dir", folder / "kites", "--repo_id", "me/kites"]
    report = {"dry_run": run_recipe(*options, "--dry_run", "true")}
    report["exists_after_dry_run"] = HfApi().repo_exists("me/kites")
    report["push"] = run_recipe(*options, "--private", "true", "--dataset_id", "me/kite-log")
    report["push_again"] = run_recipe(*options, "--private", "true", "--dataset_id", "me/kite-log")

    # By Python: the processor and the results lie in the folder, or the processor is given.
    model = AutoModel.from_pretrained(folder / "gensr").eval()
    model.push_to_hub("me/gensr", license="apache-2.0", private=True)
    for family in ("intsr", "synergen"):
        model = AutoModel.from_pretrained(folder / family).eval()
        model.name_or_path = ""
        processor = AutoProcessor.from_pretrained(folder / family)
        model.push_to_hub(f"me/{family}", processor=processor)
        # Weights changed: a branch of its own, whose card shows no results of other weights.
        model.name_or_path = str(folder / family)
        next(model.parameters()).data += 1
        model.push_to_hub(f"me/{family}", processor=processor, revision="changed")
    # One part after the other, as with any model of transformers.
    model.push_to_hub("me/parts")
    processor.push_to_hub("me/parts")

    # An adapter of the model on the Hub.
    base = AutoModel.from_pretrained("me/kites").eval()
    wrapped = add_lora(base, 4)
    for name, weight in wrapped.named_parameters():
        if "lora_B" in name:
            weight.data += 0.5
    wrapped.save_pretrained(folder / "adapter", save_embedding_layers=False)
    report["push_adapter"] = run_recipe("--model_dir", folder / "adapter", "--repo_id", "me/adapter")

    # Data.
    log, corpus = folder / "log", folder / "corpus"
    options = ["--events", log / "events.parquet", "--items", log / "items.parquet", "--corpus", corpus]
    report["push_data"] = run_recipe(*options, "--repo_id", "me/kite-log", "--license", "other")

    def card_of(name, kind="model"):
        return Path(HfApi().hf_hub_download(name, "README.md", repo_type=kind)).read_text("utf-8")

    report["code"] = {name: run_code(card_of(f"me/{name}")) for name in ("kites", *OTHERS, "adapter")}
    requests = [seekrec.Request(), seekrec.Request([seekrec.Event("i3")], query="garden")]
    report["answers"] = {}
    for name in ("kites", *OTHERS):
        model = AutoModel.from_pretrained(folder / name).eval()
        processor = AutoProcessor.from_pretrained(folder / name)
        report["answers"][name] = plain(model.retrieve(processor(requests), top_k=12))
        answer = pipeline("search-and-recommendation", model=f"me/{name}")
        assert [
            [(item["item_id"], item["title"], item["score"]) for item in found] for found in answer(requests, top_k=12)
        ] == report["answers"][name]
    report["catalog_hash"] = seekrec.Catalog.load("me/kites").content_hash
    configs = datasets.get_dataset_config_names("me/kite-log")
    read = read_hub("me/kite-log")
    report["data"] = {"configs": configs, "fingerprint": read.fingerprint}
    run_code(card_of("me/kite-log", "dataset"))
    report["corpora"] = push_and_load_corpora()
    report["asked"] = load_with_arguments(json.loads((folder / "asked.json").read_text()))
    report["beside_cache"] = list(
        map(str, Path(os.environ["HF_HOME"]).rglob("models--other--secret/**/items.parquet"))
    )
    (folder / "push.json").write_text(json.dumps(report))


def push_and_load_corpora():
    """Push the corpora of a small shop, load them back and compare."""
    sys.path.append(str(ROOT / "tests" / "corpora"))
    from music_shop import CODEBOOK_SIZE, CODES, LINES, make_log, make_tokenizer

    from seekrec.catalog import Catalog
    from seekrec.corpora import build_corpus, load_corpus, push_corpus
    from seekrec.errors import DataError
    from seekrec.events import split_log
    from seekrec.models import GenSARConfig

    log = make_log(LINES)
    catalog = Catalog.build(log.items, CODES, num_shared_levels=2, codebook_size=CODEBOOK_SIZE)
    tools = (split_log(log), catalog, *make_tokenizer())
    parts = {
        part: build_corpus(*tools, GenSARConfig(), tasks=("nrip", "nsip"), seed=seed)
        for seed, part in enumerate(("train", "validation"))
    }
    push_corpus(parts, "me/corpus")
    report = []
    for part, corpus in parts.items():
        loaded = load_corpus("me/corpus", part)
        for name, rows in corpus.items():
            same = loaded[name].features == rows.features and loaded[name].to_list() == rows.to_list()
            report.append(f"{part} {name} {len(rows)} {same}")
    try:
        load_corpus("me/corpus", "test")
    except DataError as error:
        report.append(str(error))
    return report


def load_with_arguments(asked):
    """Load models and processors; return the hashes of both catalogues, or the name of the error."""
    report = []
    for repository, arguments in asked:
        try:
            parts = [loader.from_pretrained(repository, **arguments) for loader in (AutoModel, AutoProcessor)]
            report.append([part.catalog.content_hash for part in parts])
        except OSError as error:
            report.append(type(error).__name__)
    return report


def load(folder):
    assert "seekrec" not in sys.modules
    report = {"refused": None}
    try:
        AutoModel.from_pretrained("me/intsr", trust_remote_code=False)
    except ValueError as error:
        report["refused"] = str(error)
    assert "seekrec" not in sys.modules
    processor = AutoProcessor.from_pretrained("me/intsr", trust_remote_code=True)  # before any model
    assert type(processor).__module__.startswith("seekrec.")
    import seekrec

    requests = [seekrec.Request(), seekrec.Request([seekrec.Event("i3")], query="garden")]
    report["answers"] = {}
    for name in ("kites", *OTHERS, "parts"):
        AutoConfig.from_pretrained(f"me/{name}", trust_remote_code=True)
        model = AutoModel.from_pretrained(f"me/{name}", trust_remote_code=True).eval()
        processor = AutoProcessor.from_pretrained(f"me/{name}", trust_remote_code=True)
        report["answers"][name] = plain(model.retrieve(processor(requests), top_k=12))
        # Saved anew, it is a folder like any other: no module, nothing that leads to the repository.
        model.save_pretrained(folder / "saved" / name)
        processor.save_pretrained(folder / "saved" / name)
        report.setdefault("saved", {})[name] = sorted(path.name for path in (folder / "saved" / name).glob("*.py"))
        assert "auto_map" not in (folder / "saved" / name / "config.json").read_text()
        assert "auto_map" not in (folder / "saved" / name / "processor_config.json").read_text()
        assert plain(AutoModel.from_pretrained(folder / "saved" / name).retrieve(processor(requests), top_k=12))
    answer = pipeline("search-and-recommendation", model="me/kites", trust_remote_code=True)
    report["pipeline"] = answer(requests[0], top_k=3)
    report["optional"] = sorted(OPTIONAL & set(sys.modules))
    (folder / "load.json").write_text(json.dumps(report))


def main(folder):
    for step in (push, load):
        process = multiprocessing.get_context("fork").Process(target=step, args=(folder,))
        process.start()
        process.join()
        if process.exitcode:
            sys.exit(process.exitcode)
        # What one of them has downloaded or made is not there for the other.
        os.rename(os.environ["HF_HOME"], folder / f"home-{step.__name__}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
