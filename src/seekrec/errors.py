# SPDX-License-Identifier: Apache-2.0
"""The exceptions of seekrec.

Every message names the file, row or argument, shows the value and says what to do.

```
SeekrecError
├── DataError(ValueError)                a file, table or row that cannot be used
│   ├── LeakageError                     a split that reveals the answer
│   └── CheckpointError                  a saved folder that is damaged, or made of parts of several
├── RequestError(ValueError)             a request to a model that cannot be answered
│   └── UnknownItemError                 an item id that the catalogue does not hold
├── CatalogError(ValueError)             a catalogue that contradicts itself or its checkpoint
│   └── IdentifierCollisionError         items that cannot all get a unique identifier
├── ConfigurationError(ValueError)       a recipe or model setting
├── DivergenceError(ArithmeticError)     a training or an evaluation with a number that is not finite
├── FolderInUseError(RuntimeError)       a folder that another process is working in
├── NotFiniteError(ValueError)           a weight, vector or score that is NaN or infinite
├── SearchLimitError(RuntimeError)       an exact search that would take more work than it may
└── MissingDependencyError(ImportError)  an optional package; the message names the extra
```
"""


class SeekrecError(Exception):
    """Base of every exception that seekrec raises on purpose."""


class DataError(SeekrecError, ValueError):
    """A file, table or row that cannot be used."""


class LeakageError(DataError):
    """A split in which an answer can be read from the question or from training."""


class CheckpointError(DataError):
    """A saved folder that is damaged, or made of parts of several."""


class RequestError(SeekrecError, ValueError):
    """A request that cannot be answered as asked."""


class UnknownItemError(RequestError):
    """An item id that the catalogue does not hold."""


class CatalogError(SeekrecError, ValueError):
    """A catalogue that contradicts itself or the checkpoint it is used with."""


class IdentifierCollisionError(CatalogError):
    """Items that cannot all get a unique identifier."""


class ConfigurationError(SeekrecError, ValueError):
    """A setting of a recipe or a model that is unknown, of the wrong type or inconsistent."""


class DivergenceError(SeekrecError, ArithmeticError):
    """A training or an evaluation with a number that is not finite."""


class FolderInUseError(SeekrecError, RuntimeError):
    """A folder that another process is working in."""


class NotFiniteError(SeekrecError, ValueError):
    """A weight, vector or score that is NaN or infinite."""


class SearchLimitError(SeekrecError, RuntimeError):
    """An exact search that ended before its answer was certain."""


class MissingDependencyError(SeekrecError, ImportError):
    """An optional package is not installed; the message names what to install."""
