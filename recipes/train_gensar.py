# SPDX-License-Identifier: Apache-2.0
"""Train GenSAR: from a raw log to a saved model and a table of results.

```bash
accelerate launch recipes/train_gensar.py --events my/events.parquet --items my/items.csv --max_minutes 30
accelerate launch recipes/train_gensar.py --config recipes/gensar/movielens-100k.yaml
accelerate launch recipes/train_gensar.py --config recipes/gensar/scientific.yaml --data_dir amazon18-scientific
```

The stages, of which `--stop_after` names the last to run:

1. `data`: read the log, write searches where it has none, split it, audit the split.
2. `embeddings`: vectors of the items: of their texts, and of SASRec.
3. `identifiers`: learn two identifiers of each item from both vectors.
4. `corpus`: the tokenizer, with a token for each code, and the rows of all tasks.
5. `training`: the best checkpoint by validation NDCG@10, the mean of both tasks.
6. `evaluation`: rank the test cases of the split, with the model and with baselines.

Any setting of the YAML file can be given on the command line. A killed run resumes where it stopped; a finished stage
is not repeated unless something it depends on changed. `<output_dir>/model` is complete: weights, tokenizer,
catalogue, generation settings and `results.json`.
"""

from seekrec.recipes import GenSARRecipe, run_recipe

if __name__ == "__main__":
    run_recipe(__file__, GenSARRecipe)
