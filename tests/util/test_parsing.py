"""Settings: YAML below, command line above, nothing unknown."""

from dataclasses import dataclass, field

import pytest
from transformers import TrainingArguments

from seekrec.errors import ConfigurationError
from seekrec.recipes.arguments import DataArguments
from seekrec.util.parsing import parse_arguments, parse_weights


@dataclass
class Sizes:
    d_model: int = 128
    d_ff: int = 512
    dropout_rate: float = 0.1
    backbone: str | None = None
    is_shared: bool = False
    task_weights: list[str] = field(default_factory=list)


def write(tmp_path, text):
    path = tmp_path / "settings.yaml"
    path.write_text(text)
    return str(path)


def test_the_command_line_overrides_the_file(tmp_path):
    path = write(tmp_path, "d_model: 64\nbackbone: null\nd_ff: 128\n")
    (model,) = parse_arguments([Sizes], ["--config", path, "--d_model", "32"])
    assert (model.d_model, model.d_ff, model.backbone) == (32, 128, None)
    (model,) = parse_arguments([Sizes], [f"--config={path}"])
    assert model.d_model == 64


def test_each_value_is_read_as_it_is_written(tmp_path):
    # A commit of digits is no octal number, a version no fraction, and 010 is 10 for whoever writes it.
    for text, word in (("0123456", "0123456"), ("1.10", "1.10"), ("1:30", "1:30"), ("2024-01-01", "2024-01-01")):
        (sizes,) = parse_arguments([Sizes], ["--config", write(tmp_path, f"backbone: {text}\n")])
        assert sizes.backbone == word
    text = "d_model: 010\nd_ff: 1_000\ndropout_rate: 1e-2\ntask_weights: [01, 1.10]\n"
    (sizes,) = parse_arguments([Sizes], ["--config", write(tmp_path, text)])
    assert (sizes.d_model, sizes.d_ff, sizes.dropout_rate) == (10, 1000, 0.01)
    assert sizes.task_weights == ["01", "1.10"]


def test_lists_booleans_and_numbers_keep_their_types(tmp_path):
    path = write(tmp_path, "is_shared: true\ntask_weights: [nrip=1, nsip=0.5]\nlearning_rate: 3.0e-3\n")
    corpus, training = parse_arguments(
        [Sizes, TrainingArguments], ["--config", path, "--use_cpu", "true", "--output_dir", str(tmp_path)]
    )
    assert corpus.is_shared is True
    assert corpus.task_weights == ["nrip=1", "nsip=0.5"]
    assert training.learning_rate == 0.003


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("d_modell: 3\n", r"settings.yaml, line 1: the key 'd_modell' is unknown; did you mean 'd_model'\?"),
        ("zzz: 3\n", "the key 'zzz' is unknown; see --help"),
        ("# sizes\nd_model: wide\n", "settings.yaml, line 2: argument --d_model/--d-model: invalid int value: 'wide'"),
        ("d_model: {a: 1}\n", "settings.yaml, line 1 contains a mapping; the file is flat"),
        ("- d_model\n", "line 1 contains a list; write one `key: value` a line"),
        ("d_model\n", "line 1 contains one value; write one `key: value` a line"),
        ("", "is empty; write one `key: value` per line"),
        ("d_model: 1\n---\nd_ff: 2\n", "line 2: a second document begins"),
        ("d_model: 1\nd_ff: 2\nd_model: 3\n", "line 3: the key 'd_model' is already in line 1; keep one"),
        ("d_model: &a [1]\nd_ff: *a\n", r"line 2: `\*a` refers to another value; write the value itself"),
        ("d_model: [1, 2]\n", "line 1: 'd_model' is a list of 2; it takes one value"),
        ("d_ff: 1\nd_model:\n", "line 2: 'd_model' has no value; its default is 128"),
        ("backbone: no\n", "line 1: 'backbone' is false, and it takes a word; write it in quotes"),
        (
            "task_weights: [nrip=1, null]\n",
            "line 1: 'task_weights' holds null, and it takes words; write it in quotes",
        ),
        ("d_model: 1:30\n", "invalid int value: '1:30'"),
        ("dropout_rate: .nan\n", "`dropout_rate` is nan; give a number that is finite"),
        ("d_ff: 1\nd_model: !!python/object:os.system 1\n", "line 2: the value of 'd_model' cannot be read"),
        ("? [1]\n: 2\n", "line 1: a list in the place of a key"),
        ("d_model: [[1]]\n", "line 1: nested lists"),
        ("d_model: " + "[" * 5000 + "\n", "line 1: nested lists"),
        ("d_ff: 1\nd_model: [\n", "line 3 is not YAML: expected the node content"),
    ],
)
def test_a_bad_file_is_named_with_its_key(tmp_path, text, message):
    with pytest.raises(ConfigurationError, match=message):
        parse_arguments([Sizes], ["--config", write(tmp_path, text)])


def test_a_bad_command_line_is_named(tmp_path):
    with pytest.raises(ConfigurationError, match="`--config` is '/nowhere.yaml', which is not a file"):
        parse_arguments([Sizes], ["--config", "/nowhere.yaml"])
    with pytest.raises(ConfigurationError, match="`--config` names no file"):
        parse_arguments([Sizes], ["--config"])
    with pytest.raises(ConfigurationError, match="--dmodel"):
        parse_arguments([Sizes], ["--dmodel", "3"])
    with pytest.raises(ConfigurationError, match="invalid choice"):
        parse_arguments([DataArguments], ["--protocol", "lenient"])


def test_weights():
    assert parse_weights(["nrip=1", "nsip=0.25"], "task_weights") == {"nrip": 1.0, "nsip": 0.25}
    for pairs, message in [
        (["nrip"], "`task_weights` has 'nrip'; write name=number"),
        (["nrip=-1"], "a weight is a number from 0 up"),
        (["nrip=nan"], "a weight is a number from 0 up"),
        (["nrip=0"], "at least one weight must be above 0"),
    ]:
        with pytest.raises(ConfigurationError, match=message):
            parse_weights(pairs, "task_weights")
