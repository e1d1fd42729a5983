# SPDX-License-Identifier: Apache-2.0
"""Push and load of all four families, an adapter and a data set, each in fresh processes, on the Hub of `hub_server`.

`PYTHONPATH=tests python tests/hub/round_trips.py` prints a line of JSON for each: files, bytes, seconds of the push
and of the load (the call alone, and the process with its imports), and whether what came back is what was pushed.
Model folders may follow: `... tests/hub/round_trips.py runs/intsr/model`. Who loads does not import seekrec.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]

FAMILIES = ("gensar", "gensr", "intsr", "synergen")


def push(kind, folder, repository):
    from transformers import AutoModel, AutoProcessor

    import seekrec
    from seekrec.hub import prepare_adapter, prepare_data_set
    from seekrec.util.repositories import upload

    started = time.perf_counter()
    if kind == "model":
        model = AutoModel.from_pretrained(folder).eval()
        processor = AutoProcessor.from_pretrained(folder)
        answers = ask(model, processor, seekrec.Request())
        started = time.perf_counter()
        model.push_to_hub(repository, processor=processor)
        return {"seconds": time.perf_counter() - started, "answers": answers}
    with tempfile.TemporaryDirectory() as place:
        target = Path(place) / "new"
        if kind == "adapter":
            prepare_adapter(folder, target, repository, base_model="me/gensar")
        else:
            prepare_data_set(target, repository, log=seekrec.EventLog.load(folder))
        upload(target, repo_id=repository, repo_type="model" if kind == "adapter" else kind, commit_message="new")
    return {"seconds": time.perf_counter() - started, "answers": None}


def load(kind, _, repository):
    from transformers import AutoModel, AutoProcessor

    assert "seekrec" not in sys.modules
    started = time.perf_counter()
    if kind == "dataset":
        from datasets import load_dataset

        events, items = (load_dataset(repository, name, split="train") for name in ("events", "items"))
        return {"seconds": time.perf_counter() - started, "answers": [events.num_rows, items.num_rows]}
    base = "me/gensar" if kind == "adapter" else repository
    model = AutoModel.from_pretrained(base, trust_remote_code=True)
    processor = AutoProcessor.from_pretrained(base, trust_remote_code=True)
    if kind == "adapter":
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, repository).merge_and_unload()
    seconds = time.perf_counter() - started
    import seekrec

    return {"seconds": seconds, "answers": ask(model.eval(), processor, seekrec.Request())}


def ask(model, processor, request):
    return [[item.item_id, item.score] for item in model.retrieve(processor([request]), top_k=10)[0]]


def run(hub, home, *words):
    """Run this file in a process of its own; what it found, and how long the process took."""
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, __file__, *map(str, words)],
        env={**os.environ, **hub.environment(home), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(done.stderr[-4000:])
    return json.loads(done.stdout.splitlines()[-1]), time.perf_counter() - started


def make_adapter(folder):
    import small_shop

    from seekrec.recipes.t5 import add_lora

    wrapped = add_lora(small_shop.make_gensar(small_shop.make_aisles())[0], 4)
    for name, weight in wrapped.named_parameters():
        if "lora_B" in name:
            weight.data += 0.5
    wrapped.save_pretrained(folder, save_embedding_layers=False)
    return ask(wrapped.eval(), small_shop.make_gensar(small_shop.make_aisles())[1], small_shop.Request())


def round_trips(folders=()):
    """Yield what each round trip found."""
    import small_shop
    from hub_server import HubServer
    from kite_shop import write_family_folder

    with tempfile.TemporaryDirectory() as place, HubServer() as hub:
        here = Path(place)
        todo = []
        for family in FAMILIES:
            write_family_folder(family, here / family)
            todo.append(("model", here / family, f"me/{family}", None))
        expected = make_adapter(here / "adapter")
        todo.append(("adapter", here / "adapter", "me/adapter", expected))
        log = small_shop.make_log()
        log.save(here / "log")
        todo.append(("dataset", here / "log", "me/log", [log.num_events, log.num_items]))
        todo += [("model", Path(folder), f"me/given-{number}", None) for number, folder in enumerate(folders)]
        for number, (kind, folder, repository, answers) in enumerate(todo):
            pushed, push_process = run(hub, here / f"pusher{number}", "push", kind, folder, repository)
            loaded, load_process = run(hub, here / f"loader{number}", "load", kind, folder, repository)
            files = hub.repository(repository, "dataset" if kind == "dataset" else "model").files()
            yield {
                "what": f"{kind} {repository}",
                "files": len(files),
                "bytes": sum(map(len, files.values())),
                "push_s": round(pushed["seconds"], 2),
                "push_process_s": round(push_process, 1),
                "load_s": round(loaded["seconds"], 2),
                "load_process_s": round(load_process, 1),
                "is_equal": is_equal(loaded["answers"], answers or pushed["answers"]),
            }
        assert hub.unknown == []


def is_equal(found, expected):
    """Whether items come in the same order with the same scores, up to the rounding of a sum."""
    if not found or not isinstance(found[0], list):
        return found == expected
    pairs = zip(found, expected, strict=True)
    return all(one == other and abs(score - its) < 1e-4 for (one, score), (other, its) in pairs)


if __name__ == "__main__":
    if sys.argv[1:2] in (["push"], ["load"]):
        what, kind, folder, repository = sys.argv[1:]
        result = {"push": push, "load": load}[what](kind, Path(folder), repository)
        sys.stdout.write("\n" + json.dumps(result) + "\n")
    else:
        for line in round_trips(sys.argv[1:]):
            sys.stdout.write(json.dumps(line) + "\n")
            sys.stdout.flush()
