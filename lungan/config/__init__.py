"""RunConfig: everything that defines one run, as plain dataclasses with their rules.

No number stands here: values live in conf/, ranges and meanings here. The package imports
neither torch nor Hydra, so every part of lungan may import it. Slots make an unknown key fail.
"""

from lungan.config.data import DataConfig as DataConfig
from lungan.config.run import GROUPS as GROUPS
from lungan.config.run import RunConfig as RunConfig
from lungan.config.run import ScoreConfig as ScoreConfig
from lungan.config.run import TrackerConfig as TrackerConfig
from lungan.config.training import AugmentConfig as AugmentConfig
from lungan.config.training import DiscriminatorConfig as DiscriminatorConfig
from lungan.config.training import GeneratorConfig as GeneratorConfig
from lungan.config.training import LossConfig as LossConfig
from lungan.config.training import OptimizerConfig as OptimizerConfig
from lungan.config.training import ScheduleConfig as ScheduleConfig
