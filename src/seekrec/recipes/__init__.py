# SPDX-License-Identifier: Apache-2.0
"""Recipes: from a raw log to a saved model and a table of results.

```
recipe.py         what all recipes do, stage after stage
launch.py         how a recipe starts
arguments.py      settings that all share
stages.py         stages are done once
logs.py           the log and its split
items.py          vectors and identifiers of the items
collaborative.py  SASRec and LightGCN
compare.py        what is measured
record.py         what a run leaves
t5.py             what GenSAR and GenSR share
windows.py        what IntSR and SynerGen share
gensar.py, gensr.py, intsr.py, synergen.py
```
"""

from seekrec.recipes.gensar import GenSARRecipe
from seekrec.recipes.gensr import GenSRRecipe
from seekrec.recipes.intsr import IntSRRecipe
from seekrec.recipes.launch import run_recipe
from seekrec.recipes.recipe import Recipe
from seekrec.recipes.synergen import SynerGenRecipe

__all__ = ["GenSARRecipe", "GenSRRecipe", "IntSRRecipe", "Recipe", "SynerGenRecipe", "run_recipe"]
