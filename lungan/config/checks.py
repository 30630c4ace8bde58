"""What a RunConfig must satisfy, and reading one back from plain nested values."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, get_args, get_origin, get_type_hints

from lungan.config import SCHEMAS, DiffAugmentConfig, FolderConfig, NpzConfig, RunConfig, num_stages
from lungan.errors import ConfigError


def check(config: RunConfig) -> None:
    """Check every field's rule and what fields demand of each other, before any data is read.

    Raises: ConfigError naming key, rule, value and the way out.
    """
    check_fields(config, "")
    _check_names(config)
    _check_stages(config)
    _check_device(config.device)
    if config.loss.update == "simultaneous" and config.loss.discriminator_updates != 1:
        raise ConfigError(
            "loss.discriminator_updates must be 1 with loss.update=simultaneous, got "
            f"{config.loss.discriminator_updates}; use loss.update=alternating"
        )
    _check_parts(config)
    if config.schedule.warmup_epochs > config.epochs:
        raise ConfigError(
            f"schedule.warmup_epochs must be at most epochs ({config.epochs}), "
            f"got {config.schedule.warmup_epochs}"
        )
    if isinstance(config.data, FolderConfig | NpzConfig):
        total = config.data.val_fraction + config.data.test_fraction
        if total >= 1:
            raise ConfigError(
                f"data.val_fraction + data.test_fraction must be less than 1, got {total:g}"
            )


def check_batch(config: RunConfig, num_images: int) -> None:
    """Check the one rule that needs the number of training images.

    Raises: ConfigError where a batch is larger than the data set.
    """
    if config.batch_size > num_images:
        raise ConfigError(
            f"batch_size must be at most the number of training images ({num_images}), "
            f"got {config.batch_size}"
        )


def check_classes(config: RunConfig, names: Sequence[str]) -> None:
    """Check that there are classes to choose from, given those of the training images.

    Raises: ConfigError where a conditional generator would have one class only.
    """
    if config.generator.conditional and len(names) < 2:
        raise ConfigError(
            "generator.conditional=true needs images of at least two classes to train on, got "
            f"{', '.join(names)}; choose more by data.classes=[...], where [] is all"
        )


def check_fields(config: Any, prefix: str) -> None:
    """Check the rule of every field of a dataclass, and of those below it.

    Raises: ConfigError with ``prefix`` before the field's name.
    """
    below = []
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        key = prefix + field.name
        if dataclasses.is_dataclass(value):
            below.append((value, f"{key}."))
        elif "holds" in field.metadata and not field.metadata["holds"](value):
            raise ConfigError(f"{key} must be {field.metadata['text']}, got {shown(value)}")
    # Afterwards, so that a wrong lr is named, not what takes its value from it.
    for value, inner in below:
        check_fields(value, inner)


def shown(value: Any) -> str:
    """A value as it would be typed in an override; ``nothing`` for none at all."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case str() if not value.strip():
            return "nothing"
        case list():
            return f"[{','.join(map(shown, value))}]"
        case _:
            return str(value)


def _check_names(config: RunConfig) -> None:
    for group, schemas in SCHEMAS.items():
        chosen = getattr(config, group)
        if schemas.get(chosen.name) is not type(chosen):
            raise ConfigError(
                f"{group}.name is set by {group}=<choice>, one of {', '.join(schemas)}; "
                f"got {group}.name={chosen.name}"
            )


def _check_stages(config: RunConfig) -> None:
    stages = num_stages(config.data.size)
    if stages is None or stages < 2:
        raise ConfigError(
            "data.size must be 7 or 8 times a power of two (28, 32, 56, 64, 112, 128, 224, 256) "
            f"for generator={config.generator.name}, got {config.data.size}"
        )


def _check_parts(config: RunConfig) -> None:
    """What loss, discriminator, augmentation and classes demand of each other."""
    loss, augment = config.loss, config.augment
    if loss.update == "simultaneous" and loss.micro_batches != 1:
        raise ConfigError(
            "loss.micro_batches must be 1 with loss.update=simultaneous, got "
            f"{loss.micro_batches}; use loss.update=alternating"
        )
    if loss.micro_batches > config.batch_size:
        raise ConfigError(
            f"loss.micro_batches must be at most batch_size ({config.batch_size}), "
            f"got {loss.micro_batches}"
        )
    bounded = loss.gradient_penalty or loss.r1 or config.discriminator.spectral_norm
    if loss.name == "wgan_gp" and not bounded:
        raise ConfigError(
            "loss=wgan_gp needs a bounded gradient, or its loss has no end: set "
            "loss.gradient_penalty above 0 (10 is usual) or discriminator.spectral_norm=true"
        )
    if isinstance(augment, DiffAugmentConfig) and not any(
        (augment.brightness, augment.contrast, augment.translation, augment.cutout)
    ):
        raise ConfigError(
            f"augment={augment.name} changes nothing with brightness, contrast, translation and "
            "cutout all 0; give one, or use augment=none"
        )
    if config.data.classes:
        check_classes(config, config.data.classes)


def _check_device(device: str) -> None:
    kind, _, index = device.partition(":")
    if kind not in ("auto", "cpu", "cuda") or (index and (kind != "cuda" or not index.isdigit())):
        raise ConfigError(f"device must be auto, cpu, cuda or cuda:<index>, got {device}")


def parse(values: Any) -> RunConfig:
    """The RunConfig that a saved config.yaml holds; the values are untrusted.

    Raises: ConfigError for a key that is missing or unknown, or a value of a wrong type.
    """
    config: RunConfig = _parse(RunConfig, values, "")
    return config


def parse_group(group: str, values: Any) -> Any:
    """The dataclass of one group, such as ``generator``, from its saved values.

    Raises: ConfigError as ``parse``.
    """
    choices = SCHEMAS[group]
    name = values.get("name") if isinstance(values, dict) else None
    if not isinstance(name, str) or name not in choices:
        raise ConfigError(f"{group}.name must be one of {', '.join(choices)}, got {shown(name)}")
    return _parse(choices[name], values, f"{group}.")


def _parse(schema: Any, values: Any, prefix: str) -> Any:
    if not isinstance(values, dict):
        raise ConfigError(f"{prefix.rstrip('.') or 'the config'} must be a mapping, got {values}")
    hints = get_type_hints(schema)
    required = {field.name for field in dataclasses.fields(schema) if not _has_default(field)}
    unknown, missing = sorted(set(values) - set(hints)), sorted(required - set(values))
    if unknown or missing:
        wrong = f"{prefix}{(unknown or missing)[0]} is {'unknown' if unknown else 'missing'}"
        raise ConfigError(f"{wrong}; the keys are {', '.join(prefix + key for key in hints)}")
    parsed = {}
    for key, value in values.items():
        hint = hints[key]
        if key in SCHEMAS and schema is RunConfig:
            parsed[key] = parse_group(key, value)
        else:
            parsed[key] = _typed(prefix + key, hint, value)
    return schema(**parsed)


def _has_default(field: dataclasses.Field[Any]) -> bool:
    return field.default is not dataclasses.MISSING


def _typed(key: str, hint: Any, value: Any) -> Any:
    if hint is Any:  # its own rule says what it may be
        return value
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if get_origin(hint) is list:
        fits = isinstance(value, list) and all(isinstance(item, str) for item in value)
    else:
        kinds = get_args(hint) or (hint,)
        fits = isinstance(value, kinds) and not (isinstance(value, bool) and bool not in kinds)
    if not fits:
        wanted = getattr(hint, "__name__", None) if get_origin(hint) is None else str(hint)
        raise ConfigError(f"{key} must be of type {wanted}, got {value!r}")
    return value
