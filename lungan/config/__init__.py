"""RunConfig: everything that defines one run, as plain dataclasses with their rules.

No number stands here: values live in conf/, ranges and meanings here. The package imports
neither torch nor Hydra, so every part of lungan may import it.

Slots make an unknown key fail; ``frozen`` and ``Literal`` are left out because OmegaConf refuses
them in structured configs.
"""

from lungan.config.data import (
    DataConfig,
    FilesConfig,
    FolderConfig,
    NpzConfig,
    PhantomConfig,
    PneumoniaMnistConfig,
    TableConfig,
)
from lungan.config.networks import (
    DcganDiscriminatorConfig,
    DcganGeneratorConfig,
    DiscriminatorConfig,
    FastganDiscriminatorConfig,
    FastganGeneratorConfig,
    GeneratorConfig,
    ResnetDiscriminatorConfig,
    ResnetGeneratorConfig,
    stages,
)
from lungan.config.rules import (
    NEUTRAL,
)
from lungan.config.run import (
    GROUPS,
    RunConfig,
)
from lungan.config.scoring import (
    ScoreConfig,
)
from lungan.config.tracking import (
    TrackerConfig,
    WandbConfig,
)
from lungan.config.training import (
    AdamConfig,
    AdaptiveConfig,
    AugmentConfig,
    ConstantScheduleConfig,
    DecayScheduleConfig,
    DiffAugmentConfig,
    LossConfig,
    OptimizerConfig,
    RmspropConfig,
    ScheduleConfig,
    SgdConfig,
    StepScheduleConfig,
)

__all__ = [
    "GROUPS",
    "NEUTRAL",
    "AdamConfig",
    "AdaptiveConfig",
    "AugmentConfig",
    "ConstantScheduleConfig",
    "DataConfig",
    "DcganDiscriminatorConfig",
    "DcganGeneratorConfig",
    "DecayScheduleConfig",
    "DiffAugmentConfig",
    "DiscriminatorConfig",
    "FastganDiscriminatorConfig",
    "FastganGeneratorConfig",
    "FilesConfig",
    "FolderConfig",
    "GeneratorConfig",
    "LossConfig",
    "NpzConfig",
    "OptimizerConfig",
    "PhantomConfig",
    "PneumoniaMnistConfig",
    "ResnetDiscriminatorConfig",
    "ResnetGeneratorConfig",
    "RmspropConfig",
    "RunConfig",
    "ScheduleConfig",
    "ScoreConfig",
    "SgdConfig",
    "StepScheduleConfig",
    "TableConfig",
    "TrackerConfig",
    "WandbConfig",
    "stages",
]
