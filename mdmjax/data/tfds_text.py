"""The part of `mdmjax.data.corpora.tfds` that talks to TensorFlow Datasets, without TensorFlow."""

import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

_BLOCK = 1000  # documents read at a time


def open_builder(name: str, data_dir: str | os.PathLike | None, download: bool) -> Any:
    """The builder of a prepared data set. One-line errors for an unknown name and a data set that is not prepared."""
    import tensorflow_datasets

    options = {} if data_dir is None else {"data_dir": os.fspath(data_dir)}
    try:
        builder = tensorflow_datasets.builder(name, **options)
        if not builder.info.splits:  # not prepared yet: it will be an array_record
            builder = tensorflow_datasets.builder(name, file_format="array_record", **options)
    except tensorflow_datasets.core.DatasetNotFoundError:
        where = f" and none is prepared in {os.fspath(data_dir)!r}" if data_dir is not None else ""
        raise ValueError(
            f"TFDS has no data set {name!r}{where}: tensorflow_datasets.list_builders() lists the names"
        ) from None
    except (AssertionError, ValueError) as error:  # of a version or a configuration that it does not have
        raise ValueError(f"TFDS has no data set {name!r}: {_one_line(error)}") from None
    arguments = ", ".join([repr(name), *(f"{key}={value!r}" for key, value in options.items())])
    command = (
        f'python -c "import tensorflow_datasets as tfds; '
        f"tfds.builder({arguments}, file_format='array_record').download_and_prepare()\""
    )
    if not builder.info.splits:
        if not download:
            raise FileNotFoundError(
                f"the TFDS data set {name!r} is not prepared in {builder.data_dir!s}: pass download=True, or run "
                f"  {command}"
            )
        try:
            builder.download_and_prepare()
        except ModuleNotFoundError as error:
            missing = "tensorflow" if "tensorflow" in str(error) else error.name
            raise ModuleNotFoundError(
                f"preparing the TFDS data set {name!r} needs the package {missing!r}, reading it does not: prepare it "
                f"once where that is installed, and pass its data_dir:  {command}"
            ) from None
        except Exception as error:  # downloads fail in many ways
            raise OSError(f"TFDS could not prepare {name!r}: {_one_line(error)}") from error
    if builder.info.file_format.value != "array_record":
        raise ValueError(
            f"the TFDS data set {name!r} is prepared as {builder.info.file_format.value}, which only TensorFlow reads: "
            f"prepare it as array_record in another data_dir:  {command}"
        )
    return builder


def choose_splits(builder: Any, splits: Mapping[str, str] | None, feature: str) -> dict[str, str]:
    """Our split names -> TFDS splits, after a check that these and the text feature exist."""
    features = list(builder.info.features)
    if feature not in features:
        raise ValueError(f"the data set {builder.info.full_name!r} has no feature {feature!r}: it has {features}")
    chosen = {split: split for split in builder.info.splits} if splits is None else dict(splits)
    for split in chosen.values():
        try:
            builder.info.splits[split]
        except (KeyError, ValueError):
            raise ValueError(
                f"the data set {builder.info.full_name!r} has no split {split!r}: it has {list(builder.info.splits)}, "
                "and parts of them such as 'train[:90%]'"
            ) from None
    return chosen


def documents(builder: Any, split: str, feature: str, separator: str) -> Iterator[str]:
    """The documents of a split, each followed by the separator, joined by blocks."""
    source = builder.as_data_source(split=split)
    for start in range(0, len(source), _BLOCK):
        rows = source.__getitems__(list(range(start, min(start + _BLOCK, len(source)))))
        texts = (row[feature] for row in rows)
        yield "".join((t.decode("utf-8") if isinstance(t, bytes) else str(t)) + separator for t in texts)


def files(builder: Any) -> list[pathlib.Path]:
    """The data files of all splits, in order."""
    return [pathlib.Path(path) for split in builder.info.splits.values() for path in split.filepaths]


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
