# SPDX-License-Identifier: Apache-2.0
"""Train IntSR, or plain HSTU: from a raw log to a saved model and a table of results.

```bash
accelerate launch recipes/train_intsr.py --events my/events.parquet --items my/items.csv --max_minutes 30
accelerate launch recipes/train_intsr.py --config recipes/intsr/beauty.yaml --data_dir amazon14-beauty
accelerate launch recipes/train_intsr.py --config recipes/intsr/scientific.yaml --data_dir amazon18-scientific
```

The stages, of which `--stop_after` names the last to run:

1. `data`: read the log, write searches where it has none, split it, audit the split.
2. `embeddings`: vectors of the items' texts; SASRec is a baseline.
3. `identifiers`: the catalogue; IntSR has no identifiers.
4. `corpus`: windows of events with their questions, and the vectors of all queries in them.
5. `training`: the best checkpoint by validation NDCG@10, the mean of the tasks.
6. `evaluation`: rank the test cases of the split, with the model and with baselines.

Any setting of the YAML file can be given on the command line. A killed run resumes where it stopped; a finished stage
is not repeated unless something it depends on changed. `<output_dir>/model` is complete: weights, processor, catalogue
with text vectors, vectors of the training queries, and `results.json`.
"""

from seekrec.recipes import IntSRRecipe, run_recipe

if __name__ == "__main__":
    run_recipe(__file__, IntSRRecipe)
